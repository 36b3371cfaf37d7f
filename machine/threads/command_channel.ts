/**
 * Commands to a thread and its replies, in memory that both threads share.
 *
 * Theory of operation. The main thread gives a *command*; the worker replies to it before the next one is
 * given. Both are JSON text, in an area of its own for each direction. The text is written first and its
 * number is stored then: a command has the next number, a reply the number of its command. The worker looks
 * for a new number between two rounds, which is one atomic load; what wakes it if it sleeps is the caller's.
 * The main thread stands still until the number of its command stands in the reply word.
 *
 *     main:   command() ... reply(limitMs)            worker:   hasCommand, takeCommand() ... reply()
 *
 *     REPLY:  n-1 --answer to n--> n --answer to n+1--> n+1 ... --end--> n+1, ENDED
 *
 * That a wait has ended proves nothing: the worker may have been preempted between the store of a reply and
 * its notify, and then wakes the wait for the next reply. Only the number counts. A reply that comes after
 * its time limit has the old number and is taken for no other; until it has come no command can be given,
 * because the worker may still read the text.
 *
 * Besides, the worker has *notices*: bits that it raises at any time and that the main thread takes. The main
 * thread has a *stop* flag, which needs no text and no reply, so that it can be raised whatever the worker
 * does. And the worker ends, once, with a last text that may say why, in an area of its own, for a reply may
 * just be read. ENDED is a bit of the very word that the main thread waits on, so that no end slips in
 * between its look and its sleep; it leaves the number, so that a reply which came before the end is still
 * had.
 *
 * Memory order. Atomic operations are sequentially consistent, and one that reads what another has stored
 * comes after all that stood before the store. So a text that is written before its number, and read after
 * it, is complete; and it is not overwritten before a number has come back. No plain access races with
 * another, hence the order of single atomic operations and whole texts is all that can vary:
 * `tests/machine/command_channel_test.ts` explores every such order.
 *
 * @module
 */
import { messageOf } from "../../config/errors.ts";
import { GuestError, type GuestFault } from "../../rings/guest_error.ts";
import { HostError } from "../../core/errors.ts";
import { PluginError } from "../../plugins/contract.ts";
import type { AttachedRings } from "../../plugins/queue_workers.ts";

/** The thread has begun to work. */
export const NOTICE_READY = 1;
/** A guest has broken a rule. */
export const NOTICE_FAULT = 2;
/** Nothing is in flight any more. */
export const NOTICE_QUIET = 4;
/** The first queue of the set has used buffers and no event to say so; the bits of the others follow. */
export const NOTICE_INTERRUPT = 8;
/** Queues of a set that have a bit of their own; the last bit is of all that follow, too. */
export const INTERRUPT_BITS = 28;

/** The number of the last command. */
const COMMAND = 0;
/** Twice the number of the last reply, and ENDED. */
const REPLY = 1;
const NOTICES = 2;
const STOP = 3;
const WORDS = 4;
/** In REPLY: the worker has ended. */
const ENDED = 1;
/** Twice of it is a word; 1 follows. */
const MAX_NUMBER = 0x3fff_ffff;

/** Areas of text. */
const COMMAND_TEXT = 0;
const REPLY_TEXT = 1;
const END_TEXT = 2;
const AREAS = 3;
/**
 * Room for a text; the longest has the state of a device with all tables full, and the memory map of a guest.
 */
const AREA_BYTES = 256 * 1024;
const HEAD_BYTES = 4 * (WORDS + AREAS);

/** What a channel does to shared memory, one step each. Tests put the threads' steps into every order. */
export interface ChannelMemory {
  /** What goes to the other thread. */
  readonly buffer: SharedArrayBuffer;
  /** Reads a word. */
  load(word: number): number;
  /** Writes a word. */
  store(word: number, value: number): void;
  /** Writes a word and returns what it was. */
  exchange(word: number, value: number): number;
  /** Raises bits of a word and returns what it was. */
  or(word: number, bits: number): number;
  /**
   * Sleeps until `word` is notified, for `limitMs` at most; not at all if it is not `value`. Why it ends is
   * not told.
   */
  wait(word: number, value: number, limitMs: number): void;
  /** Wakes what waits for `word`. */
  notify(word: number): void;
  /** Writes a text. RangeError if it is too long; nothing is written then. */
  write(area: number, text: string): void;
  /** Reads a text. */
  read(area: number): string;
  /** The time, in ms. */
  nowMs(): number;
}

