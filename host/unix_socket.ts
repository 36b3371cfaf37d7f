/**
 * Unix sockets: listening at a path, and connections that carry bytes and, with them, file descriptors. No
 * call here waits, except for a lock that other programs hold for microseconds.
 *
 * Theory of operation. Whether a program listens at a path, and to make a socket there, are several calls; so
 * is to remove one that is still one's own. Between them another program could do the same: then both would
 * listen, one of them where it is never found. So all of it is done under a lock on the folder (flock(2)),
 * which leaves nothing behind, and which the kernel takes back from programs that are killed.
 *
 * Descriptors arrive with the first byte of the message that they were sent with. The control buffer has room
 * for as many as the kernel passes at once (253), so that it is only cut (MSG_CTRUNC) if this process may
 * open no more files. Then those that did arrive are closed, and HostError is thrown: the message cannot be
 * understood without the others. Every descriptor received is closed on exec, and owned by a FileDescriptor
 * from the moment it is seen, so that none can leak.
 * @module
 */
import { HostError } from "../core/errors.ts";
import {
  closeElsewhere,
  factsOfDescriptor,
  factsOfPath,
  FileDescriptor,
  isReadable,
  O_CLOEXEC,
  O_NONBLOCK,
  ReceivedDescriptor,
} from "./descriptors.ts";
import {
  addressOf,
  checked,
  cString,
  EAGAIN,
  ECONNREFUSED,
  EINTR,
  errno,
  errnoName,
  IoVector,
  lastCallError,
  libc,
  type LibcSymbols,
  SystemCallError,
} from "./libc.ts";

/** Unix sockets. */
export const AF_UNIX = 1;
/** A stream of bytes. */
const SOCK_STREAM = 1;
/** The most bytes of a path, without the zero byte behind it. */
export const MAX_SOCKET_PATH_BYTES = 107;
/** The most descriptors that the kernel passes with one message. */
export const MAX_DESCRIPTORS = 253;

const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 8;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const SHUT_RD = 0;
const CONTROL_HEADER_BYTES = 16;
const CONTROL_BYTES = CONTROL_HEADER_BYTES + 4 * (MAX_DESCRIPTORS + 1);
// struct msghdr: name, namelen, iov, iovlen, control, controllen, flags.
const MESSAGE_BYTES = 56;
const IOV_AT = 16;
const IOV_COUNT_AT = 24;
const CONTROL_AT = 32;
const CONTROL_LENGTH_AT = 40;
const FLAGS_AT = 48;
/** Bytes thrown away at once. */
const DISCARD_BYTES = 4096;
const SO_TYPE = 3;
const SO_DOMAIN = 39;
const ADDRESS_BYTES = 110;
const FAMILY_BYTES = 2;
const KEEP = 0xffff_ffff;
const BACKLOG = 16;
const O_DIRECTORY = Deno.build.arch === "x86_64" ? 0o200000 : 0o40000;
const SHUT_RDWR = 2;
const LOCK_EX = 2;
const LOCK_NB = 4;
/** How long another program may hold the lock, in ms; it needs some microseconds. */
const MAX_LOCK_MS = 2000;
const LOCK_RETRY_MS = 2;

/** Who may use a socket. */
export interface SocketAccess {
  /** Permissions of the file, such as `0o660`; by default those of any new file, as the umask leaves them. */
  readonly mode?: number | undefined;
  /** The user who is to own it, by number; by default the user who runs this program. */
  readonly owner?: number | undefined;
  /** The group that is to own it, by number. */
  readonly group?: number | undefined;
}

/** Waits for connections. */
export class UnixListener implements Disposable {
  /** The descriptor, owned: watch it to learn of connections. */
  readonly fd: FileDescriptor;
  readonly #c: LibcSymbols = libc();
  /** The path of the socket's file, if this object has made it, and which file that is. */
  readonly #made: { readonly path: string; readonly identity: string } | null;

  private constructor(fd: FileDescriptor, made: { path: string; identity: string } | null) {
    this.fd = fd;
    this.#made = made;
  }

