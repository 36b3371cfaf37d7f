/**
 * The plugins of the network family: offload stages, and networks to move frames to and from.
 * @module
 */
import { kindOf, PluginError, refusePromise } from "../plugins/contract.ts";
import type { Device } from "../core/device.ts";
import type {
  DeviceContext,
  DevicePlugin,
  PartContext,
  PluginBase,
  ResolvedPart,
} from "../plugins/plugin.ts";
import type { FramePool } from "./frame_pool.ts";
import type { FrameTransport } from "./frame_transport.ts";
import { OffloadCapabilities } from "./offload_capabilities.ts";
import type { Direction, Stage, StageContext, VerdictLog } from "./stage.ts";

/** An offload: makes one stage of a pipeline. */
export interface OffloadPlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "offload";
  /** Which way the frames go that it wants; with `both`, one stage is made for each. */
  readonly direction: Direction | "both";
  /** Feature bits that the device may offer because of this stage; or a function of the options. */
  readonly offers?: readonly number[] | ((options: O) => readonly number[]);
  /** Feature bits without which the offered ones make no sense; the device must offer them itself. */
  readonly needs?: readonly number[];
  /**
   * Further bits without which it never has anything to do where the driver does not accept them: `check`
   * tells it.
   */
  idleWithout?(options: O): readonly number[];
  /**
   * Options which, where the configuration leaves them out, are those of the device with the same name, if it
   * has them.
   */
  readonly inherits?: readonly string[];
  /** Builds the stage. May allocate and throw; the stage it returns may do neither. */
  create(context: StageContext, options: O): Stage;
}

/** The options of an offload, completed by those that it inherits from its device. */
export function inheritOptions({ inherits = [] }: OffloadPlugin, options: unknown, device: object): unknown {
  if (inherits.length === 0) return options;
  const complete = { ...options as Record<string, unknown> };
  for (const key of inherits) {
    const value = (device as Record<string, unknown>)[key];
    if (complete[key] === undefined && value !== undefined) complete[key] = value;
  }
  return complete;
}

/** An offload as the configuration resolved it: the device builds its stages. */
export type ResolvedOffload = Pick<ResolvedPart<OffloadPlugin>, "plugin" | "options"> & {
  /** Where it stands in the configuration, such as `$.devices[0].offloads[1]`, for messages. */
  readonly path?: string;
};

/**
 * The feature bits that these offloads let the device offer. Throws PluginError if a plugin's `offers`
 * throws.
 */
export function stageOffers(offloads: readonly ResolvedOffload[]): number[] {
  return offloads.flatMap((offload) => {
    const { offers } = offload.plugin;
    return typeof offers === "function"
      ? bitsOf(offload, "offers", () => offers(offload.options))
      : [...offers ?? []];
  });
}

/** The feature bits that a hook of an offload names. Throws PluginError if it does not. */
export function bitsOf(
  { plugin, path }: ResolvedOffload,
  hook: string,
  ask: () => unknown,
): readonly number[] {
  try {
    const bits = ask();
    refusePromise(bits);
    const isBit = (bit: unknown) => Number.isInteger(bit) && (bit as number) >= 0 && (bit as number) <= 127;
    if (Array.isArray(bits) && bits.length <= 128 && bits.every(isBit)) return bits;
    throw new TypeError(`it returned ${kindOf(bits)}; a list of feature bits, 0 to 127, is needed`);
  } catch (cause) {
    throw new PluginError(plugin.name, hook, cause, path);
  }
}

/**
 * What networks have to know about the device that they serve: what `DevicePlugin.facts` of a network device
 * returns.
 */
export interface NetworkFacts {
  /** The MAC address of its guest, six bytes. */
  readonly guestMac: Uint8Array;
  /** How many queue pairs it has. */
  readonly queuePairs: number;
  /** The MTU that its guest is told, in bytes; undefined if it is told none. */
  readonly mtu?: number | undefined;
}

/** What a network is built from. */
export interface NetworkContext extends PartContext, NetworkFacts {
  /** Frames come from here. */
  readonly pool: FramePool;
  /** Builds the network that this one wraps, from its own part of the configuration. */
  inner(config: unknown, key: string): FrameTransport;
}

/** What a network of one queue is made from in the thread of a queue worker. */
export type NetworkWorkerContext = Pick<NetworkContext, "path" | "pool" | "watch" | "publish">;

/** A way to the network. */
export interface NetworkPlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "network";
  /** Opens the transport. */
  create(context: NetworkContext, options: O): FrameTransport;
  /**
   * What `check` looks at instead, such as a {@linkcode NetworkPreview}. Left out: one of which nothing is
   * known.
   */
  preview?(context: NetworkContext, options: O): FrameTransport;
  /**
   * In the thread of a queue worker: makes a transport with one queue of what `FrameTransport.giveToWorker`
   * has given. Left out: the queues of this network cannot be given to threads.
   */
  createInWorker?(context: NetworkWorkerContext, given: unknown): FrameTransport;
}

