/**
 * What the back-end needs of the host: memory behind descriptors, events, sockets. An interface, so that the
 * whole protocol can be driven in memory; `SystemHost` is the real one.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import type { Arena } from "../../rings/arena.ts";
import { FileDescriptor, nameOfDescriptor, O_CLOEXEC, O_NONBLOCK } from "../../host/descriptors.ts";
import { ReceivedEvent } from "../../host/event_fd.ts";
import { addressOf, checked, libc } from "../../host/libc.ts";
import {
  type MappingRisks,
  type MappingTerms,
  MemoryMapping,
  newMemoryFile,
} from "../../host/memory_mapping.ts";
import { isUnixStream, peerNameBytes, UnixStream } from "../../host/unix_socket.ts";

/**
 * A file descriptor, to be passed on and never to be looked into. Its taker disposes of it, which closes it.
 */
export type Descriptor = Disposable;

/**
 * Memory shared with the front-end. Disposing of it detaches the buffer first, so that no late access can do
 * harm.
 */
export interface Mapping extends Disposable {
  /** What it is a slice of. */
  readonly buffer: ArrayBuffer;
  /** Where in `buffer` the wanted bytes start. */
  readonly bufferOffset: number;
  /** Where the wanted bytes start in this process: other threads make views of their own. */
  readonly address: bigint;
}

/** An event shared with the front-end: kick, call, error, or log. */
export interface EventHandle extends Disposable {
  /** Tells the other side. Never blocks. */
  signal(): void;
  /** Has the other side told something since this was last asked? */
  take(): boolean;
  /** The descriptor, which stays this object's. */
  readonly number: number;
  /**
   * Lets a worker wait for it: the reactor is not woken any more. Returns the descriptor, which stays this
   * object's.
   */
  handOver(): number;
  /** Waits for it here again; what has been told meanwhile wakes the reactor. */
  takeBack(): void;
}

/** A file of memory that can be sent along with a reply. */
export interface SharedFile extends Disposable {
  /** Its descriptor, which stays this object's. */
  readonly number: number;
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
 * The effects of a back-end. Every method that is given a descriptor owns it from then on, also if it throws,
 * and throws HostError for one of another kind. Nothing here ever waits, whatever is behind a descriptor and
 * whatever shares it.
 */
export interface Host {
  /**
   * Maps `lengthBytes` from `offsetBytes` on of the memory behind a descriptor, shared. HostError if it
   * cannot, and if the memory is shorter than that: touching what is not there would end the process.
   */
  map(descriptor: Descriptor, lengthBytes: number, offsetBytes: number): Mapping;
  /**
   * Makes an event of a descriptor.
   * @param watched wake the reactor when the other side tells something;
   * @param isCall it is only signalled, and may be a socket of a pair
   */
  event(descriptor: Descriptor, watched: boolean, isCall?: boolean): EventHandle;
  /** Makes memory to be shared, all zeros. HostError if there is no room. */
  newMemory(lengthBytes: number): SharedFile;
  /** Makes a channel of a socket's descriptor. */
  channel(descriptor: Descriptor): Channel;
  /** Makes a transfer of a pipe's descriptor. */
  transfer(descriptor: Descriptor): Transfer;
}

/**
 * The descriptors that came with one message. A handler takes those that it wants; `close` closes those that
 * are left.
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

  /** Closes those that were not taken. */
  close(): void {
    for (const descriptor of this.#left.splice(0)) descriptor[Symbol.dispose]();
  }
}

// The real host: memory, events, sockets and pipes behind descriptors of this system.

/** Bytes read from a pipe at once. */
const PART_BYTES = 65_536;
const SPLICE_F_NONBLOCK = 2;
/** Files of memory that are told of, for each connection. */
const MAX_TOLD = 64;

/** What the real host of one connection is made with. */
export interface SystemHostParts {
  /** Has the reactor woken by a descriptor, until the result is disposed of. */
  watch(descriptor: number): Disposable;
  /** Where memory is mapped, if there is room. */
  readonly arena: Arena | null;
  /** Which memory is taken. */
  readonly terms: MappingTerms;
  /** Told of memory that can end this program, once for each file. */
  risk(message: string): void;
  /** Told once of memory that kernels do not reach. */
  outOfReach(message: string): void;
}

/** Effects on this system. */
export class SystemHost implements Host {
  readonly #watch: (descriptor: number) => Disposable;
  readonly #parts: SystemHostParts;
  /** The files whose risks have been told. */
  readonly #told = new Set<string>();
  #hasToldOfReach = false;

