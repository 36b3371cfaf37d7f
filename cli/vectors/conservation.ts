/**
 * What must hold of every run under strict rules, whatever went in: nothing lost, nothing made up, nothing reordered.
 *
 * How it is checked. Inputs and outputs are sorted into flows by a reading of their own (`viewTcp`); what is no plain TCP
 * segment is matched by its bytes. Each output of a flow must be the next input of that flow, or the next several, joined:
 * same bytes in the same order, headers that parse, checksums that are right, a segment count that adds up, and no input
 * older than the interval. At the end no input may be left over.
 *
 * @module
 */
import { NetHeader } from "../../core/frame.ts";
import { readNetHeader } from "../../wire/virtio_net_header.ts";
import { fromHex, type Vector, type VectorPacket } from "./format.ts";
import type { VectorRun } from "./run_vector.ts";
import { type TcpView, viewTcp } from "./tcp_view.ts";

const NEEDS_CSUM = 1;
const RSC_INFO = 4;
const MAX_PACKET_BYTES = 65_589;
const PSH = 0x08;

/** A frame that went in. */
export interface ConservedInput {
  /** When, in ns. */
  readonly atNs: number;
  /** The Ethernet frame. */
  readonly bytes: Uint8Array;
  /** The virtio header that came with it. */
  readonly header: Readonly<Pick<NetHeader, "flags" | "gsoType">>;
}

/** A packet that came out. */
export interface ConservedOutput {
  /** When, in ns. */
  readonly atNs: number;
  /** The Ethernet frame. */
  readonly bytes: Uint8Array;
  /** Its header, as recorded. */
  readonly hdr: VectorPacket["hdr"];
}

/** Under what conditions. */
export interface ConservationOptions {
  /** The longest that a unit may be held, in ns; Infinity if the guest was starved of buffers. */
  readonly intervalNs: number;
  /** Did the guest accept RSC_EXT? Then merged units carry RSC_INFO, and otherwise none does. */
  readonly rscInfo: boolean;
}

/** Every violation, in words; none if all is well. */
export function conservationViolations(
  inputs: readonly ConservedInput[],
  outputs: readonly ConservedOutput[],
  options: ConservationOptions,
): string[] {
  const flows = new Map<string, { input: ConservedInput; view: TcpView | null }[]>();
  for (const input of inputs) {
    const view = viewTcp(input.bytes);
    const key = keyOf(input.bytes, view);
    const flow = flows.get(key) ?? [];
    flow.push({ input, view });
    flows.set(key, flow);
  }
  const found: string[] = [];
  for (const [index, output] of outputs.entries()) {
    const say = (text: string) => found.push(`packet ${index + 1}: ${text}`);
    if (
      output.bytes.length > MAX_PACKET_BYTES &&
      !inputs.some((input) => input.bytes.length === output.bytes.length)
    ) {
      say(`${output.bytes.length} bytes are more than a packet can have`);
    }
    const view = viewTcp(output.bytes);
    const flow = flows.get(keyOf(output.bytes, view));
    if (flow === undefined || flow.length === 0) {
      say("is none of the frames that went in, or out of order");
      continue;
    }
    checkOutput(output, view, flow, options, say);
  }
  for (const [key, flow] of flows) {
    if (flow.length > 0) found.push(`${flow.length} frames lost of flow ${key}`);
  }
  return found;
}

/** As {@linkcode conservationViolations}, for a vector that ran under strict rules; also looks at guest and pool. */
export function strictViolations(vector: Vector, run: VectorRun): string[] {
  const inputs: ConservedInput[] = [];
  for (const event of vector.events) {
    if (!("frame" in event)) continue;
    const header = new NetHeader();
    const raw = new Uint8Array(12);
    raw.set(fromHex(event.vnet_hdr ?? "").subarray(0, 12));
    readNetHeader(raw, 0, header);
    inputs.push({ atNs: event.t_ns, bytes: fromHex(event.frame), header });
  }
  const outputs = run.packets.map(({ t_ns, hdr, frame }) => ({ atNs: t_ns, hdr, bytes: fromHex(frame) }));
  const { features, rx_posted, rsc_interval_ns } = vector.head.config;
  const found = conservationViolations(inputs, outputs, {
    intervalNs: rx_posted === undefined ? rsc_interval_ns : Infinity,
    rscInfo: features === undefined || features.includes("RSC_EXT") || features.includes(61),
  });
  for (const error of run.guestErrors) found.push(`guest: ${error}`);
  if (run.framesLeft > 0) found.push(`pool: ${run.framesLeft} frames are not back at the end`);
  return found;
}

