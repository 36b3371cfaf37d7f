/**
 * Opens the queues of a TAP interface and sets it up.
 *
 * Only what differs from what is wanted is changed: a user without rights can use an interface that was prepared for him. A
 * queue that was passed is judged by what it says of itself (TUNGETIFF), and owned only when it is known to be one: the
 * number might be that of another file of this process. Its interface may be in another network namespace, where its name
 * means nothing here, so that nothing is set by name then.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { checked, SystemCallError } from "../../host/errno.ts";
import { FileDescriptor, O_CLOEXEC, O_NONBLOCK, O_RDWR } from "../../host/file_descriptor.ts";
import { cString, errno, libc } from "../../host/libc.ts";
import { HOST_RIGHTS, IN_USE, NOT_A_TAP, TUN_FILE } from "./remedies.ts";
import type { TapOptions } from "./options.ts";
import * as tun from "./tun_abi.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const USUAL_MTU = 1500;
const LONG_HEADER_BYTES = 12;
const LEGACY_HEADER_BYTES = 10;

/** A TAP, open. */
export interface OpenTap {
  /** The interface's name. */
  readonly name: string;
  /** Its queues, owned by whoever takes this. */
  readonly queues: readonly FileDescriptor[];
  /** Bytes of the virtio-net header: 12, 10, or 0 for none. */
  readonly headerBytes: number;
  /** Its MTU, in bytes. */
  readonly mtu: number;
  /** Does the kernel know large UDP frames? */
  readonly largeUdp: boolean;
}

/**
 * Opens a TAP. Throws HostError that says what to do.
 * @param options what is wanted; @param queuePairs of the device; @param path where it stands in the configuration
 */
export function openTap(options: TapOptions, queuePairs: number, path: string): OpenTap {
  using opened = new DisposableStack();
  const { interface: wanted } = options;
  const passed = options.fds ?? (options.fd === undefined ? [] : [options.fd]);
  let name = wanted ?? "";
  const queues: FileDescriptor[] = [];
  if (wanted === undefined) {
    for (const number of passed) name = judgePassed(number, options, name, path);
    for (const number of passed) queues.push(opened.use(new FileDescriptor(number)));
    for (const queue of queues) queue.makeNonBlocking();
  } else {
    const several = options.multiQueue ?? queuePairs > 1;
    for (let i = 0; i < (several ? queuePairs : 1); i++) {
      const queue = opened.use(openTun(path));
      name = attach(queue, name, options, several, path);
      queues.push(queue);
    }
  }
  const headerBytes = options.vnetHeader ? chooseHeader(queues, name, path) : 0;
  const largeUdp = knowsLargeUdp(queues) && headerBytes > 0;
  for (const queue of queues) setSendBuffer(queue, options.sendBufferBytes, name, path);
  const mtu = wanted === undefined ? options.mtu ?? USUAL_MTU : configure(name, options, path);
  if (options.persistent) {
    const result = libc().ioctlValue(queues[0].number, tun.TUNSETPERSIST, 1n);
    checked(result, `keep interface ${name} (${path})`, HOST_RIGHTS);
  }
  opened.move();
  return { name, queues, headerBytes, mtu, largeUdp };
}

function openTun(path: string): FileDescriptor {
  const flags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
  return FileDescriptor.open(cString(tun.TUN_PATH), flags, `open ${tun.TUN_PATH} (${path})`, TUN_FILE);
}

/** Attaches a queue to the interface and returns its name. */
function attach(
  queue: FileDescriptor,
  name: string,
  options: TapOptions,
  several: boolean,
  path: string,
): string {
  const request = new tun.InterfaceRequest(name);
  request.flags = tun.IFF_TAP | tun.IFF_NO_PI | (options.vnetHeader ? tun.IFF_VNET_HDR : 0) |
    (several ? tun.IFF_MULTI_QUEUE : 0);
  checked(
    libc().ioctl(queue.number, tun.TUNSETIFF, request.bytes),
    `use interface ${name} as a TAP (${path})`,
    { ...HOST_RIGHTS, ...IN_USE, EINVAL: several ? NOT_A_TAP.several : NOT_A_TAP.single },
  );
  return request.name;
}

