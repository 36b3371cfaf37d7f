/**
 * The kinds of part of the network family: what is special about networks and offloads.
 * @module
 */
import {
  checkedDeadline,
  kindOf,
  MAX_VAIN_ROUNDS,
  PluginError,
  pluginError,
  pollableFault,
  refuse,
  refusePromise,
  shapeFault,
} from "../plugins/contract.ts";
import type { Device } from "../core/device.ts";
import { featureName } from "../core/features.ts";
import type {
  BuiltSite,
  MachineScope,
  PartIssue,
  PartKind,
  PartRow,
  ResolvedDevice,
  ResolvedPart,
} from "../plugins/plugin.ts";
import { type FrameBatch, frameFault, type FrameHolder, isPlain, isSound, MAX_QUEUE_PAIRS } from "./frame.ts";
import { type FramePool, newFramePool } from "./frame_pool.ts";
import type { FrameTransport } from "./frame_transport.ts";
import { OFFLOAD_CAPABILITIES, OffloadCapabilities } from "./offload_capabilities.ts";
import {
  bitsOf,
  inheritOptions,
  type NetworkContext,
  type NetworkFacts,
  NetworkPreview,
  type OffloadPlugin,
} from "./plugin.ts";
import type { Direction } from "./stage.ts";

/** Bounds of the field `mtu` (virtio 1.2, section 5.1.4.1), in bytes. */
export const MIN_MTU = 68;
/** See {@linkcode MIN_MTU}. */
export const MAX_MTU = 65_535;

/** What is known of a device whose plugin does not say. */
const NO_GUEST: NetworkFacts = { guestMac: new Uint8Array(6), queuePairs: 1 };

/** The frames of a machine: one pool, made when the first part of the family asks. */
export function framePool(machine: MachineScope): FramePool {
  return machine.resource(
    "frames",
    () => newFramePool(machine.frameMemoryBytes, machine.arena),
  );
}

/** Networks: what stands in the slot `network`. */
export const networkKind: PartKind = {
  kind: "network",
  title: "a network transport",
  heading: 'Ways to the network ("network")',
  define: "defineNetwork",
  wraps: "inner",
  capabilities: { net: { guestMoved: undefined, acceptsMtu: false, discardsWhenDisabled: false } },
  checkFacts: (facts) => checkFacts(facts as NetworkFacts | undefined),
  context: (context, { part, facts, machine, inner }) => ({
    ...context,
    ...(facts as NetworkFacts | undefined ?? NO_GUEST),
    pool: framePool(machine).lentTo({ plugin: part.plugin.name, path: part.path, kind: "network" }),
    inner,
  }),
  check: (made) => checkNetwork(made as FrameTransport),
  preview: (context) => new NetworkPreview((context as NetworkContext).queuePairs, undefined, null),
  guard: (made, part, machine) => guardNetwork(made as FrameTransport, part, framePool(machine)),
  deviceContext: ({ plugin, path }, machine) => ({
    pool: framePool(machine).lentTo({ plugin: plugin.name, path, kind: "device" }),
    verdicts: machine.listeners.verdicts ?? null,
  }),
  workerIssues: (made, part, sets, device) => {
    const { queuePairs } = made as FrameTransport;
    return queuePairs >= sets ? [] : [{
      path: part.path,
      problem:
        `has ${queuePairs} queues for the ${sets} pairs of ${device}, each of which is worked by a thread`,
      remedy: "give the network a queue for each pair, or the device fewer pairs",
    }];
  },
  leftovers: (machine) => keptFrames(framePool(machine)),
};

/** Offloads: what stands in the slot `offloads`. The device builds their stages, one for each direction. */
export const offloadKind: PartKind = {
  kind: "offload",
  title: "an offload",
  heading: 'Offloads ("offloads", in order)',
  define: "defineOffload",
  hasSwitch: true,
  isDeferred: true,
  faults: offloadFaults,
  conflicts: twins,
  missing: missingNeeds,
  hints: idleOffloads,
  rows: (parts) => [row("to guest", "toGuest", parts), row("from guest", "fromGuest", parts)],
};

