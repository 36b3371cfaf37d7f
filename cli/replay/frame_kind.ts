/**
 * What a frame is, in a word or two: the name of a frame that no stage has judged.
 * @module
 */
import { etherType, ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";

/** EtherTypes below are lengths (IEEE 802.3). */
const MIN_ETHERTYPE = 0x600;
const NAMES: ReadonlyMap<number, string> = new Map([
  [ETHERTYPE_IPV4, "IPv4"],
  [ETHERTYPE_ARP, "ARP"],
  [0x8035, "RARP"],
  [ETHERTYPE_IPV6, "IPv6"],
  [0x8808, "pause frame"],
  [0x8809, "LACP"],
  [0x8847, "MPLS"],
  [0x8848, "MPLS"],
  [0x8863, "PPPoE discovery"],
  [0x8864, "PPPoE"],
  [0x888e, "EAPOL"],
  [0x88cc, "LLDP"],
  [0x88e5, "MACsec"],
  [0x88f7, "PTP"],
]);

const headers = new HeaderLocator();

/** What the frame carries, such as `ARP`, `IPv4 in a VLAN` or `EtherType 0x88b5`. */
export function kindOfFrame(bytes: Uint8Array, at: number, length: number): string {
  headers.locate(bytes, at, length);
  const { etherTypeAt, vlanTags } = headers;
  if (etherTypeAt < 0) return "no EtherType";
  const type = etherType(bytes, etherTypeAt);
  const name = type < MIN_ETHERTYPE
    ? "IEEE 802.3"
    : NAMES.get(type) ?? `EtherType 0x${type.toString(16).padStart(4, "0")}`;
  return vlanTags > 0 ? `${name} in a VLAN` : name;
}
