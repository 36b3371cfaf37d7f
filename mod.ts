/**
 * Virtio devices in TypeScript: what plugins are written with, and what builds and runs a machine from a configuration.
 *
 * A plugin is an object that one of `defineOffload`, `defineNetwork`, `defineDriver`, `defineDevice` returns; a
 * configuration names it by its module. A whole program is `loadConfig`, `buildMachine`, `Machine.run`. Tests of plugins
 * are written with `@deno-virtio/deno-virtio/testing`. Run as a program, this module is the command line.
 *
 * ```ts
 * import { buildMachine, newRegistry, parseConfig } from "./mod.ts";
 *
 * const text = `{
 *   "clock": "virtual",
 *   "devices": [{ "use": "net", "driver": "loopback", "network": "loopback", "offloads": ["rsc-v4", "rsc-v6"] }]
 * }`;
 * const config = await parseConfig(text, import.meta.url, newRegistry());
 * await using machine = buildMachine(config);
 * machine.start();
 * await machine.run(new AbortController().signal);
 * ```
 *
 * @module
 */
export { GuestError, type GuestFault, HostError, PluginError } from "./core/errors.ts";
export {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "./core/features.ts";
export { Frame, type FrameHolder, type FrameOwner, NetHeader } from "./core/frame.ts";
export {
  FRAME_HEADROOM_BYTES,
  FramePool,
  type FramePoolOptions,
  MAX_FRAME_BYTES,
} from "./core/frame_pool.ts";
export { FrameBatch } from "./core/frame_batch.ts";
export type { FlowClaims } from "./core/flow_claims.ts";
export {
  type Direction,
  type Negotiated,
  type NetworkAbilities,
  perFrame,
  type RuleBook,
  type Stage,
  type StageContext,
  type VerdictLog,
} from "./core/stage.ts";
export {
  defineDevice,
  defineDriver,
  defineNetwork,
  defineOffload,
  type DeviceFacts,
  type DevicePlugin,
  type DriverPlugin,
  type FileClaim,
  type NetworkPlugin,
  type OffloadPlugin,
  type Plugin,
  type PluginBase,
  type QueueContext,
  type TransportContext,
} from "./core/plugin.ts";
export type { DeviceEvent, DeviceEventListener } from "./core/device.ts";
export type { OptionsSchema, SchemaIssue, SchemaResult } from "./core/plugin.ts";
export {
  type DriverTransport,
  type FrameTransport,
  type GuestAccepts,
  isPollable,
  type Pollable,
} from "./core/transport.ts";
export {
  type CounterGroups,
  type Device,
  type DeviceContext,
  type ResolvedOffload,
  type Session,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "./core/device.ts";
export type {
  DeviceRole,
  DeviceThreads,
  LogLoan,
  RecalledRings,
  RegionLoan,
  RingBorrower,
  RingLoan,
  RingNews,
  RingsLoan,
} from "./core/threads.ts";
export type { Virtqueue, VirtqueueSetup } from "./core/virtqueue.ts";
export { DescriptorChain } from "./core/descriptor_chain.ts";
export { GuestMemory, type MappedRegion, type MemoryRegion, type MemoryWindow } from "./core/memory.ts";
export { type Clock, ManualClock, SystemClock } from "./core/clock.ts";
export { type FrameSink, type NamedStage, Pipeline, type PipelineOptions } from "./core/pipeline.ts";
export { Reactor } from "./core/reactor.ts";
export type { Waiter } from "./core/reactor.ts";
export type { DirtyLog, RegionCopier } from "./core/memory.ts";
export { type DriverNotifications, DriverSession } from "./core/session.ts";
export type { QueueAddresses } from "./core/queue_setup.ts";
export { ConfigError, type ConfigIssue } from "./config/errors.ts";
export type { ConfigSource } from "./config/jsonc.ts";
export { loadConfig, parseConfig } from "./config/load.ts";
export { buildMachine, type BuildOptions } from "./machine/build.ts";
export type { FileClaims } from "./machine/file_claims.ts";
export { Machine, type MachineDevice, type MachineParts } from "./machine/machine.ts";
export { type BuiltIns, builtIns, PluginRegistry } from "./config/registry.ts";
export { BUILT_IN_PLUGINS, newRegistry } from "./config/builtins.ts";
export type { PluginKind } from "./config/registry.ts";
export { configJsonSchema } from "./config/json_schema.ts";
export type { JsonSchema } from "./config/option_schema.ts";
export type {
  PluginOf,
  ResolvedConfig,
  ResolvedDevice,
  ResolvedPart,
  WrittenConfig,
  WrittenDevice,
  WrittenPart,
} from "./config/types.ts";
export { entropy, type EntropyOptions } from "./devices/entropy/mod.ts";
export { net } from "./devices/net/mod.ts";
export type { NetOptions } from "./devices/net/config_space.ts";
export { checksum, type ChecksumOptions } from "./offloads/checksum.ts";
export { segment, type SegmentOptions } from "./offloads/segment.ts";
export { rscV4 } from "./offloads/rsc_v4.ts";
export { rscV6 } from "./offloads/rsc_v6.ts";
export type { RscOptions } from "./offloads/rsc_chain/plugin.ts";
export { default as loopback, type LoopbackOptions } from "./transports/loopback.ts";
export {
  type GuestBehaviour,
  type GuestOptions,
  loopbackDriver,
  type SendOptions,
} from "./transports/loopback_driver/mod.ts";
export { pcap, type PcapOptions, type ReplayPace, type ReplayTake } from "./transports/pcap/mod.ts";
export { tap, type TapOptions } from "./transports/tap/mod.ts";
export { type ProfileName, PROFILES, vhostUser, type VhostUserOptions } from "./transports/vhost_user/mod.ts";
export { featureBit, featureName } from "./wire/net_features.ts";

// Not awaited: the command line imports this module, and both would wait for each other.
if (import.meta.main) import("./cli.ts").then(({ start }) => start());
