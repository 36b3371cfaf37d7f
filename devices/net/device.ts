/**
 * The virtio network device (virtio 1.2, section 5.1): two lines of stages between a guest's queues and a network.
 *
 * Theory of operation. Queues 2n and 2n+1 are receiveq and transmitq of pair n, the last is the control queue. A round
 * (`poll`) does, in this order: commands of the control queue; frames from the guest (`FromGuest`), through the `fromGuest`
 * stages to the network; frames that waited for receive buffers (`ToGuest`); stages that are due; frames that are to be
 * offered again; and then, if nothing waits any more, a burst from the network (`FromNetwork`), which must pass the receive
 * filter *before* anything is held, and goes through the `toGuest` stages into receive buffers. At the end the used buffers
 * are published. A round that did nothing asks the driver for kicks and looks once more (`KickSwitch`).
 *
 * Between `activate` and `reset` the session belongs to the device. `reset` (also after a guest fault) discards and counts
 * what is held or waits: its buffers are gone. `drain` lets everything go in order while the driver is still there. Before
 * a command takes effect that changes what may be delivered, or where, everything held leaves under the old terms, and is
 * shown to the driver before the answer is.
 *
 * Back-pressure: while a frame waits for buffers nothing is received; while one waits for the network the guest's queue is
 * not emptied; when the frame pool has refused somebody a frame, whoever that was, held units are let go early. A link that
 * is down is no back-pressure: frames either way are dropped and counted.
 *
 * With its queue pairs in threads (`core/threads.ts`) the device in the role `control` sees only the control queue
 * (`ControlSession`), and those in the role `{ pair }` only their pair: everything from the network is theirs, and nothing
 * is steered. What is steered by the driver's table (RSS) would need all pairs, so that it is not offered then.
 *
 * @module
 */
import { DescriptorChain } from "../../core/descriptor_chain.ts";
import type { Device, DeviceContext, Session } from "../../core/device.ts";
import { GuestError } from "../../core/errors.ts";
import { FeatureSet } from "../../core/features.ts";
import { FrameBatch } from "../../core/frame_batch.ts";
import type { FramePool } from "../../core/frame_pool.ts";
import { Pipeline } from "../../core/pipeline.ts";
import type { Negotiated, RuleBook } from "../../core/stage.ts";
import type { DeviceRole } from "../../core/threads.ts";
import type { FrameTransport, GuestAccepts } from "../../core/transport.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";
import { VIRTIO_NET_F_MQ, VIRTIO_NET_F_RSS } from "../../wire/net_features.ts";
import { NetConfigSpace, SPEED_UNKNOWN } from "./config_space.ts";
import { ControlQueue } from "./control_queue.ts";
import { ControlSession } from "./control_session.ts";
import { type NetState, stateFromJson, stateToJson } from "./device_state.ts";
import { checkAcceptable, guestOffloads, offeredFeatures } from "./features.ts";
import { FromGuest, newFromGuestCounters } from "./from_guest.ts";
import { FromNetwork } from "./from_network.ts";
import { guestSends } from "./guest_sends.ts";
import { guestTakes } from "./guest_takes.ts";
import { KickSwitch } from "./kick_switch.ts";
import type { NetOptions } from "./options.ts";
import { RARP_FRAME_BYTES, writeRarp } from "./rarp.ts";
import { ReceiveFilter } from "./receive_filter.ts";
import { buildStages, stageOffers } from "./stages.ts";
import { Steering } from "./steering.ts";
import { newToGuestCounters, ToGuest } from "./to_guest.ts";

/** Commands answered in one round. */
const BURST = 64;
/** Bounds of the field `mtu` (virtio 1.2, section 5.1.4.1). */
const LEAST_MTU = 68;
const MOST_MTU = 65_535;
/** What a guest accepts that is not there. */
const NOTHING_ACCEPTED: GuestAccepts = { checksum: false, tso4: false, tso6: false, ecn: false, uso: false };

