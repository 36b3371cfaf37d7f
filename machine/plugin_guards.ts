/**
 * Between a machine and the plugins that it is made of: what they return, throw and promise is looked at here
 * while they work, so that what one does wrong is told by its name and stops its own device only.
 *
 * Theory of operation. `guardDevice` stands between a driver transport and a device. An error that is no
 * GuestError is the device's end: it is told once (`failed`), and the transport gets GuestError
 * `device-failed`, now and for every call that may fail. So a driver sees what it sees after a fault of its
 * own, a device in NEEDS_RESET, which no reset brings back. Between a device and its parts stands what the
 * kind of a part has for that (`PartKind.guard`). `guardMember` stands between the reactor and a transport.
 *
 * @module
 */
import { ConfigError } from "../config/errors.ts";
import { isModuleOfPlugin, moduleOf } from "../config/registry.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../config/types.ts";
import { BUILT_IN_KINDS } from "../config/kinds.ts";
import {
  checkedDeadline,
  checkedWork,
  kindOf,
  MAX_VAIN_ROUNDS,
  PluginError,
  pluginError,
  pollableFault,
  refuse,
  refusePromise,
  refuseUnwritable,
  shapeFault,
} from "../plugins/contract.ts";
import type { Device, Session, WorkersCapability } from "../core/device.ts";
import { GuestError } from "../rings/guest_error.ts";
import { HostError } from "../core/errors.ts";
import { FeatureSet } from "../core/features.ts";
import type { PartKind } from "../plugins/plugin.ts";
import type { Pollable } from "../core/reactor.ts";

/** The most queues that a device can have: 32768 pairs and a control queue (virtio 1.2, section 5.1.5). */
const MAX_QUEUES = 65_537;
/** As an answer: there is none, the call throws. */
const THROWS = undefined;

/** What every device has. */
const DEVICE_HOOKS = [
  "poll",
  "deadlineNs",
  "readConfig",
  "writeConfig",
  "acceptFeatures",
  "activate",
  "reset",
  "drain",
  "queuesChanged",
] as const;
/**
 * The capability objects that a device may have: the hooks of each, with what a device answers there that has
 * failed.
 */
const CAPABILITIES: NonNullable<PartKind["capabilities"]> = Object.assign(
  { migration: { save: THROWS, restore: THROWS } },
  ...BUILT_IN_KINDS.map(({ capabilities }) => capabilities),
);

/** Throws TypeError unless this is a driver transport. */
export function checkDriver(value: unknown): void {
  refuse(shapeFault(value, "a driver", ["serve", Symbol.dispose], ["useWorkers"]));
  refuse(pollableFault(value as object, false));
}

/** Throws TypeError for a promise, and for an object that is half of what the reactor polls. */
export function checkPart(value: unknown): void {
  refusePromise(value);
  if (typeof value === "object" && value !== null) refuse(pollableFault(value, true));
}

/** Throws TypeError unless this is a device. */
export function checkDevice(value: Device): void {
  refuse(shapeFault(value, "a device", DEVICE_HOOKS, []));
  const { type, name, features, featureNames, queueSizes, inflight, workers } = value;
  if (inflight !== undefined) {
    refuse(shapeFault(inflight, "requests in flight", ["pause", "resume"], []));
    const { count, limitNs } = inflight;
    if (!(count >= 0 && limitNs >= 0)) {
      refuse(
        `it returned a device with ${kindOf(count)} requests in flight, for ${kindOf(limitNs)} ns at most`,
      );
    }
  }
  if (!(Number.isInteger(type) && type > 0)) {
    refuse(`it returned a device with the type ${kindOf(type)}; a number from 1 on is needed`);
  }
  if (typeof name !== "string") refuse(`it returned a device with the name ${kindOf(name)}`);
  if (!(features instanceof FeatureSet)) {
    refuse(`it returned a device whose features are ${kindOf(features)}, no FeatureSet of this program`);
  }
  if (!(featureNames instanceof Map)) {
    refuse(`it returned a device whose featureNames are ${kindOf(featureNames)}, no Map of bit and name`);
  }
  for (const [name, hooks] of Object.entries(CAPABILITIES)) {
    const capability = (value as unknown as Record<string, unknown>)[name];
    if (capability === undefined) continue;
    refuse(shapeFault(capability, `a device whose ${name} is an object`, Object.keys(hooks), []));
  }
  const isSize = (size: unknown) =>
    Number.isInteger(size) && (size as number) >= 1 && (size as number) <= 32_768;
  if (
    !Array.isArray(queueSizes) || queueSizes.length > MAX_QUEUES || !queueSizes.every(isSize)
  ) {
    const text = Array.isArray(queueSizes)
      ? queueSizes.slice(0, 8).map(kindOf).join(", ")
      : kindOf(queueSizes);
    refuse(`it returned a device with the queueSizes ${text}; a list of sizes from 1 to 32768 is needed`);
  }
  if (workers !== undefined) checkWorkers(workers, queueSizes.length);
}

