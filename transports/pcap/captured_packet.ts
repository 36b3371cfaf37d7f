/**
 * One packet of a capture, what a parser says after each step, and what `epb_flags` and the header of a frame
 * say to each other of checksums and segmentation.
 * @module
 */
import type { Frame } from "../../pipeline/frame.ts";
import { addToSum, storeChecksum, storePartial } from "../../wire/checksum.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { TransportHeader } from "../../wire/transport_header.ts";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../../wire/virtio_net_header.ts";

const headers = new HeaderLocator();

/** The most captured bytes of one packet that are read, the limit of the usual tools for Ethernet. */
export const MAX_CAPTURED_BYTES = 262_144;

/** The most packets whose numbers are listed one by one; the counter goes on. */
export const MAX_LISTED_PACKETS = 1000;

/**
 * What a step found: a `whole` Ethernet frame; a packet that was `snapped` (the capture has not all of its
 * bytes); one of a link type that is `otherLinkType`, from which no Ethernet frame can be made; one that is
 * `unreadable`, and why is in `CapturedPacket.obstacle`; `other`, something that is no packet; `wait`, the
 * source has no more bytes at the moment; or the `end` of the file.
 */
export type CaptureStep = "whole" | "snapped" | "otherLinkType" | "unreadable" | "other" | "wait" | "end";

/**
 * What is odd about a capture without ending it, by how many packets or blocks. All but the first four keep a
 * packet from being read.
 */
export interface CaptureOddities extends Record<string, number> {
  /** Packets with a captured length above the original one; all captured bytes are taken. */
  capturedAboveOriginal: number;
  /**
   * Packets whose IP length contradicts the frame check sequence that the file declares; these are not
   * shortened.
   */
  fcsContradictsIp: number;
  /**
   * Blocks with an option that is longer than its block, or of an impossible value; the options behind it are
   * not read.
   */
  badOptions: number;
  /**
   * Blocks whose lengths at start and end disagree, or are no multiple of 4; the first is taken, rounded up.
   */
  lengthsDisagree: number;
  /** Packets whose captured length exceeds the block that holds them. */
  beyondBlock: number;
  /** Packets of an interface that the section has not described. */
  unknownInterface: number;
  /** Packets of an interface with a number from MAX_INTERFACES on: a limit of this reader. */
  beyondInterfaceLimit: number;
  /** Packets of more than MAX_CAPTURED_BYTES: a limit of this reader. */
  beyondLengthLimit: number;
}

/** Why a packet is unreadable. */
export type PacketObstacle =
  | "beyondBlock"
  | "unknownInterface"
  | "beyondInterfaceLimit"
  | "beyondLengthLimit";

/** Counters at 0. */
export function newCaptureOddities(): CaptureOddities {
  return {
    capturedAboveOriginal: 0,
    fcsContradictsIp: 0,
    badOptions: 0,
    lengthsDisagree: 0,
    beyondBlock: 0,
    unknownInterface: 0,
    beyondInterfaceLimit: 0,
    beyondLengthLimit: 0,
  };
}

/**
 * Which way a packet went at the interface where it was captured, as in the two lowest bits of `epb_flags`.
 */
export type PacketDirection = 0 | 1 | 2;

/** No direction was recorded. */
export const DIRECTION_UNKNOWN = 0;
/** The packet came in. */
export const DIRECTION_INBOUND = 1;
/** The packet went out. */
export const DIRECTION_OUTBOUND = 2;

/** `epb_flags`: the bits of the direction. */
export const PACKET_FLAGS_DIRECTION = 0x3;
/** `epb_flags`: the bits of the length of the frame check sequence, in octets. */
export const PACKET_FLAGS_FCS_LENGTH = 0x1e0;
/** `epb_flags`: the checksum in the packet is not computed yet. */
const PACKET_FLAG_CHECKSUM_NOT_READY = 1 << 9;
/** `epb_flags`: the checksum was found right when the packet came in, also if the field holds another. */
const PACKET_FLAG_CHECKSUM_VALID = 1 << 10;
/** `epb_flags`: the packet is still to be cut into segments, or was put together from several. */
const PACKET_FLAG_SEGMENTATION_OFFLOAD = 1 << 11;

