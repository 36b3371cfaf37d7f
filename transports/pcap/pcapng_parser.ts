/**
 * The pcapng format: sections of blocks. Interface, Enhanced Packet, Simple Packet and the obsolete Packet
 * blocks are read; all others are stepped over.
 *
 * Theory of operation. A Section Header block fixes the byte order and forgets the interfaces; an Interface
 * Description block adds one; a packet block names one by its number. `step` reads one block. A block is
 * delimited by its length alone: anything else that is wrong in it costs a packet or an option, is counted,
 * and the next block follows. If the length at its end is another one, or the padding is missing in it, the
 * first is taken, rounded up, and counted as an oddity, provided that it leads to the end of the file or to a
 * block of a type that there is. The file ends early only where it is cut off or the next block cannot be
 * found.
 *
 * A block is brought into the window whole if it is no longer than MAX_HELD_BLOCK_BYTES. A longer one passes
 * through the window in pieces: `#begin` has read its head, then each `step` reads one option or steps over
 * as much as is there (`#left` bytes of the body are still to come, `#skip` of these are of no interest). The
 * packet of such a block is put aside before its options pass. So the work of a step, and memory, are bounded
 * at any length.
 *
 * A source may have no bytes at the moment; then a step does nothing and says `wait`, wherever in a block
 * that is.
 *
 * Time. Each interface counts 64-bit ticks of its own length from its own offset. The first packet of an
 * interface is converted exactly, with BigInt; later ones add their distance in ticks to it, in plain
 * numbers.
 *
 * Limits of this reader, counted as such: MAX_INTERFACES a section, MAX_CAPTURED_BYTES a packet. Stamps are
 * cut to nanoseconds.
 * @module
 */
import type { HostError } from "../../core/errors.ts";
import type { ByteWindow } from "./byte_source.ts";
import {
  CapturedPacket,
  type CaptureOddities,
  type CaptureStep,
  DIRECTION_UNKNOWN,
  MAX_CAPTURED_BYTES,
  PACKET_FLAGS_DIRECTION,
  PACKET_FLAGS_FCS_LENGTH,
  type PacketDirection,
  type PacketObstacle,
} from "./captured_packet.ts";
import { isReadableLinkType, LINKTYPE_ETHERNET, NO_LINK_TYPE, toEthernet } from "./link_types.ts";

/** Block type: Section Header; the same in both byte orders. */
export const BLOCK_SECTION_HEADER = 0x0a0d0d0a;
/** Block type: Interface Description. */
export const BLOCK_INTERFACE = 1;
/** Block type: Packet, obsolete. */
const BLOCK_PACKET = 2;
/** Block type: Simple Packet. */
const BLOCK_SIMPLE_PACKET = 3;
/** Block type: Enhanced Packet. */
export const BLOCK_ENHANCED_PACKET = 6;
/** Block types that the format defines; custom blocks are the last two. */
const BLOCK_TYPES = new Set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, BLOCK_SECTION_HEADER, 0xbad, 0x4000_0bad]);
/** The byte-order magic of a section header, in the writer's byte order. */
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

/** The longest block that is held whole; a longer one is read as it passes. */
const MAX_HELD_BLOCK_BYTES: number = MAX_CAPTURED_BYTES + 128 * 1024;
/**
 * The most interfaces of a section of which packets are read; the obsolete Packet block cannot name more
 * either.
 */
export const MAX_INTERFACES = 65_536;
/** Bytes that every block has: type, length, and the length again. */
const MIN_BLOCK_BYTES = 12;

/** An option's code: the end of options. */
const OPTION_END = 0;
/** An option's code: flags of a packet. */
const OPTION_PACKET_FLAGS = 2;
/** Bytes of the longest option that is of interest. */
const MAX_OPTION_BYTES = 8;
const OPTION_TIMESTAMP_RESOLUTION = 9;
const OPTION_FCS_LENGTH = 13;
const OPTION_TIMESTAMP_OFFSET = 14;

