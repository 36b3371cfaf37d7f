/**
 * From a resolved configuration to a machine: the only place where devices, offloads and transports meet.
 *
 * Theory of operation. What contradicts itself is looked for first, as far as the configuration alone shows it. Then the
 * devices are built in order, for each its network, the device, its driver. Transports that were opened on the way are closed
 * again if something later cannot be built.
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
import { BUILT_IN_PLUGINS } from "../config/builtins.ts";
import { ConfigError, type ConfigIssue } from "../config/errors.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../config/types.ts";
import { ManualClock, SystemClock } from "../core/clock.ts";
import type { Device, DeviceContext, DeviceEvent } from "../core/device.ts";
import { HostError } from "../core/errors.ts";
import { featureName } from "../core/features.ts";
import type { DriverContext } from "../core/plugin.ts";
import type { NetworkContext, NetworkDeviceContext, NetworkFacts } from "../pipeline/plugin.ts";
import { Reactor } from "../core/reactor.ts";
import type { DriverTransport } from "../core/transport.ts";
import type { FrameTransport } from "../pipeline/frame_transport.ts";
import { HostWatcher } from "../host/waiters.ts";
import { FramePool } from "../pipeline/frame_pool.ts";
import type { VerdictLog } from "../pipeline/stage.ts";
import { cableKey } from "../transports/loopback.ts";
import { accelerateChecksums } from "../wire/checksum.ts";
import { formatMac } from "../wire/ethernet.ts";
import { FileClaims } from "./file_claims.ts";
import { Machine, type MachineDevice } from "./machine.ts";
import {
  checkDevice,
  checkDriver,
  checkFacts,
  checkNetwork,
  guarded,
  guardNetwork,
  located,
  locateFailure,
} from "./plugin_guards.ts";
import { ThreadWorkers } from "./threads/queue_workers.ts";

/** What a machine can be given besides its configuration. */
export interface BuildOptions {
  /** Where stages explain what happens to each frame. Without it nothing is spent on explanations. */
  readonly verdicts?: VerdictLog;
  /**
   * Told what happens to each device, by its name. It is called in the midst of the work, as often as guests like: it returns
   * at once and changes nothing. What it throws is reported as an uncaught error.
   */
  readonly events?: (device: string, event: DeviceEvent) => void;
}

/**
 * Builds everything that the configuration describes; opens files and interfaces, starts nothing. Throws ConfigError for
 * what contradicts itself across objects, HostError for what this host cannot, PluginError for what a plugin cannot.
 */
export function buildMachine(config: ResolvedConfig, options: BuildOptions = {}): Machine {
  return located(config, () => {
    const issues = contradictions(config);
    if (issues.length > 0) throw new ConfigError(issues);
    return new Builder(config, options).build();
  });
}

class Builder {
  readonly #config: ResolvedConfig;
  readonly #verdicts: VerdictLog | null;
  readonly #pool: FramePool;
  readonly #manualClock: ManualClock | null;
  readonly #reactor: Reactor;
  readonly #book = new CounterBook();
  readonly #transports: TransportBuilder;
  readonly #files: FileClaims;
  readonly #starts: (() => void)[] = [];
  readonly #events: ((device: string, event: DeviceEvent) => void) | null;

