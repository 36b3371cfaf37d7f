import { assertEquals } from "@std/assert";
import { BUILT_IN_PLUGINS } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import { builtIns, PluginRegistry } from "../../../config/registry.ts";
import { defineNetwork } from "../../../pipeline/plugin.ts";
import { buildMachine } from "../../../machine/build.ts";
import type { Machine } from "../../../machine/machine.ts";
import loopback from "../../../transports/loopback.ts";
import type { VhostUserTransport } from "../../../transports/vhost_user/mod.ts";
import { Account, plain, type Template } from "./dpdk_account.ts";
import { until } from "./tap_rig.ts";
import { type PortStats, Testpmd, type TestpmdOptions } from "./testpmd.ts";
import { framePool } from "../../../pipeline/kinds.ts";

/**
 * A machine behind a vhost-user socket with testpmd in front, and sums that must come out.
 */

/** Frames of one test. */
export const FRAMES = 5000;

/** How testpmd is started, and further options of the device. */
export interface BenchOptions extends TestpmdOptions {
  readonly device?: Readonly<Record<string, unknown>>;
  /** The longest frame that the network takes, in bytes; default MAX_FRAME_BYTES. */
  readonly networkFrameBytes?: number;
}

const USUAL: Omit<BenchOptions, "socket"> = {
  server: false,
  pairs: 1,
  packed: false,
  mergeable: true,
  hugePages: false,
  maxFrameBytes: 1518,
};

