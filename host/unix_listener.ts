/**
 * A Unix socket that waits for connections at a path.
 *
 * Whether a program listens at a path, and to make a socket there, are several calls; so is to remove one that is still one's
 * own. Between them another program could do the same: then both would listen, one of them where it is never found. So
 * all of it is done under a lock on the folder (flock(2)), which leaves nothing behind, and which the kernel takes back from
 * programs that are killed.
 * @module
 */
import { HostError } from "../core/errors.ts";
import { checked, EAGAIN, ECONNREFUSED, EINTR, errnoName, lastCallError, SystemCallError } from "./errno.ts";
import { closeElsewhere, FileDescriptor, isReadable, O_CLOEXEC, O_NONBLOCK } from "./file_descriptor.ts";
import { factsOfDescriptor, factsOfPath } from "./file_facts.ts";
import { cString, errno, libc, type LibcSymbols } from "./libc.ts";
import { AF_UNIX, SOCK_STREAM, unixAddress } from "./socket_address.ts";
import { UnixStream } from "./unix_stream.ts";

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
  /** The user who is to own it, by number; by default who runs this program. */
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
   * Listens at a path. A socket that lies there is replaced if nobody listens to it; anything else that lies there is left
   * alone and refused. Throws HostError.
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
    // Who has passed a socket on shares it, and may have taken O_NONBLOCK off.
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

/** Removes a socket to which nobody listens. Throws HostError for whatever else lies there. */
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

/** Removes the socket's file, if that is still the one that was made: the socket, which is open, keeps others from getting its inode. */
function removeOwn({ path, identity }: { readonly path: string; readonly identity: string }): void {
  try {
    if (factsOfPath(path)?.identity === identity) libc().unlink(cString(path));
  } catch {
    // Whoever closes cannot do anything about a folder that has become unreadable.
  }
}

/** Keeps other programs from making or removing sockets in the folder of `path` as long as the result is open. Throws HostError. */
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
