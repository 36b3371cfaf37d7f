/**
 * What each kind of step does to an ordinary segment. `detail` is a number without meaning of its own, from
 * which every shape takes the bits that it needs.
 * @module
 */
import type { NetHeader } from "../../../pipeline/frame.ts";
import { NONE, type Packet, timestampBlock } from "./packet.ts";
import type { FrameKind } from "./scenario.ts";
import type { FlowState } from "./traffic.ts";

/** The fields of a virtio header. */
export type NetHeaderFields = Omit<NetHeader, "clear" | "copyFrom">;

/** What a shape decides beyond the packet. */
interface Shaped {
  /** The frame itself, if the packet is not what goes out. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
  /** The virtio header; default zeros. */
  readonly header?: NetHeaderFields;
  /** Bytes by which the flow goes on; by default its data, if the sequence number was left alone. */
  readonly advance?: number;
}

type Shaper = (packet: Packet, flow: FlowState, detail: number) => Shaped | void;

const FLAG_SETS = [0x11, 0x02, 0x14, 0x30, 0x00, 0x12, 0x04, 0x01, 0x08, 0x03, 0x20, 0x1ff, 0x3f, 0x18];
const OPTIONS = [
  Uint8Array.of(1, 1, 1, 1),
  Uint8Array.of(2, 4, 5, 180),
  Uint8Array.of(1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 9),
  Uint8Array.of(8, 10, 0, 0, 0, 9, 0, 0, 0, 9, 1, 1),
  Uint8Array.of(1, 1, 8, 11, 0, 0, 0, 9, 0, 0, 0, 9),
  new Uint8Array(40).fill(1),
];
const LENGTH_LIES = [1, -1, 1000, -1000, 30_000, -40, -20, -60, 6, -6];
const EXTENSIONS = [0, 43, 44, 50, 51, 60, 135, 17, 59];
const NO_DATA: Shaped = { advance: 0 };

/** A virtio header with these fields, the rest 0. */
export function headerOf(fields: Partial<NetHeaderFields>): NetHeaderFields {
  return { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0, ...fields };
}