/** A network device. */
export class NetDevice implements Device {
  /** Device type 1 (virtio 1.2, section 5.1.1). */
  readonly id = 1;
  readonly name: string;
  readonly features: FeatureSet;
  readonly queueSizes: readonly number[];
  wake: () => void = () => {};
  readonly #rules: RuleBook;
  readonly #role: DeviceRole;
  readonly #pairs: number;
  readonly #mtu: number | undefined;
  readonly #network: FrameTransport;
  readonly #pool: FramePool;
  readonly #space: NetConfigSpace;
  readonly #filter: ReceiveFilter;
  readonly #steering: Steering;
  readonly #control: ControlQueue;
  readonly #toGuest: ToGuest;
  readonly #fromGuest: FromGuest;
  readonly #fromNetwork: FromNetwork;
  readonly #toGuestLine: Pipeline;
  readonly #fromGuestLine: Pipeline;
  readonly #kicks: KickSwitch;
  readonly #counters: Record<"discarded_at_reset" | "flushed_for_memory" | "activations" | "resets", number>;
  readonly #command = new DescriptorChain();
  readonly #announcement = new FrameBatch(1);
  #controlIndex = 0;
  /** What the driver has set by command: queue pairs, offloads. Null if it never has. */
  #commandedPairs: number | null = null;
  #commandedOffloads: FeatureSet | null = null;
  /** To be taken over at the next activation. */
  #restored: NetState | null = null;
  #refusalsSeen = 0;
  /** Frames that were out of the pool after the last relief. */
  #outWhenRelieved = -1;
  #session: Session | null = null;
  /** The session as far as queues are worked here. */
  #own: Session | null = null;
  /** Queue pairs that the network was told of; 0 for none. */
  #networkPairs = 0;
  #negotiated: Negotiated | null = null;
  #nowNs = 0;

