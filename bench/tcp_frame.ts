/**
 * A TCP segment that can be sent again and again with the next sequence number, its checksum kept right.
 * @module
 */
import { addToSum, storeChecksum } from "../wire/checksum.ts";
import { ipv4PseudoSum, ipv6PseudoSum, storeIpv4Checksum } from "../wire/tcp_ip.ts";

/** A segment, and how to make the next one of its flow. */
export interface TcpFrame {
  /** The Ethernet frame as it stands. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Moves the sequence number on by `by` bytes. */
  advance(by: number): void;
}

/** A segment of flow number `flow` with `payloadBytes` of data and no options. */
export function tcpFrame(family: "v4" | "v6", flow: number, payloadBytes: number): TcpFrame {
  const ipBytes = family === "v4" ? 20 : 40;
  const tcp = 14 + ipBytes;
  const bytes = new Uint8Array(tcp + 20 + payloadBytes);
  const view = new DataView(bytes.buffer);
  bytes.set([0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);
  const tcpBytes = 20 + payloadBytes;
  if (family === "v4") {
    view.setUint16(12, 0x0800);
    view.setUint16(14, 0x4500);
    view.setUint16(16, 20 + tcpBytes);
    view.setUint16(20, 0x4000);
    view.setUint16(22, 64 << 8 | 6);
    view.setUint32(26, 0x0a000001 + (flow << 8));
    view.setUint32(30, 0x0a000002);
    storeIpv4Checksum(view, 14);
  } else {
    view.setUint16(12, 0x86dd);
    view.setUint32(14, 0x60000000);
    view.setUint16(18, tcpBytes);
    view.setUint16(20, 6 << 8 | 64);
    view.setUint32(22, 0xfd000000);
    view.setUint32(34, 1 + flow);
    view.setUint32(38, 0xfd000000);
    view.setUint32(50, 2);
  }
  view.setUint16(tcp, 1024 + flow);
  view.setUint16(tcp + 2, 80);
  view.setUint32(tcp + 4, 1000);
  view.setUint32(tcp + 8, 1);
  view.setUint16(tcp + 12, 0x5010);
  view.setUint16(tcp + 14, 512);
  for (let i = 0; i < payloadBytes; i++) bytes[tcp + 20 + i] = i * 7;
  const fixed = addToSum(
    view,
    tcp + 20,
    payloadBytes,
    family === "v4" ? ipv4PseudoSum(view, 14, 6, tcpBytes) : ipv6PseudoSum(view, 14, 6, tcpBytes),
  );
  const finish = () => {
    view.setUint16(tcp + 16, 0);
    storeChecksum(view, tcp + 16, addToSum(view, tcp, 20, fixed));
  };
  finish();
  return {
    bytes,
    advance(by: number): void {
      view.setUint32(tcp + 4, view.getUint32(tcp + 4) + by >>> 0);
      finish();
    },
  };
}
