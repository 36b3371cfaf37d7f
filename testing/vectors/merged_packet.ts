/**
 * Packets made of segments: which inputs of a flow each output is made of (`partition`), and what must hold
 * of one made of several (`checkMergedPacket`): contents, headers, and that the segments may be merged at
 * all.
 * @module
 */
import type { NetHeader } from "../../pipeline/frame.ts";
import type { VectorPacket } from "./format.ts";
import type { TcpView } from "./tcp_view.ts";

const MAX_PACKET_BYTES = 65_589;
const NEEDS_CSUM = 1;
const RSC_INFO = 4;
const GSO_ECN = 0x80;
const UNMERGEABLE = 0x027;
const ACK = 0x010;
const PSH = 0x008;
const ECE_OR_CWR = 0x0c0;
const CONGESTION = 0x1c0;

/** A frame that went in. */
export interface ConservedInput {
  /** When, in ns. */
  readonly atNs: number;
  /** The Ethernet frame. */
  readonly bytes: Uint8Array;
  /** The virtio header that came with it. */
  readonly header: Readonly<Omit<NetHeader, "clear" | "copyFrom">>;
  /** Did it come while its family was not coalesced? Then it must leave alone. Default false. */
  readonly alone?: boolean;
  /** May segments with ECN marks be merged? Default true. */
  readonly ecn?: boolean;
  /** Does the guest know DATA_VALID? Default true; otherwise that flag is taken off. */
  readonly dataValid?: boolean;
}

/** A packet that came out. */
export interface ConservedOutput {
  /** When, in ns. */
  readonly atNs: number;
  /** The Ethernet frame. */
  readonly bytes: Uint8Array;
  /** Its header, as recorded. */
  readonly hdr: VectorPacket["hdr"];
  /** The queue pair; default 0. Order only counts within one. */
  readonly queue?: number;
}

/** Under what conditions. */
export interface ConservationOptions {
  /** The longest that a unit may be held, in ns; Infinity if the guest was starved of buffers. */
  readonly intervalNs: number;
  /** Did the guest accept RSC_EXT? Then merged units carry RSC_INFO, and otherwise none does. */
  readonly rscInfo: boolean;
  /** Most segments in a unit; default any number. */
  readonly maxSegments?: number;
  /** May segments with timestamps be merged? Default true. */
  readonly timestamps?: boolean;
  /** Must a packet leave as soon as a segment with PSH is in it? Default false. */
  readonly flushOnPush?: boolean;
  /** Was the device reset at the end? Then what it held is gone; see `left`. Default false. */
  readonly endsInReset?: boolean;
}

/** A segment that a packet is made of. */
export interface Part {
  /** The frame as it came. */
  readonly input: ConservedInput;
  /** The same, read. */
  readonly view: TcpView;
}

/** Tells `say` every violation in a packet that `parts` were made into, the first of which opened it. */
export function checkMergedPacket(
  output: ConservedOutput,
  view: TcpView,
  parts: readonly Part[],
  options: ConservationOptions,
  say: (text: string) => void,
): void {
  if (parts.length > 1) {
    if (output.bytes.length > MAX_PACKET_BYTES) {
      say(`${output.bytes.length} bytes are more than a packet can have`);
    }
    checkMayMerge(parts, options, say);
    checkSteps(parts, say);
  }
  checkContent(output, view, parts, say);
  checkFirstHeaders(view, parts, say);
  checkNetHeader(output, view, parts, options, say);
}

/** Is every segment one that may be merged, and with the first one? */
function checkMayMerge(
  parts: readonly Part[],
  options: ConservationOptions,
  say: (text: string) => void,
): void {
  for (const part of parts) {
    const objection = objectionTo(part, options) ?? disagreement(part.view, parts[0].view);
    if (objection !== null) say(objection);
  }
  const segments = parts.filter(({ view }) => view.payload.length > 0).length;
  if (segments > (options.maxSegments ?? Infinity)) {
    say(`has ${segments} segments, allowed are ${options.maxSegments}`);
  }
}

