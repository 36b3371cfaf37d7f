/**
 * One attachment of a guest: what the device took in while it lasted, what came out, and whether that adds
 * up.
 * @module
 */
import type { CounterGroups } from "../../../plugins/plugin.ts";
import { STRICT_RULES } from "../../../offloads/rsc_chain/verdicts.ts";
import type {
  ConservationOptions,
  ConservedInput,
  ConservedOutput,
} from "../../../testing/vectors/merged_packet.ts";
import { conserve } from "../../../testing/vectors/conservation.ts";
import { viewTcp } from "../../../testing/vectors/tcp_view.ts";
import type { GuestState, Refusal } from "./guest_state.ts";
import type { Injection } from "./traffic.ts";

const CHAINS = ["net0.rsc-v4", "net0.rsc-v6"];
const FILTER = "net0.filter";
const TO_GUEST = "net0.toGuest";

/** All counters at one moment, or the difference of two. */
export type Snapshot = ReadonlyMap<string, number>;

/** Copies all counters. */
export function snapshot(groups: CounterGroups): Map<string, number> {
  const copy = new Map<string, number>();
  for (const [group, counters] of Object.entries(groups)) {
    for (const [name, count] of Object.entries(counters)) copy.set(`${group} ${name}`, count);
  }
  return copy;
}

/** Collects one epoch. */
export class Epoch {
  /** What the guest has agreed to. */
  readonly state: GuestState;
  /** Packets delivered. */
  readonly outputs: ConservedOutput[] = [];
  /** May a flow change its queue? */
  queuesChange = false;
  readonly #inputs: ConservedInput[] = [];
  readonly #refused = new Map<Refusal, number>();
  readonly #before: Snapshot;
  #received = 0;

  /** Begins. @param before the counters at this moment */
  constructor(state: GuestState, before: Snapshot) {
    this.state = state;
    this.#before = before;
  }

  /** The device has taken this frame in. */
  receive(frame: Injection, atNs: number): void {
    this.#received++;
    const refusal = this.state.refusal(frame);
    if (refusal !== null) {
      this.#refused.set(refusal, (this.#refused.get(refusal) ?? 0) + 1);
      return;
    }
    const { bytes, header } = frame;
    this.#inputs.push({
      atNs,
      bytes,
      header,
      alone: this.state.mergesNothing(viewTcp(bytes)?.isV4 === false),
      ecn: this.state.takesEcn,
      dataValid: this.state.takesChecksums,
    });
  }

  /**
   * Everything that does not add up. @param groups the counters at the end; @param options with `endsInReset`
   * if what is left has been discarded
   */
  violations(groups: CounterGroups, options: Omit<ConservationOptions, "rscInfo">): string[] {
    const { violations, places } = conserve(this.#inputs, this.outputs, {
      ...options,
      rscInfo: this.state.rscInfo,
    });
    const grown = (name: string) => groupCounter(groups, name) - (this.#before.get(name) ?? 0);
    const left = places.filter((place) => place < 0).length;
    // A frame that the guest would not take may still have waited, for buffers, behind one that it would
    // have.
    const mayWait = options.endsInReset === true && options.intervalNs === Infinity;
    this.#checkCounters(grown, left, mayWait, violations);
    if (!this.queuesChange) this.#checkQueues(violations);
    return violations;
  }

  #checkCounters(
    grown: (name: string) => number,
    left: number,
    mayWait: boolean,
    violations: string[],
  ): void {
    const refusals: [prefix: string, names: readonly string[]][] = [
      [FILTER, ["too_short", "vlan_unknown", "multicast_unknown", "unicast_unknown", "broadcast_off"]],
      [TO_GUEST, [
        "dropped_large",
        "dropped_partial_checksum",
        "dropped_buffer_too_small",
        "dropped_link_down",
      ]],
      [TO_GUEST, ["dropped_no_queue", "dropped_over_mtu"]],
    ];
    let refused = 0;
    let waited = 0;
    for (const [group, names] of refusals) {
      for (const name of names) {
        const counted = grown(`${group} ${name}`);
        const expected = this.#refused.get(`${group.slice(5)}.${name}` as Refusal) ?? 0;
        refused += counted;
        if (mayWait && group === TO_GUEST && counted < expected) waited += expected - counted;
        else if (counted !== expected) {
          violations.push(`${group} ${name} counts ${counted}, expected ${expected}`);
        }
      }
    }
    let merged = 0;
    for (const chain of CHAINS) {
      merged += grown(`${chain} merged`) + grown(`${chain} window_update`);
      const verdicts = Object.keys(STRICT_RULES).filter((verdict) => verdict !== "off")
        .reduce((sum, verdict) => sum + grown(`${chain} ${verdict}`), 0);
      const received = grown(`${chain} received`);
      if (verdicts !== received) {
        violations.push(`${chain} counts ${verdicts} verdicts on ${received} frames`);
      }
    }
    const packets = grown(`${TO_GUEST} packets`);
    const discarded = grown("net0 discarded_at_reset");
    if (packets !== this.outputs.length) {
      violations.push(`${packets} packets counted, ${this.outputs.length} delivered`);
    }
    const accounted = packets + merged + refused + discarded;
    if (accounted !== this.#received) {
      violations.push(
        `${this.#received} frames came in, accounted for are ${accounted}: ${packets} packets, ${merged} merged, ` +
          `${refused} refused, ${discarded} discarded`,
      );
    }
    if (left + waited < discarded || (left + waited > 0 && discarded === 0)) {
      violations.push(`${left + waited} frames are gone, ${discarded} discarded are counted`);
    }
  }

  /** A flow must stay on its queue. */
  #checkQueues(violations: string[]): void {
    if (this.outputs.every(({ queue }) => queue === 0)) return;
    const queues = new Map<string, number>();
    for (const [index, { bytes, queue }] of this.outputs.entries()) {
      const flow = viewTcp(bytes)?.flow;
      if (flow === undefined) continue;
      const first = queues.get(flow) ?? queue!;
      queues.set(flow, first);
      if (first !== queue) {
        violations.push(`packet ${index + 1}: came on queue ${queue}, others of its flow on ${first}`);
      }
    }
  }
}

function groupCounter(groups: CounterGroups, name: string): number {
  const space = name.lastIndexOf(" ");
  return groups[name.slice(0, space)][name.slice(space + 1)];
}