  /** Maps and watches nothing yet. */
  constructor(parts: SystemHostParts) {
    this.#parts = parts;
    this.#watch = parts.watch;
  }

  /** Maps memory, shared. HostError if it cannot, or if there are fewer bytes. */
  map(descriptor: Descriptor, lengthBytes: number, offsetBytes: number): Mapping {
    using fd = owned(descriptor);
    const what = "memory of the front-end";
    const { terms } = this.#parts;
    const mapping = MemoryMapping.map(
      fd.number,
      { offsetBytes, lengthBytes },
      what,
      terms,
      this.#parts.arena,
    );
    this.#tell(mapping.risks);
    if (mapping.buffer !== this.#parts.arena?.buffer) this.#tellOutOfReach(lengthBytes);
    return {
      buffer: mapping.buffer,
      bufferOffset: mapping.bufferOffset,
      address: mapping.address,
      [Symbol.dispose]: () => mapping[Symbol.dispose](),
    };
  }

  #tellOutOfReach(lengthBytes: number): void {
    if (this.#hasToldOfReach) return;
    this.#hasToldOfReach = true;
    const { arena } = this.#parts;
    const why = arena === null
      ? "this process can have no memory for frames and guests together (is its address space limited?)"
      : `the memory for frames and guests, of ${arena.sizeBytes / 2 ** 30} GiB, has no room for it`;
    this.#parts.outOfReach(
      `a region of ${
        Math.ceil(lengthBytes / 2 ** 20)
      } MiB: ${why}; plain code works its queues, at about half the speed`,
    );
  }