  /**
   * Listens at a path. A socket that lies there is replaced if no program listens to it; anything else that
   * lies there is left alone and refused. Throws HostError.
   */
  static listen(path: string, access: SocketAccess = {}): UnixListener {
    const address = unixAddress(path);
    using _lock = lockFolder(path);
    removeStale(path, address);
    const c = libc();
    const number = checked(c.socket(AF_UNIX, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0), "make a socket");
    const fd = new FileDescriptor(number);
    let made: { path: string; identity: string } | null = null;
    try {
      const attempt = `listen at ${path}`;
      // Before the file appears: at no time may more people use it than are meant to.
      if (access.mode !== undefined) checked(c.fchmod(number, access.mode), attempt);
      checked(c.bind(number, address, address.length), attempt, {
        ENOENT: "make the folder first",
        EACCES: "use a folder in which this user may make files",
        EADDRINUSE: "another program has just taken this path; use another",
      });
      const facts = factsOfPath(path);
      if (facts !== null) made = { path, identity: facts.identity };
      if (access.owner !== undefined || access.group !== undefined) {
        const { owner = KEEP, group = KEEP } = access;
        checked(c.lchown(cString(path), owner, group), `give ${path} to user ${owner}, group ${group}`, {
          EPERM: "run as root, or leave owner and group out",
        });
      }
      if (access.mode !== undefined) checked(c.chmod(cString(path), access.mode), attempt);
      checked(c.listen(number, BACKLOG), attempt);
      return new UnixListener(fd, made);
    } catch (cause) {
      if (made !== null) removeOwn(made);
      fd[Symbol.dispose]();
      throw cause;
    }
  }

  /** Listens on a socket that another program has bound, and passed on. Throws HostError if it is none. */
  static fromDescriptor(number: number): UnixListener {
    const attempt = `listen on file descriptor ${number}`;
    if (!factsOfDescriptor(number).isSocket) throw new HostError(`Cannot ${attempt}: it is not a socket`);
    checked(libc().listen(number, BACKLOG), attempt, {
      else: "pass a Unix stream socket that has been bound",
    });
    const fd = new FileDescriptor(number);
    fd.makeNonBlocking();
    return new UnixListener(fd, null);
  }

