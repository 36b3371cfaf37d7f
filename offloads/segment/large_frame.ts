/**
 * One large frame and its segments: finds headers and payload and whether they agree (`LargeFrame`), cuts
 * (`Cutter`), and writes the headers of each segment. TCP segments are made by a kernel where there is one
 * (`kernels/segment.as.ts`); the code here is its specification.
 * @module
 */
import type { Kernels } from "../../kernels/mod.ts";
import { IS_LAST, IS_V4, LEAVES_CHECKSUM } from "../../kernels/layout.ts";
import { copyBytes, type Frame, type NetHeader } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { fold, sumOf16 } from "../../wire/checksum.ts";
import {
  IPV4_ID,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH,
  storeIpv4Checksum,
  TCP_CWR,
  TCP_FIN,
  TCP_OFFSET_FLAGS,
  TCP_PSH,
  TCP_RST,
  TCP_SEQ,
  TCP_SYN,
  TCP_URG,
  TCP_URGENT,
  UDP_CHECKSUM,
  UDP_LENGTH,
} from "../../wire/tcp_ip.ts";
import { type TransportFault, TransportHeader } from "../../wire/transport_header.ts";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../wire/virtio_net_header.ts";
import { avoidNoChecksum, isChecksumRight, leavePartial, storeFullChecksum } from "../checksum.ts";

/** Why a large frame cannot be cut; the counter of this name is raised. */
export type LargeFault =
  /** `gso_size` is 0. */
  | "dropped_no_segment_size"
  /** The headers do not all lie in the first piece, or the frame ends in them. */
  | "dropped_cut_headers"
  /** It is not what `gso_type` says, or has headers behind which the transport header cannot be found. */
  | "dropped_wrong_kind"
  /** It is an IP fragment already. */
  | "dropped_fragment"
  /**
   * The length of the frame, of the IP packet, of the UDP datagram or of the TCP header contradict each
   * other.
   */
  | "dropped_bad_length"
  /** SYN or RST, which must not be repeated. */
  | "dropped_bad_flags"
  /** More segments than the options allow. */
  | "dropped_too_many"
  /** NEEDS_CSUM is for another place than the transport header's checksum, or for one outside the frame. */
  | "dropped_odd_checksum"
  /**
   * The network does not vouch for the data, and the checksum over the whole is wrong: right ones must not be
   * made of that.
   */
  | "dropped_bad_checksum";

const FAULTS: Readonly<Record<TransportFault, LargeFault>> = {
  cut: "dropped_cut_headers",
  not_ip: "dropped_wrong_kind",
  other_protocol: "dropped_wrong_kind",
  fragment: "dropped_fragment",
  bad_length: "dropped_bad_length",
  bad_transport: "dropped_bad_length",
};

/** A large frame taken apart. One object, refilled. Offsets count from the frame's first byte. */
export class LargeFrame {
  /** The frame. */
  frame!: Frame;
  /** Has it a transport checksum? UDP over IPv4 need not. */
  hasChecksum = false;
  /** First byte of the IP header. */
  ipAt = 0;
  /** First byte of the TCP or UDP header. */
  transportAt = 0;
  /** Bytes of all headers: where the payload begins. */
  headerBytes = 0;
  /** Bytes of payload, of all segments. */
  payloadBytes = 0;
  /** Bytes of payload in each segment but the last. */
  segmentBytes = 0;
  /** How many segments that makes, 1 or more. */
  segments = 0;
  /** Its headers as they were found, by offsets in the storage of the frame. */
  readonly transport: TransportHeader = new TransportHeader();
  /** The sum of the pseudo header of a segment without any byte. */
  emptyPseudoSum = 0;

  /**
   * Takes `frame`, whose `gso_type` is TCPV4, TCPV6 or UDP_L4, apart. Null if all is well, else why it cannot
   * be cut.
   */
  locate(frame: Frame, maxSegments: number): LargeFault | null {
    this.frame = frame;
    this.segmentBytes = frame.header.gsoSize;
    if (this.segmentBytes === 0) return "dropped_no_segment_size";
    const { transport } = this;
    const fault = transport.locate(frame, true);
    if (fault !== null) return FAULTS[fault];
    const { isTcp, endAt, ipEndAt } = transport;
    if ((frame.header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) !== transport.gsoType) return "dropped_wrong_kind";
    // Padding is cut off; it cannot be where the frame is in pieces.
    frame.trim(ipEndAt - frame.start);
    if (frame.start + frame.total !== ipEndAt || endAt !== ipEndAt) return "dropped_bad_length";
    this.ipAt = transport.ipAt - frame.start;
    this.transportAt = transport.at - frame.start;
    this.headerBytes = this.transportAt + transport.headerBytes;
    this.payloadBytes = frame.total - this.headerBytes;
    this.segments = Math.max(1, Math.ceil(this.payloadBytes / this.segmentBytes));
    const offsetFlags = isTcp ? frame.view.getUint16(transport.at + TCP_OFFSET_FLAGS) : 0;
    if (this.segments > 1 && (offsetFlags & (TCP_SYN | TCP_RST)) !== 0) return "dropped_bad_flags";
    return this.segments > maxSegments ? "dropped_too_many" : this.#judgeChecksum();
  }

