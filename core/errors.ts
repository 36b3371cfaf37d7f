/**
 * What this host cannot do. What a guest does wrong is a `GuestError` (`rings/guest_error.ts`); a plugin that
 * fails is a third way in which things go wrong (`plugins/`).
 * @module
 */

/** This host cannot do what was asked: a missing right, module, file or limit. The message has the remedy. */
export class HostError extends Error {
  /** `HostError`. */
  override readonly name = "HostError";
}