/** Why this segment must not be merged with any other; null if it may. */
export function objectionTo({ view, input }: Part, options: ConservationOptions): string | null {
  const { header } = input;
  if (input.alone === true) return "a segment was merged that came while that was off";
  if (!view.ipChecksumRight) return "a segment with a wrong IPv4 header checksum was merged";
  if (!view.tcpChecksumRight && (header.flags & 3) === 0) return "a segment with a wrong checksum was merged";
  if ((header.flags & NEEDS_CSUM) !== 0 && (header.csumStart !== view.tcpAt || header.csumOffset !== 16)) {
    return "a segment with a partial checksum of something else was merged";
  }
  if (header.gsoType !== 0) return "a packet that was large already was merged";
  if ((view.flags & UNMERGEABLE) !== 0 || (view.flags & ACK) === 0) {
    return `a segment with flags 0x${view.flags.toString(16)} was merged`;
  }
  if (view.timestamp === null && view.headerBytes !== view.tcpAt + 20) {
    return "a segment with TCP options other than timestamps was merged";
  }
  if (view.timestamp !== null && options.timestamps === false) return "timestamps were merged, which are off";
  const marked = view.ipEcn !== 0 || (view.flags & CONGESTION) !== 0;
  return marked && input.ecn === false
    ? "segments with ECN were merged, which the guest does not take"
    : null;
}

/** What a merged packet can say only once, and these two say differently; null if nothing. */
export function disagreement(view: TcpView, first: TcpView): string | null {
  if ((view.timestamp === null) !== (first.timestamp === null)) return "only some segments have timestamps";
  if (view.ipAt !== first.ipAt || !sameRange(view.frame, first.frame, 0, first.ipAt)) {
    return "segments with different MAC addresses or VLAN tags were merged";
  }
  if (traits(view) !== traits(first)) {
    return "segments with different DSCP, ECN, DF or flow label were merged";
  }
  const sameFlags = ((view.flags ^ first.flags) & ~PSH) === 0 && view.reserved === first.reserved;
  return sameFlags ? null : "segments with different TCP flags were merged";
}

/** Nothing may go back from one segment to the next, and what has no data must be a window update. */
function checkSteps(parts: readonly Part[], say: (text: string) => void): void {
  for (let i = 1; i < parts.length; i++) {
    const last = parts[i - 1].view;
    const { view } = parts[i];
    if ((view.ack - last.ack | 0) < 0) say("the ACK goes back inside");
    if (last.timestamp !== null && view.timestamp !== null) {
      const back = view.timestamp.some((value, at) => (value - last.timestamp![at] | 0) < 0);
      if (back) say("a timestamp goes back inside");
    }
    if (view.payload.length > 0) continue;
    if (view.ack !== last.ack) say("an ACK that acknowledges more was swallowed");
    else if (view.window === last.window) say("a duplicate ACK was swallowed");
  }
}

function checkContent(
  output: ConservedOutput,
  view: TcpView,
  parts: readonly Part[],
  say: (text: string) => void,
): void {
  let at = 0;
  for (const part of parts) {
    const { payload } = part.view;
    if (at + payload.length > view.payload.length || !sameAt(view.payload, payload, at)) {
      say("its data are not those of the segments in order");
      break;
    }
    at += payload.length;
  }
  if (at < view.payload.length) say("its data are not those of the segments in order");
  const last = parts.at(-1)!.view;
  if (view.ack !== last.ack || view.window !== last.window) {
    say("its ACK and window are not the last segment's");
  }
  if (view.timestamp?.join() !== last.timestamp?.join()) say("its timestamps are not the last segment's");
  const push = parts.some((part) => (part.view.flags & PSH) !== 0);
  if (((view.flags & PSH) !== 0) !== push) say("PSH was lost or made up");
  if (view.hopLimit !== Math.min(...parts.map((part) => part.view.hopLimit))) {
    say("its hop limit is not the smallest of the segments'");
  }
  if (view.frameBytes !== output.bytes.length) say("has bytes behind the end of its IP packet");
  if (!view.ipChecksumRight && parts[0].view.ipChecksumRight) say("has a wrong IPv4 header checksum");
}

