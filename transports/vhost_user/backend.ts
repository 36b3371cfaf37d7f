/**
 * The back-end: answers the messages of a front-end. No socket and no system call: effects go through a `Host`.
 *
 * Theory of operation. `receive` takes one message and returns the bytes to answer, or null. A message is decoded, carried
 * out completely (`Requests`), and only then answered, so that what it asks for is in force when the front-end goes on.
 * Four kinds of message are told apart by what they are answered with: a value (GET_*); success or failure if asked for
 * (need_reply, once REPLY_ACK was agreed on); nothing.
 *
 * - A message that breaks a rule is refused and counted, has no effect, and is answered by a failure if a reply is
 *   wanted. Only what leaves front-end and back-end without a common language is *fatal*: a broken header, and a request
 *   that waits for a value which cannot be given.
 * - The order of messages is not relied on: front-ends differ, repeat themselves once for each queue pair, and set up
 *   anew without a reset in between. What a ring or the device needs to run is looked at after each message
 *   (`device_runner.ts`).
 * - The descriptors of a message have one owner: the handler that takes one out of the bag; the rest are closed.
 *
 * One object serves one connection; it is disposed of when that ends, and everything is forgotten.
 * @module
 */
import type { Device, DeviceEventListener } from "../../core/device.ts";
import { GuestError, HostError } from "../../core/errors.ts";
import { FeatureSet } from "../../core/features.ts";
import type { FaultLog } from "../../core/session.ts";
import type { QueueWorkers } from "../../plugins/queue_workers.ts";
import type { Pollable } from "../../core/reactor.ts";
import * as codec from "./codec.ts";
import { encodeConfigReply, encodeNumberReply, type Header } from "./codec.ts";
import { BackChannel } from "./connection.ts";
import { DeviceMessages, DeviceRunner } from "./device_runner.ts";
import { type Descriptor, DescriptorBag, type Host, type SharedFile } from "./host.ts";
import { inFlightBytes, InFlightMemory } from "./in_flight_memory.ts";
import { DirtyLogging, MemoryTable } from "./memory_table.ts";
import {
  FLAG_NEED_REPLY,
  type InFlightDescription,
  MAX_MEMORY_SLOTS,
  type Message,
  type Payload,
  ProtocolError,
  ProtocolFeature,
  Request,
  requestName,
} from "./messages.ts";
import { deviceFeatures, Negotiation, offerFor, type ProfileName } from "./negotiation.ts";
import type { ProtocolTrace } from "./protocol_trace.ts";
import { RingMessages } from "./rings.ts";

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
  /** Listens to the dialogue; null if there is no listener. */
  readonly trace: ProtocolTrace | null;
  /** Who serves the sets of the device; left out if the main thread does. */
  readonly workers?: QueueWorkers | null;
  /** Told what happens to the device; left out if nothing watches. */
  readonly report?: DeviceEventListener | undefined;
}

/** Serves one front-end's messages. */
export class Backend implements Pollable, Disposable {
  readonly #parts: BackendParts;
  readonly #table: MemoryTable;
  readonly #runner: DeviceRunner;
  readonly #negotiation: Negotiation;
  readonly #requests: Requests;
  readonly #deviceMessages: DeviceMessages;
  readonly #logging: DirtyLogging;
  readonly #channel: BackChannel;
  #nowNs = 0;

