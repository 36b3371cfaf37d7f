/**
 * Segments that come from the network, and the packets that a guest must receive for them: every header
 * field, every byte.
 * @module
 */
import { tcp, type TcpFields, TcpStream } from "../../../testing/mod.ts";
import { stale } from "../../offloads/cases/packets.ts";
import type { GuestPacket, PacketHeader } from "./qtest_net_driver.ts";

/** What tells the families apart: a source address, bytes of IP header, and the type of a large packet. */
export const FAMILIES = {
  IPv4: { source: "10.0.0.1", ipBytes: 20, gsoType: 1, group: "net0.rsc-v4" },
  IPv6: { source: "fd00::1", ipBytes: 40, gsoType: 4, group: "net0.rsc-v6" },
} as const;
/** A family by name. */
export type Family = keyof typeof FAMILIES;

/** Bytes of data in each segment of a burst. */
export const MSS = 1448;

/** Segments of MSS size, one behind the other. */
export function burst(family: Family, count: number): Uint8Array[] {
  const stream = new TcpStream({ source: FAMILIES[family].source });
  return Array.from({ length: count }, () => stream.next(MSS));
}

/** What strict rules make of a burst: by default with the header of a driver without RSC_EXT. */
export function large(
  family: Family,
  count: number,
  header: Partial<PacketHeader> = {},
  fields: TcpFields = {},
): GuestPacket {
  const { source, ipBytes, gsoType } = FAMILIES[family];
  return received(tcp({ source, payload: count * MSS, checksum: "partial", ...fields }), {
    flags: 1,
    gsoType,
    hdrLen: 14 + ipBytes + 20,
    gsoSize: MSS,
    csumStart: 14 + ipBytes,
    csumOffset: 16,
    ...header,
  });
}

/** Header fields of strict rules under RSC_INFO: no duplicate ACK. */
export function rscInfo(segments: number): Partial<PacketHeader> {
  return { flags: 5, csumStart: segments, csumOffset: 0 };
}

/** What the reference makes of segments: RSC_INFO alone, and the checksums of the first of them. */
export function reference(
  family: Family,
  first: Uint8Array,
  fields: TcpFields,
  segments: number,
): GuestPacket {
  const { source, gsoType } = FAMILIES[family];
  return received(stale(first, { source, ...fields }), { flags: 4, gsoType, csumStart: segments });
}

/** A frame as it came, without anything in its header. */
export function plain(frame: Uint8Array): GuestPacket {
  return received(frame, {});
}

/** A packet in the buffers of the driver. @param header what of it is not 0 */
export function received(frame: Uint8Array, header: Partial<PacketHeader>): GuestPacket {
  const nothing = { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
  const buffers = Math.ceil((12 + frame.length) / 4096);
  return { header: { ...nothing, ...header }, buffers, bytes: Uint8Array.from(frame) };
}
