/**
 * Opens the queues of a TAP interface and sets it up.
 *
 * Only what differs from what is wanted is changed: a user without rights can use an interface that was
 * prepared for that user. A queue that was passed is judged by what it says of itself (TUNGETIFF), and owned
 * only when it is known to be one: the number might be that of another file of this process. Its interface
 * may be in another network namespace, where its name means nothing here, so that nothing is set by name
 * then.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { FileDescriptor, O_CLOEXEC, O_NONBLOCK, O_RDWR } from "../../host/descriptors.ts";
import { checked, cString, errno, libc, SystemCallError } from "../../host/libc.ts";
import type { TapOptions } from "./options.ts";

// Numbers from linux/if_tun.h, linux/if.h and linux/sockios.h.

/** The file from which TAP queues are made. */
export const TUN_PATH = "/dev/net/tun";

/**
 * Attaches a queue to an interface, which is made if there is none of that name; takes and fills in an ifreq.
 */
export const TUNSETIFF = 0x4004_54can;
/** Lets the interface outlive its queues. */
const TUNSETPERSIST = 0x4004_54cbn;
/** Says which unfinished frames may be read. */
export const TUNSETOFFLOAD = 0x4004_54d0n;
/** Asks for name and flags. */
const TUNGETIFF = 0x8004_54d2n;
/** Sets how many bytes may be on their way before a write has to wait. */
const TUNSETSNDBUF = 0x4004_54d4n;
/** Asks how many that may be. */
const TUNGETSNDBUF = 0x8004_54d3n;
/** As many as there are by default: no write has to wait. */
const NO_SEND_LIMIT = 0x7fff_ffff;
/**
 * Detaches a queue from its interface for the time being, or attaches it again; takes an ifreq with one flag.
 */
export const TUNSETQUEUE = 0x4004_54d9n;
/** Sets the size of the virtio-net header. */
const TUNSETVNETHDRSZ = 0x4004_54d8n;
/** Makes the virtio-net header little-endian. */
const TUNSETVNETLE = 0x4004_54dcn;
/** Asks for the flags of an interface. */
const SIOCGIFFLAGS = 0x8913n;
/** Sets the flags of an interface. */
const SIOCSIFFLAGS = 0x8914n;
/** Asks for the MTU. */
const SIOCGIFMTU = 0x8921n;
/** Sets the MTU. */
const SIOCSIFMTU = 0x8922n;
/** Sets the MAC address. */
const SIOCSIFHWADDR = 0x8924n;
/** Asks for the MAC address. */
const SIOCGIFHWADDR = 0x8927n;

/** Ethernet frames, not IP packets. */
export const IFF_TAP = 0x0002;
/** Several queues. */
const IFF_MULTI_QUEUE = 0x0100;
/** To TUNSETQUEUE: frames may arrive on this queue. */
export const IFF_ATTACH_QUEUE = 0x0200;
/** To TUNSETQUEUE: no frames arrive on this queue. */
export const IFF_DETACH_QUEUE = 0x0400;
/** No four bytes of packet information in front. */
export const IFF_NO_PI = 0x1000;
/** A virtio-net header in front. */
export const IFF_VNET_HDR = 0x4000;
/** An interface flag: it is up. */
const IFF_UP = 1;

/** We take frames whose checksum is partial. */
export const TUN_F_CSUM = 0x01;
/** We take large TCP frames over IPv4. */
export const TUN_F_TSO4 = 0x02;
/** We take large TCP frames over IPv6. */
export const TUN_F_TSO6 = 0x04;
/** We take large TCP frames with ECN. */
export const TUN_F_TSO_ECN = 0x08;
/** We take large UDP frames over IPv4; from Linux 6.2 on, and only with the next. */
export const TUN_F_USO4 = 0x20;
/** We take large UDP frames over IPv6. */
export const TUN_F_USO6 = 0x40;

/** Kind of a MAC address in a sockaddr. */
const ARPHRD_ETHER = 1;
const NAME_BYTES = 16;

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const USUAL_MTU = 1500;
const LONG_HEADER_BYTES = 12;
const LEGACY_HEADER_BYTES = 10;

