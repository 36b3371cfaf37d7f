import { assert, assertEquals, assertMatch } from "@std/assert";
import { FeatureSet } from "../../core/features.ts";
import type {
  ConservationOptions,
  ConservedInput,
  ConservedOutput,
} from "../../testing/vectors/merged_packet.ts";
import { conserve, strictViolations } from "../../testing/vectors/conservation.ts";
import { parseVector, vectorHeader } from "../../testing/vectors/format.ts";
import { runVector } from "../../testing/vectors/run_vector.ts";
import { Bench } from "./support/bench.ts";
import { Epoch, snapshot } from "./support/epoch.ts";
import { GuestState } from "./support/guest_state.ts";
import { Packet } from "./support/packet.ts";
import { PLAIN_MACHINE, type Step } from "./support/scenario.ts";
import { recordOf, scenarioIn } from "./support/search.ts";
import { headerOf } from "./support/shapes.ts";
import type { Witness } from "./support/witness.ts";

/**
 * The checker is checked: a good run is damaged in one place at a time, and the damage must be named.
 */

const OPTIONS: ConservationOptions = { intervalNs: 300_000, rscInfo: true };

/**
 * Three segments merged, two with timestamps, a window update and one of its own, a fragment, and what is no
 * TCP.
 */
const STEPS: readonly Step[] = [
  ["next", 0, 0, 0, 0],
  ["push", 0, 0, 0, 0],
  ["next", 0, 0, 0, 0],
  ["next", 3, 0, 0, 0],
  ["timestamp", 3, 0, 0, 765],
  ["next", 16, 0, 0, 0],
  ["windowUpdate", 16, 0, 0, 0x300],
  ["dupAck", 16, 0, 9, 0],
  ["padded", 32, 0, 0, 3],
  ["fragment", 48, 0, 9, 1],
  ["next", 48, 0, 9, 0],
  ["badTcp", 64, 0, 0, 0],
  ["other", 0, 0, 0, 1],
  ["dataValid", 80, 0, 0, 0],
];

interface Run {
  inputs: ConservedInput[];
  outputs: ConservedOutput[];
}

async function goodRun(): Promise<Run> {
  const inputs: ConservedInput[] = [];
  const outputs: ConservedOutput[] = [];
  const witness: Witness = {
    frame: (atNs, { bytes, header }) => inputs.push({ atNs, bytes, header }),
    offloads() {},
    post() {},
    packet: (atNs, packet) =>
      outputs.push({ atNs, bytes: packet.bytes, hdr: { ...vectorHeader(packet), num_buffers: 1 } }),
  };
  const bench = await Bench.open(PLAIN_MACHINE, witness);
  assertEquals(bench.run(STEPS).violations, []);
  assertEquals(await bench.close(), []);
  return { inputs, outputs };
}

const GOOD = await goodRun();

/** Which output carries flow `index`, the first of them. */
function outputOf(flow: number): number {
  const port = 1000 + (flow >> 2);
  const host = 1 + (flow >> 4) * 2;
  const at = GOOD.outputs.findIndex(({ bytes }) => {
    const v6 = bytes[12] === 0x86;
    const tcp = v6 ? 54 : 34;
    const ports = [bytes[tcp] << 8 | bytes[tcp + 1], bytes[tcp + 2] << 8 | bytes[tcp + 3]];
    return v6 === ((flow & 1) === 1) && ports.includes(port) &&
      bytes[v6 ? 37 : 29] === host + (flow >> 1 & 1);
  });
  assert(at >= 0, `flow ${flow} did not come out`);
  return at;
}

/** A copy of the good run that may be damaged. */
function copy(): Run {
  return {
    inputs: GOOD.inputs.map((input) => ({ ...input, bytes: input.bytes.slice() })),
    outputs: GOOD.outputs.map((output) => ({
      ...output,
      bytes: output.bytes.slice(),
      hdr: { ...output.hdr },
    })),
  };
}

