/**
 * Blocks of the pcapng format, little-endian: one section, one interface a direction, Enhanced Packet blocks.
 * @module
 */
import type { CaptureSink, RecordEncoder } from "./capture_sink.ts";
import { DIRECTION_OUTBOUND, MAX_CAPTURED_BYTES, PACKET_FLAGS_DIRECTION } from "./captured_packet.ts";
import { LINKTYPE_ETHERNET } from "./link_types.ts";
import {
  BLOCK_ENHANCED_PACKET,
  BLOCK_INTERFACE,
  BLOCK_SECTION_HEADER,
  BYTE_ORDER_MAGIC,
} from "./pcapng_parser.ts";

const HEAD_BYTES = 28;
const FLAGS_OPTION_BYTES = 8;
const MAX_COMMENT_BYTES = 4096;
const OPTION_COMMENT = 1;
const OPTION_FLAGS = 2;
const OPTION_APPLICATION = 4;
const OPTION_INTERFACE_NAME = 2;
const OPTION_TIMESTAMP_RESOLUTION = 9;
const TWO_32 = 4_294_967_296;

/** The interfaces, by number: packets on their way to the guest, and from it. */
const INTERFACE_NAMES = ["toGuest", "fromGuest"];

/** Encodes Enhanced Packet blocks. */
export class PcapngEncoder implements RecordEncoder {
  /** Bytes of a block before the packet. */
  readonly headBytes: number = HEAD_BYTES;
  /** Padding, comment, flags, end of options, and the block's length again. */
  readonly maxTailBytes: number = 3 + 4 + MAX_COMMENT_BYTES + 3 + FLAGS_OPTION_BYTES + 4 + 4;
  readonly #encoder = new TextEncoder();
  readonly #comment = new Uint8Array(MAX_COMMENT_BYTES);
  #startHigh = 0;
  #startLow = 0;

  /**
   * Fixes the start.
   * @param startUnixNs the time that is 0 in `timeNs`, in ns since 1970
   */
  constructor(startUnixNs: bigint) {
    this.setStart(startUnixNs);
  }

  /** Fixes the start anew, for what follows. */
  setStart(startUnixNs: bigint): void {
    this.#startHigh = Number(startUnixNs >> 32n);
    this.#startLow = Number(startUnixNs & 0xffffffffn);
  }

  /** The section header and the descriptions of both interfaces. */
  fileHeader(): Uint8Array {
    const section = block(BLOCK_SECTION_HEADER, [
      ...u32(BYTE_ORDER_MAGIC),
      ...u32(1), // version 1.0
      ...u32(-1), // the length of the section is not given
      ...u32(-1),
      ...option(OPTION_APPLICATION, this.#encoder.encode("deno-virtio")),
      ...u32(0),
    ]);
    const interfaces = INTERFACE_NAMES.map((name) =>
      block(BLOCK_INTERFACE, [
        ...u32(LINKTYPE_ETHERNET),
        ...u32(MAX_CAPTURED_BYTES),
        ...option(OPTION_INTERFACE_NAME, this.#encoder.encode(name)),
        ...option(OPTION_TIMESTAMP_RESOLUTION, [9]),
        ...u32(0),
      ])
    );
    return Uint8Array.from([...section, ...interfaces.flat()]);
  }

  /**
   * Writes what stands around a packet. A comment is cut to 4096 bytes. Stamps before 1970 or beyond 64 bits
   * are moved to these limits.
   */
  encode(
    sink: CaptureSink,
    at: number,
    length: number,
    flags: number,
    timeNs: number,
    comment: string,
  ): number {
    const view = sink.view;
    const carry = Math.floor(timeNs / TWO_32);
    const low = this.#startLow + (timeNs - carry * TWO_32);
    const high = this.#startHigh + carry + (low >= TWO_32 ? 1 : 0);
    view.setUint32(at, BLOCK_ENHANCED_PACKET, true);
    view.setUint32(at + 8, (flags & PACKET_FLAGS_DIRECTION) === DIRECTION_OUTBOUND ? 1 : 0, true);
    const inRange = high >= 0 && high < TWO_32;
    view.setUint32(at + 12, inRange ? high : high < 0 ? 0 : 0xffffffff, true);
    view.setUint32(at + 16, inRange ? (low >= TWO_32 ? low - TWO_32 : low) : 0, true);
    view.setUint32(at + 20, length, true);
    view.setUint32(at + 24, length, true);
    let to = at + HEAD_BYTES + length;
    while ((to - at) % 4 !== 0) view.setUint8(to++, 0);
    if (comment !== "") {
      const size = this.#encoder.encodeInto(comment, this.#comment).written;
      view.setUint16(to, OPTION_COMMENT, true);
      view.setUint16(to + 2, size, true);
      sink.bytes.set(new Uint8Array(this.#comment.buffer, 0, size), to + 4);
      to += 4 + size;
      while ((to - at) % 4 !== 0) view.setUint8(to++, 0);
    }
    view.setUint16(to, OPTION_FLAGS, true);
    view.setUint16(to + 2, 4, true);
    view.setUint32(to + 4, flags, true);
    view.setUint32(to + 8, 0, true);
    const blockBytes = to + 16 - at;
    view.setUint32(to + 12, blockBytes, true);
    view.setUint32(at + 4, blockBytes, true);
    return blockBytes;
  }
}

function u32(value: number): number[] {
  return [value & 255, value >>> 8 & 255, value >>> 16 & 255, value >>> 24];
}

function option(code: number, value: ArrayLike<number>): number[] {
  const padding = new Array<number>((4 - value.length % 4) % 4).fill(0);
  return [...u32(code | value.length << 16), ...Array.from(value), ...padding];
}

function block(type: number, body: number[]): number[] {
  const length = u32(body.length + 12);
  return [...u32(type), ...length, ...body, ...length];
}
