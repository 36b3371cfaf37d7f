/**
 * All that IPv4 and IPv6 do differently in a chain.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import type { Segment } from "./segment.ts";
import type { Unit } from "./unit.ts";

/** Why a frame is no segment that could be merged, under strict rules, or `segment` if it is one. */
export type Located =
  | "segment"
  | "not_tcp"
  | "too_short"
  | "bad_version"
  | "ip_options"
  | "extension_header"
  | "fragment"
  | "bad_length"
  | "bad_ip_checksum"
  | "bad_data_offset";

/** What the reference's own checks say: `candidate`, or the counter under which it lets the frame pass. */
export type QemuLocated =
  | "candidate"
  | "bypass_not_tcp"
  | "ip_option"
  | "ip_frag"
  | "ip_ecn"
  | "ip_hacked"
  | "uncounted";

/** One address family. The chain decides; a family locates headers, tells what must be equal, and writes lengths. */
export interface RscFamily {
  /** `v4` or `v6`. */
  readonly name: "v4" | "v6";
  /** IP version. */
  readonly version: 4 | 6;
  /** EtherType of its frames. */
  readonly etherType: number;
  /** gso_type of a merged unit: TCPV4 1 or TCPV6 4. */
  readonly gsoType: number;
  /** Feature bit without which the guest takes no merged unit of this family: GUEST_TSO4 or GUEST_TSO6. */
  readonly guestTso: number;
  /** 32-bit words of a flow's key; the last holds the ports. */
  readonly keyWords: number;
  /** Bytes of IP header. */
  readonly ipHeaderBytes: number;
  /** Bytes of IP header that the IP length field does not count. */
  readonly ipHeaderUncounted: number;
  /** Largest value of the IP length field under strict rules. */
  readonly mostIpLength: number;
  /** Largest value of the IP length field under the reference's rules. */
  readonly mostIpLengthQemu: number;

  /**
   * Finds the segment behind the link header in the first piece of a frame, from `segment.ipAt` on, checking every length,
   * and fills `segment`: all of it where the answer is `segment`.
   */
  locate(frame: Frame, segment: Segment): Located;
  /** Fills the addresses of the key from where they are. */
  fillAddresses(view: DataView, segment: Segment, sourceAt: number, destinationAt: number): void;
  /** The reference's checks, in its order; fills all fields of `segment` that its rules need if it is a candidate. */
  locateQemu(frame: Frame, segment: Segment): QemuLocated;
  /** The sum of the pseudo header for a TCP segment of `tcpBytes`, from the addresses at `ipAt`. */
  pseudoSum(view: DataView, ipAt: number, tcpBytes: number): number;
  /** The sum over pseudo header and segment of a TCP segment of `tcpBytes` in one piece, behind an IP header without options. */
  segmentSum(view: DataView, ipAt: number, tcpBytes: number): number;
  /** Writes the IP length of a unit, and under strict rules (`renew`) hop limit and header checksum as well. */
  finish(view: DataView, unit: Unit, renew: boolean): void;
}
