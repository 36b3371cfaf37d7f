/**
 * What must hold of every run under strict rules, for any input: nothing lost, nothing made up, nothing
 * reordered.
 *
 * How it is checked. Inputs and outputs are sorted into flows by a reading of their own (`viewTcp`); what is
 * no plain TCP segment is matched by its bytes. Each output of a flow must be the next input of that flow, or
 * the next several, joined: same bytes in the same order, headers that parse, checksums that are right, a
 * segment count that adds up, and no input older than the interval. At the end no input may be left over. A
 * window update leaves no trace but the window, so how many of them an output has swallowed is found by a
 * search for a division that leaves nothing over. Then, with every input in its place, frames that only show
 * part of their flow (fragments, options, wrong lengths) must not have changed places with the rest of it.
 *
 * @module
 */
import { fromHex, headerOf, type Vector } from "./format.ts";
import {
  checkMergedPacket,
  type ConservationOptions,
  type ConservedInput,
  type ConservedOutput,
  type Flow,
  guessEnd,
  type Part,
  partition,
  type Placed,
  type PlacedOutput,
} from "./merged_packet.ts";
import type { VectorRun } from "./run_vector.ts";
import { sightOfFlow, type TcpView, viewTcp } from "./tcp_view.ts";

const DATA_VALID = 2;
const PSH = 0x08;

/** What became of every input. */
export interface Conservation {
  /** Every violation, in words; none if all is well. */
  readonly violations: string[];
  /** For each input the output that it is in; -1 for none. */
  readonly places: readonly number[];
}

/** Every violation, in words; none if all is well. */
export function conservationViolations(
  inputs: readonly ConservedInput[],
  outputs: readonly ConservedOutput[],
  options: ConservationOptions,
): string[] {
  return conserve(inputs, outputs, options).violations;
}

/** As {@linkcode conservationViolations}, and tells where each input went. */
export function conserve(
  inputs: readonly ConservedInput[],
  outputs: readonly ConservedOutput[],
  options: ConservationOptions,
): Conservation {
  const flows = new Map<string, Flow>();
  const flowOf = (bytes: Uint8Array, view: TcpView | null): Flow => {
    const key = view?.flow ?? hashOf(bytes);
    let flow = flows.get(key);
    if (flow === undefined) flows.set(key, flow = { key, inputs: [], outputs: [] });
    return flow;
  };
  for (const [index, input] of inputs.entries()) {
    const view = viewTcp(input.bytes);
    flowOf(input.bytes, view).inputs.push({ index, input, view });
  }
  for (const [index, output] of outputs.entries()) {
    const view = viewTcp(output.bytes);
    flowOf(output.bytes, view).outputs.push({ index, output, view });
  }
  const violations: string[] = [];
  const places = new Array<number>(inputs.length).fill(-1);
  for (const flow of flows.values()) match(flow, options, places, violations);
  violations.push(...orderViolations(inputs, outputs, places));
  return { violations, places };
}

/**
 * As {@linkcode conservationViolations}, for a vector that ran under strict rules; also looks at guest and
 * pool.
 */