/** The packet found last. One object, filled over and over; its bytes are valid until the next step. */
export class CapturedPacket {
  /** Its number in the file, from 1, packets of every kind counted. */
  number = 0;
  /** Offset of its record or block from the start of the file. */
  offset = 0;
  /** When it was captured, in ns from the first packet of the file; negative if it is older. */
  timeNs = 0;
  /** The interface it came from: its number within the section; 0 in a pcap file. */
  interfaceId = 0;
  /** The link type of that interface; NO_LINK_TYPE if it is not told. */
  linkType = 1;
  /** Which way it went. */
  direction: PacketDirection = DIRECTION_UNKNOWN;
  /** Its `epb_flags` as they stand in the file, 32 bits; 0 where the format has none. */
  flags = 0;
  /** Why it is unreadable, if it is. */
  obstacle: PacketObstacle = "beyondBlock";
  /** The storage its bytes lie in. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Where in `bytes` it begins. */
  at = 0;
  /** Bytes captured, less a frame check sequence. */
  length = 0;
  /** Bytes it had on the wire, less a frame check sequence. */
  originalLength = 0;

  /**
   * A packet of length 0.
   * @param bytes the storage packets lie in
   */
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
  }

  /** Copies the packet to `target` from `to` on. */
  copyTo(target: Uint8Array, to: number): void {
    target.set(new Uint8Array(this.bytes.buffer, this.at, this.length), to);
  }

  /** A copy of the packet, for tests and edges; allocates. */
  toBytes(): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(this.at, this.at + this.length);
  }

  /**
   * Takes the lengths of a record, without the `fcsBytes` of a frame check sequence. True if the packet is
   * whole without it: it may be declared and not captured. An IP length that says otherwise has the last
   * word.
   */
  setLengths(
    at: number,
    captured: number,
    original: number,
    fcsBytes: number,
    oddities: CaptureOddities,
  ): boolean {
    this.at = at;
    if (captured > original) oddities.capturedAboveOriginal++;
    const wireBytes = Math.max(captured, original);
    this.originalLength = Math.max(0, wireBytes - fcsBytes);
    this.length = Math.min(captured, this.originalLength);
    if (this.length < captured) {
      headers.locate(this.bytes, at, this.length);
      const ipBytes = headers.version === 0 ? 0 : headers.packetEnd - at;
      if (ipBytes > this.length) {
        oddities.fcsContradictsIp++;
        if (ipBytes <= captured) this.length = this.originalLength = captured;
      }
    }
    return this.length === this.originalLength;
  }
}

const transport = new TransportHeader();

/** The flags about checksums and segmentation that a frame's header amounts to. */
export function offloadFlags(flags: number, gsoType: number): number {
  return ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 ? PACKET_FLAG_CHECKSUM_NOT_READY : 0) |
    ((flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0 ? PACKET_FLAG_CHECKSUM_VALID : 0) |
    (gsoType !== VIRTIO_NET_HDR_GSO_NONE ? PACKET_FLAG_SEGMENTATION_OFFLOAD : 0);
}

/**
 * Takes what a packet's flags say about its checksum into the header of the frame. One that is not ready gets
 * the sum of its pseudo header in its field, in place of what the capture has there, as NEEDS_CSUM means it
 * (virtio 1.2, section 5.1.6.2); where that is neither TCP nor UDP the flag has no meaning here.
 * @param acceptsPartial false to compute the checksum that is not ready, for a guest that takes no partial
 * one
 * @returns the flags that are true of the frame, less its direction and a frame check sequence, which it has
 * no more
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
  // A partial checksum runs to the end of the frame; that of a datagram that is shorter than its packet does
  // not.
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