/** By kind; a kind that is not here leaves the segment as it is. */
export const SHAPERS: Partial<Record<FrameKind, Shaper>> = {
  padded(packet, _flow, detail) {
    pad(packet, detail);
    if ((detail & 0x700) === 0) packet.padding = 1400;
  },
  push(packet) {
    packet.flags |= 8;
  },
  acking(packet, flow, detail) {
    packet.ack = flow.ack = flow.ack + (detail & 0xffff) >>> 0;
    if ((detail & 0x10000) !== 0) packet.window = flow.window = detail >>> 17 & 0x3ff;
  },
  pureAck(packet, flow, detail) {
    withoutData(packet, detail);
    packet.ack = flow.ack = flow.ack + 1 + (detail >>> 8 & 0xfff) >>> 0;
    return NO_DATA;
  },
  windowUpdate(packet, flow, detail) {
    withoutData(packet, detail);
    packet.window = flow.window = (detail & 8) !== 0 ? 500 : 500 + (detail >>> 8 & 3);
    return NO_DATA;
  },
  dupAck(packet, _flow, detail) {
    withoutData(packet, detail);
    return NO_DATA;
  },
  olderAck(packet, flow, detail) {
    packet.ack = flow.ack - 1 - (detail >>> 8 & 0xffff) >>> 0;
    if ((detail & 1) !== 0) withoutData(packet, detail);
    if ((detail & 2) !== 0) flow.ack = packet.ack;
    return { advance: packet.payloadBytes };
  },
  retransmit(packet, flow, detail) {
    packet.seq = packet.seq - flow.lastBytes + (detail & 3) >>> 0;
    if ((detail & 4) !== 0) packet.payloadBytes += flow.lastBytes;
    if ((detail & 8) !== 0) packet.window += 1 + (detail >>> 4 & 7);
    return NO_DATA;
  },
  keepAlive(packet, _flow, detail) {
    packet.seq = packet.seq - 1 >>> 0;
    packet.payloadBytes = detail & 1;
    return NO_DATA;
  },
  control(packet, _flow, detail) {
    packet.flags = FLAG_SETS[detail % FLAG_SETS.length];
    if ((detail & 0x100) !== 0) packet.payloadBytes = 0;
    packet.urgent = detail >>> 9 & 0xff;
  },
  tcpEcn(packet, flow, detail) {
    const marks = [0x40, 0x80, 0x100, 0xc0, 0x1c0, 0x200, 0x800][detail % 7];
    packet.flags |= marks;
    if ((detail & 0x100) !== 0) flow.flags ^= marks;
  },
  ipEcn(packet, flow, detail) {
    packet.tos = packet.tos & ~3 | detail & 3;
    if ((detail & 4) !== 0) flow.tos = packet.tos;
  },
  trait(packet, flow, detail) {
    const stays = (detail & 0x100) !== 0;
    const value = detail >>> 9 & 0x3f;
    switch (detail % 7) {
      case 0:
        packet.tos = packet.tos & 3 | value << 2;
        if (stays) flow.tos = packet.tos;
        break;
      case 1:
        packet.ttl = 1 + value;
        if (stays) flow.ttl = packet.ttl;
        break;
      case 2:
        packet.fragment = packet.fragment ^ 0x4000;
        if (stays) flow.fragment = packet.fragment;
        break;
      case 3:
        packet.id = packet.v6 ? value << 14 | 1 : value;
        if (stays) flow.label = value << 14 | 1;
        break;
      case 4:
        packet.macs = [0x56, value];
        if (stays) flow.macs = packet.macs;
        break;
      case 5:
        packet.macs = [value, 0xee];
        break;
      default:
        packet.urgent = value;
    }
  },
  timestamp(packet, flow, detail) {
    if (flow.timestamp === null) flow.timestamp = [detail & 0xff, 5];
    const [value, echo] = flow.timestamp;
    switch (detail % 5) {
      case 0:
        flow.timestamp = [value + (detail >>> 8 & 0xff) >>> 0, echo + (detail >>> 16 & 1) >>> 0];
        break;
      case 1:
        packet.options = timestampBlock(value - 1 >>> 0, echo);
        return;
      case 2:
        packet.options = timestampBlock(value, echo - 1 >>> 0);
        return;
      case 3:
        packet.options = NONE;
        return;
      default:
        flow.timestamp = [value + 0x7fff_ffff + (detail >>> 8 & 3) >>> 0, echo];
    }
    packet.options = timestampBlock(...flow.timestamp);
  },
  tcpOptions(packet, _flow, detail) {
    packet.options = OPTIONS[detail % OPTIONS.length];
    packet.payloadBytes = Math.min(packet.payloadBytes, 60_000);
  },
  dataOffset(packet, _flow, detail) {
    packet.dataOffset = [1, 4, 15, 6, 8][detail % 5];
  },
  badTcp(packet) {
    packet.checksum = "wrong";
  },
  badIp(packet) {
    packet.ipChecksumRight = false;
  },
  badLength(packet, _flow, detail) {
    packet.lengthLie = LENGTH_LIES[detail % LENGTH_LIES.length];
    if ((detail & 0x100) !== 0) packet.padding = 10;
  },
  truncated(packet, _flow, detail) {
    const whole = packet.write();
    return { bytes: whole.slice(0, detail % (detail % 2 === 0 ? whole.length : Math.min(whole.length, 90))) };
  },
  version(packet, _flow, detail) {
    packet.version = 1 + detail % 15;
  },
  ipOptions(packet, _flow, detail) {
    packet.payloadBytes = Math.min(packet.payloadBytes, 60_000);
    if (packet.v6) {
      packet.nextHeader = EXTENSIONS[detail % EXTENSIONS.length];
      // One header or several, up to more than are looked behind; each but the last is hop-by-hop options.
      packet.ipOptions = new Uint8Array(8 * (1 + ((detail >>> 8 & 3) === 3 ? detail >>> 10 & 15 : 0)));
    } else packet.ipOptions = new Uint8Array(4 * (1 + detail % 10)).fill(1);
  },
  fragment(packet, _flow, detail) {
    if (packet.v6) {
      packet.nextHeader = 44;
      packet.ipOptions = Uint8Array.of(0, 0, detail & 0xff, detail >>> 8 & 0xff, 0, 0, 0, 1);
      packet.payloadBytes = Math.min(packet.payloadBytes, 60_000);
    } else packet.fragment = packet.fragment & 0x4000 | 1 + (detail % 0x3fff);
    return { advance: (detail & 0x10000) === 0 ? packet.payloadBytes : 0 };
  },
  vlan(packet, flow, detail) {
    const tag = (bits: number): [number, number] => [
      (bits & 1) === 0 ? 0x8100 : 0x88a8,
      // Mostly the network without a tag, now and then another one, and sometimes a priority.
      [0, 0, 0, 5][bits >>> 1 & 3] | ((bits >>> 3 & 3) === 3 ? 0xb000 : 0),
    ];
    const tags = [tag(detail), tag(detail >>> 5), tag(detail >>> 10)].slice(
      0,
      [1, 1, 2, 3][detail >>> 15 & 3],
    );
    packet.tags = tags;
    if ((detail >>> 17 & 3) === 3) flow.tags = (detail >>> 19 & 1) === 1 ? tags : [];
    if ((detail >>> 20 & 3) === 3) packet.flags |= 1;
    packet.payloadBytes = Math.min(packet.payloadBytes, 60_000);
  },
  form(packet, _flow, detail) {
    packet.payloadBytes = Math.min(packet.payloadBytes, 1000);
    if ((detail >>> 2 & 3) === 3) packet.flags |= 1;
    const frame = packet.write();
    const at = 12 + 4 * packet.tags.length;
    if ((detail & 3) === 0) {
      // LLC/SNAP, behind the tags.
      const length = frame.length - at + 6;
      return { bytes: spliced(frame, at, 0, [length >>> 8, length & 0xff, 0xaa, 0xaa, 3, 0, 0, 0]) };
    }
    if ((detail & 3) === 1) {
      const length = frame.length - at;
      const head = [0x88, 0x64, 0x11, 0, 0, 1, length >>> 8, length & 0xff, 0, packet.v6 ? 0x57 : 0x21];
      return { bytes: spliced(frame, at, 2, head) };
    }
    // What hides the ports: ESP, and AH over IPv4.
    frame[at + (packet.v6 ? 8 : 11)] = packet.v6 || (detail & 1) === 0 ? 50 : 51;
    return { bytes: frame };
  },
  dataValid(packet, _flow, detail) {
    if ((detail & 1) !== 0) packet.checksum = "wrong";
    return { header: headerOf({ flags: 2 }) };
  },
  partial(packet, _flow, detail) {
    packet.checksum = "partial";
    if ((detail & 2) !== 0) pad(packet, detail);
    const csumStart = transportAt(packet) + (detail % 16 === 1 ? 2 : 0);
    return { header: headerOf({ flags: 1, csumStart, csumOffset: detail % 16 === 5 ? 6 : 16 }) };
  },
  large(packet, _flow, detail) {
    packet.checksum = "partial";
    packet.payloadBytes = Math.max(2000, packet.payloadBytes);
    const csumStart = transportAt(packet);
    const ecn = (detail & 7) === 7;
    if (ecn) packet.flags |= 0x80;
    return {
      header: headerOf({
        flags: 1,
        gsoType: (packet.v6 ? 4 : 1) | (ecn ? 0x80 : 0),
        gsoSize: 100 + (detail >>> 3 & 0x3ff),
        hdrLen: csumStart + 20 + packet.options.length,
        csumStart,
        csumOffset: 16,
      }),
    };
  },
  other(packet, _flow, detail) {
    if ((detail & 1) !== 0) return { bytes: otherFrame(detail), advance: 0 };
    packet.protocol = 17;
    packet.payloadBytes = Math.min(packet.payloadBytes, 1400);
    return NO_DATA;
  },
  garbage(packet, _flow, detail) {
    // Bytes of a real frame, a few of them changed: what gets deepest into code that reads.
    const frame = packet.write();
    for (let i = 0, state = detail | 1; i < 1 + (detail & 3); i++) {
      state = Math.imul(state, 0x2c1b3c6d) + 0x3c6ef372 | 0;
      frame[(state >>> 8) % Math.min(frame.length, 80)] = state;
    }
    // What a wrong length leaves of a frame may be less than the header says it is.
    return { bytes: frame.slice(0, (detail & 0x70) === 0 ? detail % 80 : frame.length), advance: 0 };
  },
};

