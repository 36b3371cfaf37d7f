/**
 * What the main thread and the worker of a queue pair say to each other.
 * @module
 */
import { GuestError, type GuestFault, HostError, PluginError } from "../../core/errors.ts";
import type { RingsLoan } from "../../core/threads.ts";
import { messageOf } from "../../config/errors.ts";

/** What a thread is to do. */
export type WorkerCommand =
  /** Work these rings. */
  | { readonly kind: "lend"; readonly loan: RingsLoan }
  /** Let everything go, and give the rings back. */
  | { readonly kind: "recall" }
  /** The driver takes the device back. */
  | { readonly kind: "reset" }
  /** Let everything go, and go on. */
  | { readonly kind: "drain" }
  /** Say what was counted. */
  | { readonly kind: "count" };

/** What a thread answers. */
export interface WorkerReply {
  /** What was counted since the last answer, by group. */
  readonly counters: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Where each ring stands, as pairs of index and place; in answer to `recall`, and at an end with rings. */
  readonly bases?: readonly (readonly [index: number, base: number])[];
  /** The rule that the guest has broken; in answer to `recall`. */
  readonly fault?: WrittenError | null;
  /** Why it has ended, if it was not told to; at the end. */
  readonly failure?: WrittenError;
  /** Frames that were not given back; at the end. */
  readonly framesKept?: number;
}

/** What a thread begins with. */
export interface WorkerStart {
  /** Its command channel. */
  readonly channel: SharedArrayBuffer;
  /** Descriptor of the event that wakes it. */
  readonly wake: number;
  /** The claims of all threads of the device. */
  readonly claims: SharedArrayBuffer;
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
  /** Where it stands in the configuration, of a PluginError. */
  readonly path?: string;
  /** The stack of what the plugin has thrown. */
  readonly stack?: string;
}

/** Characters of an error that go from thread to thread: there must be room for the rest. */
const MAX_TEXT_LENGTH = 16_384;
/** Characters of a stack. */
const MAX_STACK_LENGTH = 4096;

/**
 * Writes an error down, whatever was thrown. Of several, where each came up while the one before was cleaned up after, it
 * is the first.
 */
export function writeError(error: unknown): WrittenError {
  if (error instanceof SuppressedError) return writeError(error.suppressed);
  if (error instanceof GuestError) {
    const { name, fault, message } = error;
    return { name, fault, text: cut(message.slice(`${fault}: `.length)) };
  }
  if (error instanceof PluginError) {
    const { name, plugin, hook, path, cause } = error;
    const stack = cause instanceof Error ? { stack: String(cause.stack).slice(0, MAX_STACK_LENGTH) } : {};
    return { name, plugin, hook, path, text: cut(messageOf(cause)), ...stack };
  }
  if (error instanceof HostError) return { name: error.name, text: cut(error.message) };
  return { name: "Error", text: cut(messageOf(error)) };
}

function cut(text: string): string {
  return text.slice(0, MAX_TEXT_LENGTH);
}

/** Makes the error again. */
export function readError({ name, text, fault, plugin, hook, path, stack }: WrittenError): Error {
  switch (name) {
    case "GuestError":
      return new GuestError(fault as GuestFault, text);
    case "HostError":
      return new HostError(text);
    case "PluginError": {
      const cause = new Error(text);
      if (stack !== undefined) cause.stack = stack;
      return new PluginError(plugin!, hook!, cause, path);
    }
    default:
      return new Error(text);
  }
}
