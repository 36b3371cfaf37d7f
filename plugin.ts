/**
 * What plugins are written with: devices, driver transports, offload stages, networks, and the parts of new
 * families.
 *
 * A plugin is an object that one of `defineOffload`, `defineNetwork`, `defineNetworkDevice`, `defineDevice`,
 * `defineDriver` returns. A configuration names it by its module. Tests of plugins are written with
 * `@deno-virtio/deno-virtio/testing`.
 *
 * ```ts
 * import { defineOffload, perFrame } from "./plugin.ts";
 * import { z } from "zod";
 *
 * export default defineOffload({
 *   name: "pass",
 *   direction: "toGuest",
 *   options: z.strictObject({}),
 *   create: () => perFrame((frame, output) => output.push(frame)),
 * });
 * ```
 *
 * @module
 */
export { Arena } from "./rings/arena.ts";
export type { Kernels } from "./kernels/mod.ts";
export { Burst } from "./rings/burst.ts";
export { type Clock, ManualClock, SystemClock } from "./core/clock.ts";
export { DescriptorChain } from "./rings/descriptor_chain.ts";
export {
  type BuiltSite,
  type Claim,
  type ConfigSite,
  type CounterGroups,
  defineDevice,
  defineDriver,
  definePart,
  type DeviceContext,
  type DevicePlugin,
  type DeviceRole,
  type DriverContext,
  type DriverPlugin,
  type DriverTransport,
  type FeatureFilter,
  type FeaturePassage,
  type FileClaim,
  type FrontEndOutlook,
  type FrontEndSite,
  type FrontEndWords,
  type HostNeed,
  type LibvirtElement,
  type MachineScope,
  type OptionsSchema,
  type PartContext,
  type PartIssue,
  type PartKind,
  type PartPlugin,
  type PartRow,
  type PartSite,
  partsOfKind,
  type Plugin,
  type PluginBase,
  type PluginDescription,
  type PluginPermissions,
  type ResolvedDevice,
  type ResolvedPart,
  type SchemaIssue,
  type SchemaResult,
  type Slot,
  type SoftwareDriver,
} from "./plugins/plugin.ts";
export {
  type Device,
  type DeviceEvent,
  type DeviceEventListener,
  type DeviceMigration,
  type Session,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
  type WorkersCapability,
} from "./core/device.ts";
export { GuestError, type GuestFault } from "./rings/guest_error.ts";
export { HostError } from "./core/errors.ts";
export { PluginError } from "./plugins/contract.ts";
export {
  featureName,
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "./core/features.ts";
export type { RequestsInFlight } from "./core/in_flight.ts";
export {
  type DirtyLog,
  GuestMemory,
  type MappedRegion,
  type MemoryHolder,
  type MemoryHolders,
  type MemoryRegion,
  type MemoryWindow,
} from "./rings/memory.ts";
export {
  KEEP,
  type QueueRequest,
  QueueService,
  type QueueServiceOptions,
  type RequestHandler,
} from "./core/queue_service.ts";
export { isPollable, type LookedFor, type Pollable, Reactor, type Waiter } from "./core/reactor.ts";
export { type DriverNotifications, DriverSession, type QueueAddresses } from "./core/session.ts";
export type {
  AttachedLog,
  AttachedRegion,
  AttachedRing,
  AttachedRings,
  DetachedRings,
  QueueWorkers,
  WorkerNotices,
} from "./plugins/queue_workers.ts";
export type { Virtqueue, VirtqueueSetup } from "./rings/virtqueue.ts";
export {
  BAD_USED,
  BufferList,
  completeGuestOptions,
  type DriverRing,
  type FeatureNames,
  type FeatureWishes,
  type GuestCounters,
  type GuestHooks,
  type GuestRequest,
  type GuestStorage,
  type IndirectUse,
  newGuestCounters,
  NOTHING_USED,
  type PlacedQueue,
  QueueNotifications,
  QueuePlan,
  type QueueWish,
  type RequestCounters,
  RequestGuest,
  type RequestHooks,
  type Reservation,
  type RingPlacement,
  SoftwareGuest,
  type SoftwareGuestOptions,
  softwareGuestOptions,
  type SoftwareGuestOptionsInput,
} from "./guest/mod.ts";
export type { FlowClaims } from "./pipeline/flow_claims.ts";
export {
  Frame,
  FrameBatch,
  type FrameHolder,
  type FrameOwner,
  MAX_FRAME_BYTES,
  NetHeader,
} from "./pipeline/frame.ts";
export { FRAME_HEADROOM_BYTES, FramePool, type FramePoolOptions } from "./pipeline/frame_pool.ts";
export type { FrameTransport } from "./pipeline/frame_transport.ts";
export { OffloadCapabilities, type OffloadCapability } from "./pipeline/offload_capabilities.ts";
export { type FrameSink, type NamedStage, Pipeline, type PipelineOptions } from "./pipeline/pipeline.ts";
export { framePool } from "./pipeline/kinds.ts";
export {
  defineNetwork,
  defineNetworkDevice,
  defineOffload,
  type NetworkCapability,
  networkCapability,
  type NetworkContext,
  type NetworkDevice,
  type NetworkDeviceContext,
  type NetworkDevicePlugin,
  type NetworkFacts,
  type NetworkPlugin,
  NetworkPreview,
  type NetworkWorkerContext,
  type OffloadPlugin,
  type ResolvedOffload,
} from "./pipeline/plugin.ts";
export {
  type Direction,
  type Negotiated,
  perFrame,
  type Rule,
  type Stage,
  type StageContext,
  type VerdictLog,
} from "./pipeline/stage.ts";
