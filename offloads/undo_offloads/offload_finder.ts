/**
 * Finding what offloads have left in captured frames: checksums that are yet to be computed, and frames that
 * no wire carries.
 *
 * Theory of operation. A host hands frames to a capture before its interface has finished them, or after it
 * has merged them. A checksum left to the interface shows by its field, which holds the sum of the pseudo
 * header. A frame left to be segmented (TSO), or merged on the way in (GRO, LRO), shows by more payload than
 * its connection's segments can have. How much that is, a connection says in the MSS options of its SYNs, of
 * which the smaller holds. Where no SYN was seen, it is told by the MTU, and by the segments seen: a longer
 * frame whose checksum is right came from a wire with a larger MTU, and a shorter segment counts if the large
 * frame is a multiple of it.
 *
 * Connections are kept in a table of a fixed size, in which the latest of those with one hash wins: what is
 * forgotten is told by the MTU.
 *
 * @module
 */
import type { Frame } from "../../pipeline/frame.ts";
import { fold } from "../../wire/checksum.ts";
import {
  TCP_HEADER_BYTES,
  TCP_OFFSET_FLAGS,
  TCP_PORTS,
  TCP_RST,
  TCP_SYN,
  UDP_CHECKSUM,
} from "../../wire/tcp_ip.ts";
import { type FrameBytes, TransportHeader } from "../../wire/transport_header.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";
import { isChecksumRight } from "../checksum.ts";

/** The MTU of a wire of which nothing is known, in bytes. */
export const DEFAULT_MTU = 1500;
/** That of the loopback interface, in bytes: large frames are what it really carries. */
const LOOPBACK_MTU = 65_536;
/** No segment is taken to be shorter, in bytes of payload: 64 KiB make no more than 1024 of them. */
const MIN_SEGMENT_BYTES = 64;
/**
 * Shorter segments are not learned from where there was no SYN: most likely they are the end of something, in
 * bytes.
 */
const MIN_TELLING_BYTES = 512;
const OPTION_MSS = 2;
const SLOTS = 4096;

/**
 * What is known of the segments of connections. A segment's size is told as an MSS is: with no options in its
 * headers.
 */
export class MssTable {
  readonly #tags = new Int32Array(SLOTS);
  readonly #announced = new Uint16Array(SLOTS);
  readonly #largest = new Uint16Array(SLOTS);

  /** The smaller of the MSS options seen on this connection, in bytes; 0 if none was. */
  announced(key: number): number {
    return this.#tags[key & SLOTS - 1] === key ? this.#announced[key & SLOTS - 1] : 0;
  }

  /** The largest segment seen on this connection, in bytes; 0 if none was. */
  largest(key: number): number {
    return this.#tags[key & SLOTS - 1] === key ? this.#largest[key & SLOTS - 1] : 0;
  }

  /** The connection has announced this MSS, in one direction. */
  announce(key: number, mss: number): void {
    const slot = this.#take(key);
    const before = this.#announced[slot];
    this.#announced[slot] = before === 0 ? mss : Math.min(before, mss);
  }

  /** The connection has had a segment of this size. */
  see(key: number, bytes: number): void {
    const slot = this.#take(key);
    if (bytes > this.#largest[slot]) this.#largest[slot] = bytes;
  }

  #take(key: number): number {
    const slot = key & SLOTS - 1;
    if (this.#tags[slot] !== key) {
      this.#tags[slot] = key;
      this.#announced[slot] = 0;
      this.#largest[slot] = 0;
    }
    return slot;
  }
}

/** What is known beforehand of the wire. */
export interface WireFacts {
  /** The MSS of all connections, in bytes; undefined to learn it. */
  readonly mss?: number | undefined;
  /** The largest IP packet, in bytes; undefined if that is not known. */
  readonly mtu?: number | undefined;
}

/** Looks at frames one by one, in order. */
export class OffloadFinder {
  /** The header of the frame looked at, if `find` has found one. */
  readonly transport: TransportHeader = new TransportHeader();
  /** Is its checksum yet to be computed, though its header does not say so? */
  isPartial = false;
  /** Bytes of payload in each segment that it holds; 0 if it is no large frame. */
  segmentBytes = 0;
  /** How many segments it holds, 1 or more. */
  segments = 1;
  /**
   * Is it a UDP frame yet to be finished and longer than the MTU? The size of its datagrams cannot be told.
   */
  isLargeUdp = false;
  readonly #table: MssTable;
  readonly #facts: WireFacts;

  /** @param table what is known of connections, and is added to */
  constructor(table: MssTable, facts: WireFacts) {
    this.#table = table;
    this.#facts = facts;
  }

