/**
 * What happens between a driver and its device, for programs that want to know: to print it, to log it, to react to it.
 * @module
 */
import type { FeatureSet } from "./features.ts";

/**
 * One thing that has happened to a device. A guest decides how often, so that a listener that keeps or prints events must
 * bound what it does.
 */
export type DeviceEvent =
  /** A front-end has connected. */
  | { readonly event: "connected" }
  /** Memory that the front-end has shared can end this program later; `message` says which, and how. */
  | { readonly event: "memory-at-risk"; readonly message: string }
  /** Driver and device agree on these features. */
  | { readonly event: "features"; readonly features: FeatureSet }
  /** The driver is ready: the device has memory and queues. */
  | { readonly event: "ready" }
  /** The device works the queue of this index from now on, or no longer. */
  | { readonly event: "queue-started" | "queue-stopped"; readonly queue: number }
  /** The guest has broken the rule of this name ({@linkcode GuestFault}); `message` has the values. */
  | { readonly event: "fault"; readonly fault: string; readonly message: string }
  /** A plugin has failed, and the device with it: it serves no driver any more, while other devices may go on. */
  | { readonly event: "failed"; readonly message: string }
  /** A message of the front-end was refused by the rule of this name; `message` has the values. */
  | { readonly event: "refused"; readonly fault: string; readonly message: string }
  /** The driver, or a fault, has taken memory and queues back. */
  | { readonly event: "reset" }
  /** The front-end has gone. */
  | { readonly event: "disconnected"; readonly reason: string }
  /** A file cannot be written: records are lost, and counted, until `recording-resumed`. */
  | { readonly event: "recording-failed"; readonly path: string; readonly message: string }
  /** A file takes records again; `lost` of them are missing. */
  | { readonly event: "recording-resumed"; readonly path: string; readonly lost: number };

/** Listens to what happens. Called in the midst of the work: it returns at once, changes nothing, and must not throw. */
export type DeviceEventListener = (event: DeviceEvent) => void;
