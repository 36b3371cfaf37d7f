/**
 * A second, plain reading of TCP frames, which shares nothing with the code that it checks.
 * @module
 */

/**
 * A TCP segment in an Ethernet frame, behind up to two VLAN tags, unfragmented and without IP options or
 * extension headers.
 */
export interface TcpView {
  /** The whole frame. */
  readonly frame: Uint8Array;
  /** First byte of the IP header. */
  readonly ipAt: number;
  /** Is it IPv4, or else IPv6? */
  readonly isV4: boolean;
  /** VLAN, addresses and ports, in this direction. */
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
  const link = readTags(frame);
  if (link === null || link.tags > 2) return null;
  const { ipAt: ip, type, vlan } = link;
  if (frame.length < ip + 40) return null;
  const isV4 = type === 0x0800 && frame[ip] === 0x45;
  const isV6 = type === 0x86dd && frame[ip] >> 4 === 6;
  if (!isV4 && !isV6) return null;
  if (isV6 && frame.length < ip + 60) return null;
  if (frame[ip + (isV4 ? 9 : 6)] !== 6) return null;
  if (isV4 && (be16(frame, ip + 6) & 0x3fff) !== 0) return null;
  const tcp = ip + (isV4 ? 20 : 40);
  const tcpBytes = isV4 ? be16(frame, ip + 2) - 20 : be16(frame, ip + 4);
  const tcpHeader = tcpBytes < 20 ? 0 : (frame[tcp + 12] >> 4) * 4;
  if (tcpHeader < 20 || tcpHeader > tcpBytes || tcp + tcpBytes > frame.length) return null;
  const addresses = frame.subarray(isV4 ? ip + 12 : ip + 8, tcp);
  const pseudo = sum(addresses) + 6 + tcpBytes;
  const word = be16(frame, tcp + 12);
  const hasTimestamp = tcpHeader === 32 && be32(frame, tcp + 20) === 0x0101080a;
  return {
    frame,
    ipAt: ip,
    isV4,
    flow: `${vlan}${type.toString(16)} ${addresses.join(".")} ${be16(frame, tcp)}>${be16(frame, tcp + 2)}`,
    seq: be32(frame, tcp + 4),
    ack: be32(frame, tcp + 8),
    window: be16(frame, tcp + 14),
    flags: word & 0x1ff,
    reserved: word & 0xe00,
    payload: frame.subarray(tcp + tcpHeader, tcp + tcpBytes),
    tcpAt: tcp,
    frameBytes: tcp + tcpBytes,
    headerBytes: tcp + tcpHeader,
    hopLimit: frame[ip + (isV4 ? 8 : 7)],
    ipEcn: isV4 ? frame[ip + 1] & 3 : frame[ip + 1] >> 4 & 3,
    timestamp: hasTimestamp ? [be32(frame, tcp + 24), be32(frame, tcp + 28)] : null,
    ipChecksumRight: isV6 || folded(sum(frame.subarray(ip, ip + 20))) === 0xffff,
    tcpChecksumRight: folded(pseudo + sum(frame.subarray(tcp, tcp + tcpBytes))) === 0xffff,
    holdsPseudoSum: folded(pseudo) === be16(frame, tcp + 16),
  };
}

interface Link {
  /** Which VLAN it is of: nothing for the untagged network, to which a tag with id 0 belongs. */
  readonly vlan: string;
  readonly tags: number;
  readonly type: number;
  readonly ipAt: number;
}

/** What is behind the VLAN tags; null if the frame ends in them. */
function readTags(frame: Uint8Array): Link | null {
  let vlan = "";
  for (let at = 12, tags = 0; at + 2 <= frame.length; at += 4, tags++) {
    const type = be16(frame, at);
    if (type !== 0x8100 && type !== 0x88a8) return { vlan, tags, type, ipAt: at + 2 };
    const id = at + 4 <= frame.length ? be16(frame, at + 2) & 0xfff : 0;
    if (id !== 0) vlan += `vlan ${type === 0x8100 ? "c" : "s"}${id} `;
  }
  return null;
}

/** What a frame tells of its TCP flow, even if nothing else in it is right. */
export interface FlowSight {
  /** VLAN and the two addresses, in this direction; null if it is no TCP that can be recognised. */
  readonly pair: string | null;
  /** The same and the ports; null if these are hidden: a fragment, ESP, a frame cut short. */
  readonly flow: string | null;
}