/** Opening the file from which queues are made. */
export const TUN_FILE: Readonly<Record<string, string>> = {
  ENOENT:
    'load the kernel module ("modprobe tun"); in a container, pass the device in ("--device /dev/net/tun")',
  ENODEV: 'load the kernel module ("modprobe tun")',
  ENXIO: 'load the kernel module ("modprobe tun")',
  EACCES: "run as root, or give this user access to the file",
  EPERM: "in a container, allow the device (cgroup rule for character device 10:200)",
};

/** Making or changing an interface. */
const HOST_RIGHTS: Readonly<Record<string, string>> = {
  EPERM: "this needs CAP_NET_ADMIN: run as root, or prepare the interface for this user " +
    '("ip tuntap add dev NAME mode tap user USER vnet_hdr", "ip link set NAME up")',
};

/** Attaching another queue. */
const IN_USE: Readonly<Record<string, string>> = {
  EBUSY: "another program uses it: stop that program, or use another interface",
  E2BIG: "it has as many queues as it can have; use fewer queue pairs",
};

/** There is an interface of this name, but not one that can be attached to in this way. */
const NOT_A_TAP = {
  /** With one queue. */
  single:
    'there is one of this name which is no TAP, or one with several queues: write "multiQueue": true for those',
  /** With several queues. */
  several:
    'there is one of this name which is no TAP, or one with a single queue: make it with multi_queue, or write "multiQueue": false',
} as const;

/** A TAP, open. */
export interface OpenTap {
  /** The interface's name. */
  readonly name: string;
  /** Its queues, owned by the receiver of this. */
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
 * @param options what is wanted; @param queuePairs of the device; @param path where it stands in the
 * configuration
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
    const result = libc().ioctlValue(queues[0].number, TUNSETPERSIST, 1n);
    checked(result, `keep interface ${name} (${path})`, HOST_RIGHTS);
  }
  opened.move();
  return { name, queues, headerBytes, mtu, largeUdp };
}

function openTun(path: string): FileDescriptor {
  const flags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
  return FileDescriptor.open(cString(TUN_PATH), flags, `open ${TUN_PATH} (${path})`, TUN_FILE);
}

/** Attaches a queue to the interface and returns its name. */
function attach(
  queue: FileDescriptor,
  name: string,
  options: TapOptions,
  several: boolean,
  path: string,
): string {
  const request = new InterfaceRequest(name);
  request.flags = IFF_TAP | IFF_NO_PI | (options.vnetHeader ? IFF_VNET_HDR : 0) |
    (several ? IFF_MULTI_QUEUE : 0);
  checked(
    libc().ioctl(queue.number, TUNSETIFF, request.bytes),
    `use interface ${name} as a TAP (${path})`,
    { ...HOST_RIGHTS, ...IN_USE, EINVAL: several ? NOT_A_TAP.several : NOT_A_TAP.single },
  );
  return request.name;
}

/**
 * Throws HostError unless this is a TAP queue as wanted, of the interface `before` if there was one; returns
 * its name.
 */
function judgePassed(number: number, options: TapOptions, before: string, path: string): string {
  const request = new InterfaceRequest();
  const attempt = `use file descriptor ${number} as a TAP (${path})`;
  checked(libc().ioctl(number, TUNGETIFF, request.bytes), attempt, {
    EBADF: "it is not open: have it passed by the program that starts this one, and not closed on exec",
    else:
      `it is none; open ${TUN_PATH} (or /dev/tapN for a macvtap) and attach it by TUNSETIFF before passing it`,
  });
  const { flags, name } = request;
  const refuse = (why: string) => new HostError(`Cannot ${attempt}: ${why}`);
  if ((flags & IFF_TAP) === 0) throw refuse("it carries IP packets (TUN); attach it with IFF_TAP");
  // The kernel sets this bit for another reason as well (no filter is attached): that it is set proves
  // nothing.
  if ((flags & IFF_NO_PI) === 0) throw refuse("it carries packet information; attach it with IFF_NO_PI");
  const hasHeader = (flags & IFF_VNET_HDR) !== 0;
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
  const long = queues.every(({ number }) => c.ioctl(number, TUNSETVNETHDRSZ, sizeBytes) === 0);
  if (!long) {
    size[0] = LEGACY_HEADER_BYTES;
    const attempt = `set the header size of ${name} (${path})`;
    for (const { number } of queues) checked(c.ioctl(number, TUNSETVNETHDRSZ, sizeBytes), attempt);
  }
  // Old kernels do not know this; their headers are in the byte order of the host, which is little-endian as
  // well.
  const little = new Uint8Array(new Int32Array([1]).buffer);
  for (const { number } of queues) c.ioctl(number, TUNSETVNETLE, little);
  return long ? LONG_HEADER_BYTES : LEGACY_HEADER_BYTES;
}

