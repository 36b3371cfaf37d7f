/**
 * Records of the classic pcap format, little-endian, with nanosecond stamps.
 * @module
 */
import { MAX_CAPTURED_BYTES } from "./captured_packet.ts";
import type { CaptureSink } from "./capture_sink.ts";
import { LINKTYPE_ETHERNET } from "./link_types.ts";
import { PCAP_FILE_HEADER_BYTES, PCAP_MAGIC_NANOSECONDS, PCAP_RECORD_HEADER_BYTES } from "./pcap_parser.ts";
import type { RecordEncoder } from "./record_encoder.ts";

/** Encodes pcap records. The format has room for neither directions nor comments. */
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