  constructor(config: ResolvedConfig, options: BuildOptions) {
    this.#config = config;
    this.#verdicts = options.verdicts ?? null;
    this.#pool = newFramePool(config.frameMemoryBytes);
    this.#manualClock = config.clock === "virtual" ? new ManualClock() : null;
    this.#reactor = new Reactor(this.#manualClock ?? new SystemClock());
    this.#files = new FileClaims(config);
    const { events } = options;
    this.#events = events === undefined ? null : (device, event) => {
      try {
        // What its driver gets as a fault is told as the failure that it is.
        if (event.event !== "fault" || event.fault !== "device-failed") events(device, event);
      } catch (error) {
        reportError(error);
      }
    };
    this.#transports = new TransportBuilder({
      config,
      pool: this.#pool,
      reactor: this.#reactor,
      watcher: this.#manualClock === null ? new HostWatcher(this.#reactor) : null,
      book: this.#book,
      files: this.#files,
      starts: this.#starts,
      events: this.#events,
    });
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
        shared: this.#transports.shared,
        files: this.#files,
        starts: this.#starts,
        locate: (error, path) => locateFailure(error, path, this.#config),
        failed: (device, error) => this.#events?.(device, { event: "failed", message: error.message }),
      });
    } catch (cause) {
      this.#transports.closeAll();
      throw cause;
    }
  }

  #device(resolved: ResolvedDevice, index: number): MachineDevice {
    const { name, plugin, mode } = resolved;
    const facts = guarded(
      resolved,
      "facts",
      () => plugin.facts?.(resolved.options) as NetworkFacts | undefined,
      checkFacts,
    ) ?? NO_GUEST;
    const network = this.#transports.network(resolved, facts);
    const context = {
      name,
      path: resolved.path,
      parts: {
        network: network && guardNetwork(network, resolved.network!, this.#pool),
        offloads: resolved.offloads,
      },
      pool: this.#pool.lentTo({ plugin: plugin.name, path: resolved.path, kind: "device" }),
      verdicts: this.#verdicts,
      role: mode === "threads" ? "control" : "whole",
      publish: (counters, part) =>
        this.#book.publish(part === undefined ? name : `${name}.${part}`, counters),
    } satisfies DeviceContext & Omit<NetworkDeviceContext, "parts">;
    const device = guarded(resolved, "create", () => plugin.create(context, resolved.options), checkDevice);
    const missing = missingNeeds(resolved, device);
    if (missing.length > 0) throw new ConfigError(missing);
    const driver = this.#transports.driver(resolved, facts);
    if (mode === "loop") return { name, device, driver, network, resolved };
    const workers = this.#workers(resolved, index, network, device);
    driver.useWorkers?.(workers);
    return { name, device, driver, network, workers, resolved };
  }

  #workers(
    { name, network: part, path, threadLimitMs }: ResolvedDevice,
    device: number,
    network: FrameTransport | null,
    { workers: sets, inflight }: Device,
  ): ThreadWorkers {
    if (sets === undefined) {
      throw new ConfigError([{
        path: `${path}.use`,
        problem: "names no sets of queues that threads could serve",
        remedy: 'leave "mode": "threads" out',
      }]);
    }
    const pairs = sets.queueSets.length;
    if (network !== null && network.queuePairs < pairs) {
      throw new ConfigError([{
        path: part?.path ?? path,
        problem:
          `has ${network.queuePairs} queues for the ${pairs} pairs of ${name}, each of which is worked by a thread`,
        remedy: "give the network a queue for each pair, or the device fewer pairs",
      }]);
    }
    const { text, baseUrl } = this.#config;
    const wake = () => this.#reactor.wake();
    return new ThreadWorkers({
      name,
      text,
      baseUrl,
      device,
      sets,
      inflight,
      limitMs: threadLimitMs,
      parts: { network },
      counters: this.#book.groups,
      wake,
    });
  }
}

// Builds the transports of a machine, and gives each the context that it is built from.
//
// Theory of operation. What is opened is noted in `#opened`, and disposed of again, the last first, if something later
// cannot be built (`closeAll`); a transport that wraps others owns them once it is there. What transports share, such as
// in-memory cables, is made when the first of them asks.

/** What is known of a device whose plugin does not say. */
export const NO_GUEST: NetworkFacts = { guestMac: new Uint8Array(6), queuePairs: 1 };