  /**
   * Looks at a frame in one piece and fills the fields. False if it is neither TCP nor UDP, or its lengths
   * disagree.
   */
  find(frame: Frame): boolean {
    const { transport } = this;
    this.isPartial = false;
    this.segmentBytes = 0;
    this.segments = 1;
    this.isLargeUdp = false;
    // Only what no wire carries may lack its IP length.
    if (frame.next !== null || transport.locate(frame, frame.length > DEFAULT_MTU) !== null) return false;
    const mtu = this.#facts.mtu ?? (isOnLoopback(frame.bytes, transport) ? LOOPBACK_MTU : DEFAULT_MTU);
    const isOverMtu = transport.ipEndAt - transport.ipAt > mtu;
    if (transport.isTcp) this.#findSegments(frame, mtu);
    const { flags } = frame.header;
    const known = (flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) !== 0;
    this.isPartial = !known &&
      (this.segments > 1 ? !isChecksumRight(frame, this.transport) : this.#holdsPseudoSum(frame));
    // One with its final checksum came from a wire with a larger MTU.
    const isUnfinished = this.isPartial || (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
    this.isLargeUdp = !transport.isTcp && isOverMtu && isUnfinished;
    return true;
  }

  /**
   * Learns from a frame's MSS option, if it is a SYN with one; of use for frames that `find` does not get to
   * see.
   */
  learn(frame: FrameBytes): void {
    if (this.transport.locate(frame, false) !== null || !this.transport.isTcp) return;
    const flags = frame.view.getUint16(this.transport.at + TCP_OFFSET_FLAGS);
    if ((flags & TCP_SYN) !== 0) this.#learnMss(frame.view, connectionKey(frame.view, this.transport));
  }

  #findSegments(frame: Frame, mtu: number): void {
    const { transport } = this;
    const { view } = frame;
    const { at, headerBytes } = transport;
    const payloadBytes = transport.endAt - at - headerBytes;
    const flags = view.getUint16(at + TCP_OFFSET_FLAGS);
    if (payloadBytes === 0 && (flags & TCP_SYN) === 0) return;
    const key = connectionKey(view, transport);
    if ((flags & TCP_SYN) !== 0) this.#learnMss(view, key);
    if (payloadBytes === 0 || (flags & (TCP_SYN | TCP_RST)) !== 0) return;
    // Options take their room from the payload (RFC 6691).
    const ipHeaderBytes = transport.isV4 ? 20 : 40;
    const optionBytes = at - transport.ipAt - ipHeaderBytes + headerBytes - TCP_HEADER_BYTES;
    const mtuMss = mtu - ipHeaderBytes - TCP_HEADER_BYTES;
    const announced = this.#facts.mss ?? this.#table.announced(key);
    let segmentBytes = announced - optionBytes;
    if (announced === 0) {
      segmentBytes = this.#guess(frame, key, payloadBytes, mtuMss - optionBytes, optionBytes);
    } else if (this.#facts.mtu !== undefined) segmentBytes = Math.min(segmentBytes, mtuMss - optionBytes);
    if (segmentBytes < MIN_SEGMENT_BYTES || payloadBytes <= segmentBytes) return;
    this.segmentBytes = segmentBytes;
    this.segments = Math.ceil(payloadBytes / segmentBytes);
  }

  /** Bytes of payload in the segments of a connection whose SYN was not seen. */
  #guess(
    frame: Frame,
    key: number,
    payloadBytes: number,
    mtuBytes: number,
    optionBytes: number,
  ): number {
    const seen = this.#table.largest(key) - optionBytes;
    if (payloadBytes <= Math.max(mtuBytes, seen)) {
      this.#table.see(key, payloadBytes + optionBytes);
      return payloadBytes;
    }
    if (this.#facts.mtu === undefined && isChecksumRight(frame, this.transport)) {
      this.#table.see(key, payloadBytes + optionBytes);
      return payloadBytes;
    }
    return seen > mtuBytes || (seen >= MIN_TELLING_BYTES && payloadBytes % seen === 0) ? seen : mtuBytes;
  }

  #learnMss(view: DataView, key: number): void {
    const { at, headerBytes } = this.transport;
    const end = at + headerBytes;
    for (let option = at + TCP_HEADER_BYTES; option + 4 <= end;) {
      const kind = view.getUint8(option);
      if (kind === 0) return;
      const bytes = kind === 1 ? 1 : view.getUint8(option + 1);
      if (bytes === 0) return;
      if (kind === OPTION_MSS && bytes === 4) {
        this.#table.announce(key, view.getUint16(option + 2));
        return;
      }
      option += bytes;
    }
  }

  /** The sum is that of the pseudo header, and is not by chance the right checksum. */
  #holdsPseudoSum(frame: Frame): boolean {
    const { at, endAt, ipEndAt, checksumOffset, isTcp } = this.transport;
    // An interface adds up to the end of the packet.
    if (endAt !== ipEndAt) return false;
    const field = frame.view.getUint16(at + checksumOffset, true);
    if (!isTcp && frame.view.getUint16(at + UDP_CHECKSUM) === 0) return false;
    const pseudo = fold(this.transport.pseudoSum(frame.view, endAt - at));
    return (field - pseudo) % 0xffff === 0 && !isChecksumRight(frame, this.transport);
  }
}

/** Is it a packet from 127.0.0.0/8 or ::1, which no wire has? */
function isOnLoopback(bytes: Uint8Array, { ipAt, isV4 }: TransportHeader): boolean {
  if (isV4) return bytes[ipAt + 12] === 127;
  for (let i = 8; i < 23; i++) if (bytes[ipAt + i] !== 0) return false;
  return bytes[ipAt + 23] === 1;
}

/** A number for a connection, the same in both directions, never 0. Others may have it as well. */
function connectionKey(view: DataView, { ipAt, at, isV4 }: TransportHeader): number {
  const addressBytes = isV4 ? 4 : 16;
  const source = ipAt + (isV4 ? 12 : 8);
  let key = view.getUint16(at + TCP_PORTS) ^ view.getUint16(at + TCP_PORTS + 2);
  for (let i = 0; i < addressBytes; i += 4) {
    key =
      Math.imul(key, 0x9e3779b1) + (view.getInt32(source + i) ^ view.getInt32(source + addressBytes + i)) | 0;
  }
  key = Math.imul(key ^ key >>> 15, 0x85ebca6b);
  return (key ^ key >>> 13) || 1;
}