  /** The sum of the pseudo header of a segment with `transportBytes` from the transport header on. */
  pseudoSum(transportBytes: number): number {
    return fold(this.emptyPseudoSum + sumOf16(transportBytes) + sumOf16(transportBytes >>> 16));
  }

  #judgeChecksum(): LargeFault | null {
    const { frame, transport, transportAt } = this;
    const { view, header, total } = frame;
    const { isTcp, isV4, checksumOffset } = transport;
    this.hasChecksum = true;
    if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      // Beside RSC_INFO the two fields count segments and duplicate ACKs.
      const isHere = (header.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0 ||
        (header.csumStart === transportAt && header.csumOffset === checksumOffset);
      if (!isHere) return "dropped_odd_checksum";
      // The field holds the sum of the whole frame's pseudo header (virtio 1.2, section 5.1.6.2). Whose
      // addresses are in it, the sender knows best: with source routes they are not those of the IP header.
      const whole = total - transportAt;
      const withoutLength = ~fold(sumOf16(whole) + sumOf16(whole >>> 16)) & 0xffff;
      this.emptyPseudoSum = view.getUint16(transport.at + checksumOffset, true) + withoutLength;
      return null;
    }
    this.hasChecksum = isTcp || !isV4 || view.getUint16(transport.at + UDP_CHECKSUM) !== 0;
    if (!this.hasChecksum) return null;
    this.emptyPseudoSum = transport.pseudoSum(view, 0);
    if ((header.flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) return null;
    return isChecksumRight(frame, transport) ? null : "dropped_bad_checksum";
  }
}

/**
 * Makes the headers of segment `index`, which are a copy of the large frame's, its own.
 * @param segment the segment, payload and all
 * @param payloadAt bytes of payload in the segments before it
 */
export function writeSegmentHeaders(
  segment: Frame,
  large: LargeFrame,
  index: number,
  payloadAt: number,
): void {
  const { view, start } = segment;
  const { isV4, isTcp } = large.transport;
  const ip = start + large.ipAt;
  const ipBytes = segment.total - large.ipAt;
  if (isV4) {
    view.setUint16(ip + IPV4_TOTAL_LENGTH, ipBytes);
    view.setUint16(ip + IPV4_ID, view.getUint16(ip + IPV4_ID) + index);
    storeIpv4Checksum(view, ip, large.transportAt - large.ipAt);
  } else {
    view.setUint16(ip + IPV6_PAYLOAD_LENGTH, ipBytes - IPV6_HEADER_BYTES);
  }
  const transport = start + large.transportAt;
  if (isTcp) writeTcp(view, transport, index === 0, index === large.segments - 1, payloadAt);
  else view.setUint16(transport + UDP_LENGTH, segment.total - large.transportAt);
}

/**
 * FIN and PSH are the last segment's, CWR the first one's (RFC 3168, section 6.1.2); URG ends with the urgent
 * data.
 */
function writeTcp(view: DataView, tcp: number, isFirst: boolean, isLast: boolean, payloadAt: number): void {
  view.setInt32(tcp + TCP_SEQ, view.getInt32(tcp + TCP_SEQ) + payloadAt | 0);
  let offsetFlags = view.getUint16(tcp + TCP_OFFSET_FLAGS);
  if (!isFirst) offsetFlags &= ~TCP_CWR;
  if (!isLast) offsetFlags &= ~(TCP_FIN | TCP_PSH);
  if (!isFirst && (offsetFlags & TCP_URG) !== 0) {
    // The pointer counts from the segment's own sequence number (RFC 9293, section 3.1).
    const left = view.getUint16(tcp + TCP_URGENT) - payloadAt;
    view.setUint16(tcp + TCP_URGENT, left > 0 ? left : 0);
    if (left <= 0) offsetFlags &= ~TCP_URG;
  }
  view.setUint16(tcp + TCP_OFFSET_FLAGS, offsetFlags);
}

/**
 * Gives a segment, in one piece or several, the transport checksum that its receiver wants, and a header that
 * says so: to be segmented no more.
 * @param partial the receiver completes checksums itself
 */
