/**
 * Unpacks gzip (RFC 1952, RFC 1951) as it is read; anything else passes as it is.
 *
 * Theory of operation. The runtime's DecompressionStream gives its bytes in promises, and captures are read within a round of the
 * reactor, so this unpacks by itself, on demand: `read` runs the state machine until there is output. Every state can be left
 * where the input has no bytes at the moment and entered again: a code that is half there stays in `#hold`, a match that
 * lacks its distance in `#symbol` and `#length`. Memory is 64 KiB of input and 64 KiB of output, the latter half
 * of which is the history that matches refer to.
 *
 * Members that follow each other are one stream; zeros behind the last are padding, anything else there is left alone, as gzip does.
 * What was unpacked before a damaged place is delivered before the error is thrown.
 * @module
 */
import { type ByteSource, NOT_YET } from "./byte_source.ts";

const INPUT_BYTES = 64 * 1024;
const OUTPUT_BYTES = 64 * 1024;
const OUTPUT_MASK = OUTPUT_BYTES - 1;
const HISTORY_BYTES = 32 * 1024;
const MAX_MATCH_BYTES = 258;
const MAX_CODE_BITS = 15;
const GZIP_MAGIC = 0x8b1f;
const METHOD_DEFLATE = 8;

const FLAG_HEADER_CRC = 2;
const FLAG_EXTRA = 4;
const FLAG_NAME = 8;
const FLAG_COMMENT = 16;

/** Order in which the lengths of the code for lengths are given. */
const LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_BASE = [
  3,
  4,
  5,
  6,
  7,
  8,
  9,
  10,
  11,
  13,
  15,
  17,
  19,
  23,
  27,
  31,
  35,
  43,
  51,
  59,
  67,
  83,
  99,
  115,
];
LENGTH_BASE.push(131, 163, 195, 227, 258);
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_CODES = 30;
const END_OF_BLOCK = 256;
const NONE = -1;

type State =
  | "detect"
  | "plain"
  | "header"
  | "extra"
  | "extraBytes"
  | "name"
  | "comment"
  | "headerCrc"
  | "block"
  | "storedLength"
  | "stored"
  | "counts"
  | "codeLengths"
  | "lengths"
  | "codes"
  | "crc"
  | "size"
  | "next"
  | "end";

/** A prefix code: an entry for every string of `bits` bits, its symbol and its length. */
class Code {
  readonly #entries = new Uint16Array(1 << MAX_CODE_BITS);
  bits = 0;

  /** Builds it from lengths. Throws Error for more codes than there can be, or none where one is needed. */
  build(lengths: Uint8Array, from: number, to: number): void {
    const counts = new Uint16Array(MAX_CODE_BITS + 2);
    for (let i = from; i < to; i++) counts[lengths[i]]++;
    counts[0] = 0;
    const next = new Uint32Array(MAX_CODE_BITS + 2);
    this.bits = 1;
    let free = 1;
    for (let length = 1; length <= MAX_CODE_BITS; length++) {
      next[length + 1] = next[length] + counts[length] << 1;
      free = (free << 1) - counts[length];
      if (free < 0) throw new Error("the gzip stream is damaged: more codes than there can be");
      if (counts[length] > 0) this.bits = length;
    }
    const size = 1 << this.bits;
    this.#entries.fill(0, 0, size);
    for (let i = from; i < to; i++) {
      const length = lengths[i];
      if (length === 0) continue;
      let code = next[length]++;
      let reversed = 0;
      for (let bit = 0; bit < length; bit++, code >>>= 1) reversed = reversed << 1 | code & 1;
      for (let at = reversed; at < size; at += 1 << length) this.#entries[at] = i - from << 4 | length;
    }
  }

  /** The entry for the next bits: symbol << 4 | length; 0 if there is no such code. */
  entry(hold: number): number {
    return this.#entries[hold & (1 << this.bits) - 1];
  }
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? 0xedb88320 ^ n >>> 1 : n >>> 1;
  return n;
});

/** Reads a source, unpacking what it gives if that is gzip. */
export class GunzipSource implements ByteSource {
  readonly #source: ByteSource;
  readonly #input = new Uint8Array(INPUT_BYTES);
  #at = 0;
  #end = 0;
  #inputIs: "there" | "notYet" | "ended" = "there";
  #hold = 0;
  #bits = 0;
  #state: State = "detect";
  #output: Uint8Array | null = null;
  #written = 0;
  #taken = 0;
  #failure: Error | null = null;
  /** Of the member: flags of its header, what was unpacked of it, its checksum. */
  #flags = 0;
  #headerAt = 0;
  #size = 0;
  #crc = 0;
  /** Of the block. */
  #isLast = false;
  #count = 0;
  #literalCount = 0;
  #distanceCount = 0;
  #lengthCount = 0;
  #symbol = NONE;
  #length = 0;
  readonly #lengths = new Uint8Array(320);
  #literals: Code | null = null;
  #distances: Code | null = null;

