/**
 * A builder of TCP, UDP and other frames, made for streams of thousands: one object, changed and written over
 * and over. It shares nothing with the code under test, and can write every lie that a header can tell.
 * @module
 */

/** Bytes of the largest frame that is ever written: what a guest is prepared to take. */
export const MAX_FRAME_BYTES = 65_589;

const NOISE = noise(1 << 18);

/** The fields of a packet; `reset` makes them those of an ordinary segment. */
export class Packet {
  /** Last bytes of the MAC addresses. */
  macs: [destination: number, source: number] = [0x56, 0xee];
  /** Is it IPv6? */
  v6 = false;
  /** Last bytes of the addresses. */
  source = 1;
  /** Last byte of the destination address. */
  destination = 2;
  /** Ports. */
  sourcePort = 1111;
  /** Destination port. */
  destinationPort = 80;
  /** Protocol number: 6 TCP, 17 UDP. */
  protocol = 6;
  /** TOS or traffic class. */
  tos = 0;
  /** TTL or hop limit. */
  ttl = 64;
  /** IPv4 identification, or IPv6 flow label. */
  id = 1;
  /** IPv4 flags and fragment offset. */
  fragment = 0x4000;
  /** Version nibble; 0 for the right one. */
  version = 0;
  /** Added to the IP length field. */
  lengthLie = 0;
  /** IPv4 options or an IPv6 extension header. */
  ipOptions: Uint8Array = NONE;
  /** IPv6 next header, if there are `ipOptions`. */
  nextHeader = 0;
  /** Is the IPv4 header checksum right? */
  ipChecksumRight = true;
  /** Sequence number. */
  seq = 0;
  /** Acknowledgment number. */
  ack = 0;
  /** Flags, with the reserved bits: 12 bits. */
  flags = 0x10;
  /** Window. */
  window = 500;
  /** Urgent pointer. */
  urgent = 0;
  /** Data offset in words; 0 for the right one. */
  dataOffset = 0;
  /** TCP options. */
  options: Uint8Array = NONE;
  /** Bytes of data, which are a function of sequence number and `salt`. */
  payloadBytes = 100;
  /** Tells the data of flows apart. */
  salt = 0;
  /** What stands in the checksum field. */
  checksum: "right" | "wrong" | "partial" = "right";
  /** Bytes behind the packet. */
  padding = 0;
  /** What these are. */
  paddingByte = 0;
  /** VLAN tags, the outermost first: type and TCI. */
  tags: readonly (readonly [type: number, tci: number])[] = [];

  /** The frame. */
  write(): Uint8Array<ArrayBuffer> {
    const { v6, ipOptions, options } = this;
    const ip = 14 + 4 * this.tags.length;
    const transport = ip + (v6 ? 40 : 20) + ipOptions.length;
    const fixed = this.protocol === 6 ? 20 + options.length : 8;
    const payload = Math.min(this.payloadBytes, MAX_FRAME_BYTES - transport - fixed);
    const end = transport + fixed + payload;
    const frame = new Uint8Array(Math.min(end + this.padding, MAX_FRAME_BYTES));
    const view = new DataView(frame.buffer);
    frame.set([0x52, 0x54, 0, 0x12, 0x34, this.macs[0], 2, 0xaa, 0xbb, 0xcc, 0xdd, this.macs[1]]);
    for (const [i, [type, tci]] of this.tags.entries()) {
      view.setUint16(12 + 4 * i, type);
      view.setUint16(14 + 4 * i, tci);
    }
    view.setUint16(ip - 2, v6 ? 0x86dd : 0x0800);
    const from = this.seq % 0x10000 + this.salt * 977 % 0x10000;
    frame.set(NOISE.subarray(from, from + payload), transport + fixed);
    frame.fill(this.paddingByte, end);
    const addresses = v6
      ? this.#writeIpv6(frame, view, ip, end)
      : this.#writeIpv4(frame, view, ip, end, transport);
    view.setUint16(transport, this.sourcePort);
    view.setUint16(transport + 2, this.destinationPort);
    const pseudo = addresses + this.protocol + end - transport;
    const checksumAt = transport + (this.protocol === 6 ? 16 : 6);
    if (this.protocol === 6) this.#writeTcp(frame, view, transport);
    else view.setUint16(transport + 4, end - transport);
    const partial = fold(pseudo);
    const right = 0xffff - fold(pseudo + sum(frame, transport, end));
    const wrong = this.checksum === "wrong" ? 0x5555 : 0;
    view.setUint16(checksumAt, this.checksum === "partial" ? partial : right ^ wrong);
    return frame;
  }