  /** Serves a device that is reset. */
  constructor(device: Device, parts: BackendParts) {
    const { host, profile, faults, trace, workers = null } = parts;
    this.#parts = parts;
    this.#table = new MemoryTable(host, () => (device.inflight?.count ?? 0) > 0);
    this.#channel = new BackChannel(() => this.#negotiation.protocol, trace);
    const hooks = {
      configChanged: () => this.#channel.configChanged(),
      interruptWithoutEvent: (ring: number) => this.#channel.interrupt(ring),
      errorWithoutEvent: (ring: number) => this.#channel.error(ring),
      event: parts.report,
    };
    this.#runner = new DeviceRunner(device, this.#table, faults, hooks, workers);
    this.#deviceMessages = new DeviceMessages(device, host);
    this.#logging = new DirtyLogging(host, this.#runner);
    this.#negotiation = new Negotiation(device, offerFor(device, profile), this.#runner, this.#logging);
    this.#requests = new Requests({
      device,
      host,
      table: this.#table,
      runner: this.#runner,
      negotiation: this.#negotiation,
      ringMessages: new RingMessages(host, this.#runner),
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
    return this.#runner.features;
  }

  /** Pages that were written during a migration and could not be logged. */
  get unloggedPages(): number {
    return this.#logging.unloggedPages;
  }

  /** Chains that disabled rings were emptied of. */
  get discardedChains(): number {
    return this.#runner.discardedChains;
  }

  /**
   * Can a message be carried out? While requests are in flight, what would take their rings or their memory away waits, and all
   * messages do while workers have rings: ask again after the next round.
   */
  isReadyFor({ id }: codec.Header, payload: Uint8Array): boolean {
    const runner = this.#runner;
    return !runner.isBusy || !(runner.isAttached || takesAway(id, payload, runner)) || runner.quiesce();
  }

  /**
   * Carries out a message and returns the reply, if there is one. Fatal ProtocolError or HostError if the connection must
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
    this.#runner.detach();
    const failure = this.#parts.workers?.failure ?? null;
    if (failure !== null) {
      // Not answered: rings may be worked still, or stand where it is not known.
      bag.close();
      throw new HostError(`Cannot serve the front-end any more: ${failure.message}`);
    }
    let reply: Uint8Array<ArrayBuffer> | null;
    try {
      const message = codec.decodeMessage(header, payload, bag.count);
      this.#parts.trace?.note({ event: "request", message });
      this.#negotiation.check(message.id);
      reply = this.#requests.serve(message, bag, this.#nowNs) ?? success(header, this.#negotiation.protocol);
    } catch (error) {
      reply = this.#refuse(header, error);
    } finally {
      bag.close();
      this.#runner.unquiesce();
    }
    if (reply !== null) {
      const name = requestName(header.id);
      this.#parts.trace?.note({ event: "reply", id: header.id, name, bytes: reply });
    }
    return reply;
  }

  /** What is to be sent along with the reply of the last message, once; null if nothing is. */
  takeSharedFile(): SharedFile | null {
    const file = this.#requests.sharedFile;
    this.#requests.sharedFile = null;
    return file;
  }

  /** One round. True if anything moved. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    const read = this.#deviceMessages.poll();
    const did = this.#runner.poll(nowNs);
    this.#logging.poll();
    this.#channel.poll();
    this.#table.release();
    return read || did;
  }

  /** Throws away what the other end of the back channel has said. True if there may be more. */
  hear(): boolean {
    return this.#channel.hear();
  }

  /** When the device wants to be polled, in ns. */
  deadlineNs(): number {
    return this.#runner.deadlineNs();
  }

  /** Unmaps memory that could not be unmapped before because requests were in flight. True if nothing is left of it. */
  release(): boolean {
    return this.#table.release();
  }

  /** The front-end is gone: the device is reset, everything is closed and, as soon as nothing is in flight, unmapped. */
  [Symbol.dispose](): void {
    this.#runner.detach(true);
    const isStuck = this.#isStuck;
    if (!isStuck) this.#logging[Symbol.dispose]();
    this.#runner[Symbol.dispose]();
    this.#deviceMessages[Symbol.dispose]();
    this.#channel[Symbol.dispose]();
    this.takeSharedFile()?.[Symbol.dispose]();
    if (!isStuck) this.#table[Symbol.dispose]();
  }

  /** A worker may still write to its rings: nothing of them may be unmapped before the process ends. */
  get #isStuck(): boolean {
    return this.#parts.workers?.isStuck === true;
  }

  /** Counts what is wrong and returns the reply that says so, if there is one. Throws on what has no answer. */
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

/** Would this message change memory, features, or a ring that runs? Of a message that is not well formed, anything. */
function takesAway(id: number, payload: Uint8Array, { rings, features }: DeviceRunner): boolean {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const word = (at: number) => payload.length >= at + 4 ? view.getUint32(at, true) : 0;
  switch (id) {
    case Request.SET_MEM_TABLE:
    case Request.ADD_MEM_REG:
    case Request.REM_MEM_REG:
    case Request.RESET_DEVICE:
    case Request.GET_VRING_BASE:
    case Request.SET_INFLIGHT_FD:
      return true;
    case Request.SET_STATUS:
      return (word(0) & 0xff) === 0;
    case Request.SET_FEATURES:
      return features?.equals(deviceFeatures(FeatureSet.fromWords(word(0), word(4)))) !== true;
    case Request.SET_VRING_ENABLE:
      return word(4) === 0 && rings[word(0)]?.enabled === true;
    case Request.SET_VRING_NUM:
    case Request.SET_VRING_BASE:
    case Request.SET_VRING_ADDR:
    case Request.SET_VRING_KICK:
      return (rings[id === Request.SET_VRING_KICK ? word(0) & 0xff : word(0)]?.queue ?? null) !== null;
    default:
      return false;
  }
}

// What each request of a front-end does, and the value it is answered with: the table of the back-end.
//
// Nothing is caught here: a request that is refused throws, and has had no effect. Descriptors that are not taken out of the
// bag are closed by the code that filled it.

/** What requests are about. */
export interface RequestParts {
  /** The device. */
  readonly device: Device;
  /** The host. */
  readonly host: Host;
  /** The memory that the front-end shares. */
  readonly table: MemoryTable;
  /** What works on it. */
  readonly runner: DeviceRunner;
  /** What is agreed on. */
  readonly negotiation: Negotiation;
  /** Carries out what is about rings. */
  readonly ringMessages: RingMessages;
  /** Carries out what is about the device itself. */
  readonly deviceMessages: DeviceMessages;
  /** Carries out what is about logging. */
  readonly logging: DirtyLogging;
  /** The way of our own requests. */
  readonly channel: BackChannel;
}

/** Carries out requests. */
export class Requests {
  readonly #parts: RequestParts;

