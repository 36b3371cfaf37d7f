/**
 * Where the bytes of frames lie in this process, for system calls that read and write them in place.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { addressOf } from "./libc.ts";

/**
 * Addresses by storage. Many frames share one storage, which never moves while it is reachable; so each is asked for once.
 * Lives as long as the pool whose frames it is used for.
 */
export class FrameAddresses {
  readonly #known = new Map<Uint8Array<ArrayBuffer>, number>();
  #last: Uint8Array<ArrayBuffer> | null = null;
  #lastAddress = 0;

  /** The address of `bytes[0]`; that of a frame's data is `start` further on. Below 2^53. */
  of(bytes: Uint8Array<ArrayBuffer>): number {
    if (bytes === this.#last) return this.#lastAddress;
    const address = this.#known.get(bytes) ?? this.#ask(bytes);
    this.#last = bytes;
    this.#lastAddress = address;
    return address;
  }

  #ask(bytes: Uint8Array<ArrayBuffer>): number {
    const address = Number(addressOf(bytes));
    if (!Number.isSafeInteger(address + bytes.length)) {
      throw new HostError(`Cannot use memory at ${address}: addresses must be below 2^53`);
    }
    this.#known.set(bytes, address);
    return address;
  }
}
