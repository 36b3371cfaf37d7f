/**
 * What the kernel's tun driver and network interfaces are told by `ioctl`: numbers from linux/if_tun.h, linux/if.h and
 * linux/sockios.h.
 * @module
 */

/** The file from which TAP queues are made. */
export const TUN_PATH = "/dev/net/tun";

/** Attaches a queue to an interface, which is made if there is none of that name; takes and fills in an ifreq. */
export const TUNSETIFF = 0x4004_54can;
/** Lets the interface outlive its queues. */
export const TUNSETPERSIST = 0x4004_54cbn;
/** Says which unfinished frames may be read. */
export const TUNSETOFFLOAD = 0x4004_54d0n;
/** Asks for name and flags. */
export const TUNGETIFF = 0x8004_54d2n;
/** Sets how many bytes may be on their way before a write has to wait. */
export const TUNSETSNDBUF = 0x4004_54d4n;
/** Detaches a queue from its interface for the time being, or attaches it again; takes an ifreq with one flag. */
export const TUNSETQUEUE = 0x4004_54d9n;
/** Asks for the size of the virtio-net header. */
export const TUNGETVNETHDRSZ = 0x8004_54d7n;
/** Sets the size of the virtio-net header. */
export const TUNSETVNETHDRSZ = 0x4004_54d8n;
/** Makes the virtio-net header little-endian. */
export const TUNSETVNETLE = 0x4004_54dcn;
/** Asks for the flags of an interface. */
export const SIOCGIFFLAGS = 0x8913n;
/** Sets the flags of an interface. */
export const SIOCSIFFLAGS = 0x8914n;
/** Asks for the MTU. */
export const SIOCGIFMTU = 0x8921n;
/** Sets the MTU. */
export const SIOCSIFMTU = 0x8922n;
/** Sets the MAC address. */
export const SIOCSIFHWADDR = 0x8924n;
/** Asks for the MAC address. */
export const SIOCGIFHWADDR = 0x8927n;

/** Ethernet frames, not IP packets. */
export const IFF_TAP = 0x0002;
/** Several queues. */
export const IFF_MULTI_QUEUE = 0x0100;
/** To TUNSETQUEUE: frames may arrive on this queue. */
export const IFF_ATTACH_QUEUE = 0x0200;
/** To TUNSETQUEUE: no frames arrive on this queue. */
export const IFF_DETACH_QUEUE = 0x0400;
/** It outlives its queues. */
export const IFF_PERSIST = 0x0800;
/** No four bytes of packet information in front. */
export const IFF_NO_PI = 0x1000;
/** A virtio-net header in front. */
export const IFF_VNET_HDR = 0x4000;
/** An interface flag: it is up. */
export const IFF_UP = 1;

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
