/**
 * Reading TCP packets back, with nothing taken from the code under test.
 * @module
 */
import { internetSum, ipText, macText, pseudoHeaderSum, TCP_FLAGS, type TcpFlag } from "./packets.ts";

/** A TCP packet, every field by itself. Numbers are unsigned. */
export interface ParsedTcp {
  /** Destination address. */
  readonly destinationMac: string;
  /** Source address. */
  readonly sourceMac: string;
  /** VLAN ids, the outermost first. */
  readonly vlans: readonly number[];
  /** 4 or 6. */
  readonly version: 4 | 6;
  /** Where the IP header begins in the frame. */
  readonly ipAt: number;
  /** Where the TCP header begins in the frame. */
  readonly tcpAt: number;
  /** TOS or traffic class. */
  readonly tos: number;
  /** The length field: total length (v4) or payload length (v6). */
  readonly ipLength: number;
  /** TTL or hop limit. */
  readonly ttl: number;
  /** IPv4: identification; IPv6: 0. */
  readonly id: number;
  /** IPv4: DF; IPv6: false. */
  readonly dontFragment: boolean;
  /** IPv6: flow label; IPv4: 0. */
  readonly flowLabel: number;
  /** IPv4: header checksum as it stands; IPv6: 0. */
  readonly ipChecksum: number;
  /** Is the header checksum right? Always so for IPv6, which has none. */
  readonly ipChecksumRight: boolean;
  /** Source address. */
  readonly source: string;
  /** Destination address. */
  readonly destination: string;
  /** Source port. */
  readonly sourcePort: number;
  /** Destination port. */
  readonly destinationPort: number;
  /** Sequence number. */
  readonly seq: number;
  /** Acknowledgment number. */
  readonly ack: number;
  /** Header length in words, as the header claims. */
  readonly dataOffset: number;
  /** The three reserved bits. */
  readonly reserved: number;
  /** Names of the flags that are set, from FIN up. */
  readonly flags: readonly TcpFlag[];
  /** Window. */
  readonly window: number;
  /** Checksum as it stands. */
  readonly checksum: number;
  /** Is the checksum right? */
  readonly checksumRight: boolean;
  /** Is it the sum of the pseudo header alone, as goes with NEEDS_CSUM? */
  readonly checksumPartial: boolean;
  /** Urgent pointer. */
  readonly urgentPointer: number;
  /** Options. */
  readonly options: Uint8Array;
  /** TSval and TSecr, if the options are the timestamp block. */
  readonly timestamp: readonly [value: number, echo: number] | null;
  /** Data. */
  readonly payload: Uint8Array;
  /** What follows the IP packet in the frame. */
  readonly padding: Uint8Array;
}

/**
 * Takes a frame with a TCP packet apart: IPv4 or IPv6, behind VLAN tags or not. Throws TypeError if it is
 * none, or if its lengths contradict each other.
 *
 * @example
 * ```ts
 * import { parseTcp } from "./parse_tcp.ts";
 * import { tcp } from "./packets.ts";
 * const { seq, payload, checksumRight } = parseTcp(tcp({ seq: 7, payload: 100 }));
 * if (seq !== 7 || payload.length !== 100 || !checksumRight) throw new Error("unreachable");
 * ```
 */
export function parseTcp(frame: Uint8Array): ParsedTcp {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const vlans: number[] = [];
  let ipAt = 14;
  demand(frame.length >= ipAt, "it ends in the Ethernet header");
  for (; isTag(view.getUint16(ipAt - 2)); ipAt += 4) {
    demand(frame.length >= ipAt + 4, "it ends in a VLAN tag");
    vlans.push(view.getUint16(ipAt) & 0xfff);
  }
  const ip = view.getUint16(ipAt - 2) === 0x0800
    ? parseIpv4(frame, view, ipAt)
    : parseIpv6(frame, view, ipAt);
  const { tcpAt, end, addresses, ...ipFields } = ip;
  demand(end >= tcpAt + 20 && end <= frame.length, "the IP length does not fit");
  const dataOffset = view.getUint8(tcpAt + 12) >>> 4;
  const payloadAt = tcpAt + 4 * dataOffset;
  demand(dataOffset >= 5 && payloadAt <= end, `the data offset is ${dataOffset}`);
  const bits = view.getUint16(tcpAt + 12) & 0xfff;
  const options = frame.slice(tcpAt + 20, payloadAt);
  const pseudo = pseudoHeaderSum(addresses[0], addresses[1], 6, end - tcpAt);
  const checksum = view.getUint16(tcpAt + 16);
  return {
    destinationMac: macText(frame, 0),
    sourceMac: macText(frame, 6),
    vlans,
    ipAt,
    tcpAt,
    ...ipFields,
    sourcePort: view.getUint16(tcpAt),
    destinationPort: view.getUint16(tcpAt + 2),
    seq: view.getUint32(tcpAt + 4),
    ack: view.getUint32(tcpAt + 8),
    dataOffset,
    reserved: bits >>> 9,
    flags: (Object.keys(TCP_FLAGS) as TcpFlag[]).filter((flag) => (bits & TCP_FLAGS[flag]) !== 0),
    window: view.getUint16(tcpAt + 14),
    checksum,
    checksumRight: internetSum(frame, tcpAt, end, pseudo) === 0xffff,
    checksumPartial: checksum === pseudo,
    urgentPointer: view.getUint16(tcpAt + 18),
    options,
    timestamp: parseTimestamp(options),
    payload: frame.slice(payloadAt, end),
    padding: frame.slice(end),
  };
}

