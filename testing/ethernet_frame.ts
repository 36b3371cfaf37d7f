/**
 * Builders of Ethernet frames.
 * @module
 */
import { ipBytes, macBytes } from "./addresses.ts";

/** The address that frames to the guest have unless told otherwise: the default of the `net` device. */
export const GUEST_MAC = "52:54:00:12:34:56";
/** The address that frames from the network have unless told otherwise. */
export const PEER_MAC = "02:aa:bb:cc:dd:ee";

/** A VLAN tag (IEEE 802.1Q). */
export interface VlanTag {
  /** VLAN id, 0 to 4095. */
  readonly id: number;
  /** Priority, 0 to 7; default 0. */
  readonly priority?: number;
  /** EtherType of the tag; default 0x8100. */
  readonly type?: number;
}

/** The Ethernet part of any frame. */
export interface LinkFields {
  /** Destination address; default {@linkcode GUEST_MAC}. */
  readonly destinationMac?: string;
  /** Source address; default {@linkcode PEER_MAC}. */
  readonly sourceMac?: string;
  /** Tags in front of the EtherType, the outermost first; default none. */
  readonly vlans?: readonly VlanTag[];
  /** EtherType; by default that of the payload. */
  readonly etherType?: number;
  /** Bytes behind the payload that belong to no packet; a number makes so many of 0xee. Default none. */
  readonly padding?: number | Uint8Array;
}

/** A frame of any kind. */
export interface EthernetFields extends LinkFields {
  /** What follows the EtherType; default none. */
  readonly payload?: Uint8Array;
}

/**
 * An Ethernet frame without FCS. The EtherType is by default one for local experiments, 0x88b5.
 *
 * @example
 * ```ts
 * import { ethernet } from "./ethernet_frame.ts";
 * const frame = ethernet({ etherType: 0x88b5, payload: new Uint8Array(46) });
 * if (frame.length !== 60) throw new Error("unreachable");
 * ```
 */
export function ethernet(fields: EthernetFields = {}): Uint8Array<ArrayBuffer> {
  const { vlans = [], payload = new Uint8Array(0), padding = 0 } = fields;
  const behind = typeof padding === "number" ? new Uint8Array(padding).fill(0xee) : padding;
  const headerBytes = 14 + 4 * vlans.length;
  const frame = new Uint8Array(headerBytes + payload.length + behind.length);
  const view = new DataView(frame.buffer);
  frame.set(macBytes(fields.destinationMac ?? GUEST_MAC), 0);
  frame.set(macBytes(fields.sourceMac ?? PEER_MAC), 6);
  for (const [i, { id, priority = 0, type = 0x8100 }] of vlans.entries()) {
    view.setUint16(12 + 4 * i, type);
    view.setUint16(14 + 4 * i, priority << 13 | id);
  }
  view.setUint16(headerBytes - 2, fields.etherType ?? 0x88b5);
  frame.set(payload, headerBytes);
  frame.set(behind, headerBytes + payload.length);
  return frame;
}

/** An ARP packet for IPv4 over Ethernet (RFC 826). */
export interface ArpFields extends LinkFields {
  /** 1 request, 2 reply; default 1. */
  readonly operation?: number;
  /** Protocol address of the sender; default 10.0.0.1. */
  readonly source?: string;
  /** Protocol address that is asked for; default 10.0.0.2. */
  readonly target?: string;
}

/** An ARP frame of 60 bytes; a request is broadcast unless it is told a destination. */
export function arp(fields: ArpFields = {}): Uint8Array<ArrayBuffer> {
  const { operation = 1, source = "10.0.0.1", target = "10.0.0.2" } = fields;
  const payload = new Uint8Array(46);
  const view = new DataView(payload.buffer);
  view.setUint16(0, 1);
  view.setUint16(2, 0x0800);
  payload.set([6, 4], 4);
  view.setUint16(6, operation);
  payload.set(macBytes(fields.sourceMac ?? PEER_MAC), 8);
  payload.set(ipBytes(source), 14);
  if (operation !== 1) payload.set(macBytes(fields.destinationMac ?? GUEST_MAC), 18);
  payload.set(ipBytes(target), 24);
  return ethernet({
    etherType: 0x0806,
    payload,
    ...fields,
    destinationMac: fields.destinationMac ?? (operation === 1 ? "ff:ff:ff:ff:ff:ff" : GUEST_MAC),
  });
}