  /** What goes along with the reply of the last message; null if nothing does. */
  sharedFile: SharedFile | null = null;

  /** Keeps nothing else itself. @param parts what requests are about */
  constructor(parts: RequestParts) {
    this.#parts = parts;
  }

  /**
   * Carries out a message and returns the reply that carries a value; null for messages that have none by themselves.
   * Throws ProtocolError, GuestError and HostError.
   */
  serve(message: Message, bag: DescriptorBag, nowNs: number): Uint8Array<ArrayBuffer> | null {
    const { id, payload } = message;
    const { table, runner, logging, negotiation, ringMessages, deviceMessages } = this.#parts;
    switch (payload.kind) {
      case "none":
        return this.#serveBare(id, bag);
      case "bits":
        return this.#serveBits(id, payload.bits, nowNs);
      case "regions":
        table.replace(payload.regions, bag);
        runner.memoryChanged();
        return null;
      case "region":
        if (id === Request.ADD_MEM_REG) table.add(payload.region, bag);
        else table.remove(payload.region);
        runner.memoryChanged();
        return null;
      case "log":
        logging.setBase(payload.sizeBytes, payload.offsetBytes, bag);
        // With shared memory the front-end waits for a reply, whether it asks for it or not.
        return negotiation.protocol.has(ProtocolFeature.LOG_SHMFD) ? codec.encodeNumberReply(id, 0) : null;
      case "config":
        return this.#serveConfig(id, payload);
      case "inFlight":
        return this.#serveInFlight(id, payload.memory, bag);
      case "transfer":
        return codec.encodeNumberReply(id, deviceMessages.transfer(payload, runner.isSuspended, bag));
      case "ring":
      case "ringAddress":
      case "ringEvent": {
        const base = ringMessages.serve(message, bag);
        return base === null || payload.kind !== "ring"
          ? null
          : codec.encodeRingReply(id, payload.index, base);
      }
    }
  }

  #serveBare(id: number, bag: DescriptorBag): Uint8Array<ArrayBuffer> | null {
    const { device, host, negotiation, deviceMessages, logging, channel } = this.#parts;
    switch (id) {
      case Request.GET_FEATURES:
        return codec.encodeBitsReply(id, negotiation.offer.features);
      case Request.GET_PROTOCOL_FEATURES:
        return codec.encodeBitsReply(id, negotiation.offer.protocol);
      case Request.GET_QUEUE_NUM:
        // All of them, the control queue too: some front-ends make exactly so many, the others only want enough.
        return codec.encodeNumberReply(id, device.queueSizes.length);
      case Request.GET_MAX_MEM_SLOTS:
        return codec.encodeNumberReply(id, MAX_MEMORY_SLOTS);
      case Request.GET_STATUS:
        return codec.encodeNumberReply(id, negotiation.status);
      case Request.RESET_DEVICE:
        negotiation.reset();
        return null;
      case Request.SET_LOG_FD:
        logging.setEvent(bag);
        return null;
      case Request.SET_BACKEND_REQ_FD:
        channel.use(host.channel(bag.take()));
        return null;
      case Request.CHECK_DEVICE_STATE:
        deviceMessages.checkTransfer();
        return codec.encodeNumberReply(id, 0);
      default:
        // SET_OWNER and RESET_OWNER: the connection itself says who owns the device, and for how long.
        return null;
    }
  }

