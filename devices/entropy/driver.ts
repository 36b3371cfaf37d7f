/**
 * The driver's half of an entropy device: a software guest that asks for random bytes and looks at what it
 * gets.
 *
 * It keeps some requests posted until as many bytes have come as it wants. Then it is finished, and so is a
 * machine that has nothing else to do.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema, SoftwareDriver } from "../../plugins/plugin.ts";
import { type SoftwareGuestOptions, softwareGuestOptions } from "../../guest/options.ts";
import { type GuestRequest, type RequestCounters, RequestGuest } from "../../guest/request_guest.ts";

/** The complete options of a guest that drives an entropy device. */
export interface EntropyGuestOptions extends SoftwareGuestOptions {
  /** How many random bytes it asks for in all; 0 for no end. */
  bytes: number;
  /** Bytes of each request. */
  requestBytes: number;
  /** Requests that wait for the device at the same time. */
  outstanding: number;
}

/** What the guest counts. */
export type EntropyGuestCounters = RequestCounters & {
  /** Requests of which the device has filled a part only: allowed. */
  shortened: number;
  /**
   * How many of the 256 values of a byte have come so far: all of them, after a few thousand random bytes.
   */
  distinctValues: number;
};

const MAX_OUTSTANDING = 64;
const MAX_REQUEST_BYTES = 16_384;

const options: OptionsSchema<EntropyGuestOptions> = softwareGuestOptions({
  bytes: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(4096).describe(
    "How many random bytes the guest asks for in all, after which it is finished; 0 for no end",
  ),
  requestBytes: z.int().min(1).max(MAX_REQUEST_BYTES).default(64).describe("Bytes of each request"),
  outstanding: z.int().min(1).max(MAX_OUTSTANDING).default(4).describe(
    "How many requests wait for the device at the same time, if the ring has room for them",
  ),
});

/** A driver of entropy devices, in memory. */
export class EntropyGuest extends RequestGuest {
  /** Its options, complete. */
  declare readonly options: EntropyGuestOptions;
  /** What it has counted, over all attachments; live. */
  declare readonly counters: EntropyGuestCounters;
  readonly #seen = new Uint8Array(256);
  /** Bytes asked for, of this attachment's requests that are not returned. */
  #asked = 0;

  /** Makes a guest that is not attached yet. @param complete complete options */
  constructor(complete: EntropyGuestOptions) {
    super(complete);
    Object.assign(this.counters, { shortened: 0, distinctValues: 0 });
  }

  /** Have all bytes come? */
  override get finished(): boolean {
    const { bytes } = this.options;
    return bytes !== 0 && this.counters.writtenBytes >= bytes;
  }

  /** Posts the first requests. */
  protected override begin(): void {
    this.#asked = 0;
    this.#post();
  }

  /** Looks at what has come, and asks for more. */
  protected override returned({ written, writableBytes }: GuestRequest): void {
    const { counters } = this;
    this.#asked -= writableBytes;
    if (written.length < writableBytes) counters.shortened++;
    // An entropy device that answers without a byte would be asked again for ever.
    if (written.length === 0) this.malformed("a request came back without a byte");
    for (const byte of written) {
      counters.distinctValues += 1 - this.#seen[byte];
      this.#seen[byte] = 1;
    }
    if (written.length > 0) this.#post();
  }

  #post(): void {
    const { bytes, requestBytes, outstanding } = this.options;
    while (this.outstanding < outstanding) {
      const left = bytes === 0 ? Infinity : bytes - this.counters.writtenBytes - this.#asked;
      const count = Math.min(requestBytes, left);
      if (count <= 0 || this.post(0, [], count) === null) break;
      this.#asked += count;
    }
    this.kick(0);
  }
}

/** The driver's half of `entropy`. */
export const entropyDriver: SoftwareDriver<EntropyGuestOptions> = {
  options,
  create: (complete) => new EntropyGuest(complete),
};
