/**
 * The `loopback` driver transport: a guest made of software instead of a virtual machine. It drives the device through
 * real virtqueues in memory of its own, so that everything between ring and network can be run, tested and measured
 * without a hypervisor.
 * @module
 */
import type { Device } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import { defineDriver, type DriverPlugin, type PartContext } from "../../core/plugin.ts";
import type { DriverTransport, Pollable } from "../../core/transport.ts";
import { type GuestOptions, guestOptionsSchema } from "./options.ts";
import { type GuestHooks, SoftwareGuest } from "./software_guest.ts";
export { type ControlCommand, VIRTIO_NET_ERR, VIRTIO_NET_OK } from "./control.ts";
export { BufferList, type DriverRing } from "./driver_ring.ts";
export type { GuestCounters, GuestHooks } from "./software_guest.ts";
export { NetControl, type ReceiveMode } from "./control.ts";
export {
  type GuestBehaviour,
  type GuestOptions,
  type GuestOptionsInput,
  guestOptionsSchema,
  type SendOptions,
} from "./options.ts";
export { type PacketHash, ReceivedPacket } from "./receive_queue.ts";
export { SoftwareGuest } from "./software_guest.ts";

/** A software guest as a transport: it is worked whenever the reactor polls it. */
export class LoopbackDriver implements DriverTransport, Pollable {
  /** The guest. */
  readonly guest: SoftwareGuest;
  /** Whom the guest tells what; may be filled at any time. */
  readonly hooks: GuestHooks = {};

  /**
   * Makes the guest; it is attached by `serve`.
   * @param context where the counters are published
   * @param options complete options
   */
  constructor(context: Pick<PartContext, "publish" | "report">, options: GuestOptions) {
    if (context.report !== undefined) this.hooks.onEvent = context.report;
    this.guest = new SoftwareGuest(options, this.hooks);
    context.publish(this.guest.counters);
  }

  /** Attaches the guest to the device until `signal` aborts. Rejects with HostError if that cannot be, and with PluginError. */
  // deno-lint-ignore require-await -- a refusal must reject, not throw
  async serve(device: Device, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    this.guest.attach(device);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
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
export const loopbackDriver: DriverPlugin<GuestOptions> = defineDriver({
  name: "loopback",
  summary: "a guest made of software, for tests, demonstrations and benchmarks",
  options: guestOptionsSchema,
  create: (context: PartContext, options: GuestOptions): LoopbackDriver =>
    new LoopbackDriver(context, options),
});

export default loopbackDriver;