  #serveBits(id: number, bits: FeatureSet, nowNs: number): null {
    const { negotiation, deviceMessages } = this.#parts;
    switch (id) {
      case Request.SET_FEATURES:
        negotiation.acceptFeatures(bits);
        break;
      case Request.SET_PROTOCOL_FEATURES:
        negotiation.acceptProtocol(bits);
        break;
      case Request.SET_STATUS:
        negotiation.setStatus(bits.word(0) & 0xff);
        break;
      case Request.NET_SET_MTU:
        deviceMessages.checkMtu(bits);
        break;
      default:
        deviceMessages.announce(bits, nowNs);
    }
    return null;
  }

  #serveInFlight(
    id: number,
    memory: InFlightDescription,
    bag: DescriptorBag,
  ): Uint8Array<ArrayBuffer> | null {
    const { device, host, runner } = this.#parts;
    const sizeBytes = inFlightBytes(memory, device.queueSizes.length);
    if (id === Request.GET_INFLIGHT_FD) {
      this.sharedFile?.[Symbol.dispose]();
      this.sharedFile = host.newMemory(sizeBytes);
      return codec.encodeInFlightReply({ ...memory, sizeBytes, offsetBytes: 0 });
    }
    if (memory.sizeBytes < sizeBytes) {
      throw new ProtocolError(
        "value-invalid",
        `In-flight memory has ${memory.sizeBytes} bytes; ${sizeBytes} are needed for its ${memory.queues} queues`,
      );
    }
    runner.recordIn(new InFlightMemory(host.map(bag.take(), sizeBytes, memory.offsetBytes), memory));
    return null;
  }

  #serveConfig(id: number, payload: Extract<Payload, { kind: "config" }>): Uint8Array<ArrayBuffer> | null {
    const { deviceMessages } = this.#parts;
    if (id === Request.GET_CONFIG) {
      return codec.encodeConfigReply(payload.offset, deviceMessages.readConfig(payload));
    }
    deviceMessages.writeConfig(payload);
    return null;
  }
}

// How messages are answered that carry no value of their own, or that were refused.

/** SET_DEVICE_STATE_FD failed, and no descriptor comes back; all other requests take any value but 0 for a failure. */
const FAILURE = 0x101;

/** Requests that wait for a value: for these there is no way to say that it failed. */
const VALUE_REQUESTS: ReadonlySet<number> = new Set([
  Request.GET_FEATURES,
  Request.GET_PROTOCOL_FEATURES,
  Request.GET_QUEUE_NUM,
  Request.GET_MAX_MEM_SLOTS,
  Request.GET_VRING_BASE,
  Request.GET_STATUS,
  Request.GET_INFLIGHT_FD,
]);

/** The reply that says that a message was carried out; null if none is wanted. @param protocol what was agreed on */
export function success(header: Header, protocol: FeatureSet): Uint8Array<ArrayBuffer> | null {
  return acknowledgement(header, protocol, 0);
}

/**
 * The reply that says that a message was refused; null if none is wanted. Fatal ProtocolError if the front-end waits for
 * a reply that cannot be given.
 */
export function failure(
  header: Header,
  protocol: FeatureSet,
  reason: string,
): Uint8Array<ArrayBuffer> | null {
  switch (header.id) {
    case Request.GET_CONFIG:
      return encodeConfigReply(0, new Uint8Array(0));
    case Request.SET_DEVICE_STATE_FD:
    case Request.CHECK_DEVICE_STATE:
      return encodeNumberReply(header.id, FAILURE);
    case Request.SET_LOG_BASE:
      if (protocol.has(ProtocolFeature.LOG_SHMFD)) return encodeNumberReply(header.id, FAILURE);
      break;
    default:
      if (VALUE_REQUESTS.has(header.id)) {
        const name = requestName(header.id);
        throw new ProtocolError(
          "value-invalid",
          `${name} waits for a value that cannot be given: ${reason}`,
          true,
        );
      }
  }
  return acknowledgement(header, protocol, FAILURE);
}

/** The name under which an error is counted; null if it is one of our own. */
function faultOf(error: unknown): string | null {
  if (error instanceof ProtocolError || error instanceof GuestError) return error.fault;
  return error instanceof HostError ? "host-cannot" : null;
}

function acknowledgement(
  { id, flags }: Header,
  protocol: FeatureSet,
  value: number,
): Uint8Array<ArrayBuffer> | null {
  const wanted = (flags & FLAG_NEED_REPLY) !== 0 && protocol.has(ProtocolFeature.REPLY_ACK);
  return wanted ? encodeNumberReply(id, value) : null;
}
