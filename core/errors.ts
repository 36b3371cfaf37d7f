/**
 * The three ways in which things go wrong: the guest misbehaved, this host cannot, a plugin failed.
 * @module
 */

/** What a guest did wrong, by name: the key under which the fault is counted. */
export type GuestFault =
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

  /** Says what the guest did. @param fault the rule that was broken; @param message what was found, with the values */
  constructor(fault: GuestFault, message: string) {
    super(`${fault}: ${message}`);
    this.fault = fault;
  }
}

/** This host cannot do what was asked: a missing right, module, file or limit. The message carries the remedy. */
export class HostError extends Error {
  /** `HostError`. */
  override readonly name = "HostError";
}

/** A plugin threw: which one, in which hook, and why. */
export class PluginError extends Error {
  /** `PluginError`. */
  override readonly name = "PluginError";
  /** The plugin's name. */
  readonly plugin: string;
  /** The hook in which it threw, such as `process` or `create`. */
  readonly hook: string;

  /** Says which plugin threw. @param plugin the plugin's name; @param hook where it threw; @param cause what it threw */
  constructor(plugin: string, hook: string, cause: unknown) {
    const text = cause instanceof Error ? cause.message : String(cause);
    super(`plugin "${plugin}" failed in ${hook}: ${text}`, { cause });
    this.plugin = plugin;
    this.hook = hook;
  }
}