/** A network on which nothing ever happens: what `check` has a device built with. */
export class NetworkPreview implements FrameTransport {
  /** As of a TAP. */
  readonly maxFrameBytes = 65_535;
  /** What it would certainly take unfinished. */
  readonly capabilities: OffloadCapabilities;
  /** How many queue pairs it would have. */
  readonly queuePairs: number;
  /**
   * What it takes as well on a condition such as `the kernel is Linux 6.2 or newer`; null if the rest is not
   * known.
   */
  readonly perhaps:
    | { readonly capabilities: OffloadCapabilities; readonly condition: string }
    | null
    | undefined;

  /** Stands for a network of which this is known. */
  constructor(
    queuePairs: number,
    capabilities: OffloadCapabilities = OffloadCapabilities.none,
    perhaps?: NetworkPreview["perhaps"],
  ) {
    this.queuePairs = queuePairs;
    this.capabilities = capabilities;
    this.perhaps = perhaps;
  }

  /** Nothing arrives. */
  receive(): number {
    return 0;
  }

  /** Nothing is taken. */
  send(): number {
    return 0;
  }

  /** There is nothing to close. */
  [Symbol.dispose](): void {}
}

/** What a network device is built from. */
export interface NetworkDeviceContext extends DeviceContext {
  /** Frames come from here. */
  readonly pool: FramePool;
  /** Its slots: the network, and the offloads in order of execution. */
  readonly parts: { readonly network: FrameTransport; readonly offloads: readonly ResolvedOffload[] };
  /** Where stages explain what happens to each frame; null if nothing listens. */
  readonly verdicts: VerdictLog | null;
}

/** What only network devices can do: transports to a guest ask for it by {@linkcode networkCapability}. */
export interface NetworkCapability {
  /**
   * The guest with this MAC address (six bytes) runs here from now on: tells the world, in place of the
   * guest.
   */
  guestMoved(mac: Uint8Array, nowNs: number): void;
  /** Can the device serve a guest that is told this MTU, in bytes? */
  acceptsMtu(mtuBytes: number): boolean;
  /**
   * Must what a driver puts into queue `index` be taken and thrown away while the transport has the queue
   * disabled? True of queues from the guest to the world.
   */
  discardsWhenDisabled(index: number): boolean;
}

/** A network device. */
export interface NetworkDevice extends Device {
  /** What only network devices can do. */
  readonly net: NetworkCapability;
}

/** What a device can do as a network device; null if it is none. */
export function networkCapability(device: Device): NetworkCapability | null {
  return (device as Partial<NetworkDevice>).net ?? null;
}

/**
 * A type of network device: one with a slot `network` of kind "network", and one `offloads` of kind
 * "offload".
 */
export interface NetworkDevicePlugin<O = unknown> extends DevicePlugin<O> {
  /** What networks have to know about a device with these options. */
  facts(options: O): NetworkFacts;
  /** Builds the device. */
  create(context: NetworkDeviceContext, options: O): ReturnType<DevicePlugin["create"]>;
}

/**
 * Declares an offload stage. Adds `kind` and `api`, and infers the type of the options from their schema.
 *
 * @example
 * ```ts
 * import { defineOffload } from "./plugin.ts";
 * import { perFrame } from "../pipeline/stage.ts";
 * import { z } from "zod";
 *
 * export default defineOffload({
 *   name: "drop-every",
 *   direction: "toGuest",
 *   options: z.strictObject({ nth: z.int().min(2).default(10) }),
 *   create(context, options) {
 *     const counters = context.publish({ dropped: 0 });
 *     let seen = 0;
 *     return perFrame((frame, output) => {
 *       if (++seen % options.nth) output.push(frame);
 *       else { counters.dropped++; frame.release(); }
 *     });
 *   },
 * });
 * ```
 */
export function defineOffload<O>(plugin: Omit<OffloadPlugin<O>, "kind" | "api">): OffloadPlugin<O> {
  return { kind: "offload", api: 2, ...plugin };
}

/** The slots of a network device. */
const NETWORK_SLOTS: NonNullable<DevicePlugin["slots"]> = {
  network: {
    kind: "network",
    required: true,
    summary: "The way to the network, for devices that have one",
  },
  offloads: {
    kind: "offload",
    many: true,
    summary: "The steps that frames go through, in order of execution",
  },
};

/** Declares a network device: adds `kind`, `api` and the slots `network` and `offloads`. */
export function defineNetworkDevice<O>(
  plugin: Omit<NetworkDevicePlugin<O>, "kind" | "api" | "slots">,
): NetworkDevicePlugin<O> {
  return { kind: "device", api: 2, slots: NETWORK_SLOTS, ...plugin };
}

/** Declares a frame transport; see {@linkcode defineOffload}. */
export function defineNetwork<O>(plugin: Omit<NetworkPlugin<O>, "kind" | "api">): NetworkPlugin<O> {
  return { kind: "network", api: 2, ...plugin };
}