/** Where the TCP header of a packet without IP options is. */
function transportAt({ v6, tags }: Packet): number {
  return (v6 ? 54 : 34) + 4 * tags.length;
}

/** The frame with `head` in place of `count` bytes at `at`. */
function spliced(frame: Uint8Array, at: number, count: number, head: number[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([...frame.subarray(0, at), ...head, ...frame.subarray(at + count)]);
}

function withoutData(packet: Packet, detail: number): void {
  packet.payloadBytes = 0;
  if ((detail & 1) !== 0) packet.padding = packet.v6 || packet.options.length > 0 ? 0 : 6;
  packet.paddingByte = (detail & 2) === 0 ? 0 : 0xee;
}

function pad(packet: Packet, detail: number): void {
  packet.padding = 1 + detail % 46;
  packet.paddingByte = (detail & 0x100) === 0 ? 0 : 0xee;
}

/**
 * An ARP request to everybody, a multicast frame, one to another guest, or an unknown protocol to this one.
 */
function otherFrame(detail: number): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(60);
  const destinations = [[255, 255, 255, 255, 255, 255], [1, 0, 94, 0, 0, 1], [2, 9, 9, 9, 9, 9], [
    0x52,
    0x54,
    0,
    0x12,
    0x34,
    0x56,
  ]];
  frame.set(destinations[detail >>> 1 & 3]);
  frame.set([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee], 6);
  frame.set((detail & 8) === 0 ? [8, 6] : [0x88, 0xb5], 12);
  frame[14] = detail >>> 4;
  frame[15] = detail >>> 12;
  return frame;
}