function row(label: string, direction: Direction, parts: readonly ResolvedPart[]): PartRow {
  const stages = (parts as readonly ResolvedPart<OffloadPlugin>[])
    .filter(({ plugin }) => plugin.direction === direction || plugin.direction === "both");
  return { label, key: `stages.${direction}`, parts: stages, none: "no stages: frames pass as they are" };
}

/** What keeps an object from being an offload plugin. */
function offloadFaults(
  plugin: Readonly<Record<string, unknown>>,
  show: (value: unknown) => string,
): string[] {
  const faults: string[] = [];
  if (!DIRECTIONS.includes(plugin.direction as string)) {
    faults.push(
      `has the direction ${show(plugin.direction)}; it must be one of ${
        DIRECTIONS.map((one) => JSON.stringify(one)).join(", ")
      }`,
    );
  }
  const { inherits = [] } = plugin;
  if (!Array.isArray(inherits) || !inherits.every((key) => typeof key === "string")) {
    faults.push(`has "inherits" ${show(inherits)}; it must be a list of names of options`);
  }
  for (const key of ["offers", "needs"]) {
    const bits = plugin[key];
    if (bits === undefined || (key === "offers" && typeof bits === "function")) continue;
    if (!Array.isArray(bits) || !bits.every((bit) => Number.isInteger(bit) && bit >= 0 && bit <= 127)) {
      faults.push(`has ${JSON.stringify(key)} ${show(bits)}; it must be a list of feature bits, 0 to 127`);
    }
  }
  return faults;
}

const DIRECTIONS = ["toGuest", "fromGuest", "both"];

