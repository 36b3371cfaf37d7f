/**
 * Payloads as a front-end writes them, by hand: independent of the codec under test.
 * @module
 */
import { encode } from "../../transports/vhost_user/messages.ts";
import { GUEST_BASE, GUEST_BYTES, USER_OFFSET } from "./guest.ts";

/** 64 bits. */
export function u64(value: bigint | number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value), true);
  return bytes;
}

/** Two words. */
export function pair(first: number, second: number): Uint8Array {
  return words(first, second);
}

/** Any number of 32-bit words. */
export function words(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => view.setUint32(4 * i, value, true));
  return bytes;
}

/** Parts one after the other. */
export function concat(...parts: Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Where a region lies; the guest's whole memory by default. */
export interface Place {
  readonly guestAddress?: number;
  readonly size?: number;
  readonly userAddress?: number;
  readonly mapOffset?: number;
}

/** A region as it stands in a table: guest address, size, user address, offset. */
export function region(place: Place = {}): Uint8Array {
  const guestAddress = place.guestAddress ?? GUEST_BASE;
  return concat(
    u64(guestAddress),
    u64(place.size ?? GUEST_BYTES),
    u64(place.userAddress ?? guestAddress + USER_OFFSET),
    u64(place.mapOffset ?? 0),
  );
}

/** A whole table. */
export function table(...regions: Uint8Array[]): Uint8Array {
  return concat(words(regions.length, 0), ...regions);
}

/** A whole message. */
export function message(
  id: number,
  payload: Uint8Array = new Uint8Array(0),
  flags = 0,
): Uint8Array<ArrayBuffer> {
  return encode(id, flags, payload);
}
