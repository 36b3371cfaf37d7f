/**
 * What the driver has programmed: by commands of the control queue, or on another device, whose state is taken over.
 *
 * Theory of operation. `poll` carries out commands (`ControlQueue`). Filter and steering are programmed at once; queue pairs
 * and guest offloads are kept here as well, because they belong to the state that a migration takes along. Before a command
 * takes effect that changes what may be delivered, or where, everything held leaves under the old terms, and is shown to
 * the driver before the answer is.
 *
 * A state that is restored before the driver is ready waits for that: it is in force from `takeOver` on, and is still the
 * state to save until then. `reset` forgets everything but what was never the driver's.
 *
 * With the queue pairs in threads, the settings of a thread with one pair come as a state only, and nothing is steered there.
 *
 * @module
 */
import { DescriptorChain } from "../../core/descriptor_chain.ts";
import type { Session } from "../../core/device.ts";
import { FeatureSet } from "../../core/features.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { requestOffloads } from "../../pipeline/qemu_compat.ts";
import type { Negotiated } from "../../pipeline/stage.ts";
import { VIRTIO_NET_F_MQ, VIRTIO_NET_F_RSS } from "../../wire/net_features.ts";
import type { NetConfigSpace, NetOptions } from "./config_space.ts";
import { type ControlCounters, ControlQueue } from "./control_queue.ts";
import type { NetState } from "./device_state.ts";
import { guestOffloads } from "./features.ts";
import { guestTakes, type NetworkTerms } from "./from_network.ts";
import type { ReceiveFilter } from "./receive_filter.ts";
import type { Steering } from "./steering.ts";
import type { ToGuest } from "./to_guest.ts";

/** Commands answered in one round. */
const BURST = 64;
/** What they may take of the round's budget: enough for that many short ones, or for a few of the longest. */
const MAX_UNITS = 262_144;

/** What settings program. */
export interface DriverSettingsParts {
  /** What the configuration says. */
  readonly options: NetOptions;
  /** Is one pair worked here, and nothing steered? */
  readonly onePair: boolean;
  /** Configuration space. */
  readonly space: NetConfigSpace;
  /** The receive filter. */
  readonly filter: ReceiveFilter;
  /** The receive steering. */
  readonly steering: Steering;
  /** The stages to the guest. */
  readonly line: Pipeline;
  /** The end of the line. */
  readonly toGuest: ToGuest;
  /** What the network is told. */
  readonly terms: NetworkTerms;
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
    const { options, filter, steering, space, line } = parts;
    this.#control = new ControlQueue({
      rules: options.rules,
      maxPairs: options.queuePairs,
      filter,
      steering,
      hooks: {
        offloadsRequested: (mask) => requestOffloads(line, mask),
        setGuestOffloads: (offloads) => this.#setOffloads(offloads),
        setQueuePairs: (pairs) => this.#usePairs(pairs),
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

  /** Carries out commands. True if there was one. Throws GuestError and PluginError. @param own where the control queue is */
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
    this.#parts.terms.usePairs(this.#parts.steering.pairs);
    if (queue.publish()) own.interrupt(this.#controlIndex);
    return true;
  }

  /**
   * Queues have come or gone. Without a command frames are spread over the pairs that are there: a front-end that ends the
   * control queue in itself enables as many as its driver has asked for.
   */
  queuesChanged(): void {
    const session = this.#session;
    if (session === null || this.#pairs !== null) return;
    const { options, steering, toGuest } = this.#parts;
    let pairs = 0;
    if (session.features.has(VIRTIO_NET_F_MQ) && (session.queues[this.#controlIndex] ?? null) === null) {
      while (pairs < options.queuePairs && (session.queues[2 * pairs] ?? null) !== null) pairs++;
    }
    steering.useAutomatic(Math.max(1, pairs));
    toGuest.usePairs(Math.max(1, pairs));
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
    const { onePair, space, steering, toGuest } = this.#parts;
    this.#restored = null;
    this.#nowNs = nowNs;
    this.#parts.filter.restore(filter);
    space.setMac(filter.mac);
    if (pairs !== null) {
      this.#pairs = pairs;
      if (!onePair) {
        steering.useAutomatic(pairs);
        toGuest.usePairs(pairs);
      }
    }
    if (rss !== null) steering.useRss(rss);
    else if (hash !== null) steering.packetHash.configure(hash.types, hash.key);
    else steering.packetHash.reset();
    const { features } = this.#negotiated!;
    if (offloads !== null) this.#setOffloads(offloads.intersect(guestOffloads(features)));
  }

  /** False if the driver has not set up the first `pairs` queue pairs. Otherwise they, and no others, are used. */
  #usePairs(pairs: number): boolean {
    const { line, toGuest } = this.#parts;
    const queues = this.#session?.queues ?? [];
    for (let i = 0; i < 2 * pairs; i++) if ((queues[i] ?? null) === null) return false;
    line.drain(this.#nowNs);
    toGuest.publish();
    toGuest.usePairs(pairs);
    toGuest.queuesChanged();
    this.#pairs = pairs;
    return true;
  }

  #setOffloads(offloads: FeatureSet): void {
    const before = this.#negotiated;
    if (before === null) return;
    const { options, line, toGuest, terms } = this.#parts;
    const negotiated = { features: before.features, offloads };
    this.#negotiated = negotiated;
    this.#offloads = offloads;
    // The stages first: what may be held no longer leaves under the old terms.
    line.negotiated(negotiated, this.#nowNs);
    toGuest.publish();
    const takes = guestTakes(negotiated, options.rules, options.mtu);
    toGuest.accepts(takes);
    terms.guestCapabilities(takes.capabilities);
  }
}
