import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import { FlowTable } from "../../offloads/rsc_chain/flow_table.ts";
import { type CoalescedSegment, MAX_KEY_WORDS, ParsedSegment } from "../../offloads/rsc_chain/segments.ts";

/** A segment with this key; words that are left out are 0. */
function segmentOf(...words: number[]): ParsedSegment {
  const segment = new ParsedSegment();
  segment.key.set(words);
  return segment;
}

/** What is opened for a flow of which nothing is held. */
function opened(table: FlowTable, segment: ParsedSegment): CoalescedSegment {
  assertEquals(table.find(segment), null);
  return table.open(segment);
}

/** The keys of the packets held, in order of opening, found by walking the list both ways. */
function listed(table: FlowTable): CoalescedSegment[] {
  const forwards: CoalescedSegment[] = [];
  for (let held = table.oldest; held !== null; held = held.following) forwards.push(held);
  const backwards: CoalescedSegment[] = [];
  for (let held = table.newest; held !== null; held = held.previous) backwards.push(held);
  assertEquals(backwards.reverse(), forwards);
  return forwards;
}

const step = fc.tuple(fc.constantFrom("open", "close", "find"), fc.nat(40));

Deno.test("FlowTable finds and lists what a Map finds and lists", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), fc.constantFrom(3, MAX_KEY_WORDS), (steps, keyWords) => {
      const table = new FlowTable(keyWords, 24);
      const model = new Map<number, CoalescedSegment>();
      for (const [what, flow] of steps) {
        // Five sources, three destinations, three ports: flows share addresses and differ in one word only.
        const segment = segmentOf(flow % 5, ...new Array<number>(keyWords - 3).fill(7), flow % 3, flow);
        const found = table.find(segment);
        assertEquals(found, model.get(flow) ?? null);
        if (what === "open" && found === null && !table.isFull) model.set(flow, table.open(segment));
        if (what === "close" && found !== null) {
          table.close(found);
          model.delete(flow);
        }
        assertEquals(table.count, model.size);
        assertEquals(table.isFull, model.size === 24);
        assertEquals(listed(table), [...model.values()]);
      }
    }),
    { numRuns: 60 },
  );
});

/** The packets that may be between the addresses of this segment. */
function pairList(table: FlowTable, segment: ParsedSegment): CoalescedSegment[] {
  const count: CoalescedSegment[] = [];
  for (let held = table.firstOfPair(segment); held !== null; held = held.followingOfPair) count.push(held);
  return count;
}

Deno.test("FlowTable.firstOfPair() leads to every held of a pair of addresses, in order of opening", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(6), fc.nat(6), fc.nat(3), fc.boolean()), { maxLength: 80 }),
      (steps) => {
        const table = new FlowTable(3, 64);
        const held = new Map<string, { held: CoalescedSegment; pair: string }>();
        for (const [source, destination, ports, open] of steps) {
          const segment = segmentOf(source, destination, ports);
          const [key, pair] = [`${source} ${destination} ${ports}`, `${source} ${destination}`];
          const entry = held.get(key);
          if (open && entry === undefined) {
            held.set(key, { held: opened(table, segment), pair });
          } else if (!open && entry !== undefined) {
            table.close(entry.held);
            held.delete(key);
          }
          const list = pairList(table, segment).filter((held) => table.hasPair(held, segment));
          const holders = [...held.values()].filter((one) => one.pair === pair).map(({ held }) => held);
          assertEquals(list, holders);
          for (const one of held.values()) assertEquals(table.hasPair(one.held, segment), one.pair === pair);
        }
      },
    ),
  );
});

Deno.test("FlowTable holds 65536 count of one pair of addresses, and lists them in order", () => {
  const most = 65_536;
  const table = new FlowTable(3, most);
  for (let i = 0; i < most; i++) {
    const segment = segmentOf(1, 2, i);
    assertEquals(table.isFull, false);
    opened(table, segment);
  }
  assertEquals([table.count, table.isFull], [most, true]);
  assertEquals(pairList(table, segmentOf(1, 2, 0)).length, most);
  let i = 0;
  for (let held = table.oldest; held !== null; held = held.following, i++) {
    const segment = segmentOf(1, 2, i);
    if (table.find(segment) !== held) {
      throw new Error(`held ${i} is not found in its place`);
    }
  }
  assertEquals(i, most);
  // Every third leaves: the others must still be found behind the holes.
  for (let flow = 0; flow < most; flow += 3) {
    const segment = segmentOf(1, 2, flow);
    table.close(table.find(segment)!);
  }
  for (let flow = 0; flow < most; flow++) {
    const segment = segmentOf(1, 2, flow);
    const found = table.find(segment) !== null;
    if (found !== (flow % 3 !== 0)) throw new Error(`flow ${flow} is ${found ? "still" : "no longer"} found`);
  }
  while (table.oldest !== null) table.close(table.oldest);
  assertEquals([table.count, table.newest, table.firstOfPair(segmentOf(1, 2, 0))], [0, null, null]);
});