function named(what: string, pattern: RegExp, damage: (run: Run) => void, options = OPTIONS): void {
  Deno.test(`conserve() names ${what}`, () => {
    const run = copy();
    damage(run);
    const { violations } = conserve(run.inputs, run.outputs, options);
    assert(violations.some((text) => pattern.test(text)), `named were only: ${violations.join("; ")}`);
  });
}

/** Changes the packet of a flow. */
function on(
  flow: number,
  change: (output: ConservedOutput) => Partial<ConservedOutput> | void,
): (run: Run) => void {
  return ({ outputs }) => {
    const at = outputOf(flow);
    outputs[at] = { ...outputs[at], ...change(outputs[at]) };
  };
}

const THREE = 0;
const STAMPED = 3;
const UPDATED = 16;
const PADDED = 32;
const HIDDEN = 48;
const WRONG_SUM = 64;
const VALID = 80;

Deno.test("conserve() finds nothing wrong with a good run, and tells where each input went", () => {
  const { violations, places } = conserve(GOOD.inputs, GOOD.outputs, OPTIONS);
  assertEquals(violations, []);
  assertEquals(places.slice(0, 3), new Array(3).fill(outputOf(THREE)));
  assertEquals(places.slice(3, 5), new Array(2).fill(outputOf(STAMPED)));
  assertEquals(new Set(places).size, GOOD.outputs.length);
});

Deno.test("conserve() lets a reset take what was held, and only that", () => {
  const { inputs, outputs } = copy();
  outputs.splice(outputOf(THREE), 1);
  const { violations, places } = conserve(inputs, outputs, { ...OPTIONS, endsInReset: true });
  assertEquals(violations, []);
  assertEquals(places.slice(0, 3), [-1, -1, -1]);
});

