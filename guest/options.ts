/**
 * What every software guest is told, whatever device it drives: the options of the `loopback` driver
 * transport. The driver of a device type adds options of its own ({@linkcode softwareGuestOptions}).
 * @module
 */
import { z } from "zod";
import { HostError } from "../core/errors.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../core/features.ts";
import type { OptionsSchema } from "../plugins/plugin.ts";

/** The complete options that every software guest has. */
export interface SoftwareGuestOptions {
  /** Layout of the virtqueues. */
  ring: "split" | "packed";
  /** Entries of each queue, at most: fewer if the device offers fewer. */
  queueSize: number;
  /** Accept INDIRECT_DESC: `true` for chains of two descriptors or more, `always` for single ones too. */
  indirect: boolean | "always";
  /** Accept EVENT_IDX if it is offered. */
  eventIndex: boolean;
  /** Features to accept, by name or bit; `all` for all that are offered and understood. */
  accept: "all" | (string | number)[];
  /** Behave like a driver from before virtio 1.0: without VERSION_1 and FEATURES_OK. */
  legacy: boolean;
  /** In how many regions the guest's memory lies. */
  memoryRegions: number;
  /** Look at all queues at every turn and refuse interrupts, instead of waiting for one. */
  polling: boolean;
}

/** The options of a software guest as people write them: everything has a default. */
export type SoftwareGuestOptionsInput = {
  [K in keyof SoftwareGuestOptions]?: SoftwareGuestOptions[K] | undefined;
};

/** How a driver calls the features of its device. */
export interface FeatureNames {
  /**
   * The bit of a name of the specification without prefix, such as `GUEST_TSO4`; undefined for an unknown
   * name.
   */
  bitOf(name: string): number | undefined;
  /** The name of a bit. */
  nameOf(bit: number): string;
}

const RING_FEATURES = new Map([
  ["INDIRECT_DESC", VIRTIO_F_INDIRECT_DESC],
  ["EVENT_IDX", VIRTIO_F_EVENT_IDX],
  ["VERSION_1", VIRTIO_F_VERSION_1],
  ["RING_PACKED", VIRTIO_F_RING_PACKED],
]);

/** The names of a driver that knows no feature of its device by name: those of the ring. */
export const RING_FEATURE_NAMES: FeatureNames = {
  bitOf: (name) => RING_FEATURES.get(name),
  nameOf: (bit) => `bit ${bit}`,
};

function fields({ bitOf }: FeatureNames) {
  const entry = z.union([
    z.int().min(0).max(127),
    z.string().refine((name) => bitOf(name) !== undefined, {
      error:
        "no such feature; write a name of the specification without its prefix, such as GUEST_TSO4, or a bit number",
    }),
  ]);
  return {
    ring: z.enum(["split", "packed"]).default("split").describe("Layout of the virtqueues"),
    queueSize: z.int().min(1).max(32768).default(256).describe(
      "Entries of each queue, at most; fewer if the device offers fewer. A power of two for split rings",
    ),
    indirect: z.union([z.boolean(), z.literal("always")]).default(true).describe(
      'Accept INDIRECT_DESC if it is offered: true puts chains of two descriptors or more into a table, "always" ' +
        "single ones too",
    ),
    eventIndex: z.boolean().default(true).describe("Accept EVENT_IDX if it is offered"),
    accept: z.union([z.literal("all"), z.array(entry)]).default("all").describe(
      'Which other features to accept: names of the specification without prefix, such as "GUEST_TSO4", or bit ' +
        'numbers; "all" for everything that is offered and understood',
    ),
    legacy: z.boolean().default(false).describe(
      "Behave like a driver from before virtio 1.0: no VERSION_1, no FEATURES_OK",
    ),
    memoryRegions: z.int().min(1).max(8).default(1).describe(
      "In how many regions the guest's memory lies; pairs of them touch, and there are holes between pairs",
    ),
    polling: z.boolean().default(false)
      .describe("Look at all queues at every turn and refuse interrupts, instead of waiting for one"),
  };
}

/**
 * The schema of a driver's options: those that every software guest has, and the driver's own.
 * @param own zod's schemas of the driver's own options, by key, as for `z.strictObject`; `O` has what they
 * make
 * @param names how the driver calls the features of its device, for `accept`; by default only the ring's have
 * names
 */