  #tell({ identity, name, canBeCut, missingBytes }: MappingRisks): void {
    if (!canBeCut && missingBytes === 0 || this.#told.has(identity)) return;
    // A front-end may replace its memory as often as it likes.
    if (this.#told.size < MAX_TOLD) this.#told.add(identity);
    else return;
    const risks = [
      ...canBeCut ? ["it is not sealed, and a program that shares it can cut it"] : [],
      ...missingBytes > 0 ? [`${missingBytes} bytes of it need room in a file system that may be full`] : [],
    ];
    this.#parts.risk(`memory ${name} can end this program (SIGBUS): ${risks.join("; ")}`);
  }

  /** Makes an event, watched or not. HostError if the descriptor cannot be one. */
  event(descriptor: Descriptor, watched: boolean, isCall = false): EventHandle {
    using stack = new DisposableStack();
    const event = stack.use(new ReceivedEvent(stack.use(owned(descriptor)), isCall));
    const { number } = event.fd;
    let watch = watched ? this.#watch(number) : null;
    stack.move();
    return {
      number,
      handOver: () => {
        watch?.[Symbol.dispose]();
        watch = null;
        return number;
      },
      takeBack: () => {
        if (watched) watch ??= this.#watch(number);
      },
      signal: () => void event.signal(),
      take: () => event.take(),
      [Symbol.dispose]: () => {
        watch?.[Symbol.dispose]();
        event[Symbol.dispose]();
      },
    };
  }

  /** Makes memory to be shared. HostError if there is no room. */
  newMemory(lengthBytes: number): SharedFile {
    return newMemoryFile("in-flight", lengthBytes);
  }

  /** Makes a channel of a connected socket. HostError for any but one of a pair without names. */
  channel(descriptor: Descriptor): Channel {
    using stack = new DisposableStack();
    const fd = stack.use(owned(descriptor));
    checkChannel(fd.number);
    const stream = stack.use(new UnixStream(fd));
    const watch = stack.use(this.#watch(fd.number));
    stack.move();
    return new StreamChannel(stream, watch);
  }

  /** Makes a transfer of one end of a pipe. HostError for anything else. */
  transfer(descriptor: Descriptor): Transfer {
    using stack = new DisposableStack();
    const fd = stack.use(owned(descriptor));
    const name = nameOfDescriptor(fd.number);
    if (!name.startsWith("pipe:")) {
      throw new HostError(`Cannot transfer the state of a device through ${name}: pass one end of a pipe`);
    }
    const transfer = stack.use(new PipeTransfer(fd, stack.use(this.#watch(fd.number))));
    stack.move();
    return transfer;
  }
}

/**
 * The socket for requests of the back-end.
 *
 * What its other end says is thrown away as it comes, asked for or not: descriptors that lie there unread
 * would stay open, and among them could be the front-end's own end of the connection, which then would never
 * be seen to end.
 */
class StreamChannel implements Channel {
  readonly #stream: UnixStream;
  readonly #watch: Disposable;
  /** What is left of a message that was sent in part. */
  #rest: Uint8Array<ArrayBuffer> | null = null;
  #gone = false;

  constructor(stream: UnixStream, watch: Disposable) {
    this.#stream = stream;
    this.#watch = watch;
  }

  send(message: Uint8Array): boolean {
    if (!this.#flush()) return false;
    this.#rest = message.slice();
    this.#flush();
    return true;
  }

  discardReplies(): boolean {
    const count = this.#attempt(() => this.#stream.discard());
    this.#flush();
    return count > 0;
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
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

/**
 * One end of a pipe of the front-end's. The other side shares that end as an open file, too, and may take
 * O_NONBLOCK off it. So bytes are moved between it and a pipe of our own by splice(2), which does not wait if
 * it is told so in the call.
 */
class PipeTransfer implements Transfer {
  readonly #fd: FileDescriptor;
  readonly #watch: Disposable;
  readonly #from: FileDescriptor;
  readonly #to: FileDescriptor;
  readonly #part = new Uint8Array(PART_BYTES);

  constructor(fd: FileDescriptor, watch: Disposable) {
    this.#fd = fd;
    this.#watch = watch;
    const ends = new Int32Array(2);
    checked(libc().pipe2(new Uint8Array(ends.buffer), O_NONBLOCK | O_CLOEXEC), "make a pipe");
    [this.#from, this.#to] = Array.from(ends, (number) => new FileDescriptor(number));
  }

  write(bytes: Uint8Array): boolean {
    const copy = bytes.slice();
    if (libc().write(this.#to.number, addressOf(copy), BigInt(copy.length)) !== copy.length) return false;
    let left = copy.length;
    while (left > 0) {
      const moved = this.#move(this.#from, this.#fd, left);
      if (moved <= 0) return false;
      left -= moved;
    }
    return true;
  }

  read(): Uint8Array | null {
    const moved = this.#move(this.#fd, this.#to, PART_BYTES);
    // An error is nothing that has come: the end that is missing then is told by CHECK_DEVICE_STATE.
    if (moved < 0) return null;
    const count = moved === 0
      ? 0
      : libc().read(this.#from.number, addressOf(this.#part), BigInt(this.#part.length));
    return this.#part.slice(0, Math.max(count, 0));
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    for (const fd of [this.#fd, this.#from, this.#to]) fd[Symbol.dispose]();
  }

  #move(from: FileDescriptor, to: FileDescriptor, most: number): number {
    return libc().splice(from.number, 0n, to.number, 0n, BigInt(most), SPLICE_F_NONBLOCK);
  }
}

/**
 * Is this a socket for requests of the back-end? HostError if not.
 *
 * Its other end must have no name. The ends of connections that back-ends serve have one: what is connected
 * to such an end is a front-end's end of a connection. Were that kept open here, the connection would not be
 * seen to end.
 */
function checkChannel(number: number): void {
  const name = nameOfDescriptor(number);
  const refuse = (why: string) => new HostError(`Cannot send requests through ${name}: ${why}`);
  const remedy = "pass one end of a pair of Unix stream sockets (socketpair)";
  if (!name.startsWith("socket:") || !isUnixStream(number)) throw refuse(remedy);
  const bytes = peerNameBytes(number);
  if (bytes === null) throw refuse(`it is not connected; ${remedy}`);
  if (bytes > 0) throw refuse(`it is connected to a socket that has a name; ${remedy}`);
}

function owned(descriptor: Descriptor): FileDescriptor {
  if (descriptor instanceof FileDescriptor) return descriptor;
  throw new TypeError("Cannot use a descriptor that this host has not received");
}
