import { assertEquals } from "@std/assert";
import fc from "fast-check";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { Rule } from "../../pipeline/stage.ts";
import { newStrictCounters, QEMU_RULES, STRICT_RULES } from "../../offloads/rsc_chain/verdicts.ts";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { arp, StageBench, tcp, type TcpFields, type TcpFlag } from "../../testing/mod.ts";

/** What a chain says of these packets of one flow. */
function explained(rules: RuleBook, packets: readonly TcpFields[], options: object = {}): string[] {
  using bench = new StageBench({ plugin: rscV4, options }, { rules });
  for (const fields of packets) bench.feed(tcp({ payload: 100, ...fields }));
  return String(bench.verdicts).split("\n");
}

Deno.test("the strict chain says of every frame what it did, by which rule, and which frame opened it", () => {
  assertEquals(
    explained("strict", [{}, { seq: 1100 }, { seq: 1200, tos: 8 }, { seq: 9 }, { seq: 9, flags: ["RST"] }]),
    [
      "frame 1: rsc-v4 held (S7.1), opened by frame 1",
      "frame 2: rsc-v4 merged (S7.2), opened by frame 1",
      "frame 3: rsc-v4 traits_differ (S4.1), opened by frame 3",
      "frame 4: rsc-v4 traits_differ (S4.1), opened by frame 4",
      "frame 5: rsc-v4 rst (S3.3), opened by frame 4",
    ],
  );
});

Deno.test("the reference's chain says of every frame what it did, by which rule, and which frame opened it", () => {
  assertEquals(
    explained("qemu", [{}, { seq: 1100 }, { seq: 9 }, { seq: 9, flags: ["SYN"] }, { sourcePort: 2 }]),
    [
      "frame 1: rsc-v4 empty_cache (Q9), opened by frame 1",
      "frame 2: rsc-v4 coalesced (Q15), opened by frame 1",
      "frame 3: rsc-v4 data_out_of_win (Q11), opened by frame 1",
      "frame 4: rsc-v4 tcp_syn (Q6)",
      "frame 5: rsc-v4 empty_cache (Q9), opened by frame 5",
    ],
  );
});

const flags = fc.constantFrom<readonly TcpFlag[]>(["ACK"], ["ACK", "PSH"], ["SYN"], ["FIN", "ACK"], [
  "ACK",
  "ECE",
], []);
const anyPacket = fc.record({
  seq: fc.constantFrom(1000, 1100, 1200, 1101, 999),
  ack: fc.constantFrom(1, 2, 70_000),
  window: fc.constantFrom(500, 501),
  payload: fc.constantFrom(0, 100),
  sourcePort: fc.constantFrom(1, 2),
  tos: fc.constantFrom(0, 0, 0, 2, 40),
  dontFragment: fc.constantFrom(true, true, false),
  checksum: fc.constantFrom("right" as const, "right" as const, "wrong" as const),
  ipLength: fc.constantFrom(undefined, undefined, undefined, 39, 9000),
  flags,
});

for (const rules of ["strict", "qemu"] as const) {
  Deno.test(`every frame of the family gets one verdict of the ${rules} rule book, with the id of its rule`, () => {
    const book: Record<string, Rule> = rules === "strict" ? STRICT_RULES : QEMU_RULES;
    fc.assert(
      fc.property(fc.array(anyPacket, { maxLength: 30 }), (packets) => {
        using bench = new StageBench(rscV4, { rules });
        for (const { ipLength, ...fields } of packets) {
          bench.feed(tcp(ipLength === undefined ? fields : { ...fields, ipLength }));
        }
        bench.feed(arp());
        assertEquals(bench.verdicts.all.map(({ frame }) => frame), packets.map((_, i) => i + 1));
        for (const { verdict, rule } of bench.verdicts.all) assertEquals(rule, book[verdict].id);
      }),
      { numRuns: 60 },
    );
  });
}

Deno.test("the strict chain's counters are what its verdicts add up to", () => {
  fc.assert(
    fc.property(fc.array(anyPacket, { maxLength: 30 }), (packets) => {
      using bench = new StageBench(rscV4, { rules: "strict" });
      for (const { ipLength, ...fields } of packets) {
        bench.feed(tcp(ipLength === undefined ? fields : { ...fields, ipLength }));
      }
      const counted: Record<string, number> = newStrictCounters();
      for (const name of bench.verdicts.names) counted[name]++;
      for (const name of Object.keys(STRICT_RULES)) {
        assertEquals(bench.counters["rsc-v4"][name], counted[name], name);
      }
      assertEquals(bench.counters["rsc-v4"].received, packets.length);
    }),
    { numRuns: 60 },
  );
});

Deno.test("explanations change nothing", () => {
  fc.assert(
    fc.property(
      fc.array(anyPacket, { maxLength: 20 }),
      fc.constantFrom("strict", "qemu"),
      (packets, rules) => {
        const outputs = [true, false].map((explain) => {
          using bench = new StageBench(rscV4, { rules: rules as RuleBook, explain });
          for (const { ipLength: _, ...fields } of packets) bench.feed(tcp(fields));
          bench.advanceTo(300_000);
          return bench.out;
        });
        assertEquals(outputs[0], outputs[1]);
      },
    ),
    { numRuns: 40 },
  );
});