/** What transports are built from. */
export interface TransportBuilderParts {
  /** The whole configuration. */
  readonly config: ResolvedConfig;
  /** Where frames come from. */
  readonly pool: FramePool;
  /** What turns the machine. */
  readonly reactor: Reactor;
  /** Watches descriptors of this host; null if the clock is a virtual one. */
  readonly watcher: HostWatcher | null;
  /** Where counters are published. */
  readonly book: CounterBook;
  /** Which files are in use. */
  readonly files: FileClaims;
  /** What is to be done when the machine starts. */
  readonly starts: (() => void)[];
  /** Told what happens to each device; null if nothing watches. */
  readonly events: ((device: string, event: DeviceEvent) => void) | null;
}

/** The transports of one machine. */
export class TransportBuilder {
  /** What they share, by key. */
  readonly shared: Map<string, unknown> = new Map();
  readonly #parts: TransportBuilderParts;
  readonly #opened: Disposable[] = [];
  /** By cable and address: the device that has the address. */
  readonly #addresses = new Map<string, string>();

  /** Nothing is opened yet. @param parts what transports are built from */
  constructor(parts: TransportBuilderParts) {
    this.#parts = parts;
  }

  /** Opens the network of a device; null if it has none. Throws ConfigError, HostError and PluginError. */
  network(device: ResolvedDevice, facts: NetworkFacts): FrameTransport | null {
    const { name, network } = device;
    if (network === null) return null;
    const onShared = (key: string) => this.#claimAddress(device, key, facts);
    return this.#open(network, this.#context(name, network, `${name}.network`, facts, onShared));
  }

  /** Makes the way to a device's guest. Throws ConfigError, HostError and PluginError. */
  driver({ name, plugin, driver: part }: ResolvedDevice, facts: NetworkFacts): DriverTransport {
    const context: DriverContext = {
      ...this.#context(name, part, `${name}.driver`, facts, () => {}),
      softwareDriver: part.plugin.runsSoftwareDriver === true ? plugin.driver ?? null : null,
    };
    const driver = guarded(part, "create", () => part.plugin.create(context, part.options), checkDriver);
    this.#opened.push(driver);
    return driver;
  }

  /** Something cannot be built: closes all that was opened, the last first. */
  closeAll(): void {
    for (const opened of this.#opened.reverse()) {
      try {
        opened[Symbol.dispose]();
      } catch {
        // What failed first is what is told.
      }
    }
  }

  /** Opens a network; those that it has wrapped meanwhile are its own from now on. */
  #open(part: NonNullable<ResolvedDevice["network"]>, context: NetworkContext): FrameTransport {
    const before = this.#opened.length;
    const network = guarded(part, "create", () => part.plugin.create(context, part.options), checkNetwork);
    this.#opened.length = before;
    this.#opened.push(network);
    return network;
  }

  /** @param onShared told of every shared thing that is asked for */
  #context(
    device: string,
    { plugin, path }: ResolvedPart,
    group: string,
    facts: NetworkFacts,
    onShared: (key: string) => void,
  ): NetworkContext {
    const { config, pool, reactor, book, files, starts, events } = this.#parts;
    return {
      path,
      pool: pool.lentTo({ plugin: plugin.name, path, kind: plugin.kind === "driver" ? "driver" : "network" }),
      clock: reactor.clock,
      guestMac: facts.guestMac,
      queuePairs: facts.queuePairs,
      resolvePath: (written) => this.#resolvePath(written, path),
      shared: <T>(key: string, make: () => T): T => {
        onShared(key);
        if (!this.shared.has(key)) this.shared.set(key, make());
        return this.shared.get(key) as T;
      },
      wake: () => reactor.wake(),
      watch: (descriptor) => this.#watch(descriptor, path),
      publish: (counters) => book.publish(group, counters),
      claimFile: (claim) => files.claim(claim, `${path}.${claim.key}`),
      onStart: (action) => void starts.push(action),
      report: events === null ? undefined : (event) => events(device, event),
      inner: (written, key) => {
        const inner = config.resolvePart("network", written, `${path}.${key}`);
        const context = this.#context(device, inner, `${group}.${key}`, facts, onShared);
        const network = this.#open(inner, context);
        // Those of this program may know each other better: a recorder asks a replay for its clock.
        return BUILT_IN_PLUGINS.includes(inner.plugin) ? network : guardNetwork(network, inner, pool);
      },
    };
  }

  /** Two guests with one address on one cable would take each other's frames; on cables of their own they are no matter. */
  #claimAddress(device: ResolvedDevice, key: string, facts: NetworkFacts): void {
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
    const { watcher } = this.#parts;
    if (watcher !== null) return watcher.watch(descriptor);
    throw new HostError(
      `${path}: events of this host cannot be waited for by a virtual clock; write "clock": "system", or leave it out`,
    );
  }

  #resolvePath(written: string, path: string): string {
    const { baseUrl } = this.#parts.config;
    const resolved = absolutePath(written, baseUrl);
    if (resolved !== null) return resolved;
    throw new HostError(
      `${path}: the path "${written}" is relative to ${baseUrl}, which is no file; write an absolute path`,
    );
  }
}

