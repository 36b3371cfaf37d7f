/**
 * Descriptors of many kinds, most of them wrong wherever they are sent.
 * @module
 */
import { assert } from "@std/assert";
import { FileDescriptor, O_RDWR } from "../../../../host/descriptors.ts";
import { EventFd } from "../../../../host/event_fd.ts";
import { cString, libc } from "../../../../host/libc.ts";
import { newMemoryFile } from "../../../../host/memory_mapping.ts";
import { UnixStream } from "../../../../host/unix_socket.ts";
import { GUEST_BYTES } from "../../../../rigs/vhost_user/guest.ts";

const O_RDONLY = 0;
const MFD_CLOEXEC = 1;
const F_ADD_SEALS = 1033;
const F_SEAL_SEAL = 1;
const F_SEAL_SHRINK = 2;
const F_SEAL_WRITE = 8;
const EFD_SEMAPHORE = 1;

/** Everything that a test may want to send, by name; open as long as this object is not disposed of. */
export class OddDescriptors implements Disposable {
  readonly #stack = new DisposableStack();
  readonly #numbers: Readonly<Record<string, number>>;

  constructor() {
    const [socket, other] = UnixStream.pair().map((stream) => this.#stack.use(stream));
    const [lonely, gone] = UnixStream.pair();
    this.#stack.use(lonely);
    gone[Symbol.dispose]();
    const memory = this.#memory(GUEST_BYTES);
    this.#numbers = {
      "memory": memory,
      "memory sealed against cutting": this.#memory(GUEST_BYTES, F_SEAL_SHRINK | F_SEAL_SEAL),
      "memory sealed against writing": this.#memory(GUEST_BYTES, F_SEAL_WRITE),
      "memory that takes no seals": this.#unsealable(),
      "memory that is too short": this.#memory(4096),
      "memory of 0 bytes": this.#memory(0),
      "memory for reading": this.#open(`/proc/self/fd/${memory}`, O_RDONLY),
      "event": this.#stack.use(EventFd.create()).fd.number,
      "event that counts down": this.#own(libc().eventfd(1000, EFD_SEMAPHORE)),
      "socket": socket.fd.number,
      "other end of it": other.fd.number,
      "socket whose other end is closed": lonely.fd.number,
      "epoll set": this.#own(libc().epoll_create1(0)),
      "timer": this.#own(libc().timerfd_create(1, 0)),
      "folder": this.#open("/", O_RDONLY),
      "file for reading": this.#open("/proc/self/status", O_RDONLY),
      "/dev/null": this.#open("/dev/null", O_RDWR),
      "/dev/zero": this.#open("/dev/zero", O_RDWR),
      "/dev/full": this.#open("/dev/full", O_RDWR),
    };
  }

  /** The names. */
  static readonly names: readonly string[] = (() => {
    using all = new OddDescriptors();
    return Object.keys(all.#numbers);
  })();

  /** The number of one of them. */
  number(name: string): number {
    const number = this.#numbers[name];
    assert(number !== undefined, name);
    return number;
  }

  /** Closes them all. */
  [Symbol.dispose](): void {
    this.#stack[Symbol.dispose]();
  }

  #own(number: number): number {
    assert(number >= 0);
    return this.#stack.use(new FileDescriptor(number)).number;
  }

  #open(path: string, flags: number): number {
    return this.#stack.use(FileDescriptor.open(cString(path), flags, `open ${path}`)).number;
  }

  #memory(sizeBytes: number, seals = 0): number {
    const { number } = this.#stack.use(newMemoryFile("odd", sizeBytes));
    assert(seals === 0 || libc().fcntl(number, F_ADD_SEALS, seals) === 0);
    return number;
  }

  #unsealable(): number {
    const number = this.#own(libc().memfd_create(cString("odd"), MFD_CLOEXEC));
    assert(libc().ftruncate(number, BigInt(GUEST_BYTES)) === 0);
    return number;
  }
}