named("a packet that is missing", /3 frames lost of flow 800/, ({ outputs }) => {
  outputs.splice(outputOf(THREE), 1);
});
named("a packet that comes twice", /is none of the frames that went in/, ({ outputs }) => {
  outputs.push(outputs[outputOf(THREE)]);
});
named("a packet that was not sent", /is none of the frames that went in/, ({ outputs }) => {
  outputs.push({ ...outputs[0], bytes: new Uint8Array(60) });
});
named("a segment that was lost on the way into a packet", /its data are not those/, ({ inputs }) => {
  inputs.splice(1, 1);
});
named(
  "two packets of a flow in the wrong order",
  /its sequence number is not the first segment's/,
  (run) => {
    const at = outputOf(UPDATED);
    const next = run.outputs.findIndex(({ bytes }, i) => i > at && bytes[29] === run.outputs[at].bytes[29]);
    [run.outputs[at], run.outputs[next]] = [run.outputs[next], run.outputs[at]];
  },
);
named(
  "a segment that overtakes a fragment between its addresses",
  /overtook packet \d+, which hides its ports/,
  ({ outputs }) => {
    const at = outputOf(HIDDEN);
    const next = outputs.findIndex(({ bytes }, i) => i > at && bytes[29] === outputs[at].bytes[29]);
    [outputs[at], outputs[next]] = [outputs[next], outputs[at]];
  },
);
named(
  "a packet that was held too long",
  /was held 300001 ns, longer than 300000/,
  on(THREE, ({ atNs }) => ({ atNs: atNs + 1 })),
);
named("a packet that came before its segments", /before it came/, ({ inputs, outputs }) => {
  const [at] = conserve(inputs, outputs, OPTIONS).places.slice(-1);
  outputs[at] = { ...outputs[at], atNs: inputs.at(-1)!.atNs - 1 };
});
named("a byte that was flipped", /its data are not those/, on(THREE, ({ bytes }) => void (bytes[60] ^= 1)));
named("a frame that is no TCP and was changed", /is none of the frames/, ({ outputs }) => {
  outputs.find(({ bytes }) => bytes[12] === 8 && bytes[13] === 6)!.bytes[20] ^= 1;
});
named(
  "a wrong number of segments",
  /says 4 segments, has 3/,
  on(THREE, ({ hdr }) => ({ hdr: { ...hdr, csum_start: 4 } })),
);
named(
  "duplicate ACKs that are none",
  /says 1 duplicate ACKs/,
  on(THREE, ({ hdr }) => ({ hdr: { ...hdr, csum_offset: 1 } })),
);
named("a stale IPv4 checksum", /wrong IPv4 header checksum/, on(THREE, ({ bytes }) => void (bytes[24] ^= 1)));
named("a stale TCP checksum", /pseudo-header sum/, on(THREE, ({ bytes }) => void (bytes[50] ^= 1)));
named(
  "a merged packet without NEEDS_CSUM",
  /without NEEDS_CSUM/,
  on(THREE, ({ hdr }) => ({ hdr: { ...hdr, flags: 4 } })),
);
named(
  "a merged packet without RSC_INFO",
  /RSC_INFO does not agree/,
  on(THREE, ({ hdr }) => ({ hdr: { ...hdr, flags: 1 } })),
);
named("a wrong gso_size", /gso_size is 101/, on(THREE, ({ hdr }) => ({ hdr: { ...hdr, gso_size: 101 } })));
named("a wrong hdr_len", /hdr_len is 0/, on(THREE, ({ hdr }) => ({ hdr: { ...hdr, hdr_len: 0 } })));
named(
  "a wrong gso_type",
  /merged with gso_type 4/,
  on(THREE, ({ hdr }) => ({ hdr: { ...hdr, gso_type: 4 } })),
);
named(
  "a gso_type that claims ECN",
  /merged with gso_type 129/,
  on(THREE, ({ hdr }) => ({ hdr: { ...hdr, gso_type: 129 } })),
);
named("a wrong ACK number", /its ACK and window/, on(THREE, ({ bytes }) => void bytes[45]++));
named("a wrong window", /its ACK and window/, on(THREE, ({ bytes }) => void bytes[49]++));
named("a PSH that was lost", /PSH was lost/, on(THREE, ({ bytes }) => void (bytes[47] &= ~8)));
named("another hop limit", /hop limit/, on(THREE, ({ bytes }) => void bytes[22]--));
named("another identification", /its headers are not/, on(THREE, ({ bytes }) => void bytes[19]++));
named("another MAC address", /its headers are not/, on(THREE, ({ bytes }) => void bytes[11]++));
named("another sequence number", /sequence number is not/, on(THREE, ({ bytes }) => void bytes[41]++));
named(
  "ECN marks that were made up",
  /its headers are not/,
  on(THREE, ({ bytes }) => void (bytes[47] |= 0x40)),
);
named(
  "reserved bits that were made up",
  /its headers are not/,
  on(THREE, ({ bytes }) => void (bytes[46] |= 2)),
);
named(
  "an urgent pointer that was made up",
  /its headers are not/,
  on(THREE, ({ bytes }) => void (bytes[53] = 1)),
);
named("old timestamps", /timestamps are not the last/, on(STAMPED, ({ bytes }) => void bytes[81]--));
named(
  "bytes behind a merged packet",
  /bytes behind the end/,
  on(THREE, ({ bytes }) => ({ bytes: grown(bytes) })),
);
named(
  "a window update with a stale checksum",
  /wrong TCP checksum/,
  on(UPDATED, ({ bytes }) => void (bytes[50] ^= 1)),
);
named(
  "a single segment that is called large",
  /a single segment must not have gso_type 1/,
  on(UPDATED, ({ hdr }) => ({ hdr: { ...hdr, gso_type: 1 } })),
);
named(
  "padding that became part of the packet",
  /bytes behind the end/,
  on(PADDED, ({ bytes }) => ({ bytes: grown(bytes) })),
);
named(
  "a frame that lost a byte",
  /1 frames lost of flow 800/,
  on(PADDED, ({ bytes }) => ({ bytes: bytes.slice(0, -1) })),
);
named(
  "a frame with a wrong checksum that was made right",
  /was changed on its way/,
  on(WRONG_SUM, ({ bytes }) => void (bytes[50] ^= 0x55)),
);
named(
  "DATA_VALID that was lost",
  /another virtio header/,
  on(VALID, ({ hdr }) => ({ hdr: { ...hdr, flags: 0 } })),
);
named(
  "DATA_VALID that was made up",
  /another virtio header/,
  on(PADDED, ({ hdr }) => ({ hdr: { ...hdr, flags: 2 } })),
);
named("more segments than are allowed", /has 3 segments, allowed are 2/, () => {}, {
  ...OPTIONS,
  maxSegments: 2,
});
named("timestamps that are not to be merged", /timestamps were merged/, () => {}, {
  ...OPTIONS,
  timestamps: false,
});
named("RSC_INFO that the guest does not know", /RSC_INFO does not agree/, () => {}, {
  ...OPTIONS,
  rscInfo: false,
});
named("a segment that came while merging was off", /while that was off/, ({ inputs }) => {
  inputs[1] = { ...inputs[1], alone: true };
});
named("a packet that was large already", /large already/, ({ inputs }) => {
  inputs[1] = { ...inputs[1], header: headerOf({ gsoType: 1, flags: 2 }) };
});