/** An offload that stands twice at one device. */
function twins(parts: readonly ResolvedPart[]): PartIssue[] {
  const issues: PartIssue[] = [];
  const seen = new Map<string, string>();
  for (const { plugin, path } of parts as readonly ResolvedPart<OffloadPlugin>[]) {
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
  return issues;
}

/** What the device, once it is there, shows: an offload is no use if the device withholds what it needs. */
function missingNeeds(
  parts: readonly ResolvedPart[],
  device: Device,
  resolved: ResolvedDevice,
): PartIssue[] {
  const issues: PartIssue[] = [];
  for (const { plugin, path } of parts as readonly ResolvedPart<OffloadPlugin>[]) {
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

/** Offloads that wait for a feature which no driver that may come accepts: they never do anything. */
function idleOffloads(
  parts: readonly ResolvedPart[],
  { built, agreed, frontEnds, device }: BuiltSite,
): PartIssue[] {
  const issues: PartIssue[] = [];
  const isHad = (bit: number) =>
    agreed !== null
      ? agreed.has(bit)
      : frontEnds.length === 0 || frontEnds.some(({ features }) => features.get(bit) !== "lost");
  for (const part of parts as readonly ResolvedPart<OffloadPlugin>[]) {
    const { plugin, path } = part;
    const options = inheritOptions(plugin, part.options, device.options as object);
    const further = bitsOf(part, "idleWithout", () => plugin.idleWithout?.(options) ?? []);
    const missing = [...plugin.needs ?? [], ...further].filter((bit) => !isHad(bit))
      .map((bit) => featureName(bit, built.featureNames)).join(", ");
    if (missing === "") continue;
    issues.push({
      path,
      value: plugin.name,
      problem: `never has anything to do: the driver does not accept ${missing}`,
      remedy: agreed === null
        ? "use a front-end that passes it on, or leave the offload out"
        : `let ${device.driver.path} accept ${missing}, or leave the offload out`,
    });
  }
  return issues;
}

/** Throws TypeError unless this is what transports have to know of a device, or nothing. */
function checkFacts(value: NetworkFacts | undefined): void {
  if (value === undefined) return;
  refuse(shapeFault(value, "facts", [], []));
  const { guestMac, queuePairs, mtu } = value;
  if (!(guestMac instanceof Uint8Array && guestMac.length === 6)) {
    refuse("it returned facts whose guestMac is no Uint8Array of six bytes");
  }
  if (!(Number.isInteger(queuePairs) && queuePairs >= 1 && queuePairs <= MAX_QUEUE_PAIRS)) {
    refuse(`it returned facts with queuePairs ${kindOf(queuePairs)}; 1 to ${MAX_QUEUE_PAIRS} are possible`);
  }
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU)) {
    refuse(`it returned facts with mtu ${kindOf(mtu)}; ${MIN_MTU} to ${MAX_MTU} bytes are possible`);
  }
}

/** Throws TypeError unless this is a network transport. */
export function checkNetwork(value: FrameTransport): void {
  refuse(shapeFault(value, "a network", ["receive", "send", Symbol.dispose], [
    "guestCapabilities",
    "hasGuest",
    "useQueuePairs",
    "giveToWorker",
    "close",
  ]));
  refuse(pollableFault(value, true));
  const { maxFrameBytes, queuePairs, capabilities } = value;
  if (!(Number.isInteger(maxFrameBytes) && maxFrameBytes >= 14)) {
    refuse(
      `it returned a network with maxFrameBytes ${
        kindOf(maxFrameBytes)
      }; a whole number from 14 on is needed`,
    );
  }
  if (!(Number.isInteger(queuePairs) && queuePairs >= 1 && queuePairs <= MAX_QUEUE_PAIRS)) {
    refuse(
      `it returned a network with queuePairs ${kindOf(queuePairs)}; 1 to ${MAX_QUEUE_PAIRS} are possible`,
    );
  }
  for (const name of OFFLOAD_CAPABILITIES) {
    const value: unknown = capabilities?.[name];
    if (typeof value !== "boolean") {
      refuse(`it returned a network whose capabilities.${name} is ${kindOf(value)}, not true or false`);
    }
  }
}

/** What is told when everything is closed: a plugin that has a frame still keeps it for ever. */
export function keptFrames(pool: FramePool): PluginError[] {
  return [...pool.held()].map(([holder, frames]) => {
    const { plugin, path } = holder ?? { plugin: "unknown", path: "" };
    return new PluginError(plugin, "dispose", new Error(`it keeps ${frames} frames, which are lost`), path);
  });
}

/**
 * A network as its device gets it. @param pool where frames come from: one that refuses excuses a network
 * that has none
 */
export function guardNetwork(network: FrameTransport, part: ResolvedPart, pool: FramePool): FrameTransport {
  return new GuardedNetwork(network, part, pool);
}

class GuardedNetwork implements FrameTransport {
  readonly maxFrameBytes: number;
  readonly capabilities: OffloadCapabilities;
  readonly queuePairs: number;
  readonly #network: FrameTransport;
  readonly #part: ResolvedPart;
  readonly #pool: FramePool;
  /** Who has what was sent: it may be received again, here or at the other end of a cable. */
  readonly #sender: FrameHolder;
  /** Who has what was received: it cannot be received again before it was sent. */
  readonly #receiver: FrameHolder;
  #failure: Error | null = null;
  #promisedNs = Infinity;
  #vainRounds = 0;

  constructor(network: FrameTransport, part: ResolvedPart, pool: FramePool) {
    this.#network = network;
    this.#part = part;
    this.#pool = pool;
    this.#sender = { plugin: part.plugin.name, path: part.path, kind: "network" };
    this.#receiver = { plugin: `receiver of ${part.plugin.name}`, path: part.path, kind: "device" };
    this.maxFrameBytes = network.maxFrameBytes;
    this.capabilities = OffloadCapabilities.from(network.capabilities);
    this.queuePairs = network.queuePairs;
  }

  receive(out: FrameBatch, limit: number, queue: number, nowNs: number): number {
    const before = out.length;
    const { refusals } = this.#pool;
    try {
      const count = this.#network.receive(out, limit, queue, nowNs);
      if (count !== out.length - before || count > limit) refuseCount(count, out.length - before, limit);
      for (let i = before; i < out.length; i++) {
        const frame = out.at(i);
        const kind = frame?.holder?.kind;
        if (kind === "stage" || kind === "device" || !isPlain(frame, MAX_QUEUE_PAIRS)) {
          inspectReceived(out, i);
        }
        frame.holder = this.#receiver;
      }
      if (count > 0) this.#vainRounds = 0;
      else if (this.#promisedNs <= nowNs && refusals === this.#pool.refusals) this.#vainRounds++;
      this.#promisedNs = Infinity;
      if (this.#vainRounds < MAX_VAIN_ROUNDS) return count;
    } catch (cause) {
      out.shorten(before);
      throw this.#fail("receive", cause);
    }
    throw this.#fail(
      "deadlineNs",
      new Error("it says that there is a frame, and receive gives none, for ever"),
    );
  }

  send(batch: FrameBatch, queue: number, nowNs: number): number {
    const offered = batch.length;
    for (let i = 0; i < offered; i++) batch.at(i).holder = this.#sender;
    try {
      const taken = this.#network.send(batch, queue, nowNs);
      if (!(Number.isInteger(taken) && taken >= 0 && taken <= offered)) {
        refusePromise(taken);
        throw new TypeError(`it returned ${kindOf(taken)}; how many of ${offered} frames it took is needed`);
      }
      if (batch.length !== offered) {
        throw new Error("it changed the batch, which is the device's: leave it alone");
      }
      if (taken < offered && !batch.at(taken).isOwned) {
        throw new Error(
          `it returned ${taken}, but has released a frame behind those: they stay the device's`,
        );
      }
      return taken;
    } catch (cause) {
      throw this.#fail("send", cause);
    }
  }

  guestCapabilities(capabilities: OffloadCapabilities): void {
    this.#call("guestCapabilities", () => this.#network.guestCapabilities?.(capabilities));
  }

  hasGuest(present: boolean): void {
    this.#call("hasGuest", () => this.#network.hasGuest?.(present));
  }

  useQueuePairs(pairs: number): void {
    this.#call("useQueuePairs", () => this.#network.useQueuePairs?.(pairs));
  }

  giveToWorker(queue: number): unknown {
    return this.#call("giveToWorker", () => this.#network.giveToWorker?.(queue));
  }

  deadlineNs(): number {
    if (this.#failure !== null || this.#network.deadlineNs === undefined) return Infinity;
    try {
      return this.#promisedNs = checkedDeadline(this.#network.deadlineNs());
    } catch (cause) {
      throw this.#fail("deadlineNs", cause);
    }
  }

  get finished(): boolean {
    return this.#network.finished === true;
  }

  get isBehind(): boolean {
    return this.#network.isBehind === true;
  }

  async close(): Promise<void> {
    await this.#network.close?.();
  }

  [Symbol.dispose](): void {
    this.#network[Symbol.dispose]();
  }

  #call<T>(hook: string, action: () => T): T {
    try {
      const result = action();
      refusePromise(result);
      return result;
    } catch (cause) {
      throw this.#fail(hook, cause);
    }
  }

  #fail(hook: string, cause: unknown): Error {
    return this.#failure ??= pluginError(this.#part, hook, cause);
  }
}

function refuseCount(count: unknown, appended: number, limit: number): never {
  refusePromise(count);
  if (appended > limit) throw new Error(`it appended ${appended} frames; ${limit} were asked for at most`);
  throw new Error(`it returned ${kindOf(count)}, but has appended ${appended} frames`);
}

/** Throws Error if this frame cannot have been received. */
function inspectReceived(batch: FrameBatch, at: number): void {
  const frame = batch.at(at);
  const kind = frame?.isOwned === true ? frame.holder?.kind : undefined;
  if (kind === "stage" || kind === "device") {
    throw new Error("it handed on a frame that it has not got any more");
  }
  if (!isSound(frame, MAX_QUEUE_PAIRS)) throw new Error(frameFault(frame, MAX_QUEUE_PAIRS));
}
