/** Cases 89 to 95: what is negotiated, switched, reset and saved. All of them through a whole device. */
import { assertEquals, assertRejects } from "@std/assert";
import { HostError } from "../../../core/errors.ts";
import { FeatureSet } from "../../../core/features.ts";
import { rscV4 } from "../../../offloads/rsc_v4.ts";
import {
  BENCH_FEATURES,
  type Delivered,
  type MachineBench,
  NetGuest,
  StageBench,
} from "../../../testing/mod.ts";
import * as net from "../../../wire/net_features.ts";
import { departures, startDevice } from "./case.ts";
import { A, B, merged, packet6, stale } from "./packets.ts";

const CSUM = net.VIRTIO_NET_F_GUEST_CSUM;
const TSO4 = net.VIRTIO_NET_F_GUEST_TSO4;
const TSO6 = net.VIRTIO_NET_F_GUEST_TSO6;
const RSC = net.VIRTIO_NET_F_RSC_EXT;
const USO4 = net.VIRTIO_NET_F_GUEST_USO4;
const CONTROL = BENCH_FEATURES.with(net.VIRTIO_NET_F_CTRL_VQ, net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);

const A6 = packet6();
const B6 = packet6({ seq: 1100 });
const RULES = [["Q", "qemu"], ["S", "strict"]] as const;
type Rules = (typeof RULES)[number][1];

/** The packet that A and B make, by rule book and family. */
function packet(rules: Rules, family: "v4" | "v6" = "v4"): [string, Uint8Array] {
  const gso = family === "v4" ? 1 : 4;
  const fields = { payload: 200, ...(family === "v6" ? { source: "fd00::1" } : {}) };
  return rules === "qemu"
    ? [`[4,${gso},2]`, stale(family === "v4" ? A : A6, fields)]
    : [`[5,${gso},2]`, merged(fields)];
}

/** Feeds both segments of both families at the present time, and waits. */
function feedAll(bench: MachineBench): Delivered[] {
  const before = bench.out.length;
  for (const frame of [A, A6, B, B6]) bench.feed(frame);
  bench.advanceTo(bench.nowNs + 1_000_000);
  return bench.out.slice(before);
}

function offloads(bench: MachineBench, ...bits: number[]): number | null {
  const command = bench.guest.setGuestOffloads(FeatureSet.of(...bits));
  bench.settle();
  return command.ack;
}

for (const [letter, rules] of RULES) {
  for (const [on, off, withheld] of [["v4", "v6", TSO6], ["v6", "v4", TSO4]] as const) {
    Deno.test(`case 89 ${letter}: with GUEST_TSO for ${on} only, ${off} passes`, async () => {
      await using bench = await startDevice(rules, { features: BENCH_FEATURES.without(withheld) });
      const [first, second] = on === "v4" ? [A6, B6] : [A, B];
      assertEquals(departures({ out: feedAll(bench) }), [
        [0, "[0,0,-]", first],
        [0, "[0,0,-]", second],
        [300_000, ...packet(rules, on)],
      ]);
    });
  }
}

const ALONE: ReturnType<typeof departures> = [[0, "[0,0,-]", A], [0, "[0,0,-]", A6], [0, "[0,0,-]", B], [
  0,
  "[0,0,-]",
  B6,
]];

Deno.test("case 89 Q: RSC_EXT without any GUEST_TSO does nothing", async () => {
  await using bench = await startDevice("qemu", { features: BENCH_FEATURES.without(TSO4, TSO6) });
  assertEquals(departures({ out: feedAll(bench) }), ALONE);
});

Deno.test("case 89 S: RSC_EXT without any GUEST_TSO is refused", async () => {
  const features = BENCH_FEATURES.without(TSO4, TSO6);
  await assertRejects(
    () => startDevice("strict", { features }),
    HostError,
    "RSC_EXT without GUEST_TSO4 or GUEST_TSO6",
  );
});

Deno.test("case 89 S: RSC_EXT without any GUEST_TSO does nothing in the stage itself", () => {
  using bench = new StageBench(rscV4, { features: BENCH_FEATURES.without(TSO4, TSO6) });
  bench.feed(A);
  assertEquals(departures(bench), [[0, "[0,0,-]", A]]);
});

Deno.test("case 89 Q: without GUEST_CSUM it is on all the same", async () => {
  await using bench = await startDevice("qemu", { features: BENCH_FEATURES.without(CSUM) });
  assertEquals(departures({ out: feedAll(bench) }), [[300_000, ...packet("qemu")], [
    300_000,
    ...packet("qemu", "v6"),
  ]]);
});

Deno.test("case 89 S: without GUEST_CSUM a driver must not have GUEST_TSO, and the stage is off", async () => {
  const features = BENCH_FEATURES.without(CSUM);
  await assertRejects(() => startDevice("strict", { features }), HostError, "GUEST_TSO4 without GUEST_CSUM");
  using bench = new StageBench(rscV4, { features });
  bench.feed(A);
  assertEquals(departures(bench), [[0, "[0,0,-]", A]]);
});

Deno.test("case 90 Q: GUEST_OFFLOADS_SET switches on what was never negotiated", async () => {
  await using bench = await startDevice("qemu", { features: CONTROL.without(RSC) });
  assertEquals(departures({ out: feedAll(bench) }), ALONE);
  assertEquals(offloads(bench, RSC, TSO4), 0);
  const [info, bytes] = packet("qemu");
  assertEquals(departures({ out: feedAll(bench) }), [
    [1_000_000, "[0,0,-]", A6],
    [1_000_000, "[0,0,-]", B6],
    [1_300_000, info, bytes],
  ]);
});