  /** Returns the sum of the addresses. */
  #writeIpv4(frame: Uint8Array, view: DataView, ip: number, end: number, transport: number): number {
    frame[ip] = (this.version || 4) << 4 | (transport - ip) / 4;
    frame[ip + 1] = this.tos;
    view.setUint16(ip + 2, end - ip + this.lengthLie);
    view.setUint16(ip + 4, this.id);
    view.setUint16(ip + 6, this.fragment);
    frame[ip + 8] = this.ttl;
    frame[ip + 9] = this.protocol;
    frame.set([10, 0, 0, this.source, 10, 0, 0, this.destination], ip + 12);
    frame.set(this.ipOptions, ip + 20);
    const right = 0xffff - fold(sum(frame, ip, transport));
    view.setUint16(ip + 10, this.ipChecksumRight ? right : right ^ 0x0100);
    return sum(frame, ip + 12, ip + 20);
  }

  /** Returns the sum of the addresses. */
  #writeIpv6(frame: Uint8Array, view: DataView, ip: number, end: number): number {
    const { ipOptions } = this;
    view.setUint32(ip, (this.version || 6) << 28 | this.tos << 20 | this.id & 0xfffff);
    view.setUint16(ip + 4, end - ip - 40 + this.lengthLie);
    frame[ip + 6] = ipOptions.length > 0 ? this.nextHeader : this.protocol;
    frame[ip + 7] = this.ttl;
    frame[ip + 8] = frame[ip + 24] = 0xfd;
    frame[ip + 23] = this.source;
    frame[ip + 39] = this.destination;
    if (ipOptions.length > 0) {
      frame.set(ipOptions, ip + 40);
      // Zeros make further headers: the last of them, which has 8 bytes, says what follows.
      frame[ip + 40 + ipOptions.length - 8] = this.protocol;
    }
    return sum(frame, ip + 8, ip + 40);
  }

  #writeTcp(frame: Uint8Array, view: DataView, at: number): void {
    const words = this.dataOffset || 5 + this.options.length / 4;
    view.setUint32(at + 4, this.seq);
    view.setUint32(at + 8, this.ack);
    view.setUint16(at + 12, words << 12 | this.flags);
    view.setUint16(at + 14, this.window);
    view.setUint16(at + 18, this.urgent);
    frame.set(this.options, at + 20);
  }
}

/** No bytes. */
export const NONE: Uint8Array<ArrayBuffer> = new Uint8Array(0);

/** NOP, NOP, timestamp (RFC 7323, appendix A). */
export function timestampBlock(value: number, echo: number): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(12);
  block.set([1, 1, 8, 10]);
  const view = new DataView(block.buffer);
  view.setUint32(4, value);
  view.setUint32(8, echo);
  return block;
}

/** Bytes that look random and are the same every time. */
function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let i = 0, state = 1; i < length; i++) {
    state = Math.imul(state, 0x41c64e6d) + 0x3039 | 0;
    bytes[i] = state >>> 19;
  }
  return bytes;
}

function sum(bytes: Uint8Array, from: number, to: number): number {
  let total = 0;
  for (let i = from; i + 1 < to; i += 2) total += bytes[i] << 8 | bytes[i + 1];
  return (to - from) % 2 === 1 ? total + (bytes[to - 1] << 8) : total;
}

function fold(total: number): number {
  const once = (total & 0xffff) + Math.floor(total / 0x10000);
  return (once & 0xffff) + (once >>> 16);
}
