/**
 * Eventfds: counters that wake the program that waits for them. Kicks and interrupts of vhost-user are such.
 *
 * Theory of operation. An event that was received is an open file that the other side shares. That side can
 * take O_NONBLOCK off it at any time and fill the counter: then write(2) waits for ever, and read(2) waits on
 * an empty one. So neither is ever called for it, and its flags are not touched.
 *
 * - `take` reads by preadv2 with RWF_NOWAIT, which does not wait, and ignores the flags. Before Linux 5.8
 *   eventfds do not know that; then poll(2) says whether there is anything, and it stays there.
 * - write(2) has no such form, and a look by poll(2) beforehand is out of date by the time of the call. But
 *   the kernel itself signals an eventfd without waiting, when an asynchronous request is complete
 *   (IOCB_FLAG_RESFD): the counter saturates. `signal` submits a request that is complete at once, the
 *   reading of 0 bytes of an empty file of our own. It costs 0.5 microseconds more than write(2), once for
 *   each burst that ends with an interrupt.
 *
 * Each thread has a context of requests of its own, made with the first signal; its completions are thrown
 * away when there is no room for more of them.
 * @module
 */
import { HostError } from "../core/errors.ts";
import {
  EVENTFD,
  FileDescriptor,
  isReadable,
  nameOfDescriptor,
  O_CLOEXEC,
  O_NONBLOCK,
} from "./descriptors.ts";
import { addressOf, checked, EAGAIN, errno, IoVector, libc, type LibcSymbols } from "./libc.ts";
import { newMemoryFile } from "./memory_mapping.ts";
import { isUnixStream, peerNameBytes, UnixStream } from "./unix_socket.ts";

const [IO_SETUP, IO_DESTROY, IO_GETEVENTS, IO_SUBMIT] = Deno.build.arch === "x86_64"
  ? [206n, 207n, 208n, 209n]
  : [0n, 1n, 4n, 2n];
/** Requests that a context has room for, and completions thrown away at once. */
const REQUESTS = 128n;
// struct iocb: only what is not 0; IOCB_CMD_PREAD is 0.
const IOCB_BYTES = 64;
const FILE_AT = 20;
const FLAGS_AT = 56;
const EVENT_AT = 60;
const IOCB_FLAG_RESFD = 1;
const COMPLETION_BYTES = 32;
const RWF_NOWAIT = 8;

/**
 * A counter in the kernel, made here and for this program alone. Neither signalling nor draining ever waits.
 */
export class EventFd implements Disposable {
  /** The descriptor, owned. */
  readonly fd: FileDescriptor;
  readonly #c: LibcSymbols = libc();
  readonly #number: number;
  readonly #count = new BigUint64Array(1);

  private constructor(fd: FileDescriptor) {
    this.fd = fd;
    this.#number = fd.number;
  }

  /** Makes a new one, at 0. Throws SystemCallError. */
  static create(): EventFd {
    const number = checked(libc().eventfd(0, O_NONBLOCK | O_CLOEXEC), "make an eventfd");
    return new EventFd(new FileDescriptor(number));
  }

  /** Adds 1 and so wakes the program that waits. False if it was closed, or is full: then it wakes anyway. */
  signal(): boolean {
    return this.fd.isOpen && this.#c.eventfd_write(this.#number, 1n) === 0;
  }

  /** Sets it to 0. True if it was not 0. */
  drain(): boolean {
    return this.fd.isOpen && this.#c.eventfd_read(this.#number, this.#count) === 0;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }
}

/**
 * An eventfd, or what stands for one, that another program has passed, and shares. Nothing here ever waits
 * for that program.
 */
export class ReceivedEvent implements Disposable {
  /** The descriptor, owned. */
  readonly fd: FileDescriptor;
  readonly #c: LibcSymbols = libc();
  readonly #number: number;
  readonly #count = new BigUint64Array(1);
  readonly #vector = new IoVector(1);
  /** Of a socket: what is signalled through it, as 8 bytes. */
  readonly #stream: UnixStream | null;