export function strictViolations(vector: Vector, run: VectorRun): string[] {
  const inputs: ConservedInput[] = [];
  for (const event of vector.events) {
    if (!("frame" in event)) continue;
    inputs.push({ atNs: event.t_ns, bytes: fromHex(event.frame), header: headerOf(event) });
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

/**
 * Frames that are no plain TCP segments keep their order among those with the same bytes, which cannot be
 * told apart.
 */
function hashOf(bytes: Uint8Array): string {
  let hash = 0;
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193) + 1;
  return `frame of ${bytes.length} bytes, hash ${hash}`;
}

/**
 * Finds out where each input of a flow went. The first partition that the data allow is mostly the right one;
 * if it is not, one is looked for in which every packet is right, and only if there is none the packets are
 * wrong.
 */
function match(flow: Flow, options: ConservationOptions, places: number[], violations: string[]): void {
  const first = assign(flow, partition(flow, options, null), options, places);
  if (first.length === 0) return;
  const judge = (output: PlacedOutput, parts: readonly Placed[]) =>
    violationsIn(output, parts, options).length === 0;
  const ends = partition(flow, options, judge);
  violations.push(...(ends === null ? first : assign(flow, ends, options, places)));
}

/** Puts every input in its place, and returns what is wrong then. @param ends what `partition` has found */
function assign(
  flow: Flow,
  ends: readonly number[] | null,
  options: ConservationOptions,
  places: number[],
): string[] {
  const violations: string[] = [];
  const { inputs, outputs } = flow;
  let at = 0;
  for (const [which, output] of outputs.entries()) {
    if (at === inputs.length) {
      violations.push(`packet ${output.index + 1}: is none of the frames that went in, or out of order`);
      continue;
    }
    const end = ends?.[which] ?? guessEnd(flow, at, output);
    const parts = inputs.slice(at, end);
    for (const { index } of parts) places[index] = output.index;
    violations.push(...violationsIn(output, parts, options));
    at = end;
  }
  if (at < inputs.length && options.endsInReset !== true) {
    violations.push(`${inputs.length - at} frames lost of flow ${flow.key}`);
  }
  return violations;
}

/** What is wrong with an output if it is made of these inputs. */
function violationsIn(
  { index, output, view }: PlacedOutput,
  inputs: readonly Placed[],
  options: ConservationOptions,
): string[] {
  const violations: string[] = [];
  const say = (text: string) => violations.push(`packet ${index + 1}: ${text}`);
  for (const { input } of inputs) {
    const age = output.atNs - input.atNs;
    if (age > options.intervalNs) say(`was held ${age} ns, longer than ${options.intervalNs} ns`);
    if (age < 0) say(`was delivered ${-age} ns before it came`);
  }
  const [{ input: first }] = inputs;
  if (view === null) {
    checkNetHeaderKept(output, first, say);
    if (!sameBytes(output.bytes, first.bytes)) say("was changed on its way");
    return violations;
  }
  const parts = inputs as readonly Part[];
  if (options.flushOnPush === true) checkPush(output, parts, options, say);
  if (parts.length === 1) {
    checkNetHeaderKept(output, first, say);
    if (sameBytes(output.bytes, first.bytes)) return violations;
    if (!isTrimmed(output.bytes, first.bytes)) say("was changed on its way");
  }
  checkMergedPacket(output, view, parts, options, say);
  return violations;
}

/** A segment with PSH must be the last of its packet, and not wait. */
function checkPush(
  { atNs }: ConservedOutput,
  parts: readonly Part[],
  { intervalNs }: ConservationOptions,
  say: (text: string) => void,
): void {
  for (const [i, { view, input }] of parts.entries()) {
    if ((view.flags & PSH) === 0) continue;
    if (i + 1 < parts.length) say("more was merged behind PSH, which ends a packet");
    if (intervalNs !== Infinity && atNs > input.atNs) say(`was held ${atNs - input.atNs} ns in spite of PSH`);
  }
}

/** A frame that was not merged keeps its virtio header as it came. */
function checkNetHeaderKept(
  { hdr }: ConservedOutput,
  { header, dataValid }: ConservedInput,
  say: (text: string) => void,
): void {
  const flags = dataValid === false ? header.flags & ~DATA_VALID : header.flags;
  if (hdr.gso_type !== header.gsoType) say("passed with another gso_type than it came with");
  const kept = hdr.flags === flags && hdr.hdr_len === header.hdrLen && hdr.gso_size === header.gsoSize &&
    hdr.csum_start === header.csumStart && hdr.csum_offset === header.csumOffset;
  if (!kept) say("passed with another virtio header than it came with");
}

function isTrimmed(output: Uint8Array, input: Uint8Array): boolean {
  return output.length < input.length && sameBytes(output, input.subarray(0, output.length));
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

interface Member {
  readonly place: number;
  /** Hides its ports, and so may belong to any flow between its addresses. */
  readonly hidden: boolean;
}

/**
 * Every change of places within a flow, in words. Within a queue, the frames of a flow must leave in the
 * order in which they came, whether or not they can be merged; a frame that hides its ports must not change
 * places with any flow between its addresses.
 * @param places for each input the output that it is in; -1 for none
 */
export function orderViolations(
  inputs: readonly ConservedInput[],
  outputs: readonly ConservedOutput[],
  places: readonly number[],
): string[] {
  const flows = new Map<string, Member[]>();
  const pairs = new Map<string, Member[]>();
  const pairsWithHidden = new Set<string>();
  for (const [index, { bytes }] of inputs.entries()) {
    const place = places[index];
    if (place < 0) continue;
    const sight = sightOfFlow(bytes);
    if (sight.pair === null) continue;
    const queue = outputs[place].queue ?? 0;
    const member = { place, hidden: sight.flow === null };
    if (sight.flow !== null) add(flows, `${queue} ${sight.flow}`, member);
    const pair = `${queue} ${sight.pair}`;
    add(pairs, pair, member);
    if (member.hidden) pairsWithHidden.add(pair);
  }
  const violations: string[] = [];
  for (const [flow, members] of flows) {
    let last = -1;
    for (const { place } of members) {
      if (place < last) violations.push(`packet ${place + 1}: overtook packet ${last + 1} of flow ${flow}`);
      else last = place;
    }
  }
  for (const pair of pairsWithHidden) hiddenViolations(pair, pairs.get(pair)!, violations);
  return violations;
}

function add(groups: Map<string, Member[]>, key: string, member: Member): void {
  const group = groups.get(key);
  if (group === undefined) groups.set(key, [member]);
  else group.push(member);
}

/** All before a frame that hides its ports must have left before it, and all behind it after it. */
function hiddenViolations(pair: string, members: readonly Member[], violations: string[]): void {
  let latest = -1;
  let latestHidden = -1;
  for (const { place, hidden } of members) {
    if (hidden && place < latest) {
      violations.push(
        `packet ${place + 1}: overtook packet ${latest + 1} between the same addresses ${pair}`,
      );
    }
    if (place < latestHidden) {
      violations.push(
        `packet ${place + 1}: overtook packet ${latestHidden + 1}, which hides its ports, ${pair}`,
      );
    }
    latest = Math.max(latest, place);
    if (hidden) latestHidden = Math.max(latestHidden, place);
  }
}
