/**
 * Virtio devices in TypeScript: what builds and runs a machine from a configuration, and the plugins that
 * come with it.
 *
 * A whole program is `loadConfig`, `buildMachine`, `Machine.run`. Plugins are written with
 * `@deno-virtio/deno-virtio/plugin` and tested with `@deno-virtio/deno-virtio/testing`. Run as a program,
 * this module is the command line.
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
// What plugins import needs no permission if it is there before them.
import "./plugin.ts";

export { ConfigError, type ConfigIssue } from "./config/errors.ts";
export type { ConfigSource } from "./config/jsonc.ts";
export { loadConfig, parseConfig } from "./config/load.ts";
export { buildMachine, type BuildOptions } from "./machine/build.ts";
export type { FileClaims } from "./machine/file_claims.ts";
export {
  type BuiltPart,
  type DeviceWorkers,
  Machine,
  type MachineDevice,
  type MachineParts,
} from "./machine/machine.ts";
export { type BuiltIns, builtIns, PluginRegistry } from "./config/registry.ts";
export { BUILT_IN_PLUGINS, newRegistry } from "./config/builtins.ts";
export type { PluginKind } from "./config/registry.ts";
export { configJsonSchema } from "./config/json_schema.ts";
export type { JsonSchema } from "./config/option_schema.ts";
export type {
  ResolvedConfig,
  ResolvedDevice,
  ResolvedPart,
  WrittenConfig,
  WrittenDevice,
  WrittenPart,
} from "./config/types.ts";
export { entropy, type EntropyGuestOptions, type EntropyOptions } from "./devices/entropy/mod.ts";
export { net } from "./devices/net/mod.ts";
export type { NetOptions } from "./devices/net/options.ts";
export { checksum, type ChecksumOptions } from "./offloads/checksum.ts";
export { segment, type SegmentOptions } from "./offloads/segment.ts";
export { rscV4 } from "./offloads/rsc_v4.ts";
export { rscV6 } from "./offloads/rsc_v6.ts";
export type { RscOptions } from "./offloads/rsc_chain/chain.ts";
export { default as loopback, type LoopbackOptions } from "./transports/loopback.ts";
export { type GuestBehaviour, type GuestOptions, type SendOptions } from "./devices/net/driver/mod.ts";
export { loopbackDriver } from "./transports/loopback_driver/mod.ts";
export { pcap, type PcapOptions, type ReplayPace, type ReplayTake } from "./transports/pcap/mod.ts";
export { tap, type TapOptions } from "./transports/tap/mod.ts";
export {
  type ProfileName,
  PROFILES,
  type SocketOptions,
  vhostUser,
  type VhostUserOptions,
} from "./transports/vhost_user/mod.ts";
export { featureBit, featureName } from "./wire/net_features.ts";

// Not awaited: the command line imports this module, and both would wait for each other.
if (import.meta.main) import("./cli.ts").then(({ start }) => start());
