/**
 * Builds the transports of a machine, and gives each the context that it is built from.
 *
 * Theory of operation. What is opened is noted in `#opened`, and disposed of again, the last first, if something later
 * cannot be built (`closeAll`); a transport that wraps others owns them once it is there. What transports share, such as
 * in-memory cables, is made when the first of them asks.
 *
 * @module
 */
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { HostError } from "../core/errors.ts";
import type { DeviceEvent } from "../core/events.ts";
import type { FramePool } from "../core/frame_pool.ts";
import type { DeviceFacts, TransportContext } from "../core/plugin.ts";
import type { Reactor } from "../core/reactor.ts";
import type { DriverTransport, FrameTransport } from "../core/transport.ts";
import type { HostWatcher } from "../host/host_watcher.ts";
import { cableKey } from "../transports/loopback.ts";
import { formatMac } from "../wire/ethernet.ts";
import { BUILT_IN_PLUGINS } from "../config/builtins.ts";
import type { CounterBook } from "./counter_book.ts";
import { ConfigError } from "../config/errors.ts";
import type { FileClaims } from "./file_claims.ts";
import { guarded } from "./guarded.ts";
import { checkDriver, checkNetwork, guardNetwork } from "./plugin_guards.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../config/types.ts";

/** What is known of a device whose plugin does not say. */
export const NO_GUEST: DeviceFacts = { guestMac: new Uint8Array(6), queuePairs: 1 };

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
  network(device: ResolvedDevice, facts: DeviceFacts): FrameTransport | null {
    const { name, network } = device;
    if (network === null) return null;
    const onShared = (key: string) => this.#claimAddress(device, key, facts);
    return this.#open(network, this.#context(name, network, `${name}.network`, facts, onShared));
  }

  /** Makes the way to a device's guest. Throws ConfigError, HostError and PluginError. */
  driver({ name, driver: part }: ResolvedDevice, facts: DeviceFacts): DriverTransport {
    const context = this.#context(name, part, `${name}.driver`, facts, () => {});
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
  #open(part: NonNullable<ResolvedDevice["network"]>, context: TransportContext): FrameTransport {
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
    facts: DeviceFacts,
    onShared: (key: string) => void,
  ): TransportContext {
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