function checkWorkers(workers: WorkersCapability, queues: number): void {
  refuse(shapeFault(workers, "a device whose workers is an object", [], []));
  const { queueSets, sharedMemory } = workers;
  const isRight = Array.isArray(queueSets) && queueSets.length > 0 &&
    queueSets.every((set) => Array.isArray(set) && set.length > 0);
  const all: unknown[] = isRight ? queueSets.flat() : [];
  const isQueue = (index: unknown) =>
    Number.isInteger(index) && (index as number) >= 0 && (index as number) < queues;
  if (!isRight || new Set(all).size < all.length || !all.every(isQueue)) {
    refuse(
      `it returned a device with workers.queueSets ${
        JSON.stringify(queueSets)?.slice(0, 100)
      }; lists of queues from 0 to ${queues - 1} are needed, each queue once`,
    );
  }
  if (sharedMemory !== undefined && !(sharedMemory instanceof SharedArrayBuffer)) {
    refuse(
      `it returned a device with workers.sharedMemory ${kindOf(sharedMemory)}; a SharedArrayBuffer is needed`,
    );
  }
}

/**
 * A device as its driver transport gets it. It has those of the hooks that may be left out which the device
 * has.
 * @param failed told once, when the device has failed; @param inflight what it has in flight, here and in
 * other threads
 */
export function guardDevice(
  device: Device,
  part: ResolvedPart,
  failed: (error: Error) => void,
  inflight = device.inflight,
): Device {
  const guarded = new GuardedDevice(device, part, failed, inflight);
  for (const name of Object.keys(CAPABILITIES)) {
    const capability = (device as unknown as Record<string, unknown>)[name];
    if (capability !== undefined) {
      Object.assign(guarded, { [name]: guarded.capability(name, capability as Hooks) });
    }
  }
  return guarded;
}

/** The hooks of a capability object. */
type Hooks = Readonly<Record<string, (...args: readonly unknown[]) => unknown>>;

class GuardedDevice implements Device {
  readonly type: number;
  readonly name: string;
  readonly features: FeatureSet;
  readonly featureNames: ReadonlyMap<number, string>;
  readonly queueSizes: readonly number[];
  readonly inflight: Device["inflight"];
  readonly workers: Device["workers"];
  readonly #device: Device;
  readonly #part: ResolvedPart;
  readonly #failed: (error: Error) => void;
  #failure: GuestError | null = null;
  /** When it last wanted to be polled; Infinity once it was. */
  #wantedNs = Infinity;
  #vainRounds = 0;

  constructor(
    device: Device,
    part: ResolvedPart,
    failed: (error: Error) => void,
    inflight: Device["inflight"],
  ) {
    this.#device = device;
    this.#part = part;
    this.#failed = failed;
    this.type = device.type;
    this.name = device.name;
    this.features = device.features;
    this.featureNames = new Map(device.featureNames);
    this.queueSizes = [...device.queueSizes];
    this.inflight = inflight;
    this.workers = device.workers;
  }

  get wake(): () => void {
    return this.#device.wake;
  }

  set wake(wake: () => void) {
    this.#device.wake = wake;
  }