Deno.test("case 90 S: GUEST_OFFLOADS_SET with what was not negotiated is refused and changes nothing", async () => {
  await using bench = await startDevice("strict", { features: CONTROL.without(RSC) });
  const plain = departures({ out: feedAll(bench) });
  assertEquals(plain.map(([, info]) => info), ["[1,1,-]", "[1,4,-]"]);
  assertEquals(offloads(bench, RSC, TSO4), 1);
  assertEquals(bench.counters.control.not_negotiated, 1);
  const later = departures({ out: feedAll(bench) });
  assertEquals(later, plain.map(([atNs, info, bytes]) => [atNs + 1_000_000, info, bytes]));
});

for (const [letter, rules] of RULES) {
  const says = rules === "qemu" ? "fails and switches on nevertheless" : "fails and changes nothing";
  Deno.test(`case 91 ${letter}: GUEST_OFFLOADS_SET with an unsupported bit ${says}`, async () => {
    await using bench = await startDevice(rules, { features: CONTROL });
    assertEquals(offloads(bench, CSUM, TSO4, TSO6), 0);
    assertEquals(departures({ out: feedAll(bench) }), ALONE);
    assertEquals(offloads(bench, USO4, RSC, TSO4), 1);
    const out = departures({ out: feedAll(bench) });
    if (rules === "qemu") {
      assertEquals(out, [
        [1_000_000, "[0,0,-]", A6],
        [1_000_000, "[0,0,-]", B6],
        [1_300_000, ...packet("qemu")],
      ]);
    } else {
      assertEquals(
        out,
        departures({ out: bench.out.slice(0, 4) }).map(([, info, bytes]) => [1_000_000, info, bytes]),
      );
    }
  });
}

Deno.test("case 92 Q: a packet behind the command that switches off overtakes what is held", async () => {
  await using bench = await startDevice("qemu", { features: CONTROL });
  bench.feed(A);
  bench.advanceTo(1);
  assertEquals(offloads(bench, CSUM, TSO4, TSO6), 0);
  bench.advanceTo(2);
  bench.feed(B);
  bench.advanceTo(1_000_000);
  assertEquals(departures(bench), [[2, "[0,0,-]", B], [300_000, "[0,0,-]", A]]);
});

Deno.test("case 92 S: the command that switches off flushes the flow first", async () => {
  await using bench = await startDevice("strict", { features: CONTROL });
  bench.feed(A);
  bench.advanceTo(1);
  assertEquals(offloads(bench, CSUM, TSO4, TSO6), 0);
  bench.advanceTo(2);
  bench.feed(B);
  bench.advanceTo(1_000_000);
  assertEquals(departures(bench), [[1, "[0,0,-]", A], [2, "[0,0,-]", B]]);
  assertEquals(bench.counters["rsc-v4"].drained_by_switch, 1);
});

for (const [letter, rules] of RULES) {
  Deno.test(`case 93 ${letter}: nothing that was held comes to the next driver, whose header is shorter`, async () => {
    await using bench = await startDevice(rules);
    bench.feed(A);
    bench.advanceTo(1);
    bench.guest.detach();
    const received: [number, string, Uint8Array][] = [];
    const next = new NetGuest({ legacy: true, mergeable: false, accept: ["GUEST_CSUM"] }, {
      onPacket: ({ flags, gsoType, bytes }) =>
        received.push([next.session.features.has(32) ? 12 : 10, `${flags},${gsoType}`, bytes.slice()]),
    });
    const session = next.attach(bench.machine.devices[0].device);
    bench.port.inject(B);
    for (const nowNs of [2, 300_000, 600_000]) {
      for (let i = 0; i < 4; i++) (session.poll(nowNs), next.poll(nowNs));
    }
    assertEquals(received, [[10, "0,0", B]]);
    assertEquals(next.errors, []);
    assertEquals(bench.counters[""].discarded_at_reset, 1);
    next.detach();
    assertEquals(bench.out, []);
  });

  Deno.test(`case 94 ${letter}: what is held is drained before the device is saved`, async () => {
    await using bench = await startDevice(rules);
    bench.feed(A);
    bench.feed(B);
    bench.advanceTo(5);
    bench.machine.drain();
    assertEquals(departures(bench), [[5, ...packet(rules)]]);
    bench.advanceTo(1_000_000);
    assertEquals(bench.out.length, 1);
  });
}

Deno.test("case 95 Q: without RSC_EXT nothing is coalesced", async () => {
  await using bench = await startDevice("qemu", { features: BENCH_FEATURES.without(RSC) });
  assertEquals(departures({ out: feedAll(bench) }), ALONE);
});

Deno.test("case 95 S: without RSC_EXT an ordinary large packet comes, without RSC_INFO", async () => {
  await using bench = await startDevice("strict", { features: BENCH_FEATURES.without(RSC) });
  const [v4, v6] = feedAll(bench);
  const place = (csumStart: number) => ({ flags: 1, gsoSize: 100, csumStart, csumOffset: 16 });
  assertEquals(v4.header, { ...place(34), gsoType: 1, hdrLen: 54 });
  assertEquals(v6.header, { ...place(54), gsoType: 4, hdrLen: 74 });
  assertEquals([v4.bytes, v6.bytes], [packet("strict")[1], packet("strict", "v6")[1]]);
  assertEquals(bench.out.length, 2);
});
