/**
 * Random bytes, drawn from the host in bulk and given out once.
 * @module
 */
import type { DescriptorChain } from "../../core/descriptor_chain.ts";

/** Fills an array of at most 65536 bytes with random ones, as `crypto.getRandomValues` does. */
export type RandomSource = (bytes: Uint8Array<ArrayBuffer>) => void;

/** Large enough that the call into the host costs little, small enough that a refill holds nobody up. */
const RESERVOIR_BYTES = 8192;

/** Holds random bytes for the next requests. What has been given out is wiped: nobody can find it here afterwards. */
export class RandomReservoir {
  readonly #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(RESERVOIR_BYTES);
  readonly #source: RandomSource;
  #at: number = RESERVOIR_BYTES;

  /** Draws nothing yet. @param source where random bytes come from */
  constructor(source: RandomSource) {
    this.#source = source;
  }

  /** Writes `count` random bytes into the writable part of `chain`, which must have room for them. */
  pour(chain: DescriptorChain, count: number): void {
    const bytes = this.#bytes;
    for (let left = count; left > 0;) {
      if (this.#at === RESERVOIR_BYTES) {
        this.#source(bytes);
        this.#at = 0;
      }
      const part = Math.min(left, RESERVOIR_BYTES - this.#at);
      chain.write(bytes, this.#at, part);
      bytes.fill(0, this.#at, this.#at + part);
      this.#at += part;
      left -= part;
    }
  }
}
