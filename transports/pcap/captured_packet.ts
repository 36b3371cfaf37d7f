/**
 * One packet of a capture, and what a parser says after each step.
 * @module
 */

/** The link type of Ethernet, in pcap and pcapng. */
export const LINKTYPE_ETHERNET = 1;

/** The most captured bytes of one packet, the limit of the usual tools: a file that claims more is damaged. */
export const MAX_CAPTURED_BYTES = 262_144;

/** The most packets whose numbers are listed one by one; the counter goes on. */
export const MAX_LISTED_PACKETS = 1000;

/**
 * What a step found: a `whole` Ethernet frame; a packet that was `snapped` (the capture has not all of its bytes); one
 * of another link type; `other`, something that is no packet; or the `end` of the file.
 */
export type CaptureStep = "whole" | "snapped" | "otherLinkType" | "other" | "end";

/** Which way a packet went at the interface where it was captured, as in the two lowest bits of `epb_flags`. */
export type PacketDirection = 0 | 1 | 2;

/** No direction was recorded. */
export const DIRECTION_UNKNOWN = 0;
/** The packet came in. */
export const DIRECTION_INBOUND = 1;
/** The packet went out. */
export const DIRECTION_OUTBOUND = 2;

/** The packet found last. One object, filled over and over; its bytes are valid until the next step. */
export class CapturedPacket {
  /** Its number in the file, from 1, packets of every kind counted. */
  number = 0;
  /** Offset of its record or block from the start of the file. */
  offset = 0;
  /** When it was captured, in ns from the first packet of the file; negative if it is older. */
  timeNs = 0;
  /** The interface it came from: its number within the section; 0 in a pcap file. */
  interfaceId = 0;
  /** Which way it went. */
  direction: PacketDirection = DIRECTION_UNKNOWN;
  /** The storage its bytes lie in. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Where in `bytes` it begins. */
  at = 0;
  /** Bytes captured, less a frame check sequence. */
  length = 0;
  /** Bytes it had on the wire, less a frame check sequence. */
  originalLength = 0;

  /**
   * A packet of length 0.
   * @param bytes the storage packets lie in
   */
  constructor(bytes: Uint8Array<ArrayBuffer>) {
    this.bytes = bytes;
  }

  /** Copies the packet to `target` from `to` on. */
  copyTo(target: Uint8Array, to: number): void {
    target.set(new Uint8Array(this.bytes.buffer, this.at, this.length), to);
  }

  /** A copy of the packet, for tests and edges; allocates. */
  toBytes(): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(this.at, this.at + this.length);
  }

  /** Takes the lengths of a record, without the `fcsBytes` of its frame check sequence. */
  setLengths(at: number, captured: number, original: number, fcsBytes: number): void {
    this.at = at;
    this.originalLength = Math.max(0, original - fcsBytes);
    this.length = Math.min(captured, this.originalLength);
  }
}

const LINK_TYPE_NAMES: Readonly<Record<number, string>> = {
  0: "BSD loopback",
  1: "Ethernet",
  6: "Token Ring",
  9: "PPP",
  10: "FDDI",
  12: "raw IP",
  14: "raw IP",
  101: "raw IP",
  105: "IEEE 802.11",
  108: "OpenBSD loopback",
  113: "Linux cooked capture",
  127: "IEEE 802.11 with radiotap header",
  147: "user 0",
  228: "raw IPv4",
  229: "raw IPv6",
  239: "Linux netfilter log",
  249: "USB with USBPcap header",
  252: "Wireshark upper PDU",
  253: "Linux netlink",
  274: "Ethernet MPacket",
  276: "Linux cooked capture v2",
};

/** A link type in words, with its number. */
export function linkTypeName(linkType: number): string {
  const name = LINK_TYPE_NAMES[linkType];
  return name === undefined ? String(linkType) : `${linkType} (${name})`;
}