/** Frames with the same key must keep their order. */
function keyOf(bytes: Uint8Array, view: TcpView | null): string {
  return view?.flow ?? bytes.join(",");
}

function checkOutput(
  output: ConservedOutput,
  view: TcpView | null,
  flow: { input: ConservedInput; view: TcpView | null }[],
  options: ConservationOptions,
  say: (text: string) => void,
): void {
  const first = flow.shift()!;
  const age = output.atNs - first.input.atNs;
  if (age > options.intervalNs) say(`was held ${age} ns, longer than ${options.intervalNs} ns`);
  if (view === null || sameBytes(output.bytes, first.input.bytes)) {
    if (output.hdr.gso_type !== first.input.header.gsoType) {
      say("passed with another gso_type than it came with");
    }
    return;
  }
  const parts = [first.view!];
  let bytes = first.view!.payload.length;
  while (flow.length > 0 && belongs(flow[0].view!, view, parts.at(-1)!, bytes)) {
    const next = flow.shift()!;
    parts.push(next.view!);
    bytes += next.view!.payload.length;
    if (!next.view!.tcpChecksumRight && (next.input.header.flags & 3) === 0) {
      say("a segment with a wrong checksum was merged");
    }
  }
  checkContent(output, view, parts, say);
  checkHeader(output, view, parts, options, say);
}

/** Must the next input of the flow be part of this output? Either its data are, or its window update was merged. */
function belongs(next: TcpView, output: TcpView, last: TcpView, bytesSoFar: number): boolean {
  if (bytesSoFar < output.payload.length) return true;
  const isWindowUpdate = next.payload.length === 0 && next.ack === last.ack && next.window !== last.window;
  return isWindowUpdate && next.seq === (output.seq + output.payload.length) % 2 ** 32 &&
    output.window !== last.window;
}

function checkContent(
  output: ConservedOutput,
  view: TcpView,
  parts: readonly TcpView[],
  say: (text: string) => void,
): void {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.payload.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part.payload, at);
    at += part.payload.length;
  }
  if (!sameBytes(joined, view.payload)) say("its data are not those of the segments in order");
  const last = parts.at(-1)!;
  if (view.seq !== parts[0].seq) say("its sequence number is not the first segment's");
  if (view.ack !== last.ack || view.window !== last.window) {
    say("its ACK and window are not the last segment's");
  }
  const push = parts.some((part) => (part.flags & PSH) !== 0);
  if (((view.flags & PSH) !== 0) !== push) say("PSH was lost or made up");
  if (view.frameBytes !== output.bytes.length) say("has bytes behind the end of its IP packet");
  if (!view.ipChecksumRight) say("has a wrong IPv4 header checksum");
}

function checkHeader(
  { hdr }: ConservedOutput,
  view: TcpView,
  parts: readonly TcpView[],
  options: ConservationOptions,
  say: (text: string) => void,
): void {
  const segments = parts.filter((part) => part.payload.length > 0).length;
  if (segments < 2) {
    if (hdr.gso_type !== 0 || (hdr.flags & RSC_INFO) !== 0) {
      say(`a single segment must not have gso_type ${hdr.gso_type}`);
    }
    if (!view.tcpChecksumRight && (hdr.flags & NEEDS_CSUM) === 0 && parts.length > 1) {
      say("has a wrong TCP checksum");
    }
    return;
  }
  const largest = Math.max(...parts.map((part) => part.payload.length));
  if ((hdr.flags & NEEDS_CSUM) === 0 || !view.holdsPseudoSum) {
    say("merged without NEEDS_CSUM and a pseudo-header sum");
  }
  if ((hdr.gso_type & 0x7f) !== (view.flow.startsWith("800 ") ? 1 : 4)) {
    say(`merged with gso_type ${hdr.gso_type}`);
  }
  if (hdr.gso_size !== largest) say(`gso_size is ${hdr.gso_size}, the largest segment has ${largest}`);
  if (hdr.hdr_len !== view.headerBytes) {
    say(`hdr_len is ${hdr.hdr_len}, the headers have ${view.headerBytes} bytes`);
  }
  if (options.rscInfo !== ((hdr.flags & RSC_INFO) !== 0)) {
    say("RSC_INFO does not agree with what was negotiated");
  }
  if (options.rscInfo && hdr.csum_start !== segments) say(`says ${hdr.csum_start} segments, has ${segments}`);
  if (options.rscInfo && hdr.csum_offset !== 0) {
    say(`says ${hdr.csum_offset} duplicate ACKs, none are merged`);
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
