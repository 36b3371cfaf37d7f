/**
 * Did frames of one flow change places? Also those that show their flow only in part.
 * @module
 */
import type { ConservedInput, ConservedOutput } from "./conserved.ts";
import { sightOfFlow } from "./tcp_view.ts";

interface Member {
  readonly place: number;
  /** Hides its ports, and so may belong to any flow between its addresses. */
  readonly hidden: boolean;
}

/**
 * Every violation, in words. Within a queue, the frames of a flow must leave in the order in which they came, whether or
 * not they can be merged; a frame that hides its ports must not change places with any flow between its addresses.
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