/** A machine with one device behind a socket, and a testpmd that drives it. */
export class Bench implements AsyncDisposable {
  readonly options: BenchOptions;
  account!: Account;
  machine!: Machine;
  testpmd!: Testpmd;
  readonly #folder: string = Deno.makeTempDirSync({ prefix: "dpdk-" });
  #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  private constructor(written: Partial<BenchOptions>) {
    this.options = { ...USUAL, ...written, socket: `${this.#folder}/net0.sock` };
  }

  static async start(written: Partial<BenchOptions> = {}): Promise<Bench> {
    const bench = new Bench(written);
    try {
      if (bench.options.server) bench.testpmd = Testpmd.start(bench.options);
      await bench.startMachine();
      if (!bench.options.server) bench.testpmd = Testpmd.start(bench.options);
      await bench.testpmd.ready();
    } catch (error) {
      await bench[Symbol.asyncDispose]();
      throw error;
    }
    return bench;
  }

  get driver(): VhostUserTransport {
    return this.machine.devices[0].driver as VhostUserTransport;
  }

  /**
   * Frames in this direction since the machine was started: those that passed, and those dropped by any name.
   */
  sums(direction: "toGuest" | "fromGuest"): { passed: number; dropped: number } {
    const counters = this.machine.counters[`net0.${direction}`];
    const names = Object.keys(counters).filter((name) => name.startsWith("dropped_"));
    return { passed: counters.packets, dropped: names.reduce((sum, name) => sum + counters[name], 0) };
  }

  /** What testpmd has counted when it has counted enough, or after some patience. */
  async statsWhen(isEnough: (stats: PortStats) => boolean): Promise<PortStats> {
    let stats = await this.testpmd.stats(this.options.pairs);
    for (let tries = 0; tries < 500 && !isEnough(stats); tries++) {
      stats = await this.testpmd.stats(this.options.pairs);
    }
    return stats;
  }

  /** Nothing was refused, and the guest broke no rule. */
  assertNoFault(connections = 1): void {
    const { counters } = this.driver;
    assertEquals(Object.keys(counters).filter((name) => name.startsWith("fault_")), []);
    assertEquals(counters.refused, 0);
    assertEquals(counters.connections, connections);
  }

  /**
   * Sends frames to testpmd, made in turn from these, and waits until each of them has come there or was
   * dropped here.
   * @param fitting how many of them testpmd has room for; the others must be dropped, and counted
   */
  async deliver(count: number, templates: readonly Template[], fitting = count): Promise<PortStats> {
    const before = this.sums("toGuest");
    const since = () => {
      const { passed, dropped } = this.sums("toGuest");
      return { passed: passed - before.passed, dropped: dropped - before.dropped };
    };
    await this.testpmd.forward("rxonly");
    this.account.order(count, templates);
    await until(`${count} frames are delivered or dropped`, () => {
      const { passed, dropped } = since();
      return passed + dropped >= count;
    });
    assertEquals(since(), { passed: fitting, dropped: count - fitting });
    const stats = await this.statsWhen(({ received, missed }) => received + missed >= fitting);
    await this.testpmd.stopForwarding();
    assertEquals([stats.received, stats.missed], [fitting, 0]);
    return stats;
  }

  /** Sends frames of these lengths, in turn. */
  async deliverPlain(...lengthsBytes: number[]): Promise<PortStats> {
    return await this.deliver(FRAMES, lengthsBytes.map(plain));
  }

  /**
   * Lets testpmd send frames, in so many buffers each, and sees that each of them has come or was dropped
   * here.
   */
  async collect(lengthBytes: number, pieces = 1): Promise<PortStats> {
    const { account, testpmd } = this;
    const before = this.sums("fromGuest");
    const since = () => {
      const { passed, dropped } = this.sums("fromGuest");
      return { passed: passed - before.passed, dropped: dropped - before.dropped };
    };
    const arrived = () => since().passed + since().dropped;
    account.expect(lengthBytes);
    await testpmd.forward("txonly", `set txpkts ${new Array(pieces).fill(lengthBytes / pieces)}`);
    await until(`${FRAMES} frames have come`, () => arrived() >= FRAMES);
    await testpmd.stopForwarding();
    const stats = await testpmd.stats(this.options.pairs);
    await until("all frames have come", () => arrived() >= stats.sent);
    const passed = lengthBytes > account.maxFrameBytes ? 0 : stats.sent;
    assertEquals(since(), { passed, dropped: stats.sent - passed });
    assertEquals([account.received, account.rightLength], [passed, passed]);
    return stats;
  }

  /**
   * Sends frames to testpmd, made in turn from these, which returns them; each byte comes back, or testpmd
   * counts it.
   */
  async exchange(count: number, templates: readonly Template[]): Promise<void> {
    const { account, testpmd } = this;
    const end = this.sums("toGuest").passed + count;
    await testpmd.forward("macswap");
    account.order(count, templates);
    await until(`${count} frames are delivered`, () => this.sums("toGuest").passed >= end);
    await this.statsWhen(({ received }) => received >= count);
    const dropped = await testpmd.stopForwarding();
    const { received, sent } = await testpmd.stats(this.options.pairs);
    assertEquals([received, sent + dropped], [count, count]);
    await until("all frames are back", () => account.received >= sent);
    assertEquals([account.received, account.returned, account.swapped], [sent, sent, sent]);
    // What testpmd may drop is what its ring has no room for.
    if (sent < count / 2) throw new Error(`Only ${sent} of ${count} frames were returned`);
  }

  async startMachine(): Promise<void> {
    const { server, pairs, socket, packed, device, networkFrameBytes } = this.options;
    const counting = defineNetwork({
      name: loopback.name,
      options: loopback.options,
      create: ({ pool, wake }) => this.account = new Account(pool, wake, networkFrameBytes),
    });
    const others = BUILT_IN_PLUGINS.filter(({ name }) => name !== loopback.name);
    const written = {
      devices: [{
        use: "net",
        queuePairs: pairs,
        queueSize: 256,
        packedRing: packed,
        driver: { use: "vhost-user", socket, mode: server ? "client" : "server", reconnectMs: 20 },
        network: { use: "loopback" },
        offloads: [],
        ...device,
      }],
    };
    const registry = new PluginRegistry(builtIns([...others, counting]));
    this.machine = buildMachine(await parseConfig(JSON.stringify(written), import.meta.url, registry));
    this.#stop = new AbortController();
    this.machine.start();
    this.#running = this.machine.run(this.#stop.signal);
    // The failure is told when it is stopped.
    this.#running.catch(() => {});
  }

  async stopMachine(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.machine.close();
    assertEquals(framePool(this.machine.parts.scope).inUse, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.testpmd?.[Symbol.asyncDispose]();
    await this.stopMachine();
    Deno.removeSync(this.#folder, { recursive: true });
  }
}
