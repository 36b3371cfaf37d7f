/**
 * Prints a row of the table in README.md for each capture: packets, bytes, TCP data segments to and from the
 * guest, the median distance of data segments in bursts, and what does not belong into a capture (a wrong TCP
 * checksum).
 *
 *     describe.ts FILE...
 */
import { CaptureReader } from "../../transports/pcap/capture_reader.ts";

const GUEST_MAC = [0x52, 0x54, 0, 0, 0, 1];
/** Segments further apart than this are not of one burst. */
const BURST_GAP_NS = 300_000;

interface Segment {
  toGuest: boolean;
  payload: number;
  checksumRight: boolean;
}

function parse(bytes: Uint8Array): Segment | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const type = view.getUint16(12);
  let sum = 6;
  let at = 14;
  let end: number;
  let addresses: number;
  if (type === 0x0800 && bytes[23] === 6) {
    at += (bytes[14] & 15) * 4;
    end = 14 + view.getUint16(16);
    addresses = 26;
  } else if (type === 0x86dd && bytes[20] === 6) {
    at += 40;
    end = 54 + view.getUint16(18);
    addresses = 22;
  } else return null;
  sum += end - at;
  const addressesEnd = type === 0x0800 ? 34 : 54;
  for (let i = addresses; i < addressesEnd; i += 2) sum += view.getUint16(i);
  for (let i = at; i < end; i += 2) sum += i + 1 < end ? view.getUint16(i) : bytes[i] << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return {
    toGuest: GUEST_MAC.every((byte, i) => bytes[i] === byte),
    payload: end - at - (bytes[at + 12] >>> 4) * 4,
    checksumRight: sum === 0xffff,
  };
}

console.log(
  "file | format | packets | frame bytes | data segments to / from guest | per 300 us | bad checksums",
);
for (const path of Deno.args) {
  using reader = CaptureReader.open(path);
  let [frameBytes, toGuest, fromGuest, bad, bursts, burstNs] = [0, 0, 0, 0, 0, 0];
  let lastNs = -Infinity;
  while (reader.next()) {
    const packet = reader.packet;
    frameBytes += packet.length;
    const segment = parse(packet.toBytes());
    if (segment === null) continue;
    if (!segment.checksumRight) bad++;
    if (segment.payload === 0) continue;
    if (segment.toGuest) toGuest++;
    else fromGuest++;
    if (segment.payload < 1000) continue;
    if (packet.timeNs - lastNs < BURST_GAP_NS) {
      bursts++;
      burstNs += packet.timeNs - lastNs;
    }
    lastNs = packet.timeNs;
  }
  const density = bursts === 0 ? "-" : (300_000 * bursts / burstNs).toFixed(0);
  const name = path.slice(path.lastIndexOf("/") + 1);
  console.log(
    [name, reader.format, reader.counters.read, frameBytes, `${toGuest} / ${fromGuest}`, density, bad].join(
      " | ",
    ),
  );
}
