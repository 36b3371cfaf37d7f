/**
 * Link types, and Ethernet frames from packets that have no Ethernet header: cooked captures, loopback, raw
 * IP.
 *
 * A packet gets a header of its own in place of the one it had. Where the capture tells no address, one is
 * made up, locally administered: 02:00:00:00:00:01 is the host that captured, unless the reader is told
 * another (`hostMac`), and 02:00:00:00:00:02 everything beyond it. Raw IP and loopback captures do not tell
 * directions either: there a station has an address made of its IP address, 02:00 and IPv4, or 02:06 and the
 * last four bytes of IPv6. So it has where the Ethernet header of an IP packet holds no address at all, as on
 * the loopback interface of Linux: no device can have the address 0.
 * @module
 */
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from "../../wire/ethernet.ts";
import { type CapturedPacket, DIRECTION_INBOUND, DIRECTION_OUTBOUND } from "./captured_packet.ts";

/** The link type of Ethernet, in pcap and pcapng. */
export const LINKTYPE_ETHERNET = 1;
/** Stands for the link type of an interface that does not tell one. */
export const NO_LINK_TYPE = -1;
/** BSD loopback: the address family in the byte order of the host. */
const LINKTYPE_NULL = 0;
/** Raw IP, as some systems number it. */
const LINKTYPE_RAW_BSD = 12;
/** Raw IP, as OpenBSD numbers it. */
const LINKTYPE_RAW_OPENBSD = 14;
/** Raw IP. */
const LINKTYPE_RAW = 101;
/** OpenBSD loopback: the address family in network order. */
const LINKTYPE_LOOP = 108;
/** Linux cooked capture. */
const LINKTYPE_LINUX_SLL = 113;
/** Raw IPv4. */
const LINKTYPE_IPV4 = 228;
/** Raw IPv6. */
const LINKTYPE_IPV6 = 229;
/** Linux cooked capture, version 2. */
const LINKTYPE_LINUX_SLL2 = 276;

/** The address of the host that captured, where the capture does not tell it. */
export const DEFAULT_HOST_MAC: Uint8Array = Uint8Array.of(2, 0, 0, 0, 0, 1);
const FAR_MAC = Uint8Array.of(2, 0, 0, 0, 0, 2);
const OTHER_HOST_MAC = Uint8Array.of(2, 0, 0, 0, 0, 3);
const BROADCAST_MAC = new Uint8Array(6).fill(255);
const IPV4_MULTICAST_MAC = Uint8Array.of(1, 0, 0x5e, 0, 0, 1);
const IPV6_MULTICAST_MAC = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
/** Addresses in the making, refilled for each packet. */
const madeTarget = new Uint8Array(6);
const madeSource = new Uint8Array(6);

/** Type of a cooked packet: to this host, broadcast, multicast, to another host, from this host. */
const SLL_BROADCAST = 1;
const SLL_MULTICAST = 2;
const SLL_OTHER_HOST = 3;
const SLL_OUTGOING = 4;
/** ARPHRD of Netlink and of 802.11 in its forms: there the protocol field means something else. */
const NO_ETHERTYPE = new Set([801, 802, 803, 824]);

const LINK_TYPE_NAMES: Readonly<Record<number, string>> = {
  0: "BSD loopback",
  1: "Ethernet",
  6: "Token Ring",
  9: "PPP",
  10: "FDDI",
  12: "raw IP",
  14: "raw IP",
  101: "raw IP",
  105: "IEEE 802.11",
  108: "OpenBSD loopback",
  113: "Linux cooked capture",
  127: "IEEE 802.11 with radiotap header",
  147: "user 0",
  228: "raw IPv4",
  229: "raw IPv6",
  239: "Linux netfilter log",
  249: "USB with USBPcap header",
  252: "Wireshark upper PDU",
  253: "Linux netlink",
  274: "Ethernet MPacket",
  276: "Linux cooked capture v2",
};

