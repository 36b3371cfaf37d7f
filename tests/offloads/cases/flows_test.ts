/** Cases 70 to 80: flows, timers and queues. */
import { assertEquals, assertObjectMatch } from "@std/assert";
import { FeatureSet } from "../../../core/features.ts";
import { rscV4 } from "../../../offloads/rsc_v4.ts";
import { arp, BENCH_FEATURES, StageBench, tcp } from "../../../testing/mod.ts";
import { VIRTIO_NET_F_GUEST_TSO6 } from "../../../wire/net_features.ts";
import { type Arrival, type Departure, END_NS, infoOf, testCase } from "./case.ts";
import { A, B, merged, packet, packet6, stale } from "./packets.ts";

/** A packet of another flow between the same addresses. */
const flow = (sourcePort: number, seq = 1000) => packet({ sourcePort, seq });

testCase(70, { arrive: [[0, flow(1)], [1, flow(2)], [2, flow(1, 1100)], [3, flow(2, 1100)]] }, {
  Q: {
    says: "interleaved flows leave as two packets, in order of opening",
    out: [
      [300_000, "[4,1,2]", stale(flow(1), { sourcePort: 1, payload: 200 })],
      [300_000, "[4,1,2]", stale(flow(2), { sourcePort: 2, payload: 200 })],
    ],
    counters: { no_match: 2, no_match_cache: 1, empty_cache: 1 },
  },
  S: {
    says: "interleaved flows leave as two packets, in order of opening",
    out: [
      [300_000, "[5,1,2]", merged({ sourcePort: 1, payload: 200 }), { gsoSize: 100 }],
      [300_000, "[5,1,2]", merged({ sourcePort: 2, payload: 200 }), { gsoSize: 100 }],
    ],
    counters: { held: 2, merged: 2 },
  },
});

const five = [[0, flow(1)], [1, flow(2)], [2, flow(3)], [3, flow(2)], [4, flow(2, 1100)]] as const;
testCase(71, { arrive: five }, {
  QS: {
    says: "a flow that was flushed opens its next packet at the end of the order",
    out: [
      [3, "[0,0,-]", flow(2)],
      [3, "[0,0,-]", flow(2)],
      [300_000, "[0,0,-]", flow(1)],
      [300_000, "[0,0,-]", flow(3)],
      [300_000, "[0,0,-]", flow(2, 1100)],
    ],
    Q: { dup_ack: 1 },
    S: { out_of_order: 1 },
  },
});

const reverse = tcp({
  source: "10.0.0.2",
  destination: "10.0.0.1",
  sourcePort: 80,
  destinationPort: 1111,
  seq: 1100,
  payload: 100,
});
testCase(72, { arrive: [[0, A], [1, reverse]] }, {
  QS: {
    says: "the reverse direction is a flow of its own",
    out: [[300_000, "[0,0,-]", A], [300_000, "[0,0,-]", reverse]],
    Q: { no_match: 1 },
    S: { held: 2 },
  },
});

testCase(73, { arrive: [[0, flow(1)], [299_999, flow(2)], [300_001, flow(3)]] }, {
  QS: {
    says: "the timer of the first lets all go that are there, and a later one starts it anew",
    out: [
      [300_000, "[0,0,-]", flow(1)],
      [300_000, "[0,0,-]", flow(2)],
      [600_001, "[0,0,-]", flow(3)],
    ],
    Q: { timer: 2 },
    S: { drained_by_timer: 3 },
  },
});

testCase(74, { arrive: [[0, A], [100_000, A], [200_000, B]] }, {
  QS: {
    says: "the timer starts anew once nothing is held",
    out: [[100_000, "[0,0,-]", A], [100_000, "[0,0,-]", A], [500_000, "[0,0,-]", B]],
    Q: { dup_ack: 1, timer: 1 },
    S: { out_of_order: 1, drained_by_timer: 1 },
  },
});

testCase(75, { arrive: [[0, A], [100_000, packet6()]] }, {
  QS: {
    says: "v4 and v6 have timers of their own",
    out: [[300_000, "[0,0,-]", A], [400_000, "[0,0,-]", packet6()]],
    Q: { timer: 1 },
    S: { drained_by_timer: 1 },
  },
});

