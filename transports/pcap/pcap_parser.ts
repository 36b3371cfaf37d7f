/**
 * The classic pcap format: a file header, then records. Both byte orders, microseconds and nanoseconds.
 * @module
 */
import type { ByteWindow } from "./byte_source.ts";
import {
  CapturedPacket,
  type CaptureStep,
  LINKTYPE_ETHERNET,
  linkTypeName,
  MAX_CAPTURED_BYTES,
} from "./captured_packet.ts";

/** The magic number of a file with stamps in microseconds, in the writer's byte order. */
export const PCAP_MAGIC_MICROSECONDS = 0xa1b2c3d4;
/** The magic number of a file with stamps in nanoseconds, in the writer's byte order. */
export const PCAP_MAGIC_NANOSECONDS = 0xa1b23c4d;
/** Bytes of the file header. */
export const PCAP_FILE_HEADER_BYTES = 24;
/** Bytes of a record's header. */
export const PCAP_RECORD_HEADER_BYTES = 16;

/** Reads a pcap file, one record a step. */
export class PcapParser {
  /** The packet of the last step. */
  readonly packet: CapturedPacket;
  readonly #window: ByteWindow;
  readonly #littleEndian: boolean;
  readonly #fractionNs: number;
  readonly #fcsBytes: number;
  #startSeconds = 0;
  #startFraction = 0;

  /**
   * Reads the file header, to which `window` points. Throws HostError for another version or link type.
   * @param window the file
   */
  constructor(window: ByteWindow) {
    this.#window = window;
    this.packet = new CapturedPacket(window.bytes);
    if (!window.ensure(PCAP_FILE_HEADER_BYTES)) {
      throw window.error(
        window.offset,
        `the file header is cut off: ${window.available} of 24 bytes are there`,
      );
    }
    const { view, position } = window;
    const magic = view.getUint32(position, false);
    this.#littleEndian = magic !== PCAP_MAGIC_MICROSECONDS && magic !== PCAP_MAGIC_NANOSECONDS;
    this.#fractionNs = view.getUint32(position, this.#littleEndian) === PCAP_MAGIC_NANOSECONDS ? 1 : 1000;
    const major = view.getUint16(position + 4, this.#littleEndian);
    const minor = view.getUint16(position + 6, this.#littleEndian);
    if (major !== 2 || minor !== 4) {
      throw window.error(window.offset + 4, `the version is ${major}.${minor}, and only 2.4 can be read`);
    }
    const word = view.getUint32(position + 20, this.#littleEndian);
    if ((word & 0xffff) !== LINKTYPE_ETHERNET) {
      throw window.error(
        window.offset + 20,
        `the link type is ${linkTypeName(word & 0xffff)}; capture on an Ethernet interface`,
      );
    }
    // Bit 26 says that the upper four bits hold the length of the frame check sequence, in 16-bit words.
    this.#fcsBytes = (word & 0x0400_0000) !== 0 ? (word >>> 28) * 2 : 0;
    window.advance(PCAP_FILE_HEADER_BYTES);
  }

  /** When the first packet was captured, in ns since 1970; 0 before the first packet. */
  get startUnixNs(): bigint {
    return BigInt(this.#startSeconds) * 1_000_000_000n + BigInt(this.#startFraction * this.#fractionNs);
  }

  /** Reads one record. Throws HostError, with the offset, for one that is cut off or impossible. */
  step(): CaptureStep {
    const window = this.#window;
    const packet = this.packet;
    const offset = window.offset;
    if (!window.ensure(PCAP_RECORD_HEADER_BYTES)) {
      if (window.available === 0) return "end";
      throw window.error(offset, `a record header is cut off: ${window.available} of 16 bytes are there`);
    }
    const { view, position } = window;
    const seconds = view.getUint32(position, this.#littleEndian);
    const fraction = view.getUint32(position + 4, this.#littleEndian);
    const captured = view.getUint32(position + 8, this.#littleEndian);
    const original = view.getUint32(position + 12, this.#littleEndian);
    if (captured > MAX_CAPTURED_BYTES) {
      throw window.error(
        offset + 8,
        `captured length ${captured} exceeds ${MAX_CAPTURED_BYTES}; the file is damaged`,
      );
    }
    if (captured > original) {
      throw window.error(
        offset + 8,
        `captured length ${captured} exceeds the original length ${original}; the file is damaged`,
      );
    }
    if (!window.ensure(PCAP_RECORD_HEADER_BYTES + captured)) {
      const there = window.available - PCAP_RECORD_HEADER_BYTES;
      throw window.error(offset, `a packet is cut off: ${there} of ${captured} bytes are there`);
    }
    if (++packet.number === 1) {
      this.#startSeconds = seconds;
      this.#startFraction = fraction;
    }
    packet.offset = offset;
    packet.timeNs = (seconds - this.#startSeconds) * 1e9 +
      (fraction - this.#startFraction) * this.#fractionNs;
    packet.setLengths(window.position + PCAP_RECORD_HEADER_BYTES, captured, original, this.#fcsBytes);
    window.advance(PCAP_RECORD_HEADER_BYTES + captured);
    return captured < original ? "snapped" : "whole";
  }
}
