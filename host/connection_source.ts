/**
 * Where connections come from: a listener accepts them, a connector makes them, or a connected socket was
 * inherited.
 * @module
 */
import { HostError } from "../core/errors.ts";
import { factsOfDescriptor, FileDescriptor } from "./descriptors.ts";
import { checked, libc, SystemCallError } from "./libc.ts";
import { UnixListener, UnixStream } from "./unix_socket.ts";

/** How to meet the other side at a Unix socket. */
export interface SocketOptions {
  /** Descriptor of a socket that this program was started with; null if a path is given. */
  readonly fd: number | null;
  /** `server` waits for the other side, `client` goes to it. */
  readonly mode: "server" | "client";
  /** Permissions of the socket's file; null for the usual ones. */
  readonly socketMode: number | null;
  /** User who is to own it, by number; null for the one who runs this program. */
  readonly socketUser: number | null;
  /** Group that is to own it, by number; null for the usual one. */
  readonly socketGroup: number | null;
  /**
   * Milliseconds between the first two attempts to reach a server; later ones are up to a second apart, or
   * this.
   */
  readonly reconnectMs: number;
}

/** A connection that was made, and whose other side may have said something already. */
export interface IncomingConnection extends Pick<UnixStream, "receive" | "send">, Disposable {
  /** Its descriptor, which stays this object's: watch it to learn when there is something to receive. */
  readonly number: number;
}

/** A place to get connections from. */
export interface ConnectionSource extends Disposable {
  /** The next connection; null if there is none now. HostError if there will never be one. */
  next(nowNs: number): IncomingConnection | null;
  /**
   * Looks after connections that wait while another one is served. True if there was a new one. Left out:
   * none wait.
   */
  attend?(): boolean;
  /** When to ask again although nothing wakes, in ns; Infinity if never. */
  deadlineNs(): number;
  /** Will there never be another connection? */
  readonly isOver: boolean;
}

/** Attempts become rarer until they are this far apart, unless the options say more. */
const MAX_RETRY_NS = 1e9;

/** What goes wrong when too many files are open: it may pass. */
const TRANSIENT = new Set(["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"]);
/** Connections that may wait while one is served. */
const MAX_WAITING = 16;
/** Bytes that each of them may say meanwhile. */
const MAX_SAID_BYTES = 4096;
/** What a server that is not there yet looks like. */
const NOT_YET = new Set(["ECONNREFUSED", "ENOENT", "EAGAIN"]);

/**
 * Opens the source of connections that the options name. HostError if the socket cannot be made.
 * @param path the absolute path of the socket, unless the options have a descriptor
 * @param watch has the reactor woken by a descriptor
 */
export function openSource(
  options: SocketOptions,
  path: string,
  watch: (descriptor: number) => Disposable,
): ConnectionSource {
  const retryNs = options.reconnectMs * 1e6;
  if (options.mode === "client") {
    if (options.fd === null) return new Connector(path, retryNs);
    const fd = new FileDescriptor(options.fd);
    fd.makeNonBlocking();
    return new InheritedSocket(new UnixStream(fd));
  }
  const listener = options.fd === null
    ? UnixListener.listen(path, {
      mode: options.socketMode ?? undefined,
      owner: options.socketUser ?? undefined,
      group: options.socketGroup ?? undefined,
    })
    : UnixListener.fromDescriptor(options.fd);
  return new Listener(listener, watch, retryNs);
}

/**
 * Accepts one connection after the other; others wait until the one that is served has ended.
 *
 * They wait here and not in the socket's queue, for what they have sent could be a descriptor of the
 * connection that is served, whose end would not be seen then as long as it lies there unread. A client that
 * is not answered sends a request or two and no descriptors; one that does more does not wait for its turn
 * and is let go.
 */
class Listener implements ConnectionSource {
  readonly isOver = false;
  readonly #listener: UnixListener;
  readonly #watchFor: (descriptor: number) => Disposable;
  readonly #watch: Disposable;
  readonly #pause: Pause;
  #waiting: Waiting[] = [];
  #retryAtNs = Infinity;

  constructor(listener: UnixListener, watch: (descriptor: number) => Disposable, retryNs: number) {
    this.#listener = listener;
    this.#watchFor = watch;
    this.#pause = new Pause(retryNs);
    try {
      this.#watch = watch(listener.fd.number);
    } catch (error) {
      listener[Symbol.dispose]();
      throw error;
    }
  }

  next(nowNs: number): IncomingConnection | null {
    this.#retryAtNs = Infinity;
    const first = this.#waiting.shift();
    if (first !== undefined) {
      first.stopWaiting();
      return first;
    }
    const stream = this.#accept();
    if (stream === "later") this.#retryAtNs = nowNs + this.#pause.nextNs();
    if (stream === null || stream === "later") return null;
    this.#pause.reset();
    return new Waiting(stream);
  }

