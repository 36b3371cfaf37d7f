/**
 * The virtio network device (virtio 1.2, section 5.1): two pipelines between a guest's queues and a network.
 *
 *     guest <- ToGuest <- pipeline <- FromNetwork <- network     receive filter and steering judge at FromNetwork
 *     guest -> FromGuest -> pipeline -> ToNetwork -> network     steering learns at FromGuest
 *
 * Theory of operation. Queues 2n and 2n+1 are receiveq and transmitq of queue pair n, the last is the control
 * queue. A round (`poll`) does, in this order: commands of the control queue; frames from the guest; frames
 * that waited for receive buffers; stages that are due; frames that are to be offered again; and then, if
 * nothing waits any more, a burst from the network, which must pass the receive filter *before* anything is
 * held. At the end the used buffers are published. A round that did nothing asks the driver for notifications
 * and looks once more (`NotificationSuppression`).
 *
 * Between `activate` and `reset` the session belongs to the device. `reset` (also after a guest fault)
 * discards and counts what is held or waits: its buffers are gone. `drain` flushes everything in order while
 * the driver is still there. What the driver programs meanwhile is in `driver_settings.ts`.
 *
 * Back-pressure: while a frame waits for buffers nothing is received; while one waits for the network its
 * transmit queue is not emptied; when the frame pool has refused a frame, to whatever part of the machine,
 * what is held is flushed early (`PoolPressure`). A link that is down is no back-pressure: frames either way
 * are dropped and counted.
 *
 * With its queue pairs in threads (`plugins/queue_workers.ts`) the device in the role `control` has only the
 * control queue, and those in the role `{ set }` only one pair: everything from the
 * network is theirs, and nothing is steered. What is steered by the driver's table (RSS) would need all
 * pairs, so that it is not offered then.
 *
 * @module
 */
