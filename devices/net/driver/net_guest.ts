/**
 * The driver's half of a network device: a software guest that sends and receives frames.
 *
 * Theory of operation. One turn goes over the queue pairs: it first takes back what the device has
 * transmitted, then takes what it has received, posts the receive buffers again, and last looks at the
 * control queue and makes frames up if that is the guest's behaviour. From each queue it takes at most
 * 64 chains; what is left stays pending for the next turn (see `QueueNotifications`).
 *
 * A received packet is gathered in the storage of the queues, header fields in `#packet`. A listener that
 * keeps them gets a copy of both; with option `reuse` every listener looks at the same object and the
 * gathered bytes. An echo is made from the gathered bytes in place, after the hook was told.
 *
 * After `detach()` nothing is touched any more; a loop that is under way when a hook detaches the guest ends
 * at once.
 * @module
 */
import type { Device } from "../../../core/device.ts";
import { HostError } from "../../../core/errors.ts";
import type { FeatureSet } from "../../../core/features.ts";
import type { SoftwareDriver } from "../../../plugins/plugin.ts";
import { chainCapacity } from "../../../guest/driver_ring.ts";
import type { PlacedQueue, QueuePlan } from "../../../guest/guest_queues.ts";
import {
  type GuestCounters,
  type GuestHooks,
  newGuestCounters,
  type QueueNotifications,
} from "../../../guest/software_guest.ts";
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MRG_RXBUF } from "../../../wire/net_features.ts";
import {
  HASH_NET_HEADER_BYTES,
  headerBytes as netHeaderBytes,
  type NetHeaderFields,
} from "../../../wire/virtio_net_header.ts";
import { echoHeader, FrameMaker, swapMacs } from "./behaviour.ts";
import {
  CONTROL_DESCRIPTORS,
  CONTROL_MEMORY_BYTES,
  type ControlCommand,
  ControlQueue,
  NetControl,
  readMaxQueuePairs,
} from "./control.ts";
import {
  chooseNetFeatures,
  type GuestOptions,
  guestOptions,
  type GuestOptionsInput,
  guestOptionsSchema,
  LARGEST_PACKET_BYTES,
  receiveBufferBytes,
} from "./options.ts";
import { PacketStorage, ReceivedPacket, ReceiveQueue } from "./receive_queue.ts";
import { TransmitQueue } from "./transmit_queue.ts";

/** Frames that one turn makes up at most. */
const MAX_MADE = 64;
/** The guest's own address if the device gives it none: locally administered. */
const LOCAL_MAC: Uint8Array = Uint8Array.of(0x02, 0, 0, 0, 0, 1);
const PLAIN: Partial<NetHeaderFields> = {};

/** What the guest tells of itself. */
export interface NetGuestHooks extends GuestHooks {
  /** A packet has come. With option `reuse` the object and its bytes are only valid during the call. */
  onPacket?(packet: ReceivedPacket): void;
  /** The device has used a transmitted frame of this queue pair. */
  onUsedTransmit?(queue: number): void;
  /** The device has answered a command. */
  onControl?(command: ControlCommand): void;
}

/** What the guest counts. */
export type NetGuestCounters = GuestCounters & {
  /** Packets received. */
  received: number;
  /** Bytes of these, without headers. */
  receivedBytes: number;
  /** Frames given to the device, echoes included. */
  sent: number;
  /** Bytes of these, without headers. */
  sentBytes: number;
  /** Frames that the device has used. */
  transmitted: number;
  /** Packets returned to their sender. */
  echoed: number;
  /** Packets not returned since the device takes no such frames, or no ring of this size can hold them. */
  echoRefused: number;
  /** Packets not returned since the ring was full. */
  echoDropped: number;
};

/** The queues of one attachment. */
interface NetQueues {
  /** Receive queues by pair. */
  readonly receive: readonly ReceiveQueue[];
  /** Transmit queues by pair. */
  readonly transmit: readonly TransmitQueue[];
  /** The control queue, if CTRL_VQ was accepted. */
  readonly control: ControlQueue | null;
  /** The control queue's index; -1 if there is none. */
  readonly controlIndex: number;
  /** Where received packets are gathered. */
  readonly storage: PacketStorage;
}

