import { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { CaptureWriter } from "../../transports/pcap/capture_writer.ts";
import { DIRECTION_INBOUND, DIRECTION_OUTBOUND } from "../../transports/pcap/captured_packet.ts";

/**
 * Turns a capture into pcapng with directions, or classic pcap (by the target's name), with our own reader
 * and writer.
 *
 *     convert.ts SOURCE TARGET GUEST_MAC
 */

const [source, target, guestMac] = Deno.args;
const guest = guestMac.split(":").map((byte) => parseInt(byte, 16));
using reader = CaptureReader.open(source);
let writer: CaptureWriter | null = null;
while (reader.next()) {
  writer ??= CaptureWriter.open(target, reader.startUnixNs);
  const bytes = reader.packet.toBytes();
  const fromGuest = guest.every((byte, i) => bytes[6 + i] === byte);
  writer.writeBytes(bytes, fromGuest ? DIRECTION_OUTBOUND : DIRECTION_INBOUND, reader.packet.timeNs);
}
await writer?.close();
