/**
 * The one locator of headers: where those of an Ethernet frame of any form are, for all that look behind
 * VLAN tags, IPv4 options and IPv6 extension headers.
 *
 * Looks behind any number of VLAN tags (802.1Q, 802.1ad), LLC/SNAP, PPPoE sessions and MPLS labels, then
 * behind IPv4 options or up to 8 IPv6 extension headers. Nothing in a frame makes it throw or read outside
 * the frame, and the work is bounded by the length of the frame. It does not verify checksums. It does not
 * look inside tunnels (GRE, IP in IP, VXLAN): their packets are those of another network.
 *
 * @module
 */
import {
  ETHERNET_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_SERVICE_VLAN,
  isVlanTag,
  VLAN_TAG_BYTES,
} from "./ethernet.ts";
import {
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MF_OR_OFFSET,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  isExtensionHeader,
  PROTOCOL_AH,
  PROTOCOL_ESP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "./tcp_ip.ts";

const ETHERTYPE_MPLS = 0x8847;
const ETHERTYPE_MPLS_MULTICAST = 0x8848;
const ETHERTYPE_PPPOE_SESSION = 0x8864;
/** The tag type of stacked VLANs before 802.1ad. */
const ETHERTYPE_OLD_STACKED_VLAN = 0x9100;
/** Types below are lengths of 802.3 frames, with an LLC header behind. */
const MIN_ETHERTYPE = 0x0600;
const LLC_SNAP_BYTES = 8;
const PPPOE_BYTES = 6;
const MPLS_LABEL_BYTES = 4;
const PPP_IPV4 = 0x21;
const PPP_IPV6 = 0x57;

const EXTENSION_ROUTING = 43;
const EXTENSION_FRAGMENT = 44;
const EXTENSION_DESTINATION = 60;
const OPTION_HOME_ADDRESS = 0xc9;
/** No honest packet chains more extension headers; an endless chain must not cost time. */
const MAX_EXTENSION_HEADERS = 8;
const IPV4_OPTION_LOOSE_ROUTE = 131;
const IPV4_OPTION_STRICT_ROUTE = 137;
const PORTS_BYTES = 4;
/** One tag in `vlan`: 12 bits of id and one for the type. */
const VLAN_BITS = 13;
const SERVICE_VLAN = 0x1000;

/** Finds the headers of frames. One object, refilled for each frame; all places are offsets in the bytes. */
export class HeaderLocator {
  /**
   * Where the EtherType of the payload is, behind all VLAN tags and LLC/SNAP; -1 if the frame ends before it.
   */
  etherTypeAt: number = -1;
  /** VLAN tags in front of it, those with id 0 included. */
  vlanTags = 0;
  /**
   * Which VLAN the frame is of: 0 for the untagged network, of which a tag with id 0 (a priority tag) is as
   * well. Else 13 bits for each of one or two tags with another id, the outer one above: the id, and 0x1000
   * for a service tag. -1 if there are more than two.
   */
  vlan = 0;
  /** Is the payload in LLC/SNAP, PPPoE or MPLS, or behind a tag of type 0x9100? */
  isEncapsulated = false;
  /**
   * IP version, 4 or 6; 0 if the frame is neither or ends in the IP header, and then nothing below has a
   * meaning.
   */
  version = 0;
  /** First byte of the IP header. */
  ipAt = 0;
  /**
   * Behind the last byte of the IP packet as its length tells; the end of the frame if that is 0. Maybe
   * behind the frame.
   */
  packetEnd = 0;
  /** Where the IP header's own source address is, the destination address right behind. */
  addressesAt = 0;
  /**
   * Where the source address of the pseudo header is: the home address of a mobile host, if there is one (RFC
   * 6275).
   */
  sourceAt = 0;
  /**
   * Where the destination address of the pseudo header is: the last one of a source route that is not at its
   * end yet.
   */
  destinationAt = 0;
  /** Is it a fragment of a packet, the first one included? */
  isFragment = false;
  /**
   * The protocol behind all extension headers. If it is an extension header itself (`isExtensionHeader`), the
   * transport header cannot be found: a fragment, ESP, too many headers, or the end of the frame.
   */
  protocol = 0;
  /**
   * First byte of the transport header; -1 for a fragment, or if it is not in the frame or behind the end of
   * the packet.
   */
  transportAt: number = -1;
  /** Where the two TCP or UDP ports are; -1 if there are none to be seen. */
  portsAt: number = -1;

  /** Looks at the frame of `length` bytes from `start` on. */
  locate(bytes: Uint8Array, start: number, length: number): void {
    const end = start + length;
    this.etherTypeAt = -1;
    this.vlanTags = 0;
    this.vlan = 0;
    this.isEncapsulated = false;
    this.version = 0;
    this.isFragment = false;
    this.transportAt = -1;
    this.portsAt = -1;
    let at = start + ETHERNET_TYPE;
    if (at + 2 > end) return;
    let type = be16(bytes, at);
    if (type !== ETHERTYPE_IPV4 && type !== ETHERTYPE_IPV6) {
      at = this.#skipTags(bytes, at, end);
      if (at < 0) return;
      type = be16(bytes, at);
    }
    this.etherTypeAt = at;
    if (type === ETHERTYPE_IPV4) this.#locateIpv4(bytes, at + 2, end);
    else if (type === ETHERTYPE_IPV6) this.#locateIpv6(bytes, at + 2, end);
    else if (type === ETHERTYPE_PPPOE_SESSION) this.#locatePpp(bytes, at + 2 + PPPOE_BYTES, end);
    else if (type === ETHERTYPE_MPLS || type === ETHERTYPE_MPLS_MULTICAST) {
      this.#locateMpls(bytes, at + 2, end);
    }
  }

  /** Bytes of an address of this version. */
  get addressBytes(): number {
    return this.version === 4 ? 4 : 16;
  }

  /** Where the type behind tags and LLC/SNAP is; -1 if the frame ends before it. */
  #skipTags(bytes: Uint8Array, from: number, end: number): number {
    let ids = 0;
    let at = from;
    for (;;) {
      if (at + 2 > end) return -1;
      const type = be16(bytes, at);
      if (isVlanTag(type)) {
        this.vlanTags++;
        const id = at + VLAN_TAG_BYTES > end ? 0 : be16(bytes, at + 2) & 0xfff;
        if (id !== 0) {
          const tag = type === ETHERTYPE_SERVICE_VLAN ? SERVICE_VLAN | id : id;
          this.vlan = ++ids > 2 ? -1 : this.vlan << VLAN_BITS | tag;
        }
        at += VLAN_TAG_BYTES;
      } else if (type === ETHERTYPE_OLD_STACKED_VLAN) {
        this.isEncapsulated = true;
        at += VLAN_TAG_BYTES;
      } else if (type < MIN_ETHERTYPE && isSnap(bytes, at + 2, end)) {
        this.isEncapsulated = true;
        at += LLC_SNAP_BYTES;
      } else return at;
    }
  }

  /** The protocol may be compressed to one byte (RFC 1661, section 6.5). */
  #locatePpp(bytes: Uint8Array, at: number, end: number): void {
    this.isEncapsulated = true;
    if (at + 2 > end) return;
    const payload = bytes[at] === 0 ? at + 2 : at + 1;
    const protocol = bytes[payload - 1];
    if (protocol === PPP_IPV4) this.#locateIpv4(bytes, payload, end);
    else if (protocol === PPP_IPV6) this.#locateIpv6(bytes, payload, end);
  }

  /** The last label does not tell what follows; an IP header begins with its version. */
  #locateMpls(bytes: Uint8Array, from: number, end: number): void {
    this.isEncapsulated = true;
    let at = from;
    while (at + MPLS_LABEL_BYTES < end) {
      const isLast = (bytes[at + 2] & 1) === 1;
      at += MPLS_LABEL_BYTES;
      if (!isLast) continue;
      if (bytes[at] >>> 4 === 4) this.#locateIpv4(bytes, at, end);
      else this.#locateIpv6(bytes, at, end);
      return;
    }
  }

  #locateIpv4(bytes: Uint8Array, at: number, end: number): void {
    if (end - at < IPV4_HEADER_BYTES || bytes[at] >>> 4 !== 4) return;
    const headerBytes = (bytes[at] & 15) << 2;
    if (headerBytes < IPV4_HEADER_BYTES) return;
    this.version = 4;
    this.ipAt = at;
    this.#setAddresses(at + IPV4_SOURCE, 4);
    this.packetEnd = at + be16(bytes, at + IPV4_TOTAL_LENGTH);
    if (this.packetEnd === at) this.packetEnd = end;
    if (headerBytes > IPV4_HEADER_BYTES) this.#readRoute(bytes, at, Math.min(at + headerBytes, end));
    this.protocol = bytes[at + IPV4_PROTOCOL];
    this.isFragment = (be16(bytes, at + IPV4_FRAGMENT) & IPV4_MF_OR_OFFSET) !== 0;
    if (!this.isFragment) this.#locateTransport(at + headerBytes, end);
  }

  /**
   * A source route ends at its last address, which the sender has put into the pseudo header (RFC 1122,
   * section 4.2.3.8).
   */
  #readRoute(bytes: Uint8Array, ip: number, end: number): void {
    for (let at = ip + IPV4_HEADER_BYTES; at + 2 < end && bytes[at] !== 0;) {
      const option = bytes[at];
      if (option === 1) {
        at++;
        continue;
      }
      const length = bytes[at + 1];
      if (length < 2 || at + length > end) return;
      const isRoute = option === IPV4_OPTION_LOOSE_ROUTE || option === IPV4_OPTION_STRICT_ROUTE;
      if (isRoute && length >= 7 && bytes[at + 2] <= length) this.destinationAt = at + length - 4;
      at += length;
    }
  }

  #locateIpv6(bytes: Uint8Array, at: number, end: number): void {
    if (end - at < IPV6_HEADER_BYTES || bytes[at] >>> 4 !== 6) return;
    this.version = 6;
    this.ipAt = at;
    this.#setAddresses(at + IPV6_SOURCE, 16);
    const payloadBytes = be16(bytes, at + IPV6_PAYLOAD_LENGTH);
    // A jumbogram says 0 here (RFC 2675); it ends with the frame.
    this.packetEnd = payloadBytes === 0 ? end : at + IPV6_HEADER_BYTES + payloadBytes;
    let protocol = bytes[at + IPV6_NEXT_HEADER];
    let header = at + IPV6_HEADER_BYTES;
    for (let count = 0; isExtensionHeader(protocol); count++) {
      this.protocol = protocol;
      if (count === MAX_EXTENSION_HEADERS || protocol === PROTOCOL_ESP || header + 8 > end) return;
      const next = bytes[header];
      const units = bytes[header + 1];
      if (protocol === EXTENSION_FRAGMENT) {
        // A packet in one fragment is no fragment (RFC 8200, section 4.5).
        this.isFragment = (be16(bytes, header + 2) & 0xfff9) !== 0;
        if (this.isFragment) return;
        header += 8;
      } else if (protocol === PROTOCOL_AH) header += units + 2 << 2;
      else {
        const behind = header + (units + 1 << 3);
        if (protocol === EXTENSION_ROUTING) this.#readRoutingHeader(bytes, header, Math.min(behind, end));
        else if (protocol === EXTENSION_DESTINATION) {
          this.#readOptions(bytes, header + 2, Math.min(behind, end));
        }
        header = behind;
      }
      protocol = next;
    }
    this.protocol = protocol;
    this.#locateTransport(header, end);
  }

  /**
   * The pseudo header has the last address of the route (RFC 8200, section 8.1); a segment list begins with
   * it (RFC 8754).
   */
  #readRoutingHeader(bytes: Uint8Array, at: number, end: number): void {
    const type = bytes[at + 2];
    if (bytes[at + 3] === 0 || end - at < 24) return;
    if (type === 4) this.destinationAt = at + 8;
    else if (type === 0 || type === 2) this.destinationAt = at + 8 + ((end - at - 8 & ~15) - 16);
  }

  #readOptions(bytes: Uint8Array, from: number, end: number): void {
    for (let at = from; at + 2 <= end;) {
      if (bytes[at] === 0) {
        at++;
        continue;
      }
      const length = bytes[at + 1];
      if (bytes[at] === OPTION_HOME_ADDRESS && length === 16 && at + 18 <= end) this.sourceAt = at + 2;
      at += 2 + length;
    }
  }

  #setAddresses(at: number, bytes: number): void {
    this.addressesAt = at;
    this.sourceAt = at;
    this.destinationAt = at + bytes;
  }

  /**
   * The transport header counts only inside the frame and inside the packet: what lies behind its end is
   * padding.
   */
  #locateTransport(at: number, end: number): void {
    if (at > end || at > this.packetEnd) return;
    this.transportAt = at;
    if (this.protocol !== PROTOCOL_TCP && this.protocol !== PROTOCOL_UDP) return;
    if (at + PORTS_BYTES <= end && at + PORTS_BYTES <= this.packetEnd) this.portsAt = at;
  }
}

function isSnap(bytes: Uint8Array, at: number, end: number): boolean {
  return at + LLC_SNAP_BYTES <= end && bytes[at] === 0xaa && bytes[at + 1] === 0xaa && bytes[at + 2] === 3 &&
    bytes[at + 3] === 0 && bytes[at + 4] === 0 && (bytes[at + 5] === 0 || bytes[at + 5] === 0xf8);
}

function be16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}