/**
 * A path of a configuration, absolute; null if it is relative to what is no file. What stands behind a name is left to the
 * system: behind a symbolic link `..` is the folder above that to which it leads.
 */
export function absolutePath(written: string, baseUrl: string): string | null {
  if (written.startsWith("/")) return written;
  const base = new URL(baseUrl);
  if (base.protocol !== "file:") return null;
  const [up] = written.match(/^(?:\.{1,2}\/+)*/)!;
  return `${resolve(dirname(fileURLToPath(new URL("x", base))), up)}/${written.slice(up.length)}`;
}

// What is wrong across parts of a configuration, each of which is right by itself.

/** What the configuration alone shows: an offload that stands twice at one device. */
export function contradictions(config: ResolvedConfig): ConfigIssue[] {
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

/** What the device, once it is there, shows: an offload is no use if the device withholds what it needs. */
export function missingNeeds(resolved: ResolvedDevice, device: Device): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  for (const { plugin, path } of resolved.offloads) {
    const missing = (plugin.needs ?? []).filter((bit) => !device.features.has(bit));
    if (missing.length === 0) continue;
    const names = missing.map((bit) => featureName(bit, device.featureNames)).join(", ");
    issues.push({
      path,
      problem: `"${plugin.name}" needs ${names}, which ${resolved.name} does not offer`,
      remedy: `take ${names} out of "withhold", or leave the offload out`,
    });
  }
  return issues;
}

// Every counter by group, live.

/** Keeps groups of counters apart by their names. */
export class CounterBook {
  /** The groups. */
  readonly groups: Record<string, Record<string, number>> = {};

  /**
   * Takes a group in under its name, with `#2` behind it if that stands there before. Returns the same counters. Throws
   * TypeError for what is no object.
   */
  publish<T extends Record<string, number>>(group: string, counters: T): T {
    if (typeof counters !== "object" || counters === null) {
      throw new TypeError("Cannot publish what is no object: counters are numbers in an object");
    }
    let name = group;
    for (let n = 2; Object.hasOwn(this.groups, name); n++) name = `${group}#${n}`;
    this.groups[name] = counters;
    return counters;
  }
}

// The memory that frames of a machine lie in.

const PAGE_BYTES = 65_536;
/** What lies further up in one buffer is reached slowly. */
const MAX_BYTES = 2 ** 31 - PAGE_BYTES;

/**
 * A pool of frames that checksums are quick over: its memory is that of WebAssembly, reserved at once but used only as frames
 * are. Where it cannot be had the pool uses ordinary memory, which is slower and nothing else.
 * @param maxBytes most bytes of frame storage
 */
export function newFramePool(maxBytes: number): FramePool {
  const buffer = reserve(Math.min(maxBytes, MAX_BYTES));
  return new FramePool(buffer === null ? { maxBytes } : { maxBytes, buffer });
}

function reserve(bytes: number): ArrayBuffer | null {
  const pages = Math.ceil(bytes / PAGE_BYTES);
  try {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    accelerateChecksums(memory);
    return memory.buffer as ArrayBuffer;
  } catch {
    return null;
  }
}
