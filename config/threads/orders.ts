/**
 * What the main thread and a thread of a queue pair say to each other.
 * @module
 */
import { GuestError, type GuestFault, HostError, PluginError } from "../../core/errors.ts";
import type { RingsLoan } from "../../core/threads.ts";

/** What a thread is to do. */
export type LaneOrder =
  /** Work these rings. */
  | { readonly kind: "lend"; readonly loan: RingsLoan }
  /** Let everything go, and give the rings back. */
  | { readonly kind: "recall" }
  /** The driver takes the device back. */
  | { readonly kind: "reset" }
  /** Let everything go, and go on. */
  | { readonly kind: "drain" }
  /** Say what was counted. */
  | { readonly kind: "count" }
  /** End. */
  | { readonly kind: "stop" };

/** What a thread answers. */
export interface LaneReply {
  /** What was counted since the last answer, by group. */
  readonly counters: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Where each ring stands, as pairs of index and place; in answer to `recall`. */
  readonly bases?: readonly (readonly [index: number, base: number])[];
  /** The rule that the guest has broken; in answer to `recall`. */
  readonly fault?: WrittenError | null;
  /** Why it has ended, if it was not told to. */
  readonly failure?: WrittenError;
  /** Frames that were not given back; in the last answer. */
  readonly framesKept?: number;
}

/** What a thread begins with. */
export interface LaneStart {
  /** Its mailbox. */
  readonly mailbox: SharedArrayBuffer;
  /** Descriptor of the event that wakes it. */
  readonly wake: number;
  /** The configuration, as JSON. */
  readonly text: string;
  /** URL of the configuration's file. */
  readonly baseUrl: string;
  /** Which of its devices. */
  readonly device: number;
  /** Which queue pair. */
  readonly pair: number;
  /** The queue of the network, as it was given. */
  readonly given: unknown;
}

/** An error that goes from thread to thread. */
export interface WrittenError {
  /** `GuestError`, `HostError`, `PluginError`, or another. */
  readonly name: string;
  /** What it says, without what its class puts in front. */
  readonly text: string;
  /** The rule, of a GuestError. */
  readonly fault?: string;
  /** Who and where, of a PluginError. */
  readonly plugin?: string;
  /** In which hook, of a PluginError. */
  readonly hook?: string;
}

/** Writes an error down. */
export function writeError(error: unknown): WrittenError {
  if (error instanceof GuestError) {
    const { name, fault, message } = error;
    return { name, fault, text: message.slice(`${fault}: `.length) };
  }
  if (error instanceof PluginError) {
    const { name, plugin, hook, message, cause } = error;
    return { name, plugin, hook, text: cause instanceof Error ? cause.message : message };
  }
  if (error instanceof Error) return { name: error.name, text: error.message };
  return { name: "Error", text: String(error) };
}

/** Makes the error again. */
export function readError({ name, text, fault, plugin, hook }: WrittenError): Error {
  switch (name) {
    case "GuestError":
      return new GuestError(fault as GuestFault, text);
    case "HostError":
      return new HostError(text);
    case "PluginError":
      return new PluginError(plugin!, hook!, new Error(text));
    default:
      return new Error(text);
  }
}