  attend(): boolean {
    const stream = this.#accept();
    const isNew = stream !== null && stream !== "later";
    if (isNew) {
      const incoming = new Waiting(stream);
      this.#waiting.push(incoming);
      incoming.wait(this.#watchFor);
    }
    const waiting = this.#waiting;
    if (waiting.length > 0) {
      this.#waiting = waiting.filter((incoming, i) => i < MAX_WAITING && incoming.buffer());
      for (const incoming of waiting) if (!this.#waiting.includes(incoming)) incoming[Symbol.dispose]();
    }
    return isNew;
  }

  deadlineNs(): number {
    return this.#retryAtNs;
  }

  [Symbol.dispose](): void {
    for (const incoming of this.#waiting) incoming[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
    this.#listener[Symbol.dispose]();
  }

  /** The next connection; null if there is none; "later" if this process may have no more. */
  #accept(): UnixStream | null | "later" {
    try {
      return this.#listener.accept();
    } catch (error) {
      if (!isOneOf(TRANSIENT, error)) throw error;
      return "later";
    }
  }
}

/** A connection, and what it has said while it had to wait. */
class Waiting implements IncomingConnection {
  readonly #stream: UnixStream;
  #watch: Disposable | null = null;
  #said: Uint8Array<ArrayBuffer> | null = null;
  #begin = 0;
  #end = 0;

  constructor(stream: UnixStream) {
    this.#stream = stream;
  }

  get number(): number {
    return this.#stream.fd.number;
  }

  /** It has to wait: what it says wakes the reactor. */
  wait(watch: (descriptor: number) => Disposable): void {
    this.#said = new Uint8Array(MAX_SAID_BYTES);
    this.#watch = watch(this.number);
  }

  /** Takes what it has said. False if it has gone, or does not wait. */
  buffer(): boolean {
    const descriptors: FileDescriptor[] = [];
    try {
      while (this.#end < MAX_SAID_BYTES) {
        const left = MAX_SAID_BYTES - this.#end;
        const count = this.#stream.receive(this.#said!, this.#end, left, descriptors);
        if (count < 0 || descriptors.length > 0) return false;
        if (count === 0) return true;
        this.#end += count;
      }
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
    } finally {
      for (const descriptor of descriptors) descriptor[Symbol.dispose]();
    }
    return false;
  }

  /** It is served now. */
  stopWaiting(): void {
    this.#watch?.[Symbol.dispose]();
    this.#watch = null;
  }

  receive(
    target: Uint8Array<ArrayBuffer>,
    at: number,
    lengthBytes: number,
    descriptors: FileDescriptor[],
  ): number {
    if (this.#begin === this.#end) return this.#stream.receive(target, at, lengthBytes, descriptors);
    const count = Math.min(lengthBytes, this.#end - this.#begin);
    target.set(this.#said!.subarray(this.#begin, this.#begin + count), at);
    this.#begin += count;
    return count;
  }

  send(
    source: Uint8Array<ArrayBuffer>,
    from: number,
    lengthBytes: number,
    descriptors?: readonly number[],
  ): number {
    return this.#stream.send(source, from, lengthBytes, descriptors);
  }

  [Symbol.dispose](): void {
    this.stopWaiting();
    this.#stream.end();
  }
}

/**
 * Connects, again and again, however long the server stays away. A connection that ends within MAX_RETRY_NS
 * is no better than none: a server that takes every connection and closes it must not keep this program busy.
 */
class Connector implements ConnectionSource {
  readonly isOver = false;
  readonly #path: string;
  readonly #pause: Pause;
  #nextAtNs = -Infinity;
  #connectedAtNs = Infinity;

  constructor(path: string, retryNs: number) {
    this.#path = path;
    this.#pause = new Pause(retryNs);
  }

  next(nowNs: number): IncomingConnection | null {
    if (nowNs - this.#connectedAtNs >= MAX_RETRY_NS) this.#pause.reset();
    this.#connectedAtNs = Infinity;
    if (nowNs < this.#nextAtNs) return null;
    this.#nextAtNs = nowNs + this.#pause.nextNs();
    try {
      const stream = UnixStream.connect(this.#path);
      this.#connectedAtNs = nowNs;
      return new Waiting(stream);
    } catch (error) {
      if (isOneOf(NOT_YET, error) || isOneOf(TRANSIENT, error)) return null;
      throw error;
    }
  }

  deadlineNs(): number {
    return this.#nextAtNs;
  }

  [Symbol.dispose](): void {}
}

/**
 * How long to wait between attempts: as the options say at first, twice as long each time, up to
 * MAX_RETRY_NS.
 */
class Pause {
  readonly #firstNs: number;
  #nextNs: number;

  constructor(firstNs: number) {
    this.#firstNs = firstNs;
    this.#nextNs = firstNs;
  }

  nextNs(): number {
    const pauseNs = this.#nextNs;
    this.#nextNs = Math.max(this.#firstNs, Math.min(2 * pauseNs, MAX_RETRY_NS));
    return pauseNs;
  }

  reset(): void {
    this.#nextNs = this.#firstNs;
  }
}

/** One connection, made by the program that started this one; there is no second one. */
class InheritedSocket implements ConnectionSource {
  #stream: UnixStream | null;

  constructor(stream: UnixStream) {
    this.#stream = stream;
  }

  get isOver(): boolean {
    return this.#stream === null;
  }

  next(): IncomingConnection | null {
    const stream = this.#stream;
    this.#stream = null;
    return stream && new Waiting(stream);
  }

  deadlineNs(): number {
    return Infinity;
  }

  [Symbol.dispose](): void {
    this.#stream?.[Symbol.dispose]();
  }
}

function isOneOf(codes: ReadonlySet<string>, error: unknown): error is HostError {
  return error instanceof SystemCallError && codes.has(error.code);
}

const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;

/**
 * Does this socket wait for connections? Otherwise it is one. Throws HostError for a descriptor that is no
 * socket.
 * @param purpose what it is to be, such as "vhost-user socket"
 */
export function isListening(fd: number, purpose: string): boolean {
  const attempt = `use file descriptor ${fd} as a ${purpose}`;
  if (!factsOfDescriptor(fd).isSocket) {
    throw new HostError(`Cannot ${attempt}: it is something else; pass a Unix stream socket`);
  }
  const value = new Uint8Array(4);
  const length = new Uint8Array(new Uint32Array([value.length]).buffer);
  checked(libc().getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, value, length), attempt);
  return value[0] !== 0;
}
