/**
 * What `epb_flags` say about checksums and segmentation, and the header of a frame: the one becomes the other and back.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { addToSum, storeChecksum, storePartial } from "../../wire/checksum.ts";
import { TransportHeader } from "../../wire/transport_header.ts";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../../wire/virtio_net_header.ts";
import {
  PACKET_FLAG_CHECKSUM_NOT_READY,
  PACKET_FLAG_CHECKSUM_VALID,
  PACKET_FLAG_SEGMENTATION_OFFLOAD,
  PACKET_FLAGS_DIRECTION,
  PACKET_FLAGS_FCS_LENGTH,
} from "./captured_packet.ts";

const transport = new TransportHeader();

/** The flags about checksums and segmentation that a frame's header amounts to. */
export function offloadFlags(flags: number, gsoType: number): number {
  return ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 ? PACKET_FLAG_CHECKSUM_NOT_READY : 0) |
    ((flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0 ? PACKET_FLAG_CHECKSUM_VALID : 0) |
    (gsoType !== VIRTIO_NET_HDR_GSO_NONE ? PACKET_FLAG_SEGMENTATION_OFFLOAD : 0);
}

/**
 * Takes what a packet's flags say about its checksum into the header of the frame. One that is not ready gets the sum of its
 * pseudo header in its field, whatever the capture has there, as NEEDS_CSUM means it (virtio 1.2, section 5.1.6.2);
 * where that is neither TCP nor UDP the flag has no meaning here.
 * @param acceptsPartial false to compute the checksum that is not ready, for a guest that takes no partial one
 * @returns the flags that are true of the frame, less its direction and a frame check sequence, which it has no more
 */
export function applyPacketFlags(flags: number, frame: Frame, acceptsPartial: boolean): number {
  const kept = flags & ~(PACKET_FLAGS_DIRECTION | PACKET_FLAGS_FCS_LENGTH);
  if ((flags & PACKET_FLAG_CHECKSUM_NOT_READY) !== 0) {
    return makeReady(frame, acceptsPartial) ? kept & ~PACKET_FLAG_CHECKSUM_NOT_READY : kept;
  }
  if ((flags & PACKET_FLAG_CHECKSUM_VALID) !== 0) frame.header.flags |= VIRTIO_NET_HDR_F_DATA_VALID;
  return kept;
}

/** True if the checksum is right afterwards; else it is partial, or there is none. */
function makeReady(frame: Frame, acceptsPartial: boolean): boolean {
  const { view, start, header } = frame;
  if (transport.locate(frame, false) !== null) return false;
  const { at, endAt, ipEndAt, checksumOffset } = transport;
  const checksumAt = at + checksumOffset;
  const sum = transport.pseudoSum(view, endAt - at);
  // A partial checksum runs to the end of the frame; that of a datagram that is shorter than its packet does not.
  if (!acceptsPartial || endAt !== ipEndAt) {
    view.setUint16(checksumAt, 0);
    storeChecksum(view, checksumAt, addToSum(view, at, endAt - at, sum));
    // UDP says "no checksum" by 0 and sends its equal instead (RFC 768).
    if (!transport.isTcp && view.getUint16(checksumAt) === 0) view.setUint16(checksumAt, 0xffff);
    return true;
  }
  storePartial(view, checksumAt, sum);
  // Padding is no part of what is to be summed up.
  frame.trim(ipEndAt - start);
  header.flags |= VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csumStart = at - start;
  header.csumOffset = checksumOffset;
  return false;
}
