/**
 * From a resolved configuration to a machine: the only place where devices, offloads and transports meet.
 *
 * Theory of operation. What contradicts itself is looked for first, as far as the configuration alone shows it. Then the
 * devices are built in order, for each its network, the device, its driver. What is opened on the way is noted in
 * `#opened`, and disposed of again, the last first, if something later cannot be built; a transport that wraps others owns
 * them once it is there.
 *
 * Counters are published in groups. `net0` are a device's own; `net0.toGuest`, `net0.fromGuest`, `net0.filter` and
 * `net0.control` those of its parts; `net0.rsc-v4` those of an offload, with `#2` if the name stands there before, and with
 * the direction, as in `net0.checksum.toGuest`, if it works both ways; `net0.driver` and `net0.network` those of its
 * transports, and `net0.network.inner` those of a transport that is wrapped. No two groups have the same name.
 *
 * @module
 */
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { ManualClock, SystemClock } from "../core/clock.ts";
import type { Device } from "../core/device.ts";
import type { FramePool } from "../core/frame_pool.ts";
import { HostError, PluginError } from "../core/errors.ts";
import type { DeviceFacts, Plugin, TransportContext } from "../core/plugin.ts";
import { Reactor } from "../core/reactor.ts";
import type { VerdictLog } from "../core/stage.ts";
import type { FrameTransport } from "../core/transport.ts";
import { HostWatcher } from "../transports/host/host_watcher.ts";
import { cableKey } from "../transports/loopback.ts";
import { formatMac } from "../wire/ethernet.ts";
import { featureName } from "../wire/net_features.ts";
import { CounterBook } from "./counter_book.ts";
import { ConfigError, type ConfigIssue } from "./errors.ts";
import { newFramePool } from "./frame_memory.ts";
import { Machine, type MachineDevice } from "./machine.ts";
import { Lanes } from "./threads/lanes.ts";
import type { ResolvedConfig, ResolvedDevice } from "./types.ts";

/** What a machine can be given besides its configuration. */
export interface BuildOptions {
  /** Where stages explain what happens to each frame. Without it nothing is spent on explanations. */
  readonly verdicts?: VerdictLog;
}

const NO_GUEST: DeviceFacts = { guestMac: new Uint8Array(6), queuePairs: 1 };

/**
 * Builds everything that the configuration describes; opens files and interfaces, starts nothing. Throws ConfigError for
 * what contradicts itself across objects, HostError for what this host cannot, PluginError for what a plugin cannot.
 */
export function buildMachine(config: ResolvedConfig, options: BuildOptions = {}): Machine {
  const issues = contradictions(config);
  if (issues.length > 0) throw new ConfigError(issues);
  return new Builder(config, options).build();
}

class Builder {
  readonly #config: ResolvedConfig;
  readonly #verdicts: VerdictLog | null;
  readonly #pool: FramePool;
  readonly #manualClock: ManualClock | null;
  readonly #reactor: Reactor;
  readonly #watcher: HostWatcher;
  readonly #book = new CounterBook();
  readonly #shared = new Map<string, unknown>();
  readonly #opened: Disposable[] = [];
  /** By cable and address: the device that has the address. */
  readonly #addresses = new Map<string, string>();

  constructor(config: ResolvedConfig, options: BuildOptions) {
    this.#config = config;
    this.#verdicts = options.verdicts ?? null;
    this.#pool = newFramePool(config.frameMemoryBytes);
    this.#manualClock = config.clock === "virtual" ? new ManualClock() : null;
    this.#reactor = new Reactor(this.#manualClock ?? new SystemClock());
    this.#watcher = new HostWatcher(this.#reactor);
  }

  build(): Machine {
    try {
      const devices = this.#config.devices.map((device, index) => this.#device(device, index));
      return new Machine({
        name: this.#config.name,
        devices,
        reactor: this.#reactor,
        pool: this.#pool,
        counters: this.#book.groups,
        manualClock: this.#manualClock,
        shared: this.#shared,
      });
    } catch (cause) {
      for (const opened of this.#opened.reverse()) {
        try {
          opened[Symbol.dispose]();
        } catch {
          // What failed first is what is told.
        }
      }
      throw cause;
    }
  }

