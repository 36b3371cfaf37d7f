/**
 * The control queue: commands of the driver, judged and carried out (virtio 1.2, section 5.1.6.5).
 *
 * Theory of operation. `handle` takes one chain. Its readable bytes are a class, a command and data; they are copied
 * once into `#scratch`, of fixed size, and only the copy is looked at, since the guest can change its memory meanwhile.
 * The first writable byte takes the answer. A command is checked completely before anything changes: class, command,
 * feature, length, values; then it is carried out at once, so that it is in force before the driver sees the answer.
 * What is refused changes nothing and is counted under the name of the reason. The classes that program the receive filter
 * are in `filter_commands.ts`, the layout of the longer commands in `control_commands.ts`.
 *
 * One exception is deliberate: `offloadsRequested` is told of a well-formed GUEST_OFFLOADS_SET before it is judged,
 * because the reference acts on it too early, and stages that follow the rule book `qemu` repeat that.
 *
 * Invariants: every chain with room for the answer gets one; a chain without is the only GuestError of this room
 * (reading guest memory may throw others). Limits: commands of up to MAX_COMMAND_BYTES, that is 10,920 MAC addresses.
 *
 * @module
 */
import { GuestError } from "../../core/errors.ts";
import { FeatureSet } from "../../core/features.ts";
import type { RuleBook } from "../../core/stage.ts";
import {
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_RSC_EXT,
  VIRTIO_NET_F_RSS,
} from "../../wire/net_features.ts";
import {
  type ControlCounters,
  type ControlRefusal,
  type ControlRequest,
  decodeHashSettings,
  decodeRssSettings,
  le16,
  le32,
  newControlCounters,
  refuse,
  VIRTIO_NET_CTRL_ANNOUNCE,
  VIRTIO_NET_CTRL_ANNOUNCE_ACK,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
  VIRTIO_NET_CTRL_MAC,
  VIRTIO_NET_CTRL_MQ,
  VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
  VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
  VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
  VIRTIO_NET_CTRL_RX,
  VIRTIO_NET_CTRL_VLAN,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
} from "./control_commands.ts";
import { guestOffloads } from "./features.ts";
import { FilterCommands } from "./filter_commands.ts";
import type { ReceiveFilter } from "./receive_filter.ts";
import type { Steering } from "./steering.ts";

/** Longest command that is read, class and command included. */
export const MAX_COMMAND_BYTES = 65_536;

/** What commands do to the device beyond filter and steering. Made once, called while a command is carried out. */
export interface ControlHooks {
  /** The driver asks for these guest offloads, and has not been judged yet. */
  offloadsRequested(mask: FeatureSet): void;
  /** These guest offloads, and no others, are on from now on. Under `qemu` rules RSC_EXT is never among them. */
  setGuestOffloads(offloads: FeatureSet): void;
  /** The first `pairs` queue pairs are in use from now on. False if the driver has not set one of them up: refused. */
  setQueuePairs(pairs: number): boolean;
  /** The driver has seen the request to announce itself. */
  announceAcked(): void;
  /** The device's own address is now this one, six bytes, valid during the call. The receive filter knows already. */
  macChanged(mac: Uint8Array): void;
}

/** What the control queue is made of. */
export interface ControlQueueParts {
  /** The receive filter, which commands program. */
  readonly filter: ReceiveFilter;
  /** The receive steering, which commands program. */
  readonly steering: Steering;
  /** The rest of the device. */
  readonly hooks: ControlHooks;
  /** Queue pairs of the device. */
  readonly maxPairs: number;
  /** The rule book, which differs in what it makes of RSC_EXT among the guest offloads. */
  readonly rules: RuleBook;
}

/** Answers the commands of one device's driver. */
export class ControlQueue {
  /** Commands seen, and refused by reason. */
  readonly counters: ControlCounters = newControlCounters();
  readonly #parts: ControlQueueParts;
  readonly #filterCommands: FilterCommands;
  readonly #scratch = new Uint8Array(MAX_COMMAND_BYTES);
  readonly #answer = new Uint8Array(1);
  #features: FeatureSet = FeatureSet.none;

  /** Refuses every command until features are negotiated. @param parts what commands program */
  constructor(parts: ControlQueueParts) {
    this.#parts = parts;
    this.#filterCommands = new FilterCommands(parts.filter, (mac) => parts.hooks.macChanged(mac));
  }

  /** What driver and device have agreed on; until then, and after `FeatureSet.none`, every command is refused. */
  negotiated(features: FeatureSet): void {
    this.#features = features;
  }

