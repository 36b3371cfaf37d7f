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
 * what is held or waits: its buffers are gone. `drain` lets everything go in order while the driver is still there. What the
 * driver programs meanwhile is in `driver_settings.ts`.
 *
 * Back-pressure: while a frame waits for buffers nothing is received; while one waits for the network the guest's queue is
 * not emptied; when the frame pool has refused somebody a frame, whoever that was, held packets are let go early
 * (`MemoryRelief`). A link that is down is no back-pressure: frames either way are dropped and counted.
 *
 * With its queue pairs in threads (`core/queue_workers.ts`) the device in the role `control` sees only the control queue
 * (`ControlSession`), and those in the role `{ set }` only one pair: everything from the network is theirs, and nothing
 * is steered. What is steered by the driver's table (RSS) would need all pairs, so that it is not offered then.
 *
 * @module
 */
import { kindOf, refusePromise } from "../../core/contract.ts";
import { stageFault } from "../../pipeline/frame_contract.ts";
import type { DeviceMigration, Session } from "../../core/device.ts";
import {
  inheritOptions,
  type NetworkCapability,
  type NetworkDevice,
  type NetworkDeviceContext,
  type ResolvedOffload,
} from "../../pipeline/plugin.ts";
import { GuestError, PluginError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import { FlowClaims, newClaimMemory } from "../../pipeline/flow_claims.ts";
import type { FrameHolder } from "../../pipeline/frame.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { type NamedStage, Pipeline } from "../../pipeline/pipeline.ts";
import type { Direction } from "../../pipeline/stage.ts";
import type { DeviceRole, WorkersCapability } from "../../core/queue_workers.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { NET_FEATURE_NAMES, VIRTIO_NET_F_RSS } from "../../wire/net_features.ts";
import { NetConfigSpace, type NetOptions, SPEED_UNKNOWN } from "./config_space.ts";
import { ControlSession } from "./control_queue.ts";
import { stateFromJson, stateToJson } from "./device_state.ts";
import { DriverSettings } from "./driver_settings.ts";
import { checkAcceptable, offeredFeatures } from "./features.ts";
import { FromGuest, guestSends } from "./from_guest.ts";
import { FromNetwork, guestTakes, NetworkTerms } from "./from_network.ts";
import { KickSwitch } from "./kick_switch.ts";
import { newFromGuestCounters, newToGuestCounters } from "./path_counters.ts";
import { RarpSender } from "./rarp.ts";
import { ReceiveFilter } from "./receive_filter.ts";
import { Steering } from "./steering.ts";
import { MemoryRelief, ToGuest } from "./to_guest.ts";

/** Most entries of the control queue. User-mode Linux and crosvm make all their rings of 256. */
const CONTROL_QUEUE_SIZE = 256;

/** A network device. */
export class NetDevice implements NetworkDevice {
  /** Device type 1 (virtio 1.2, section 5.1.1). */
  readonly type = 1;
  readonly name: string;
  readonly features: FeatureSet;
  readonly featureNames: ReadonlyMap<number, string> = NET_FEATURE_NAMES;
  readonly queueSizes: readonly number[];
  /** Each queue pair is a set. The sets share what they claim of flows. */
  readonly workers?: WorkersCapability;
  wake: () => void = () => {};
  readonly #role: DeviceRole;
  readonly #options: NetOptions;
  readonly #network: FrameTransport;
  readonly #claims: FlowClaims | null = null;
  readonly #parts: NetParts;
  #session: Session | null = null;
  /** The session as far as queues are worked here. */
  #own: Session | null = null;
  #nowNs = 0;

  /** Builds the stages. Throws PluginError if one of them cannot be made. */
  constructor(context: NetworkDeviceContext, options: NetOptions) {
    const { network } = context.parts;
    this.name = context.name;
    this.#role = context.role ?? "whole";
    this.#options = options;
    this.#network = network;
    const { sharedMemory } = context;
    if (typeof this.#role === "object" && sharedMemory !== undefined) {
      this.#claims = new FlowClaims(sharedMemory, this.#role.set);
    }
    this.#parts = buildParts(context, this.#role, options, network, this.#claims);
    if (this.#role === "control") {
      const queueSets = Array.from({ length: options.queuePairs }, (_, pair) => [2 * pair, 2 * pair + 1]);
      this.workers = { queueSets, sharedMemory: newClaimMemory() };
    }
    this.features = this.#parts.features;
    const queueSizes = new Array<number>(2 * options.queuePairs).fill(options.queueSize);
    this.queueSizes = [...queueSizes, CONTROL_QUEUE_SIZE];
  }

  /** Copies configuration space; beyond its end there are zeros. */
  readConfig(offset: number, target: Uint8Array): void {
    this.#parts.space.read(offset, target);
  }

  /** Takes a write to configuration space: only a legacy driver's to the MAC address. */
  writeConfig(offset: number, source: Uint8Array): void {
    const { space, filter } = this.#parts;
    space.write(offset, source);
    filter.setMac(space.mac);
  }

  /** Judges the features a driver wants (virtio 1.2, section 5.1.3.1). */
  acceptFeatures(features: FeatureSet): void {
    checkAcceptable(features, this.features, this.#options.rules);
  }

  /** The driver is ready. Throws PluginError. */
  activate(session: Session): void {
    const { counters, space, filter, settings, terms, toGuest, fromGuest, kicks } = this.#parts;
    const { features } = session;
    this.#session = session;
    // One driver is one activation, however many threads there are.
    if (typeof this.#role !== "object") counters.activations++;
    space.negotiated(features);
    filter.negotiated(features);
    const negotiated = settings.begin(session);
    const own = this.#role === "control" ? new ControlSession(session, settings.controlIndex) : session;
    this.#own = own;
    const takes = guestTakes(negotiated, this.#options.rules, this.#options.mtu);
    toGuest.activate(own, takes);
    terms.guestCapabilities(takes.capabilities);
    terms.hasGuest(true);
    fromGuest.activate(own, guestSends(features));
    kicks.begin(own, settings.controlIndex);
    this.#parts.toGuestLine.negotiated(negotiated, this.#nowNs);
    this.#parts.fromGuestLine.negotiated(negotiated, this.#nowNs);
    settings.takeOver(this.#nowNs);
    terms.usePairs(this.#parts.steering.pairs);
    this.wake();
  }

  /** Queues have come or gone. */
  queuesChanged(): void {
    const own = this.#own;
    if (own === null) return;
    const { settings, toGuest } = this.#parts;
    if (own instanceof ControlSession) own.update();
    if (typeof this.#role === "object") toGuest.usePairs(this.#role.set + 1);
    else settings.queuesChanged();
    toGuest.queuesChanged();
    this.#parts.kicks.begin(own, settings.controlIndex);
    this.#parts.terms.usePairs(this.#parts.steering.pairs);
    this.wake();
  }

  /** What the driver has programmed; what is to be taken over and has not been is still part of it. */
  readonly migration: DeviceMigration = {
    save: () => stateToJson(this.#parts.settings.state),
    restore: (state) =>
      this.#parts.settings.restore(stateFromJson(state, this.#options.queuePairs), this.#nowNs),
  };

  /** Sends a reverse ARP request for a guest that has moved; judges MTUs; transmit queues are emptied while disabled. */
  readonly net: NetworkCapability = {
    guestMoved: (mac, nowNs) => this.#parts.rarp.send(mac, nowNs),
    // Does the network carry it, and does the configuration not forbid it?
    acceptsMtu: (mtuBytes) => this.#parts.terms.carriesMtu(mtuBytes, this.#options.mtu),
    discardsWhenDisabled: (index) => index % 2 === 1,
  };

  /**
   * The driver takes everything back. What is held for it is discarded and counted; what it has sent goes out as far as the
   * network takes it now. Throws PluginError, and is reset all the same.
   */
  reset(): void {
    const { counters, space, toGuest, fromGuest, toGuestLine, fromGuestLine } = this.#parts;
    this.#session = null;
    this.#own = null;
    this.#parts.settings.reset();
    if (typeof this.#role !== "object") counters.resets++;
    try {
      this.#parts.terms.guestCapabilities(OffloadCapabilities.none);
      counters.discarded_at_reset += toGuestLine.reset();
      fromGuestLine.drain(this.#nowNs);
      counters.discarded_at_reset += fromGuestLine.reset();
    } finally {
      counters.discarded_at_reset += toGuest.reset() + fromGuest.reset(this.#nowNs);
      this.#claims?.settle();
      space.reset();
      this.#parts.filter.reset(space.mac);
      this.#parts.steering.reset();
      this.#parts.terms.hasGuest(false);
    }
  }

  /** Lets go everything that is held, both ways, in order. Throws GuestError and PluginError. */
  drain(nowNs: number): void {
    this.#nowNs = nowNs;
    this.#parts.toGuestLine.drain(nowNs);
    this.#parts.fromGuestLine.drain(nowNs);
    this.#publish();
  }

  /**
   * Sets the link; the driver is told where it listens (virtio 1.2, section 5.1.4). What is held leaves first. Without the
   * feature STATUS the link is always up. Throws PluginError.
   */
  setLink(up: boolean, nowNs: number): void {
    const { space, fromGuest } = this.#parts;
    if (!up && this.#session !== null) this.#drainBroken(nowNs);
    if (space.setLink(up)) this.#session?.configChanged();
    fromGuest.linkUp = space.linkUp;
    this.wake();
  }

  /** Asks the driver to announce itself to the network (virtio 1.2, section 5.1.6.5.4): after a migration. */
  announce(): void {
    if (this.#parts.space.requestAnnounce()) this.#session?.configChanged();
  }

  /** Frames that wait for receive buffers and frames that wait for the network. */
  get waitingFrames(): { toGuest: number; fromGuest: number } {
    const { toGuest, fromGuest } = this.#parts;
    return { toGuest: toGuest.waitingFrames, fromGuest: fromGuest.waitingFrames };
  }

  /** When a held packet is due or the network has a frame, in ns. */
  deadlineNs(): number {
    const { toGuest, toGuestLine, fromGuestLine, relief } = this.#parts;
    const due = Math.min(toGuestLine.deadlineNs(), fromGuestLine.deadlineNs());
    // Somebody polled after this device wants a frame that it holds.
    if (due !== Infinity && relief.isWanted) return this.#nowNs;
    const mayReceive = this.#session !== null && !toGuest.isBlocked && toGuest.hasQueue;
    return mayReceive ? Math.min(due, this.#network.deadlineNs?.() ?? Infinity) : due;
  }

  /** One round. True if anything moved. Throws GuestError and PluginError. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    const session = this.#own;
    if (session === null) return false;
    const { fromGuest, fromGuestLine, toGuestLine } = this.#parts;
    let did = this.#parts.settings.poll(session, nowNs);
    if (this.#claims?.takeWanted() === true && toGuestLine.drain(nowNs)) did = true;
    if (fromGuestLine.flushDue(nowNs)) did = true;
    if (fromGuest.poll(fromGuestLine, nowNs)) did = true;
    if (this.#pollToGuest(session, nowNs)) did = true;
    if (this.#parts.relief.relieve(nowNs)) did = true;
    this.#publish();
    return this.#parts.kicks.after(did, session, fromGuest.isCongested);
  }

  /** Shows the guest what it has got, and the other threads that it has got it; what waits for buffers it has not. */
  #publish(): void {
    const { toGuest } = this.#parts;
    toGuest.publish();
    if (this.#claims !== null && !toGuest.isBlocked) this.#claims.settle();
  }

  #pollToGuest(session: Session, nowNs: number): boolean {
    const { toGuest, toGuestLine, fromNetwork, space } = this.#parts;
    let did = toGuest.retry();
    if (toGuestLine.flushDue(nowNs)) did = true;
    if (fromNetwork.offerAgain(session, nowNs)) did = true;
    const mayReceive = !toGuest.isBlocked && toGuest.hasQueue;
    if (mayReceive && fromNetwork.receive(space.linkUp, nowNs)) did = true;
    return did;
  }

  /** As `drain`, outside a round, where nobody could deal with a broken ring; the next round meets it again. */
  #drainBroken(nowNs: number): void {
    try {
      this.drain(nowNs);
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
    }
  }
}

// What a network device is made of: builds the parts and joins them.
//
//     guest ◄─ toGuest ◄─ toGuestLine ◄─ fromNetwork ◄─ network      filter and steering judge at fromNetwork
//     guest ─► fromGuest ─► fromGuestLine ─► fromGuest ─► network    steering learns at fromGuest

/** What the device counts itself. */
export type NetCounters = Record<
  "discarded_at_reset" | "flushed_for_memory" | "activations" | "resets",
  number
>;

/** The parts of one device. */
export interface NetParts {
  /** The features that it offers. */
  readonly features: FeatureSet;
  /** What it counts itself. */
  readonly counters: NetCounters;
  /** Configuration space. */
  readonly space: NetConfigSpace;
  /** The receive filter. */
  readonly filter: ReceiveFilter;
  /** The receive steering. */
  readonly steering: Steering;
  /** The last step to the guest. */
  readonly toGuest: ToGuest;
  /** The first and the last step from the guest. */
  readonly fromGuest: FromGuest;
  /** The first step to the guest. */
  readonly fromNetwork: FromNetwork;
  /** The stages to the guest. */
  readonly toGuestLine: Pipeline;
  /** The stages from the guest. */
  readonly fromGuestLine: Pipeline;
  /** When the device wants to be kicked. */
  readonly kicks: KickSwitch;
  /** What tells the network where the guest is. */
  readonly rarp: RarpSender;
  /** What is done when the frame pool runs dry. */
  readonly relief: MemoryRelief;
  /** What the network is told. */
  readonly terms: NetworkTerms;
  /** What the driver has programmed. */
  readonly settings: DriverSettings;
}

/** Builds the parts and publishes their counters. Throws PluginError if a stage cannot be made. */
export function buildParts(
  context: NetworkDeviceContext,
  role: DeviceRole,
  options: NetOptions,
  network: FrameTransport,
  claims: FlowClaims | null,
): NetParts {
  const { queuePairs } = options;
  const features = offeredFeatures({
    queuePairs,
    network: network.capabilities,
    fromStages: stageOffers(context.parts.offloads),
    extra: options.extraFeatures,
    withheld: role === "whole" ? options.withheldFeatures : [...options.withheldFeatures, VIRTIO_NET_F_RSS],
    rules: options.rules,
  });
  const space = new NetConfigSpace(features, {
    mac: options.mac,
    queuePairs,
    mtu: options.mtu,
    speedMbps: options.speedMbps ?? SPEED_UNKNOWN,
    duplex: options.duplex,
  });
  const filter = new ReceiveFilter(options.mac, options.rules);
  context.publish(filter.counters, "filter");
  const steering = new Steering(queuePairs);
  const counters: NetCounters = context.publish({
    discarded_at_reset: 0,
    flushed_for_memory: 0,
    activations: 0,
    resets: 0,
  });
  const toGuest = new ToGuest(
    queuePairs,
    context.publish(newToGuestCounters(), "toGuest"),
    steering.packetHash,
  );
  const fromGuest = new FromGuest(
    queuePairs,
    context.publish(newFromGuestCounters(), "fromGuest"),
    context.pool,
    network,
    steering,
  );
  const stages = buildStages(context, options, network.capabilities, claims);
  const line = { pool: context.pool, queuePairs };
  const toGuestLine = new Pipeline(stages.toGuest, toGuest, line);
  const fromGuestLine = new Pipeline(stages.fromGuest, fromGuest, line);
  const pair = typeof role === "object" ? role.set : null;
  const fromNetwork = new FromNetwork({ network, filter, steering, line: toGuestLine, toGuest, pair });
  const terms = new NetworkTerms(network, pair === null);
  const onePair = pair !== null;
  const settings = new DriverSettings({
    options,
    onePair,
    space,
    filter,
    steering,
    line: toGuestLine,
    toGuest,
    terms,
  });
  context.publish(settings.counters, "control");
  return {
    features,
    counters,
    space,
    filter,
    steering,
    toGuest,
    fromGuest,
    fromNetwork,
    toGuestLine,
    fromGuestLine,
    kicks: new KickSwitch(toGuest),
    rarp: new RarpSender(context.pool, fromGuest),
    relief: new MemoryRelief(context.pool, toGuestLine, fromGuestLine, counters),
    terms,
    settings,
  };
}

// From the offloads of the configuration to the stages of the two lines.

/** The feature bits that these offloads let the device offer. Throws PluginError if a plugin's `offers` throws. */
export function stageOffers(offloads: readonly ResolvedOffload[]): number[] {
  return offloads.flatMap(({ plugin, options, path }) => {
    const { offers } = plugin;
    if (typeof offers !== "function") return [...offers ?? []];
    try {
      const bits: unknown = offers(options);
      refusePromise(bits);
      if (Array.isArray(bits) && bits.every((bit) => Number.isInteger(bit) && bit >= 0 && bit <= 127)) {
        return bits;
      }
      throw new TypeError(`it returned ${kindOf(bits)}; a list of feature bits, 0 to 127, is needed`);
    } catch (cause) {
      throw new PluginError(plugin.name, "offers", cause, path);
    }
  });
}

/**
 * Makes the stages, in order, for each direction; a plugin for both makes one for each. A plugin that stands in several
 * places is told apart by a number, as in `drop-every#2`. Throws PluginError if a plugin's `create` throws, or
 * returns no stage.
 */
export function buildStages(
  context: NetworkDeviceContext,
  options: NetOptions,
  network: OffloadCapabilities,
  claims: FlowClaims | null = null,
): Record<Direction, NamedStage[]> {
  const lines: Record<Direction, NamedStage[]> = { toGuest: [], fromGuest: [] };
  const used = new Map<string, number>();
  for (const offload of context.parts.offloads) {
    const { plugin, path = "" } = offload;
    const times = (used.get(plugin.name) ?? 0) + 1;
    used.set(plugin.name, times);
    const name = times === 1 ? plugin.name : `${plugin.name}#${times}`;
    for (const direction of ["toGuest", "fromGuest"] as const) {
      if (plugin.direction !== "both" && plugin.direction !== direction) continue;
      const group = plugin.direction === "both" ? `${name}.${direction}` : name;
      const holder: FrameHolder = { plugin: plugin.name, path, kind: "stage" };
      try {
        const stage = plugin.create({
          name,
          direction,
          pool: context.pool.lentTo(holder),
          queuePairs: options.queuePairs,
          network,
          claims: claims ?? undefined,
          verdicts: context.verdicts,
          publish: (counters) => context.publish(counters, group),
        }, inheritOptions(plugin, offload.options, options));
        const fault = stageFault(stage);
        if (fault !== null) throw new TypeError(fault);
        lines[direction].push({ name, stage, holder });
      } catch (cause) {
        throw new PluginError(plugin.name, "create", cause, path);
      }
    }
  }
  return lines;
}
