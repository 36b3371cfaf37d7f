/**
 * What the driver has programmed: by commands of the control queue, or on another device, whose state is
 * taken over.
 *
 * Theory of operation. `poll` carries out commands (`ControlQueue`). Filter and steering are programmed at
 * once; queue pairs and guest offloads are kept here as well, because they belong to the state that a
 * migration takes along. Before a command takes effect that changes what may be delivered, or where,
 * everything held is delivered by what was agreed on before, and is shown to the driver before the answer is.
 *
 * The state (`NetState`) goes through a migration as plain JSON; counters do not. One that is restored before
 * the driver is ready waits for that: it is in force from `takeOver` on, and is still the state to save until
 * then. `reset` forgets everything but what was never the driver's.
 *
 * With the queue pairs in threads, the settings of a thread with one pair come as a state only, and nothing
 * is steered there.
 *
 * @module
 */
import { z } from "zod";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import type { Session } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { FeatureSet } from "../../core/features.ts";
import { MAX_QUEUE_PAIRS } from "../../pipeline/frame.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { requestOffloads } from "../../pipeline/qemu_compat.ts";
import type { Negotiated } from "../../pipeline/stage.ts";
import { formatMac, isMulticast, MAC_BYTES, MAC_PATTERN, parseMac } from "../../wire/ethernet.ts";
import { VIRTIO_NET_F_MQ, VIRTIO_NET_F_RSS } from "../../wire/net_features.ts";
import type { NetConfigSpace } from "./config_space.ts";
import { type ControlCounters, ControlQueue, RECEIVE_MODES } from "./control_queue.ts";
import { guestOffloads } from "./features.ts";
import type { NetOptions } from "./options.ts";
import { type FilterState, MAC_TABLE_ENTRIES, type ReceiveFilter, VLAN_IDS } from "./receive_filter.ts";
import {
  RSS_MAX_KEY_BYTES,
  RSS_MAX_TABLE_LENGTH,
  type RssSettings,
  type Steering,
  SUPPORTED_HASH_TYPES,
} from "./steering.ts";
import type { ToGuest } from "./to_guest.ts";
import type { ToNetwork } from "./to_network.ts";

/** Commands answered in one round. */
const BURST = 64;
/** What they may take of the round's budget: enough for that many short ones, or for a few of the longest. */
const MAX_UNITS = 262_144;

/** What settings program. */
export interface DriverSettingsParts {
  /** What the configuration says. */
  readonly options: NetOptions;
  /** Is one queue pair served here, and nothing steered? */
  readonly isOnePair: boolean;
  /** Configuration space. */
  readonly space: NetConfigSpace;
  /** The receive filter. */
  readonly filter: ReceiveFilter;
  /** The receive steering. */
  readonly steering: Steering;
  /** What frames to the guest go through. */
  readonly pipeline: Pipeline;
  /** The end of the pipeline. */
  readonly toGuest: ToGuest;
  /** What tells the network of the guest. */
  readonly toNetwork: ToNetwork;
}

/** The settings of one device's driver. */
export class DriverSettings {
  readonly #parts: DriverSettingsParts;
  readonly #control: ControlQueue;
  readonly #command = new DescriptorChain();
  #controlIndex = 0;
  /** Queue pairs and offloads that the driver has set by command. Null if it never has. */
  #pairs: number | null = null;
  #offloads: FeatureSet | null = null;
  /** To be taken over when the driver is ready. */
  #restored: NetState | null = null;
  #session: Session | null = null;
  #negotiated: Negotiated | null = null;
  /** Of the round whose commands are carried out. */
  #nowNs = 0;

