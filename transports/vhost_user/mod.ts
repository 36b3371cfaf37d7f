/**
 * The `vhost-user` driver transport: a back-end for QEMU, DPDK virtio-user, cloud-hypervisor, crosvm,
 * User-mode Linux and their like.
 * @module
 */
import { Arena } from "../../rings/arena.ts";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import {
  defineDriver,
  type DriverPlugin,
  type PartContext,
  type ResolvedPart,
} from "../../plugins/plugin.ts";
import { MAX_SOCKET_PATH_BYTES } from "../../host/unix_socket.ts";
import { outlooks } from "./front_ends.ts";
import { type VhostUserOptions, vhostUserOptions } from "./options.ts";
import { VhostUserTransport } from "./transport.ts";
export { Backend, type BackendParts } from "./backend.ts";
export {
  capabilities,
  FRONT_ENDS,
  type FrontEnd,
  type FrontEndFacts,
  frontEndsOf,
  type GuestFacts,
  libvirtXml,
  type Offer,
  offerFor,
  outlooks,
  type ProfileName,
  PROFILES,
  qemuOptions,
  umlArguments,
  type UmlFacts,
} from "./front_ends.ts";
export type { Channel, Descriptor, EventHandle, Host, Mapping, Transfer } from "./host.ts";
export type { VhostUserOptions } from "./options.ts";
export { jsonTrace, type ProtocolTrace, textTrace, type TraceEvent } from "./protocol_trace.ts";
export { isListening, type SocketOptions } from "../../host/connection_source.ts";
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
  describe: ({ socket, mode }, { path, absolutePath }) => ({
    lines: [["memory", reach(Arena.reserve())]],
    needs: socket === null ? [] : [{
      path: `${path}.socket`,
      file: absolutePath(socket),
      use: mode === "server" ? "listen" : "connect",
    }],
  }),
  hints: ({ memory, populate }, { path, frontEnds }) => {
    const split = frontEnds.filter(({ features }) => features.get(VIRTIO_F_RING_PACKED) === "lost");
    const names = split.map(({ name }) => name).join(", ");
    const rings = split.length === 0
      ? []
      : [{ path, problem: `with ${names}, rings are split: it does not pass RING_PACKED on` }];
    if (memory === "sealed") return rings;
    const room = populate ? "" : ", or whose file system has no room for a page that the guest uses first";
    return [...rings, {
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
  frontEnds: ({ profile }, device, words) => outlooks(device, words, profile),
  create: (context: PartContext, options: VhostUserOptions): VhostUserTransport =>
    new VhostUserTransport(context, options),
});

export default vhostUser;

/** The options of a driver transport if it is this one; null if it is another. */
export function vhostUserOptionsOf({ plugin, options }: ResolvedPart): VhostUserOptions | null {
  return plugin === vhostUser ? options as VhostUserOptions : null;
}

/** How much memory of guests lies beside the frames, in words. */
function reach(arena: Arena | null): string {
  if (arena === null) {
    return "out of reach of kernels, since this process can have no memory for frames and guests together; " +
      "plain code works the queues, at about half the speed";
  }
  const gibibytes = (arena.sizeBytes - arena.bytes.length) / 2 ** 30;
  return `up to ${
    Math.floor(gibibytes)
  } GiB, of all guests together, is worked by kernels; what has no room ` +
    "beside that is worked by plain code, at about half the speed";
}
