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
import { ManualClock, SystemClock } from "../core/clock.ts";
import type { DeviceEvent } from "../core/events.ts";
import type { FramePool } from "../core/frame_pool.ts";
import { Reactor } from "../core/reactor.ts";
import type { VerdictLog } from "../core/stage.ts";
import type { FrameTransport } from "../core/transport.ts";
import { HostWatcher } from "../host/host_watcher.ts";
import { contradictions, missingNeeds } from "./contradictions.ts";
import { CounterBook } from "./counter_book.ts";
import { ConfigError } from "../config/errors.ts";
import { FileClaims } from "./file_claims.ts";
import { newFramePool } from "./frame_memory.ts";
import { guarded, located, locateFailure } from "./guarded.ts";
import { Machine, type MachineDevice } from "./machine.ts";
import { QueueWorkers } from "./threads/queue_workers.ts";
import { checkDevice, checkFacts, guardNetwork } from "./plugin_guards.ts";
import { NO_GUEST, TransportBuilder } from "./transport_builder.ts";
import type { ResolvedConfig, ResolvedDevice } from "../config/types.ts";

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
    const facts = guarded(resolved, "facts", () => plugin.facts?.(resolved.options), checkFacts) ?? NO_GUEST;
    const network = this.#transports.network(resolved, facts);
    const device = guarded(resolved, "create", () =>
      plugin.create({
        name,
        path: resolved.path,
        pool: this.#pool.lentTo({ plugin: plugin.name, path: resolved.path, kind: "device" }),
        offloads: resolved.offloads,
        network: network && guardNetwork(network, resolved.network!, this.#pool),
        verdicts: this.#verdicts,
        role: mode === "threads" ? "control" : "whole",
        publish: (counters, part) =>
          this.#book.publish(part === undefined ? name : `${name}.${part}`, counters),
      }, resolved.options), checkDevice);
    const missing = missingNeeds(resolved, device);
    if (missing.length > 0) throw new ConfigError(missing);
    const driver = this.#transports.driver(resolved, facts);
    if (mode === "loop" || network === null) return { name, device, driver, network, resolved };
    const threads = this.#threads(resolved, index, network, facts.queuePairs);
    driver.lendTo?.(threads);
    return { name, device, driver, network, threads, resolved };
  }

  #threads(
    { name, network: part, path, threadLimitMs }: ResolvedDevice,
    device: number,
    network: FrameTransport,
    pairs: number,
  ): QueueWorkers {
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
    return new QueueWorkers({
      name,
      text,
      baseUrl,
      device,
      pairs,
      limitMs: threadLimitMs,
      network,
      counters: this.#book.groups,
      wake,
    });
  }
}