/** May a write to this queue have to wait for others that are on their way? */
export function hasSendLimit(queue: FileDescriptor): boolean {
  const limit = new Int32Array(1);
  const failed = libc().ioctl(queue.number, TUNGETSNDBUF, new Uint8Array(limit.buffer)) !== 0;
  return failed || limit[0] !== NO_SEND_LIMIT;
}

/**
 * Asks for everything, and takes it back: there is no guest yet, and a program that used the interface before
 * may have left it so.
 */
function knowsLargeUdp(queues: readonly FileDescriptor[]): boolean {
  const c = libc();
  const all = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6;
  const known = queues.every(({ number }) => c.ioctlValue(number, TUNSETOFFLOAD, BigInt(all)) === 0);
  for (const { number } of queues) c.ioctlValue(number, TUNSETOFFLOAD, 0n);
  return known;
}

function setSendBuffer(queue: FileDescriptor, bytes: number | undefined, name: string, path: string): void {
  if (bytes === undefined) return;
  const size = new Uint8Array(new Int32Array([bytes]).buffer);
  checked(libc().ioctl(queue.number, TUNSETSNDBUF, size), `set the send buffer of ${name} (${path})`);
}

/** Sets what is wanted of the interface, and returns its MTU. */
function configure(name: string, options: TapOptions, path: string): number {
  const c = libc();
  using socket = new FileDescriptor(checked(c.socket(AF_UNIX, SOCK_DGRAM | O_CLOEXEC, 0), "make a socket"));
  const request = new InterfaceRequest(name);
  const call = (code: bigint, what: string) => {
    if (c.ioctl(socket.number, code, request.bytes) === 0) return;
    throw new SystemCallError(`${what} interface ${name} (${path})`, errno(), {
      ...HOST_RIGHTS,
      EINVAL: "the value is not one that this interface takes",
    });
  };
  if (options.mac !== undefined) {
    call(SIOCGIFHWADDR, "ask for the MAC address of");
    if (!request.mac.every((byte, i) => byte === options.mac![i])) {
      request.mac = options.mac;
      call(SIOCSIFHWADDR, "set the MAC address of");
    }
  }
  call(SIOCGIFMTU, "ask for the MTU of");
  const mtu = options.mtu ?? request.value;
  if (mtu !== request.value) {
    request.value = mtu;
    call(SIOCSIFMTU, `set the MTU ${mtu} of`);
  }
  call(SIOCGIFFLAGS, "ask for the flags of");
  if (options.up && (request.flags & IFF_UP) === 0) {
    request.flags |= IFF_UP;
    call(SIOCSIFFLAGS, "set up");
  }
  return mtu;
}

/** A struct ifreq: the name of an interface and one fact about it. */
export class InterfaceRequest {
  /** The bytes, for the system call. */
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(40);
  readonly #view = new DataView(this.bytes.buffer);

  /** For an interface of this name, 1 to 15 bytes. */
  constructor(name = "") {
    this.bytes.set(new TextEncoder().encode(name).subarray(0, NAME_BYTES - 1));
  }

  /** The name, which the kernel may have filled in. */
  get name(): string {
    const end = this.bytes.indexOf(0);
    return new TextDecoder().decode(this.bytes.subarray(0, end < 0 ? NAME_BYTES : Math.min(end, NAME_BYTES)));
  }

  /** The flags, 16 bits. */
  get flags(): number {
    return this.#view.getUint16(NAME_BYTES, true);
  }

  set flags(flags: number) {
    this.#view.setUint16(NAME_BYTES, flags, true);
  }

  /** A number, as the MTU. */
  get value(): number {
    return this.#view.getInt32(NAME_BYTES, true);
  }

  set value(value: number) {
    this.#view.setInt32(NAME_BYTES, value, true);
  }

  /** The MAC address, six bytes. */
  get mac(): Uint8Array {
    return this.bytes.slice(NAME_BYTES + 2, NAME_BYTES + 8);
  }

  set mac(mac: Uint8Array) {
    this.#view.setUint16(NAME_BYTES, ARPHRD_ETHER, true);
    this.bytes.set(mac, NAME_BYTES + 2);
  }
}