  /** Nothing is programmed yet. @param parts what settings program */
  constructor(parts: DriverSettingsParts) {
    this.#parts = parts;
    const { options, filter, steering, space, pipeline } = parts;
    this.#control = new ControlQueue({
      rules: options.rules,
      maxPairs: options.queuePairs,
      filter,
      steering,
      hooks: {
        offloadsRequested: (mask) => requestOffloads(pipeline, mask),
        setGuestOffloads: (offloads) => this.#setOffloads(offloads),
        setQueuePairs: (pairs) => this.#useQueuePairs(pairs),
        announceAcked: () => space.announceAcked(),
        macChanged: (mac) => space.setMac(mac),
      },
    });
  }

  /** Commands seen, and refused by reason. */
  get counters(): ControlCounters {
    return this.#control.counters;
  }

  /** Index of the control queue (virtio 1.2, section 5.1.2); 0 before the first driver. */
  get controlIndex(): number {
    return this.#controlIndex;
  }

  /** The driver is ready and may give commands. Returns what it has agreed to. */
  begin(session: Session): Negotiated {
    const { features } = session;
    const multiple = features.has(VIRTIO_NET_F_MQ) || features.has(VIRTIO_NET_F_RSS);
    this.#controlIndex = 2 * (multiple ? this.#parts.options.queuePairs : 1);
    this.#control.negotiated(features);
    this.#session = session;
    this.#negotiated = { features, offloads: guestOffloads(features) };
    return this.#negotiated;
  }

  /** The driver is gone, and with it all that it has programmed. */
  reset(): void {
    this.#session = null;
    this.#negotiated = null;
    this.#pairs = null;
    this.#offloads = null;
    this.#restored = null;
    this.#control.negotiated(FeatureSet.none);
  }

  /**
   * Carries out commands. True if there was one. Throws GuestError and PluginError.
   * @param own where the control queue is
   */
  poll(own: Session, nowNs: number): boolean {
    const queue = own.queues[this.#controlIndex] ?? null;
    if (queue === null) return false;
    this.#nowNs = nowNs;
    let commands = 0;
    let units = 0;
    while (commands < BURST && units < MAX_UNITS && queue.pop(this.#command)) {
      if (commands === 0) own.detachWorkers?.();
      units += this.#command.units;
      queue.push(this.#command.head, this.#control.handle(this.#command));
      commands++;
    }
    if (commands === 0) return false;
    this.#parts.toNetwork.useQueuePairs(this.#parts.steering.pairs);
    if (queue.publish()) own.interrupt(this.#controlIndex);
    return true;
  }

  /**
   * Queues have come or gone. Without a command frames are spread over the pairs that are there: a front-end
   * that ends the control queue in itself enables as many as its driver has asked for.
   */
  queuesChanged(): void {
    const session = this.#session;
    if (session === null || this.#pairs !== null) return;
    const { options, steering, toGuest } = this.#parts;
    let pairs = 0;
    if (session.features.has(VIRTIO_NET_F_MQ) && !isEnabled(session, this.#controlIndex)) {
      while (pairs < options.queuePairs && isEnabled(session, 2 * pairs)) pairs++;
    }
    steering.useAutomatic(Math.max(1, pairs));
    toGuest.useQueuePairs(Math.max(1, pairs));
  }

  /** What the driver has programmed; what is to be taken over and has not been is still there. */
  get state(): NetState {
    if (this.#restored !== null) return this.#restored;
    const { rss, packetHash } = this.#parts.steering;
    return {
      filter: this.#parts.filter.state,
      offloads: this.#offloads,
      pairs: this.#pairs,
      rss,
      hash: rss === null && packetHash.types !== 0 ? { types: packetHash.types, key: packetHash.key } : null,
    };
  }

  /** Takes over what the driver has programmed on another device: now, or as soon as it is ready. */
  restore(state: NetState, nowNs: number): void {
    this.#restored = state;
    if (this.#session !== null) this.takeOver(nowNs);
  }

  /** Takes over what waits for that, if anything does. The driver is ready. */
  takeOver(nowNs: number): void {
    if (this.#restored === null) return;
    const { filter, offloads, pairs, rss, hash } = this.#restored;
    const { isOnePair, space, steering, toGuest } = this.#parts;
    this.#restored = null;
    this.#nowNs = nowNs;
    this.#parts.filter.restore(filter);
    space.setMac(filter.mac);
    if (pairs !== null) {
      this.#pairs = pairs;
      if (!isOnePair) {
        steering.useAutomatic(pairs);
        toGuest.useQueuePairs(pairs);
      }
    }
    if (rss !== null) steering.useRss(rss);
    else if (hash !== null) steering.packetHash.configure(hash.types, hash.key);
    else steering.packetHash.reset();
    const { features } = this.#negotiated!;
    if (offloads !== null) this.#setOffloads(offloads.intersect(guestOffloads(features)));
  }

  /**
   * False if the driver has not set up the first `pairs` queue pairs. Otherwise they, and no others, are
   * used.
   */
  #useQueuePairs(pairs: number): boolean {
    const { pipeline, toGuest } = this.#parts;
    const session = this.#session;
    for (let i = 0; i < 2 * pairs; i++) if (session === null || !isEnabled(session, i)) return false;
    pipeline.drain(this.#nowNs);
    toGuest.publish();
    toGuest.useQueuePairs(pairs);
    toGuest.queuesChanged();
    this.#pairs = pairs;
    return true;
  }

  #setOffloads(offloads: FeatureSet): void {
    const before = this.#negotiated;
    if (before === null) return;
    const { pipeline, toGuest, toNetwork } = this.#parts;
    const negotiated = { features: before.features, offloads };
    this.#negotiated = negotiated;
    this.#offloads = offloads;
    // The stages first: what may be held no longer is delivered by what was agreed on before.
    pipeline.negotiated(negotiated, this.#nowNs);
    toGuest.publish();
    toGuest.negotiated(negotiated);
    toNetwork.guestCapabilities(toGuest.capabilities);
  }
}

/** The state of one device. */
export interface NetState {
  /** The receive filter. */
  readonly filter: FilterState;
  /** The guest offloads that are on; null if the driver has never changed them. */
  readonly offloads: FeatureSet | null;
  /** Queue pairs that the driver has asked for; null if it never did. */
  readonly pairs: number | null;
  /** Receive-side scaling; null in automatic mode. */
  readonly rss: RssSettings | null;
  /** What hashes are reported; null for none, and where RSS says it. */
  readonly hash: { readonly types: number; readonly key: Uint8Array } | null;
}

const mac = z.string().regex(MAC_PATTERN).transform(parseMac);
const key = z.array(z.int().min(0).max(255)).max(RSS_MAX_KEY_BYTES).transform((bytes) =>
  Uint8Array.from(bytes)
);
const types = z.int().min(0).max(SUPPORTED_HASH_TYPES);

const schema = z.strictObject({
  mac: mac.refine((address) => !isMulticast(address, 0)),
  modes: z.array(z.enum(RECEIVE_MODES)).max(RECEIVE_MODES.length),
  unicast: z.array(mac).max(MAC_TABLE_ENTRIES),
  multicast: z.array(mac).max(MAC_TABLE_ENTRIES),
  unicastOverflow: z.boolean(),
  multicastOverflow: z.boolean(),
  vlans: z.array(z.int().min(0).max(VLAN_IDS - 1)).max(VLAN_IDS),
  offloads: z.string().regex(/^0x[0-9a-f]{1,16}$/).nullable(),
  pairs: z.int().min(1).max(MAX_QUEUE_PAIRS).nullable(),
  rss: z.strictObject({
    hashTypes: types,
    table: z.array(z.int().min(0).max(0x7fff)).min(1).max(RSS_MAX_TABLE_LENGTH)
      .refine((table) => (table.length & (table.length - 1)) === 0),
    unclassifiedPair: z.int().min(0).max(0x7fff),
    pairs: z.int().min(1).max(MAX_QUEUE_PAIRS),
    key,
  }).nullable(),
  hash: z.strictObject({ types, key }).nullable(),
});

/** The state as plain JSON. */
export function stateToJson(state: NetState): z.input<typeof schema> {
  const { filter, offloads, pairs, rss, hash } = state;
  return {
    mac: formatMac(filter.mac),
    modes: [...filter.modes],
    unicast: addresses(filter.unicast),
    multicast: addresses(filter.multicast),
    unicastOverflow: filter.unicastOverflow,
    multicastOverflow: filter.multicastOverflow,
    vlans: [...filter.vlans],
    offloads: offloads?.toString() ?? null,
    pairs,
    rss: rss && { ...rss, table: [...rss.table], key: [...rss.key] },
    hash: hash && { types: hash.types, key: [...hash.key] },
  };
}

/**
 * The inverse. GuestError `device-state-invalid` for anything else, and for more than `maxPairs` queue pairs.
 */
export function stateFromJson(json: unknown, maxPairs: number): NetState {
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const [{ path, message }] = parsed.error.issues;
    throw invalid(`field "${path.join(".")}" of the state: ${message}`);
  }
  const { offloads, rss, ...rest } = parsed.data;
  const { mac: own, modes, unicast, multicast, unicastOverflow, multicastOverflow, vlans } = rest;
  const pairs = Math.max(rest.pairs ?? 1, rss?.pairs ?? 1);
  if (pairs > maxPairs) throw invalid(`it uses ${pairs} queue pairs, this device has ${maxPairs}`);
  if (rss !== null && [...rss.table, rss.unclassifiedPair].some((pair) => pair >= rss.pairs)) {
    throw invalid(`its indirection table names pairs beyond the ${rss.pairs} in use`);
  }
  return {
    filter: {
      mac: own,
      modes,
      unicast: joined(unicast),
      multicast: joined(multicast),
      unicastOverflow,
      multicastOverflow,
      vlans,
    },
    offloads: offloads === null ? null : FeatureSet.fromBigInt(BigInt(offloads)),
    pairs: rest.pairs,
    rss: rss && { ...rss, table: Uint16Array.from(rss.table) },
    hash: rest.hash,
  };
}

function addresses(table: Uint8Array): string[] {
  return Array.from(
    { length: table.length / MAC_BYTES },
    (_, i) => formatMac(table.subarray(MAC_BYTES * i, MAC_BYTES * (i + 1))),
  );
}

function joined(table: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(MAC_BYTES * table.length);
  table.forEach((address, i) => bytes.set(address, MAC_BYTES * i));
  return bytes;
}

function invalid(remedy: string): GuestError {
  return new GuestError("device-state-invalid", `The state cannot be taken over: ${remedy}`);
}

/** Has the driver enabled a queue, whether it is served here or by a worker? */
function isEnabled(session: Session, index: number): boolean {
  return session.isEnabled?.(index) ?? (session.queues[index] ?? null) !== null;
}