export function finishChecksum(segment: Frame, large: LargeFrame, partial: boolean): void {
  segment.header.clear();
  if (!large.hasChecksum) return;
  const { checksumOffset, isTcp } = large.transport;
  const at = segment.start + large.transportAt;
  const pseudo = large.pseudoSum(segment.total - large.transportAt);
  if (partial) return leavePartial(segment, at, checksumOffset, pseudo);
  storeFullChecksum(segment, at, at + checksumOffset, pseudo);
  if (!isTcp) avoidNoChecksum(segment.view, at + checksumOffset);
}

/**
 * Must this large frame be cut for a receiver with these capabilities? One of a kind that cannot be cut need
 * not: it is for others to judge.
 */
export function mustCut({ gsoType }: NetHeader, receiver: OffloadCapabilities): boolean {
  const kind = gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
  const canCut = kind === VIRTIO_NET_HDR_GSO_TCPV4 || kind === VIRTIO_NET_HDR_GSO_TCPV6 ||
    kind === VIRTIO_NET_HDR_GSO_UDP_L4;
  // A large frame has a partial checksum: a receiver takes neither or both.
  return canCut && !(receiver.csum && receiver.admitsGso(gsoType));
}

/** Cuts a large frame into segments, one at a time, so that cutting can be interrupted and continued. */
export class Cutter {
  readonly #large: LargeFrame;
  readonly #pool: FramePool;
  /** What makes segments; null where there are no kernels. */
  readonly #kernels: Kernels | null;
  /** Are the segments of this frame for a kernel? */
  #isForKernel = false;
  #piece!: Frame;
  /** Bytes of `#piece` that are behind us. */
  #offset = 0;
  #index = 0;
  #cutBytes = 0;

  /** @param large what is cut; is filled anew before each `begin`. @param pool where segments come from */
  constructor(large: LargeFrame, pool: FramePool) {
    this.#large = large;
    this.#pool = pool;
    this.#kernels = pool.arena?.kernels ?? null;
  }

  /** Starts with the large frame that was located last. */
  begin(): void {
    this.#piece = this.#large.frame;
    this.#offset = this.#large.headerBytes;
    this.#index = 0;
    this.#cutBytes = 0;
    const { frame, transport } = this.#large;
    this.#isForKernel = this.#kernels !== null && frame.next === null && transport.isTcp &&
      frame.bytes === this.#pool.arena!.bytes &&
      (frame.view.getUint16(transport.at + TCP_OFFSET_FLAGS) & TCP_URG) === 0;
  }

  /** Is there a segment left to be cut? */
  get hasNext(): boolean {
    return this.#index < this.#large.segments;
  }

  /**
   * The next segment, complete; null if the pool is empty. @param partial the receiver completes checksums
   * itself
   */
  next(partial: boolean): Frame | null {
    const large = this.#large;
    const { frame, headerBytes } = large;
    const bytes = Math.min(large.segmentBytes, large.payloadBytes - this.#cutBytes);
    const segment = this.#pool.take(headerBytes + bytes);
    if (segment === null) return null;
    segment.queuePair = frame.queuePair;
    segment.number = frame.number;
    if (this.#isForKernel) this.#cutByKernel(this.#kernels!, segment, bytes, partial);
    else {
      copyBytes(frame.bytes, frame.start, headerBytes, segment.bytes, segment.start);
      this.#copyPayload(segment.bytes, segment.start + headerBytes, bytes);
      writeSegmentHeaders(segment, large, this.#index, this.#cutBytes);
      finishChecksum(segment, large, partial);
    }
    this.#index++;
    this.#cutBytes += bytes;
    return segment;
  }

  /** `segment` is new, and its header says nothing. */
  #cutByKernel(kernels: Kernels, segment: Frame, bytes: number, partial: boolean): void {
    const large = this.#large;
    const { frame, headerBytes, transportAt } = large;
    const index = this.#index;
    const isLast = index === large.segments - 1;
    kernels.cut(
      segment.start,
      frame.start,
      headerBytes,
      frame.start + headerBytes + this.#cutBytes,
      bytes,
      large.ipAt,
      transportAt,
      index,
      this.#cutBytes,
      large.emptyPseudoSum,
      (large.transport.isV4 ? IS_V4 : 0) | (isLast ? IS_LAST : 0) | (partial ? LEAVES_CHECKSUM : 0),
    );
    if (!partial) return;
    segment.header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    segment.header.csumStart = transportAt;
    segment.header.csumOffset = large.transport.checksumOffset;
  }

  #copyPayload(target: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length;) {
      const piece = this.#piece;
      const count = Math.min(length - done, piece.length - this.#offset);
      copyBytes(piece.bytes, piece.start + this.#offset, count, target, at + done);
      done += count;
      this.#offset += count;
      if (this.#offset === piece.length && piece.next !== null) {
        this.#piece = piece.next;
        this.#offset = 0;
      }
    }
  }
}
