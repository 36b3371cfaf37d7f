/**
 * The back-end: answers the messages of a front-end. No socket and no system call: effects go through a `Host`.
 *
 * Theory of operation. `receive` takes one message and returns the bytes to answer, or null. A message is decoded, carried
 * out completely (`requests.ts`), and only then answered, so that what it asks for is in force when the front-end goes on.
 * Four kinds of message are told apart by what they are answered with: a value (GET_*); success or failure if asked for
 * (need_reply, once REPLY_ACK was agreed on); nothing.
 *
 * - A message that breaks a rule is refused and counted, has no effect, and is answered by a failure if an answer is
 *   wanted. Only what leaves front-end and back-end without a common language is *fatal*: a broken header, and a request
 *   that waits for a value which cannot be given.
 * - The order of messages is not relied on: front-ends differ, repeat themselves once for each queue pair, and set up
 *   anew without a reset in between. What a ring or the device needs to run is looked at after each message
 *   (`device_link.ts`).
 * - The descriptors of a message have one owner: whoever takes one out of the bag; the rest are closed.
 *
 * One object serves one connection; it is disposed of when that ends, and everything is forgotten.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { HostError } from "../../core/errors.ts";
import type { DeviceEventListener } from "../../core/events.ts";
import type { FaultLog } from "../../core/fault_log.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { RingBorrower } from "../../core/threads.ts";
import type { Pollable } from "../../core/transport.ts";
import { failure, faultOf, success } from "./answers.ts";
import { BackChannel } from "./back_channel.ts";
import * as codec from "./codec.ts";
import { DeviceLink } from "./device_link.ts";
import { DeviceMessages } from "./device_messages.ts";
import { DirtyLogging } from "./dirty_logging.ts";
import { type Descriptor, DescriptorBag, type Host } from "./host.ts";
import { MemoryTable } from "./memory_table.ts";
import { requestName } from "./messages.ts";
import { Negotiation } from "./negotiation.ts";
import { offerFor, type ProfileName } from "./profiles.ts";
import { ProtocolError } from "./protocol_error.ts";
import type { ProtocolTrace } from "./protocol_trace.ts";
import { Requests } from "./requests.ts";
import { RingMessages } from "./ring_messages.ts";

/** What a back-end is made of besides its device. */
export interface BackendParts {
  /** The host. */
  readonly host: Host;
  /** Who is expected at the other end. */
  readonly profile: ProfileName;
  /** Where faults of the guest are counted. */
  readonly faults: FaultLog;
  /** Told of messages that are refused, by the name of the rule. */
  refused(fault: string, message: string): void;
  /** Listens to the dialogue; null for nobody. */
  readonly trace: ProtocolTrace | null;
  /** Who works the queues that the device leaves to threads; left out if it leaves none. */
  readonly borrower?: RingBorrower | null;
  /** Told what happens to the device; left out if nothing watches. */
  readonly report?: DeviceEventListener | undefined;
}

/** Serves one front-end's messages. */
export class Backend implements Pollable, Disposable {
  readonly #parts: BackendParts;
  readonly #table: MemoryTable;
  readonly #link: DeviceLink;
  readonly #negotiation: Negotiation;
  readonly #requests: Requests;
  readonly #deviceMessages: DeviceMessages;
  readonly #logging: DirtyLogging;
  readonly #channel: BackChannel;
  #nowNs = 0;

