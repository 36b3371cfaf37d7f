/**
 * Ethernet frames without FCS (IEEE 802.3, 802.1Q): offsets, EtherTypes, addresses, VLAN tags.
 * @module
 */

/** Bytes of an address. */
export const MAC_BYTES = 6;
/** Bytes of the header of an untagged frame. */
export const ETHERNET_HEADER_BYTES = 14;
/** Destination address, from the first byte of the frame. */
export const ETHERNET_DESTINATION = 0;
/** Source address. */
export const ETHERNET_SOURCE = 6;
/** EtherType, or the first VLAN tag. */
export const ETHERNET_TYPE = 12;
/** Bytes of a VLAN tag. */
export const VLAN_TAG_BYTES = 4;

/** IPv4. */
export const ETHERTYPE_IPV4 = 0x0800;
/** ARP. */
export const ETHERTYPE_ARP = 0x0806;
/** A customer VLAN tag (802.1Q). */
export const ETHERTYPE_VLAN = 0x8100;
/** IPv6. */
export const ETHERTYPE_IPV6 = 0x86dd;
/** A service VLAN tag (802.1ad). */
export const ETHERTYPE_SERVICE_VLAN = 0x88a8;

/** Is the address at `at` a group address (multicast or broadcast)? */
export function isMulticast(bytes: Uint8Array, at: number): boolean {
  return (bytes[at] & 1) !== 0;
}

/** Is the address at `at` the broadcast address? */
export function isBroadcast(bytes: Uint8Array, at: number): boolean {
  return (bytes[at] & bytes[at + 1] & bytes[at + 2] & bytes[at + 3] & bytes[at + 4] & bytes[at + 5]) === 0xff;
}

/** Are the six bytes at `at` those of `mac`? */
export function macEquals(bytes: Uint8Array, at: number, mac: Uint8Array): boolean {
  return bytes[at] === mac[0] && bytes[at + 1] === mac[1] && bytes[at + 2] === mac[2] &&
    bytes[at + 3] === mac[3] && bytes[at + 4] === mac[4] && bytes[at + 5] === mac[5];
}

/** How an address is written: six pairs of hexadecimal digits, with colons or hyphens between them. */
export const MAC_PATTERN = /^[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})$/;

/** The six bytes of an address written as `52:54:00:12:34:56`, with colons or hyphens. Throws RangeError. */
export function parseMac(text: string): Uint8Array<ArrayBuffer> {
  if (!MAC_PATTERN.test(text)) {
    throw new RangeError(
      `Cannot read MAC address "${text}": it must be six pairs of hexadecimal digits, such as 52:54:00:12:34:56`,
    );
  }
  const mac = new Uint8Array(MAC_BYTES);
  for (let i = 0; i < MAC_BYTES; i++) mac[i] = parseInt(text.slice(3 * i, 3 * i + 2), 16);
  return mac;
}

/** The address at `at` in small letters, such as `52:54:00:12:34:56`. */
export function formatMac(bytes: Uint8Array, at = 0): string {
  let text = "";
  for (let i = 0; i < MAC_BYTES; i++) {
    text += (i === 0 ? "" : ":") + bytes[at + i].toString(16).padStart(2, "0");
  }
  return text;
}

/** The big-endian 16-bit type at `at`; the frame's own is at its first byte + ETHERNET_TYPE. */
export function etherType(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

/** Does this EtherType open a VLAN tag? */
export function isVlanTag(type: number): boolean {
  return type === ETHERTYPE_VLAN || type === ETHERTYPE_SERVICE_VLAN;
}

/**
 * The VLAN id, 0 to 4095, of the customer tag (0x8100) that stands first in the frame; -1 if none does.
 * @param skipsPriority priority tags, those with id 0, name no VLAN: the first one behind them does
 */
export function vlanId(bytes: Uint8Array, start: number, length: number, skipsPriority = false): number {
  const end = start + length;
  for (let at = start + ETHERNET_TYPE; at + VLAN_TAG_BYTES <= end; at += VLAN_TAG_BYTES) {
    if (etherType(bytes, at) !== ETHERTYPE_VLAN) return -1;
    const id = etherType(bytes, at + 2) & 0xfff;
    if (id !== 0 || !skipsPriority) return id;
  }
  return -1;
}
