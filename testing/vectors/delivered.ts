/**
 * What a software guest received, as vectors record it.
 * @module
 */
import type { ReceivedPacket } from "../../transports/loopback_driver/mod.ts";
import { toHex, type VectorHeader, type VectorPacket } from "./format.ts";

/** The virtio header of a packet; `num_buffers` is null where the device has not written it. */
export function vectorHeader(packet: ReceivedPacket): VectorHeader {
  return {
    flags: packet.flags,
    gso_type: packet.gsoType,
    hdr_len: packet.hdrLen,
    gso_size: packet.gsoSize,
    csum_start: packet.csumStart,
    csum_offset: packet.csumOffset,
    num_buffers: packet.numBuffersWritten ? packet.numBuffers : null,
  };
}

/** A packet that was delivered at `atNs`. */
export function vectorPacket(atNs: number, packet: ReceivedPacket): VectorPacket {
  return { t_ns: atNs, hdr: vectorHeader(packet), frame: toHex(packet.bytes) };
}
