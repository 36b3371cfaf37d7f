import { BUILT_IN_PLUGINS } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import { builtIns, PluginRegistry } from "../../../config/registry.ts";
import { SystemClock } from "../../../core/clock.ts";
import { Reactor } from "../../../core/reactor.ts";
import type { Pollable } from "../../../core/reactor.ts";
import type { NetGuest, NetGuestHooks } from "../../../devices/net/driver/mod.ts";
import { HostWatcher } from "../../../host/waiters.ts";
import { buildMachine } from "../../../machine/build.ts";
import type { Machine } from "../../../machine/machine.ts";
import { FrameBatch } from "../../../pipeline/frame.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import { framePool } from "../../../pipeline/kinds.ts";
import { defineNetwork } from "../../../pipeline/plugin.ts";
import type { Namespace } from "../../../rigs/namespace.ts";
import type { LoopbackDriver } from "../../../transports/loopback_driver/mod.ts";
import { newTapCounters, openTap, tap, type TapCounters, TapTransport } from "../../../transports/tap/mod.ts";

/**
 * TAPs in a network of their own: bare ones, and whole machines with software guests behind them.
 */

/** The plugins that come with the project, with a TAP that is made in the network of its device. */
export function registry(namespaces: readonly Namespace[]): PluginRegistry {
  const others = BUILT_IN_PLUGINS.filter(({ name }) => name !== tap.name);
  const local = defineNetwork({
    name: tap.name,
    options: tap.options,
    createInWorker: tap.createInWorker!,
    create(context, options) {
      const device = Number(/^\$\.devices\[(\d+)\]/.exec(context.path)?.[1]);
      return namespaces[device].run(() => tap.create(context, options));
    },
  });
  return new PluginRegistry(builtIns([...others, local]));
}

/** Options of a TAP as in a configuration. */
export type TapInput = Readonly<Record<string, unknown>>;

/** Validates options as the configuration would. Throws Error that names what is wrong. */
export function tapOptions(input: TapInput): Parameters<typeof openTap>[0] {
  const result = tap.options["~standard"].validate(input);
  if (result instanceof Promise) throw new Error("validation must not take time");
  if (result.issues !== undefined) throw new Error(result.issues.map(({ message }) => message).join("; "));
  return result.value as Parameters<typeof openTap>[0];
}

/** A TAP without a machine. */
export class BareTap implements Disposable {
  readonly pool: FramePool = new FramePool();
  readonly counters: TapCounters = newTapCounters();
  readonly transport: TapTransport;
  readonly mtu: number;
  readonly #batch = new FrameBatch();

  constructor(
    namespace: Namespace,
    input: TapInput,
    queuePairs = 1,
    watch: (number: number) => Disposable = () => ({ [Symbol.dispose]: () => {} }),
  ) {
    const options = tapOptions(input);
    const open = namespace.run(() => openTap(options, queuePairs, "here"));
    this.mtu = open.mtu;
    this.transport = new TapTransport(open, {
      pool: this.pool,
      counters: this.counters,
      offloads: options.offloads === "auto",
      watch,
    });
  }

  get name(): string {
    return this.transport.interfaceName;
  }

  /** Sends frames and says how many were taken. */
  send(frames: readonly Uint8Array[], queue = 0): number {
    const batch = this.#batch;
    for (const frame of frames) batch.push(this.pool.takeCopy(frame)!);
    const taken = this.transport.send(batch, queue, 0);
    batch.dropFirst(taken);
    batch.releaseAll();
    return taken;
  }