/** Memory that two threads of this process share. */
export class SharedChannelMemory implements ChannelMemory {
  /** What goes to the other thread. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #lengths: Int32Array<SharedArrayBuffer>;

  /** Zeroes, or what another thread has made. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(HEAD_BYTES + AREAS * AREA_BYTES)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, WORDS);
    this.#lengths = new Int32Array(buffer, 4 * WORDS, AREAS);
  }

  /** Reads a word. */
  load(word: number): number {
    return Atomics.load(this.#words, word);
  }

  /** Writes a word. */
  store(word: number, value: number): void {
    Atomics.store(this.#words, word, value);
  }

  /** Writes a word and returns what it was. */
  exchange(word: number, value: number): number {
    return Atomics.exchange(this.#words, word, value);
  }

  /** Raises bits of a word and returns what it was. */
  or(word: number, bits: number): number {
    return Atomics.or(this.#words, word, bits);
  }

  /** Sleeps until `word` is notified. */
  wait(word: number, value: number, limitMs: number): void {
    Atomics.wait(this.#words, word, value, limitMs);
  }

  /** Wakes what waits for `word`. */
  notify(word: number): void {
    Atomics.notify(this.#words, word);
  }

  /** Writes a text, plainly: its number tells when it is complete. */
  write(area: number, text: string): void {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length > AREA_BYTES) {
      throw new RangeError(`Cannot pass ${bytes.length} bytes on to a thread: the most is ${AREA_BYTES}`);
    }
    this.#area(area).set(bytes);
    this.#lengths[area] = bytes.length;
  }

  /** Reads a text, plainly. */
  read(area: number): string {
    return new TextDecoder().decode(this.#area(area).slice(0, this.#lengths[area]));
  }

  /** The time, in ms. */
  nowMs(): number {
    return performance.now();
  }

  #area(area: number): Uint8Array<SharedArrayBuffer> {
    return new Uint8Array(this.buffer, HEAD_BYTES + area * AREA_BYTES, AREA_BYTES);
  }
}

/** Both ends of a channel: each thread uses half of the methods. */
export class CommandChannel {
  readonly #memory: ChannelMemory;
  /** Worker: the number of the command that was taken last. */
  #taken: number;

  /** An empty channel, or the other end of one. */
  constructor(memory: ChannelMemory = new SharedChannelMemory()) {
    this.#memory = memory;
    this.#taken = memory.load(REPLY) >> 1;
  }

  /** What both threads share. */
  get buffer(): SharedArrayBuffer {
    return this.#memory.buffer;
  }

  /**
   * Main: gives a command. Throws Error if the one before has not been answered, RangeError if it is too
   * long.
   */
  command(command: unknown): void {
    const memory = this.#memory;
    const last = memory.load(COMMAND);
    const replied = memory.load(REPLY);
    if (replied >> 1 !== last && (replied & ENDED) === 0) {
      throw new Error("Cannot give a thread another command: it has not answered the last one");
    }
    memory.write(COMMAND_TEXT, JSON.stringify(command));
    memory.store(COMMAND, last === MAX_NUMBER ? 1 : last + 1);
  }

  /**
   * Main: waits for the reply to the last command, for `limitMs` at most. Null if it does not come in time,
   * in which case this may be called again; and if the thread has ended without it.
   */
  reply(limitMs: number): unknown {
    const memory = this.#memory;
    const wanted = memory.load(COMMAND);
    const untilMs = memory.nowMs() + limitMs;
    for (;;) {
      const replied = memory.load(REPLY);
      if (replied >> 1 === wanted) return JSON.parse(memory.read(REPLY_TEXT));
      const leftMs = untilMs - memory.nowMs();
      if ((replied & ENDED) !== 0 || leftMs <= 0) return null;
      memory.wait(REPLY, replied, leftMs);
    }
  }

  /** Main: takes the notices that were raised since the last time. */
  takeNotices(): number {
    return this.#memory.load(NOTICES) === 0 ? 0 : this.#memory.exchange(NOTICES, 0);
  }

  /** Main: has the thread end as soon as it looks, whether it has answered or not. */
  stop(): void {
    this.#memory.store(STOP, 1);
  }

  /** Main: has the thread ended? */
  get hasEnded(): boolean {
    return (this.#memory.load(REPLY) & ENDED) !== 0;
  }

  /** Main: what the thread has said at its end, after `hasEnded`. */
  get lastWords(): unknown {
    return JSON.parse(this.#memory.read(END_TEXT));
  }

  /** Worker: is it to end? */
  get mustStop(): boolean {
    return this.#memory.load(STOP) !== 0;
  }

  /** Worker: is there a command? */
  get hasCommand(): boolean {
    return this.#memory.load(COMMAND) !== this.#taken;
  }

  /** Worker: takes the command, after `hasCommand`. */
  takeCommand(): unknown {
    this.#taken = this.#memory.load(COMMAND);
    return JSON.parse(this.#memory.read(COMMAND_TEXT));
  }

  /**
   * Worker: answers the command that was taken last. RangeError if the reply is too long; nothing is said
   * then.
   */
  answer(reply: unknown): void {
    this.#memory.write(REPLY_TEXT, JSON.stringify(reply));
    this.#memory.store(REPLY, this.#taken << 1);
    this.#memory.notify(REPLY);
  }

  /** Worker: ends, whether there is a command or not. Nothing is said after that. RangeError as `answer`. */
  end(last: unknown): void {
    this.#memory.write(END_TEXT, JSON.stringify(last));
    this.#memory.or(REPLY, ENDED);
    this.#memory.notify(REPLY);
  }

  /** Worker: raises a notice. True if none was raised before, so that the main thread must be woken. */
  notice(bit: number): boolean {
    return this.#memory.or(NOTICES, bit) === 0;
  }
}

/** What a thread is to do. */
export type WorkerCommand =
  /** Serve these rings. */
  | { readonly kind: "attach"; readonly rings: AttachedRings }
  /** Let everything go, and give the rings back: after `limitMs` at the latest, if requests are in flight. */
  | { readonly kind: "detach"; readonly limitMs: number }
  /** Take no further requests, and raise NOTICE_QUIET when none is in flight; or take them again. */
  | { readonly kind: "pause" | "resume" }
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
  /** Requests in flight, at least 1 as long as others may be taken; left out if the device keeps none. */
  readonly inFlight?: number | undefined;
  /** Where each ring stands, as pairs of index and place; in answer to `detach`, and at an end with rings. */
  readonly bases?: readonly (readonly [index: number, base: number])[];
  /** The rule that the guest has broken; in answer to `detach`. */
  readonly fault?: WrittenError | null;
  /** Why it has ended, if it was not told to; at the end. */
  readonly failure?: WrittenError;
  /** Frames that were not given back; at the end. */
  readonly framesKept?: number;
}

/** The memory of a machine, as its main thread tells a queue worker of it. */
export interface WorkerArena {
  /** The memory. */
  readonly memory: WebAssembly.Memory;
  /** Where it lies in this process. */
  readonly address: bigint;
  /** The part of its low part that is the worker's own, in bytes. */
  readonly start: number;
  /** Bytes of that part. */
  readonly bytes: number;
}

/** What a thread begins with. */
export interface WorkerStart {
  /** Its command channel. */
  readonly channel: SharedArrayBuffer;
  /** Descriptor of the event that wakes it. */
  readonly wake: number;
  /** What all sets of the device share, if they do. */
  readonly sharedMemory: SharedArrayBuffer | undefined;
  /** Where frames and guests lie; null if the main thread has no such memory. */
  readonly arena: WorkerArena | null;
  /** The configuration, as JSON. */
  readonly text: string;
  /** URL of the configuration's file. */
  readonly baseUrl: string;
  /** Which of its devices. */
  readonly device: number;
  /** Which set. */
  readonly set: number;
  /** The queues in it. */
  readonly queues: readonly number[];
  /** What each part has given, by its place in the configuration. */
  readonly given: Readonly<Record<string, unknown>>;
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
 * Writes an error down, whatever was thrown. Of several, where each came up while the one before was cleaned
 * up after, it is the first.
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
