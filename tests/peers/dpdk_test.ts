/**
 * DPDK's virtio-user, a front-end with a poll-mode driver, against our back-end: real rings, and no frame is
 * lost unless it is counted.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { TcpStream } from "../../testing/mod.ts";
import { large, plain } from "./support/dpdk_account.ts";
import { Bench, FRAMES } from "./support/dpdk_bench.ts";
import { hostTest, linux, program } from "../../rigs/require.ts";
import { until } from "./support/tap_rig.ts";
import { GUEST_MAC, hugePages, type PortStats, reserveHugePages } from "./support/testpmd.ts";

const NEEDS = [linux, program("dpdk-testpmd", "dpdk-dev"), program("stdbuf", "coreutils")];
/** Scattered frames, large TCP frames, TCP and UDP checksums: RTE_ETH_RX_OFFLOAD_ bits. */
const LARGE_FRAMES = 0x201c;
const GUEST_TSO4 = 7;
const GUEST_TSO6 = 8;
const GUEST_CSUM = 1;
const IN_ORDER = 35;

/** The paths of DPDK 22.11 by ring, buffers, in_order and vectorized: "receive, send". */
const PATHS = [
  ["split", "mergeable", 0, 0, "mergeable buffer, standard"],
  ["split", "mergeable", 0, 1, "mergeable buffer, standard"],
  ["split", "mergeable", 1, 0, "inorder, inorder"],
  ["split", "mergeable", 1, 1, "inorder, inorder"],
  ["split", "single", 0, 0, "standard, standard"],
  ["split", "single", 0, 1, "vectorized, standard"],
  ["split", "single", 1, 0, "inorder, inorder"],
  ["split", "single", 1, 1, "inorder, inorder"],
  ["packed", "mergeable", 0, 0, "packed ring mergeable buffer, packed ring standard"],
  ["packed", "mergeable", 0, 1, "packed ring mergeable buffer, packed ring standard"],
  ["packed", "mergeable", 1, 0, "packed ring mergeable buffer, packed ring standard"],
  ["packed", "mergeable", 1, 1, "packed ring mergeable buffer, packed ring vectorized"],
  ["packed", "single", 0, 0, "packed ring standard, packed ring standard"],
  ["packed", "single", 0, 1, "packed ring standard, packed ring standard"],
  ["packed", "single", 1, 0, "packed ring standard, packed ring standard"],
  ["packed", "single", 1, 1, "packed ring vectorized, packed ring vectorized"],
] as const;

/** The packed ring has vectorised paths for processors with wide vectors only. */
function hasWideVectors(): boolean {
  return Deno.build.os === "linux" && / avx512f /.test(Deno.readTextFileSync("/proc/cpuinfo"));
}

for (const [ring, buffers, inOrder, vectorized, paths] of PATHS) {
  const parameters = `in_order=${inOrder},vectorized=${vectorized}`;
  hostTest(
    `testpmd and we give each other every frame, ${ring}, ${buffers}, ${parameters}`,
    NEEDS,
    async () => {
      await using bench = await Bench.start({
        packed: ring === "packed",
        mergeable: buffers === "mergeable",
        maxFrameBytes: 9000,
        portParameters: parameters,
      });
      const { receive, send } = await bench.testpmd.paths();
      const wide = ring === "split" || hasWideVectors();
      const expected = wide ? paths : paths.replaceAll("packed ring vectorized", "packed ring standard");
      assertEquals(`${receive}, ${send}`, expected);
      assertEquals(bench.driver.backend!.features!.has(IN_ORDER), inOrder === 1);
      for (const lengthBytes of [64, 1500, 9000]) await bench.collect(lengthBytes);
      await bench.deliverPlain(64);
      await bench.deliverPlain(9000, 64, 1500, 60, 4000);
      await bench.exchange(FRAMES, [64, 9000, 1500].map(plain));
      bench.assertNoFault();
    },
  );
}