  /** The next connection; null if there is none now. Throws SystemCallError. */
  accept(): UnixStream | null {
    // The program that has passed a socket on shares it, and may have taken O_NONBLOCK off.
    if (this.#made === null && !isReadable(this.fd.number)) return null;
    const number = this.#c.accept4(this.fd.number, 0n, 0n, O_NONBLOCK | O_CLOEXEC);
    if (number >= 0) return new UnixStream(new FileDescriptor(number));
    const error = errno();
    if (error === EAGAIN || error === EINTR || errnoName(error) === "ECONNABORTED") return null;
    throw lastCallError("accept a connection");
  }

  /** Closes the socket and removes its file, if that is still the one that was made. */
  [Symbol.dispose](): void {
    if (!this.fd.isOpen) return;
    if (this.#made !== null) {
      try {
        using _lock = lockFolder(this.#made.path);
        removeOwn(this.#made);
      } catch (error) {
        // Left behind, it is replaced by the next that listens there.
        if (!(error instanceof HostError)) throw error;
      }
      this.#c.shutdown(this.fd.number, SHUT_RDWR);
    }
    // Connections that were not accepted are closed with it, and what lies unread in them.
    closeElsewhere(this.fd.release());
  }
}

/** Removes a socket to which no program listens. Throws HostError for anything else that lies there. */
function removeStale(path: string, address: Uint8Array<ArrayBuffer>): void {
  const facts = factsOfPath(path);
  if (facts === null) return;
  if (!facts.isSocket) {
    throw new HostError(
      `Cannot listen at ${path}: what lies there is not a socket; remove it or use another path`,
    );
  }
  const c = libc();
  const number = checked(c.socket(AF_UNIX, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0), "make a socket");
  using _probe = new FileDescriptor(number);
  if (c.connect(number, address, address.length) === 0 || errno() !== ECONNREFUSED) {
    throw new HostError(
      `Cannot listen at ${path}: another program does so already; stop it or use another path`,
    );
  }
  checked(c.unlink(cString(path)), `remove the old socket ${path}`);
}

/**
 * Removes the socket's file, if that is still the one that was made: the socket, which is open, keeps others
 * from getting its inode.
 */
function removeOwn({ path, identity }: { readonly path: string; readonly identity: string }): void {
  try {
    if (factsOfPath(path)?.identity === identity) libc().unlink(cString(path));
  } catch {
    // A folder that has become unreadable is nothing that closing could mend.
  }
}

/**
 * Keeps other programs from making or removing sockets in the folder of `path` as long as the result is open.
 * Throws HostError.
 */
function lockFolder(path: string): FileDescriptor {
  const folder = path.slice(0, path.lastIndexOf("/") + 1) || ".";
  const fd = FileDescriptor.open(cString(folder), O_DIRECTORY, `listen at ${path}`, {
    ENOENT: "make the folder first",
    EACCES: "use a folder that this user may read, and make files in",
  });
  const endMs = performance.now() + MAX_LOCK_MS;
  while (libc().flock(fd.number, LOCK_EX | LOCK_NB) !== 0) {
    const error = errno();
    if (error !== EINTR && (error !== EAGAIN || performance.now() > endMs)) {
      fd[Symbol.dispose]();
      throw new SystemCallError(`listen at ${path}: lock its folder`, error, {
        EAGAIN: `another program has held its lock for ${
          MAX_LOCK_MS / 1000
        } s; stop it or use another folder`,
        else: "use a folder of a local file system",
      });
    }
    libc().poll(new Uint8Array(0), 0n, LOCK_RETRY_MS);
  }
  return fd;
}

/** One end of a connection. */
export class UnixStream implements Disposable {
  /** The descriptor, owned: watch it to learn when there is something to receive. */
  readonly fd: FileDescriptor;
  readonly #c: LibcSymbols = libc();
  readonly #vector = new IoVector(1);
  readonly #control = new DataView(new ArrayBuffer(CONTROL_BYTES));
  readonly #message = new DataView(new ArrayBuffer(MESSAGE_BYTES));
  readonly #messageAddress = addressOf(this.#message);
  readonly #controlAddress = addressOf(this.#control);
  /** Where the bytes lie that were received to last: asked for each time, the address would be garbage. */
  #known: Uint8Array<ArrayBuffer> | null = null;
  #knownAddress = 0;
  #scratch: Uint8Array<ArrayBuffer> | null = null;

  /**
   * Owns a connected socket. Whether it is non-blocking makes no difference: each call says that it must not
   * wait.
   * @param fd the descriptor: accepted, or passed by another program
   */
  constructor(fd: FileDescriptor) {
    this.fd = fd;
    this.#message.setBigUint64(IOV_AT, this.#vector.address, true);
    this.#message.setUint32(IOV_COUNT_AT, 1, true);
  }

  /**
   * Connects to a socket. Throws SystemCallError; `code` is ECONNREFUSED if no program listens (any more),
   * ENOENT if there is no such socket (yet), EAGAIN if too many others are waiting.
   */
  static connect(path: string): UnixStream {
    const address = unixAddress(path);
    const c = libc();
    const number = checked(c.socket(AF_UNIX, SOCK_STREAM | O_NONBLOCK | O_CLOEXEC, 0), "make a socket");
    const fd = new FileDescriptor(number);
    try {
      checked(c.connect(number, address, address.length), `connect to ${path}`, {
        ECONNREFUSED: "start the program that listens there",
        ENOENT: "start the program that is to make this socket, or correct the path",
        EACCES: "use a user who may write to this socket",
        EAGAIN: "try again: too many others are waiting",
        EPROTOTYPE: "it must be a stream socket",
      });
      return new UnixStream(fd);
    } catch (cause) {
      fd[Symbol.dispose]();
      throw cause;
    }
  }

  /** Two ends of a new connection, in this process. */
  static pair(): [UnixStream, UnixStream] {
    const numbers = new Uint8Array(8);
    const type = SOCK_STREAM | O_NONBLOCK | O_CLOEXEC;
    checked(libc().socketpair(AF_UNIX, type, 0, numbers), "make a pair of sockets");
    const [left, right] = new Int32Array(numbers.buffer);
    return [new UnixStream(new FileDescriptor(left)), new UnixStream(new FileDescriptor(right))];
  }

  /**
   * Receives up to `lengthBytes` to `target[at]` on, and appends the descriptors that came with them to
   * `descriptors`, whose owner the caller is. Returns the number of bytes; 0 if there are none now; -1 if the
   * other side has closed. Throws HostError if descriptors were lost, or the connection broke.
   */
  receive(
    target: Uint8Array<ArrayBuffer>,
    at: number,
    lengthBytes: number,
    descriptors: FileDescriptor[],
  ): number {
    if (!(at >= 0 && lengthBytes >= 1 && at + lengthBytes <= target.length)) {
      throw new RangeError(`Cannot receive ${lengthBytes} bytes at ${at} of a buffer of ${target.length}`);
    }
    if (target !== this.#known) this.#learn(target);
    this.#vector.set(0, this.#knownAddress + at, lengthBytes);
    this.#message.setBigUint64(CONTROL_AT, this.#controlAddress, true);
    this.#message.setUint32(CONTROL_LENGTH_AT, CONTROL_BYTES, true);
    this.#message.setUint32(CONTROL_LENGTH_AT + 4, 0, true);
    this.#message.setUint32(FLAGS_AT, 0, true);
    const received = this.#c.recvmsg(this.fd.number, this.#messageAddress, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (received < 0) {
      const error = errno();
      if (error === EAGAIN || error === EINTR) return 0;
      if (errnoName(error) === "ECONNRESET") return -1;
      throw lastCallError("receive from a socket");
    }
    const before = descriptors.length;
    this.#takeDescriptors(descriptors);
    if ((this.#message.getUint32(FLAGS_AT, true) & MSG_CTRUNC) !== 0) {
      for (const descriptor of descriptors.splice(before)) descriptor[Symbol.dispose]();
      throw new HostError(
        'Cannot receive all file descriptors of a message: raise the limit of open files ("ulimit -n")',
      );
    }
    return received === 0 ? -1 : received;
  }

  /**
   * Sends up to `lengthBytes` from `source[from]` on, and descriptors with the first of them; they stay open
   * here. Returns how many bytes went out: 0 if there is no room now, and then no descriptor did either; -1
   * if the other side has closed.
   */
  send(
    source: Uint8Array<ArrayBuffer>,
    from: number,
    lengthBytes: number,
    descriptors: readonly number[] = [],
  ): number {
    if (!(from >= 0 && lengthBytes >= 1 && from + lengthBytes <= source.length)) {
      throw new RangeError(`Cannot send ${lengthBytes} bytes at ${from} of a buffer of ${source.length}`);
    }
    if (descriptors.length > MAX_DESCRIPTORS) {
      throw new RangeError(
        `Cannot send ${descriptors.length} descriptors: at most ${MAX_DESCRIPTORS} at once`,
      );
    }
    this.#vector.set(0, Number(addressOf(source)) + from, lengthBytes);
    this.#putDescriptors(descriptors);
    const sent = this.#c.sendmsg(this.fd.number, this.#messageAddress, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    const error = errno();
    if (error === EAGAIN || error === EINTR) return 0;
    const code = errnoName(error);
    if (code === "EPIPE" || code === "ECONNRESET") return -1;
    throw lastCallError("send to a socket", { EBADF: "one of the descriptors sent is not open" });
  }

  /**
   * Throws away what has come, up to 4096 bytes, and the descriptors that came along. Returns how many bytes;
   * 0 if there are none now; -1 if the other side has closed. Throws as `receive`.
   */
  discard(): number {
    const descriptors: FileDescriptor[] = [];
    this.#scratch ??= new Uint8Array(DISCARD_BYTES);
    try {
      return this.receive(this.#scratch, 0, DISCARD_BYTES, descriptors);
    } finally {
      // Without room for them the kernel would close them here, and wait.
      for (const descriptor of descriptors) descriptor[Symbol.dispose]();
    }
  }

  /** Receives nothing any more: the other side cannot send, and what lies here unread is thrown away. */
  stopReceiving(): void {
    this.#c.shutdown(this.fd.number, SHUT_RD);
    while (this.discard() > 0);
  }

  /** Ends the connection for both sides; what was sent still arrives. */
  shutdown(): void {
    if (this.fd.isOpen) this.#c.shutdown(this.fd.number, SHUT_RDWR);
  }

  /**
   * Ends the connection for both sides and closes this end, without waiting for descriptors that lie unread
   * in it.
   */
  end(): void {
    if (!this.fd.isOpen) return;
    this.shutdown();
    closeElsewhere(this.fd.release());
  }

  /** Closes this end. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }

  #learn(target: Uint8Array<ArrayBuffer>): void {
    // Short arrays may be moved by the collector until their buffer is asked for.
    this.#knownAddress = Number(addressOf(new Uint8Array(target.buffer, target.byteOffset, target.length)));
    this.#known = target;
  }

  #putDescriptors(descriptors: readonly number[]): void {
    const bytes = descriptors.length === 0 ? 0 : CONTROL_HEADER_BYTES + 4 * descriptors.length;
    this.#message.setBigUint64(CONTROL_AT, bytes === 0 ? 0n : addressOf(this.#control), true);
    this.#message.setBigUint64(CONTROL_LENGTH_AT, BigInt(bytes), true);
    if (bytes === 0) return;
    this.#control.setBigUint64(0, BigInt(bytes), true);
    this.#control.setInt32(8, SOL_SOCKET, true);
    this.#control.setInt32(12, SCM_RIGHTS, true);
    descriptors.forEach((number, i) => this.#control.setInt32(CONTROL_HEADER_BYTES + 4 * i, number, true));
  }

  /** Owns every descriptor of the message received last. */
  #takeDescriptors(descriptors: FileDescriptor[]): void {
    const end = Math.min(this.#message.getUint32(CONTROL_LENGTH_AT, true), CONTROL_BYTES);
    for (let at = 0; at + CONTROL_HEADER_BYTES <= end;) {
      const bytes = this.#control.getUint32(at, true);
      if (bytes < CONTROL_HEADER_BYTES) return;
      const isRights = this.#control.getInt32(at + 8, true) === SOL_SOCKET &&
        this.#control.getInt32(at + 12, true) === SCM_RIGHTS;
      const dataEnd = Math.min(at + bytes, end);
      for (let data = at + CONTROL_HEADER_BYTES; isRights && data + 4 <= dataEnd; data += 4) {
        descriptors.push(new ReceivedDescriptor(this.#control.getInt32(data, true)));
      }
      at += bytes + 7 & ~7;
    }
  }
}

/** Is a socket a Unix stream? Throws SystemCallError for a descriptor that is no socket. */
export function isUnixStream(number: number): boolean {
  return socketOption(number, SO_DOMAIN) === AF_UNIX && socketOption(number, SO_TYPE) === SOCK_STREAM;
}

/** Bytes in the name of the socket at the other end, 0 for one without; null if there is none. */
export function peerNameBytes(number: number): number | null {
  const length = new Uint32Array([ADDRESS_BYTES]);
  const address = new Uint8Array(ADDRESS_BYTES);
  if (libc().getpeername(number, address, new Uint8Array(length.buffer)) < 0) return null;
  return length[0] - FAMILY_BYTES;
}

function socketOption(number: number, option: number): number {
  const value = new Int32Array(1);
  const length = new Uint8Array(new Uint32Array([4]).buffer);
  checked(
    libc().getsockopt(number, SOL_SOCKET, option, new Uint8Array(value.buffer), length),
    `look at socket ${number}`,
  );
  return value[0];
}

/**
 * struct sockaddr_un for this path. Throws HostError for one that is empty, too long, or has a zero byte in
 * it.
 */
export function unixAddress(path: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length > MAX_SOCKET_PATH_BYTES || bytes.includes(0)) {
    throw new HostError(
      `Cannot use ${
        JSON.stringify(path)
      } as a socket: its path has ${bytes.length} bytes, and must have 1 to ` +
        `${MAX_SOCKET_PATH_BYTES}, none of them zero; use a shorter folder or a relative path`,
    );
  }
  const address = new Uint8Array(2 + bytes.length + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 2);
  return address;
}
