/**
 * What tests compare: TCP packets (`assertTcp(bytes, hasSeq(1000), hasFlags("ACK"))`), the verdicts of
 * stages, what a bench delivered, and whether all frames are back in their pool.
 * @module
 */
import { AssertionError } from "@std/assert";
import type { FramePool } from "../pipeline/frame_pool.ts";
import type { Rule, VerdictLog } from "../pipeline/stage.ts";
import type { NetHeaderFields as HeaderFields } from "../wire/virtio_net_header.ts";
import type { TcpFlag } from "./packets.ts";
import { type ParsedTcp, parseTcp } from "./parse_tcp.ts";

/** Something that must hold for a TCP packet: null if it does, or else what is wrong, in words. */
export type TcpMatcher = (packet: ParsedTcp) => string | null;

/**
 * Asserts that a frame is a TCP packet for which all matchers hold. The error names everything that is wrong.
 *
 * @example
 * ```ts
 * import { assertTcp, hasFlags, hasRightChecksums, hasSeq } from "./matchers.ts";
 * import { tcp } from "./packets.ts";
 * assertTcp(tcp({ seq: 7, flags: ["ACK", "PSH"] }), hasSeq(7), hasFlags("PSH", "ACK"), hasRightChecksums());
 * ```
 */
export function assertTcp(frame: Uint8Array, ...matchers: readonly TcpMatcher[]): void {
  const packet = parseTcp(frame);
  const problems = matchers.map((matcher) => matcher(packet)).filter((problem) => problem !== null);
  if (problems.length > 0) throw new AssertionError(`The packet is wrong: ${problems.join("; ")}`);
}

/** Its sequence number is `seq`. */
export function hasSeq(seq: number): TcpMatcher {
  return (packet) => same("sequence number", packet.seq, seq);
}

/** Its acknowledgment number is `ack`. */
export function hasAck(ack: number): TcpMatcher {
  return (packet) => same("acknowledgment number", packet.ack, ack);
}

/** Its window is `window`. */
export function hasWindow(window: number): TcpMatcher {
  return (packet) => same("window", packet.window, window);
}

/** It has exactly these flags, in any order. */
export function hasFlags(...flags: readonly TcpFlag[]): TcpMatcher {
  return (packet) => same("flags", [...packet.flags].sort().join(" "), [...flags].sort().join(" "));
}

/** Its data is exactly this. */
export function hasPayload(payload: Uint8Array): TcpMatcher {
  return (packet) => {
    if (packet.payload.length !== payload.length) {
      return same("payload length", packet.payload.length, payload.length);
    }
    const at = payload.findIndex((byte, i) => byte !== packet.payload[i]);
    return at < 0 ? null : same(`payload byte ${at}`, packet.payload[at], payload[at]);
  };
}

/** Its length field is `ipLength`: total length (v4) or payload length (v6). */
export function hasIpLength(ipLength: number): TcpMatcher {
  return (packet) => same("IP length", packet.ipLength, ipLength);
}

/** Both its checksums are right. */
export function hasRightChecksums(): TcpMatcher {
  return (packet) => {
    if (!packet.ipChecksumRight) return "the IP header checksum is wrong";
    return packet.checksumRight ? null : "the TCP checksum is wrong";
  };
}

/**
 * Its IP header checksum is right and its TCP checksum is the pseudo header's sum, as goes with NEEDS_CSUM.
 */
export function hasPartialChecksum(): TcpMatcher {
  return (packet) => {
    if (!packet.ipChecksumRight) return "the IP header checksum is wrong";
    return packet.checksumPartial ? null : "the TCP checksum is not the sum of the pseudo header";
  };
}

function same(what: string, got: number | string, wanted: number | string): string | null {
  return got === wanted ? null : `${what} is ${got}, not ${wanted}`;
}

/** What a stage did with one frame. */
export interface Verdict {
  /** The frame's number in the input. */
  readonly frame: number;
  /** The stage that decided. */
  readonly stage: string;
  /** What it did, by name. */
  readonly verdict: string;
  /** The id of the rule behind it. */
  readonly rule: string;
  /** The number of the frame that opened the coalesced segment concerned, or 0. */
  readonly openedBy: number;
}

/**
 * A verdict log that keeps everything it is told.
 *
 * @example
 * ```ts
 * import { VerdictList } from "./matchers.ts";
 * const list = new VerdictList();
 * list.note(2, "rsc-v4", { verdict: "merged", id: "S7.2", text: "Merges: the next bytes of the flow" }, 1);
 * if (list.of(2).join() !== "merged") throw new Error("unreachable");
 * if (String(list) !== "frame 2: rsc-v4 merged (S7.2), opened by frame 1") throw new Error("unreachable");
 * ```
 */
export class VerdictList implements VerdictLog {
  /** All of them, in order. */
  readonly all: Verdict[] = [];

  /** Keeps a verdict. */
  note(frame: number, stage: string, { verdict, id }: Rule, openedBy: number): void {
    this.all.push({ frame, stage, verdict, rule: id, openedBy });
  }

  /** The names of the verdicts on the frame of this number, in order. */
  of(frame: number): string[] {
    return this.all.filter((verdict) => verdict.frame === frame).map(({ verdict }) => verdict);
  }

  /** All names, in order. */
  get names(): string[] {
    return this.all.map(({ verdict }) => verdict);
  }

  /** One line for each verdict. */
  toString(): string {
    return this.all.map(({ frame, stage, verdict, rule, openedBy }) =>
      `frame ${frame}: ${stage} ${verdict} (${rule})${openedBy === 0 ? "" : `, opened by frame ${openedBy}`}`
    ).join("\n");
  }
}

export type { HeaderFields };

/** A frame that has come out. */
export interface Delivered {
  /** When, in ns. */
  readonly atNs: number;
  /** Its virtio-net header. */
  readonly header: HeaderFields;
  /** Its bytes, a copy. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The queue pair it goes to. */
  readonly queuePair: number;
  /**
   * The number of the frame in the input, or of the first one in a merged frame; 0 behind a ring, where it is
   * lost.
   */
  readonly number: number;
}

/** Facts that are fed along with a frame. */
export interface FrameFacts {
  /** Fields of the virtio-net header; what is left out is 0. */
  readonly header?: Partial<HeaderFields>;
  /** The queue pair it comes on; default 0. */
  readonly queuePair?: number;
  /** Its number in the input; by default they are counted from 1. */
  readonly number?: number;
}

/** Bytes, or an object that can make bytes of itself, such as a `Frame`. */
export type FrameSource = Uint8Array | { toBytes(): Uint8Array };

/** The bytes of a source. */
export function bytesOf(source: FrameSource): Uint8Array {
  return source instanceof Uint8Array ? source : source.toBytes();
}

/** A copy of the fields of a header. */
export function headerFields(header: Readonly<HeaderFields>): HeaderFields {
  const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset } = header;
  return { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset };
}

/**
 * Throws AssertionError unless every frame is back in its pool: none is held, lost or forgotten.
 * @param pool the pool, or an object that has one
 */
export function assertPoolWhole(pool: FramePool | { readonly pool: FramePool }): void {
  const { inUse } = "pool" in pool ? pool.pool : pool;
  if (inUse !== 0) {
    throw new AssertionError(
      `${inUse} frames are not back in the pool: a stage must push on, hold or release each`,
    );
  }
}
