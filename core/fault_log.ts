/**
 * What guests did wrong, counted by name.
 * @module
 */
import { GuestError, type GuestFault } from "./errors.ts";

/** Counts the faults of one guest. */
export class FaultLog {
  /** How often each rule was broken, by the name of the fault. */
  readonly counts: Record<string, number> = {};
  readonly #listener: ((fault: GuestError) => void) | null;
  #last: GuestError | null = null;

  /** Nothing is counted yet. @param listener told of every fault, once it is counted */
  constructor(listener: ((fault: GuestError) => void) | null = null) {
    this.#listener = listener;
  }

  /** The fault noted last, with the values, for logs; null if there was none. */
  get last(): GuestError | null {
    return this.#last;
  }

  /** Counts a fault and returns it. An error that is not the guest's doing is thrown on. */
  note(error: unknown): GuestError {
    if (!(error instanceof GuestError)) throw error;
    this.counts[error.fault] = (this.counts[error.fault] ?? 0) + 1;
    this.#last = error;
    this.#listener?.(error);
    return error;
  }

  /** Counts a fault that nobody need be told of. */
  count(fault: GuestFault, message: string): void {
    this.note(new GuestError(fault, message));
  }

  /** Does something and counts the fault, if one comes up; then false. For the control plane. */
  attempt(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      this.note(error);
      return false;
    }
  }
}
