/**
 * The pcapng format: sections of blocks. Interface, Enhanced Packet, Simple Packet and the obsolete Packet blocks are
 * read; all others are stepped over.
 *
 * Theory of operation. A Section Header block fixes the byte order and forgets the interfaces; an Interface
 * Description block adds one; a packet block names one by its number. `step` reads one block. Blocks that are read are
 * brought into the window whole, so their length is limited (MAX_BLOCK_BYTES); others may have any length and pass
 * through the window (`pcapng_framing.ts`). Every length is checked against the block's before it is used: a file that
 * lies is refused at the offset of the lie.
 *
 * Time. Each interface counts 64-bit ticks of its own length from its own offset. The first packet of an interface is
 * converted exactly, with BigInt; later ones add their distance in ticks to it, in plain numbers.
 *
 * Limits: MAX_INTERFACES a section, MAX_CAPTURED_BYTES a packet; stamps are cut to nanoseconds.
 * @module
 */
import type { ByteWindow } from "./byte_source.ts";
import {
  CapturedPacket,
  type CaptureStep,
  DIRECTION_UNKNOWN,
  LINKTYPE_ETHERNET,
  MAX_CAPTURED_BYTES,
  type PacketDirection,
} from "./captured_packet.ts";
import { CaptureInterface } from "./capture_interface.ts";
import {
  BLOCK_ENHANCED_PACKET,
  BLOCK_INTERFACE,
  BLOCK_PACKET,
  BLOCK_SECTION_HEADER,
  BLOCK_SIMPLE_PACKET,
  BYTE_ORDER_MAGIC,
  MAX_INTERFACES,
  readOptions,
} from "./pcapng_blocks.ts";
import { blockLength, holdBlock, LEAST_BLOCK_BYTES, stepOverBlock } from "./pcapng_framing.ts";

/** Reads a pcapng file, one block a step. */
export class PcapngParser {
  /** The packet of the last step. */
  readonly packet: CapturedPacket;
  readonly #window: ByteWindow;
  readonly #interfaces: CaptureInterface[] = [];
  #littleEndian = true;
  #startUnixNs: bigint | null = null;
  #flags = 0;

  /**
   * Begins at a section header.
   * @param window the file, from its first section header on
   */
  constructor(window: ByteWindow) {
    this.#window = window;
    this.packet = new CapturedPacket(window.bytes);
  }

  /** When the first packet with a stamp was captured, in ns since 1970; 0 before it. */
  get startUnixNs(): bigint {
    return this.#startUnixNs ?? 0n;
  }