testCase(76, { arrive: [[0, A], [300_000, B]] }, {
  QS: {
    says: "at equal times the timer is first",
    out: [[300_000, "[0,0,-]", A], [600_000, "[0,0,-]", B]],
    Q: { timer: 2, coalesced: 0 },
    S: { drained_by_timer: 2, merged: 0 },
  },
});

for (const rules of ["qemu", "strict"] as const) {
  const [letter, says, wanted] = rules === "qemu"
    ? ["Q", "two queues share a packet, which goes to the first one's", [[300_000, "[4,1,2]", 0, 254]]]
    : [
      "S",
      "what is held for the old queue leaves before the flow goes on on the new one",
      [[1, "[0,0,-]", 0, 154], [300_001, "[0,0,-]", 1, 154]],
    ];
  Deno.test(`case 77 ${letter}: ${says}`, () => {
    using bench = new StageBench(rscV4, { rules, queuePairs: 2 });
    bench.feed(A, { queuePair: 0 });
    bench.advanceTo(1);
    bench.feed(B, { queuePair: 1 });
    bench.advanceTo(END_NS);
    assertEquals(
      bench.out.map(({ atNs, header, queuePair, bytes }) => [atNs, infoOf(header), queuePair, bytes.length]),
      wanted as typeof bench.out[number]["queuePair"][][],
    );
    const { counters } = bench;
    if (rules === "strict") assertObjectMatch(counters["rsc-v4"], { held: 1, queue_pair_differs: 1 });
  });
}

const without6 = BENCH_FEATURES.minus(FeatureSet.of(VIRTIO_NET_F_GUEST_TSO6));
const mixed: Arrival[] = [[0, A], [1, packet6()], [2, B], [3, packet6({ seq: 1100 })]];
const passed6: Departure[] = [[1, "[0,0,-]", packet6()], [3, "[0,0,-]", packet6({ seq: 1100 })]];
testCase(78, { arrive: mixed, features: without6, family: "v6" }, {
  Q: {
    says: "with v6 off its frames pass at once, counted as received, and v4 merges",
    out: [...passed6, [300_000, "[4,1,2]", stale(A, { payload: 200 })]],
    counters: { received: 2, cache: 0 },
  },
  S: {
    says: "with v6 off its frames pass at once, and v4 merges",
    out: [...passed6, [300_000, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }]],
    counters: { off: 2 },
  },
});

const tagged = packet({ seq: 1100, vlans: [{ id: 5 }] });
testCase(79, { arrive: [[0, A], [1, arp()], [2, tagged], [3, B]] }, {
  Q: {
    says: "ARP and tagged frames pass at once and never mix with untagged ones",
    out: [[1, "[0,0,-]", arp()], [2, "[0,0,-]", tagged], [300_000, "[4,1,2]", stale(A, { payload: 200 })]],
    counters: { received: 2 },
  },
  S: {
    says: "ARP passes at once, and a VLAN has flows of its own",
    out: [
      [1, "[0,0,-]", arp()],
      [300_000, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }],
      [300_000, "[0,0,-]", tagged],
    ],
    counters: { received: 3 },
  },
});

const many: Arrival[] = Array.from({ length: 4096 }, (_, i) => [i, flow(1 + i)]);
testCase(80, { arrive: many }, {
  QS: {
    says: "4096 flows all leave in order of opening",
    out: many.map(([, frame]) => [300_000, "[0,0,-]", frame]),
    Q: { cache: 4096, no_match: 4096 * 4095 / 2, timer: 1 },
    S: { held: 4096, drained_by_timer: 4096 },
  },
});

const few = many.slice(0, 20);
testCase(80, { arrive: few, options: { maxFlows: 16 } }, {
  S: {
    says: "beyond maxFlows the oldest leave early, in order",
    out: few.map(([, frame], i) => [i < 4 ? 16 + i : 300_000, "[0,0,-]", frame]),
    counters: { drained_for_room: 4, drained_by_timer: 16 },
  },
});