  /** What is there to be read from a queue, copied. */
  receive(queue = 0): { bytes: Uint8Array; flags: number; gsoType: number; gsoSize: number }[] {
    const received = [];
    while (this.transport.receive(this.#batch, 64, queue, 0) > 0) {
      for (let i = 0; i < this.#batch.length; i++) {
        const frame = this.#batch.at(i);
        const { flags, gsoType, gsoSize } = frame.header;
        received.push({ bytes: frame.toBytes(), flags, gsoType, gsoSize });
      }
      this.#batch.releaseAll();
    }
    return received;
  }

  /** Waits up to two seconds for a frame that passes. */
  async find(passes: (bytes: Uint8Array) => boolean): Promise<ReturnType<BareTap["receive"]>[number]> {
    for (let tries = 0; tries < 400; tries++) {
      const found = this.receive().find(({ bytes }) => passes(bytes));
      if (found !== undefined) return found;
      await after(5);
    }
    throw new Error(`No such frame has come to ${this.name}`);
  }

  [Symbol.dispose](): void {
    this.transport[Symbol.dispose]();
    if (this.pool.inUse !== 0) throw new Error(`${this.pool.inUse} frames were not given back`);
  }
}

/** Two TAPs, patched together: what is read from one is written to the other, unfinished frames and all. */
export class Patch implements AsyncDisposable {
  readonly ends: readonly [BareTap, BareTap];
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(left: readonly [Namespace, TapInput], right: readonly [Namespace, TapInput]) {
    const reactor = new Reactor(new SystemClock());
    const watcher = new HostWatcher(reactor);
    const end = ([namespace, input]: readonly [Namespace, TapInput]) =>
      new BareTap(namespace, input, 1, (number) => watcher.watch(number));
    this.ends = [end(left), end(right)];
    const [a, b] = this.ends;
    reactor.add(wire(a.transport, b.transport));
    reactor.add(wire(b.transport, a.transport));
    this.#running = reactor.run(this.#stop.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    for (const end of this.ends) end[Symbol.dispose]();
  }
}

function wire(from: TapTransport, to: TapTransport): Pollable {
  const batch = new FrameBatch();
  return {
    poll(nowNs: number): boolean {
      const received = batch.length === 0 && !from.finished ? from.receive(batch, 64, 0, nowNs) : 0;
      const sent = batch.length > 0 ? to.send(batch, 0, nowNs) : 0;
      batch.dropFirst(sent);
      return received + sent > 0;
    },
    deadlineNs: () => batch.length === 0 ? from.deadlineNs() : Infinity,
  };
}

/** A device of {@linkcode startMachine}. */
export interface DeviceInput {
  readonly network: TapInput;
  readonly offloads?: readonly unknown[];
  readonly device?: Readonly<Record<string, unknown>>;
  readonly guest?: Readonly<Record<string, unknown>>;
}

/** A machine whose devices have TAPs in these networks, running. */
export class TapMachine implements AsyncDisposable {
  readonly machine: Machine;
  /** Fulfilled when it has stopped. */
  readonly ended: Promise<void>;
  readonly #stop = new AbortController();

  private constructor(machine: Machine) {
    this.machine = machine;
    machine.start();
    this.ended = machine.run(this.#stop.signal);
    // The failure reaches what waits for it: a test that does not must still come to its own end.
    this.ended.catch(() => {});
  }

  static async start(...devices: readonly (readonly [Namespace, DeviceInput])[]): Promise<TapMachine> {
    const written = {
      devices: devices.map(([, { network, offloads = [], device, guest }], i) => ({
        use: "net",
        mac: `52:54:00:00:00:0${i + 1}`,
        ...device,
        driver: { use: "loopback", ...guest },
        network: { use: "tap", ...network },
        offloads,
      })),
    };
    const plugins = registry(devices.map(([namespace]) => namespace));
    return new TapMachine(buildMachine(await parseConfig(JSON.stringify(written), import.meta.url, plugins)));
  }

  guest(index: number): NetGuest {
    return (this.machine.devices[index].driver as LoopbackDriver<NetGuest>).guest;
  }

  hooks(index: number): NetGuestHooks {
    return (this.machine.devices[index].driver as LoopbackDriver<NetGuest>).hooks;
  }

  network(index: number): TapTransport {
    return this.machine.devices[index].parts.network as TapTransport;
  }

  counters(group: string): Readonly<Record<string, number>> {
    return this.machine.counters[group];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.ended;
    await this.machine.close();
    const { inUse } = framePool(this.machine.parts.scope);
    if (inUse !== 0) throw new Error(`${inUse} frames were not given back`);
  }
}

/** Lets some time pass. */
export function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until something is so, for ten seconds at most. */
export async function until(what: string, isSo: () => boolean): Promise<void> {
  for (let tries = 0; tries < 2000; tries++) {
    if (isSo()) return;
    await after(5);
  }
  throw new Error(`It did not come to this within ten seconds: ${what}`);
}