  /** Builds the stages. Throws PluginError if one of them cannot be made. */
  constructor(context: DeviceContext, options: NetOptions, network: FrameTransport) {
    this.name = context.name;
    const role = context.role ?? "whole";
    this.#role = role;
    this.#rules = options.rules;
    this.#pairs = options.queuePairs;
    this.#mtu = options.mtu;
    this.#network = network;
    this.#pool = context.pool;
    this.features = offeredFeatures({
      queuePairs: options.queuePairs,
      network: network.abilities,
      fromStages: stageOffers(context.offloads),
      extra: options.extraFeatures,
      withheld: role === "whole" ? options.withheldFeatures : [...options.withheldFeatures, VIRTIO_NET_F_RSS],
      rules: options.rules,
    });
    const queueSizes = new Array<number>(2 * options.queuePairs).fill(options.queueSize);
    this.queueSizes = [...queueSizes, 64];
    this.#space = new NetConfigSpace(this.features, {
      mac: options.mac,
      queuePairs: options.queuePairs,
      mtu: options.mtu,
      speedMbps: options.speedMbps ?? SPEED_UNKNOWN,
      duplex: options.duplex,
    });
    this.#filter = new ReceiveFilter(options.mac);
    context.publish(this.#filter.counters, "filter");
    this.#steering = new Steering(options.queuePairs);
    this.#counters = context.publish({
      discarded_at_reset: 0,
      flushed_for_memory: 0,
      activations: 0,
      resets: 0,
    });
    this.#toGuest = new ToGuest(
      options.queuePairs,
      context.publish(newToGuestCounters(), "toGuest"),
      this.#steering.packetHash,
    );
    this.#fromGuest = new FromGuest(
      options.queuePairs,
      context.publish(newFromGuestCounters(), "fromGuest"),
      context.pool,
      network,
      this.#steering,
    );
    const { toGuest, fromGuest } = buildStages(context, options, network.abilities);
    this.#toGuestLine = new Pipeline(toGuest, this.#toGuest);
    this.#fromGuestLine = new Pipeline(fromGuest, this.#fromGuest);
    this.#fromNetwork = new FromNetwork({
      network,
      filter: this.#filter,
      steering: this.#steering,
      line: this.#toGuestLine,
      toGuest: this.#toGuest,
      pair: typeof role === "object" ? role.pair : null,
    });
    this.#kicks = new KickSwitch(this.#toGuest);
    this.#control = new ControlQueue({
      rules: options.rules,
      maxPairs: options.queuePairs,
      filter: this.#filter,
      steering: this.#steering,
      hooks: {
        offloadsRequested: (mask) => this.#toGuestLine.offloadsRequested(mask),
        setGuestOffloads: (offloads) => this.#setOffloads(offloads),
        setQueuePairs: (pairs) => this.#usePairs(pairs),
        announceAcked: () => this.#space.announceAcked(),
        macChanged: (mac) => this.#space.setMac(mac),
      },
    });
    context.publish(this.#control.counters, "control");
  }

  /** Copies configuration space; beyond its end there are zeros. */
  readConfig(offset: number, target: Uint8Array): void {
    this.#space.read(offset, target);
  }

  /** Takes a write to configuration space: only a legacy driver's to the MAC address. */
  writeConfig(offset: number, source: Uint8Array): void {
    this.#space.write(offset, source);
    this.#filter.setMac(this.#space.mac);
  }

  /** Judges the features a driver wants (virtio 1.2, section 5.1.3.1). */
  acceptFeatures(features: FeatureSet): void {
    checkAcceptable(features, this.features, this.#rules);
  }

  /** The driver is ready. Throws PluginError. */
  activate(session: Session): void {
    const { features } = session;
    this.#session = session;
    // One driver is one activation, however many threads there are.
    if (typeof this.#role !== "object") this.#counters.activations++;
    this.#space.negotiated(features);
    this.#filter.negotiated(features);
    const multiple = features.has(VIRTIO_NET_F_MQ) || features.has(VIRTIO_NET_F_RSS);
    this.#controlIndex = 2 * (multiple ? this.#pairs : 1);
    this.#control.negotiated(features);
    const own = this.#role === "control" ? new ControlSession(session, this.#controlIndex) : session;
    this.#own = own;
    const negotiated = { features, offloads: guestOffloads(features) };
    const takes = guestTakes(negotiated, this.#rules, this.#mtu);
    this.#toGuest.activate(own, takes);
    this.#tellNetwork(takes);
    this.#fromGuest.activate(own, guestSends(features));
    this.#kicks.begin(own, this.#controlIndex);
    this.#negotiated = negotiated;
    this.#toGuestLine.negotiated(negotiated, this.#nowNs);
    this.#fromGuestLine.negotiated(negotiated, this.#nowNs);
    if (this.#restored !== null) this.#restore(this.#restored);
    this.#useNetworkPairs();
    this.wake();
  }

  /** In the role `control`: all but the control queue. */
  lendsQueue(index: number): boolean {
    return this.#role === "control" && index < this.#controlIndex;
  }

  /**
   * Queues have come or gone. Without a command the device spreads frames over the pairs that are there: a front-end that
   * ends the control queue in itself enables as many as its driver has asked for.
   */
  queuesChanged(): void {
    const session = this.#session;
    const own = this.#own;
    if (session === null || own === null) return;
    if (own instanceof ControlSession) own.update();
    if (typeof this.#role === "object") this.#toGuest.usePairs(this.#role.pair + 1);
    else if (this.#commandedPairs === null) {
      let pairs = 0;
      if (session.features.has(VIRTIO_NET_F_MQ) && (session.queues[this.#controlIndex] ?? null) === null) {
        while (pairs < this.#pairs && (session.queues[2 * pairs] ?? null) !== null) pairs++;
      }
      this.#steering.useAutomatic(Math.max(1, pairs));
      this.#toGuest.usePairs(Math.max(1, pairs));
    }
    this.#toGuest.queuesChanged();
    this.#kicks.begin(own, this.#controlIndex);
    this.#useNetworkPairs();
    this.wake();
  }

  /** Transmit queues are emptied while they are disabled, receive queues and the control queue are left alone. */
  discardsWhenDisabled(index: number): boolean {
    return index % 2 === 1;
  }

  /** Sends a reverse ARP request with the guest's address. */
  guestMoved(mac: Uint8Array, nowNs: number): void {
    const frame = this.#pool.take(RARP_FRAME_BYTES);
    if (frame === null) return;
    writeRarp(frame.bytes, frame.start, mac);
    this.#announcement.push(frame);
    this.#fromGuest.accept(this.#announcement, nowNs);
  }

  /** Is this an MTU, and does the network carry it, and does the configuration not forbid it? */
  acceptsMtu(mtuBytes: number): boolean {
    const most = Math.min(this.#mtu ?? MOST_MTU, this.#network.maxFrameBytes - ETHERNET_HEADER_BYTES);
    return mtuBytes >= LEAST_MTU && mtuBytes <= most;
  }

  /** What the driver has programmed, as plain JSON; what is to be taken over and has not been is still there. */
  saveState(): unknown {
    if (this.#restored !== null) return stateToJson(this.#restored);
    const { rss, packetHash } = this.#steering;
    return stateToJson({
      filter: this.#filter.state,
      offloads: this.#commandedOffloads,
      pairs: this.#commandedPairs,
      rss,
      hash: rss === null && packetHash.types !== 0 ? { types: packetHash.types, key: packetHash.key } : null,
    });
  }

  /** Takes over what `saveState` gave. GuestError `device-state-invalid`. */
  restoreState(state: unknown): void {
    const parsed = stateFromJson(state, this.#pairs);
    if (this.#session === null) this.#restored = parsed;
    else this.#restore(parsed);
  }

  /**
   * The driver takes everything back. What is held for it is discarded and counted; what it has sent goes out as far as the
   * network takes it now. Throws PluginError, and is reset all the same.
   */
  reset(): void {
    this.#session = null;
    this.#own = null;
    this.#negotiated = null;
    this.#commandedPairs = null;
    this.#commandedOffloads = null;
    this.#restored = null;
    if (typeof this.#role !== "object") this.#counters.resets++;
    this.#tellNetwork(NOTHING_ACCEPTED);
    try {
      this.#counters.discarded_at_reset += this.#toGuestLine.reset();
      this.#fromGuestLine.drain(this.#nowNs);
      this.#counters.discarded_at_reset += this.#fromGuestLine.reset();
    } finally {
      this.#counters.discarded_at_reset += this.#toGuest.reset() + this.#fromGuest.reset(this.#nowNs);
      this.#control.negotiated(FeatureSet.none);
      this.#space.reset();
      this.#filter.reset(this.#space.mac);
      this.#steering.reset();
    }
  }

  /** Lets go everything that is held, both ways, in order. Throws GuestError and PluginError. */
  drain(nowNs: number): void {
    this.#nowNs = nowNs;
    this.#toGuestLine.drain(nowNs);
    this.#fromGuestLine.drain(nowNs);
    this.#toGuest.publish();
  }

  /**
   * Sets the link; the driver is told where it listens (virtio 1.2, section 5.1.4). What is held leaves first. Without the
   * feature STATUS the link is always up. Throws PluginError.
   */
  setLink(up: boolean, nowNs: number): void {
    if (!up && this.#session !== null) this.#drainBroken(nowNs);
    if (this.#space.setLink(up)) this.#session?.configChanged();
    this.#fromGuest.linkUp = this.#space.linkUp;
    this.wake();
  }

  /** Asks the driver to announce itself to the network (virtio 1.2, section 5.1.6.5.4): after a migration. */
  announce(): void {
    if (this.#space.requestAnnounce()) this.#session?.configChanged();
  }

  /** Frames that wait for receive buffers and frames that wait for the network. */
  get waitingFrames(): { toGuest: number; fromGuest: number } {
    return { toGuest: this.#toGuest.waitingFrames, fromGuest: this.#fromGuest.waitingFrames };
  }

  /** When a held unit is due or the network has a frame, in ns. */
  deadlineNs(): number {
    const due = Math.min(this.#toGuestLine.deadlineNs(), this.#fromGuestLine.deadlineNs());
    // Somebody polled after this device wants a frame that it holds; unless it wants one in vain, and did so before.
    const wanted = this.#pool.refusals !== this.#refusalsSeen && this.#pool.inUse !== this.#outWhenRelieved;
    if (due !== Infinity && wanted) return this.#nowNs;
    const mayReceive = this.#session !== null && !this.#toGuest.isBlocked && this.#toGuest.hasQueue;
    return mayReceive ? Math.min(due, this.#network.deadlineNs?.() ?? Infinity) : due;
  }

  /** One round. True if anything moved. Throws GuestError and PluginError. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    const session = this.#own;
    if (session === null) return false;
    let did = this.#pollControl(session);
    if (this.#fromGuestLine.flushDue(nowNs)) did = true;
    if (this.#fromGuest.poll(this.#fromGuestLine, nowNs)) did = true;
    if (this.#pollToGuest(session, nowNs)) did = true;
    if (this.#relieve(nowNs)) did = true;
    this.#toGuest.publish();
    return this.#kicks.after(did, session, this.#fromGuest.isCongested);
  }

  #pollControl(session: Session): boolean {
    const queue = session.queues[this.#controlIndex] ?? null;
    if (queue === null) return false;
    let commands = 0;
    while (commands < BURST && queue.pop(this.#command)) {
      if (commands === 0) session.recall?.();
      queue.push(this.#command.head, this.#control.handle(this.#command));
      commands++;
    }
    if (commands === 0) return false;
    this.#useNetworkPairs();
    if (queue.publish()) session.interrupt(this.#controlIndex);
    return true;
  }

  #pollToGuest(session: Session, nowNs: number): boolean {
    let did = this.#toGuest.retry();
    if (this.#toGuestLine.flushDue(nowNs)) did = true;
    if (this.#fromNetwork.offerAgain(session, nowNs)) did = true;
    const mayReceive = !this.#toGuest.isBlocked && this.#toGuest.hasQueue;
    if (mayReceive && this.#fromNetwork.receive(this.#space.linkUp, nowNs)) did = true;
    return did;
  }

  /** Lets held units go before their time, if the frame pool has refused somebody a frame. True if any could. */
  #relieve(nowNs: number): boolean {
    const { refusals } = this.#pool;
    if (refusals === this.#refusalsSeen) return false;
    this.#refusalsSeen = refusals;
    if (this.#toGuestLine.deadlineNs() === Infinity && this.#fromGuestLine.deadlineNs() === Infinity) {
      return false;
    }
    this.#counters.flushed_for_memory++;
    const toGuest = this.#toGuestLine.drain(nowNs);
    const fromGuest = this.#fromGuestLine.drain(nowNs);
    this.#outWhenRelieved = this.#pool.inUse;
    return toGuest || fromGuest;
  }

  /** As `drain`, outside a round, where nobody could deal with a broken ring; the next round meets it again. */
  #drainBroken(nowNs: number): void {
    try {
      this.drain(nowNs);
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
    }
  }

  /** False if the driver has not set up the first `pairs` queue pairs. Otherwise they, and no others, are used. */
  #usePairs(pairs: number): boolean {
    const queues = this.#session?.queues ?? [];
    for (let i = 0; i < 2 * pairs; i++) if ((queues[i] ?? null) === null) return false;
    this.#toGuestLine.drain(this.#nowNs);
    this.#toGuest.publish();
    this.#toGuest.usePairs(pairs);
    this.#toGuest.queuesChanged();
    this.#commandedPairs = pairs;
    return true;
  }

  #setOffloads(offloads: FeatureSet): void {
    const before = this.#negotiated;
    if (before === null) return;
    const negotiated = { features: before.features, offloads };
    this.#negotiated = negotiated;
    this.#commandedOffloads = offloads;
    // The stages first: what may be held no longer leaves under the old terms.
    this.#toGuestLine.negotiated(negotiated, this.#nowNs);
    this.#toGuest.publish();
    const takes = guestTakes(negotiated, this.#rules, this.#mtu);
    this.#toGuest.accepts(takes);
    this.#tellNetwork(takes);
  }

  /** Of several threads only the main one speaks for the guest. */
  #tellNetwork(accepts: GuestAccepts): void {
    if (typeof this.#role !== "object") this.#network.guestAccepts?.(accepts);
  }

  #useNetworkPairs(): void {
    const pairs = Math.min(this.#steering.pairs, this.#network.queuePairs);
    if (pairs === this.#networkPairs || typeof this.#role === "object") return;
    this.#networkPairs = pairs;
    this.#network.usePairs?.(pairs);
  }

  /** Takes over what the driver has programmed on another device. */
  #restore({ filter, offloads, pairs, rss, hash }: NetState): void {
    this.#restored = null;
    this.#filter.restore(filter);
    this.#space.setMac(filter.mac);
    if (pairs !== null) {
      this.#commandedPairs = pairs;
      if (typeof this.#role !== "object") {
        this.#steering.useAutomatic(pairs);
        this.#toGuest.usePairs(pairs);
      }
    }
    if (rss !== null) this.#steering.useRss(rss);
    else if (hash !== null) this.#steering.packetHash.configure(hash.types, hash.key);
    else this.#steering.packetHash.reset();
    const { features } = this.#negotiated!;
    if (offloads !== null) this.#setOffloads(offloads.intersect(guestOffloads(features)));
  }
}
