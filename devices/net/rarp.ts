/**
 * The frame that tells switches where a guest is now: a reverse ARP request, as hypervisors send it after a migration.
 * @module
 */
import { FrameBatch } from "../../pipeline/frame_batch.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameSink } from "../../pipeline/pipeline.ts";
import { ETHERNET_DESTINATION, ETHERNET_SOURCE, MAC_BYTES } from "../../wire/ethernet.ts";

/** Bytes of the frame: the shortest that Ethernet carries, without its checksum. */
const RARP_FRAME_BYTES = 60;

const ETHERTYPE_AT = 12;
const PACKET_AT = 14;
const SENDER_MAC_AT = PACKET_AT + 8;
const TARGET_MAC_AT = PACKET_AT + 18;
/** Ethernet, IPv4, address lengths 6 and 4, request 3 (RFC 903). */
const FIXED_PART = [0, 1, 0x08, 0x00, 6, 4, 0, 3];

/** Sends such frames. */
export class RarpSender {
  readonly #pool: FramePool;
  readonly #sink: FrameSink;
  readonly #batch = new FrameBatch(1);

  /** Takes frames from `pool`, and hands them to `sink`. */
  constructor(pool: FramePool, sink: FrameSink) {
    this.#pool = pool;
    this.#sink = sink;
  }

  /** Sends the frame of the guest with this MAC address, six bytes; nothing if the pool is empty. */
  send(mac: Uint8Array, nowNs: number): void {
    const frame = this.#pool.take(RARP_FRAME_BYTES);
    if (frame === null) return;
    writeRarp(frame.bytes, frame.start, mac);
    this.#batch.push(frame);
    this.#sink.accept(this.#batch, nowNs);
  }
}

function writeRarp(bytes: Uint8Array, start: number, mac: Uint8Array): void {
  bytes.fill(0, start, start + RARP_FRAME_BYTES);
  bytes.fill(0xff, start + ETHERNET_DESTINATION, start + ETHERNET_DESTINATION + MAC_BYTES);
  bytes.set(mac, start + ETHERNET_SOURCE);
  bytes[start + ETHERTYPE_AT] = 0x80;
  bytes[start + ETHERTYPE_AT + 1] = 0x35;
  bytes.set(FIXED_PART, start + PACKET_AT);
  bytes.set(mac, start + SENDER_MAC_AT);
  bytes.set(mac, start + TARGET_MAC_AT);
}
