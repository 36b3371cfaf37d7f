/**
 * The frame that tells switches where a guest is now: a reverse ARP request, as hypervisors send it after a migration.
 * @module
 */
import { ETHERNET_DESTINATION, ETHERNET_SOURCE, MAC_BYTES } from "../../wire/ethernet.ts";

/** Bytes of the frame: the shortest that Ethernet carries, without its checksum. */
export const RARP_FRAME_BYTES = 60;

const ETHERTYPE_AT = 12;
const PACKET_AT = 14;
const SENDER_MAC_AT = PACKET_AT + 8;
const TARGET_MAC_AT = PACKET_AT + 18;
/** Ethernet, IPv4, address lengths 6 and 4, request 3 (RFC 903). */
const FIXED_PART = [0, 1, 0x08, 0x00, 6, 4, 0, 3];

/** Writes the frame of a guest with this MAC address to `bytes[start]` on: RARP_FRAME_BYTES of them. */
export function writeRarp(bytes: Uint8Array, start: number, mac: Uint8Array): void {
  bytes.fill(0, start, start + RARP_FRAME_BYTES);
  bytes.fill(0xff, start + ETHERNET_DESTINATION, start + ETHERNET_DESTINATION + MAC_BYTES);
  bytes.set(mac, start + ETHERNET_SOURCE);
  bytes[start + ETHERTYPE_AT] = 0x80;
  bytes[start + ETHERTYPE_AT + 1] = 0x35;
  bytes.set(FIXED_PART, start + PACKET_AT);
  bytes.set(mac, start + SENDER_MAC_AT);
  bytes.set(mac, start + TARGET_MAC_AT);
}