/** Bytes in front of the packet: of an Enhanced or obsolete Packet block, and of a Simple Packet block. */
const PACKET_HEAD_BYTES = 28;
const SIMPLE_HEAD_BYTES = 12;
/** Bytes of the head that any block has: its type and its length. */
const BARE_HEAD_BYTES = 8;
/** As in the window, there is room for an Ethernet header in front of a packet that was put aside. */
const ASIDE_HEADROOM_BYTES = 16;
/** Bytes of the length at the end of a block. */
const TRAILER_BYTES = 4;
const FLAGS_FCS_SHIFT = 5;
const NS_PER_SECOND = 1_000_000_000n;

/** Reads a pcapng file, one block a step. */
export class PcapngParser {
  /** The packet of the last step. */
  readonly packet: CapturedPacket;
  readonly #window: ByteWindow;
  readonly #hostMac: Uint8Array;
  readonly #oddities: CaptureOddities;
  readonly #interfaces: CaptureInterface[] = [];
  #described = 0;
  #littleEndian = true;
  #startUnixNs: bigint | null = null;
  /** The packet of a long block lies here; made when there is the first. */
  #aside: Uint8Array<ArrayBuffer> | null = null;
  /** The block at hand. */
  #type = 0;
  #offset = 0;
  #length = 0;
  /** Its length as it is written: some leave the padding out of it. */
  #writtenLength = 0;
  /**
   * The length at the end of the block before, if it was another one than at its start; -1 if all was well.
   */
  #disagreeing = -1;
  /** Bytes of it between its head and its trailer. */
  #room = 0;
  /** Is it passing in pieces? */
  #isPassing = false;
  /** Bytes of it in front of the trailer that are still to come, and how many of these to step over. */
  #left = 0;
  #skip = 0;
  /** Are there options that matter? Of which interface, if of one? */
  #hasOptions = false;
  #target: CaptureInterface | null = null;
  /** The packet of the block at hand. */
  #outcome: CaptureStep = "other";
  #captured = 0;
  #original = 0;
  #flags = 0;

  /**
   * Begins at a section header.
   * @param window the file, from its first section header on; @param hostMac address of the host that
   * captured, for packets without one; @param oddities what to count in
   */
  constructor(window: ByteWindow, hostMac: Uint8Array, oddities: CaptureOddities) {
    this.#window = window;
    this.#hostMac = hostMac;
    this.#oddities = oddities;
    this.packet = new CapturedPacket(window.bytes);
  }

  /** When the first packet with a stamp was captured, in ns since 1970; 0 before it. */
  get startUnixNs(): bigint {
    return this.#startUnixNs ?? 0n;
  }

