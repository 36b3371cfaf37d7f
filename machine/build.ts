/**
 * From a resolved configuration to a machine: the only place where devices and what stands in their slots
 * meet.
 *
 * Theory of operation. What contradicts itself is looked for first, as far as the configuration alone shows
 * it. Then the devices are built in order, for each the parts in its slots, the device, its driver. What is
 * special about the parts of a kind says its family (`PartKind`): what they are built from besides, what
 * looks after them, what cannot stand together. What is opened is noted in `#opened`, and disposed of again,
 * the last first, if something later cannot be built; a part that wraps others owns them once it is there.
 * What parts share, such as in-memory cables, is made when the first of them asks.
 *
 * Counters are published in groups. `net0` are a device's own; `net0.toGuest`, `net0.fromGuest`,
 * `net0.filter` and `net0.control` those of its parts; `net0.rsc-v4` those of an offload, with `#2` if the
 * name stands there before, and with the direction, as in `net0.checksum.toGuest`, if it works both ways;
 * `net0.driver` and `net0.network` those of its driver and of the part in its slot `network`, `con0.ports.1`
 * those of the second part in the slot `ports`, and `net0.network.inner` those of a part that is wrapped. No
 * two groups have the same name.
 *
 * @module
 */
import { Arena } from "../rings/arena.ts";
import { BUILT_IN_PLUGINS } from "../config/builtins.ts";
import { ConfigError } from "../config/errors.ts";
import { BUILT_IN_KINDS, partKind } from "../config/kinds.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../config/types.ts";
import { refuseUncloneable } from "../plugins/contract.ts";
import { ManualClock, SystemClock } from "../core/clock.ts";
import type {
  DeviceContext,
  DriverContext,
  DriverTransport,
  MachineScope,
  PartContext,
  PartIssue,
  PartKind,
} from "../plugins/plugin.ts";
import type { DeviceEvent } from "../core/device.ts";
import { HostError } from "../core/errors.ts";
import { Reactor } from "../core/reactor.ts";
import { HostWatcher } from "../host/waiters.ts";
import type { VerdictLog } from "../pipeline/stage.ts";
import { conflictsIn, factsOf, kindsOf } from "./conflicts.ts";
import { FileClaims } from "./file_claims.ts";
import { type BuiltPart, type DeviceWorkers, Machine, type MachineDevice, membersOf } from "./machine.ts";
import { absolutePath } from "./paths.ts";
import { checkDevice, checkDriver, checkPart, guarded, located, locateFailure } from "./plugin_guards.ts";
import { ThreadWorkers, type WorkerPart } from "./threads/queue_workers.ts";

/** Nanoseconds in a microsecond. */
export const NS_PER_US = 1000;

/** What a machine can be given besides its configuration. */
export interface BuildOptions {
  /** Where stages explain what happens to each frame. Without it nothing is spent on explanations. */
  readonly verdicts?: VerdictLog;
  /**
   * Told what happens to each device, by its name. It is called in the midst of the work, as often as guests
   * like: it returns at once and changes nothing. What it throws is reported as an uncaught error.
   */
  readonly events?: (device: string, event: DeviceEvent) => void;
  /**
   * Is it built to be looked at, and never started? Then parts stand in it of which plugins say that they
   * open nothing but what they read (`preview`). Left out: no.
   */
  readonly preview?: boolean;
}

/**
 * Builds everything that the configuration describes; opens files and interfaces, starts nothing. Throws
 * ConfigError for what contradicts itself across objects, HostError for what this host cannot, PluginError
 * for what a plugin cannot.
 */
export function buildMachine(config: ResolvedConfig, options: BuildOptions = {}): Machine {
  return located(config, () => {
    refuse(conflictsIn(config));
    return new Builder(config, options).build();
  });
}

function refuse(issues: readonly PartIssue[]): void {
  if (issues.length > 0) throw new ConfigError(issues);
}

class Builder {
  readonly #config: ResolvedConfig;
  readonly #manualClock: ManualClock | null;
  readonly #reactor: Reactor;
  /** Watches descriptors of this host; null if the clock is a virtual one. */
  readonly #watcher: HostWatcher | null;
  readonly #book = new CounterBook();
  readonly #files: FileClaims;
  readonly #starts: (() => void)[] = [];
  readonly #events: ((device: string, event: DeviceEvent) => void) | null;
  /** What parts share, by key. */
  readonly #shared = new Map<string, unknown>();
  readonly #scope: MachineScope;
  readonly #opened: Disposable[] = [];
  readonly #isPreview: boolean;

