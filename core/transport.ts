/**
 * A driver transport: what brings a guest's memory and queues.
 * @module
 */
import type { Device } from "./device.ts";
import type { FeatureSet } from "./features.ts";
import type { QueueWorkers } from "./queue_workers.ts";
export { isPollable, type Pollable } from "./reactor.ts";

/**
 * Brings a guest: its memory, its queues, its notifications. The control plane, which may be asynchronous.
 * A transport may also be {@linkcode Pollable}: the software guest works its rings when polled.
 */
export interface DriverTransport extends Disposable {
  /**
   * Serves this device until `signal` aborts. Ends earlier if its guest has gone for good: if nothing else is to be done,
   * the machine stops then. Rejects with HostError if this host cannot.
   */
  serve(device: Device, signal: AbortSignal): Promise<void>;
  /**
   * Attaches its guest to this device, tells which features they agreed on, and lets go again: what `check` tries instead
   * of running. HostError, with the remedy, if the two cannot agree. Left out where the guest is a program that is not
   * there yet.
   */
  negotiate?(device: Device): FeatureSet;
  /** Attaches the rings of the device's sets (`Device.workers`) to these. Called before `serve`, once. */
  useWorkers?(workers: QueueWorkers): void;
}
