/**
 * What benches have in common: complete options for plugins, a context in which nothing of this host is
 * there, and frames in and out.
 * @module
 */
import type { ManualClock } from "../core/clock.ts";
import { HostError } from "../core/errors.ts";
import type { Plugin } from "../plugins/plugin.ts";
import type { Frame } from "../pipeline/frame.ts";
import type { FramePool } from "../pipeline/frame_pool.ts";
import type { FrameTransport } from "../pipeline/frame_transport.ts";
import type { NetworkContext, NetworkPlugin } from "../pipeline/plugin.ts";
import { bytesOf, type Delivered, type FrameFacts, type FrameSource, headerFields } from "./matchers.ts";

/** A plugin of any kind, and what the JSON would say of it. */
export interface BenchPart {
  /** The plugin. */
  // deno-lint-ignore no-explicit-any -- plugins of any options
  readonly plugin: any;
  /** Its options as written: validated and completed by its own schema. Default `{}`. */
  readonly options?: unknown;
}

/** The options as the plugin's own schema completes them. Throws TypeError with all that is wrong. */
export function completeOptions(
  { name, options: schema }: Pick<Plugin, "name" | "options">,
  options: unknown,
) {
  const result = schema["~standard"].validate(options);
  if (result instanceof Promise) {
    throw new TypeError(`Cannot bench "${name}": its options are validated asynchronously`);
  }
  if (result.issues === undefined) return result.value;
  const issues = result.issues.map(({ message, path = [] }) =>
    `${
      path.map((key) => typeof key === "object" ? key.key : key).map(String).join(".") || "options"
    }: ${message}`
  );
  throw new TypeError(`Cannot bench "${name}": ${issues.join("; ")}`);
}

/** What the parts of one bench have in common. */
export interface BenchSurroundings {
  /** What tells the time. */
  readonly clock: ManualClock;
  /** Where frames come from. */
  readonly pool: FramePool;
  /** Counters by group. */
  readonly counters: Record<string, Record<string, number>>;
  /** The guest's MAC address, six bytes. */
  readonly guestMac: Uint8Array;
  /** Queue pairs of the device. */
  readonly queuePairs: number;
  /** What parts share with each other, by key. */
  readonly shared: Map<string, unknown>;
  /** There is work. */
  wake(): void;
}

/**
 * The context of a part, and what it wants to be done when the bench starts. Descriptors cannot be watched:
 * HostError.
 */
export function benchContext(
  surroundings: BenchSurroundings,
  plugin: Pick<Plugin, "name" | "kind">,
  starts: (() => void)[],
  group: string = plugin.name,
): NetworkContext {
  const { clock, pool, counters, guestMac, queuePairs, shared, wake } = surroundings;
  const path = `$.${group}`;
  return {
    path,
    arena: pool.arena,
    clock,
    pool: pool.lentTo({ plugin: plugin.name, path, kind: "network" }),
    guestMac,
    queuePairs,
    wake,
    resolvePath: (written) => written,
    shared: <T>(key: string, make: () => T): T => {
      if (!shared.has(key)) shared.set(key, make());
      return shared.get(key) as T;
    },
    watch: () => {
      throw new HostError(`${path}: a bench cannot wait for events of this host: it runs by a manual clock`);
    },
    publish: (one) => {
      counters[group] = one;
      return one;
    },
    claimFile: () => {},
    onStart: (action) => void starts.push(action),
    inner: (written, key): FrameTransport => {
      const { plugin, options } = written as { plugin: NetworkPlugin; options?: unknown };
      if (typeof plugin?.create !== "function") {
        throw new TypeError(
          `Cannot bench "${group}": give what stands under "${key}" as { plugin, options }`,
        );
      }
      const context = benchContext(surroundings, plugin, starts, `${group}.${key}`);
      return plugin.create(context, completeOptions(plugin, options ?? {}));
    },
  };
}

/** A frame with these bytes and facts. Throws RangeError if the pool is at its limit. */
export function newFrame(pool: FramePool, source: FrameSource, facts: FrameFacts): Frame {
  const { header = {}, queuePair = 0, number = 0 } = facts;
  const frame = pool.takeCopy(bytesOf(source));
  if (frame === null) throw new RangeError("Cannot take another frame: the pool is at its limit");
  Object.assign(frame.header, header);
  frame.queuePair = queuePair;
  frame.number = number;
  return frame;
}

/** What has come out at this time; the frame stays the caller's. */
export function delivered(frame: Frame, atNs: number): Delivered {
  const { queuePair, number } = frame;
  return { atNs, header: headerFields(frame.header), bytes: frame.toBytes(), queuePair, number };
}
