/**
 * The `vhost-user` driver transport: a back-end for QEMU, DPDK virtio-user, cloud-hypervisor, crosvm, User-mode Linux and their like.
 * @module
 */
import { defineDriver, type DriverPlugin, type PartContext } from "../../plugins/plugin.ts";
import { MAX_SOCKET_PATH_BYTES } from "../../host/unix_socket.ts";
import { type VhostUserOptions, vhostUserOptions } from "./options.ts";
import { VhostUserTransport } from "./transport.ts";
export { Backend, type BackendParts } from "./backend.ts";
export {
  capabilities,
  type FrontEndFacts,
  type GuestFacts,
  libvirtXml,
  qemuOptions,
  umlArguments,
  type UmlFacts,
} from "./front_ends.ts";
export { FRONT_ENDS, type FrontEnd, frontEndsOf, type Passage, passagesTo } from "./front_ends.ts";
export type { Channel, Descriptor, EventHandle, Host, Mapping, Transfer } from "./host.ts";
export { type Offer, offerFor, type ProfileName, PROFILES } from "./negotiation.ts";
export { jsonTrace, type ProtocolTrace, textTrace, type TraceEvent } from "./protocol_trace.ts";
export type { VhostUserOptions } from "./options.ts";
export { isListening } from "./listener.ts";
export { type VhostUserCounters, VhostUserTransport } from "./transport.ts";

/** The plugin of the transport. */
export const vhostUser: DriverPlugin<VhostUserOptions> = defineDriver({
  name: "vhost-user",
  summary: "The guest of a hypervisor, by the vhost-user protocol over a Unix socket (Linux).",
  options: vhostUserOptions,
  supportsWorkers: true,
  waitsForHost: true,
  permissions: () => ({ ffi: true }),
  conflicts: ({ socket }, { path, absolutePath }) => {
    const { length } = new TextEncoder().encode(socket === null ? "" : absolutePath(socket));
    return socket === null || length <= MAX_SOCKET_PATH_BYTES ? [] : [{
      path: `${path}.socket`,
      problem: `the path of the socket is ${
        absolutePath(socket)
      }, ${length} bytes, and must have at most ${MAX_SOCKET_PATH_BYTES}`,
      remedy: "use a shorter folder, such as /run",
    }];
  },
  hints: ({ memory, populate }, { path }) => {
    if (memory === "sealed") return [];
    const room = populate ? "" : ", or whose file system has no room for a page that the guest uses first";
    return [{
      path: `${path}.memory`,
      value: memory,
      problem:
        `memory that is cut by a program that shares it${room}, ends this program (SIGBUS): a file in /dev/shm or on hugetlbfs ` +
        "can, and the memory of User-mode Linux, which loses its device for good then; QEMU's memory-backend-memfd cannot",
      remedy: `write "memory": "sealed" to refuse such memory${
        populate ? "" : ', "populate": true to have all of it allocated at once'
      }, and have a supervisor start this program again: QEMU reconnects (docs/real_guest.md)`,
    }];
  },
  claims: ({ socket, fd }, { path, absolutePath }) => [
    ...(socket === null ? [] : [{
      thing: `the socket ${absolutePath(socket)}`,
      path: `${path}.socket`,
      remedy: "give each device a socket of its own",
    }]),
    ...(fd === null
      ? []
      : [{ thing: `descriptor ${fd}`, path: `${path}.fd`, remedy: "pass a descriptor for each" }]),
  ],
  create: (context: PartContext, options: VhostUserOptions): VhostUserTransport =>
    new VhostUserTransport(context, options),
});

export default vhostUser;
