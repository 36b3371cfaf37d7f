/**
 * `rsc-v4`: receive segment coalescing of TCP over IPv4.
 * @module
 */
import type { Frame } from "../pipeline/frame.ts";
import type { OffloadPlugin } from "../pipeline/plugin.ts";
import { isSumRight } from "../wire/checksum.ts";
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4 } from "../wire/ethernet.ts";
import { VIRTIO_NET_F_GUEST_TSO4 } from "../wire/net_features.ts";
import {
  IPV4_DF,
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MF_OR_OFFSET,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  ipv4HeaderSum,
  PROTOCOL_AH,
  PROTOCOL_ESP,
  PROTOCOL_TCP,
  storeIpv4Checksum,
  TCP_HEADER_BYTES,
  TCP_PORTS,
} from "../wire/tcp_ip.ts";
import { VIRTIO_NET_HDR_GSO_TCPV4 } from "../wire/virtio_net_header.ts";
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

const HEADERS_BYTES = ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + TCP_HEADER_BYTES;
const MIN_LENGTH = IPV4_HEADER_BYTES + TCP_HEADER_BYTES;

function fillKey(view: DataView, segment: ParsedSegment): void {
  segment.key[0] = view.getInt32(segment.ipAt + IPV4_SOURCE, true);
  segment.key[1] = view.getInt32(segment.ipAt + IPV4_SOURCE + 4, true);
  segment.key[2] = view.getInt32(segment.tcpAt + TCP_PORTS, true);
}

/** IPv4, as the chains see it. */
export const ipv4Family: RscFamily = {
  name: "v4",
  version: 4,
  etherType: ETHERTYPE_IPV4,
  gsoType: VIRTIO_NET_HDR_GSO_TCPV4,
  guestTso: VIRTIO_NET_F_GUEST_TSO4,
  addressesAt: IPV4_SOURCE,
  addressesBytes: 8,
  keyWords: 3,
  ipHeaderUncounted: 0,
  maxIpLengthQemu: 65_515,

  locate(frame: Frame, segment: ParsedSegment): Located {
    const { view } = frame;
    const ip = segment.ipAt;
    const end = endOf(frame);
    if (end < ip + IPV4_HEADER_BYTES) return "too_short";
    const versionIhl = view.getUint8(ip);
    if (versionIhl >>> 4 !== 4) return "bad_version";
    const protocol = view.getUint8(ip + IPV4_PROTOCOL);
    if (protocol !== PROTOCOL_TCP) {
      return protocol === PROTOCOL_ESP || protocol === PROTOCOL_AH ? "extension_header" : "not_tcp";
    }
    const fragment = view.getUint16(ip + IPV4_FRAGMENT);
    if ((fragment & IPV4_MF_OR_OFFSET) !== 0) return "fragment";
    if (versionIhl !== 0x45) return (versionIhl & 15) < 5 ? "bad_length" : "ip_options";
    const ipLength = view.getUint16(ip + IPV4_TOTAL_LENGTH);
    if (ipLength < MIN_LENGTH || ip + ipLength > end) return "bad_length";
    if (!isSumRight(ipv4HeaderSum(view, ip, IPV4_HEADER_BYTES))) return "bad_ip_checksum";
    segment.tcpAt = ip + IPV4_HEADER_BYTES;
    fillKey(view, segment);
    const tos = view.getUint8(ip + IPV4_TOS);
    segment.ipLength = ipLength;
    segment.ecn = tos & 3;
    segment.traits = tos | fragment & IPV4_DF;
    segment.hopLimit = view.getUint8(ip + IPV4_TTL);
    return readSegment(view, segment, ipLength - IPV4_HEADER_BYTES);
  },

  fillAddresses(view: DataView, segment: ParsedSegment, sourceAt: number, destinationAt: number): void {
    segment.key[0] = view.getInt32(sourceAt, true);
    segment.key[1] = view.getInt32(destinationAt, true);
  },

  locateQemu(frame: Frame, segment: ParsedSegment): QemuLocated {
    const { view } = frame;
    const ip = frame.start + ETHERNET_HEADER_BYTES;
    if (frame.total < HEADERS_BYTES) return "bypass_not_tcp";
    if (view.getUint8(ip) !== 0x45) return "ip_option";
    if (view.getUint8(ip + IPV4_PROTOCOL) !== PROTOCOL_TCP) return "bypass_not_tcp";
    if ((view.getUint16(ip + IPV4_FRAGMENT) & IPV4_DF) === 0) return "ip_frag";
    if ((view.getUint8(ip + IPV4_TOS) & 3) !== 0) return "ip_ecn";
    const ipLength = view.getUint16(ip + IPV4_TOTAL_LENGTH);
    if (ipLength < MIN_LENGTH || ipLength > frame.total - ETHERNET_HEADER_BYTES) return "ip_hacked";
    segment.ipAt = ip;
    segment.tcpAt = ip + IPV4_HEADER_BYTES;
    segment.ipLength = ipLength;
    fillKey(view, segment);
    readTcp(view, segment, ipLength - IPV4_HEADER_BYTES);
    return "candidate";
  },

  finish(view: DataView, held: CoalescedSegment, renew: boolean): void {
    view.setUint16(held.ipAt + IPV4_TOTAL_LENGTH, held.ipLength);
    if (!renew) return;
    view.setUint8(held.ipAt + IPV4_TTL, held.hopLimit);
    storeIpv4Checksum(view, held.ipAt);
  },
};

/** The plugin `rsc-v4`. */
export const rscV4: OffloadPlugin<RscOptions> = defineRsc(ipv4Family);
