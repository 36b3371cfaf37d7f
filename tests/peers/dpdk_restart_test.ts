/**
 * Either end of a connection to DPDK's virtio-user goes and comes back, again and again, and traffic goes on.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { CommandProcess } from "../cli/support/process.ts";
import { plain } from "./support/dpdk_account.ts";
import { Bench, FRAMES } from "./support/dpdk_bench.ts";
import { hostTest, linux, program } from "../../rigs/require.ts";
import { until } from "./support/tap_rig.ts";
import { Testpmd } from "./support/testpmd.ts";

const NEEDS = [linux, program("dpdk-testpmd", "dpdk-dev"), program("stdbuf", "coreutils")];
const TIMES = 5;
const QUEUE_SIZE = 256;

for (const packed of [false, true]) {
  const ring = packed ? "packed" : "split";
  for (const ending of ["killed", "told to quit"]) {
    hostTest(`testpmd is served again each time it was ${ending}, ${ring}`, NEEDS, async () => {
      await using bench = await Bench.start({ packed });
      for (let time = 0; time < TIMES; time++) {
        await bench.testpmd.forward("txonly");
        if (ending === "killed") bench.testpmd.kill();
        await bench.testpmd[Symbol.asyncDispose]();
        await until("it is gone", () => !bench.driver.connected);
        bench.testpmd = Testpmd.start(bench.options);
        await bench.testpmd.ready();
        await bench.collect(64);
        await bench.deliverPlain(64, 1500);
        bench.assertNoFault(time + 2);
      }
    });
  }

  hostTest(`testpmd sends on each time the back-end comes back, ${ring}`, NEEDS, async () => {
    await using bench = await Bench.start({ packed, server: true });
    let taken = 0;
    bench.account.expect(64);
    await bench.testpmd.forward("txonly");
    for (let time = 0; time < TIMES; time++) {
      await until("frames come", () => bench.account.received >= FRAMES);
      await bench.stopMachine();
      bench.assertNoFault();
      taken += fromGuest(bench);
      await bench.startMachine();
      bench.account.expect(64);
    }
    await until("frames come", () => bench.account.received >= FRAMES);
    await bench.testpmd.stopForwarding();
    const { sent } = await bench.testpmd.stats();
    // In a packed ring the driver starts anew, and gives up what we had not taken: a ring full each time at
    // most.
    const lost = packed ? TIMES * QUEUE_SIZE : 0;
    await until("the last frames come", () => taken + fromGuest(bench) >= sent - lost);
    taken += fromGuest(bench);
    assert(taken <= sent, `${taken} frames were taken of ${sent} that were sent`);
    if (!packed) assertEquals(taken, sent);
    assertEquals(bench.account.rightLength, bench.account.received);
    await bench.collect(1500);
    await bench.deliverPlain(64, 1500);
    await bench.exchange(FRAMES, [plain(64), plain(1500)]);
    bench.assertNoFault();
  });

  hostTest(`testpmd sends on each time a process of the back-end was killed, ${ring}`, NEEDS, async () => {
    const folder = Deno.makeTempDirSync({ prefix: "dpdk-" });
    const socket = `${folder}/net0.sock`;
    const config = `${folder}/config.json`;
    const driver = { use: "vhost-user", socket, mode: "client", reconnectMs: 20 };
    const device = { use: "net", queueSize: QUEUE_SIZE, packedRing: packed, driver, network: "loopback" };
    Deno.writeTextFileSync(config, JSON.stringify({ devices: [device] }));
    const start = () => new CommandProcess(["-A"], ["run", config, "--json"]);
    const options = { socket, server: true, pairs: 1, packed, mergeable: true, hugePages: false };
    const testpmd = Testpmd.start({ ...options, maxFrameBytes: 1518 });
    let backend = start();
    try {
      await testpmd.ready();
      await testpmd.forward("txonly");
      for (let time = 0; time < TIMES; time++) {
        await sendsOn(testpmd);
        backend.signal("SIGKILL");
        await backend.end();
        backend = start();
      }
      await sendsOn(testpmd);
      backend.signal("SIGTERM");
      const { rest } = await backend.end();
      const { counters } = rest.map((line) => JSON.parse(line)).find(({ event }) => event === "stopped");
      const { packets, sent } = counters["net0.fromGuest"];
      // Until testpmd enables its ring again, the protocol demands to empty it and to throw away what comes.
      const { discarded_while_disabled: discarded } = counters["net0.driver"];
      assert(
        packets > 0 && packets + discarded >= FRAMES && sent === packets,
        `${packets} frames taken, ${sent} sent, ${discarded} discarded`,
      );
      const faults = Object.entries(counters).flatMap(([group, one]) =>
        Object.keys(one as object).filter((name) => name.startsWith("fault_")).map((name) =>
          `${group}.${name}`
        )
      );
      assertEquals(faults, []);
    } finally {
      await testpmd[Symbol.asyncDispose]();
      Deno.removeSync(folder, { recursive: true });
    }
  });
}

/**
 * Frames that a machine has passed on or, while its ring was disabled, thrown away as the protocol demands.
 */
function fromGuest(bench: Bench): number {
  const { backend, counters } = bench.driver;
  return bench.sums("fromGuest").passed + counters.discarded_while_disabled + (backend?.discardedChains ?? 0);
}

/**
 * Waits until the back-end has taken `FRAMES` more frames.
 *
 * `sent` counts what stands in the ring. A ring full can be given up at the restart, and a ring full still
 * waits.
 */
async function sendsOn(testpmd: Testpmd): Promise<void> {
  const before = (await testpmd.stats()).sent;
  const wanted = FRAMES + 2 * QUEUE_SIZE;
  for (let tries = 0; tries < 200; tries++) {
    if ((await testpmd.stats()).sent - before >= wanted) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`testpmd has not sent ${wanted} more frames since it had sent ${before}`);
}