  /** Serves a device that is reset. */
  constructor(device: Device, parts: BackendParts) {
    const { host, profile, faults, trace, borrower = null } = parts;
    this.#parts = parts;
    this.#table = new MemoryTable(host);
    this.#channel = new BackChannel(() => this.#negotiation.protocol, trace);
    const hooks = {
      configChanged: () => this.#channel.configChanged(),
      interruptWithoutEvent: (ring: number) => this.#channel.interrupt(ring),
      errorWithoutEvent: (ring: number) => this.#channel.error(ring),
      event: parts.report,
    };
    this.#link = new DeviceLink(device, this.#table, faults, hooks, borrower);
    this.#deviceMessages = new DeviceMessages(device, host);
    this.#logging = new DirtyLogging(host, this.#link);
    this.#negotiation = new Negotiation(device, offerFor(device, profile), this.#link, this.#logging);
    this.#requests = new Requests({
      device,
      host,
      table: this.#table,
      link: this.#link,
      negotiation: this.#negotiation,
      ringMessages: new RingMessages(host, this.#link),
      deviceMessages: this.#deviceMessages,
      logging: this.#logging,
      channel: this.#channel,
    });
  }

  /** The device status field as the front-end sees it. */
  get status(): number {
    return this.#negotiation.status;
  }

  /** What was agreed on; null before. */
  get features(): FeatureSet | null {
    return this.#link.features;
  }

  /** Pages that were written during a migration and could not be logged. */
  get unloggedPages(): number {
    return this.#logging.unloggedPages;
  }

  /** Chains that disabled rings were emptied of. */
  get discardedChains(): number {
    return this.#link.discardedChains;
  }

  /**
   * Carries out a message and returns the answer, if there is one. Fatal ProtocolError or HostError if the connection must
   * be closed; errors of our own pass through.
   * @param payload exactly the bytes that the header announces
   * @param descriptors what came along; owned from now on
   */
  receive(
    header: codec.Header,
    payload: Uint8Array,
    descriptors: readonly Descriptor[],
  ): Uint8Array<ArrayBuffer> | null {
    const bag = new DescriptorBag(descriptors);
    this.#link.recall();
    const failure = this.#parts.borrower?.failure ?? null;
    if (failure !== null) {
      // Not answered: rings may be worked still, or stand where it is not known.
      bag.close();
      throw new HostError(`Cannot serve the front-end any more: ${failure.message}`);
    }
    let answer: Uint8Array<ArrayBuffer> | null;
    try {
      const message = codec.decodeMessage(header, payload, bag.count);
      this.#parts.trace?.note({ event: "request", message });
      this.#negotiation.check(message.id);
      answer = this.#requests.serve(message, bag, this.#nowNs) ?? success(header, this.#negotiation.protocol);
    } catch (error) {
      answer = this.#refuse(header, error);
    } finally {
      bag.close();
    }
    if (answer !== null) {
      const name = requestName(header.id);
      this.#parts.trace?.note({ event: "reply", id: header.id, name, bytes: answer });
    }
    return answer;
  }

  /** One round. True if anything moved. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    const read = this.#deviceMessages.poll();
    const did = this.#link.poll(nowNs);
    this.#logging.poll();
    this.#channel.poll();
    return read || did;
  }

  /** Throws away what the other end of the back channel has said. True if there may be more. */
  hear(): boolean {
    return this.#channel.hear();
  }

  /** When the device wants to be polled, in ns. */
  deadlineNs(): number {
    return this.#link.deadlineNs();
  }

  /** The front-end is gone: the device is reset, everything is unmapped and closed. */
  [Symbol.dispose](): void {
    this.#link.recall();
    const isStuck = this.#isStuck;
    if (!isStuck) this.#logging[Symbol.dispose]();
    this.#link[Symbol.dispose]();
    this.#deviceMessages[Symbol.dispose]();
    this.#channel[Symbol.dispose]();
    if (!isStuck) this.#table[Symbol.dispose]();
  }

  /** A thread may still write to what it was lent: nothing of it may be unmapped before the process ends. */
  get #isStuck(): boolean {
    return this.#parts.borrower?.isStuck === true;
  }

  /** Counts what is wrong and returns the answer that says so, if there is one. Throws on what nobody can answer. */
  #refuse(header: codec.Header, error: unknown): Uint8Array<ArrayBuffer> | null {
    const fault = faultOf(error);
    if (fault === null) throw error;
    const { message } = error as Error;
    this.#parts.refused(fault, message);
    this.#parts.trace?.note({
      event: "refused",
      id: header.id,
      name: requestName(header.id),
      reason: message,
    });
    if (error instanceof ProtocolError && error.fatal) throw error;
    return failure(header, this.#negotiation.protocol, message);
  }
}
