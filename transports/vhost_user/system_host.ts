/**
 * The real host: memory, events, sockets and pipes behind descriptors of this system.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { EventFd } from "../host/event_fd.ts";
import { FileDescriptor } from "../host/file_descriptor.ts";
import { addressOf, libc } from "../host/libc.ts";
import { MemoryMapping } from "../host/memory_mapping.ts";
import { UnixStream } from "../host/unix_stream.ts";
import type { Channel, Descriptor, EventHandle, Host, Mapping, Transfer } from "./host.ts";

/** Bytes read from a pipe at once. */
const PART_BYTES = 65_536;

/** Effects on this system. */
export class SystemHost implements Host {
  readonly #watch: (descriptor: number) => Disposable;

  /** Remembers nothing but how to watch. @param watch has the reactor woken by a descriptor, until the result is disposed of */
  constructor(watch: (descriptor: number) => Disposable) {
    this.#watch = watch;
  }

  /** Maps memory, shared. HostError if it cannot, or if there are fewer bytes. */
  map(descriptor: Descriptor, lengthBytes: number, offsetBytes: number): Mapping {
    using fd = owned(descriptor);
    const what = "memory of the front-end";
    const mapping = MemoryMapping.map(fd.number, { offsetBytes, lengthBytes }, what);
    return {
      buffer: mapping.buffer,
      bufferOffset: 0,
      address: mapping.address,
      copier: mapping.copier,
      [Symbol.dispose]: () => mapping[Symbol.dispose](),
    };
  }

  /** Makes an event, watched or not. HostError if the descriptor cannot be one. */
  event(descriptor: Descriptor, watched: boolean): EventHandle {
    using stack = new DisposableStack();
    const event = stack.use(new EventFd(stack.use(owned(descriptor))));
    const { number } = event.fd;
    let watch = watched ? this.#watch(number) : null;
    stack.move();
    return {
      number,
      lend: () => {
        watch?.[Symbol.dispose]();
        watch = null;
        return number;
      },
      takeBack: () => {
        if (watched) watch ??= this.#watch(number);
      },
      signal: () => void event.signal(),
      take: () => event.drain(),
      [Symbol.dispose]: () => {
        watch?.[Symbol.dispose]();
        event[Symbol.dispose]();
      },
    };
  }

  /** Makes a channel of a connected socket. */
  channel(descriptor: Descriptor): Channel {
    using stack = new DisposableStack();
    const stream = stack.use(new UnixStream(stack.use(owned(descriptor))));
    stack.move();
    return new StreamChannel(stream);
  }

  /** Makes a transfer of one end of a pipe. */
  transfer(descriptor: Descriptor): Transfer {
    using stack = new DisposableStack();
    const fd = stack.use(owned(descriptor));
    fd.makeNonBlocking();
    const watch = this.#watchIfPossible(fd);
    stack.move();
    return new PipeTransfer(fd, watch);
  }

  /** A regular file, which is always ready, cannot be watched and need not be. */
  #watchIfPossible(fd: FileDescriptor): Disposable | null {
    try {
      return this.#watch(fd.number);
    } catch (error) {
      if (error instanceof HostError) return null;
      throw error;
    }
  }
}

class StreamChannel implements Channel {
  readonly #stream: UnixStream;
  readonly #scratch = new Uint8Array(4096);
  /** What is left of a message that was sent in part. */
  #rest: Uint8Array<ArrayBuffer> | null = null;
  #gone = false;

  constructor(stream: UnixStream) {
    this.#stream = stream;
  }

  send(message: Uint8Array): boolean {
    if (!this.#flush()) return false;
    this.#rest = message.slice();
    this.#flush();
    return true;
  }

  discardReplies(): void {
    const descriptors: FileDescriptor[] = [];
    this.#attempt(() => {
      const count = this.#stream.receive(this.#scratch, 0, this.#scratch.length, descriptors);
      for (const descriptor of descriptors) descriptor[Symbol.dispose]();
      return count;
    });
    this.#flush();
  }

  [Symbol.dispose](): void {
    this.#stream[Symbol.dispose]();
  }

  #flush(): boolean {
    const rest = this.#rest;
    if (rest === null || this.#gone) return true;
    const sent = this.#attempt(() => this.#stream.send(rest, 0, rest.length));
    this.#rest = sent < 0 || sent === rest.length ? null : rest.slice(sent);
    return this.#rest === null;
  }

  /** A channel that has broken takes everything and says nothing: the connection itself is not concerned. */
  #attempt(action: () => number): number {
    if (this.#gone) return -1;
    let count = -1;
    try {
      count = action();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
    }
    if (count < 0) this.#gone = true;
    return count;
  }
}

class PipeTransfer implements Transfer {
  readonly #fd: FileDescriptor;
  readonly #watch: Disposable | null;
  readonly #part = new Uint8Array(PART_BYTES);

  constructor(fd: FileDescriptor, watch: Disposable | null) {
    this.#fd = fd;
    this.#watch = watch;
  }

  write(bytes: Uint8Array): boolean {
    const copy = bytes.slice();
    return libc().write(this.#fd.number, addressOf(copy), BigInt(copy.length)) === copy.length;
  }

  read(): Uint8Array | null {
    const count = libc().read(this.#fd.number, addressOf(this.#part), BigInt(this.#part.length));
    // An error is nothing that has come: the end that is missing then is told by CHECK_DEVICE_STATE.
    return count < 0 ? null : this.#part.slice(0, count);
  }

  [Symbol.dispose](): void {
    this.#watch?.[Symbol.dispose]();
    this.#fd[Symbol.dispose]();
  }
}

function owned(descriptor: Descriptor): FileDescriptor {
  if (descriptor instanceof FileDescriptor) return descriptor;
  throw new TypeError("Cannot use a descriptor that this host has not received");
}
