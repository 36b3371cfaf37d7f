/**
 * From steps to frames: what the peers of a guest send, in good times and bad.
 *
 * Each flow has a state (next sequence number, last ACK, whether it uses timestamps …); a step changes it and
 * makes zero, one or more frames. Flows come in families of eight: both IP versions, both directions, and
 * several ports between the same addresses.
 * @module
 */
import { MAX_FRAME_BYTES, NONE, Packet, timestampBlock } from "./packet.ts";
import type { FrameKind } from "./scenario.ts";
import { headerOf, type NetHeaderFields, SHAPERS } from "./shapes.ts";

/** A frame to be put in, and what the network says of it. */
export interface Injection {
  /** The frame. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Its virtio header. */
  readonly header: NetHeaderFields;
}

/** Most of them small, which is where the trouble is; the last ones are the limits of the two families. */
const SIZES = [100, 1, 2, 3, 8, 64, 100, 200, 255, 256, 257, 300, 536, 600, 1000, 1447, 1448, 1460]
  .concat([100, 1, 500, 1448, 100, 20, 333, 1448, 40, 7, 4000, 8948, 16_000, 32_000, 32_740, 32_755, 32_775])
  .concat([65_483, 65_495, 65_515]);

/** Which of the sizes is this one? For scenarios that are written by hand. */
export function sizeOf(bytes: number): number {
  return SIZES.indexOf(bytes);
}

/** How many sizes there are. */
export const SIZE_COUNT: number = SIZES.length;

/** One direction of a connection. */
export class FlowState {
  /** Its number. */
  readonly index: number;
  /** Sequence number of the next byte. */
  seq: number;
  /** Last acknowledgment. */
  ack = 1;
  /** Window. */
  window = 500;
  /** TOS or traffic class. */
  tos = 0;
  /** TTL. */
  ttl = 64;
  /** IPv4 flags. */
  fragment = 0x4000;
  /** IPv6 flow label. */
  label = 1;
  /** Flags beside ACK. */
  flags = 0;
  /** Timestamps, if in use. */
  timestamp: [value: number, echo: number] | null;
  /** MAC addresses. */
  macs: [number, number] = [0x56, 0xee];
  /** VLAN tags. */
  tags: readonly (readonly [type: number, tci: number])[] = [];
  /** Bytes of the last data segment. */
  lastBytes = 0;
  /** The last frame. */
  last: Injection | null = null;

  /** Begins a flow. */
  constructor(index: number) {
    this.index = index;
    // Every third flow wraps its sequence numbers and timestamps soon.
    this.seq = index % 3 === 2 ? 0xffff_ff80 : 1000 * index;
    this.timestamp = index % 4 === 3 ? [index % 3 === 2 ? 0xffff_fffe : 7, 3] : null;
  }
}

/** Makes the frames of one stream. */
export class Traffic {
  readonly #flows = new Map<number, FlowState>();

  /** The frames that a step makes. */
  frames(kind: FrameKind, flowNumber: number, size: number, detail: number): Injection[] {
    let flow = this.#flows.get(flowNumber);
    if (flow === undefined) this.#flows.set(flowNumber, flow = new FlowState(flowNumber));
    const bytes = SIZES[size % SIZES.length];
    switch (kind) {
      case "gap":
        flow.seq = flow.seq + bytes >>> 0;
        return [];
      case "duplicate":
        return flow.last === null ? [] : [flow.last];
      case "burst": {
        const count = (detail & 0xf000) === 0 ? 50 : 2 + detail % 8;
        const burst = Array.from({ length: count }, () => this.#make("next", flow, bytes, 0));
        flow.last = burst[count - 1];
        return burst;
      }
      case "control": {
        // Two alike, now and then: what differs from the segment before is not merged anyhow.
        const two = (detail & 0x400) !== 0;
        const made = [
          this.#make(kind, flow, bytes, detail),
          ...two ? [this.#make(kind, flow, bytes, detail)] : [],
        ];
        flow.last = made[0];
        return made;
      }
      case "swapped": {
        const first = this.#make("next", flow, bytes, 0);
        const second = this.#make("next", flow, bytes, detail);
        return [second, first];
      }
      default: {
        const made = this.#make(kind, flow, bytes, detail);
        flow.last = made;
        return [made];
      }
    }
  }

  #make(kind: FrameKind, flow: FlowState, bytes: number, detail: number): Injection {
    const packet = packetOf(flow, bytes);
    const before = flow.seq;
    const shaped = SHAPERS[kind]?.(packet, flow, detail) ?? {};
    const frame = shaped.bytes ?? packet.write();
    const sent = shaped.advance ?? (packet.seq === before ? packet.payloadBytes : 0);
    flow.seq = flow.seq + sent >>> 0;
    if (sent > 0) flow.lastBytes = sent;
    const cut = frame.length > MAX_FRAME_BYTES ? frame.subarray(0, MAX_FRAME_BYTES) : frame;
    return { bytes: cut, header: shaped.header ?? headerOf({}) };
  }
}

/** The next segment of a flow, if nothing unusual happens. */
function packetOf(flow: FlowState, bytes: number): Packet {
  const packet = new Packet();
  const { index } = flow;
  packet.v6 = (index & 1) === 1;
  const reverse = (index & 2) !== 0;
  const host = 1 + (index >> 4) * 2;
  packet.source = reverse ? host + 1 : host;
  packet.destination = reverse ? host : host + 1;
  const port = 1000 + (index >> 2);
  packet.sourcePort = reverse ? 80 : port;
  packet.destinationPort = reverse ? port : 80;
  packet.salt = index;
  packet.tos = flow.tos;
  packet.ttl = flow.ttl;
  packet.fragment = flow.fragment;
  packet.id = packet.v6 ? flow.label : flow.seq & 0xffff;
  packet.macs = flow.macs;
  packet.tags = flow.tags;
  packet.seq = flow.seq;
  packet.ack = flow.ack;
  packet.window = flow.window;
  packet.flags = 0x10 | flow.flags;
  packet.options = flow.timestamp === null ? NONE : timestampBlock(...flow.timestamp);
  // No segment is longer than its IP packet can say.
  packet.payloadBytes = Math.min(bytes, 65_535 - 20 - packet.options.length - (packet.v6 ? 0 : 20));
  return packet;
}
