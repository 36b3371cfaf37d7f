/**
 * The `loopback` driver transport: a guest made of software instead of a virtual machine. It drives the
 * device through real virtqueues in memory of its own, so that everything between ring and network can be
 * run, tested and measured without a hypervisor.
 *
 * A device type may bring its driver's half (`DevicePlugin.driver`). Beside a device without one stands a
 * guest that negotiates, sets all queues up, and leaves them to the program that built the machine
 * ({@linkcode RequestGuest}).
 * @module
 */
import type { Arena } from "../../rings/arena.ts";
import type { Device } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import { defineDriver, type DriverContext, type DriverPlugin } from "../../plugins/plugin.ts";
import type { DriverTransport } from "../../plugins/plugin.ts";
import type { Pollable } from "../../core/reactor.ts";
import { guestOptionsSchema, type SoftwareGuestOptions } from "../../guest/options.ts";
import { RequestGuest } from "../../guest/request_guest.ts";
import { SoftwareGuest } from "../../guest/software_guest.ts";

/** A software guest as a transport: it is worked whenever the reactor polls it. */
export class LoopbackDriver<G extends SoftwareGuest = SoftwareGuest> implements DriverTransport, Pollable {
  /** The guest. */
  readonly guest: G;
  #resolve: (() => void) | null = null;

  /**
   * Takes a guest that is not attached; `serve` attaches it.
   * @param context where the counters are published, and the guest's memory lies
   */
  constructor(
    context: Pick<DriverContext, "publish" | "report"> & { readonly arena?: Arena | null },
    guest: G,
  ) {
    this.guest = guest;
    guest.arena = context.arena ?? null;
    if (context.report !== undefined) guest.hooks.onEvent = context.report;
    context.publish(guest.counters);
  }

  /** Whom the guest tells what; may be filled at any time. */
  get hooks(): G["hooks"] {
    return this.guest.hooks;
  }

  /**
   * Attaches the guest to the device until `signal` aborts, and is fulfilled earlier when the guest has done
   * all that it was told. Rejects with HostError if it cannot be attached, and with PluginError.
   */
  // deno-lint-ignore require-await -- a refusal must reject, not throw
  async serve(device: Device, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    this.guest.attach(device);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#resolve = resolve;
    signal.addEventListener("abort", () => {
      // A stage may fail when its device is reset; thrown from a listener, that would end the process.
      try {
        this.guest.detach();
        resolve();
      } catch (cause) {
        reject(cause);
      }
    }, { once: true });
    return promise;
  }

  /** Attaches the guest to the device for a moment. Throws as `serve` rejects. */
  negotiate(device: Device): FeatureSet {
    this.guest.attach(device);
    this.guest.detach();
    return this.guest.features;
  }

  /** Works the device, then the guest. */
  poll(nowNs: number): boolean {
    if (!this.guest.attached) return false;
    const device = this.guest.session.poll(nowNs);
    const guest = this.guest.poll(nowNs);
    if (this.#resolve !== null && this.guest.finished) {
      this.#resolve();
      this.#resolve = null;
    }
    return device || guest;
  }

  /** When either wants to be polled, in ns. */
  deadlineNs(): number {
    if (!this.guest.attached) return Infinity;
    return Math.min(this.guest.session.deadlineNs(), this.guest.deadlineNs());
  }

  /** Lets the device go. */
  [Symbol.dispose](): void {
    this.guest.detach();
  }
}

/** The plugin of the transport. */
export const loopbackDriver: DriverPlugin<SoftwareGuestOptions> = defineDriver({
  name: "loopback",
  summary: "a guest made of software, for tests, demonstrations and benchmarks",
  options: guestOptionsSchema,
  runsSoftwareDriver: true,
  create: (context: DriverContext, options: SoftwareGuestOptions): LoopbackDriver => {
    const { softwareDriver } = context;
    if (softwareDriver === null) return new LoopbackDriver(context, new RequestGuest(options));
    const guest = softwareDriver.create(options);
    if (guest instanceof SoftwareGuest) return new LoopbackDriver(context, guest);
    throw new TypeError(
      "the driver's half of the device made no SoftwareGuest; extend SoftwareGuest or RequestGuest",
    );
  },
});

export default loopbackDriver;