import type { DeviceMigration, Session, WorkersCapability } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { PluginError } from "../../plugins/contract.ts";
import type { FeatureSet } from "../../core/features.ts";
import { NotificationSuppression, type QueueInterest } from "../../core/queue_service.ts";
import type { DeviceRole } from "../../plugins/plugin.ts";
import { FlowClaims, newClaimMemory } from "../../pipeline/flow_claims.ts";
import type { FrameHolder } from "../../pipeline/frame.ts";
import { type Direction, stageFault } from "../../pipeline/stage.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { type NamedStage, Pipeline } from "../../pipeline/pipeline.ts";
import {
  inheritOptions,
  type NetworkCapability,
  type NetworkDevice,
  type NetworkDeviceContext,
  stageOffers,
} from "../../pipeline/plugin.ts";
import { NET_FEATURE_NAMES, VIRTIO_NET_F_RSS } from "../../wire/net_features.ts";
import { NetConfigSpace } from "./config_space.ts";
import { DriverSettings, stateFromJson, stateToJson } from "./driver_settings.ts";
import { checkAcceptable, offeredFeatures } from "./features.ts";
import { FromGuest, newFromGuestCounters } from "./from_guest.ts";
import { FromNetwork } from "./from_network.ts";
import type { NetOptions } from "./options.ts";
import { ReceiveFilter } from "./receive_filter.ts";
import { Steering } from "./steering.ts";
import { newToGuestCounters, ToGuest } from "./to_guest.ts";
import { ToNetwork } from "./to_network.ts";

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
  readonly #counters: Record<"discarded_at_reset" | "flushed_for_memory" | "activations" | "resets", number>;
  readonly #space: NetConfigSpace;
  readonly #filter: ReceiveFilter;
  readonly #steering: Steering;
  readonly #toGuest: ToGuest;
  readonly #toGuestPipeline: Pipeline;
  readonly #fromNetwork: FromNetwork;
  readonly #toNetwork: ToNetwork;
  readonly #fromGuestPipeline: Pipeline;
  readonly #fromGuest: FromGuest;
  readonly #settings: DriverSettings;
  readonly #pressure: PoolPressure;
  readonly #interest: NetQueueInterest;
  readonly #notifications: NotificationSuppression;
  #session: Session | null = null;
  #nowNs = 0;

  /** Builds the stages and publishes counters. Throws PluginError if a stage cannot be made. */
  constructor(context: NetworkDeviceContext, options: NetOptions) {
    const { pool, parts: { network, offloads } } = context;
    const { mac, mtu, queuePairs, rules } = options;
    this.name = context.name;
    this.#role = context.role ?? "whole";
    this.#options = options;
    this.#network = network;
    const onlyPair = typeof this.#role === "object" ? this.#role.set : null;
    const { sharedMemory } = context;
    if (onlyPair !== null && sharedMemory !== undefined) {
      this.#claims = new FlowClaims(sharedMemory, onlyPair);
    }
    if (this.#role === "control") {
      const queueSets = Array.from({ length: queuePairs }, (_, pair) => [2 * pair, 2 * pair + 1]);
      this.workers = { queueSets, sharedMemory: newClaimMemory() };
    }
    const withheld = this.#role === "whole" ? [] : [VIRTIO_NET_F_RSS];
    this.features = offeredFeatures({
      queuePairs,
      network: network.capabilities,
      fromStages: stageOffers(offloads),
      extra: options.extraFeatures,
      withheld: [...options.withheldFeatures, ...withheld],
      rules,
    });
    this.queueSizes = [...new Array<number>(2 * queuePairs).fill(options.queueSize), CONTROL_QUEUE_SIZE];
    this.#space = new NetConfigSpace(this.features, options);
    this.#filter = new ReceiveFilter(mac, rules);
    context.publish(this.#filter.counters, "filter");
    this.#steering = new Steering(queuePairs);
    this.#counters = context.publish({
      discarded_at_reset: 0,
      flushed_for_memory: 0,
      activations: 0,
      resets: 0,
    });
    const toGuestCounters = context.publish(newToGuestCounters(), "toGuest");
    const fromGuestCounters = context.publish(newFromGuestCounters(), "fromGuest");
    const stages = buildStages(context, options, network.capabilities, this.#claims);
    const common = { network, filter: this.#filter, steering: this.#steering, queuePairs, pool };
    this.#toGuest = new ToGuest({
      queuePairs,
      counters: toGuestCounters,
      packetHash: this.#steering.packetHash,
      rules,
      mtu,
      arena: context.pool.arena,
    });
    this.#toGuestPipeline = new Pipeline(stages.toGuest, this.#toGuest, common);
    this.#fromNetwork = new FromNetwork({
      ...common,
      counters: toGuestCounters,
      onlyPair,
      pipeline: this.#toGuestPipeline,
      toGuest: this.#toGuest,
    });
    this.#toNetwork = new ToNetwork({
      ...common,
      counters: fromGuestCounters,
      tellsNetwork: onlyPair === null,
    });
    this.#fromGuestPipeline = new Pipeline(stages.fromGuest, this.#toNetwork, common);
    this.#fromGuest = new FromGuest({
      ...common,
      counters: fromGuestCounters,
      pipeline: this.#fromGuestPipeline,
      toNetwork: this.#toNetwork,
    });
    this.#settings = new DriverSettings({
      options,
      isOnePair: onlyPair !== null,
      space: this.#space,
      filter: this.#filter,
      steering: this.#steering,
      pipeline: this.#toGuestPipeline,
      toGuest: this.#toGuest,
      toNetwork: this.#toNetwork,
    });
    context.publish(this.#settings.counters, "control");
    this.#pressure = new PoolPressure(pool, this.#toGuestPipeline, this.#fromGuestPipeline, this.#counters);
    this.#interest = new NetQueueInterest(this.#toGuest, this.#toNetwork);
    this.#notifications = new NotificationSuppression(this.#interest);
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
    checkAcceptable(features, this.features, this.#options.rules);
  }

  /** The driver is ready. Throws PluginError. */
  activate(session: Session): void {
    const { features } = session;
    this.#session = session;
    // One driver is one activation, however many threads there are.
    if (typeof this.#role !== "object") this.#counters.activations++;
    this.#space.negotiated(features);
    this.#filter.negotiated(features);
    const negotiated = this.#settings.begin(session);
    const { controlIndex } = this.#settings;
    this.#toGuest.activate(session, negotiated);
    this.#toNetwork.guestCapabilities(this.#toGuest.capabilities);
    this.#toNetwork.hasGuest(true);
    this.#fromGuest.activate(session);
    this.#interest.controlIndex = controlIndex;
    this.#notifications.begin(session.queues);
    this.#toGuestPipeline.negotiated(negotiated, this.#nowNs);
    this.#fromGuestPipeline.negotiated(negotiated, this.#nowNs);
    this.#settings.takeOver(this.#nowNs);
    this.#toNetwork.useQueuePairs(this.#steering.pairs);
    this.wake();
  }

  /** Queues have come or gone. */
  queuesChanged(): void {
    const session = this.#session;
    if (session === null) return;
    if (typeof this.#role === "object") this.#toGuest.useQueuePairs(this.#role.set + 1);
    else this.#settings.queuesChanged();
    this.#toGuest.queuesChanged();
    this.#notifications.begin(session.queues);
    this.#toNetwork.useQueuePairs(this.#steering.pairs);
    this.wake();
  }

  /** What the driver has programmed; what is to be taken over and has not been is still part of it. */
  readonly migration: DeviceMigration = {
    save: () => stateToJson(this.#settings.state),
    restore: (state) => this.#settings.restore(stateFromJson(state, this.#options.queuePairs), this.#nowNs),
  };

  /**
   * Sends a reverse ARP request for a guest that has moved; judges MTUs; transmit queues are emptied while
   * disabled.
   */
  readonly net: NetworkCapability = {
    guestMoved: (mac, nowNs) => this.#toNetwork.sendRarp(mac, nowNs),
    acceptsMtu: (mtuBytes) => this.#toNetwork.acceptsMtu(mtuBytes, this.#options.mtu),
    discardsWhenDisabled: (index) => index % 2 === 1,
  };

  /**
   * The driver takes everything back. What is held for it is discarded and counted; what it has sent goes out
   * as far as the network takes it now. Throws PluginError, and is reset all the same.
   */
  reset(): void {
    const counters = this.#counters;
    this.#session = null;
    this.#settings.reset();
    if (typeof this.#role !== "object") counters.resets++;
    try {
      this.#toNetwork.guestCapabilities(OffloadCapabilities.none);
      counters.discarded_at_reset += this.#toGuestPipeline.reset();
      this.#fromGuestPipeline.drain(this.#nowNs);
      counters.discarded_at_reset += this.#fromGuestPipeline.reset();
    } finally {
      this.#fromGuest.reset();
      counters.discarded_at_reset += this.#toGuest.reset() + this.#toNetwork.reset(this.#nowNs);
      this.#claims?.settle();
      this.#space.reset();
      this.#filter.reset(this.#space.mac);
      this.#steering.reset();
      this.#toNetwork.hasGuest(false);
    }
  }

  /** Flushes everything that is held, both ways, in order. Throws GuestError and PluginError. */
  drain(nowNs: number): void {
    this.#nowNs = nowNs;
    this.#toGuestPipeline.drain(nowNs);
    this.#fromGuestPipeline.drain(nowNs);
    this.#publish();
  }

  /**
   * Sets the link; the driver is told where it listens (virtio 1.2, section 5.1.4). What is held is flushed
   * first. Without the feature STATUS the link is always up. Throws PluginError.
   */
  setLink(up: boolean, nowNs: number): void {
    if (!up && this.#session !== null) this.#drainBroken(nowNs);
    if (this.#space.setLink(up)) this.#session?.configChanged();
    this.#fromNetwork.linkUp = this.#space.linkUp;
    this.#toNetwork.linkUp = this.#space.linkUp;
    this.wake();
  }

  /** Asks the driver to announce itself to the network (virtio 1.2, section 5.1.6.5.4): after a migration. */
  announce(): void {
    if (this.#space.requestAnnounce()) this.#session?.configChanged();
  }

  /** Frames that wait for receive buffers and frames that wait for the network. */
  get waitingFrames(): { toGuest: number; fromGuest: number } {
    return { toGuest: this.#toGuest.waitingFrames, fromGuest: this.#toNetwork.waitingFrames };
  }

  /** When a held frame is due or the network has a frame, in ns. */
  deadlineNs(): number {
    const due = Math.min(this.#toGuestPipeline.deadlineNs(), this.#fromGuestPipeline.deadlineNs());
    // What is polled after this device wants a frame that it holds.
    if (due !== Infinity && this.#pressure.isWanted) return this.#nowNs;
    const mayReceive = this.#session !== null && !this.#toGuest.isBlocked && this.#toGuest.hasQueue;
    return mayReceive ? Math.min(due, this.#network.deadlineNs?.() ?? Infinity) : due;
  }

  /** Has the driver added frames or commands of which nothing has told? */
  look(): boolean {
    return this.#session !== null && this.#notifications.look(this.#session.queues);
  }

  /** One round. True if anything moved. Throws GuestError and PluginError. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    const session = this.#session;
    if (session === null) return false;
    let did = this.#settings.poll(session, nowNs);
    if (this.#claims?.takeWanted() === true && this.#toGuestPipeline.drain(nowNs)) did = true;
    if (this.#fromGuestPipeline.flushDue(nowNs)) did = true;
    if (this.#fromGuest.poll(nowNs)) did = true;
    if (this.#toGuest.retry()) did = true;
    if (this.#toGuestPipeline.flushDue(nowNs)) did = true;
    if (this.#fromNetwork.offerAgain(session, nowNs)) did = true;
    const mayReceive = !this.#toGuest.isBlocked && this.#toGuest.hasQueue;
    if (mayReceive && this.#fromNetwork.poll(nowNs)) did = true;
    if (this.#pressure.relieve(nowNs)) did = true;
    this.#publish();
    return this.#notifications.after(did, session.queues);
  }

  /**
   * Shows the guest what it has got, and the other threads that it has got it; what waits for buffers it has
   * not.
   */
  #publish(): void {
    this.#toGuest.publish();
    if (this.#claims !== null && !this.#toGuest.isBlocked) this.#claims.settle();
  }

  /**
   * As `drain`, outside a round, where a broken ring could not be dealt with; the next round meets it again.
   */
  #drainBroken(nowNs: number): void {
    try {
      this.drain(nowNs);
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
    }
  }
}

/** Which queues the device wants to hear of. */
export class NetQueueInterest implements QueueInterest {
  /** Index of the control queue. */
  controlIndex = 0;
  readonly #toGuest: Pick<ToGuest, "isBlockedAt">;
  readonly #toNetwork: Pick<ToNetwork, "isBlocked">;

  /** Asks these what waits. */
  constructor(toGuest: Pick<ToGuest, "isBlockedAt">, toNetwork: Pick<ToNetwork, "isBlocked">) {
    this.#toGuest = toGuest;
    this.#toNetwork = toNetwork;
  }

  /** The control queue; a transmit queue, unless frames wait for the network, which then wakes the device. */
  isServed(index: number): boolean {
    return index === this.controlIndex || ((index & 1) === 1 && !this.#toNetwork.isBlocked);
  }

  /** A receive queue for which frames wait. */
  isStarved(index: number): boolean {
    return (index & 1) === 0 && index !== this.controlIndex && this.#toGuest.isBlockedAt(index >>> 1);
  }
}

/** Time between two looks at who has the frames, in ns: every frame is looked at. */
const LOOK_INTERVAL_NS = 1_000_000_000;

/**
 * Pool pressure: lets held frames go before their time when memory for frames runs out.
 *
 * The pool counts to which parts it has refused a frame: this device, or another with the same pool. A
 * refusal that was not seen yet calls for relief: everything that is held is flushed, both ways. What is
 * polled after the device may be refused as well, so that a refusal also makes the device due at once
 * (`isWanted`). If that helped nothing, because as many frames are out of the pool as after the last relief,
 * the device is not due again: those frames are not held here. Once a second a stage is looked for that has
 * most of them although it has flushed everything: it keeps them for ever.
 */
class PoolPressure {
  readonly #pool: FramePool;
  readonly #toGuest: Pipeline;
  readonly #fromGuest: Pipeline;
  readonly #counters: Record<"flushed_for_memory", number>;
  #refusalsSeen = 0;
  /** Frames that were out of the pool after the last relief. */
  #outWhenRelieved = -1;
  #lookedNs = -Infinity;

  /**
   * Watches `pool`.
   * @param toGuest and
   * @param fromGuest hold frames;
   * @param counters where relief is counted
   */
  constructor(
    pool: FramePool,
    toGuest: Pipeline,
    fromGuest: Pipeline,
    counters: Record<"flushed_for_memory", number>,
  ) {
    this.#pool = pool;
    this.#toGuest = toGuest;
    this.#fromGuest = fromGuest;
    this.#counters = counters;
  }

  /** Is a frame wanted? Not if it was so before, in vain. */
  get isWanted(): boolean {
    return this.#pool.refusals !== this.#refusalsSeen && this.#pool.inUse !== this.#outWhenRelieved;
  }

  /**
   * Flushes what is held, if the pool has refused a frame. True if anything moved. Throws GuestError and
   * PluginError.
   */
  relieve(nowNs: number): boolean {
    const { refusals } = this.#pool;
    if (refusals === this.#refusalsSeen) return false;
    this.#refusalsSeen = refusals;
    let did = false;
    if (this.#toGuest.deadlineNs() !== Infinity || this.#fromGuest.deadlineNs() !== Infinity) {
      this.#counters.flushed_for_memory++;
      const toGuest = this.#toGuest.drain(nowNs);
      const fromGuest = this.#fromGuest.drain(nowNs);
      this.#outWhenRelieved = this.#pool.inUse;
      did = toGuest || fromGuest;
    }
    if (nowNs - this.#lookedNs >= LOOK_INTERVAL_NS) {
      this.#lookedNs = nowNs;
      this.#toGuest.refuseHoarders();
      this.#fromGuest.refuseHoarders();
    }
    return did;
  }
}

/**
 * Makes the stages, in order, for each direction; a plugin for both makes one for each. A plugin that stands
 * in several places is told apart by a number, as in `drop-every#2`. Throws PluginError if a plugin's
 * `create` throws, or returns no stage.
 */
export function buildStages(
  context: NetworkDeviceContext,
  options: NetOptions,
  network: OffloadCapabilities,
  claims: FlowClaims | null = null,
): Record<Direction, NamedStage[]> {
  const stages: Record<Direction, NamedStage[]> = { toGuest: [], fromGuest: [] };
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
          isTimeVirtual: context.isTimeVirtual,
          verdicts: context.verdicts,
          publish: (counters) => context.publish(counters, group),
        }, inheritOptions(plugin, offload.options, options));
        const fault = stageFault(stage);
        if (fault !== null) throw new TypeError(fault);
        stages[direction].push({ name, stage, holder });
      } catch (cause) {
        throw new PluginError(plugin.name, "create", cause, path);
      }
    }
  }
  return stages;
}