  /**
   * Owns an eventfd. HostError for any other descriptor, which stays the caller's then.
   * @param isCall one end of a pair of stream sockets without names will do as well: so User-mode Linux wants
   * to be called
   */
  constructor(fd: FileDescriptor, isCall = false) {
    const name = nameOfDescriptor(fd.number);
    const isSocket = isCall && name.startsWith("socket:") && isUnixStream(fd.number) &&
      peerNameBytes(fd.number) === 0;
    if (name !== EVENTFD && !isSocket) {
      throw new HostError(`Cannot use ${name} as an event: pass an eventfd`);
    }
    this.fd = fd;
    this.#stream = isSocket ? new UnixStream(fd) : null;
    // Descriptors that the other side could leave here unread would stay open.
    this.#stream?.stopReceiving();
    this.#number = fd.number;
    this.#vector.set(0, Number(addressOf(this.#count)), 8);
  }

  /**
   * Adds 1, if there is room, and wakes the program that waits. False if it was closed. Throws
   * SystemCallError the first time in a thread, if this host cannot do so.
   */
  signal(): boolean {
    if (!this.fd.isOpen) return false;
    if (this.#stream !== null) return signalStream(this.#stream);
    if (signaller === null) prepareSignals();
    return signaller!.signal(this.#number);
  }

  /**
   * Has it been signalled since it was last taken? One that counts down is so as often as its counter says.
   */
  take(): boolean {
    if (!this.fd.isOpen) return false;
    if (this.#c.preadv2(this.#number, this.#vector.address, 1, -1n, RWF_NOWAIT) === 8) return true;
    return errno() !== EAGAIN && isReadable(this.#number);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }
}

const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** False if there is no room, which wakes anyway, or no program that waits. */
function signalStream(stream: UnixStream): boolean {
  try {
    return stream.send(ONE, 0, ONE.length) === ONE.length;
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    return false;
  }
}

/** Requests of this thread that have an eventfd signalled by the kernel. */
class Signaller implements Disposable {
  readonly #c: LibcSymbols = libc();
  readonly #empty: FileDescriptor;
  readonly #context: bigint;
  readonly #request = new Uint32Array(IOCB_BYTES / 4);
  readonly #requests = new BigUint64Array([addressOf(this.#request)]);
  readonly #requestsAddress = addressOf(this.#requests);
  readonly #completions = new Uint8Array(Number(REQUESTS) * COMPLETION_BYTES);
  readonly #completionsAddress = addressOf(this.#completions);
  /** struct timespec: not at all. */
  readonly #noTime = new BigUint64Array(2);
  readonly #noTimeAddress = addressOf(this.#noTime);

  constructor() {
    using empty = new DisposableStack();
    this.#empty = empty.use(newMemoryFile("nothing", 0));
    const context = new BigUint64Array(1);
    checked(
      this.#c.io_setup(IO_SETUP, REQUESTS, new Uint8Array(context.buffer)),
      "signal events without waiting: make a context of asynchronous requests (io_setup)",
      {
        EAGAIN: "raise the system's limit of them (sysctl fs.aio-max-nr)",
        else: "use a kernel with CONFIG_AIO, and allow io_setup, io_submit and io_getevents",
      },
    );
    this.#context = context[0];
    this.#request[FILE_AT / 4] = this.#empty.number;
    this.#request[FLAGS_AT / 4] = IOCB_FLAG_RESFD;
    empty.move();
  }

  signal(number: number): boolean {
    this.#request[EVENT_AT / 4] = number;
    if (this.#submit()) return true;
    if (errno() !== EAGAIN) return false;
    this.#c.io_getevents(
      IO_GETEVENTS,
      this.#context,
      0n,
      REQUESTS,
      this.#completionsAddress,
      this.#noTimeAddress,
    );
    return this.#submit();
  }

  [Symbol.dispose](): void {
    this.#c.io_destroy(IO_DESTROY, this.#context);
    this.#empty[Symbol.dispose]();
  }

  #submit(): boolean {
    return this.#c.io_submit(IO_SUBMIT, this.#context, 1n, this.#requestsAddress) === 1;
  }
}

/** By thread, for every thread has a module of its own. */
let signaller: Signaller | null = null;

/**
 * Makes what signals of this thread need, before the first of them. Throws SystemCallError if this host
 * cannot do so.
 */
export function prepareSignals(): void {
  signaller ??= new Signaller();
}

/** Lets go of it: this thread ends. */
export function endSignals(): void {
  signaller?.[Symbol.dispose]();
  signaller = null;
}
