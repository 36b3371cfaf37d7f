/**
 * The options of the `tap` network.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema } from "../../plugins/plugin.ts";
import { parseMac } from "../../wire/ethernet.ts";

/** The options of a TAP, complete. */
export interface TapOptions {
  /** The interface, made if there is none of that name. */
  interface?: string | undefined;
  /** A queue that another program has opened and passed on, instead of `interface`. */
  fd?: number | undefined;
  /** Several such queues of one interface. */
  fds?: number[] | undefined;
  /** Does the interface outlive this program? */
  persistent: boolean;
  /** Has it a queue for each queue pair of the device? By default if the device has more than one. */
  multiQueue?: boolean | undefined;
  /** MTU in bytes: set with `interface`, told with `fd`. */
  mtu?: number | undefined;
  /** MAC address of the interface, that is, of the host's side; six bytes. */
  mac?: Uint8Array | undefined;
  /** Is the interface to be set up? */
  up: boolean;
  /** Do frames go with a virtio-net header? */
  vnetHeader: boolean;
  /** Most bytes under way before writing has to wait. */
  sendBufferBytes?: number | undefined;
  /**
   * `auto`: large and unchecksummed frames, as far as the guest takes them. `off`: only frames as on a wire.
   */
  offloads: "auto" | "off";
}

const INTERFACE_NAME = /^(?!\.{1,2}$)[^\s/:\0]+$/;
const descriptor = z.int().min(3).max(0x7fff_ffff);

const macAddress = z.string().refine(isStationAddress, {
  error: 'Write six bytes such as "52:54:00:00:00:01", the first one even',
}).transform((text): Uint8Array => parseMac(text));

/** What is written in the configuration, turned into {@linkcode TapOptions}. */
export const tapOptions: OptionsSchema<TapOptions> = z.strictObject({
  interface: z.string().regex(INTERFACE_NAME, "must have no space, slash or colon in it")
    .refine((name) => new TextEncoder().encode(name).length <= 15, { error: "must have 1 to 15 bytes" })
    .optional().describe(
      'Name of the interface, such as "tap0"; made if there is none, with "%d" for a free number.',
    ),
  fd: descriptor.optional().describe("A TAP queue passed by the program that starts this one, by number."),
  fds: z.array(descriptor).min(1).max(256).optional().describe(
    "Several TAP queues of one interface, passed likewise.",
  ),
  persistent: z.boolean().default(false).describe("Let the interface outlive this program."),
  multiQueue: z.boolean().optional().describe(
    "One TAP queue for each queue pair of the device. Default: if the device has more than one.",
  ),
  mtu: z.int().min(68).max(65_521).optional().describe(
    "MTU of the interface in bytes; of a passed one, what it is.",
  ),
  mac: macAddress.optional().describe("MAC address of the host's side."),
  up: z.boolean().default(true).describe("Set the interface up. Not done for a passed one."),
  vnetHeader: z.boolean().default(true).describe(
    "Exchange a virtio-net header with each frame. Without it there are no offloads.",
  ),
  sendBufferBytes: z.int().min(4096).max(0x7fff_ffff).optional().describe(
    "Most bytes under way to the host before the guest has to wait. Default: that of the kernel, no limit.",
  ),
  offloads: z.enum(["auto", "off"]).default("auto").describe(
    '"auto": large and unchecksummed frames, as far as the guest takes them. "off": only frames as on a wire.',
  ),
}).superRefine((value, context) => {
  const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
  const ways = [value.interface, value.fd, value.fds].filter((way) => way !== undefined).length;
  if (ways === 0) {
    issue(
      "interface",
      'is missing; write the name of the TAP, such as "tap0", or "fd" of one that is passed',
    );
  }
  if (ways > 1) issue("interface", "fd and fds exclude each other; leave one");
  if (value.fds !== undefined && new Set(value.fds).size < value.fds.length) {
    issue("fds", "must not name a descriptor twice");
  }
  if (value.interface !== undefined) return;
  for (const key of ["multiQueue", "mac"] as const) {
    if (value[key] !== undefined) issue(key, "needs interface; a passed TAP is as it was made");
  }
  if (value.persistent) issue("persistent", "needs interface; a passed TAP is as it was made");
});

function isStationAddress(text: string): boolean {
  try {
    return (parseMac(text)[0] & 1) === 0;
  } catch {
    return false;
  }
}
