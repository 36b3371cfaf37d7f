/**
 * What a guest does wrong.
 * @module
 */

/**
 * What a guest did wrong, by name: the key under which the fault is counted. `device-failed` is not the
 * guest's doing: a plugin that the device is made of has failed, and the device is for its driver what it is
 * after a fault. Nor is `quiesce-timeout`: the host has not finished requests in time.
 */
export type GuestFault =
  | "device-failed"
  | "quiesce-timeout"
  | "address-out-of-range"
  | "memory-map-invalid"
  | "ring-misaligned"
  | "ring-state-invalid"
  | "queue-index-invalid"
  | "queue-size-invalid"
  | "queue-setup-too-late"
  | "available-index-too-far"
  | "descriptor-index-out-of-range"
  | "descriptor-loop"
  | "descriptor-zero-length"
  | "descriptor-readable-after-writable"
  | "descriptor-flags-invalid"
  | "chain-empty"
  | "chain-too-long"
  | "indirect-nested"
  | "indirect-table-invalid"
  | "indirect-not-negotiated"
  | "buffer-id-in-use"
  | "buffers-wrong-direction"
  | "buffer-too-small"
  | "features-unknown"
  | "features-dependency-missing"
  | "features-after-ok"
  | "status-transition-invalid"
  | "queue-not-configured"
  | "device-state-invalid"
  | "config-write-invalid";

/**
 * The guest broke a rule of the specification. The device goes to NEEDS_RESET (virtio 1.2, section 2.1.2),
 * the fault is counted by its name, and the program lives.
 */
export class GuestError extends Error {
  /** `GuestError`. */
  override readonly name = "GuestError";
  /** Which rule was broken; the counter of this name is raised. */
  readonly fault: GuestFault;

  /** Says what the guest did. @param fault the broken rule; @param message what was found, with values */
  constructor(fault: GuestFault, message: string) {
    super(`${fault}: ${message}`);
    this.fault = fault;
  }
}