  constructor(config: ResolvedConfig, { verdicts, events, preview = false }: BuildOptions) {
    this.#isPreview = preview;
    this.#config = config;
    this.#manualClock = config.clock === "virtual" ? new ManualClock() : null;
    this.#reactor = new Reactor(this.#manualClock ?? new SystemClock(), config.pollMaxUs * NS_PER_US);
    this.#watcher = this.#manualClock === null ? new HostWatcher(this.#reactor) : null;
    this.#files = new FileClaims(config);
    this.#scope = machineScope(config.frameMemoryBytes, { verdicts });
    this.#events = events === undefined ? null : (device, event) => {
      try {
        // What its driver gets as a fault is told as the failure that it is.
        if (event.event !== "fault" || event.fault !== "device-failed") events(device, event);
      } catch (error) {
        reportError(error);
      }
    };
  }

  build(): Machine {
    try {
      const devices = this.#config.devices.map((device, index) => this.#device(device, index));
      return new Machine({
        name: this.#config.name,
        devices,
        reactor: this.#reactor,
        scope: this.#scope,
        counters: this.#book.groups,
        manualClock: this.#manualClock,
        shared: this.#shared,
        files: this.#files,
        starts: this.#starts,
        leftovers: () => BUILT_IN_KINDS.flatMap((kind) => kind.leftovers?.(this.#scope) ?? []),
        locate: (error, path) => locateFailure(error, path, this.#config),
        failed: (device, error) => this.#events?.(device, { event: "failed", message: error.message }),
      });
    } catch (cause) {
      this.#closeAll();
      throw cause;
    }
  }

  #device(resolved: ResolvedDevice, index: number): MachineDevice {
    const { name, plugin, mode } = resolved;
    const kinds = kindsOf(resolved);
    const facts = factsOf(resolved);
    const built: BuiltPart[] = [];
    const made: Record<string, unknown> = {};
    const given: Record<string, unknown> = {};
    for (const [slot, part] of Object.entries(resolved.parts)) {
      const kind = partKind(plugin.slots![slot].kind);
      const make = (one: ResolvedPart, group: string): BuiltPart => {
        const object = this.#part(kind, one, name, group, facts);
        built.push({ part: one, object });
        return built.at(-1)!;
      };
      if (kind.isDeferred === true || part === null) made[slot] = given[slot] = part;
      else {
        const group = `${name}.${slot}`;
        const all = isList(part) ? part.map((one, i) => make(one, `${group}.${i}`)) : [make(part, group)];
        const guards = all.map(({ object, part: one }) => kind.guard?.(object, one, this.#scope) ?? object);
        made[slot] = isList(part) ? all.map(({ object }) => object) : all[0].object;
        given[slot] = isList(part) ? guards : guards[0];
      }
    }
    const context: DeviceContext = {
      name,
      path: resolved.path,
      parts: given,
      role: mode === "threads" ? "control" : "whole",
      newBuffer: (bytes) => Arena.newBuffer(this.#scope.arena, bytes),
      isTimeVirtual: this.#manualClock !== null,
      publish: (counters, part) =>
        this.#book.publish(part === undefined ? name : `${name}.${part}`, counters),
    };
    for (const [kind] of kinds) Object.assign(context, kind.deviceContext?.(resolved, this.#scope));
    const device = guarded(resolved, "create", () => plugin.create(context, resolved.options), checkDevice);
    refuse(kinds.flatMap(([kind, parts]) => kind.missing?.(parts, device, resolved) ?? []));
    const driver = this.#driver(resolved);
    const one: MachineDevice = { name, device, driver, parts: made, built, resolved };
    if (mode === "loop") return one;
    const workers = this.#workers(one, index);
    driver.useWorkers?.(workers);
    return { ...one, workers };
  }

  /** Builds a part; those that it has wrapped meanwhile are its own from now on. */
  #part(kind: PartKind, part: ResolvedPart, device: string, group: string, facts: unknown): unknown {
    const context = this.#context(device, part.path, group);
    const inner = (written: unknown, key: string): unknown => {
      const wrapped = this.#config.resolvePart(kind.kind, written, `${part.path}.${key}`);
      const object = this.#part(kind, wrapped, device, `${group}.${key}`, facts);
      // Those of this program may know each other better: a recorder asks a replay for its clock.
      if (this.#isPreview || BUILT_IN_PLUGINS.includes(wrapped.plugin)) return object;
      return kind.guard?.(object, wrapped, this.#scope) ?? object;
    };
    const before = this.#opened.length;
    const site = { part, facts, machine: this.#scope, inner };
    const own = kind.context?.(context, site) ?? context;
    const { plugin, options } = part;
    const preview = this.#isPreview ? plugin.preview ?? kind.preview : undefined;
    const make = () => {
      const made = (preview ?? plugin.create).call(plugin, own, options);
      const { [Symbol.dispose]: dispose } = membersOf(made);
      // Also what is refused below has opened what it needs, and disposes of those that it wraps.
      if (typeof dispose === "function") {
        this.#opened.splice(before, Infinity, { [Symbol.dispose]: () => dispose.call(made) });
      }
      return made;
    };
    return guarded(part, preview === undefined ? "create" : "preview", make, (object) => {
      checkPart(object);
      kind.check?.(object);
    });
  }

  /** Makes the way to a device's guest. */
  #driver(resolved: ResolvedDevice): DriverTransport {
    const { name, plugin, driver: part } = resolved;
    const half = part.plugin.runsSoftwareDriver === true ? plugin.driver : undefined;
    const context: DriverContext = {
      ...this.#context(name, part.path, `${name}.driver`),
      // What fails in it is the device plugin's, not the transport's that asks it.
      softwareDriver: half === undefined ? null : {
        options: half.options,
        create: (options) => guarded(resolved, "driver.create", () => half.create(options)),
      },
    };
    const driver = guarded(part, "create", () => part.plugin.create(context, part.options), checkDriver);
    this.#opened.push(driver);
    return driver;
  }

  /** The threads of a device, to each of which every part of it gives something. */
  #workers({ name, device, built, resolved }: MachineDevice, index: number): DeviceWorkers {
    const { workers: sets, inflight } = device;
    if (sets === undefined) {
      throw new ConfigError([{
        path: `${resolved.path}.use`,
        problem: "names no sets of queues that threads could serve",
        remedy: 'leave "mode": "threads" out',
      }]);
    }
    refuse(
      built.flatMap(({ part, object }) =>
        partKind(part.plugin.kind).workerIssues?.(object, part, sets.queueSets.length, name) ?? []
      ),
    );
    const { text, baseUrl } = this.#config;
    return new ThreadWorkers({
      name,
      text,
      baseUrl,
      device: index,
      arena: this.#scope.arena,
      frameMemoryBytes: this.#config.frameMemoryBytes,
      sets,
      inflight,
      limitMs: resolved.threadLimitMs,
      parts: Object.fromEntries(
        built.map(({ part, object }) => [part.path, guardGiven(part, object as WorkerPart)]),
      ),
      counters: this.#book.groups,
      wake: () => this.#reactor.wake(),
    });
  }

  #context(device: string, path: string, group: string): PartContext {
    const events = this.#events;
    const scope = this.#scope;
    return {
      path,
      get arena() {
        return scope.arena;
      },
      clock: this.#reactor.clock,
      resolvePath: (written) => this.#resolvePath(written, path),
      shared: <T>(key: string, make: () => T): T => once(this.#shared, key, make),
      wake: () => this.#reactor.wake(),
      watch: (descriptor) => this.#watch(descriptor, path),
      publish: (counters) => this.#book.publish(group, counters),
      claimFile: (claim) => this.#files.claim(claim, `${path}.${claim.key}`),
      onStart: (action) => void this.#starts.push(action),
      report: events === null ? undefined : (event) => events(device, event),
    };
  }

  /** Real descriptors know nothing of a virtual clock: what they do when would differ from run to run. */
  #watch(descriptor: number, path: string): Disposable {
    if (this.#watcher !== null) return this.#watcher.watch(descriptor);
    throw new HostError(
      `${path}: events of this host cannot be waited for by a virtual clock; write "clock": "system", or leave it out`,
    );
  }

  #resolvePath(written: string, path: string): string {
    const { baseUrl } = this.#config;
    const resolved = absolutePath(written, baseUrl);
    if (resolved !== null) return resolved;
    throw new HostError(
      `${path}: the path "${written}" is relative to ${baseUrl}, which is no file; write an absolute path`,
    );
  }

  /** Something cannot be built: closes all that was opened, the last first. */
  #closeAll(): void {
    for (const opened of this.#opened.reverse()) {
      try {
        opened[Symbol.dispose]();
      } catch {
        // What failed first is what is told.
      }
    }
  }
}

function isList(part: ResolvedPart | readonly ResolvedPart[]): part is readonly ResolvedPart[] {
  return Array.isArray(part);
}

function once<T>(things: Map<string, unknown>, key: string, make: () => T): T {
  if (!things.has(key)) things.set(key, make());
  return things.get(key) as T;
}

/**
 * What the parts of one machine, or of one of its threads, are built in.
 * @param reserve gives the memory for frames and guests
 */
export function machineScope(
  frameMemoryBytes: number,
  listeners: MachineScope["listeners"],
  reserve: () => Arena | null = Arena.reserve,
): MachineScope {
  const resources = new Map<string, unknown>();
  const resource: MachineScope["resource"] = (key, make) => once(resources, key, make);
  return {
    get arena() {
      return resource("arena", reserve);
    },
    frameMemoryBytes,
    listeners,
    resource,
  };
}

// Every counter by group, live.

/** Keeps groups of counters apart by their names. */
export class CounterBook {
  /** The groups. */
  readonly groups: Record<string, Record<string, number>> = {};

  /**
   * Takes a group in under its name, with `#2` behind it if that stands there before. Returns the same
   * counters. Throws TypeError for what is no object.
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

/**
 * What a part gives to workers, looked at: PluginError if it throws, or returns what cannot go to a thread.
 */
function guardGiven(part: ResolvedPart, object: WorkerPart): WorkerPart {
  if (object === null) return object;
  return {
    giveToWorker: (set) => guarded(part, "giveToWorker", () => object.giveToWorker?.(set), refuseUncloneable),
  };
}