/** Protocol numbers of IPv6 extension headers (IANA). */
const EXTENSION_HEADERS: readonly number[] = [0, 43, 44, 50, 51, 60, 135, 139, 140];
/** More of them in a row are not looked behind. */
const MAX_EXTENSIONS = 8;
const NOTHING: FlowSight = { pair: null, flow: null };

/**
 * Looks for the TCP flow of any frame. A frame whose ports are hidden may belong to any flow between its
 * addresses.
 */
export function sightOfFlow(frame: Uint8Array): FlowSight {
  const link = readTags(frame);
  if (link === null) return NOTHING;
  const { vlan, type, ipAt } = link;
  if (type === 0x0800) return sightOfV4(frame, ipAt, vlan);
  if (type === 0x86dd) return sightOfV6(frame, ipAt, vlan);
  // LLC/SNAP: AA AA 03, no organisation, and the type that would have stood in front.
  if (
    type < 0x600 && frame.length > ipAt + 8 && be32(frame, ipAt) === 0xaaaa0300 && be16(frame, ipAt + 4) === 0
  ) {
    return sightOfType(frame, be16(frame, ipAt + 6), ipAt + 8, vlan);
  }
  // A PPPoE session, with the protocol in two bytes.
  if (type === 0x8864 && frame.length > ipAt + 8) {
    const protocol = be16(frame, ipAt + 6);
    return sightOfType(frame, protocol === 0x21 ? 0x0800 : protocol === 0x57 ? 0x86dd : 0, ipAt + 8, vlan);
  }
  return NOTHING;
}

function sightOfType(frame: Uint8Array, type: number, ip: number, vlan: string): FlowSight {
  if (type === 0x0800) return sightOfV4(frame, ip, vlan);
  return type === 0x86dd ? sightOfV6(frame, ip, vlan) : NOTHING;
}

function sightOfV4(frame: Uint8Array, ip: number, vlan: string): FlowSight {
  const headerBytes = (frame[ip] & 15) * 4;
  if (frame.length < ip + 20 || frame[ip] >> 4 !== 4 || headerBytes < 20) return NOTHING;
  const protocol = frame[ip + 9];
  if (protocol !== 6 && protocol !== 50 && protocol !== 51) return NOTHING;
  const pair = `${vlan}${frame.subarray(ip + 12, ip + 20).join(".")}`;
  const isFragment = (be16(frame, ip + 6) & 0x3fff) !== 0;
  const isHidden = protocol !== 6 || isFragment ||
    !holdsPorts(frame, ip, ip + headerBytes, be16(frame, ip + 2));
  return { pair, flow: isHidden ? null : `${pair} ${be32(frame, ip + headerBytes)}` };
}

function sightOfV6(frame: Uint8Array, ip: number, vlan: string): FlowSight {
  if (frame.length < ip + 40 || frame[ip] >> 4 !== 6) return NOTHING;
  const pair = `${vlan}${frame.subarray(ip + 8, ip + 40).join(".")}`;
  const hidden = { pair, flow: null };
  const payloadBytes = be16(frame, ip + 4);
  let protocol = frame[ip + 6];
  let at = ip + 40;
  for (let count = 0; EXTENSION_HEADERS.includes(protocol); count++) {
    const isFragment = protocol === 44 && frame.length >= at + 8 && (be16(frame, at + 2) & 0xfff9) !== 0;
    if (count === MAX_EXTENSIONS || protocol === 50 || isFragment || frame.length < at + 8) return hidden;
    const words = frame[at + 1];
    const next = frame[at];
    at += protocol === 44 ? 8 : protocol === 51 ? (words + 2) * 4 : (words + 1) * 8;
    protocol = next;
  }
  if (protocol !== 6) return NOTHING;
  const isVisible = holdsPorts(frame, ip, at, payloadBytes === 0 ? 0 : 40 + payloadBytes);
  return isVisible ? { pair, flow: `${pair} ${be32(frame, at)}` } : hidden;
}

/**
 * Are the ports at `at` in the frame, and in a packet of `packetBytes` from `ip` on? 0 bytes tell nothing.
 */
function holdsPorts(frame: Uint8Array, ip: number, at: number, packetBytes: number): boolean {
  return at + 4 <= frame.length && (packetBytes === 0 || at + 4 <= ip + packetBytes);
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