/** Throws HostError unless this is a TAP queue as wanted, of the interface `before` if there was one; returns its name. */
function judgePassed(number: number, options: TapOptions, before: string, path: string): string {
  const request = new tun.InterfaceRequest();
  const attempt = `use file descriptor ${number} as a TAP (${path})`;
  checked(libc().ioctl(number, tun.TUNGETIFF, request.bytes), attempt, {
    EBADF: "it is not open: have it passed by the program that starts this one, and not closed on exec",
    else:
      `it is none; open ${tun.TUN_PATH} (or /dev/tapN for a macvtap) and attach it by TUNSETIFF before passing it`,
  });
  const { flags, name } = request;
  const refuse = (why: string) => new HostError(`Cannot ${attempt}: ${why}`);
  if ((flags & tun.IFF_TAP) === 0) throw refuse("it carries IP packets (TUN); attach it with IFF_TAP");
  // The kernel sets this bit for another reason as well (no filter is attached): that it is set proves nothing.
  if ((flags & tun.IFF_NO_PI) === 0) throw refuse("it carries packet information; attach it with IFF_NO_PI");
  const hasHeader = (flags & tun.IFF_VNET_HDR) !== 0;
  if (hasHeader !== options.vnetHeader) {
    throw refuse(
      hasHeader
        ? 'it carries virtio-net headers; leave "vnetHeader": false out'
        : 'it carries no virtio-net headers; attach it with IFF_VNET_HDR, or write "vnetHeader": false',
    );
  }
  if (before !== "" && name !== before) {
    throw refuse(`it belongs to ${name} and the others to ${before}; pass queues of one interface`);
  }
  return name;
}

function chooseHeader(queues: readonly FileDescriptor[], name: string, path: string): number {
  const c = libc();
  const size = new Int32Array([LONG_HEADER_BYTES]);
  const sizeBytes = new Uint8Array(size.buffer);
  const long = queues.every(({ number }) => c.ioctl(number, tun.TUNSETVNETHDRSZ, sizeBytes) === 0);
  if (!long) {
    size[0] = LEGACY_HEADER_BYTES;
    const attempt = `set the header size of ${name} (${path})`;
    for (const { number } of queues) checked(c.ioctl(number, tun.TUNSETVNETHDRSZ, sizeBytes), attempt);
  }
  // Old kernels do not know this; their headers are in the byte order of the host, which is little-endian as well.
  const little = new Uint8Array(new Int32Array([1]).buffer);
  for (const { number } of queues) c.ioctl(number, tun.TUNSETVNETLE, little);
  return long ? LONG_HEADER_BYTES : LEGACY_HEADER_BYTES;
}

/** Asks for everything, and takes it back: there is no guest yet, and who used the interface before may have left it so. */
function knowsLargeUdp(queues: readonly FileDescriptor[]): boolean {
  const c = libc();
  const all = tun.TUN_F_CSUM | tun.TUN_F_TSO4 | tun.TUN_F_TSO6 | tun.TUN_F_USO4 | tun.TUN_F_USO6;
  const known = queues.every(({ number }) => c.ioctlValue(number, tun.TUNSETOFFLOAD, BigInt(all)) === 0);
  for (const { number } of queues) c.ioctlValue(number, tun.TUNSETOFFLOAD, 0n);
  return known;
}

function setSendBuffer(queue: FileDescriptor, bytes: number | undefined, name: string, path: string): void {
  if (bytes === undefined) return;
  const size = new Uint8Array(new Int32Array([bytes]).buffer);
  checked(libc().ioctl(queue.number, tun.TUNSETSNDBUF, size), `set the send buffer of ${name} (${path})`);
}

/** Sets what is wanted of the interface, and returns its MTU. */
function configure(name: string, options: TapOptions, path: string): number {
  const c = libc();
  using socket = new FileDescriptor(checked(c.socket(AF_UNIX, SOCK_DGRAM | O_CLOEXEC, 0), "make a socket"));
  const request = new tun.InterfaceRequest(name);
  const call = (code: bigint, what: string) => {
    if (c.ioctl(socket.number, code, request.bytes) === 0) return;
    throw new SystemCallError(`${what} interface ${name} (${path})`, errno(), {
      ...HOST_RIGHTS,
      EINVAL: "the value is not one that this interface takes",
    });
  };
  if (options.mac !== undefined) {
    call(tun.SIOCGIFHWADDR, "ask for the MAC address of");
    if (!request.mac.every((byte, i) => byte === options.mac![i])) {
      request.mac = options.mac;
      call(tun.SIOCSIFHWADDR, "set the MAC address of");
    }
  }
  call(tun.SIOCGIFMTU, "ask for the MTU of");
  const mtu = options.mtu ?? request.value;
  if (mtu !== request.value) {
    request.value = mtu;
    call(tun.SIOCSIFMTU, `set the MTU ${mtu} of`);
  }
  call(tun.SIOCGIFFLAGS, "ask for the flags of");
  if (options.up && (request.flags & tun.IFF_UP) === 0) {
    request.flags |= tun.IFF_UP;
    call(tun.SIOCSIFFLAGS, "set up");
  }
  return mtu;
}