/** A link type in words, with its number. */
export function linkTypeName(linkType: number): string {
  if (linkType === NO_LINK_TYPE) return "unknown (the interface does not tell it)";
  const name = LINK_TYPE_NAMES[linkType];
  return name === undefined ? String(linkType) : `${linkType} (${name})`;
}

/** Can packets of this link type become Ethernet frames? */
export function isReadableLinkType(linkType: number): boolean {
  switch (linkType) {
    case LINKTYPE_ETHERNET:
    case LINKTYPE_NULL:
    case LINKTYPE_RAW_BSD:
    case LINKTYPE_RAW_OPENBSD:
    case LINKTYPE_RAW:
    case LINKTYPE_LOOP:
    case LINKTYPE_LINUX_SLL:
    case LINKTYPE_IPV4:
    case LINKTYPE_IPV6:
    case LINKTYPE_LINUX_SLL2:
      return true;
    default:
      return false;
  }
}

/**
 * Makes an Ethernet frame of a packet, in place: there must be room for 14 bytes in front of it. False if it
 * has none to be made of.
 * @param hostMac the address of the host that captured
 */
export function toEthernet(packet: CapturedPacket, linkType: number, hostMac: Uint8Array): boolean {
  const { bytes, at, length } = packet;
  switch (linkType) {
    case LINKTYPE_ETHERNET:
      if (bytes[at] === 0 && isAddressless(packet)) fromIp(packet, ETHERNET_HEADER_BYTES);
      return true;
    case LINKTYPE_LINUX_SLL:
      if (length < 16) return false;
      return fromCooked(packet, 16, be16(bytes, at), be16(bytes, at + 2), 14, 4, hostMac);
    case LINKTYPE_LINUX_SLL2:
      if (length < 20) return false;
      return fromCooked(packet, 20, bytes[at + 10], be16(bytes, at + 8), 0, 11, hostMac);
    case LINKTYPE_NULL:
    case LINKTYPE_LOOP:
      // The family is below 256 in one of the byte orders; which of the numbers for IPv6 it is depends on the
      // system.
      return length >= 5 && isIpFamily(be16(bytes, at) | be16(bytes, at + 2)) && fromIp(packet, 4);
    case LINKTYPE_IPV4:
    case LINKTYPE_IPV6:
    case LINKTYPE_RAW_BSD:
    case LINKTYPE_RAW_OPENBSD:
    case LINKTYPE_RAW:
      return fromIp(packet, 0);
    default:
      return false;
  }
}

/**
 * Offsets of the fields that the two versions have in different places: the protocol, and the length of the
 * address.
 */
function fromCooked(
  packet: CapturedPacket,
  headerBytes: number,
  packetType: number,
  hardware: number,
  protocolAt: number,
  addressLengthAt: number,
  hostMac: Uint8Array,
): boolean {
  if (packetType > SLL_OUTGOING || NO_ETHERTYPE.has(hardware)) return false;
  const { bytes, at } = packet;
  const protocol = be16(bytes, at + protocolAt);
  const addressBytes = headerBytes === 16 ? be16(bytes, at + addressLengthAt) : bytes[at + addressLengthAt];
  const addressAt = at + addressLengthAt + (headerBytes === 16 ? 2 : 1);
  const outgoing = packetType === SLL_OUTGOING;
  let sum = 0;
  for (let i = 0; i < 6; i++) sum += bytes[addressAt + i];
  const source = outgoing
    ? hostMac
    : addressBytes === 6 && sum > 0
    ? copied(madeSource, bytes, addressAt, 0, 6)
    : FAR_MAC;
  const target = outgoing ? FAR_MAC : cookedTarget(packetType, protocol, hostMac);
  packet.direction = outgoing ? DIRECTION_OUTBOUND : DIRECTION_INBOUND;
  const payloadBytes = packet.length - headerBytes;
  // Below 0x600 it is no EtherType: frames of IEEE 802.2 and of Novell have their length there.
  putHeader(packet, headerBytes, target, source, protocol < 0x600 ? payloadBytes & 0x5ff : protocol);
  return true;
}

