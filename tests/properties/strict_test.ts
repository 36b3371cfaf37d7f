/**
 * Whole devices under strict rules, built from JSON and fed with tens of thousands of streams. What must hold
 * of every one is in `testing/vectors/conservation.ts` and `support/epoch.ts`. `FUZZ_SEED` runs other
 * streams, `FUZZ_TIMES` more of them.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import type { ReceivedPacket } from "../../devices/net/driver/mod.ts";
import { anyMachine, anyStream, EVENTS, NASTY, ORDINARY, scenarios } from "./support/arbitraries.ts";
import { PROFILES } from "./support/profiles.ts";
import { PLAIN_MACHINE, type Scenario, type Step } from "./support/scenario.ts";
import { recordOf, search, type Tally, violationsOf } from "./support/search.ts";
import { SEED, TIMES } from "./support/settings.ts";
import { sizeOf } from "./support/traffic.ts";
import type { Witness } from "./support/witness.ts";

const RUNS_A_ROUND = 100;

Deno.test("an ordinary run takes at least twenty thousand streams", () => {
  assert(PROFILES.reduce((sum, { streams }) => sum + streams, 0) >= 20_000);
});

for (const { name, scenarios, streams } of PROFILES) {
  Deno.test(`NetDevice keeps every rule: ${name} (seed ${SEED})`, async () => {
    const tally: Tally = { streams: 0, frames: 0, packets: 0 };
    for (let round = 0; tally.streams < streams * TIMES; round++) {
      const failure = await search(scenarios, SEED + round, RUNS_A_ROUND, tally);
      if (failure === null) continue;
      const file = await Deno.makeTempFile({ prefix: "counterexample-", suffix: ".jsonl" });
      await Deno.writeTextFile(file, await recordOf(failure));
      throw new Error(
        `${failure.violations.join("\n")}\nseed ${failure.seed}, scenario ${
          JSON.stringify(failure.scenario)
        }\n` +
          `To run it again: deno task fuzz --replay ${file}`,
      );
    }
    assertGreater(tally.frames, 10 * streams, "streams are too short to mean anything");
    assert(tally.packets < 0.95 * tally.frames, "hardly anything was merged");
  });
}

/** Writes down all that comes out, but for what depends on the rings. */
class Output implements Witness {
  readonly packets: string[] = [];
  frame(): void {}
  offloads(): void {}
  post(): void {}
  packet(atNs: number, packet: ReceivedPacket): void {
    const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset, queuePair } = packet;
    this.packets.push(
      [atNs, flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset, queuePair, packet.bytes].join(),
    );
  }
}

async function outputOf(scenario: Scenario): Promise<string[]> {
  const output = new Output();
  assertEquals(await violationsOf(scenario, undefined, output), []);
  return output.packets;
}

Deno.test(`NetDevice does the same twice, bit for bit (seed ${SEED})`, async () => {
  let packets = 0;
  const property = fc.asyncProperty(
    scenarios(anyMachine, anyStream({ ...NASTY, ...EVENTS }), 4),
    async (scenario) => {
      const first = await outputOf(scenario);
      packets += first.length;
      assertEquals(await outputOf(scenario), first);
    },
  );
  await fc.assert(property, { seed: SEED, numRuns: 60 });
  assertGreater(packets, 1000);
});

Deno.test(`NetDevice delivers the same over every kind of ring (seed ${SEED})`, async () => {
  const property = fc.asyncProperty(anyMachine, anyStream(NASTY), async (machine, stream) => {
    // What is left the same is what coalescing may depend on.
    const { accepted, intervalUs, maxFlows, maxSegments, flushOnPush, flushOnIdle, timestamps, v6First } =
      machine;
    const same = {
      accepted,
      intervalUs,
      maxFlows,
      maxSegments,
      flushOnPush,
      flushOnIdle,
      timestamps,
      v6First,
    };
    const plain = await outputOf({ machine: { ...PLAIN_MACHINE, ...same }, streams: [stream] });
    const other = { ...machine, mergeable: true, pairs: 1, memoryMiB: 128, legacy: false };
    assertEquals(await outputOf({ machine: other, streams: [stream] }), plain);
  });
  await fc.assert(property, { seed: SEED, numRuns: 150 });
});

Deno.test(`NetDevice merges all that it may of a clean stream (seed ${SEED})`, async () => {
  const sizes = fc.array(fc.nat(40), { minLength: 1, maxLength: 60 });
  const property = fc.asyncProperty(
    sizes,
    fc.boolean(),
    fc.integer({ min: 2, max: 50 }),
    async (all, v6, most) => {
      const stream = all.map((size): Step => ["next", v6 ? 1 : 0, size, 0, 0]);
      const output = new Output();
      let packets = 0;
      let ipLength = Infinity;
      let segments = 0;
      const machine = { ...PLAIN_MACHINE, maxSegments: most };
      const bytes: number[] = [];
      const witness: Witness = {
        frame: (_, frame) => bytes.push(frame.bytes.length - 54 - (v6 ? 20 : 0)),
        offloads() {},
        post() {},
        packet: (atNs, packet) => output.packet(atNs, packet),
      };
      assertEquals(await violationsOf({ machine, streams: [stream] }, undefined, witness), []);
      for (const payload of bytes) {
        ipLength += payload;
        if (ipLength > 65_535 || segments === most) {
          packets++;
          ipLength = payload + (v6 ? 20 : 40);
          segments = 0;
        }
        segments++;
      }
      assertEquals(output.packets.length, packets);
    },
  );
  // Exactly as long as IP allows, and one byte more.
  const limits: [number[], boolean, number][] = [
    [[sizeOf(32_740), sizeOf(32_755)], false, 9],
    [[sizeOf(32_740), sizeOf(32_755), sizeOf(1)], false, 9],
    [[sizeOf(32_740), sizeOf(32_775)], true, 9],
    [[sizeOf(32_740), sizeOf(32_775), sizeOf(1)], true, 9],
  ];
  await fc.assert(property, { seed: SEED, numRuns: 200, examples: limits });
});

Deno.test("ordinary traffic is merged to less than two thirds of its frames", async () => {
  const tally: Tally = { streams: 0, frames: 0, packets: 0 };
  assertEquals(
    await search(scenarios(fc.constant(PLAIN_MACHINE), anyStream(ORDINARY), 4), SEED, 60, tally),
    null,
  );
  assert(tally.packets * 3 < tally.frames * 2, `${tally.frames} frames became ${tally.packets} packets`);
});