  /** Reads one block. Throws HostError, with the offset, for one that is cut off or impossible. */
  step(): CaptureStep {
    const window = this.#window;
    const { offset, view } = window;
    if (!window.ensure(LEAST_BLOCK_BYTES)) {
      if (window.available === 0) return "end";
      const wanted = `${window.available} of at least ${LEAST_BLOCK_BYTES} bytes are there`;
      throw window.error(offset, `a block is cut off: ${wanted}`);
    }
    const type = view.getUint32(window.position, this.#littleEndian);
    if (type === BLOCK_SECTION_HEADER) this.#readByteOrder(offset);
    const length = blockLength(window, this.#littleEndian);
    switch (type) {
      case BLOCK_SECTION_HEADER:
        holdBlock(window, this.#littleEndian, type, length, 28);
        this.#readSection(offset);
        break;
      case BLOCK_INTERFACE:
        holdBlock(window, this.#littleEndian, type, length, 20);
        this.#readInterface(offset, length);
        break;
      case BLOCK_ENHANCED_PACKET:
        holdBlock(window, this.#littleEndian, type, length, 32);
        return this.#readPacket(offset, length, view.getUint32(window.position + 8, this.#littleEndian));
      case BLOCK_PACKET:
        holdBlock(window, this.#littleEndian, type, length, 32);
        return this.#readPacket(offset, length, view.getUint16(window.position + 8, this.#littleEndian));
      case BLOCK_SIMPLE_PACKET:
        holdBlock(window, this.#littleEndian, type, length, 16);
        return this.#readSimplePacket(offset, length);
      default:
        stepOverBlock(window, this.#littleEndian, type, length);
        return "other";
    }
    window.advance(length);
    return "other";
  }

  #readByteOrder(offset: number): void {
    const { view, position } = this.#window;
    const magic = view.getUint32(position + 8, false);
    if (magic === BYTE_ORDER_MAGIC) this.#littleEndian = false;
    else if (view.getUint32(position + 8, true) === BYTE_ORDER_MAGIC) this.#littleEndian = true;
    else {throw this.#window.error(
        offset + 8,
        `the byte-order magic is 0x${magic.toString(16)}; the file is damaged`,
      );}
  }

  #readSection(offset: number): void {
    const { view, position } = this.#window;
    const major = view.getUint16(position + 12, this.#littleEndian);
    const minor = view.getUint16(position + 14, this.#littleEndian);
    if (major !== 1 || (minor !== 0 && minor !== 2)) {
      throw this.#window.error(
        offset + 12,
        `the section's version is ${major}.${minor}, and only 1.0 can be read`,
      );
    }
    this.#interfaces.length = 0;
  }

  #readInterface(offset: number, length: number): void {
    const { view, position } = this.#window;
    if (this.#interfaces.length === MAX_INTERFACES) {
      throw this.#window.error(
        offset,
        `the section has more than ${MAX_INTERFACES} interfaces; the file is damaged`,
      );
    }
    const added = new CaptureInterface(
      view.getUint16(position + 8, this.#littleEndian),
      view.getUint32(position + 12, this.#littleEndian),
    );
    this.#interfaces.push(added);
    readOptions(this.#window, offset, 16, length, this.#littleEndian, added);
  }

  #readPacket(offset: number, length: number, interfaceId: number): CaptureStep {
    const window = this.#window;
    const { view, position } = window;
    const high = view.getUint32(position + 12, this.#littleEndian);
    const low = view.getUint32(position + 16, this.#littleEndian);
    const captured = view.getUint32(position + 20, this.#littleEndian);
    const original = view.getUint32(position + 24, this.#littleEndian);
    const source = this.#interfaceOf(offset, interfaceId);
    this.#checkLengths(offset + 20, captured, original, length - 32);
    // The data is padded to four bytes, and so is the block: the padding cannot reach beyond it.
    this.#flags = readOptions(window, offset, 28 + ((captured + 3) & ~3), length, this.#littleEndian, null);
    if (!source.hasBase) {
      const unixNs = source.unixNs(high, low);
      this.#startUnixNs ??= unixNs;
      source.setBase(high, low, Number(unixNs - this.#startUnixNs));
    }
    this.packet.timeNs = source.timeNs(high, low);
    const fcsBytes = (this.#flags >>> 5) & 0xf;
    return this.#found(offset, length, 28, captured, original, interfaceId, fcsBytes || source.fcsBytes);
  }

  #readSimplePacket(offset: number, length: number): CaptureStep {
    const { view, position } = this.#window;
    const original = view.getUint32(position + 8, this.#littleEndian);
    const source = this.#interfaceOf(offset, 0);
    const captured = source.snapLength === 0 ? original : Math.min(original, source.snapLength);
    this.#checkLengths(offset + 8, captured, original, length - 16);
    this.#flags = 0;
    // It has no stamp, so it keeps that of the packet before it.
    return this.#found(offset, length, 12, captured, original, 0, source.fcsBytes);
  }

  #found(
    offset: number,
    length: number,
    dataAt: number,
    captured: number,
    original: number,
    interfaceId: number,
    fcsBytes: number,
  ): CaptureStep {
    const window = this.#window;
    const packet = this.packet;
    packet.number++;
    packet.offset = offset;
    packet.interfaceId = interfaceId;
    const direction = this.#flags & 3;
    packet.direction = direction === 3 ? DIRECTION_UNKNOWN : direction as PacketDirection;
    packet.setLengths(window.position + dataAt, captured, original, fcsBytes);
    window.advance(length);
    if (this.#interfaces[interfaceId].linkType !== LINKTYPE_ETHERNET) return "otherLinkType";
    return captured < original ? "snapped" : "whole";
  }

  #interfaceOf(offset: number, interfaceId: number): CaptureInterface {
    const source = this.#interfaces[interfaceId];
    if (source === undefined) {
      throw this.#window.error(
        offset + 8,
        `a packet names interface ${interfaceId}, and the section has described ${this.#interfaces.length}`,
      );
    }
    return source;
  }

  #checkLengths(offset: number, captured: number, original: number, room: number): void {
    if (captured > original || captured > room || captured > MAX_CAPTURED_BYTES) {
      throw this.#window.error(
        offset,
        `captured length ${captured} exceeds the original length ${original}, the block's ${room} bytes, ` +
          `or ${MAX_CAPTURED_BYTES}; the file is damaged`,
      );
    }
  }
}