  poll(nowNs: number): boolean {
    if (this.#failure !== null) throw this.#failure;
    const wasDue = this.#wantedNs <= nowNs;
    this.#wantedNs = Infinity;
    try {
      const did = checkedWork(this.#device.poll(nowNs));
      this.#vainRounds = did || !wasDue ? 0 : this.#vainRounds + 1;
      if (this.#vainRounds < MAX_VAIN_ROUNDS) return did;
    } catch (cause) {
      throw this.#fail("poll", cause);
    }
    throw this.#fail(
      "deadlineNs",
      new Error("it is due for ever: poll must do something, or move its deadline"),
    );
  }

  look(): boolean {
    try {
      return this.#failure === null && this.#device.look !== undefined && checkedWork(this.#device.look());
    } catch (cause) {
      this.#fail("look", cause);
      return true;
    }
  }

  deadlineNs(): number {
    // What has failed is polled once more, so that the session learns of it.
    if (this.#failure !== null) return 0;
    try {
      return this.#wantedNs = checkedDeadline(this.#device.deadlineNs());
    } catch (cause) {
      this.#fail("deadlineNs", cause);
      return 0;
    }
  }

  readConfig(offset: number, target: Uint8Array): void {
    try {
      if (this.#failure === null) return refusePromise(this.#device.readConfig(offset, target));
    } catch (cause) {
      this.#fail("readConfig", cause);
    }
    target.fill(0);
  }

  writeConfig(offset: number, source: Uint8Array): void {
    this.#call("writeConfig", () => this.#device.writeConfig(offset, source));
  }

  acceptFeatures(features: FeatureSet): void {
    this.#call("acceptFeatures", () => this.#device.acceptFeatures(features));
  }

  activate(session: Session): void {
    this.#call("activate", () => this.#device.activate(session));
  }

  reset(): void {
    // Also a device that has failed gives memory and queues back.
    try {
      refusePromise(this.#device.reset());
    } catch (cause) {
      this.#fail("reset", cause);
    }
  }

  drain(nowNs: number): void {
    this.#call("drain", () => this.#device.drain(nowNs));
  }

  queuesChanged(): void {
    this.#call("queuesChanged", () => this.#device.queuesChanged());
  }

  /** A capability object of the device, guarded. */
  capability(name: string, object: Hooks): Hooks {
    const hooks = Object.entries(CAPABILITIES[name]).map(([hook, failed]) => [
      hook,
      (...args: readonly unknown[]) => {
        try {
          return this.#call(`${name}.${hook}`, () => {
            const result = object[hook](...args);
            // What is saved goes to other threads and programs.
            if (hook === "save") refuseUnwritable(result);
            return result;
          });
        } catch (cause) {
          if (failed === THROWS || cause !== this.#failure) throw cause;
          return failed;
        }
      },
    ]);
    return Object.fromEntries(hooks);
  }

  #call<T>(hook: string, action: () => T): T {
    if (this.#failure !== null) throw this.#failure;
    try {
      const result = action();
      refusePromise(result);
      return result;
    } catch (cause) {
      throw this.#fail(hook, cause);
    }
  }

  /** What a transport gets to see of an error: a fault of the guest, or that the device has failed. */
  #fail(hook: string, cause: unknown): GuestError {
    if (cause instanceof GuestError) return cause;
    const error = pluginError(this.#part, hook, cause);
    const isFirst = this.#failure === null;
    this.#failure ??= new GuestError("device-failed", error.message);
    if (isFirst) this.#failed(error);
    return this.#failure;
  }
}

/**
 * A transport, or the threads of a device, as the reactor gets them.
 * @param part what it was made from; null if its errors say that themselves, as those of threads do
 * @param failed told once when it has failed, and is not polled any more
 */
export function guardMember(
  member: Pollable,
  part: ResolvedPart | null,
  failed: (error: Error) => void,
): Pollable {
  let isOver = false;
  const fail = (hook: string, cause: unknown) => {
    isOver = true;
    failed(part === null && cause instanceof Error ? cause : pluginError(part!, hook, cause));
  };
  return {
    ...(member.look !== undefined && {
      look(): boolean {
        if (isOver) return false;
        try {
          return checkedWork(member.look!());
        } catch (cause) {
          fail("look", cause);
          return true;
        }
      },
    }),
    poll(nowNs: number): boolean {
      if (isOver) return false;
      try {
        return checkedWork(member.poll(nowNs));
      } catch (cause) {
        fail("poll", cause);
        return true;
      }
    },
    deadlineNs(): number {
      if (isOver) return Infinity;
      try {
        return checkedDeadline(member.deadlineNs());
      } catch (cause) {
        fail("deadlineNs", cause);
        return Infinity;
      }
    },
  };
}

// Calls into plugins while a machine is built, and where in the configuration what fails stands.

/** Where errors that are no ConfigError come from: the path of the part that was being built. */
const PARTS = new WeakMap<Error, string>();

/**
 * Calls `build`, a hook of a part. Errors that say what they mean pass; anything else is told to be the
 * plugin's, as a PluginError. So does what `check` throws of what was made.
 */
export function guarded<T>(
  { plugin, path }: ResolvedPart,
  hook: string,
  build: () => T,
  check: (made: T) => void = () => {},
): T {
  try {
    const made = build();
    check(made);
    return made;
  } catch (cause) {
    const isClear = [ConfigError, HostError, PluginError].some((kind) => cause instanceof kind);
    const error = isClear ? cause as Error : new PluginError(plugin.name, hook, cause, path);
    const own = error instanceof PluginError ? error.path : "";
    if (!PARTS.has(error)) PARTS.set(error, own === "" ? path : own);
    throw error;
  }
}

/**
 * The part that an error comes from which no hook has thrown: a callback has, or it is the reason of a
 * promise that is rejected. It is the one whose module stands in the error's stack, or else the only one of
 * `device` that does not come with this program, or else the device as a whole.
 */
export function partBehind(cause: unknown, device: ResolvedDevice): ResolvedPart {
  const parts = foreignParts(device);
  return parts.find((part) => isFrom(cause, part)) ?? (parts.length === 1 ? parts[0] : device);
}

/** The parts of a device that do not come with this program. */
export function foreignParts(device: ResolvedDevice): ResolvedPart[] {
  const inSlots = Object.values(device.parts).reverse().flatMap((part) => part ?? []);
  return [...inSlots, device.driver, device].filter((part) => moduleOf(part.plugin) !== undefined);
}

/** Does the module of a part stand in the stack of an error? */
export function isFrom(cause: unknown, { plugin }: ResolvedPart): boolean {
  const url = moduleOf(plugin);
  return url !== undefined && cause instanceof Error && String(cause.stack).includes(url);
}

/**
 * Calls `build`, which makes something of a configuration. What it throws says file, line, column and path of
 * the part that it is about, as far as the configuration was read from a text.
 */
export function located<T>({ source }: Pick<ResolvedConfig, "source">, build: () => T): T {
  try {
    return build();
  } catch (cause) {
    if (cause instanceof ConfigError) {
      throw source === undefined ? cause : new ConfigError(source.located(cause.issues), { cause });
    }
    const path = cause instanceof Error ? PARTS.get(cause) : undefined;
    if (path !== undefined) tellPlace(cause as Error, path, source);
    throw cause;
  }
}

/** Errors that say where they come from. */
const PLACED = new WeakSet<Error>();

/**
 * What a plugin has failed with says file, line, column and path of it from here on, and where in its module
 * that was. So does what the host has refused to the part at `path`.
 */
export function locateFailure(
  error: unknown,
  path: string,
  { source }: Pick<ResolvedConfig, "source">,
): void {
  if (!(error instanceof PluginError || error instanceof HostError)) return;
  const own = error instanceof PluginError ? error.path : path;
  if (own.startsWith("$")) tellPlace(error, own, source);
}

function tellPlace(error: Error, path: string, source: ResolvedConfig["source"]): void {
  if (PLACED.has(error)) return;
  PLACED.add(error);
  const named = error.message.startsWith(`${path}:`) ? error.message : `${path}: ${error.message}`;
  error.message = source === undefined ? named : `${source.placeOf(path)}: ${named}`;
  if (error instanceof PluginError) error.message += codePlaceOf(error.cause);
}

/**
 * Where the first line of a plugin's module stands in the stack of what it has thrown; empty if none does.
 */
function codePlaceOf(cause: unknown): string {
  if (!(cause instanceof Error)) return "";
  for (const [, url, place] of String(cause.stack).matchAll(/((?:file|https):[^\s()]*?)(:\d+:\d+)/g)) {
    if (isModuleOfPlugin(url)) return ` (${url}${place})`;
  }
  return "";
}

// What plugins tell in lists: each is copied once, so that what was looked at is what is used, and none is
// endless.

/** The most things in a list that a plugin returns. */
const MAX_TOLD = 1000;
/** The longest text in it, in UTF-16 code units. */
const MAX_TEXT_LENGTH = 10_000;

/**
 * The things in a list that a plugin has returned, if it has. Throws TypeError for what is no list, and for
 * one that is too long.
 */
export function toldList(list: unknown): unknown[] {
  if (list === undefined) return [];
  refusePromise(list);
  if (!Array.isArray(list)) throw new TypeError(`it returned ${kindOf(list)}, not a list`);
  const { length } = list;
  if (!(length <= MAX_TOLD)) {
    throw new TypeError(`it returned a list of ${length}; at most ${MAX_TOLD} are possible`);
  }
  return Array.from({ length }, (_, i) => list[i]);
}

/** The same for a list of objects, of which each has these texts. Throws TypeError. */
export function toldObjects<T extends object>(list: unknown, texts: readonly (keyof T & string)[]): T[] {
  return toldList(list).map((one) => {
    const copy = { ...one as T };
    for (const name of texts) toldText(copy[name], `it returned a list with ${kindOf(one)} whose ${name}`);
    return copy;
  });
}

/** The same for a list of texts. @param what begins the sentence about one that is none */
export function toldTexts(list: unknown, what = "it returned a list of which one"): string[] {
  return toldList(list).map((text) => toldText(text, what));
}

/**
 * A text. Throws TypeError for what is none, and for one that is too long.
 * @param what begins the sentence about it
 */
export function toldText(text: unknown, what: string): string {
  if (typeof text !== "string") throw new TypeError(`${what} is ${kindOf(text)}, not a text`);
  if (text.length <= MAX_TEXT_LENGTH) return text;
  throw new TypeError(`${what} has ${text.length} characters; at most ${MAX_TEXT_LENGTH} are possible`);
}
