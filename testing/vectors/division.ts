/**
 * Which inputs of a flow went into which of its outputs?
 * @module
 */
import type { ConservationOptions, ConservedInput, ConservedOutput } from "./conserved.ts";
import { disagreement, objectionTo, type Part } from "./merged_packet.ts";
import type { TcpView } from "./tcp_view.ts";

const PSH = 0x08;

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
export type DivisionJudge = (output: PlacedOutput, parts: readonly Placed[]) => boolean;

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
 * Behind which input each output ends. What window updates went into an output can only be told from what is left for
 * the others, so this searches for a division of all inputs among all outputs; null if there is none. What `judge` does not
 * allow is left out; if it is null, whatever the data allow is allowed.
 */
export function divide(
  flow: Flow,
  options: ConservationOptions,
  judge: DivisionJudge | null,
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
