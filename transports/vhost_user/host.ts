/**
 * What the back-end needs of the host: memory behind descriptors, events, sockets. An interface, so that the whole
 * protocol can be driven in memory; `system_host.ts` is the real one.
 * @module
 */
import type { RegionCopier } from "../../core/memory_region.ts";

/** A file descriptor, to be passed on and never to be looked into. Whoever takes one disposes of it, which closes it. */
export type Descriptor = Disposable;

/** Memory shared with the front-end. Disposing of it detaches the buffer first, so that no late access can do harm. */
export interface Mapping extends Disposable {
  /** What it is a slice of. */
  readonly buffer: ArrayBuffer;
  /** Where in `buffer` the wanted bytes start. */
  readonly bufferOffset: number;
  /** Where the wanted bytes start in this process: other threads make views of their own. */
  readonly address: bigint;
  /** Copies to and from the wanted bytes; left out: as the language does. */
  readonly copier?: RegionCopier;
}

/** An event shared with the front-end: kick, call, error, or log. */
export interface EventHandle extends Disposable {
  /** Tells the other side. Never blocks. */
  signal(): void;
  /** Has the other side told something since this was last asked? */
  take(): boolean;
  /** The descriptor, which stays this object's. */
  readonly number: number;
  /** Lets another thread wait for it: nobody is woken here any more. Returns the descriptor, which stays this object's. */
  lend(): number;
  /** Waits for it here again; what has been told meanwhile wakes the reactor. */
  takeBack(): void;
}

/** The socket for requests of the back-end. */
export interface Channel extends Disposable {
  /** Sends a whole message. False if that cannot be done now. */
  send(message: Uint8Array): boolean;
  /** Throws away some of what has been answered. True if there was anything: there may be more. */
  discardReplies(): boolean;
}

/** One end of a pipe through which a device's state goes. */
export interface Transfer extends Disposable {
  /** Writes all bytes; false if they do not fit. */
  write(bytes: Uint8Array): boolean;
  /** What has come; empty at the end, null if nothing is there yet. */
  read(): Uint8Array | null;
}

/**
 * The effects of a back-end. Every method that is given a descriptor owns it from then on, also if it throws, and throws
 * HostError for one of another kind. Nothing here ever waits, whatever is behind a descriptor and whatever shares it.
 */
export interface Host {
  /**
   * Maps `lengthBytes` from `offsetBytes` on of the memory behind a descriptor, shared. HostError if it cannot, and if
   * the memory is shorter than that: touching what is not there would end the process.
   */
  map(descriptor: Descriptor, lengthBytes: number, offsetBytes: number): Mapping;
  /** Makes an event of a descriptor. @param watched wake the reactor when the other side tells something; @param isCall it is only signalled, and may be a socket of a pair */
  event(descriptor: Descriptor, watched: boolean, isCall?: boolean): EventHandle;
  /** Makes a channel of a socket's descriptor. */
  channel(descriptor: Descriptor): Channel;
  /** Makes a transfer of a pipe's descriptor. */
  transfer(descriptor: Descriptor): Transfer;
}

/**
 * The descriptors that came with one message. Whoever wants one takes it; `close` closes those that are left.
 */
export class DescriptorBag {
  readonly #left: Descriptor[];

  /** Owns the descriptors. @param left in the order in which they came */
  constructor(left: readonly Descriptor[]) {
    this.#left = [...left];
  }

  /** How many are left. */
  get count(): number {
    return this.#left.length;
  }

  /** The next one, which is the caller's from now on. Throws RangeError if there is none. */
  take(): Descriptor {
    const descriptor = this.#left.shift();
    if (descriptor === undefined) {
      throw new RangeError("Cannot take another descriptor: the message brought no more");
    }
    return descriptor;
  }

  /** Closes those that nobody took. */
  close(): void {
    for (const descriptor of this.#left.splice(0)) descriptor[Symbol.dispose]();
  }
}
