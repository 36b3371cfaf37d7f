/**
 * DPDK's virtio-user, a front-end with a poll-mode driver, against our back-end: real rings, and no frame is lost.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Bench, FRAMES } from "./support/dpdk_bench.ts";
import { hostTest, linux, program } from "./support/require.ts";
import { until } from "./support/tap_rig.ts";
import { hugePages, reserveHugePages, Testpmd } from "./support/testpmd.ts";

const NEEDS = [linux, program("dpdk-testpmd", "dpdk-dev"), program("stdbuf", "coreutils")];

for (const packed of [false, true]) {
  const ring = packed ? "packed" : "split";
  for (const frameBytes of [64, 1500, 9000]) {
    const maxFrameBytes = Math.max(1518, frameBytes);
    for (const mergeable of [true, false]) {
      const buffers = mergeable ? "mergeable" : "single";
      const name =
        `testpmd and we give each other every frame of ${frameBytes} bytes, ${ring}, ${buffers} buffers`;
      hostTest(name, NEEDS, async () => {
        await using bench = await Bench.start({ packed, mergeable, maxFrameBytes });
        await bench.collect(frameBytes);
        await bench.testpmd.forward("rxonly");
        await bench.deliver(FRAMES, frameBytes);
        bench.assertNoFault();
      });
    }
  }

  hostTest(`a frame may lie in several buffers of testpmd, ${ring}`, NEEDS, async () => {
    await using bench = await Bench.start({ packed, maxFrameBytes: 9000, bufferBytes: 2176 });
    // With a packed ring and an indirect table DPDK 22.11 meets `descriptor-readable-after-writable`; why is not settled yet.
    // Devices for it can withhold INDIRECT_DESC.
    if (!packed) await bench.collect(9000, 6);
    await bench.testpmd.forward("rxonly");
    await bench.deliver(FRAMES, 9000);
    assertEquals(bench.machine.counters["net0.toGuest"].buffers, 5 * FRAMES);
    bench.assertNoFault();
  });

  hostTest(`testpmd swaps addresses and returns what it gets, ${ring}`, NEEDS, async () => {
    await using bench = await Bench.start({ packed });
    const { account, testpmd } = bench;
    await testpmd.forward("macswap");
    await bench.deliver(FRAMES, 1500);
    const dropped = await testpmd.stopForwarding();
    const { sent } = await testpmd.stats();
    assertEquals(sent + dropped, FRAMES);
    await until("all frames are back", () => account.received >= sent);
    const { received, rightLength, distinct, swapped } = account;
    assertEquals({ received, rightLength, distinct, swapped }, {
      received: sent,
      rightLength: sent,
      distinct: sent,
      swapped: sent,
    });
    assert(sent > 0);
    bench.assertNoFault();
  });

  hostTest(`both of two queue pairs of testpmd are used, ${ring}`, NEEDS, async () => {
    await using bench = await Bench.start({ packed, pairs: 2, portParameters: "cq=1" });
    await bench.collect(64);
    await bench.testpmd.forward("rxonly");
    const { receivedPerQueue } = await bench.deliver(FRAMES, 64);
    assertEquals(receivedPerQueue[0] + receivedPerQueue[1], FRAMES);
    assert(Math.min(...receivedPerQueue) > FRAMES / 8, `${receivedPerQueue}`);
    bench.assertNoFault();
  });

  hostTest(`testpmd in huge pages is served, ${ring}`, [...NEEDS, hugePages], async () => {
    using _pages = reserveHugePages();
    await using bench = await Bench.start({ packed, hugePages: true });
    await bench.collect(1500);
    await bench.testpmd.forward("rxonly");
    await bench.deliver(FRAMES, 1500);
    bench.assertNoFault();
  });

  hostTest(`testpmd may set its port up again with other offloads, ${ring}`, NEEDS, async () => {
    await using bench = await Bench.start({ packed });
    const { testpmd } = bench;
    await testpmd.forward("rxonly");
    await bench.deliver(FRAMES, 64);
    await testpmd.stopForwarding();
    for (const line of ["port stop 0", "port config 0 rx_offload udp_cksum on", "port start 0"]) {
      await testpmd.command(line);
    }
    await testpmd.forward("rxonly");
    await bench.deliver(FRAMES, 64);
    await testpmd.stopForwarding();
    await bench.collect(64);
    bench.assertNoFault();
  });

  hostTest(`after testpmd is killed the next one is served, ${ring}`, NEEDS, async () => {
    await using bench = await Bench.start({ packed });
    await bench.testpmd.forward("txonly");
    bench.testpmd.kill();
    await bench.testpmd[Symbol.asyncDispose]();
    await until("it is gone", () => !bench.driver.connected);
    bench.testpmd = Testpmd.start(bench.options);
    await bench.testpmd.ready();
    await bench.collect(64);
    bench.assertNoFault(2);
  });

  hostTest(
    `testpmd that listens is served, and again by a back-end started anew, ${ring}`,
    NEEDS,
    async () => {
      await using bench = await Bench.start({ packed, server: true });
      await bench.collect(64);
      await bench.testpmd.forward("rxonly");
      await bench.deliver(FRAMES, 64);
      await bench.testpmd.stopForwarding();
      bench.assertNoFault();
      await bench.stopMachine();
      await bench.startMachine();
      await until("it is back", () => bench.driver.backend?.features != null);
      await bench.collect(64);
      await bench.testpmd.forward("rxonly");
      await bench.deliver(FRAMES, 64);
      bench.assertNoFault();
    },
  );
}
