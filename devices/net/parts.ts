/**
 * What a network device is made of: builds the parts and joins them.
 *
 *     guest ◄─ toGuest ◄─ toGuestLine ◄─ fromNetwork ◄─ network      filter and steering judge at fromNetwork
 *     guest ─► fromGuest ─► fromGuestLine ─► fromGuest ─► network    steering learns at fromGuest
 *
 * @module
 */
import type { DeviceContext } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import { Pipeline } from "../../core/pipeline.ts";
import type { DeviceRole } from "../../core/threads.ts";
import type { FrameTransport } from "../../core/transport.ts";
import { VIRTIO_NET_F_RSS } from "../../wire/net_features.ts";
import { NetConfigSpace, SPEED_UNKNOWN } from "./config_space.ts";
import { DriverSettings } from "./driver_settings.ts";
import { offeredFeatures } from "./features.ts";
import { FromGuest } from "./from_guest.ts";
import { FromNetwork } from "./from_network.ts";
import { KickSwitch } from "./kick_switch.ts";
import { MemoryRelief } from "./memory_relief.ts";
import { NetworkTerms } from "./network_terms.ts";
import type { NetOptions } from "./options.ts";
import { newFromGuestCounters, newToGuestCounters } from "./path_counters.ts";
import { RarpSender } from "./rarp.ts";
import { ReceiveFilter } from "./receive_filter.ts";
import { buildStages, stageOffers } from "./stages.ts";
import { Steering } from "./steering.ts";
import { ToGuest } from "./to_guest.ts";

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
  context: DeviceContext,
  role: DeviceRole,
  options: NetOptions,
  network: FrameTransport,
): NetParts {
  const { queuePairs } = options;
  const features = offeredFeatures({
    queuePairs,
    network: network.abilities,
    fromStages: stageOffers(context.offloads),
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
  const stages = buildStages(context, options, network.abilities);
  const line = { pool: context.pool, queuePairs };
  const toGuestLine = new Pipeline(stages.toGuest, toGuest, line);
  const fromGuestLine = new Pipeline(stages.fromGuest, fromGuest, line);
  const pair = typeof role === "object" ? role.pair : null;
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
