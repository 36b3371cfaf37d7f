/**
 * A machine behind a vhost-user socket with testpmd in front, and an account of every frame.
 */
import { assertEquals } from "@std/assert";
import { BUILT_IN_PLUGINS } from "../../../config/builtins.ts";
import { buildMachine } from "../../../config/build.ts";
import { parseConfig } from "../../../config/load.ts";
import type { Machine } from "../../../config/machine.ts";
import { builtIns, PluginRegistry } from "../../../config/registry.ts";
import type { FrameBatch } from "../../../core/frame_batch.ts";
import { type FramePool, MAX_FRAME_BYTES } from "../../../core/frame_pool.ts";
import { defineNetwork } from "../../../core/plugin.ts";
import type { NetworkAbilities } from "../../../core/stage.ts";
import type { FrameTransport } from "../../../core/transport.ts";
import loopback from "../../../transports/loopback.ts";
import type { VhostUserTransport } from "../../../transports/vhost_user/mod.ts";
import { parseMac } from "../../../wire/ethernet.ts";
import { until } from "./tap_rig.ts";
import { GUEST_MAC, type PortStats, Testpmd, type TestpmdOptions } from "./testpmd.ts";

/** The address from which frames come. */
const OURS = parseMac("52:54:00:00:00:77");
const GUEST = parseMac(GUEST_MAC);
/** Where the number of a frame stands: behind Ethernet, IPv4 and UDP. */
const NUMBER_AT = 42;
/** Frames of one test. */
export const FRAMES = 5000;

/** A network that makes numbered frames to order, and keeps account of what comes. */
export class Account implements FrameTransport {
  readonly maxFrameBytes = MAX_FRAME_BYTES;
  readonly abilities: NetworkAbilities = { partialChecksum: false, largeTcp: false, largeUdp: false };
  readonly queuePairs = 1;
  readonly #pool: FramePool;
  readonly #wake: () => void;
  #template = new Uint8Array(0);
  #limit = 0;
  #made = 0;
  #expectedBytes = 0;
  #seen = new Uint8Array(0);
  /** Frames that came. */
  received = 0;
  /** Frames that came of the expected length. */
  rightLength = 0;
  /** Numbered frames that came for the first time. */
  distinct = 0;
  /** Frames that came from the address to which ours went. */
  swapped = 0;

  constructor(pool: FramePool, wake: () => void) {
    this.#pool = pool;
    this.#wake = wake;
  }

  /** Begins a new account, of frames of this length. */
  expect(lengthBytes: number): void {
    this.received = 0;
    this.rightLength = 0;
    this.distinct = 0;
    this.swapped = 0;
    this.#expectedBytes = lengthBytes;
  }

  /** Makes so many frames of so many bytes, as fast as the device takes them. */
  order(count: number, lengthBytes: number): void {
    this.#template = udpFrame(lengthBytes);
    this.#seen = new Uint8Array(count);
    this.#made = 0;
    this.#limit = count;
    this.expect(lengthBytes);
    this.#wake();
  }

