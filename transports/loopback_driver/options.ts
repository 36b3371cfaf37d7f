/**
 * What a software guest is told: the options of the `loopback` driver transport, as people write them and complete.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema } from "../../core/plugin.ts";
import { MAC_PATTERN } from "../../wire/ethernet.ts";
import { featureBit } from "../../wire/net_features.ts";

/** Frames that the guest makes up and sends. */
export interface SendOptions {
  /** How many; 0 for no end. */
  count: number;
  /** Bytes of each, Ethernet header included, 60 to 65535. */
  frameBytes: number;
  /** Time between two frames in microseconds; 0 for as fast as the ring takes them. */
  intervalUs: number;
  /** Destination address, `aa:bb:cc:dd:ee:ff`. */
  destination: string;
}

/** What the guest does of itself. */
export type GuestBehaviour = "sink" | "echo" | { send: SendOptions };

/** The complete options of a software guest. */
export interface GuestOptions {
  /** Layout of the virtqueues. */
  ring: "split" | "packed";
  /** Entries of each queue, at most: fewer if the device offers fewer. */
  queueSize: number;
  /** How many queue pairs to use. */
  queuePairs: number;
  /** Bytes of each receive buffer; chosen from the negotiated features if left out. */
  receiveBufferBytes?: number | undefined;
  /** `all`: as many as the ring holds, refilled at once. A number: so many on each queue once, then no more. */
  receiveBuffers: "all" | number;
  /** Bytes of each transmit buffer; a longer frame takes several. */
  transmitBufferBytes: number;
  /** Into how many descriptors each buffer is cut: header and data together, or the header and so many less one. */
  descriptorsPerBuffer: number;
  /** Accept MRG_RXBUF if it is offered. */
  mergeable: boolean;
  /** Accept INDIRECT_DESC: `true` for chains of two descriptors or more, `always` for single ones too. */
  indirect: boolean | "always";
  /** Accept EVENT_IDX if it is offered. */
  eventIndex: boolean;
  /** Features to accept, by name or bit; `all` for all that are offered and understood. */
  accept: "all" | (string | number)[];
  /** Behave like a driver from before virtio 1.0: without VERSION_1 and FEATURES_OK. */
  legacy: boolean;
  /** What the guest does of itself. */
  behaviour: GuestBehaviour;
  /** In how many regions the guest's memory lies. */
  memoryRegions: number;
  /** Look at all queues at every turn and refuse interrupts, instead of waiting for one. */
  polling: boolean;
  /** Hand every received packet over in the same object, for benchmarks: it is only valid during the call. */
  reuse: boolean;
}

/** The options of a software guest as people write them: everything has a default. */
export type GuestOptionsInput =
  & { [K in Exclude<keyof GuestOptions, "behaviour">]?: GuestOptions[K] | undefined }
  & {
    behaviour?:
      | "sink"
      | "echo"
      | { send: { [K in keyof SendOptions]?: SendOptions[K] | undefined } }
      | undefined;
  };

const sendSchema = z.strictObject({
  count: z.int().min(0).default(1).describe("How many frames to send; 0 for no end"),
  frameBytes: z.int().min(60).max(65535).default(60).describe(
    "Bytes of each frame, Ethernet header included",
  ),
  intervalUs: z.number().min(0).max(1e9).default(1000)
    .describe("Time between two frames in microseconds; 0 for as fast as the ring takes them"),
  destination: z.string().regex(MAC_PATTERN, "write six bytes such as 52:54:00:00:00:01")
    .default("ff:ff:ff:ff:ff:ff").describe("Destination MAC address of the frames"),
});

const acceptEntry = z.union([
  z.int().min(0).max(127),
  z.string().refine((name) => featureBit(name) !== undefined, {
    error:
      "no such feature; write a name of the specification without its prefix, such as GUEST_TSO4, or a bit number",
  }),
]);

const schema = z.strictObject({
  ring: z.enum(["split", "packed"]).default("split").describe("Layout of the virtqueues"),
  queueSize: z.int().min(1).max(32768).default(256)
    .describe(
      "Entries of each queue, at most; fewer if the device offers fewer. A power of two for split rings",
    ),
  queuePairs: z.int().min(1).max(256).default(1)
    .describe("How many queue pairs to use; more than one needs a device that offers MQ"),
  receiveBufferBytes: z.int().min(1).max(2 ** 20).optional().describe(
    "Bytes of each receive buffer, header included. Default: 2048 if buffers are mergeable, else enough for the " +
      "largest packet that the negotiated features allow",
  ),
  receiveBuffers: z.union([z.literal("all"), z.int().min(0).max(32768)]).default("all").describe(
    '"all": as many receive buffers as the ring holds, refilled at once. A number: so many on each queue once, ' +
      "and then no more",
  ),
  transmitBufferBytes: z.int().min(64).max(2 ** 20).default(2048)
    .describe("Bytes of each transmit buffer, header included; a longer frame takes several"),
  descriptorsPerBuffer: z.int().min(1).max(64).default(1).describe(
    "Into how many descriptors each buffer is cut: 1 for header and data together, more for the header alone and " +
      "the data in one piece less",
  ),
  mergeable: z.boolean().default(true).describe("Accept MRG_RXBUF if it is offered"),
  indirect: z.union([z.boolean(), z.literal("always")]).default(true).describe(
    'Accept INDIRECT_DESC if it is offered: true puts chains of two descriptors or more into a table, "always" ' +
      "single ones too",
  ),
  eventIndex: z.boolean().default(true).describe("Accept EVENT_IDX if it is offered"),
  accept: z.union([z.literal("all"), z.array(acceptEntry)]).default("all").describe(
    'Which other features to accept: names of the specification without prefix, such as "GUEST_TSO4", or bit ' +
      'numbers; "all" for everything that is offered and understood',
  ),
  legacy: z.boolean().default(false)
    .describe(
      "Behave like a driver from before virtio 1.0: no VERSION_1, no FEATURES_OK, a header of ten bytes",
    ),
  behaviour: z.union([z.literal("sink"), z.literal("echo"), z.strictObject({ send: sendSchema })]).default(
    "sink",
  )
    .describe(
      '"sink" swallows what it receives, "echo" returns it to its sender, {"send": …} makes frames up and sends them',
    ),
  memoryRegions: z.int().min(1).max(8).default(1)
    .describe(
      "In how many regions the guest's memory lies; pairs of them touch, and there are holes between pairs",
    ),
  polling: z.boolean().default(false)
    .describe("Look at all queues at every turn and refuse interrupts, instead of waiting for one"),
  reuse: z.boolean().default(false).describe(
    "Hand every received packet over in the same object, which is only valid during the call: for benchmarks",
  ),
}).check((context) => {
  const { ring, queueSize, legacy } = context.value;
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

/** Validates and completes the options of a software guest. */
export const guestOptionsSchema: OptionsSchema<GuestOptions> = schema;

/** The complete options that `input` makes. Throws RangeError that names every field that is wrong. */
export function guestOptions(input: GuestOptionsInput): GuestOptions {
  const result = schema.safeParse(input);
  if (!result.success) {
    const problems = result.error.issues.map((issue) =>
      `${issue.path.join(".") || "options"}: ${issue.message}`
    );
    throw new RangeError(`Cannot make a software guest: ${problems.join("; ")}`);
  }
  return result.data;
}
