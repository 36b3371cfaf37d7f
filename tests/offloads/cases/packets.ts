/** The packets that the numbered cases are about, and what must come of them. */
import { parseTcp, tcp, type TcpFields } from "../../../testing/mod.ts";

/** A packet of the flow that all cases are about, with 100 bytes of data unless told otherwise. */
export function packet(fields: TcpFields = {}): Uint8Array<ArrayBuffer> {
  return tcp({ payload: 100, ...fields });
}

/** The same over IPv6. */
export function packet6(fields: TcpFields = {}): Uint8Array<ArrayBuffer> {
  return packet({ source: "fd00::1", ...fields });
}

/** The packet without data. */
export function pureAck(fields: TcpFields = {}): Uint8Array<ArrayBuffer> {
  return tcp(fields);
}

export const A = packet();
export const B = packet({ seq: 1100 });
export const C = packet({ seq: 1200 });
export const K = pureAck();

/**
 * A merged packet of the reference: as its fields say, but with the stale checksums of the packet that opened
 * it.
 */
export function stale(opener: Uint8Array, fields: TcpFields): Uint8Array<ArrayBuffer> {
  const { ipChecksum, checksum } = parseTcp(opener);
  return tcp({ ipChecksum, checksum, ...fields });
}

/** A merged packet under strict rules: the TCP checksum is left to the guest. */
export function merged(fields: TcpFields): Uint8Array<ArrayBuffer> {
  return tcp({ checksum: "partial", ...fields });
}

/** The bytes one behind the other. */
export function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** A copy with the 16-bit number at `at` replaced. */
export function patch16(bytes: Uint8Array, at: number, value: number): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(bytes);
  new DataView(copy.buffer).setUint16(at, value);
  return copy;
}
