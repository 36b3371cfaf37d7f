/**
 * The plugins that come with the project: the only list of them.
 * @module
 */
import type { Plugin } from "../plugins/plugin.ts";
import { entropy } from "../devices/entropy/mod.ts";
import { net } from "../devices/net/mod.ts";
import { checksum } from "../offloads/checksum.ts";
import { rscV4 } from "../offloads/rsc_v4.ts";
import { rscV6 } from "../offloads/rsc_v6.ts";
import { segment } from "../offloads/segment.ts";
import { undoOffloads } from "../offloads/undo_offloads.ts";
import loopback from "../transports/loopback.ts";
import { loopbackDriver } from "../transports/loopback_driver/mod.ts";
import pcap from "../transports/pcap/pcap.ts";
import { tap } from "../transports/tap/mod.ts";
import { vhostUser } from "../transports/vhost_user/mod.ts";
import { builtIns, PluginRegistry } from "./registry.ts";

/** Every built-in plugin, in the order in which they are listed. */
export const BUILT_IN_PLUGINS: readonly Plugin[] = [
  net,
  entropy,
  loopbackDriver,
  vhostUser,
  loopback,
  pcap,
  tap,
  rscV4,
  rscV6,
  checksum,
  segment,
  undoOffloads,
];

/** A registry that knows the built-in plugins, and loads others by module specifier. */
export function newRegistry(): PluginRegistry {
  return new PluginRegistry(builtIns(BUILT_IN_PLUGINS));
}