/** All header bytes that nothing gives a reason to change must be those of the first segment. */
function checkFirstHeaders(view: TcpView, parts: readonly Part[], say: (text: string) => void): void {
  const first = parts[0].view;
  if (view.seq !== first.seq) say("its sequence number is not the first segment's");
  const { ipAt } = view;
  const same = view.headerBytes === first.headerBytes && sameRange(view.frame, first.frame, 0, ipAt) &&
    traits(view) === traits(first) && view.reserved === first.reserved &&
    ((view.flags ^ first.flags) & ~PSH) === 0 &&
    (!view.isV4 || sameRange(view.frame, first.frame, ipAt + 4, ipAt + 6)) &&
    sameRange(view.frame, first.frame, view.tcpAt + 18, view.tcpAt + 20) &&
    (view.timestamp !== null || sameRange(view.frame, first.frame, view.tcpAt + 20, view.headerBytes));
  if (!same) say("its headers are not the first segment's");
}

function checkNetHeader(
  { hdr }: ConservedOutput,
  view: TcpView,
  parts: readonly Part[],
  options: ConservationOptions,
  say: (text: string) => void,
): void {
  const segments = parts.filter((part) => part.view.payload.length > 0).length;
  if (segments < 2) {
    if (hdr.gso_type !== 0 || (hdr.flags & RSC_INFO) !== 0) {
      say(`a single segment must not have gso_type ${hdr.gso_type}`);
    }
    if (parts.length > 1 && (!view.tcpChecksumRight || hdr.flags !== 0)) say("has a wrong TCP checksum");
    return;
  }
  const largest = Math.max(...parts.map((part) => part.view.payload.length));
  if ((hdr.flags & NEEDS_CSUM) === 0 || !view.holdsPseudoSum) {
    say("merged without NEEDS_CSUM and a pseudo-header sum");
  }
  const ecn = (view.flags & ECE_OR_CWR) !== 0 ? GSO_ECN : 0;
  if (hdr.gso_type !== ((view.isV4 ? 1 : 4) | ecn)) say(`merged with gso_type ${hdr.gso_type}`);
  if (hdr.gso_size !== largest) say(`gso_size is ${hdr.gso_size}, the largest segment has ${largest}`);
  if (hdr.hdr_len !== view.headerBytes) {
    say(`hdr_len is ${hdr.hdr_len}, the headers have ${view.headerBytes} bytes`);
  }
  if (hdr.flags !== (options.rscInfo ? NEEDS_CSUM | RSC_INFO : NEEDS_CSUM)) {
    say("RSC_INFO does not agree with what was negotiated");
  }
  const counts = options.rscInfo ? segments : view.tcpAt;
  const offset = options.rscInfo ? 0 : 16;
  if (hdr.csum_start !== counts) {
    say(
      options.rscInfo
        ? `says ${hdr.csum_start} segments, has ${segments}`
        : `csum_start is ${hdr.csum_start}, the TCP header is at ${view.tcpAt}`,
    );
  }
  if (hdr.csum_offset !== offset) {
    say(
      options.rscInfo
        ? `says ${hdr.csum_offset} duplicate ACKs, none are merged`
        : `csum_offset is ${hdr.csum_offset}, TCP's is 16`,
    );
  }
}

/** DSCP, ECN and DF, or traffic class and flow label. */
function traits({ isV4, frame, ipAt }: TcpView): number {
  const [, tos, second, third] = frame.subarray(ipAt, ipAt + 4);
  return isV4 ? tos << 8 | frame[ipAt + 6] & 0x40 : tos << 16 | second << 8 | third;
}

function sameRange(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (a[i] !== b[i]) return false;
  return true;
}

function sameAt(whole: Uint8Array, part: Uint8Array, at: number): boolean {
  for (let i = 0; i < part.length; i++) if (whole[at + i] !== part[i]) return false;
  return true;
}

/** An input of a flow. */
export interface Placed {
  /** Its number among all inputs. */
  readonly index: number;
  /** The frame. */
  readonly input: ConservedInput;
  /** The same, read; null if it is no plain TCP segment. */
  readonly view: TcpView | null;
}