  /**
   * Looks at what a source gives when it is read.
   * @param source the bytes, owned from now on
   */
  constructor(source: ByteSource) {
    this.#source = source;
  }

  /** Reads the next bytes, unpacked. Throws Error where the stream is damaged or cut off. */
  read(into: Uint8Array): number {
    if (this.#state === "detect" && !this.#detect()) return NOT_YET;
    if (this.#state === "plain") {
      return this.#at < this.#end ? this.#takeInput(into) : this.#source.read(into);
    }
    if (this.#taken === this.#written && this.#failure === null) {
      try {
        // Output for the reader, and never so much that the history is overwritten.
        while (this.#written - this.#taken < OUTPUT_BYTES - HISTORY_BYTES - MAX_MATCH_BYTES && this.#run());
      } catch (error) {
        this.#failure = error as Error;
      }
    }
    const length = Math.min(into.length, this.#written - this.#taken);
    if (length > 0) return this.#takeOutput(into, length);
    if (this.#failure !== null) throw this.#failure;
    return this.#state === "end" ? 0 : NOT_YET;
  }

  /** Closes the source. */
  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]();
  }

  #detect(): boolean {
    while (this.#end < 2 && this.#inputIs !== "ended") {
      const count = this.#source.read(this.#input.subarray(this.#end));
      if (count === NOT_YET) return false;
      if (count === 0) this.#inputIs = "ended";
      else this.#end += count;
    }
    const isGzip = this.#end >= 2 && (this.#input[0] | this.#input[1] << 8) === GZIP_MAGIC;
    this.#state = isGzip ? "header" : "plain";
    if (isGzip) this.#output = new Uint8Array(OUTPUT_BYTES);
    return true;
  }

  #takeInput(into: Uint8Array): number {
    const length = Math.min(into.length, this.#end - this.#at);
    into.set(this.#input.subarray(this.#at, this.#at + length));
    this.#at += length;
    return length;
  }

  #takeOutput(into: Uint8Array, length: number): number {
    const from = this.#taken & OUTPUT_MASK;
    const first = Math.min(length, OUTPUT_BYTES - from);
    into.set(this.#output!.subarray(from, from + first));
    this.#taken += first;
    return first;
  }

  /** Does a piece of work; false if there is none that can be done now. Throws Error for a stream that is wrong. */
  #run(): boolean {
    switch (this.#state) {
      case "header":
        return this.#readHeader();
      case "extra":
        if ((this.#flags & FLAG_EXTRA) === 0) return this.#go("name");
        if (!this.#need(16)) return false;
        this.#count = this.#take(16);
        return this.#go("extraBytes");
      case "extraBytes":
        for (; this.#count > 0; this.#count--) {
          if (!this.#need(8)) return false;
          this.#take(8);
        }
        return this.#go("name");
      case "name":
        return this.#skipText(FLAG_NAME, "comment");
      case "comment":
        return this.#skipText(FLAG_COMMENT, "headerCrc");
      case "headerCrc":
        if ((this.#flags & FLAG_HEADER_CRC) !== 0) {
          if (!this.#need(16)) return false;
          this.#take(16);
        }
        this.#size = 0;
        this.#crc = 0xffffffff;
        return this.#go("block");
      case "block":
        return this.#beginBlock();
      case "storedLength":
        if (this.#count < 2) {
          if (!this.#need(16)) return false;
          this.#lengthCount = this.#count++ === 0 ? this.#take(16) : this.#checkStored(this.#take(16));
          return true;
        }
        return this.#go("stored");
      case "stored":
        return this.#copyStored();
      case "counts":
        if (!this.#need(14)) return false;
        this.#literalCount = this.#take(5) + 257;
        this.#distanceCount = this.#take(5) + 1;
        this.#lengthCount = this.#take(4) + 4;
        this.#count = 0;
        this.#lengths.fill(0);
        return this.#go("codeLengths");
      case "codeLengths":
        return this.#readCodeLengths();
      case "lengths":
        return this.#readLengths();
      case "codes":
        return this.#readCodes();
      case "crc":
        if (!this.#need32("crc")) return false;
        return this.#go("size");
      case "size":
        if (!this.#need32("size")) return false;
        return this.#go("next");
      case "next":
        return this.#seekMember();
      default:
        return false;
    }
  }

  #go(state: State): true {
    this.#state = state;
    return true;
  }

  /** Ten bytes: magic, method, flags, and six of no interest. */
  #readHeader(): boolean {
    for (; this.#headerAt < 10; this.#headerAt++) {
      if (!this.#need(8)) return false;
      const byte = this.#take(8);
      if (this.#headerAt === 2 && byte !== METHOD_DEFLATE) {
        throw new Error(`the gzip stream is packed by method ${byte}, and only deflate can be read`);
      }
      if (this.#headerAt === 3) this.#flags = byte;
    }
    this.#headerAt = 0;
    return this.#go("extra");
  }

  #skipText(flag: number, next: State): boolean {
    if ((this.#flags & flag) !== 0) {
      do {
        if (!this.#need(8)) return false;
      } while (this.#take(8) !== 0);
    }
    return this.#go(next);
  }

  #beginBlock(): boolean {
    if (this.#isLast) {
      this.#isLast = false;
      this.#align();
      this.#count = 0;
      return this.#go("crc");
    }
    if (!this.#need(3)) return false;
    this.#isLast = this.#take(1) === 1;
    this.#count = 0;
    this.#symbol = NONE;
    this.#length = 0;
    switch (this.#take(2)) {
      case 0:
        this.#align();
        return this.#go("storedLength");
      case 1:
        this.#lengths.fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280, 288).fill(5, 288, 320);
        return this.#buildCodes(288, 32);
      case 2:
        return this.#go("counts");
      default:
        throw new Error("the gzip stream is damaged: a block of an unknown type");
    }
  }

  #checkStored(complement: number): number {
    if ((this.#lengthCount ^ complement) !== 0xffff) {
      throw new Error("the gzip stream is damaged: a stored block's lengths disagree");
    }
    return this.#lengthCount;
  }

  #copyStored(): boolean {
    // Whole bytes may still be held.
    const room = OUTPUT_BYTES - HISTORY_BYTES - (this.#written - this.#taken);
    for (let i = Math.min(this.#lengthCount, room); i > 0; i--) {
      if (!this.#need(8)) return false;
      this.#put(this.#take(8));
      this.#lengthCount--;
    }
    return this.#lengthCount > 0 ? true : this.#go("block");
  }

  #readCodeLengths(): boolean {
    for (; this.#count < this.#lengthCount; this.#count++) {
      if (!this.#need(3)) return false;
      this.#lengths[LENGTH_ORDER[this.#count]] = this.#take(3);
    }
    this.#literals ??= new Code();
    this.#literals.build(this.#lengths, 0, 19);
    this.#lengths.fill(0);
    this.#count = 0;
    return this.#go("lengths");
  }

  #readLengths(): boolean {
    const total = this.#literalCount + this.#distanceCount;
    while (this.#count < total) {
      if (this.#symbol === NONE) this.#symbol = this.#decode(this.#literals!);
      if (this.#symbol === NONE) return false;
      if (this.#symbol < 16) {
        this.#lengths[this.#count++] = this.#symbol;
      } else {
        const extra = this.#symbol === 16 ? 2 : this.#symbol === 17 ? 3 : 7;
        if (!this.#need(extra)) return false;
        const repeats = this.#take(extra) + (this.#symbol === 18 ? 11 : 3);
        if (this.#count + repeats > total || (this.#symbol === 16 && this.#count === 0)) {
          throw new Error("the gzip stream is damaged: more lengths of codes than there are codes");
        }
        const value = this.#symbol === 16 ? this.#lengths[this.#count - 1] : 0;
        this.#lengths.fill(value, this.#count, this.#count + repeats);
        this.#count += repeats;
      }
      this.#symbol = NONE;
    }
    if (this.#lengths[END_OF_BLOCK] === 0) throw new Error("the gzip stream is damaged: a block has no end");
    return this.#buildCodes(this.#literalCount, this.#distanceCount);
  }

  #buildCodes(literals: number, distances: number): true {
    this.#literals ??= new Code();
    this.#distances ??= new Code();
    this.#literals.build(this.#lengths, 0, literals);
    this.#distances.build(this.#lengths, literals, literals + distances);
    return this.#go("codes");
  }

  /** Unpacks until the output is full, the input is empty or the block is over. */
  #readCodes(): boolean {
    const most = OUTPUT_BYTES - HISTORY_BYTES - MAX_MATCH_BYTES;
    while (this.#written - this.#taken < most) {
      if (this.#length === 0) {
        if (this.#symbol === NONE) this.#symbol = this.#decode(this.#literals!);
        if (this.#symbol === NONE) return false;
        if (this.#symbol < END_OF_BLOCK) this.#put(this.#symbol);
        else if (this.#symbol > END_OF_BLOCK) {
          const index = this.#symbol - END_OF_BLOCK - 1;
          if (index >= LENGTH_BASE.length) {
            throw new Error("the gzip stream is damaged: an impossible length");
          }
          if (!this.#need(LENGTH_EXTRA[index])) return false;
          this.#length = LENGTH_BASE[index] + this.#take(LENGTH_EXTRA[index]);
        }
        const isEnd = this.#symbol === END_OF_BLOCK;
        this.#symbol = NONE;
        if (isEnd) return this.#go("block");
      } else {
        if (this.#symbol === NONE) this.#symbol = this.#decode(this.#distances!);
        if (this.#symbol === NONE) return false;
        if (this.#symbol >= DISTANCE_CODES) {
          throw new Error("the gzip stream is damaged: an impossible distance");
        }
        const extra = this.#symbol < 4 ? 0 : (this.#symbol >> 1) - 1;
        if (!this.#need(extra)) return false;
        const base = this.#symbol < 4 ? this.#symbol + 1 : (2 + (this.#symbol & 1) << extra) + 1;
        this.#copyMatch(base + this.#take(extra));
        this.#length = 0;
        this.#symbol = NONE;
      }
    }
    return true;
  }

  #copyMatch(distance: number): void {
    if (distance > this.#size) {
      throw new Error("the gzip stream is damaged: it refers to what is before its start");
    }
    const output = this.#output!;
    for (let i = this.#length; i > 0; i--) this.#put(output[this.#written - distance & OUTPUT_MASK]);
  }

  #put(byte: number): void {
    this.#output![this.#written++ & OUTPUT_MASK] = byte;
    this.#size++;
    this.#crc = CRC_TABLE[(this.#crc ^ byte) & 255] ^ this.#crc >>> 8;
  }

  /** Takes 32 bits of the trailer and compares them; false if they are not there yet. */
  #need32(what: "crc" | "size"): boolean {
    while (this.#count < 4) {
      if (!this.#need(8)) return false;
      const expected = what === "crc" ? ~this.#crc : this.#size;
      if (this.#take(8) !== (expected >>> 8 * this.#count & 255)) {
        throw new Error("the gzip stream is damaged: its checksum or its length is wrong");
      }
      this.#count++;
    }
    this.#count = 0;
    return true;
  }

  /** Behind a member: another, padding, or the end. */
  #seekMember(): boolean {
    while (this.#more()) {
      const byte = this.#take(8);
      if (this.#headerAt === 1) {
        if (byte !== GZIP_MAGIC >>> 8) return this.#go("end");
        this.#headerAt = 2;
        return this.#go("header");
      }
      if (byte === (GZIP_MAGIC & 255)) this.#headerAt = 1;
      else if (byte !== 0) return this.#go("end");
    }
    if (this.#headerAt === 1) this.#unlessEnded();
    return this.#inputIs === "ended" ? this.#go("end") : false;
  }

  /** The next symbol of a code; NONE if its bits are not there yet. */
  #decode(code: Code): number {
    while (this.#bits < code.bits && this.#refill());
    const entry = code.entry(this.#hold);
    const length = entry & 15;
    if (length > 0 && length <= this.#bits) {
      this.#take(length);
      return entry >>> 4;
    }
    if (length === 0 && this.#bits >= code.bits) {
      throw new Error("the gzip stream is damaged: an impossible code");
    }
    this.#unlessEnded();
    return NONE;
  }

  /** Are there eight more bits? Unlike `need`, the end of the input is no error. */
  #more(): boolean {
    return this.#bits >= 8 || this.#refill();
  }

  /** Makes `count` bits available, at most 16; false if the input has none at the moment. Throws Error at its end. */
  #need(count: number): boolean {
    while (this.#bits < count) {
      if (this.#refill()) continue;
      this.#unlessEnded();
      return false;
    }
    return true;
  }

  #unlessEnded(): void {
    if (this.#inputIs === "ended") throw new Error("the gzip stream is cut off");
  }

  #take(count: number): number {
    const value = this.#hold & (1 << count) - 1;
    this.#hold >>>= count;
    this.#bits -= count;
    return value;
  }

  /** Drops bits up to the next whole byte. */
  #align(): void {
    this.#take(this.#bits & 7);
  }

  /** Adds a byte to the bits that are held; false if there is none. */
  #refill(): boolean {
    if (this.#at === this.#end) {
      if (this.#inputIs === "ended") return false;
      const count = this.#source.read(this.#input);
      this.#inputIs = count === 0 ? "ended" : count === NOT_YET ? "notYet" : "there";
      if (count <= 0) return false;
      this.#at = 0;
      this.#end = count;
    }
    this.#hold = (this.#hold | this.#input[this.#at++] << this.#bits) >>> 0;
    this.#bits += 8;
    return true;
  }
}