  /**
   * Answers one command and returns the number of bytes written, for the used ring. GuestError `buffer-too-small` if
   * there is no room for the answer.
   */
  handle(request: ControlRequest): number {
    if (request.writableBytes < 1) {
      throw new GuestError(
        "buffer-too-small",
        `A control command of ${request.readableBytes} bytes has no writable byte; the driver must add one for ack`,
      );
    }
    this.counters.commands++;
    const refusal = this.#obey(request);
    if (refusal !== null) this.counters[refusal]++;
    this.#answer[0] = refusal === null ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
    return request.write(this.#answer, 0, 1);
  }

  /** Null if the command was carried out. */
  #obey(request: ControlRequest): ControlRefusal | "too_large" | null {
    if (request.readableBytes > MAX_COMMAND_BYTES) return "too_large";
    const end = request.read(this.#scratch, 0, request.readableBytes);
    if (end < 2) return "data_short";
    const command = this.#scratch[1];
    switch (this.#scratch[0]) {
      case VIRTIO_NET_CTRL_RX:
        return this.#filterCommands.receiveMode(this.#scratch, end, this.#features);
      case VIRTIO_NET_CTRL_MAC:
        return this.#filterCommands.mac(this.#scratch, end, this.#features);
      case VIRTIO_NET_CTRL_VLAN:
        return this.#filterCommands.vlan(this.#scratch, end, this.#features);
      case VIRTIO_NET_CTRL_ANNOUNCE:
        return command === VIRTIO_NET_CTRL_ANNOUNCE_ACK ? this.#announceAck(end) : "unknown_command";
      case VIRTIO_NET_CTRL_MQ:
        if (command === VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) return this.#setPairs(end);
        if (command === VIRTIO_NET_CTRL_MQ_RSS_CONFIG) return this.#configureRss(end);
        return command === VIRTIO_NET_CTRL_MQ_HASH_CONFIG ? this.#configureHash(end) : "unknown_command";
      case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return command === VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ? this.#setOffloads(end) : "unknown_command";
      default:
        return "unknown_class";
    }
  }

  #announceAck(end: number): ControlRefusal | null {
    const refusal = refuse(this.#features, VIRTIO_NET_F_GUEST_ANNOUNCE, end, 0);
    if (refusal === null) this.#parts.hooks.announceAcked();
    return refusal;
  }

  #setPairs(end: number): ControlRefusal | null {
    const refusal = refuse(this.#features, VIRTIO_NET_F_MQ, end, 2);
    if (refusal !== null) return refusal;
    const pairs = le16(this.#scratch, 2);
    if (pairs < 1 || pairs > this.#parts.maxPairs) return "value_invalid";
    if (!this.#parts.hooks.setQueuePairs(pairs)) return "queue_not_ready";
    this.#parts.steering.useAutomatic(pairs);
    return null;
  }

  #configureRss(end: number): ControlRefusal | null {
    if (!this.#features.has(VIRTIO_NET_F_RSS)) return "not_negotiated";
    const settings = decodeRssSettings(this.#scratch, 2, end, this.#parts.maxPairs);
    if (typeof settings === "string") return settings;
    if (!this.#parts.hooks.setQueuePairs(settings.pairs)) return "queue_not_ready";
    this.#parts.steering.useRss(settings);
    return null;
  }

  #configureHash(end: number): ControlRefusal | null {
    if (!this.#features.has(VIRTIO_NET_F_HASH_REPORT)) return "not_negotiated";
    const settings = decodeHashSettings(this.#scratch, 2, end);
    if (typeof settings === "string") return settings;
    const { steering } = this.#parts;
    steering.useAutomatic(steering.pairs);
    steering.packetHash.configure(settings.hashTypes, settings.key);
    return null;
  }

  #setOffloads(end: number): ControlRefusal | null {
    const refusal = refuse(this.#features, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, end, 8);
    if (refusal !== null) return refusal;
    const { hooks, rules } = this.#parts;
    const requested = FeatureSet.fromWords(le32(this.#scratch, 2), le32(this.#scratch, 6));
    hooks.offloadsRequested(requested);
    // The reference takes RSC_EXT out before it looks whether the rest was negotiated.
    const judged = rules === "qemu" ? requested.without(VIRTIO_NET_F_RSC_EXT) : requested;
    if (!judged.minus(guestOffloads(this.#features)).isEmpty) return "not_negotiated";
    hooks.setGuestOffloads(judged);
    return null;
  }
}