  #device(resolved: ResolvedDevice, index: number): MachineDevice {
    const { name, plugin, mode } = resolved;
    const facts = guarded(plugin, "facts", () => plugin.facts?.(resolved.options)) ?? NO_GUEST;
    const network = resolved.network === null ? null : this.#network(resolved, resolved.network, facts);
    const device = guarded(plugin, "create", () =>
      plugin.create({
        name,
        pool: this.#pool,
        offloads: resolved.offloads,
        network,
        verdicts: this.#verdicts,
        role: mode === "threads" ? "control" : "whole",
        publish: (counters, part) =>
          this.#book.publish(part === undefined ? name : `${name}.${part}`, counters),
      }, resolved.options));
    this.#requireNeeds(resolved, device);
    const { driver: part } = resolved;
    const context = this.#transport(part.path, `${name}.driver`, facts, () => {});
    const driver = guarded(part.plugin, "create", () => part.plugin.create(context, part.options));
    this.#opened.push(driver);
    if (mode === "loop" || network === null) return { name, device, driver, network };
    const threads = this.#threads(resolved, index, network, facts.queuePairs);
    driver.lendTo?.(threads);
    return { name, device, driver, network, threads };
  }

  #threads(
    { name, network: part, path }: ResolvedDevice,
    device: number,
    network: FrameTransport,
    pairs: number,
  ): Lanes {
    if (network.queuePairs < pairs) {
      throw new ConfigError([{
        path: part?.path ?? path,
        problem:
          `has ${network.queuePairs} queues for the ${pairs} pairs of ${name}, each of which is worked by a thread`,
        remedy: "give the network a queue for each pair, or the device fewer pairs",
      }]);
    }
    const { text, baseUrl } = this.#config;
    const wake = () => this.#reactor.wake();
    return new Lanes({ name, text, baseUrl, device, pairs, network, counters: this.#book.groups, wake });
  }

  #network(
    device: ResolvedDevice,
    part: NonNullable<ResolvedDevice["network"]>,
    facts: DeviceFacts,
  ): FrameTransport {
    const onShared = (key: string) => this.#claimAddress(device, key, facts);
    return this.#open(part, this.#transport(part.path, `${device.name}.network`, facts, onShared));
  }

  /** Opens a network; those that it has wrapped meanwhile are its own from now on. */
  #open(part: NonNullable<ResolvedDevice["network"]>, context: TransportContext): FrameTransport {
    const before = this.#opened.length;
    const network = guarded(part.plugin, "create", () => part.plugin.create(context, part.options));
    this.#opened.length = before;
    this.#opened.push(network);
    return network;
  }

  /** @param onShared told of every shared thing that is asked for */
  #transport(
    path: string,
    group: string,
    facts: DeviceFacts,
    onShared: (key: string) => void,
  ): TransportContext {
    return {
      path,
      pool: this.#pool,
      clock: this.#reactor.clock,
      guestMac: facts.guestMac,
      queuePairs: facts.queuePairs,
      resolvePath: (written) => this.#resolvePath(written, path),
      shared: <T>(key: string, make: () => T): T => {
        onShared(key);
        if (!this.#shared.has(key)) this.#shared.set(key, make());
        return this.#shared.get(key) as T;
      },
      wake: () => this.#reactor.wake(),
      watch: (descriptor) => this.#watch(descriptor, path),
      publish: (counters) => this.#book.publish(group, counters),
      inner: (written, key) => {
        const inner = this.#config.resolvePart("network", written, `${path}.${key}`);
        return this.#open(inner, this.#transport(inner.path, `${group}.${key}`, facts, onShared));
      },
    };
  }

  /** Two guests with one address on one cable would take each other's frames; on cables of their own they are no matter. */
  #claimAddress(device: ResolvedDevice, key: string, facts: DeviceFacts): void {
    if (!key.startsWith(cableKey("")) || facts === NO_GUEST) return;
    const mac = formatMac(facts.guestMac);
    const claim = `${mac} ${key}`;
    const other = this.#addresses.get(claim);
    if (other !== undefined && other !== device.name) {
      throw new ConfigError([{
        path: `${device.path}.mac`,
        problem: `${mac} is the address of ${other} as well, which is on the same cable`,
        remedy: "give every device of a cable an address of its own",
      }]);
    }
    this.#addresses.set(claim, device.name);
  }

  /** Real descriptors know nothing of a virtual clock: what they do when would differ from run to run. */
  #watch(descriptor: number, path: string): Disposable {
    if (this.#manualClock !== null) {
      throw new HostError(
        `${path}: events of this host cannot be waited for by a virtual clock; write "clock": "system", or leave it out`,
      );
    }
    return this.#watcher.watch(descriptor);
  }

  #resolvePath(written: string, path: string): string {
    if (written.startsWith("/")) return resolve(written);
    const base = new URL(this.#config.baseUrl);
    if (base.protocol === "file:") return resolve(dirname(fileURLToPath(new URL("x", base))), written);
    throw new HostError(
      `${path}: the path "${written}" is relative to ${base}, which is no file; write an absolute path`,
    );
  }

  /** An offload is no use if the device withholds what it needs. */
  #requireNeeds(resolved: ResolvedDevice, device: Device): void {
    const issues: ConfigIssue[] = [];
    for (const { plugin, path } of resolved.offloads) {
      const missing = (plugin.needs ?? []).filter((bit) => !device.features.has(bit));
      if (missing.length === 0) continue;
      const names = missing.map(featureName).join(", ");
      issues.push({
        path,
        problem: `"${plugin.name}" needs ${names}, which ${resolved.name} does not offer`,
        remedy: `take ${names} out of "withhold", or leave the offload out`,
      });
    }
    if (issues.length > 0) throw new ConfigError(issues);
  }
}

/** Errors that say what they mean pass; anything else is told to be the plugin's. */
function guarded<T>(plugin: Plugin, hook: string, build: () => T): T {
  try {
    return build();
  } catch (cause) {
    const clear = cause instanceof ConfigError || cause instanceof HostError || cause instanceof PluginError;
    throw clear ? cause : new PluginError(plugin.name, hook, cause);
  }
}

/** What is wrong across objects, each of which is right by itself. */
function contradictions(config: ResolvedConfig): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  for (const device of config.devices) {
    const seen = new Map<string, string>();
    for (const { plugin, path } of device.offloads) {
      const first = seen.get(plugin.name);
      if (first === undefined) seen.set(plugin.name, path);
      // One that makes no features possible, as one that only counts, may well stand in two places.
      else if (plugin.offers !== undefined) {
        issues.push({
          path,
          problem: `"${plugin.name}" stands at ${first} already`,
          remedy: "leave one of the two out",
        });
      }
    }
  }
  return issues;
}
