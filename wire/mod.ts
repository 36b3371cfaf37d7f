/**
 * Reading and writing packets, for stages: where headers are, what their fields are called, checksums, the
 * virtio-net header.
 *
 * All of it works on bytes and offsets and allocates nothing, so that it is fit for the path of every frame.
 * Nothing in a frame can make it throw or read outside of the frame. For tests there are `parseTcp` and its
 * kin in `@deno-virtio/deno-virtio/testing`, which make an object of a packet.
 *
 * A stage that counts the bytes of TCP data in every frame:
 *
 * ```ts
 * import { TransportHeader } from "./mod.ts";
 * import { perFrame } from "../pipeline/stage.ts";
 *
 * const counters = { tcpDataBytes: 0 };
 * const header = new TransportHeader();
 * const stage = perFrame((frame, output) => {
 *   if (header.locate(frame, frame.header.gsoType !== 0) === null && header.isTcp) {
 *     counters.tcpDataBytes += header.endAt - header.at - header.headerBytes;
 *   }
 *   output.push(frame);
 * });
 * if (stage.flush !== undefined) throw new Error("unreachable");
 * ```
 *
 * @module
 */
export * from "./checksum.ts";
export * from "./ethernet.ts";
export * from "./headers.ts";
export * from "./net_features.ts";
export * from "./tcp_ip.ts";
export * from "./transport_header.ts";
export * from "./virtio_net_header.ts";