/**
 * A driver of network devices, in memory.
 *
 * @example
 * ```ts
 * import { NetGuest } from "./net_guest.ts";
 * const guest = new NetGuest({ ring: "packed", queueSize: 7, mergeable: false });
 * if (guest.attached) throw new Error("unreachable");
 * ```
 */
export class NetGuest extends NetControl {
  /** Its options, complete. */
  declare readonly options: GuestOptions;
  /** Whom it tells what; may be filled at any time. */
  declare readonly hooks: NetGuestHooks;
  /** What it has counted, over all attachments; live. */
  declare readonly counters: NetGuestCounters;
  readonly #echo: NetHeaderFields = {
    flags: 0,
    gsoType: 0,
    hdrLen: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
  };
  #maxPairs = 1;
  #queues: NetQueues | null = null;
  /** Makes frames up, if that is the guest's behaviour. */
  #maker: FrameMaker | null = null;
  #packet = new ReceivedPacket();
  #blocked = false;

  /**
   * Makes a guest that is not attached yet. RangeError if an option is wrong.
   * @param options what is left out has its default
   * @param hooks whom to tell what
   */
  constructor(options: GuestOptionsInput = {}, hooks: NetGuestHooks = {}) {
    const counters: NetGuestCounters = {
      received: 0,
      receivedBytes: 0,
      sent: 0,
      sentBytes: 0,
      transmitted: 0,
      echoed: 0,
      echoRefused: 0,
      echoDropped: 0,
      ...newGuestCounters(),
    };
    super(guestOptions(options), hooks, counters);
  }

  /** Posts up to `count` receive buffers on a queue pair, and kicks if wanted. Returns how many fitted. */
  postReceiveBuffers(count: number, queue = 0): number {
    const posted = this.#attachedQueues(queue).receive[queue].post(count);
    this.notifications.publish(2 * queue);
    return posted;
  }

  /**
   * Sends a frame on a queue pair under a header with these fields, the rest 0, and kicks if wanted. False if
   * the ring is full. RangeError for a frame that can never fit.
   */
  send(frame: Uint8Array, header: Partial<NetHeaderFields> = PLAIN, queue = 0): boolean {
    const sent = this.enqueue(frame, header, queue);
    if (sent) this.flush(queue);
    return sent;
  }

  /** Like `send`, but the device only hears of it at the next `flush`: for many frames at once. */
  enqueue(frame: Uint8Array, header: Partial<NetHeaderFields> = PLAIN, queue = 0): boolean {
    return this.#enqueue(this.#attachedQueues(queue).transmit[queue], frame, header);
  }

  /** Shows the device all frames enqueued on a queue pair, and kicks if wanted. */
  flush(queue = 0): void {
    this.#attachedQueues(queue);
    this.notifications.publish(2 * queue + 1);
  }

  /**
   * Sends a command (virtio 1.2, section 5.1.6.5) and kicks if wanted. Its `ack` is there once the device has
   * answered and the guest was polled. Error without a control queue or if too many commands are waiting.
   */
  override control(commandClass: number, command: number, data: Uint8Array): ControlCommand {
    const { control, controlIndex } = this.#attachedQueues(0);
    if (control === null) {
      throw new Error(`Cannot send command ${commandClass}/${command}: feature CTRL_VQ was not negotiated`);
    }
    const waiting = control.add(commandClass, command, data);
    this.notifications.publish(controlIndex);
    return waiting;
  }

  /** Accepts what the options say. */
  protected override chooseFeatures(offered: FeatureSet): FeatureSet {
    return chooseNetFeatures(offered, this.options);
  }

  /** Uses the queue pairs that the options say, and the control queue if there is one. */
  protected override planQueues(plan: QueuePlan, device: Device): void {
    const { queuePairs, descriptorsPerBuffer: pieces, transmitBufferBytes: slotBytes } = this.options;
    const { features } = plan;
    const bufferBytes = receiveBufferBytes(this.options, features);
    const longest = Math.ceil((netHeaderBytes(features) + LARGEST_PACKET_BYTES) / slotBytes) + pieces;
    const maxPairs = this.#maxPairs = readMaxQueuePairs(features, device);
    if (queuePairs > maxPairs) {
      throw new HostError(
        `Cannot use ${queuePairs} queue pairs, the device has ${maxPairs}: lower queuePairs`,
      );
    }
    for (let pair = 0; pair < queuePairs; pair++) {
      plan.addQueue(2 * pair, {
        longest: pieces,
        shortest: pieces,
        bufferBytes: (size) => plan.chainCapacity(size, pieces) * bufferBytes,
      });
      plan.addQueue(2 * pair + 1, { longest, shortest: pieces, bufferBytes: (size) => size * slotBytes });
    }
    if (!features.has(VIRTIO_NET_F_CTRL_VQ)) return;
    plan.addQueue(2 * maxPairs, {
      longest: CONTROL_DESCRIPTORS,
      shortest: 1,
      bufferBytes: () => CONTROL_MEMORY_BYTES,
    });
  }

  /** Makes the queues, and what makes frames up. */
  protected override prepare(placed: readonly PlacedQueue[]): void {
    this.#queues = this.#makeQueues(placed);
    this.#blocked = false;
    this.#maker = this.#makeMaker(this.#queues);
  }

  /** Posts receive buffers, and tells the device how many pairs are used. */
  protected override begin(): void {
    const { queuePairs, receiveBuffers } = this.options;
    const buffers = receiveBuffers === "all" ? Infinity : receiveBuffers;
    for (let pair = 0; pair < queuePairs; pair++) this.postReceiveBuffers(buffers, pair);
    if (queuePairs > 1) this.setQueuePairs(queuePairs);
  }

  /** Takes what was transmitted and received and answered, and makes frames up. */
  protected override work(nowNs: number): boolean {
    const queues = this.#queues!;
    const { notifications } = this;
    let worked = false;
    for (let pair = 0; pair < queues.receive.length; pair++) {
      if (notifications.work(2 * pair + 1, this.#takeTransmitted) > 0) worked = true;
      if (this.#receive(queues.receive[pair], notifications, 2 * pair)) worked = true;
    }
    if (queues.control !== null && notifications.work(queues.controlIndex, this.#takeAnswer) > 0) {
      worked = true;
    }
    if (this.#maker !== null && this.#make(this.#maker, queues, notifications, nowNs)) worked = true;
    return worked;
  }

  /** When the next frame is to be made up, in ns. */
  protected override nextNs(): number {
    return this.#maker === null || this.#blocked ? Infinity : this.#maker.deadlineNs;
  }

  #makeQueues(placed: readonly PlacedQueue[]): NetQueues {
    const { features, memory, options } = this;
    const { queuePairs, descriptorsPerBuffer: pieces, transmitBufferBytes: slotBytes, legacy } = options;
    const headerBytes = netHeaderBytes(features);
    const bufferBytes = receiveBufferBytes(options, features);
    const report = (problem: string) => this.malformed(problem);
    const receive: ReceiveQueue[] = [];
    const transmit: TransmitQueue[] = [];
    const storage = new PacketStorage(LARGEST_PACKET_BYTES + HASH_NET_HEADER_BYTES);
    const mergeable = features.has(VIRTIO_NET_F_MRG_RXBUF);
    for (let pair = 0; pair < queuePairs; pair++) {
      const from = placed[2 * pair];
      const to = placed[2 * pair + 1];
      receive.push(
        new ReceiveQueue(
          from.ring,
          memory,
          {
            address: from.buffers,
            bufferBytes,
            pieces,
            headerBytes,
            mergeable,
            buffers: chainCapacity(from.place.indirectUse, from.ring.size, pieces),
          },
          storage,
          report,
        ),
      );
      const { indirectUse, size, tableEntries } = to.place;
      transmit.push(
        new TransmitQueue(to.ring, memory, {
          address: to.buffers,
          slotBytes,
          slots: to.ring.size,
          pieces,
          maxDescriptors: indirectUse === "never" ? size : Math.min(tableEntries, size),
          headerBytes,
        }, report),
      );
    }
    const hasControl = features.has(VIRTIO_NET_F_CTRL_VQ);
    const last = placed[placed.length - 1];
    const control = hasControl ? new ControlQueue(last.ring, memory, last.buffers, legacy, report) : null;
    return { receive, transmit, control, controlIndex: hasControl ? 2 * this.#maxPairs : -1, storage };
  }

  #makeMaker({ transmit }: NetQueues): FrameMaker | null {
    const { behaviour } = this.options;
    if (typeof behaviour !== "object") return null;
    const { frameBytes } = behaviour.send;
    if (!transmit[0].fits(frameBytes)) {
      throw new HostError(
        `Cannot send frames of ${frameBytes} bytes through this ring: raise transmitBufferBytes or queueSize`,
      );
    }
    return new FrameMaker(behaviour.send, this.mac ?? LOCAL_MAC);
  }

  #enqueue(queue: TransmitQueue, frame: Uint8Array, header: Partial<NetHeaderFields>): boolean {
    if (!queue.add(frame, header)) return false;
    this.counters.sent++;
    this.counters.sentBytes += frame.length;
    return true;
  }

  readonly #takeTransmitted = (index: number): boolean => {
    const pair = index >>> 1;
    const found = this.#queues!.transmit[pair].reclaim(this.options.legacy);
    if (found === "nothing") return false;
    if (found === "malformed") return true;
    this.counters.transmitted++;
    this.#blocked = false;
    this.hooks.onUsedTransmit?.(pair);
    return true;
  };

  readonly #takeReceived = (index: number): boolean => {
    const queues = this.#queues!;
    const queue = queues.receive[index >>> 1];
    const found = queue.take(this.#packet);
    if (found === "packet") this.#deliver(queues, this.notifications, index >>> 1, queue.length);
    return found !== "nothing";
  };

  readonly #takeAnswer = (): boolean => {
    const answered = this.#queues!.control!.take();
    if (answered !== null) this.hooks.onControl?.(answered);
    return answered !== null;
  };

  /** Receives, and posts again what was taken. */
  #receive(queue: ReceiveQueue, notifications: QueueNotifications, index: number): boolean {
    const taken = notifications.work(index, this.#takeReceived);
    if (taken === 0 || notifications.closed) return taken > 0;
    if (this.options.receiveBuffers === "all") {
      queue.post(Infinity);
      notifications.publish(index);
    }
    if (this.options.behaviour === "echo") notifications.publish(index + 1);
    return true;
  }

  #deliver(queues: NetQueues, notifications: QueueNotifications, pair: number, length: number): void {
    const packet = this.#packet;
    const { storage, transmit } = queues;
    const { reuse, behaviour } = this.options;
    const { counters } = this;
    packet.queuePair = pair;
    packet.bytes = reuse ? storage.view(length) : storage.copy(length);
    counters.received++;
    counters.receivedBytes += length;
    const echo = behaviour === "echo" && transmit[pair].fits(length) &&
      echoHeader(packet, this.features, this.#echo);
    if (behaviour === "echo" && !echo) counters.echoRefused++;
    this.hooks.onPacket?.(packet);
    if (!reuse) this.#packet = new ReceivedPacket();
    if (!echo || notifications.closed) return;
    const frame = storage.view(length);
    swapMacs(frame);
    if (this.#enqueue(transmit[pair], frame, this.#echo)) counters.echoed++;
    else counters.echoDropped++;
  }

  #make(maker: FrameMaker, queues: NetQueues, notifications: QueueNotifications, nowNs: number): boolean {
    let made = 0;
    while (made < MAX_MADE && !notifications.closed) {
      const frame = maker.due(nowNs);
      if (frame === null) break;
      this.#blocked = !this.#enqueue(queues.transmit[0], frame, PLAIN);
      if (this.#blocked) break;
      maker.sent();
      made++;
    }
    if (made > 0) notifications.publish(1);
    return made > 0;
  }

  #attachedQueues(pair: number): NetQueues {
    if (!this.attached) {
      throw new Error("Cannot use a guest that is not attached to a device: attach it first");
    }
    if (!(pair >= 0 && pair < this.options.queuePairs)) {
      throw new RangeError(
        `Cannot use queue pair ${pair}: it must be from 0 to ${this.options.queuePairs - 1}`,
      );
    }
    return this.#queues!;
  }
}

/** The driver's half of `net`. */
export const netDriver: SoftwareDriver<GuestOptions> = {
  options: guestOptionsSchema,
  create: (options) => new NetGuest(options),
};
