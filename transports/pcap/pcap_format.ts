/**
 * The classic pcap format: a file header, then records. Both byte orders, microseconds and nanoseconds, and
 * the modified form of some Linux tools, whose records tell interface and direction.
 *
 * Nothing but the captured length of one record tells where the next begins. A length that neither the file's
 * own limit nor MAX_CAPTURED_BYTES allows is damage; a packet between the two is stepped over and counted as
 * one beyond our limit.
 * @module
 */
import type { ByteWindow } from "./byte_source.ts";
import type { CaptureSink, RecordEncoder } from "./capture_sink.ts";
import {
  CapturedPacket,
  type CaptureOddities,
  type CaptureStep,
  DIRECTION_INBOUND,
  DIRECTION_OUTBOUND,
  DIRECTION_UNKNOWN,
  MAX_CAPTURED_BYTES,
} from "./captured_packet.ts";
import { isReadableLinkType, LINKTYPE_ETHERNET, linkTypeName, toEthernet } from "./link_types.ts";

/** The magic number of a file with stamps in microseconds, in the writer's byte order. */
const PCAP_MAGIC_MICROSECONDS = 0xa1b2c3d4;
/** The magic number of a file with stamps in nanoseconds, in the writer's byte order. */
const PCAP_MAGIC_NANOSECONDS = 0xa1b23c4d;
/** The magic number of a modified file: microseconds, and eight more bytes in a record's header. */
const PCAP_MAGIC_MODIFIED = 0xa1b2cd34;
/** Bytes of the file header. */
export const PCAP_FILE_HEADER_BYTES = 24;
/** Bytes of a record's header. */
const PCAP_RECORD_HEADER_BYTES = 16;

const MODIFIED_RECORD_HEADER_BYTES = 24;
/** In a modified record, behind interface and protocol: how the packet came; this host sent it if it is 4. */
const MODIFIED_PACKET_TYPE = 22;
const PACKET_OUTGOING = 4;
/** Files of versions before 2.3 have the two lengths the other way round, those of 2.3 either way. */
const SWAPPED_LENGTHS_MINOR = 3;

/** Is this the magic number of a pcap file? */
export function isPcapMagic(magic: number): boolean {
  return magic === PCAP_MAGIC_MICROSECONDS || magic === PCAP_MAGIC_NANOSECONDS ||
    magic === PCAP_MAGIC_MODIFIED;
}

/** Reads a pcap file, one record a step. */
export class PcapParser {
  /** The packet of the last step. */
  readonly packet: CapturedPacket;
  readonly #window: ByteWindow;
  readonly #hostMac: Uint8Array;
  readonly #oddities: CaptureOddities;
  readonly #littleEndian: boolean;
  /** The two words with which the file begins: magic number and version. */
  readonly #magic: number;
  readonly #version: number;
  readonly #fractionNs: number;
  readonly #fcsBytes: number;
  readonly #linkType: number;
  readonly #minor: number;
  readonly #maxCapturedBytes: number;
  readonly #headBytes: number;
  #startSeconds = 0;
  #startFraction = 0;
  #skip = 0;

