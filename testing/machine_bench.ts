/**
 * A bench for whole machines: one device with a software guest at one end and an open cable at the other,
 * built from configuration like any other machine, by a manual clock.
 *
 * Theory of operation. `feed` injects a frame into the device's port of the cable, as if it had come from the
 * network, and turns the machine until nothing moves. `advanceTo` stops at every deadline on the way. What
 * the guest receives goes to `out` at the time at which its driver took it from the ring; what the guest
 * sends goes to `sent`. `close`, or `await using`, drains the device, detaches the guest, and then asserts
 * that every frame is back in the pool and that the guest found nothing wrong with its rings.
 *
 * @module
 */
import { AssertionError } from "@std/assert";
import { newRegistry } from "../config/builtins.ts";
import { parseConfig } from "../config/load.ts";
import type { WrittenPart } from "../config/types.ts";
import { buildMachine } from "../machine/build.ts";
import type { Machine } from "../machine/machine.ts";
import type { FramePool } from "../pipeline/frame_pool.ts";
import type { RuleBook } from "../pipeline/qemu_compat.ts";
import type { VerdictLog } from "../pipeline/stage.ts";
import type { CablePort } from "../transports/loopback.ts";
import type { GuestOptionsInput, NetGuest } from "../devices/net/driver/mod.ts";
import type { LoopbackDriver } from "../transports/loopback_driver/mod.ts";
import { delivered } from "./bench_parts.ts";
import {
  assertPoolWhole,
  bytesOf,
  type Delivered,
  type FrameFacts,
  type FrameSource,
  headerFields,
} from "./matchers.ts";
import { framePool } from "../pipeline/kinds.ts";

/** How a machine bench is set up. Everything has a default. */
export interface MachineBenchSettings {
  /** The offloads, as in the configuration; default none. */
  readonly offloads?: readonly WrittenPart[];
  /** The device's rule book; default `strict`. */
  readonly rules?: RuleBook;
  /** Other options of the device. */
  readonly device?: Readonly<Record<string, unknown>>;
  /** Options of the software guest; default: mergeable buffers of 4096 bytes, all features accepted. */
  readonly guest?: GuestOptionsInput;
  /** Options of the cable. */
  readonly network?: Readonly<Record<string, unknown>>;
  /** Where stages explain what happens to each frame; default nowhere. */
  readonly verdicts?: VerdictLog;
  /** URL against which module specifiers in `offloads` are resolved, such as `import.meta.url`. */
  readonly baseUrl?: string | URL;
}

/**
 * Runs frames through a whole device.
 *
 * @example
 * ```ts
 * import { MachineBench } from "./machine_bench.ts";
 * import { TcpStream } from "./packets.ts";
 *
 * await using bench = await MachineBench.start({ offloads: ["rsc-v4"], guest: { ring: "packed" } });
 * const stream = new TcpStream();
 * bench.feed(stream.next(100));
 * bench.feed(stream.next(100));
 * bench.advanceTo(300_000);
 * if (bench.out.length !== 1 || bench.out[0].header.flags !== 5) throw new Error("unreachable");
 * ```
 */
export class MachineBench implements AsyncDisposable {
  /** Everything that the guest has received so far, in order. */
  readonly out: Delivered[] = [];
  /** Everything that the guest has sent and the network has taken, in order. */
  readonly sent: Delivered[] = [];
  /** The machine. */
  readonly machine: Machine;
  /** The guest. */
  readonly guest: NetGuest;
  /** The device's end of the cable. */
  readonly port: CablePort;
  #closed = false;
  #told: unknown = null;

  private constructor(machine: Machine) {
    this.machine = machine;
    const [{ driver, parts: { network } }] = machine.devices;
    const { guest, hooks } = driver as LoopbackDriver<NetGuest>;
    this.guest = guest;
    this.port = network as CablePort;
    hooks.onPacket = (packet) => {
      const { queuePair, bytes } = packet;
      this.out.push({
        atNs: this.nowNs,
        header: headerFields(packet),
        bytes: bytes.slice(),
        queuePair,
        number: 0,
      });
    };
    this.port.tap((frame, atNs) => void this.sent.push(delivered(frame, atNs)));
  }

  /**
   * Builds and starts the machine. Rejects with ConfigError, PluginError, or HostError if the guest cannot be
   * attached.
   */
  static async start(settings: MachineBenchSettings = {}): Promise<MachineBench> {
    const { rules = "strict", offloads = [], device, guest, network, verdicts, baseUrl } = settings;
    const config = {
      name: "bench",
      clock: "virtual",
      devices: [{
        use: "net",
        name: "net0",
        rules,
        ...device,
        driver: { use: "loopback", receiveBufferBytes: 4096, ...guest },
        network: { use: "loopback", queueFrames: 65_536, ...network },
        offloads,
      }],
    };
    const resolved = await parseConfig(JSON.stringify(config), baseUrl ?? import.meta.url, newRegistry());
    const machine = buildMachine(resolved, verdicts === undefined ? {} : { verdicts });
    const bench = new MachineBench(machine);
    machine.start();
    if (!bench.guest.attached) {
      // What the guest was refused for is the machine's failure, and comes out here.
      await machine.close();
      throw new AssertionError("The guest could not be attached to the device");
    }
    bench.settle();
    return bench;
  }

  /** The present time, in ns. */
  get nowNs(): number {
    return this.machine.parts.reactor.clock.nowNs();
  }

  /** Where frames come from. */
  get pool(): FramePool {
    return framePool(this.machine.parts.scope);
  }

  /**
   * Counters by group below the device, live: `rsc-v4`, `toGuest`, `control`; the device's own are under
   * `""`.
   */
  get counters(): Record<string, Readonly<Record<string, number>>> {
    const groups = Object.entries(this.machine.counters);
    return Object.fromEntries(groups.map(([name, counters]) => [name.replace(/^net0\.?/, ""), counters]));
  }

  /** Injects a frame at the present time and lets everything happen that follows from it at once. */
  feed(source: FrameSource, facts: Pick<FrameFacts, "header"> = {}): void {
    this.feedBatch([source], facts);
  }

  /** Injects several frames before the machine turns again. */
  feedBatch(sources: Iterable<FrameSource>, { header = {} }: Pick<FrameFacts, "header"> = {}): void {
    for (const source of sources) {
      if (!this.port.inject(bytesOf(source), header)) {
        throw new RangeError(
          "Cannot inject another frame: the port's queue is full, or the pool at its limit",
        );
      }
    }
    this.settle();
  }

  /** Turns the machine until nothing moves, without moving the time. */
  settle(): void {
    this.machine.parts.reactor.settle();
    this.#rethrow();
  }

  /** Moves the time on; what is due at `nowNs` has happened when this returns. */
  advanceTo(nowNs: number): void {
    this.machine.parts.reactor.advanceTo(nowNs);
    this.#rethrow();
  }

  /** Drains and closes; asserts that the pool is whole and the guest content. May be called twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { errors } = this.guest;
    try {
      await this.machine.close();
    } catch (failure) {
      if (failure !== this.#told) throw failure;
      return;
    }
    assertPoolWhole(this.pool);
    if (errors.length > 0) throw new AssertionError(`The guest found: ${errors.join("; ")}`);
  }

  /** What a plugin has failed with is thrown where it was fed, and not by `close` again. */
  #rethrow(): void {
    const { failure } = this.machine;
    if (failure === null) return;
    this.#told = failure;
    throw failure;
  }

  /** As `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