Deno.test("FlowTable reuses count: steady traffic makes no new ones", () => {
  const table = new FlowTable(3, 4096);
  const seen = new Set<CoalescedSegment>();
  for (let i = 0; i < 10_000; i++) {
    const segment = segmentOf(1, 2, i);
    seen.add(opened(table, segment));
    if (table.count === 50) table.close(table.oldest!);
  }
  assertEquals(seen.size, 50);
});

Deno.test("FlowTable.hashOf() is seeded: the hashes of one table do not tell another's", () => {
  const segment = segmentOf(1, 2, 3);
  const hashes = new Set(Array.from({ length: 8 }, () => new FlowTable(3, 16).hashOf(segment)));
  // By chance two of eight are equal once in 150 million runs.
  assertEquals(hashes.size, 8);
});

Deno.test("FlowTable.hashOf() spreads flows that differ only in their ports, or only in their addresses", () => {
  for (
    const key of [
      (i: number) => [1, 2, i << 16 | 80],
      (i: number) => [i << 8, 2, 3],
      (i: number) => [1, i, 3],
    ]
  ) {
    const table = new FlowTable(3, 16);
    const filled = new Set<number>();
    for (let i = 0; i < 4096; i++) filled.add(table.hashOf(segmentOf(...key(i))) & 4095);
    // Random throws fill 63 % of the places; a hash that clusters fills far fewer.
    assert(filled.size > 2300, `only ${filled.size} of 4096 places are used`);
  }
});

Deno.test("FlowTable.hashOf() uses every word of a key", () => {
  for (const keyWords of [3, MAX_KEY_WORDS]) {
    const table = new FlowTable(keyWords, 16);
    const base = table.hashOf(segmentOf());
    for (let word = 0; word < keyWords; word++) {
      const segment = segmentOf();
      segment.key[word] = 1;
      assertNotEquals(table.hashOf(segment), base, `word ${word}`);
    }
  }
});

Deno.test("FlowTable.hashOf() has no pairs of keys that collide whatever the secrets are", () => {
  // Differences in the top bits of two words, which a hash that only multiplies and shifts can be made to
  // cancel.
  const pairs = [
    [[1, 2, 3], [1 | 0x80000000, 2 ^ 0x80010000, 3]],
    [[1, 2, 3], [1, 2 | 0x80000000, 3 ^ 0x80010000]],
    [[1, 2, 3], [2, 1, 3]],
    [[1, 2, 3], [1 << 16, 2, 3]],
    [[0, 0, 0], [0, 0, 0x80000000]],
  ];
  for (const [a, b] of pairs) {
    let collisions = 0;
    for (let i = 0; i < 64; i++) {
      const table = new FlowTable(3, 16);
      if (table.hashOf(segmentOf(...a)) === table.hashOf(segmentOf(...b))) collisions++;
    }
    // By chance at most once in 2^17: three of 64 are no chance.
    assert(collisions < 3, `${a} and ${b} collide in ${collisions} of 64 tables`);
  }
});

Deno.test("FlowTable.firstOfPair() leads past few count of other pairs, even with 65536 held", () => {
  const table = new FlowTable(3, 65_536);
  for (let i = 0; i < 65_536; i++) {
    const segment = segmentOf(i, 2, 3);
    opened(table, segment);
  }
  let longest = 0;
  for (let i = 0; i < 1000; i++) {
    longest = Math.max(longest, pairList(table, segmentOf(1 << 20 | i, 2, 3)).length);
  }
  // 16 on average; 64 would be twelve standard deviations away.
  assert(longest < 64, `a list of ${longest} count`);
});

Deno.test("FlowTable tells flows apart that its shortcut takes for one", () => {
  // The last word of the source and the ports cancel: every flow has the same tag.
  for (const keyWords of [3, MAX_KEY_WORDS]) {
    const table = new FlowTable(keyWords, 64);
    const flows = Array.from({ length: 40 }, (_, i) => {
      const segment = new ParsedSegment();
      segment.key[keyWords >>> 1 === 1 ? 0 : 3] = i;
      segment.key[keyWords - 1] = i ^ 0x1234;
      return segment;
    });
    const count = flows.map((segment) => opened(table, segment));
    for (let lap = 0; lap < 3; lap++) {
      for (const [i, segment] of flows.entries()) {
        if (i % 3 === lap) table.close(count[i]);
        assertEquals(table.find(segment), i % 3 <= lap ? null : count[i], `lap ${lap}, flow ${i}`);
      }
    }
    assertEquals(table.count, 0);
  }
});

Deno.test("FlowTable finds the held of a flow that was closed and opened again, and the others", () => {
  const table = new FlowTable(3, 16);
  const segment = segmentOf(1, 2, 3);
  opened(table, segment);
  const others = [4, 5, 6].map((ports) => opened(table, segmentOf(1, 2, ports)));
  for (let i = 0; i < 50; i++) {
    table.close(table.find(segment)!);
    const held = table.open(segment);
    assertEquals(table.find(segment), held);
  }
  assertEquals(others.map((_, i) => table.find(segmentOf(1, 2, 4 + i))), others);
});
