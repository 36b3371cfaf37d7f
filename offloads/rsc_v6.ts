/**
 * `rsc-v6`: receive segment coalescing of TCP over IPv6.
 * @module
 */
import type { Frame } from "../pipeline/frame.ts";
import type { OffloadPlugin } from "../pipeline/plugin.ts";
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV6 } from "../wire/ethernet.ts";
import { VIRTIO_NET_F_GUEST_TSO6 } from "../wire/net_features.ts";
import {
  IPV6_FLOW,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  isExtensionHeader,
  PROTOCOL_TCP,
  TCP_HEADER_BYTES,
  TCP_PORTS,
} from "../wire/tcp_ip.ts";
import { VIRTIO_NET_HDR_GSO_TCPV6 } from "../wire/virtio_net_header.ts";
import type { RscOptions } from "./rsc_chain/chain.ts";
import { defineRsc } from "./rsc_chain/plugin.ts";
import {
  type CoalescedSegment,
  endOf,
  type Located,
  type ParsedSegment,
  type QemuLocated,
  readSegment,
  readTcp,
  type RscFamily,
} from "./rsc_chain/segments.ts";

const HEADERS_BYTES = ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + TCP_HEADER_BYTES;
const ADDRESS_WORDS = 8;
/** The bits of the second header byte that the reference takes for ECN; they are the low bits of DSCP. */
const QEMU_ECN_MASK = 0xc0;

function fillAddresses(
  view: DataView,
  segment: ParsedSegment,
  sourceAt: number,
  destinationAt: number,
): void {
  const { key } = segment;
  key[0] = view.getInt32(sourceAt, true);
  key[1] = view.getInt32(sourceAt + 4, true);
  key[2] = view.getInt32(sourceAt + 8, true);
  key[3] = view.getInt32(sourceAt + 12, true);
  key[4] = view.getInt32(destinationAt, true);
  key[5] = view.getInt32(destinationAt + 4, true);
  key[6] = view.getInt32(destinationAt + 8, true);
  key[7] = view.getInt32(destinationAt + 12, true);
}

function fillKey(view: DataView, segment: ParsedSegment): void {
  const at = segment.ipAt + IPV6_SOURCE;
  fillAddresses(view, segment, at, at + 16);
  segment.key[ADDRESS_WORDS] = view.getInt32(segment.tcpAt + TCP_PORTS, true);
}

/** IPv6, as the chains see it. */
export const ipv6Family: RscFamily = {
  name: "v6",
  version: 6,
  etherType: ETHERTYPE_IPV6,
  gsoType: VIRTIO_NET_HDR_GSO_TCPV6,
  guestTso: VIRTIO_NET_F_GUEST_TSO6,
  addressesAt: IPV6_SOURCE,
  addressesBytes: 32,
  keyWords: ADDRESS_WORDS + 1,
  ipHeaderUncounted: IPV6_HEADER_BYTES,
  maxIpLengthQemu: 65_535,

  locate(frame: Frame, segment: ParsedSegment): Located {
    const { view } = frame;
    const ip = segment.ipAt;
    const end = endOf(frame);
    if (end < ip + IPV6_HEADER_BYTES) return "too_short";
    const flow = view.getInt32(ip + IPV6_FLOW);
    if (flow >>> 28 !== 6) return "bad_version";
    const nextHeader = view.getUint8(ip + IPV6_NEXT_HEADER);
    if (nextHeader !== PROTOCOL_TCP) return isExtensionHeader(nextHeader) ? "extension_header" : "not_tcp";
    const tcp = ip + IPV6_HEADER_BYTES;
    const payloadLength = view.getUint16(ip + IPV6_PAYLOAD_LENGTH);
    if (payloadLength < TCP_HEADER_BYTES || tcp + payloadLength > end) return "bad_length";
    segment.tcpAt = tcp;
    fillKey(view, segment);
    segment.ipLength = payloadLength;
    segment.ecn = flow >>> 20 & 3;
    segment.traits = flow;
    segment.hopLimit = view.getUint8(ip + IPV6_HOP_LIMIT);
    return readSegment(view, segment, payloadLength);
  },

  fillAddresses,

  locateQemu(frame: Frame, segment: ParsedSegment): QemuLocated {
    const { view } = frame;
    const ip = frame.start + ETHERNET_HEADER_BYTES;
    if (frame.total < HEADERS_BYTES) return "uncounted";
    if (view.getUint8(ip) >>> 4 !== 6) return "uncounted";
    if (view.getUint8(ip + IPV6_NEXT_HEADER) !== PROTOCOL_TCP) return "bypass_not_tcp";
    const payloadLength = view.getUint16(ip + IPV6_PAYLOAD_LENGTH);
    const tcp = ip + IPV6_HEADER_BYTES;
    if (payloadLength < TCP_HEADER_BYTES || tcp + payloadLength > endOf(frame)) return "ip_hacked";
    if ((view.getUint8(ip + 1) & QEMU_ECN_MASK) !== 0) return "ip_ecn";
    segment.ipAt = ip;
    segment.tcpAt = tcp;
    segment.ipLength = payloadLength;
    fillKey(view, segment);
    readTcp(view, segment, payloadLength);
    return "candidate";
  },

  finish(view: DataView, held: CoalescedSegment, renew: boolean): void {
    view.setUint16(held.ipAt + IPV6_PAYLOAD_LENGTH, held.ipLength);
    if (renew) view.setUint8(held.ipAt + IPV6_HOP_LIMIT, held.hopLimit);
  },
};

/** The plugin `rsc-v6`. */
export const rscV6: OffloadPlugin<RscOptions> = defineRsc(ipv6Family);
