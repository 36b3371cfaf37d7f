/**
 * Where the bytes of frames lie in this process, for system calls that read and write them in place.
 * @module
 */
import { HostError } from "../core/errors.ts";
import { addressOf } from "./libc.ts";

/**
 * Addresses by storage. Many frames share one storage, which never moves while it is reachable; so each is asked for once.
 * Lives as long as the pool whose frames it is used for.
 */
export class FrameAddresses {
  readonly #known = new Map<Uint8Array<ArrayBuffer>, bigint>();
  #last: Uint8Array<ArrayBuffer> | null = null;
  #pointer = 0n;
  #address = 0;

  /** The address of `bytes[0]`, for lists; that of a frame's data is `start` further on. Below 2^53. Throws HostError. */
  of(bytes: Uint8Array<ArrayBuffer>): number {
    if (bytes !== this.#last) this.#turnTo(bytes);
    return this.#address;
  }

  /** The same, as calls take it. */
  pointer(bytes: Uint8Array<ArrayBuffer>): bigint {
    if (bytes !== this.#last) this.#turnTo(bytes);
    return this.#pointer;
  }

  #turnTo(bytes: Uint8Array<ArrayBuffer>): void {
    const pointer = this.#known.get(bytes) ?? this.#ask(bytes);
    this.#last = bytes;
    this.#pointer = pointer;
    this.#address = Number(pointer);
  }

  #ask(bytes: Uint8Array<ArrayBuffer>): bigint {
    const pointer = addressOf(bytes);
    if (!Number.isSafeInteger(Number(pointer) + bytes.length)) {
      throw new HostError(`Cannot use memory at ${pointer}: addresses must be below 2^53`);
    }
    this.#known.set(bytes, pointer);
    return pointer;
  }
}