/** An output of a flow. */
export interface PlacedOutput {
  /** Its number among all outputs. */
  readonly index: number;
  /** The packet. */
  readonly output: ConservedOutput;
  /** The same, read; null if it is no plain TCP segment. */
  readonly view: TcpView | null;
}

/** May this output be made of these inputs? */
export type PartitionJudge = (output: PlacedOutput, parts: readonly Placed[]) => boolean;

/** The inputs and the outputs that have the same addresses and ports, or else the same bytes. */
export interface Flow {
  /** What it is known by. */
  readonly key: string;
  /** What went in, in order. */
  readonly inputs: Placed[];
  /** What came out, in order. */
  readonly outputs: PlacedOutput[];
}

/**
 * Finds a partition of all inputs of a flow among its outputs: behind which input each output ends; null if
 * there is none. Which window updates went into an output can only be told from what is left for the others,
 * so this is a search. What `judge` does not allow is left out; if it is null, everything that the data allow
 * is allowed.
 */
export function partition(
  flow: Flow,
  options: ConservationOptions,
  judge: PartitionJudge | null,
): number[] | null {
  const { inputs, outputs } = flow;
  const ends: number[] = [];
  const choices: number[][] = [];
  const hopeless = new Set<number>();
  const endsOf = (which: number, at: number): number[] => {
    const possible = possibleEnds(flow, at, outputs[which], options);
    return judge === null ? possible : possible.filter((end) => judge(outputs[which], inputs.slice(at, end)));
  };
  for (let at = 0;;) {
    const which = ends.length;
    if (which === outputs.length && (options.endsInReset === true || at === inputs.length)) return ends;
    const state = which * (inputs.length + 1) + at;
    if (which === choices.length) {
      const dead = which === outputs.length || hopeless.has(state);
      choices.push(dead ? [] : endsOf(which, at));
    }
    const end = choices[which].pop();
    if (end !== undefined) {
      ends.push(end);
      at = end;
      continue;
    }
    hopeless.add(state);
    choices.pop();
    if (which === 0) return null;
    ends.pop();
    at = ends.at(-1) ?? 0;
  }
}

/** Where the output may end if `inputs[at]` begins it; the likeliest last. */
function possibleEnds(
  { inputs }: Flow,
  at: number,
  { output: { atNs }, view }: PlacedOutput,
  options: ConservationOptions,
): number[] {
  const inTime = (input: ConservedInput) => input.atNs <= atNs && atNs - input.atNs <= options.intervalNs;
  if (at >= inputs.length || !inTime(inputs[at].input)) return [];
  if (view === null) return [at + 1];
  const first = inputs[at].view!;
  if (first.seq !== view.seq) return [];
  const possible: number[] = [];
  let bytes = 0;
  for (let i = at; i < inputs.length && inTime(inputs[i].input); i++) {
    const part = inputs[i].view!;
    if (i > at) {
      if (part.seq !== (view.seq + bytes) >>> 0) break;
      const last = inputs[i - 1].view!;
      if (options.flushOnPush === true && (last.flags & PSH) !== 0) break;
      const windowUpdate = part.ack === last.ack && part.window !== last.window;
      if (part.payload.length === 0 && !windowUpdate) break;
      if (i === at + 1 && objectionTo(inputs[at] as Part, options) !== null) break;
      if (objectionTo(inputs[i] as Part, options) !== null || disagreement(part, first) !== null) break;
    }
    bytes += part.payload.length;
    if (bytes > view.payload.length) break;
    if (bytes === view.payload.length && part.ack === view.ack && part.window === view.window) {
      possible.push(i + 1);
    }
  }
  return possible;
}

/** Where an output ends that cannot be right, so that the message says what is wrong with it. */
export function guessEnd({ inputs }: Flow, at: number, { output: { atNs }, view }: PlacedOutput): number {
  let end = at + 1;
  let bytes = inputs[at].view?.payload.length ?? 0;
  const wanted = view?.payload.length ?? 0;
  while (end < inputs.length && bytes < wanted && inputs[end].input.atNs <= atNs) {
    bytes += inputs[end++].view!.payload.length;
  }
  return end;
}