export function softwareGuestOptions<O extends SoftwareGuestOptions>(
  own: Readonly<Record<string, OptionsSchema<unknown>>>,
  names: FeatureNames = RING_FEATURE_NAMES,
): OptionsSchema<O> {
  const schema = z.strictObject({ ...fields(names), ...own as z.ZodRawShape }).check((context) => {
    const { ring, queueSize, legacy } = context.value as unknown as SoftwareGuestOptions;
    if (ring === "split" && (queueSize & (queueSize - 1)) !== 0) {
      context.issues.push({
        code: "custom",
        input: queueSize,
        path: ["queueSize"],
        message: 'must be a power of two for split rings; write one, or "ring": "packed"',
      });
    }
    if (ring === "packed" && legacy) {
      context.issues.push({
        code: "custom",
        input: legacy,
        path: ["legacy"],
        message: 'packed rings need VERSION_1; write "ring": "split", or leave "legacy" out',
      });
    }
  });
  return schema as unknown as OptionsSchema<O>;
}

/** The schema of the options that every software guest has. */
export const guestOptionsSchema: OptionsSchema<SoftwareGuestOptions> = softwareGuestOptions({});

/**
 * The complete options that `input` makes.
 * @param schema the driver's schema; it must answer at once
 * @throws {RangeError} that names every field that is wrong
 */
export function completeGuestOptions<O>(schema: OptionsSchema<O>, input: unknown): O {
  const result = schema["~standard"].validate(input);
  if (result instanceof Promise) {
    throw new TypeError("Cannot make a software guest: its options are validated asynchronously");
  }
  if (result.issues === undefined) return result.value;
  const problems = result.issues.map(({ message, path = [] }) => {
    const keys = path.map((key) => typeof key === "object" ? key.key : key);
    return `${keys.map(String).join(".") || "options"}: ${message}`;
  });
  throw new RangeError(`Cannot make a software guest: ${problems.join("; ")}`);
}

/** What a driver knows of the features of its device. */
export interface FeatureWishes extends FeatureNames {
  /** The features that it understands; those of the ring need not be among them. */
  readonly understood: FeatureSet;
  /**
   * Features that an option of the driver decides, whatever `accept` says, and whether they are accepted if
   * offered.
   */
  readonly byOption?: readonly (readonly [bit: number, isAccepted: boolean])[];
}

/**
 * Everything that a device type may define (virtio 1.2, section 6); not the features of rings and transports.
 */
export const DEVICE_FEATURES: FeatureSet = FeatureSet.from([
  ...Array.from({ length: 24 }, (_, bit) => bit),
  ...Array.from({ length: 78 }, (_, i) => 50 + i),
]);

/**
 * The features that a guest with these options accepts of `offered`. HostError, with the remedy, if the
 * device does not offer what the options ask for by name.
 */
export function chooseFeatures(
  offered: FeatureSet,
  options: SoftwareGuestOptions,
  wishes: FeatureWishes,
): FeatureSet {
  const { ring, indirect, eventIndex, legacy, accept } = options;
  if (!legacy && !offered.has(VIRTIO_F_VERSION_1)) {
    throw new HostError('Cannot drive a device that does not offer VERSION_1: write "legacy": true');
  }
  if (ring === "packed" && !offered.has(VIRTIO_F_RING_PACKED)) {
    throw new HostError(
      'Cannot use packed rings, the device does not offer RING_PACKED: write "ring": "split"',
    );
  }
  const byOption: readonly (readonly [number, boolean])[] = [
    ...wishes.byOption ?? [],
    [VIRTIO_F_INDIRECT_DESC, indirect !== false],
    [VIRTIO_F_EVENT_IDX, eventIndex],
    [VIRTIO_F_VERSION_1, !legacy],
    [VIRTIO_F_RING_PACKED, ring === "packed"],
  ];
  const decided = FeatureSet.from(byOption.map(([bit]) => bit));
  const wanted = FeatureSet.from(byOption.filter(([, isAccepted]) => isAccepted).map(([bit]) => bit));
  const chosen = accept === "all"
    ? wishes.understood.intersect(offered)
    : named(accept, offered, decided, wishes);
  return chosen.minus(decided).union(wanted.intersect(offered));
}

function named(
  accept: readonly (string | number)[],
  offered: FeatureSet,
  decided: FeatureSet,
  { bitOf, nameOf }: FeatureNames,
): FeatureSet {
  const wanted = FeatureSet.from(accept.map((entry) => typeof entry === "number" ? entry : bitOf(entry)!));
  const missing = wanted.minus(offered).minus(decided);
  if (!missing.isEmpty) {
    const names = Array.from(missing, nameOf).join(", ");
    throw new HostError(`Cannot accept ${names}, which the device does not offer: take it out of "accept"`);
  }
  return wanted;
}