function cookedTarget(packetType: number, protocol: number, hostMac: Uint8Array): Uint8Array {
  switch (packetType) {
    case SLL_BROADCAST:
      return BROADCAST_MAC;
    case SLL_MULTICAST:
      return protocol === ETHERTYPE_IPV6 ? IPV6_MULTICAST_MAC : IPV4_MULTICAST_MAC;
    case SLL_OTHER_HOST:
      return OTHER_HOST_MAC;
    default:
      return hostMac;
  }
}

/** Is it an IP packet behind an Ethernet header whose addresses are both 0? */
function isAddressless({ bytes, at, length }: CapturedPacket): boolean {
  if (length < ETHERNET_HEADER_BYTES) return false;
  for (let i = 0; i < 12; i++) if (bytes[at + i] !== 0) return false;
  const type = be16(bytes, at + 12);
  return type === ETHERTYPE_IPV4 || type === ETHERTYPE_IPV6;
}

function isIpFamily(family: number): boolean {
  const value = family > 0xff ? family >>> 8 : family;
  return value === 2 || value === 10 || value === 23 || value === 24 || value === 28 || value === 30;
}

function fromIp(packet: CapturedPacket, headerBytes: number): boolean {
  const { bytes, length } = packet;
  const ip = packet.at + headerBytes;
  if (length <= headerBytes) return false;
  const version = bytes[ip] >>> 4;
  if (version === 4 && length >= headerBytes + 20) {
    const source = stationMac(madeSource, 0, bytes, ip + 12);
    putHeader(packet, headerBytes, ipv4Target(bytes, ip + 16), source, ETHERTYPE_IPV4);
    return true;
  }
  if (version === 6 && length >= headerBytes + 40) {
    const source = stationMac(madeSource, 6, bytes, ip + 20);
    const target = stationMac(madeTarget, 6, bytes, ip + 36);
    if (bytes[ip + 24] === 0xff) target[0] = target[1] = 0x33;
    putHeader(packet, headerBytes, target, source, ETHERTYPE_IPV6);
    return true;
  }
  return false;
}

function ipv4Target(bytes: Uint8Array, at: number): Uint8Array {
  if ((bytes[at] & bytes[at + 1] & bytes[at + 2] & bytes[at + 3]) === 0xff) return BROADCAST_MAC;
  const target = stationMac(madeTarget, 0, bytes, at);
  if (bytes[at] >>> 4 === 14) {
    target[0] = 1;
    target[2] = 0x5e;
    target[3] &= 0x7f;
  }
  return target;
}

/** The address 02, `second`, and the four bytes at `at`. */
function stationMac(into: Uint8Array, second: number, bytes: Uint8Array, at: number): Uint8Array {
  into[0] = 2;
  into[1] = second;
  return copied(into, bytes, at, 2, 4);
}

function copied(into: Uint8Array, bytes: Uint8Array, at: number, to: number, length: number): Uint8Array {
  for (let i = 0; i < length; i++) into[to + i] = bytes[at + i];
  return into;
}

/** Puts an Ethernet header in place of the `headerBytes` with which the packet begins. */
function putHeader(
  packet: CapturedPacket,
  headerBytes: number,
  target: Uint8Array,
  source: Uint8Array,
  type: number,
): void {
  const { bytes } = packet;
  packet.at += headerBytes - ETHERNET_HEADER_BYTES;
  packet.length += ETHERNET_HEADER_BYTES - headerBytes;
  packet.originalLength += ETHERNET_HEADER_BYTES - headerBytes;
  bytes.set(target, packet.at);
  bytes.set(source, packet.at + 6);
  bytes[packet.at + 12] = type >>> 8;
  bytes[packet.at + 13] = type & 0xff;
}

function be16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}