  /**
   * Reads one block, or a part of a long one. Throws HostError, with the offset, where the next block cannot
   * be found.
   */
  step(): CaptureStep {
    if (this.#isPassing) return this.#pass();
    const window = this.#window;
    const { offset, view } = window;
    if (!window.ensure(MIN_BLOCK_BYTES)) {
      if (window.waits) return "wait";
      if (window.available === 0) return "end";
      this.#unlessFound(false);
      const wanted = `${window.available} of at least ${MIN_BLOCK_BYTES} bytes are there`;
      throw window.cutOff(offset, `a block is cut off: ${wanted}`);
    }
    const type = view.getUint32(window.position, this.#littleEndian);
    this.#unlessFound(BLOCK_TYPES.has(type));
    this.#offset = offset;
    this.#type = type;
    if (type === BLOCK_SECTION_HEADER) this.#readByteOrder();
    const length = this.#writtenLength = view.getUint32(window.position + 4, this.#littleEndian);
    this.#length = Math.ceil(length / 4) * 4;
    if (length < MIN_BLOCK_BYTES || (length !== this.#length && !BLOCK_TYPES.has(type))) {
      throw window.error(
        offset + 4,
        `block length ${length} is not a multiple of 4 of at least ${MIN_BLOCK_BYTES}`,
      );
    }
    const headBytes = this.#headBytes();
    const isHeld = headBytes > BARE_HEAD_BYTES && this.#length <= MAX_HELD_BLOCK_BYTES;
    if (!window.ensure(isHeld ? this.#length : headBytes)) return this.#unlessCutOff();
    this.#room = this.#length - headBytes - TRAILER_BYTES;
    this.#readLengths(headBytes);
    if (isHeld) {
      this.#trailer(window.position + this.#length - TRAILER_BYTES);
    } else if (this.#captured <= MAX_CAPTURED_BYTES && !window.ensure(headBytes + this.#captured)) {
      return this.#unlessCutOff();
    }
    this.#begin(headBytes);
    if (isHeld) {
      const at = window.position + headBytes;
      if (this.#hasOptions) this.#readOptions(at + this.#dataBytes(), at + this.#room);
      this.packet.at = at;
      this.packet.bytes = window.bytes;
      window.advance(this.#length);
      return this.#finish();
    }
    if (this.#outcome === "whole") this.#putAside(window.position + headBytes);
    window.advance(headBytes);
    this.#left = this.#room;
    this.#skip = this.#hasOptions ? this.#dataBytes() : this.#left;
    this.#isPassing = true;
    return this.#pass();
  }

  /** Bytes of the head of the block at hand; those of any block if it is too short for its own. */
  #headBytes(): number {
    const headBytes = headOf(this.#type);
    if (this.#length >= headBytes + TRAILER_BYTES) return headBytes;
    if (this.#type !== BLOCK_SECTION_HEADER) return BARE_HEAD_BYTES;
    throw this.#window.error(
      this.#offset + 4,
      `the section header's length ${this.#length} is less than ${
        headBytes + TRAILER_BYTES
      }; the file is damaged`,
    );
  }

  /** Reads how long the packet of the block is; 0 if it has none. */
  #readLengths(headBytes: number): void {
    const { view, position } = this.#window;
    this.#captured = this.#original = 0;
    if (headBytes === PACKET_HEAD_BYTES) {
      this.#captured = view.getUint32(position + 20, this.#littleEndian);
      this.#original = view.getUint32(position + 24, this.#littleEndian);
    } else if (headBytes === SIMPLE_HEAD_BYTES) {
      this.#original = view.getUint32(position + 8, this.#littleEndian);
      const snapLength = this.#interfaces[0]?.snapLength || this.#original;
      // How much was captured is not written down: the snap length tells, and the block has the last word.
      this.#captured = Math.min(this.#original, snapLength, this.#room);
    }
  }

  /**
   * Reads the head of the block at hand, which is in the window: what it is, and whether options follow that
   * matter.
   */
  #begin(headBytes: number): void {
    const { view, position } = this.#window;
    this.#hasOptions = false;
    this.#target = null;
    this.#outcome = "other";
    this.#flags = 0;
    const isBare = headBytes === BARE_HEAD_BYTES;
    switch (this.#type) {
      case BLOCK_SECTION_HEADER:
        this.#readSection();
        break;
      case BLOCK_INTERFACE:
        this.#hasOptions = !isBare;
        if (this.#described++ >= MAX_INTERFACES) break;
        this.#target = isBare ? new CaptureInterface(NO_LINK_TYPE, 0) : new CaptureInterface(
          view.getUint16(position + 8, this.#littleEndian),
          view.getUint32(position + 12, this.#littleEndian),
        );
        this.#interfaces.push(this.#target);
        break;
      case BLOCK_ENHANCED_PACKET:
      case BLOCK_PACKET:
        if (isBare) this.#beginPacket(0, true, -1, -1);
        else {
          const interfaceId = this.#type === BLOCK_PACKET
            ? view.getUint16(position + 8, this.#littleEndian)
            : view.getUint32(position + 8, this.#littleEndian);
          const high = view.getUint32(position + 12, this.#littleEndian);
          this.#beginPacket(interfaceId, false, high, view.getUint32(position + 16, this.#littleEndian));
        }
        break;
      case BLOCK_SIMPLE_PACKET:
        // It has no stamp, so it keeps that of the packet before it.
        this.#beginPacket(0, isBare, -1, -1);
        break;
    }
  }

  #beginPacket(interfaceId: number, isBare: boolean, high: number, low: number): void {
    const { packet } = this;
    packet.number++;
    packet.offset = this.#offset;
    packet.interfaceId = interfaceId;
    const source = this.#interfaces[interfaceId];
    packet.linkType = source?.linkType ?? NO_LINK_TYPE;
    const obstacle = isBare ? "beyondBlock" : this.#obstacle(interfaceId);
    if (obstacle !== null) {
      packet.obstacle = obstacle;
      this.#oddities[obstacle]++;
      this.#outcome = "unreadable";
    } else {
      this.#outcome = isReadableLinkType(source.linkType) ? "whole" : "otherLinkType";
      this.#hasOptions = this.#outcome === "whole" && this.#type !== BLOCK_SIMPLE_PACKET;
    }
    if (source === undefined || high < 0) return;
    if (!source.hasBase) {
      const unixNs = source.unixNs(high, low);
      this.#startUnixNs ??= unixNs;
      source.setBase(high, low, Number(unixNs - this.#startUnixNs));
    }
    packet.timeNs = source.timeNs(high, low);
  }

  #obstacle(interfaceId: number): PacketObstacle | null {
    if (interfaceId >= this.#described) return "unknownInterface";
    if (interfaceId >= MAX_INTERFACES) return "beyondInterfaceLimit";
    if (this.#captured > this.#room) return "beyondBlock";
    // What is of no interest may have any length.
    if (!isReadableLinkType(this.#interfaces[interfaceId].linkType)) return null;
    return this.#captured > MAX_CAPTURED_BYTES ? "beyondLengthLimit" : null;
  }

  /** Bytes of the packet with its padding. */
  #dataBytes(): number {
    return Math.ceil(this.#captured / 4) * 4;
  }

  /** Copies the packet of a long block, which is in the window from `from` on. */
  #putAside(from: number): void {
    this.#aside ??= new Uint8Array(ASIDE_HEADROOM_BYTES + MAX_CAPTURED_BYTES);
    this.#aside.set(this.#window.bytes.subarray(from, from + this.#captured), ASIDE_HEADROOM_BYTES);
  }

  /** Reads options that are in the window, from `at` to `end`. */
  #readOptions(at: number, end: number): void {
    const { view } = this.#window;
    while (end - at >= 4) {
      const code = view.getUint16(at, this.#littleEndian);
      const size = view.getUint16(at + 2, this.#littleEndian);
      if (code === OPTION_END) return;
      if (size > end - at - 4) {
        this.#oddities.badOptions++;
        return;
      }
      this.#takeOption(at + 4, code, size);
      at += 4 + ((size + 3) & ~3);
    }
  }

  #takeOption(at: number, code: number, size: number): void {
    const { view } = this.#window;
    if (this.#target !== null) {
      if (!takeInterfaceOption(view, at, this.#littleEndian, code, size, this.#target)) {
        this.#oddities.badOptions++;
      }
    } else if (code === OPTION_PACKET_FLAGS && size === 4 && this.#type !== BLOCK_INTERFACE) {
      this.#flags = view.getUint32(at, this.#littleEndian);
    }
  }

  /** Goes on with a long block: one option, or what there is to step over. */
  #pass(): CaptureStep {
    const window = this.#window;
    if (this.#skip > 0) {
      const skipped = window.skip(this.#skip);
      this.#skip -= skipped;
      this.#left -= skipped;
      return skipped > 0 ? "other" : this.#unlessCutOff();
    }
    if (this.#hasOptions && this.#left >= 4) {
      const { view } = window;
      if (!window.ensure(4)) return this.#unlessCutOff();
      const code = view.getUint16(window.position, this.#littleEndian);
      const size = view.getUint16(window.position + 2, this.#littleEndian);
      const isBad = size > this.#left - 4;
      if (isBad) this.#oddities.badOptions++;
      if (isBad || code === OPTION_END) {
        this.#hasOptions = false;
        this.#skip = this.#left;
        return "other";
      }
      if (size <= MAX_OPTION_BYTES) {
        if (!window.ensure(4 + size)) return this.#unlessCutOff();
        this.#takeOption(window.position + 4, code, size);
      }
      this.#skip = Math.min(4 + ((size + 3) & ~3), this.#left);
      return "other";
    }
    if (this.#left > 0) {
      this.#skip = this.#left;
      return "other";
    }
    if (!window.ensure(TRAILER_BYTES)) return this.#unlessCutOff();
    this.#trailer(window.position);
    window.advance(TRAILER_BYTES);
    this.#isPassing = false;
    if (this.#aside !== null) {
      this.packet.bytes = this.#aside;
      this.packet.at = ASIDE_HEADROOM_BYTES;
    }
    return this.#finish();
  }

  /** Says what the block was, all of which has been read. */
  #finish(): CaptureStep {
    const { packet } = this;
    if (this.#outcome === "other") return "other";
    const direction = this.#flags & PACKET_FLAGS_DIRECTION;
    packet.flags = this.#flags;
    packet.direction = direction === 3 ? DIRECTION_UNKNOWN : direction as PacketDirection;
    packet.length = packet.originalLength = 0;
    if (this.#outcome !== "whole") return this.#outcome;
    const source = this.#interfaces[packet.interfaceId];
    const isEthernet = source.linkType === LINKTYPE_ETHERNET;
    const fcsBytes = (this.#flags & PACKET_FLAGS_FCS_LENGTH) >>> FLAGS_FCS_SHIFT || source.fcsBytes;
    const isWhole = packet.setLengths(
      packet.at,
      this.#captured,
      this.#original,
      isEthernet ? fcsBytes : 0,
      this.#oddities,
    );
    if (!toEthernet(packet, source.linkType, this.#hostMac)) return "otherLinkType";
    return isWhole ? "whole" : "snapped";
  }

  #readByteOrder(): void {
    const { view, position } = this.#window;
    const magic = view.getUint32(position + 8, false);
    if (magic === BYTE_ORDER_MAGIC) this.#littleEndian = false;
    else if (view.getUint32(position + 8, true) === BYTE_ORDER_MAGIC) this.#littleEndian = true;
    else {throw this.#window.error(
        this.#offset + 8,
        `the byte-order magic is 0x${magic.toString(16)}; the file is damaged`,
      );}
  }

  #readSection(): void {
    const { view, position } = this.#window;
    const major = view.getUint16(position + 12, this.#littleEndian);
    const minor = view.getUint16(position + 14, this.#littleEndian);
    if (major !== 1 || (minor !== 0 && minor !== 2)) {
      throw this.#window.error(
        this.#offset + 12,
        `the section's version is ${major}.${minor}, and only 1.0 can be read`,
      );
    }
    this.#interfaces.length = 0;
    this.#described = 0;
  }

  /** Checks the length at the end of the block, which stands at `at`. */
  #trailer(at: number): void {
    const repeated = this.#window.view.getUint32(at, this.#littleEndian);
    if (repeated === this.#length && repeated === this.#writtenLength) return;
    this.#disagreeing = repeated;
    this.#oddities.lengthsDisagree++;
  }

  /** Throws if the first of two lengths that disagreed has not led to a block. */
  #unlessFound(isFound: boolean): void {
    const repeated = this.#disagreeing;
    this.#disagreeing = -1;
    if (repeated < 0 || isFound) return;
    throw this.#window.error(
      this.#offset + this.#length - TRAILER_BYTES,
      `the block's length is ${this.#writtenLength} at its start and ${repeated} at its end, and no block follows; the file is ` +
        "damaged",
    );
  }

  /** `wait`, unless the file ends here. */
  #unlessCutOff(): "wait" | never {
    if (this.#window.waits) return "wait";
    throw this.#cutOff();
  }

  #cutOff(): HostError {
    const there = this.#window.offset + this.#window.available - this.#offset;
    const text = `a block of type ${this.#type} is cut off: ${there} of ${this.#length} bytes are there`;
    // What is no block has no length that could be believed.
    return BLOCK_TYPES.has(this.#type)
      ? this.#window.cutOff(this.#offset, text)
      : this.#window.error(this.#offset, text);
  }
}

/** Bytes of the head of a block that must be together to read it. */
function headOf(type: number): number {
  switch (type) {
    case BLOCK_SECTION_HEADER:
      return 24;
    case BLOCK_INTERFACE:
      return 16;
    case BLOCK_ENHANCED_PACKET:
    case BLOCK_PACKET:
      return PACKET_HEAD_BYTES;
    case BLOCK_SIMPLE_PACKET:
      return SIMPLE_HEAD_BYTES;
    default:
      return BARE_HEAD_BYTES;
  }
}

/**
 * Takes what one option of an interface says. False if its value is impossible.
 * @param view holds its value at `at`; @param code its code; @param size its bytes; @param target the
 * interface described
 */
function takeInterfaceOption(
  view: DataView,
  at: number,
  littleEndian: boolean,
  code: number,
  size: number,
  target: CaptureInterface,
): boolean {
  if (code === OPTION_TIMESTAMP_RESOLUTION && size === 1) target.setResolution(view.getUint8(at));
  else if (code === OPTION_FCS_LENGTH && size === 1) return target.setFcsLength(view.getUint8(at));
  else if (code === OPTION_TIMESTAMP_OFFSET && size === 8) {
    target.offsetSeconds = view.getBigInt64(at, littleEndian);
  }
  return true;
}

/** What an Interface Description block says. */
class CaptureInterface {
  /** The link type. */
  readonly linkType: number;
  /** The most bytes captured of a packet; 0 if there is no limit. */
  readonly snapLength: number;
  /** Bytes of the frame check sequence at the end of each packet. */
  fcsBytes = 0;
  /** `if_tsoffset`: seconds to add to every stamp. */
  offsetSeconds = 0n;
  /** Has `setBase` been called? */
  hasBase = false;
  #ticksPerSecond = 1_000_000n;
  // ns = ticks * #multiplier / #divisor; one of the two is 1 for a decimal resolution, which keeps it exact.
  #multiplier = 1000;
  #divisor = 1;
  #baseHigh = 0;
  #baseLow = 0;
  #baseNs = 0;

  /**
   * An interface that counts microseconds since 1970, until its options say otherwise.
   * @param linkType its link type; @param snapLength the most bytes of a packet, 0 for no limit
   */
  constructor(linkType: number, snapLength: number) {
    this.linkType = linkType;
    this.snapLength = snapLength;
  }

  /**
   * Takes `if_fcslen`. The draft counts bits, much of what writes it counts octets: a number below 8 is
   * octets, a multiple of 8 bits. False, and nothing is taken, for any other.
   */
  setFcsLength(value: number): boolean {
    if (value >= 8 && value % 8 !== 0) return false;
    this.fcsBytes = value < 8 ? value : value / 8;
    return true;
  }

  /** Takes `if_tsresol`: ticks are 10 to the power of -`value` seconds, or of 2 if its upper bit is set. */
  setResolution(value: number): void {
    const exponent = value & 0x7f;
    if ((value & 0x80) !== 0) {
      this.#ticksPerSecond = 2n ** BigInt(exponent);
      this.#multiplier = 1e9;
      this.#divisor = 2 ** exponent;
    } else {
      this.#ticksPerSecond = 10n ** BigInt(exponent);
      this.#multiplier = exponent < 9 ? 10 ** (9 - exponent) : 1;
      this.#divisor = exponent > 9 ? 10 ** (exponent - 9) : 1;
    }
  }

  /** A stamp in ns since 1970, exactly; for the first packet only. */
  unixNs(high: number, low: number): bigint {
    const ticks = BigInt(high) << 32n | BigInt(low);
    return ticks * NS_PER_SECOND / this.#ticksPerSecond + this.offsetSeconds * NS_PER_SECOND;
  }

  /** Says that the stamp `high`, `low` is `baseNs` from the start of the file. */
  setBase(high: number, low: number, baseNs: number): void {
    this.hasBase = true;
    this.#baseHigh = high;
    this.#baseLow = low;
    this.#baseNs = baseNs;
  }

  /** A stamp in ns from the start of the file; exact while it is less than 2^53 ticks from the first one. */
  timeNs(high: number, low: number): number {
    const ticks = (high - this.#baseHigh) * 4_294_967_296 + (low - this.#baseLow);
    return this.#baseNs + Math.floor(ticks * this.#multiplier / this.#divisor);
  }
}
