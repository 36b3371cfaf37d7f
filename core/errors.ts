/**
 * The three ways in which things go wrong: the guest misbehaved, this host cannot, a plugin failed.
 * @module
 */

/**
 * What a guest did wrong, by name: the key under which the fault is counted. `device-failed` is not the guest's doing: a
 * plugin that the device is made of has failed, and the device is for its driver what it is after a fault. Nor is
 * `quiesce-timeout`: the host has not finished requests in time.
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

/** A plugin threw, or broke its contract: which one, where it stands in the configuration, in which hook, and why. */
export class PluginError extends Error {
  /** `PluginError`. */
  override readonly name = "PluginError";
  /** The plugin's name. */
  readonly plugin: string;
  /** The hook in which it failed, such as `process` or `create`. */
  readonly hook: string;
  /** Where it stands in the configuration, such as `$.devices[0].offloads[1]`; empty if that is not known. */
  readonly path: string;

  /**
   * Says which plugin failed.
   * @param plugin the plugin's name; @param hook where it failed; @param cause what it threw, or what is wrong
   * @param path where it stands in the configuration, if that is known
   */
  constructor(plugin: string, hook: string, cause: unknown, path = "") {
    super(`${path === "" ? "" : `${path}: `}plugin "${plugin}" failed in ${hook}: ${textOf(cause)}`, {
      cause,
    });
    this.plugin = plugin;
    this.hook = hook;
    this.path = path;
  }
}

function textOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
  } catch {
    // An object without a usable toString(), as a plugin may throw.
    return "something that cannot be shown";
  }
}
