/**
 * From a resolved configuration to a machine: the only place where devices, offloads and transports meet.
 * @module
 */
import { ManualClock, SystemClock } from "../core/clock.ts";
import type { Device } from "../core/device.ts";
import { FramePool } from "../core/frame_pool.ts";
import type { DeviceFacts, TransportContext } from "../core/plugin.ts";
import { Reactor } from "../core/reactor.ts";
import type { VerdictLog } from "../core/stage.ts";
import type { FrameTransport } from "../core/transport.ts";
import { formatMac } from "../wire/ethernet.ts";
import { featureName } from "../wire/net_features.ts";
import { ConfigError, type ConfigIssue } from "./errors.ts";
import { Machine, type MachineDevice } from "./machine.ts";
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
  readonly #counters: Record<string, Record<string, number>> = {};
  readonly #shared = new Map<string, unknown>();
  readonly #opened: Disposable[] = [];

  constructor(config: ResolvedConfig, options: BuildOptions) {
    this.#config = config;
    this.#verdicts = options.verdicts ?? null;
    this.#pool = new FramePool({ maxBytes: config.frameMemoryBytes });
    this.#manualClock = config.clock === "virtual" ? new ManualClock() : null;
    this.#reactor = new Reactor(this.#manualClock ?? new SystemClock());
  }

  build(): Machine {
    try {
      const devices = this.#config.devices.map((device) => this.#device(device));
      return new Machine({
        name: this.#config.name,
        devices,
        reactor: this.#reactor,
        pool: this.#pool,
        counters: this.#counters,
        manualClock: this.#manualClock,
        shared: this.#shared,
      });
    } catch (cause) {
      for (const opened of this.#opened.reverse()) opened[Symbol.dispose]();
      throw cause;
    }
  }

  #device(resolved: ResolvedDevice): MachineDevice {
    const { name, plugin } = resolved;
    const facts = plugin.facts?.(resolved.options) ?? NO_GUEST;
    const network = resolved.network === null ? null : this.#network(resolved, resolved.network, facts);
    const device = plugin.create({
      name,
      pool: this.#pool,
      offloads: resolved.offloads,
      network,
      verdicts: this.#verdicts,
      publish: (counters, part) => this.#publish(part === undefined ? name : `${name}.${part}`, counters),
    }, resolved.options);
    this.#requireNeeds(resolved, device);
    const context = this.#transport(resolved.driver.path, `${name}.driver`, facts);
    const driver = resolved.driver.plugin.create(context, resolved.driver.options);
    this.#opened.push(driver);
    return { name, device, driver, network };
  }

  #network(
    device: ResolvedDevice,
    part: NonNullable<ResolvedDevice["network"]>,
    facts: DeviceFacts,
  ): FrameTransport {
    const context = this.#transport(part.path, `${device.name}.network`, facts);
    const network = part.plugin.create(context, part.options);
    this.#opened.push(network);
    return network;
  }

  #transport(path: string, group: string, facts: DeviceFacts): TransportContext {
    return {
      path,
      pool: this.#pool,
      clock: this.#reactor.clock,
      guestMac: facts.guestMac,
      queuePairs: facts.queuePairs,
      resolvePath: (written) => this.#resolvePath(written),
      shared: <T>(key: string, make: () => T): T => {
        if (!this.#shared.has(key)) this.#shared.set(key, make());
        return this.#shared.get(key) as T;
      },
      wake: () => this.#reactor.wake(),
      publish: (counters) => this.#publish(group, counters),
      inner: (written, key) => {
        const inner = this.#config.resolvePart("network", written, `${path}.${key}`);
        return inner.plugin.create(this.#transport(inner.path, `${group}.${key}`, facts), inner.options);
      },
    };
  }

  #resolvePath(written: string): string {
    const url = new URL(
      written.startsWith("/") ? `file://${encodeURI(written)}` : encodeURI(written),
      this.#config.baseUrl,
    );
    return decodeURIComponent(url.pathname);
  }

  #publish<T extends Record<string, number>>(group: string, counters: T): T {
    let name = group;
    for (let n = 2; name in this.#counters; n++) name = `${group}#${n}`;
    this.#counters[name] = counters;
    return counters;
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

/** What is wrong across objects, each of which is right by itself. */
function contradictions(config: ResolvedConfig): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  const macs = new Map<string, string>();
  for (const device of config.devices) {
    const facts = device.plugin.facts?.(device.options);
    if (facts !== undefined && config.devices.length > 1) {
      const mac = formatMac(facts.guestMac);
      const other = macs.get(mac);
      if (other !== undefined) {
        issues.push({
          path: `${device.path}.mac`,
          problem: `${mac} is the address of ${other} as well`,
          remedy: "give every device an address of its own",
        });
      }
      macs.set(mac, device.name);
    }
    const seen = new Map<string, string>();
    for (const { plugin, path } of device.offloads) {
      const first = seen.get(plugin.name);
      if (first !== undefined && plugin.offers !== undefined) {
        issues.push({
          path,
          problem: `"${plugin.name}" stands at ${first} already`,
          remedy: "leave one of the two out",
        });
      }
      seen.set(plugin.name, path);
    }
  }
  return issues;
}