named("a packet that goes on behind PSH", /behind PSH/, () => {}, { ...OPTIONS, flushOnPush: true });
named("a packet that is held in spite of PSH", /held 300000 ns in spite of PSH/, () => {}, {
  ...OPTIONS,
  flushOnPush: true,
});

/** Two segments, and what they would be merged into, however little they may be. */
function merged(first: Partial<Packet>, second: Partial<Packet>): Run {
  const write = (fields: Partial<Packet>) => Object.assign(new Packet(), { seq: 1000, ...fields });
  const a = write(first);
  const b = write({ seq: a.seq + a.payloadBytes, ...second });
  const whole = write({
    ...first,
    payloadBytes: a.payloadBytes + b.payloadBytes,
    ack: b.ack,
    window: b.window,
    options: b.options,
    flags: b.flags,
    checksum: "partial",
  });
  const inputs = [a, b].map((packet) => ({ atNs: 0, bytes: packet.write(), header: headerOf({}) }));
  const hdr = {
    flags: 5,
    gso_type: 1,
    hdr_len: 54,
    gso_size: 100,
    csum_start: 2,
    csum_offset: 0,
    num_buffers: 1,
  };
  return { inputs, outputs: [{ atNs: 0, bytes: whole.write(), hdr }] };
}

Deno.test("conserve() finds nothing wrong with two segments that may be merged", () => {
  const { inputs, outputs } = merged({}, {});
  assertEquals(conserve(inputs, outputs, OPTIONS).violations, []);
});

const MUST_NOT: [what: string, pattern: RegExp, first: Partial<Packet>, second: Partial<Packet>][] = [
  ["wrong TCP checksum", /wrong checksum was merged/, {}, { checksum: "wrong" }],
  ["wrong TCP checksum in the first", /wrong checksum was merged/, { checksum: "wrong" }, {}],
  ["wrong IPv4 checksum", /wrong IPv4 header checksum was merged/, {}, { ipChecksumRight: false }],
  ["SYN", /with flags 0x12/, {}, { flags: 0x12 }],
  ["FIN", /with flags 0x11/, {}, { flags: 0x11 }],
  ["RST", /with flags 0x14/, {}, { flags: 0x14 }],
  ["URG", /with flags 0x30/, {}, { flags: 0x30 }],
  ["no ACK", /with flags 0x8/, {}, { flags: 8 }],
  ["ECE", /different TCP flags/, {}, { flags: 0x50 }],
  ["CWR", /different TCP flags/, {}, { flags: 0x90 }],
  ["AE", /different TCP flags/, {}, { flags: 0x110 }],
  ["a reserved bit", /different TCP flags/, {}, { flags: 0x210 }],
  ["another DSCP", /different DSCP/, {}, { tos: 8 }],
  ["another ECN mark", /different DSCP/, {}, { tos: 3 }],
  ["DF clear", /different DSCP/, {}, { fragment: 0 }],
  ["another MAC address", /different MAC/, {}, { macs: [0x56, 1] }],
  ["other TCP options", /options other than timestamps/, {}, { options: Uint8Array.of(1, 1, 1, 1) }],
  ["an older ACK", /ACK goes back/, { ack: 7 }, { ack: 5 }],
];
for (const [what, pattern, first, second] of MUST_NOT) {
  Deno.test(`conserve() names a segment that must not be merged: ${what}`, () => {
    const { inputs, outputs } = merged(first, second);
    const { violations } = conserve(inputs, outputs, OPTIONS);
    assert(violations.some((text) => pattern.test(text)), `named were only: ${violations.join("; ")}`);
  });
}

