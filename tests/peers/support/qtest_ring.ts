/**
 * The driver's side of a split virtqueue in the memory of a QEMU (virtio 1.2, section 2.7), over its test
 * socket.
 *
 * Slow and simple: each descriptor has a place of its own in the caller's plan, so that none is ever looked
 * for, and every access is a command to QEMU, in the order of the specification: buffer, descriptor,
 * available entry, index.
 * @module
 */
import type { Qtest } from "./qtest.ts";
import type { RingAddresses } from "./qtest_pci.ts";

const DESC_BYTES = 16;
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;

/** One piece of a chain. */
export interface Piece {
  /** Guest physical address, below 4 GiB. */
  readonly address: number;
  /** Bytes, 1 or more. */
  readonly lengthBytes: number;
  /** Does the device write here? */
  readonly writable: boolean;
}

/** A chain that the device has returned. */
export interface UsedChain {
  /** Its first descriptor. */
  readonly head: number;
  /** Bytes that the device says it has written. */
  readonly lengthBytes: number;
}

/** A split ring. */
export class QtestRing {
  /** Entries, a power of two. */
  readonly size: number;
  /** Where it lies. */
  readonly addresses: RingAddresses;
  readonly #qtest: Qtest;
  #available = 0;
  #used = 0;

  private constructor(qtest: Qtest, size: number, at: number) {
    this.#qtest = qtest;
    this.size = size;
    const driver = at + DESC_BYTES * size;
    this.addresses = { descriptors: at, driver, device: driver + 8 + 2 * size };
  }

  /** Makes an empty ring from `at` on, a multiple of 16. */
  static async create(qtest: Qtest, size: number, at: number): Promise<QtestRing> {
    const ring = new QtestRing(qtest, size, at);
    await qtest.writeBytes(at, new Uint8Array(DESC_BYTES * size + 8 + 2 * size + 8 + 8 * size));
    return ring;
  }

  /** Gives the device a chain, in descriptors from `head` on. None of them may be with the device. */
  async add(head: number, pieces: readonly Piece[]): Promise<void> {
    const table = new Uint8Array(DESC_BYTES * pieces.length);
    const view = new DataView(table.buffer);
    for (const [i, { address, lengthBytes, writable }] of pieces.entries()) {
      const hasNext = i + 1 < pieces.length;
      view.setUint32(DESC_BYTES * i, address, true);
      view.setUint32(DESC_BYTES * i + 8, lengthBytes, true);
      view.setUint16(DESC_BYTES * i + 12, (hasNext ? DESC_F_NEXT : 0) | (writable ? DESC_F_WRITE : 0), true);
      view.setUint16(DESC_BYTES * i + 14, hasNext ? head + i + 1 : 0, true);
    }
    const { descriptors, driver } = this.addresses;
    await this.#qtest.writeBytes(descriptors + DESC_BYTES * head, table);
    await this.#qtest.write(2, driver + 4 + 2 * (this.#available & this.size - 1), head);
    this.#available = this.#available + 1 & 0xffff;
    await this.#qtest.write(2, driver + 2, this.#available);
  }

  /** The chains that the device has returned since this was asked last, in its order. */
  async takeUsed(): Promise<UsedChain[]> {
    const { device } = this.addresses;
    const index = await this.#qtest.read(2, device + 2);
    const chains: UsedChain[] = [];
    for (; this.#used !== index; this.#used = this.#used + 1 & 0xffff) {
      const at = device + 4 + 8 * (this.#used & this.size - 1);
      const head = await this.#qtest.read(4, at);
      chains.push({ head, lengthBytes: await this.#qtest.read(4, at + 4) });
    }
    return chains;
  }
}
