/**
 * The facts about one TCP segment, found once and then trusted.
 * @module
 */

/** Words of the key: two IPv6 addresses and the ports. IPv4 uses the first three. */
export const MAX_KEY_WORDS = 9;

/**
 * One segment, as `RscFamily` located it. One object, refilled for each frame. Offsets are absolute, into the storage of
 * the frame. 32-bit fields are signed: only differences and equality of them are ever used.
 */
export class Segment {
  /** First byte of the IP header; set before the family locates the rest. */
  ipAt = 0;
  /** Which VLAN it is of, as `HeaderLocator` tells; 0 for the untagged network. */
  vlan = 0;
  /** Bytes of VLAN tags, those with id 0 included: 0, 4 or 8 if the segment may be merged. */
  tagBytes = 0;
  /** The outer tag, type and TCI; 0 if there is none. */
  outerTag = 0;
  /** The inner one. */
  innerTag = 0;
  /** First byte of the TCP header. */
  tcpAt = 0;
  /** Bytes of the TCP header, as its data offset says. */
  tcpHeaderBytes = 0;
  /** First byte of payload. */
  payloadAt = 0;
  /** Bytes of payload, as the IP length says. */
  payloadBytes = 0;
  /** The IP length field: total length (v4) or payload length (v6). */
  ipLength = 0;
  /** Sequence number. */
  seq = 0;
  /** Acknowledgment number. */
  ack = 0;
  /** Window, as in the header. */
  window = 0;
  /** The 16-bit word of data offset and flags. */
  offsetFlags = 0;
  /** What of the IP header must be equal in all segments of a unit: DSCP, ECN and DF, or traffic class and flow label. */
  traits = 0;
  /** ECN bits of the IP header. */
  ecn = 0;
  /** TTL or hop limit. */
  hopLimit = 0;
  /** Does the header carry the timestamp block, and nothing else? */
  hasTimestamp = false;
  /** TSval, if so. */
  tsValue = 0;
  /** TSecr, if so. */
  tsEcho = 0;
  /** Source address, destination address, ports; in network order, as 32-bit words. */
  readonly key: Int32Array<ArrayBuffer> = new Int32Array(MAX_KEY_WORDS);
}