Deno.test("conserve() names ECN that the guest does not take", () => {
  const { inputs, outputs } = merged({ tos: 2 }, { tos: 2 });
  const refused = inputs.map((input) => ({ ...input, ecn: false }));
  assertEquals(conserve(inputs, outputs, OPTIONS).violations, []);
  const { violations } = conserve(refused, outputs, OPTIONS);
  assertMatch(violations.join(), /segments with ECN were merged/);
});

Deno.test("recordOf() writes a vector file that can be run, as a vector and as the scenario it is", async () => {
  const scenario = { machine: PLAIN_MACHINE, streams: [STEPS, STEPS.slice(0, 3)] };
  const text = await recordOf({ seed: 7, scenario, violations: ["one thing"] });
  assertEquals(scenarioIn(text), scenario);
  const vector = parseVector(text, "fuzz-7.jsonl");
  assertEquals([vector.head.name, vector.head.observed], ["fuzz-7", ["one thing"]]);
  assertEquals(vector.events.length, GOOD.inputs.length + 3);
  assertEquals(
    vector.packets.slice(0, GOOD.outputs.length).map(({ t_ns }) => t_ns),
    GOOD.outputs.map(({ atNs }) => atNs),
  );
  const run = await runVector(vector, { rules: "strict" });
  assertEquals(strictViolations(vector, run), []);
  assert(run.packets.length > 0);
});

Deno.test("Epoch names counters that do not add up", async () => {
  const counters: Record<string, Record<string, number>> = {};
  const bench = await Bench.open(PLAIN_MACHINE);
  await bench.close();
  for (const key of snapshot(bench.counters).keys()) {
    const space = key.lastIndexOf(" ");
    (counters[key.slice(0, space)] ??= {})[key.slice(space + 1)] = 0;
  }
  const state = new GuestState(FeatureSet.of(1, 7, 8, 15, 32, 61), 2048);
  const frame = { bytes: new Packet().write(), header: headerOf({}) };
  const violations = (change: () => void): string => {
    const epoch = new Epoch(state, snapshot(counters));
    epoch.receive(frame, 0);
    epoch.outputs.push({
      atNs: 0,
      bytes: frame.bytes,
      queue: 0,
      hdr: { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0, num_buffers: 1 },
    });
    counters["net0.toGuest"].packets++;
    change();
    return epoch.violations(counters, { intervalNs: 0 }).join("; ");
  };
  assertEquals(violations(() => {}), "");
  assertMatch(violations(() => counters["net0.toGuest"].packets++), /2 packets counted, 1 delivered/);
  assertMatch(violations(() => counters["net0.rsc-v4"].received++), /0 verdicts on 1 frames/);
  assertMatch(violations(() => counters["net0.rsc-v4"].merged++), /1 frames came in, accounted for are 2/);
  assertMatch(violations(() => counters["net0"].discarded_at_reset++), /0 frames are gone, 1 discarded/);
  assertMatch(
    violations(() => counters["net0.toGuest"].dropped_large++),
    /dropped_large counts 1, expected 0/,
  );
  assertMatch(violations(() => counters["net0.filter"].too_short++), /too_short counts 1, expected 0/);
});

function grown(bytes: Uint8Array): Uint8Array {
  const more = new Uint8Array(bytes.length + 1);
  more.set(bytes);
  return more;
}
