import { type FrameBatch, MAX_FRAME_BYTES, type NetHeader } from "../../../pipeline/frame.ts";
import type { FramePool } from "../../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { macBytes, tcp, udp } from "../../../testing/mod.ts";
import { GUEST_MAC } from "./testpmd.ts";

/**
 * A network that makes numbered frames to order, and keeps account of what comes.
 */

const GUEST = macBytes(GUEST_MAC);
/** Where the number of a frame stands: behind Ethernet, IPv4 and TCP. */
const NUMBER_AT = 54;
const SOURCE_PORT_AT = 34;
const DATA_AT = NUMBER_AT + 4;

/** What a frame is made from. */
export interface Template {
  readonly bytes: Uint8Array;
  /** Fields of its virtio header that are not 0. */
  readonly header?: Partial<NetHeader>;
  /** Is it given a number and one of 64 flows, or sent as it is? */
  readonly numbered: boolean;
}

/** A frame of this length, 58 at least, with UDP and no checksum. */
export function plain(lengthBytes: number): Template {
  const bytes = udp({ destinationMac: GUEST_MAC, payload: lengthBytes - 42, checksum: 0 });
  return { bytes, numbered: true };
}

/**
 * A frame of this length, to be segmented by the one that sends it on, with TCP and a checksum yet to be
 * completed.
 */
export function large(lengthBytes: number): Template {
  const bytes = tcp({ destinationMac: GUEST_MAC, payload: lengthBytes - 54, checksum: "partial" });
  const header = { flags: 1, gsoType: 1, gsoSize: 1448, hdrLen: 54, csumStart: 34, csumOffset: 16 };
  return { bytes, header, numbered: true };
}

/** The network. */
export class Account implements FrameTransport {
  /** The longest frame that is taken. */
  readonly maxFrameBytes: number;
  readonly capabilities: OffloadCapabilities = OffloadCapabilities.none;
  readonly queuePairs = 1;
  readonly #pool: FramePool;
  readonly #wake: () => void;
  #templates: readonly Template[] = [];
  #limit = 0;
  #made = 0;
  #expectedBytes = 0;
  #seen = new Uint8Array(0);
  /** Frames that came. */
  received = 0;
  /** Frames that came of the expected length. */
  rightLength = 0;
  /** Ordered frames that came back for the first time, every byte behind the headers as it went. */
  returned = 0;
  /** Frames that came from the address to which ours went. */
  swapped = 0;

  constructor(pool: FramePool, wake: () => void, maxFrameBytes: number = MAX_FRAME_BYTES) {
    this.maxFrameBytes = maxFrameBytes;
    this.#pool = pool;
    this.#wake = wake;
  }

  /** Begins a new account, of frames of this length. */
  expect(lengthBytes: number): void {
    this.received = 0;
    this.rightLength = 0;
    this.returned = 0;
    this.swapped = 0;
    this.#expectedBytes = lengthBytes;
    this.#seen = new Uint8Array(0);
  }

  /** Begins a new account, and makes so many frames in turn from these, as fast as the device takes them. */
  order(count: number, templates: readonly Template[]): void {
    this.expect(0);
    this.#templates = templates;
    this.#seen = new Uint8Array(count);
    this.#made = 0;
    this.#limit = count;
    this.#wake();
  }

  receive(out: FrameBatch, limit: number, _queue: number, _nowNs: number): number {
    let count = 0;
    for (; count < limit && this.#made < this.#limit; count++) {
      const { bytes, header, numbered } = this.#templates[this.#made % this.#templates.length];
      const frame = this.#pool.takeCopy(bytes);
      if (frame === null) break;
      Object.assign(frame.header, header);
      if (numbered) {
        frame.view.setUint16(frame.start + SOURCE_PORT_AT, 1000 + (this.#made & 63));
        frame.view.setUint32(frame.start + NUMBER_AT, this.#made);
      }
      this.#made++;
      out.push(frame);
    }
    return count;
  }

  send(batch: FrameBatch, _queue: number, _nowNs: number): number {
    const count = batch.length;
    for (let i = 0; i < count; i++) {
      const frame = batch.at(i);
      const { bytes, start, length, total } = frame;
      this.received++;
      if (total === this.#expectedBytes) this.rightLength++;
      if (bytes[start + 11] === GUEST[5]) this.swapped++;
      const number = length > DATA_AT ? frame.view.getUint32(start + NUMBER_AT) : Infinity;
      if (number < this.#seen.length && this.#seen[number]++ === 0 && this.#isIntact(number, frame)) {
        this.returned++;
      }
      frame.release();
    }
    return count;
  }

  [Symbol.dispose](): void {}

  #isIntact(number: number, { bytes, start, length }: ReturnType<FrameBatch["at"]>): boolean {
    const sent = this.#templates[number % this.#templates.length].bytes;
    let at = length === sent.length ? DATA_AT : -1;
    while (at >= 0 && at < length && bytes[start + at] === sent[at]) at++;
    return at === length;
  }
}