  receive(out: FrameBatch, limit: number, _queue: number, _nowNs: number): number {
    let count = 0;
    for (; count < limit && this.#made < this.#limit; count++) {
      const frame = this.#pool.takeCopy(this.#template);
      if (frame === null) break;
      // Sixty-four flows: they spread over the queues.
      frame.view.setUint16(frame.start + 34, 1000 + (this.#made & 63));
      frame.view.setUint32(frame.start + NUMBER_AT, this.#made++);
      out.push(frame);
    }
    return count;
  }

  send(batch: FrameBatch, _queue: number, _nowNs: number): number {
    const count = batch.length;
    for (let i = 0; i < count; i++) {
      const frame = batch.at(i);
      this.received++;
      if (frame.total === this.#expectedBytes) this.rightLength++;
      const number = frame.view.getUint32(frame.start + NUMBER_AT);
      if (number < this.#seen.length && this.#seen[number]++ === 0) this.distinct++;
      if (frame.bytes[frame.start + 11] === GUEST[5]) this.swapped++;
      frame.release();
    }
    return count;
  }

  [Symbol.dispose](): void {}
}

const USUAL: Omit<TestpmdOptions, "socket"> = {
  server: false,
  pairs: 1,
  packed: false,
  mergeable: true,
  hugePages: false,
  maxFrameBytes: 1518,
};
/** A machine with one device behind a socket, and a testpmd that drives it. */
export class Bench implements AsyncDisposable {
  readonly options: TestpmdOptions;
  account!: Account;
  machine!: Machine;
  testpmd!: Testpmd;
  readonly #folder: string = Deno.makeTempDirSync({ prefix: "dpdk-" });
  #stop = new AbortController();
  #running: Promise<void> = Promise.resolve();

  private constructor(written: Partial<TestpmdOptions>) {
    this.options = { ...USUAL, ...written, socket: `${this.#folder}/net0.sock` };
  }

  static async start(written: Partial<TestpmdOptions> = {}): Promise<Bench> {
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

  /** Frames to the guest by what became of them: `packets`, and those dropped by any name. */
  get toGuest(): { packets: number; dropped: number } {
    const counters = Object.entries(this.machine.counters["net0.toGuest"]);
    const dropped = counters.filter(([name]) => name.startsWith("dropped_"));
    return {
      packets: this.machine.counters["net0.toGuest"].packets,
      dropped: dropped.reduce((sum, [, count]) => sum + count, 0),
    };
  }

  /** Nothing was refused, and the guest broke no rule. */
  assertNoFault(connections = 1): void {
    const { counters } = this.driver;
    assertEquals(Object.keys(counters).filter((name) => name.startsWith("fault_")), []);
    assertEquals(counters.refused, 0);
    assertEquals(counters.connections, connections);
  }

  /** Sends frames to testpmd, and waits until it has them all. */
  async deliver(count: number, lengthBytes: number): Promise<PortStats> {
    const end = this.toGuest.packets + count;
    this.account.order(count, lengthBytes);
    await until(`${count} frames are delivered`, () => this.toGuest.packets === end);
    let stats = await this.testpmd.stats(this.options.pairs);
    for (let tries = 0; tries < 50 && stats.received < count; tries++) {
      stats = await this.testpmd.stats(this.options.pairs);
    }
    assertEquals(this.toGuest.dropped, 0);
    assertEquals(stats.missed, 0);
    assertEquals(stats.received, count);
    return stats;
  }

  /** Lets testpmd send frames until some have come, and sees that all came that it sent. */
  async collect(lengthBytes: number, pieces = 1): Promise<PortStats> {
    const { account, testpmd } = this;
    account.expect(lengthBytes);
    await testpmd.forward("txonly", `set txpkts ${new Array(pieces).fill(lengthBytes / pieces)}`);
    await until(`${FRAMES} frames have come`, () => account.received >= FRAMES);
    await testpmd.stopForwarding();
    const stats = await testpmd.stats(this.options.pairs);
    await until("all frames have come", () => account.received >= stats.sent);
    assertEquals(account.received, stats.sent);
    assertEquals(account.rightLength, stats.sent);
    return stats;
  }

  async startMachine(): Promise<void> {
    const { server, pairs, socket, packed } = this.options;
    const counting = defineNetwork({
      name: loopback.name,
      options: loopback.options,
      create: ({ pool, wake }) => this.account = new Account(pool, wake),
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
      }],
    };
    const registry = new PluginRegistry(builtIns([...others, counting]));
    this.machine = buildMachine(await parseConfig(JSON.stringify(written), import.meta.url, registry));
    this.#stop = new AbortController();
    this.machine.start();
    this.#running = this.machine.run(this.#stop.signal);
    // Whoever stops it hears of it.
    this.#running.catch(() => {});
  }

  async stopMachine(): Promise<void> {
    this.#stop.abort();
    await this.#running;
    await this.machine.close();
    assertEquals(this.machine.parts.pool.inUse, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.testpmd?.[Symbol.asyncDispose]();
    await this.stopMachine();
    Deno.removeSync(this.#folder, { recursive: true });
  }
}

function udpFrame(lengthBytes: number): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(lengthBytes);
  const view = new DataView(frame.buffer);
  frame.set(GUEST, 0);
  frame.set(OURS, 6);
  view.setUint16(12, 0x0800);
  frame[14] = 0x45;
  view.setUint16(16, lengthBytes - 14);
  frame[22] = 64;
  frame[23] = 17;
  frame.set([10, 9, 0, 1, 10, 9, 0, 2], 26);
  view.setUint16(36, 9);
  view.setUint16(38, lengthBytes - 34);
  for (let at = NUMBER_AT + 4; at < lengthBytes; at++) frame[at] = at;
  return frame;
}