  /**
   * Reads the file header, which is there at `window`. Throws HostError for another version or link type.
   * @param window the file; @param hostMac address of the host that captured, for packets without one
   * @param oddities what to count in
   */
  constructor(window: ByteWindow, hostMac: Uint8Array, oddities: CaptureOddities) {
    this.#window = window;
    this.#hostMac = hostMac;
    this.#oddities = oddities;
    this.packet = new CapturedPacket(window.bytes);
    if (!window.ensure(PCAP_FILE_HEADER_BYTES)) {
      throw window.cutOff(
        window.offset,
        `the file header is cut off: ${window.available} of 24 bytes are there`,
      );
    }
    const { view, position } = window;
    this.#littleEndian = !isPcapMagic(view.getUint32(position, false));
    const magic = view.getUint32(position, this.#littleEndian);
    this.#magic = magic;
    this.#version = view.getUint32(position + 4, this.#littleEndian);
    this.#fractionNs = magic === PCAP_MAGIC_NANOSECONDS ? 1 : 1000;
    this.#headBytes = magic === PCAP_MAGIC_MODIFIED ? MODIFIED_RECORD_HEADER_BYTES : PCAP_RECORD_HEADER_BYTES;
    const major = view.getUint16(position + 4, this.#littleEndian);
    this.#minor = view.getUint16(position + 6, this.#littleEndian);
    if (major !== 2 || this.#minor > 4) {
      throw window.error(
        window.offset + 4,
        `the version is ${major}.${this.#minor}, and only 2.0 to 2.4 can be read`,
      );
    }
    this.#maxCapturedBytes = Math.max(MAX_CAPTURED_BYTES, view.getUint32(position + 16, this.#littleEndian));
    const word = view.getUint32(position + 20, this.#littleEndian);
    this.#linkType = word & 0xffff;
    if (!isReadableLinkType(this.#linkType)) {
      throw window.error(
        window.offset + 20,
        `the link type is ${linkTypeName(this.#linkType)}; capture on an Ethernet interface`,
      );
    }
    this.packet.linkType = this.#linkType;
    // Bit 26 says that the upper four bits hold the length of the frame check sequence, in 16-bit words.
    const hasFcsLength = (word & 0x0400_0000) !== 0 && this.#linkType === LINKTYPE_ETHERNET;
    this.#fcsBytes = hasFcsLength ? (word >>> 28) * 2 : 0;
    window.advance(PCAP_FILE_HEADER_BYTES);
  }

  /** When the first packet was captured, in ns since 1970; 0 before the first packet. */
  get startUnixNs(): bigint {
    return BigInt(this.#startSeconds) * 1_000_000_000n + BigInt(this.#startFraction * this.#fractionNs);
  }

  /** Reads one record. Throws HostError, with the offset, where the next one cannot be found. */
  step(): CaptureStep {
    const window = this.#window;
    if (this.#skip > 0) return this.#pass();
    const packet = this.packet;
    const offset = window.offset;
    const headBytes = this.#headBytes;
    if (!window.ensure(headBytes)) {
      if (window.waits) return "wait";
      if (window.available === 0) return "end";
      throw window.cutOff(
        offset,
        `a record header is cut off: ${window.available} of ${headBytes} bytes are there`,
      );
    }
    const { view, position } = window;
    const seconds = view.getUint32(position, this.#littleEndian);
    const fraction = view.getUint32(position + 4, this.#littleEndian);
    if (seconds === this.#magic && fraction === this.#version) return this.#passFileHeader();
    let captured = view.getUint32(position + 8, this.#littleEndian);
    let original = view.getUint32(position + 12, this.#littleEndian);
    const isSwapped = this.#minor < SWAPPED_LENGTHS_MINOR ||
      (this.#minor === SWAPPED_LENGTHS_MINOR && captured > original);
    if (isSwapped) [captured, original] = [original, captured];
    if (captured > this.#maxCapturedBytes) {
      throw window.error(
        offset + 8,
        `captured length ${captured} exceeds ${this.#maxCapturedBytes}; the file is damaged`,
      );
    }
    const isTooLong = captured > MAX_CAPTURED_BYTES;
    if (!isTooLong && !window.ensure(headBytes + captured)) {
      if (window.waits) return "wait";
      const there = window.available - headBytes;
      throw window.cutOff(offset, `a packet is cut off: ${there} of ${captured} bytes are there`);
    }
    if (++packet.number === 1) {
      this.#startSeconds = seconds;
      this.#startFraction = fraction;
    }
    packet.offset = offset;
    packet.timeNs = (seconds - this.#startSeconds) * 1e9 +
      (fraction - this.#startFraction) * this.#fractionNs;
    packet.direction = DIRECTION_UNKNOWN;
    if (headBytes === MODIFIED_RECORD_HEADER_BYTES) {
      const type = view.getUint8(window.position + MODIFIED_PACKET_TYPE);
      packet.direction = type === PACKET_OUTGOING ? DIRECTION_OUTBOUND : DIRECTION_INBOUND;
    }
    const at = window.position + headBytes;
    if (isTooLong) {
      packet.length = packet.originalLength = 0;
      packet.obstacle = "beyondLengthLimit";
      this.#oddities.beyondLengthLimit++;
      window.advance(headBytes);
      this.#skip = captured;
      return "unreadable";
    }
    const isWhole = packet.setLengths(at, captured, original, this.#fcsBytes, this.#oddities);
    window.advance(headBytes + captured);
    if (!toEthernet(packet, this.#linkType, this.#hostMac)) return "otherLinkType";
    return isWhole ? "whole" : "snapped";
  }

  /**
   * Steps over the header of another file, which was appended to this one: no record has the stamp of its
   * first two words.
   */
  #passFileHeader(): CaptureStep {
    const window = this.#window;
    const { offset } = window;
    if (!window.ensure(PCAP_FILE_HEADER_BYTES)) {
      if (window.waits) return "wait";
      throw window.cutOff(offset, `a file header is cut off: ${window.available} of 24 bytes are there`);
    }
    const linkType = window.view.getUint32(window.position + 20, this.#littleEndian) & 0xffff;
    if (linkType !== this.#linkType) {
      throw window.error(
        offset,
        `another capture begins here, of link type ${linkTypeName(linkType)}; join captures by mergecap`,
      );
    }
    window.advance(PCAP_FILE_HEADER_BYTES);
    return "other";
  }

  /** Steps over what is there of a packet that is too long. */
  #pass(): CaptureStep {
    const window = this.#window;
    const skipped = window.skip(this.#skip);
    this.#skip -= skipped;
    if (skipped > 0) return "other";
    if (window.waits) return "wait";
    const { offset } = this.packet;
    throw window.cutOff(offset, `a packet is cut off: ${this.#skip} bytes are missing`);
  }
}

/**
 * Encodes pcap records: little-endian, with nanosecond stamps, without directions and comments, for which
 * there is no room.
 */
export class PcapEncoder implements RecordEncoder {
  /** Bytes of a record's header. */
  readonly headBytes: number = PCAP_RECORD_HEADER_BYTES;
  /** Nothing follows a packet. */
  readonly maxTailBytes: number = 0;
  #startSeconds = 0;
  #startFractionNs = 0;

  /**
   * Fixes the start.
   * @param startUnixNs the time that is 0 in `timeNs`, in ns since 1970
   */
  constructor(startUnixNs: bigint) {
    this.setStart(startUnixNs);
  }

  /** Fixes the start anew, for what follows. */
  setStart(startUnixNs: bigint): void {
    this.#startSeconds = Number(startUnixNs / 1_000_000_000n);
    this.#startFractionNs = Number(startUnixNs % 1_000_000_000n);
  }

  /** The file header. */
  fileHeader(): Uint8Array {
    const view = new DataView(new ArrayBuffer(PCAP_FILE_HEADER_BYTES));
    view.setUint32(0, PCAP_MAGIC_NANOSECONDS, true);
    view.setUint16(4, 2, true);
    view.setUint16(6, 4, true);
    view.setUint32(16, MAX_CAPTURED_BYTES, true);
    view.setUint32(20, LINKTYPE_ETHERNET, true);
    return new Uint8Array(view.buffer);
  }

  /** Writes a record's header. Stamps before 1970 and after 2106 are moved to these limits. */
  encode(sink: CaptureSink, at: number, length: number, _flags: number, timeNs: number): number {
    const ns = this.#startFractionNs + timeNs;
    const carry = Math.floor(ns / 1e9);
    const seconds = this.#startSeconds + carry;
    const inRange = seconds >= 0 && seconds <= 0xffffffff;
    const view = sink.view;
    view.setUint32(at, inRange ? seconds : seconds < 0 ? 0 : 0xffffffff, true);
    view.setUint32(at + 4, inRange ? ns - carry * 1e9 : 0, true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 12, length, true);
    return PCAP_RECORD_HEADER_BYTES + length;
  }
}
