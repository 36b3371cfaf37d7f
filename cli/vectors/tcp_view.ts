/**
 * A second, plain reading of TCP frames, which shares nothing with the code that it checks.
 * @module
 */

/** A TCP segment in an Ethernet frame, unfragmented and without IP options or extension headers. */
export interface TcpView {
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
  /** The bytes of data. */
  readonly payload: Uint8Array;
  /** Bytes up to the end of the IP packet. */
  readonly frameBytes: number;
  /** Bytes of all headers. */
  readonly headerBytes: number;
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
  const addresses = isV4 ? frame.subarray(26, 34) : frame.subarray(22, 54);
  const pseudo = sum(addresses) + 6 + tcpBytes;
  const segment = frame.subarray(tcp, tcp + tcpBytes);
  return {
    flow: `${type.toString(16)} ${addresses.join(".")} ${be16(frame, tcp)}>${be16(frame, tcp + 2)}`,
    seq: be32(frame, tcp + 4),
    ack: be32(frame, tcp + 8),
    window: be16(frame, tcp + 14),
    flags: be16(frame, tcp + 12) & 0x1ff,
    payload: frame.subarray(tcp + tcpHeader, tcp + tcpBytes),
    frameBytes: tcp + tcpBytes,
    headerBytes: tcp + tcpHeader,
    ipChecksumRight: isV6 || folded(sum(frame.subarray(14, 34))) === 0xffff,
    tcpChecksumRight: folded(pseudo + sum(segment)) === 0xffff,
    holdsPseudoSum: folded(pseudo) === be16(frame, tcp + 16),
  };
}

function be16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

function be32(bytes: Uint8Array, at: number): number {
  return be16(bytes, at) * 0x10000 + be16(bytes, at + 2);
}

function sum(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i++) total += i % 2 === 0 ? bytes[i] << 8 : bytes[i];
  return total;
}

function folded(total: number): number {
  let rest = total;
  while (rest > 0xffff) rest = rest % 0x10000 + Math.floor(rest / 0x10000);
  return rest;
}