for (const packed of [false, true]) {
  const ring = packed ? "packed" : "split";
  for (const server of [false, true]) {
    const role = server ? "listening" : "calling";
    hostTest(`testpmd in huge pages is served, ${ring}, ${role}`, [...NEEDS, hugePages], async () => {
      using _pages = reserveHugePages();
      await using bench = await Bench.start({ packed, server, hugePages: true, maxFrameBytes: 9000 });
      for (const lengthBytes of [64, 9000]) await bench.collect(lengthBytes);
      await bench.deliverPlain(64, 1500, 9000);
      await bench.exchange(FRAMES, [1500, 64, 9000].map(plain));
      bench.assertNoFault();
    });

    hostTest(`both of two queue pairs of testpmd are used, ${ring}, ${role}`, NEEDS, async () => {
      await using bench = await Bench.start({ packed, server, pairs: 2, portParameters: "cq=1" });
      await bench.collect(64);
      await bench.exchange(FRAMES, [1500, 64].map(plain));
      const { receivedPerQueue } = await bench.deliverPlain(64);
      assertEquals(receivedPerQueue[0] + receivedPerQueue[1], FRAMES);
      assert(Math.min(...receivedPerQueue) > FRAMES / 8, `${receivedPerQueue}`);
      bench.assertNoFault();
    });
  }

  // In tables in a packed ring DPDK 22.11 marks elements as writable that are not.
  for (const [how, withhold] of [["tables", []], ["chains", ["INDIRECT_DESC"]]] as const) {
    hostTest(`a frame may lie in several buffers of testpmd, ${ring}, ${how}`, NEEDS, async () => {
      const device = { withhold };
      await using bench = await Bench.start({ packed, maxFrameBytes: 9000, bufferBytes: 2176, device });
      // For more than seven pieces the driver makes no table.
      for (const pieces of [2, 6, 10]) await bench.collect(900 * pieces, pieces);
      await bench.deliverPlain(9000);
      assertEquals(bench.machine.counters["net0.toGuest"].buffers, 5 * FRAMES);
      await bench.exchange(FRAMES, [9000, 64, 3000].map(plain));
      bench.assertNoFault();
    });
  }

  hostTest(`large frames go to testpmd whole and come back whole, ${ring}`, NEEDS, async () => {
    const port = { packed, maxFrameBytes: 9000, bufferBytes: 2176, receiveOffloads: LARGE_FRAMES };
    await using bench = await Bench.start(port);
    assert(bench.driver.backend!.features!.hasAll([GUEST_TSO4, GUEST_TSO6]));
    const frames = [large(2000), large(20_000), plain(64), large(65_000)];
    await bench.deliver(400, frames);
    await bench.exchange(400, frames);
    bench.assertNoFault();
  });

  hostTest(`testpmd is given coalesced segments, and not a byte is missing, ${ring}`, NEEDS, async () => {
    const port = { packed, maxFrameBytes: 9000, bufferBytes: 2176, receiveOffloads: LARGE_FRAMES };
    await using bench = await Bench.start({ ...port, device: { offloads: ["checksum", "rsc-v4"] } });
    const stream = new TcpStream({ destinationMac: GUEST_MAC });
    const segments = Array.from({ length: 2000 }, () => ({ bytes: stream.next(1448), numbered: false }));
    await bench.testpmd.forward("rxonly");
    bench.account.order(segments.length, segments);
    const expected = segments.length * 1448;
    const delivered = () => bench.machine.counters["net0.toGuest"];
    await until("all bytes are delivered", () => delivered().bytes - 54 * delivered().packets >= expected);
    const payload = ({ received, receivedBytes }: PortStats) => receivedBytes - 54 * received;
    const stats = await bench.statsWhen((stats) => payload(stats) >= expected);
    assertEquals(payload(stats), expected);
    assertEquals(bench.sums("toGuest"), { passed: stats.received, dropped: 0 });
    assert(stats.received < segments.length / 10, `${stats.received} packets`);
    bench.assertNoFault();
  });

  hostTest(`what does not fit is dropped and counted, either way, ${ring}`, NEEDS, async () => {
    const networkFrameBytes = 1514;
    await using bench = await Bench.start({
      packed,
      mergeable: false,
      maxFrameBytes: 4000,
      networkFrameBytes,
    });
    await bench.deliver(FRAMES, [plain(64), plain(9000)], FRAMES / 2);
    assertEquals(bench.machine.counters["net0.toGuest"].dropped_buffer_too_small, FRAMES / 2);
    const { sent } = await bench.collect(4000);
    assertEquals(bench.machine.counters["net0.fromGuest"].dropped_too_long, sent);
    await bench.collect(1514);
    bench.assertNoFault();
  });

  hostTest(`testpmd may set its port up again with other offloads, ${ring}`, NEEDS, async () => {
    await using bench = await Bench.start({ packed });
    const { testpmd } = bench;
    await bench.deliverPlain(64);
    for (const state of ["on", "off", "on"]) {
      const offload = `port config 0 rx_offload udp_cksum ${state}`;
      for (const line of ["port stop 0", offload, "port start 0"]) await testpmd.command(line);
      assertEquals(bench.driver.backend!.features!.has(GUEST_CSUM), state === "on");
      await bench.deliverPlain(64, 1500);
      await bench.collect(64);
      await bench.exchange(FRAMES, [plain(1500)]);
    }
    bench.assertNoFault();
  });
}