type ParsedIp =
  & Pick<
    ParsedTcp,
    | "version"
    | "tos"
    | "ipLength"
    | "ttl"
    | "id"
    | "dontFragment"
    | "flowLabel"
    | "ipChecksum"
    | "ipChecksumRight"
    | "source"
    | "destination"
  >
  & {
    readonly tcpAt: number;
    readonly end: number;
    readonly addresses: readonly [Uint8Array, Uint8Array];
  };

function parseIpv4(frame: Uint8Array, view: DataView, ipAt: number): ParsedIp {
  demand(frame.length >= ipAt + 20 && frame[ipAt] >>> 4 === 4, "it is no IPv4 packet");
  const headerBytes = 4 * (frame[ipAt] & 15);
  demand(headerBytes >= 20 && frame.length >= ipAt + headerBytes, "the IPv4 header length does not fit");
  demand(frame[ipAt + 9] === 6, "it is no TCP packet");
  return {
    version: 4,
    tos: frame[ipAt + 1],
    ipLength: view.getUint16(ipAt + 2),
    ttl: frame[ipAt + 8],
    id: view.getUint16(ipAt + 4),
    dontFragment: (frame[ipAt + 6] & 0x40) !== 0,
    flowLabel: 0,
    ipChecksum: view.getUint16(ipAt + 10),
    ipChecksumRight: internetSum(frame, ipAt, ipAt + headerBytes) === 0xffff,
    source: ipText(frame, ipAt + 12, 4),
    destination: ipText(frame, ipAt + 16, 4),
    tcpAt: ipAt + headerBytes,
    end: ipAt + view.getUint16(ipAt + 2),
    addresses: [frame.slice(ipAt + 12, ipAt + 16), frame.slice(ipAt + 16, ipAt + 20)],
  };
}

function parseIpv6(frame: Uint8Array, view: DataView, ipAt: number): ParsedIp {
  const isV6 = view.getUint16(ipAt - 2) === 0x86dd && frame.length >= ipAt + 40 && frame[ipAt] >>> 4 === 6;
  demand(isV6, "it is no IP packet");
  demand(frame[ipAt + 6] === 6, "it is no TCP packet");
  return {
    version: 6,
    tos: view.getUint16(ipAt) >>> 4 & 0xff,
    ipLength: view.getUint16(ipAt + 4),
    ttl: frame[ipAt + 7],
    id: 0,
    dontFragment: false,
    flowLabel: view.getUint32(ipAt) & 0xfffff,
    ipChecksum: 0,
    ipChecksumRight: true,
    source: ipText(frame, ipAt + 8, 16),
    destination: ipText(frame, ipAt + 24, 16),
    tcpAt: ipAt + 40,
    end: ipAt + 40 + view.getUint16(ipAt + 4),
    addresses: [frame.slice(ipAt + 8, ipAt + 24), frame.slice(ipAt + 24, ipAt + 40)],
  };
}

function parseTimestamp(options: Uint8Array): readonly [number, number] | null {
  const view = new DataView(options.buffer, options.byteOffset, options.byteLength);
  if (options.length !== 12 || view.getUint32(0) !== 0x0101080a) return null;
  return [view.getUint32(4), view.getUint32(8)];
}

function isTag(etherType: number): boolean {
  return etherType === 0x8100 || etherType === 0x88a8;
}

function demand(condition: boolean, problem: string): void {
  if (!condition) throw new TypeError(`Cannot read the frame as TCP: ${problem}`);
}
