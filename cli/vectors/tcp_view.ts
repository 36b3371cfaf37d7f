/**
 * A second, plain reading of TCP frames, which shares nothing with the code that it checks.
 * @module
 */

/** A TCP segment in an Ethernet frame, unfragmented and without IP options or extension headers. */
export interface TcpView {
  /** The whole frame. */
  readonly frame: Uint8Array;
  /** Is it IPv4, or else IPv6? */
  readonly isV4: boolean;
  /** Addresses and ports, in this direction. */
  readonly flow: string;
  /** Sequence number. */
  readonly seq: number;
  /** Acknowledgment number. */
  readonly ack: number;
  /** Window. */
  readonly window: number;
  /** The nine flag bits. */
  readonly flags: number;
  /** The three bits between data offset and flags, in place: 0 to 0xe00. */
  readonly reserved: number;
  /** The bytes of data. */
  readonly payload: Uint8Array;
  /** First byte of the TCP header. */
  readonly tcpAt: number;
  /** Bytes up to the end of the IP packet. */
  readonly frameBytes: number;
  /** Bytes of all headers. */
  readonly headerBytes: number;
  /** TTL or hop limit. */
  readonly hopLimit: number;
  /** The IP header's ECN bits. */
  readonly ipEcn: number;
  /** TSval and TSecr, if the options are NOP, NOP, timestamp and nothing else. */
  readonly timestamp: readonly [value: number, echo: number] | null;
  /** Is the IPv4 header checksum right? True for IPv6. */
  readonly ipChecksumRight: boolean;
  /** Is the TCP checksum right? */
  readonly tcpChecksumRight: boolean;
  /** Does the checksum field hold the pseudo header's sum, as NEEDS_CSUM wants it? */
  readonly holdsPseudoSum: boolean;
}

/** Reads a frame; null if it is no such segment, or its lengths contradict each other. */
export function viewTcp(frame: Uint8Array): TcpView | null {
  if (frame.length < 14 + 40) return null;
  const type = be16(frame, 12);
  const isV4 = type === 0x0800 && frame[14] === 0x45;
  const isV6 = type === 0x86dd && frame[14] >> 4 === 6;
  if (!isV4 && !isV6) return null;
  if (isV6 && frame.length < 14 + 60) return null;
  if ((isV4 ? frame[23] : frame[20]) !== 6) return null;
  if (isV4 && (be16(frame, 20) & 0x3fff) !== 0) return null;
  const tcp = isV4 ? 34 : 54;
  const tcpBytes = isV4 ? be16(frame, 16) - 20 : be16(frame, 18);
  const tcpHeader = tcpBytes < 20 ? 0 : (frame[tcp + 12] >> 4) * 4;
  if (tcpHeader < 20 || tcpHeader > tcpBytes || tcp + tcpBytes > frame.length) return null;
  const addresses = frame.subarray(isV4 ? 26 : 22, isV4 ? 34 : 54);
  const pseudo = sum(addresses) + 6 + tcpBytes;
  const word = be16(frame, tcp + 12);
  const hasTimestamp = tcpHeader === 32 && be32(frame, tcp + 20) === 0x0101080a;
  return {
    frame,
    isV4,
    flow: `${type.toString(16)} ${addresses.join(".")} ${be16(frame, tcp)}>${be16(frame, tcp + 2)}`,
    seq: be32(frame, tcp + 4),
    ack: be32(frame, tcp + 8),
    window: be16(frame, tcp + 14),
    flags: word & 0x1ff,
    reserved: word & 0xe00,
    payload: frame.subarray(tcp + tcpHeader, tcp + tcpBytes),
    tcpAt: tcp,
    frameBytes: tcp + tcpBytes,
    headerBytes: tcp + tcpHeader,
    hopLimit: frame[isV4 ? 22 : 21],
    ipEcn: isV4 ? frame[15] & 3 : frame[15] >> 4 & 3,
    timestamp: hasTimestamp ? [be32(frame, tcp + 24), be32(frame, tcp + 28)] : null,
    ipChecksumRight: isV6 || folded(sum(frame.subarray(14, 34))) === 0xffff,
    tcpChecksumRight: folded(pseudo + sum(frame.subarray(tcp, tcp + tcpBytes))) === 0xffff,
    holdsPseudoSum: folded(pseudo) === be16(frame, tcp + 16),
  };
}

/** What a frame tells of its TCP flow, even if nothing else in it is right. */
export interface FlowSight {
  /** The two addresses, in this direction; null if it is no TCP that can be recognised. */
  readonly pair: string | null;
  /** Addresses and ports; null if the ports are hidden: a fragment, an extension header, a frame cut short. */
  readonly flow: string | null;
}

/** Protocol numbers of IPv6 extension headers (IANA). */
const EXTENSION_HEADERS: readonly number[] = [0, 43, 44, 50, 51, 60, 135, 139, 140];
const NOTHING: FlowSight = { pair: null, flow: null };

/** Looks for the TCP flow of any frame. A frame whose ports are hidden may belong to any flow between its addresses. */
export function sightOfFlow(frame: Uint8Array): FlowSight {
  if (frame.length < 34) return NOTHING;
  const type = be16(frame, 12);
  if (type === 0x0800 && frame[14] >> 4 === 4 && frame[23] === 6) {
    const pair = frame.subarray(26, 34).join(".");
    const tcp = 14 + (frame[14] & 15) * 4;
    const hidden = (be16(frame, 20) & 0x3fff) !== 0 || tcp < 34 || tcp + 4 > frame.length;
    return { pair, flow: hidden ? null : `${pair} ${be32(frame, tcp)}` };
  }
  if (type !== 0x86dd || frame.length < 54 || frame[14] >> 4 !== 6) return NOTHING;
  if (frame[20] !== 6 && !EXTENSION_HEADERS.includes(frame[20])) return NOTHING;
  const pair = frame.subarray(22, 54).join(".");
  return { pair, flow: frame[20] !== 6 || frame.length < 58 ? null : `${pair} ${be32(frame, 54)}` };
}

function be16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

function be32(bytes: Uint8Array, at: number): number {
  return be16(bytes, at) * 0x10000 + be16(bytes, at + 2);
}

function sum(bytes: Uint8Array): number {
  let total = 0;
  const even = bytes.length & ~1;
  for (let i = 0; i < even; i += 2) total += bytes[i] << 8 | bytes[i + 1];
  return even < bytes.length ? total + (bytes[even] << 8) : total;
}

function folded(total: number): number {
  let rest = total;
  while (rest > 0xffff) rest = rest % 0x10000 + Math.floor(rest / 0x10000);
  return rest;
}
