/**
 * How front-end and back-end meet: as a server that accepts, as a client that connects, or by a socket that was passed on.
 * @module
 */
import type { HostError } from "../../core/errors.ts";
import { SystemCallError } from "../host/errno.ts";
import { FileDescriptor } from "../host/file_descriptor.ts";
import { UnixListener } from "../host/unix_listener.ts";
import { UnixStream } from "../host/unix_stream.ts";
import type { VhostUserOptions } from "./options.ts";

/** A place to get connections from. */
export interface Meeting extends Disposable {
  /** The next connection; null if there is none now. HostError if there will never be one. */
  next(nowNs: number): UnixStream | null;
  /** When to ask again although nothing wakes, in ns; Infinity if never. */
  deadlineNs(): number;
  /** Will there never be another connection? */
  readonly isOver: boolean;
}

/** Attempts become rarer until they are this far apart, unless the options say more. */
const MAX_RETRY_NS = 1e9;

/** What goes wrong when too many files are open: it may pass. */
const PASSING = new Set(["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"]);
/** What a front-end that is not there yet looks like. */
const NOT_YET = new Set(["ECONNREFUSED", "ENOENT", "EAGAIN"]);

/**
 * Prepares to meet the front-end as the options say. HostError if the socket cannot be made.
 * @param options complete; `path` stands for `options.socket`
 * @param path the absolute path of the socket
 * @param watch has the reactor woken by a descriptor
 */
export function meet(
  options: VhostUserOptions,
  path: string,
  watch: (descriptor: number) => Disposable,
): Meeting {
  const retryNs = options.reconnectMs * 1e6;
  if (options.mode === "client") {
    return options.fd === null
      ? new Client(path, retryNs)
      : new Passed(new UnixStream(new FileDescriptor(options.fd)));
  }
  const listener = options.fd === null
    ? UnixListener.listen(path, {
      mode: options.socketMode ?? undefined,
      owner: options.socketUser ?? undefined,
      group: options.socketGroup ?? undefined,
    })
    : UnixListener.fromDescriptor(options.fd);
  return new Server(listener, watch, retryNs);
}

/** Accepts one connection after the other; a second one waits in the socket's queue until the first has ended. */
class Server implements Meeting {
  readonly isOver = false;
  readonly #listener: UnixListener;
  readonly #watch: Disposable;
  readonly #pause: Pause;
  #retryAtNs = Infinity;

  constructor(listener: UnixListener, watch: (descriptor: number) => Disposable, retryNs: number) {
    this.#listener = listener;
    this.#pause = new Pause(retryNs);
    try {
      this.#watch = watch(listener.fd.number);
    } catch (error) {
      listener[Symbol.dispose]();
      throw error;
    }
  }

  next(nowNs: number): UnixStream | null {
    try {
      const stream = this.#listener.accept();
      this.#retryAtNs = Infinity;
      this.#pause.reset();
      return stream;
    } catch (error) {
      if (!isOneOf(PASSING, error)) throw error;
      this.#retryAtNs = nowNs + this.#pause.nextNs();
      return null;
    }
  }

  deadlineNs(): number {
    return this.#retryAtNs;
  }

  [Symbol.dispose](): void {
    this.#watch[Symbol.dispose]();
    this.#listener[Symbol.dispose]();
  }
}

/**
 * Connects, again and again, however long the front-end stays away. A connection that ends within MAX_RETRY_NS is no better
 * than none: a front-end that takes every connection and closes it must not keep this program busy.
 */
class Client implements Meeting {
  readonly isOver = false;
  readonly #path: string;
  readonly #pause: Pause;
  #nextAtNs = -Infinity;
  #connectedAtNs = Infinity;

  constructor(path: string, retryNs: number) {
    this.#path = path;
    this.#pause = new Pause(retryNs);
  }

  next(nowNs: number): UnixStream | null {
    if (nowNs - this.#connectedAtNs >= MAX_RETRY_NS) this.#pause.reset();
    this.#connectedAtNs = Infinity;
    if (nowNs < this.#nextAtNs) return null;
    this.#nextAtNs = nowNs + this.#pause.nextNs();
    try {
      const stream = UnixStream.connect(this.#path);
      this.#connectedAtNs = nowNs;
      return stream;
    } catch (error) {
      if (isOneOf(NOT_YET, error) || isOneOf(PASSING, error)) return null;
      throw error;
    }
  }

  deadlineNs(): number {
    return this.#nextAtNs;
  }

  [Symbol.dispose](): void {}
}

/** How long to wait between attempts: as the options say at first, twice as long each time, up to MAX_RETRY_NS. */
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

/** One connection, made by whoever started this program; there is no second one. */
class Passed implements Meeting {
  #stream: UnixStream | null;

  constructor(stream: UnixStream) {
    this.#stream = stream;
  }

  get isOver(): boolean {
    return this.#stream === null;
  }

  next(): UnixStream | null {
    const stream = this.#stream;
    this.#stream = null;
    return stream;
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
