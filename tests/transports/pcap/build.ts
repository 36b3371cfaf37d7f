/**
 * Captures for tests, built byte by byte in either byte order: an independent second writer.
 */

/** A growing buffer of numbers in one byte order. */
export class Bytes {
  readonly #bytes: number[] = [];
  readonly little: boolean;

  constructor(little: boolean) {
    this.little = little;
  }

  get length(): number {
    return this.#bytes.length;
  }

  /** A number of 1 to 8 bytes. */
  number(value: bigint | number, size: number): this {
    for (let i = 0; i < size; i++) {
      const shift = BigInt(8 * (this.little ? i : size - 1 - i));
      this.#bytes.push(Number(BigInt.asUintN(64, BigInt(value)) >> shift & 255n));
    }
    return this;
  }

  u16(value: number): this {
    return this.number(value, 2);
  }

  u32(value: number): this {
    return this.number(value, 4);
  }

  raw(bytes: ArrayLike<number>): this {
    for (let i = 0; i < bytes.length; i++) this.#bytes.push(bytes[i]);
    return this;
  }

  padded(bytes: ArrayLike<number>): this {
    this.raw(bytes);
    while (this.#bytes.length % 4 !== 0) this.#bytes.push(0);
    return this;
  }

  done(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#bytes);
  }
}

/** An option of a block. */
export type Option = [code: number, value: ArrayLike<number>];

/** Puts `body` between the two lengths of a pcapng block. */
export function block(little: boolean, type: number, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const length = body.length + 12;
  return new Bytes(little).u32(type).u32(length).raw(body).u32(length).done();
}

function addOptions(to: Bytes, options: readonly Option[]): Bytes {
  for (const [code, value] of options) to.u16(code).u16(value.length).padded(value);
  if (options.length > 0) to.u32(0);
  return to;
}

/** A section header. */
export function section(little: boolean): Uint8Array<ArrayBuffer> {
  return block(little, 0x0a0d0d0a, new Bytes(little).u32(0x1a2b3c4d).u16(1).u16(0).number(-1, 8).done());
}

/** An interface. */
export function described(
  little: boolean,
  options: readonly Option[] = [],
  linkType = 1,
  snapLength = 0,
): Uint8Array<ArrayBuffer> {
  const body = new Bytes(little).u16(linkType).u16(0).u32(snapLength);
  return block(little, 1, addOptions(body, options).done());
}

/** An Enhanced Packet block. */
export function enhanced(
  little: boolean,
  interfaceId: number,
  ticks: bigint,
  bytes: Uint8Array,
  options: readonly Option[] = [],
  originalLength: number = bytes.length,
): Uint8Array<ArrayBuffer> {
  const body = new Bytes(little).u32(interfaceId).u32(Number(ticks >> 32n)).u32(Number(ticks & 0xffffffffn))
    .u32(bytes.length).u32(originalLength).padded(bytes);
  return block(little, 6, addOptions(body, options).done());
}

/** A file header of classic pcap. */
export function pcapHeader(little: boolean, magic: number, linkType = 1): Uint8Array<ArrayBuffer> {
  return new Bytes(little).u32(magic).u16(2).u16(4).u32(0).u32(0).u32(262_144).u32(linkType).done();
}

/** A record of classic pcap. */
export function record(
  little: boolean,
  seconds: number,
  fraction: number,
  bytes: Uint8Array,
  originalLength: number = bytes.length,
): Uint8Array<ArrayBuffer> {
  return new Bytes(little).u32(seconds).u32(fraction).u32(bytes.length).u32(originalLength).raw(bytes).done();
}

/** All of these, one after the other. */
export function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** A frame of `length` bytes to `to` from `from` (the last bytes of the addresses), filled with `fill`. */
export function frameBytes(length: number, fill = 0, to = 1, from = 2): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length).fill(fill);
  bytes.set([0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5]);
  return bytes;
}
