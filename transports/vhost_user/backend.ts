/**
 * The back-end: answers the messages of a front-end. No socket and no system call: effects go through a
 * `Host`.
 *
 * Theory of operation. `receive` takes one message and returns the bytes to answer, or null. A message is
 * decoded, carried out completely, and only then answered, so that what it asks for is in force when the
 * front-end goes on. Four kinds of message are told apart by what they are answered with: a value (GET_*);
 * success or failure if asked for (need_reply, once REPLY_ACK was agreed on); nothing.
 *
 * - A message that breaks a rule is refused and counted, has no effect, and is answered by a failure if a
 *   reply is wanted. Only what leaves front-end and back-end without a common language is *fatal*: a broken
 *   header, and a request that waits for a value which cannot be given.
 * - The order of messages is not relied on: front-ends differ, repeat themselves once for each queue pair,
 *   and
 *   set up anew without a reset in between. What a ring or the device needs to run is looked at after each
 *   message (`device_runner.ts`).
 * - The descriptors of a message have one owner: the handler that takes one out of the bag; the rest are
 *   closed.
 *
 * One object serves one connection; it is disposed of when that ends, and everything is forgotten.
 * @module
 */
import type { Device, DeviceEventListener } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { HostError } from "../../core/errors.ts";
import { FeatureSet } from "../../core/features.ts";
import type { Pollable } from "../../core/reactor.ts";
import type { FaultLog } from "../../core/session.ts";
import type { QueueWorkers } from "../../plugins/queue_workers.ts";
import { DeviceMessages } from "./device_messages.ts";
import { DeviceRunner, RingMessages } from "./device_runner.ts";
import { offerFor, type ProfileName } from "./front_ends.ts";
import { type Channel, type Descriptor, DescriptorBag, type Host, type SharedFile } from "./host.ts";
import { inFlightBytes, InFlightMemory } from "./in_flight_memory.ts";
import { DirtyLogging, MemoryTable } from "./memory_table.ts";
import {
  BackendRequest,
  backendRequestName,
  decodeMessage,
  encodeBackendRequest,
  encodeBitsReply,
  encodeConfigReply,
  encodeInFlightReply,
  encodeNumberReply,
  encodeRingReply,
  FLAG_NEED_REPLY,
  type Header,
  type InFlightDescription,
  MAX_MEMORY_SLOTS,
  type Message,
  type Payload,
  ProtocolError,
  ProtocolFeature,
  Request,
  requestName,
} from "./messages.ts";
import { deviceFeatures, Negotiation } from "./negotiation.ts";
import type { ProtocolTrace } from "./protocol_trace.ts";

/** The bytes of a reply; null for none. */
type Reply = Uint8Array<ArrayBuffer> | null;

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
  readonly #device: Device;
  readonly #parts: BackendParts;
  readonly #table: MemoryTable;
  readonly #runner: DeviceRunner;
  readonly #negotiation: Negotiation;
  readonly #ringMessages: RingMessages;
  readonly #deviceMessages: DeviceMessages;
  readonly #logging: DirtyLogging;
  readonly #channel: BackChannel;
  /** What goes along with the reply of the last message; null if nothing does. */
  #sharedFile: SharedFile | null = null;
  #nowNs = 0;

  /** Serves a device that is reset. */
  constructor(device: Device, parts: BackendParts) {
    const { host, profile, faults, trace, workers = null } = parts;
    this.#device = device;
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
    this.#logging = new DirtyLogging(host, (log, attached) => this.#runner.logTo(log, attached));
    this.#negotiation = new Negotiation(device, offerFor(device, profile), this.#runner, this.#logging);
    this.#ringMessages = new RingMessages(host, this.#runner);
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
   * Can a message be carried out? While requests are in flight, what would take their rings or their memory
   * away waits, and all messages do while workers have rings: ask again after the next round.
   */
  isReadyFor({ id }: Header, payload: Uint8Array): boolean {
    const runner = this.#runner;
    return !runner.isBusy || !(runner.isAttached || takesAway(id, payload, runner)) || runner.quiesce();
  }

  /**
   * Carries out a message and returns the reply, if there is one. Fatal ProtocolError or HostError if the
   * connection must be closed; errors of our own pass through.
   * @param payload exactly the bytes that the header announces
   * @param descriptors what came along; owned from now on
   */
  receive(header: Header, payload: Uint8Array, descriptors: readonly Descriptor[]): Reply {
    const bag = new DescriptorBag(descriptors);
    this.#runner.detach();
    const failure = this.#parts.workers?.failure ?? null;
    if (failure !== null) {
      // Not answered: rings may be worked still, or stand where it is not known.
      bag.close();
      throw new HostError(`Cannot serve the front-end any more: ${failure.message}`);
    }
    let reply: Reply;
    try {
      const message = decodeMessage(header, payload, bag.count);
      this.#parts.trace?.note({ event: "request", message });
      this.#negotiation.check(message.id);
      reply = this.#serve(message, bag) ?? success(header, this.#negotiation.protocol);
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
    const file = this.#sharedFile;
    this.#sharedFile = null;
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

  /** Does the guest's memory show work for the device? */
  look(): boolean {
    return this.#runner.look();
  }

  /** When the device wants to be polled, in ns. */
  deadlineNs(): number {
    return this.#runner.deadlineNs();
  }

  /**
   * Unmaps memory that could not be unmapped before because requests were in flight. True if nothing is left
   * of it.
   */
  release(): boolean {
    return this.#table.release();
  }

  /**
   * The front-end is gone: the device is reset, everything is closed and, as soon as nothing is in flight,
   * unmapped.
   */
  [Symbol.dispose](): void {
    this.#runner.detach(true);
    // A worker may still write to its rings: nothing of them may be unmapped before the process ends.
    const isStuck = this.#parts.workers?.isStuck === true;
    if (!isStuck) this.#logging[Symbol.dispose]();
    this.#runner[Symbol.dispose]();
    this.#deviceMessages[Symbol.dispose]();
    this.#channel[Symbol.dispose]();
    this.takeSharedFile()?.[Symbol.dispose]();
    if (!isStuck) this.#table[Symbol.dispose]();
  }

  /**
   * Carries out a message and returns the reply that carries a value; null for messages that have none by
   * themselves. Throws ProtocolError, GuestError and HostError.
   */
  #serve(message: Message, bag: DescriptorBag): Reply {
    const { id, payload } = message;
    switch (payload.kind) {
      case "none":
        return this.#serveBare(id, bag);
      case "bits":
        return this.#serveBits(id, payload.bits);
      case "regions":
        this.#table.replace(payload.regions, bag);
        this.#runner.memoryChanged();
        return null;
      case "region":
        if (id === Request.ADD_MEM_REG) this.#table.add(payload.region, bag);
        else this.#table.remove(payload.region);
        this.#runner.memoryChanged();
        return null;
      case "log":
        this.#logging.setBase(payload.sizeBytes, payload.offsetBytes, bag);
        // With shared memory the front-end waits for a reply, whether it asks for it or not.
        return this.#negotiation.protocol.has(ProtocolFeature.LOG_SHMFD) ? encodeNumberReply(id, 0) : null;
      case "config":
        return this.#serveConfig(id, payload);
      case "inFlight":
        return this.#serveInFlight(id, payload.memory, bag);
      case "transfer":
        return encodeNumberReply(id, this.#deviceMessages.transfer(payload, this.#runner.isSuspended, bag));
      case "ring":
      case "ringAddress":
      case "ringEvent": {
        const base = this.#ringMessages.serve(message, bag);
        return base === null || payload.kind !== "ring" ? null : encodeRingReply(id, payload.index, base);
      }
    }
  }

  #serveBare(id: number, bag: DescriptorBag): Reply {
    switch (id) {
      case Request.GET_FEATURES:
        return encodeBitsReply(id, this.#negotiation.offer.features);
      case Request.GET_PROTOCOL_FEATURES:
        return encodeBitsReply(id, this.#negotiation.offer.protocol);
      case Request.GET_QUEUE_NUM:
        // All of them, the control queue too: some front-ends make exactly so many, the others only want
        // enough.
        return encodeNumberReply(id, this.#device.queueSizes.length);
      case Request.GET_MAX_MEM_SLOTS:
        return encodeNumberReply(id, MAX_MEMORY_SLOTS);
      case Request.GET_STATUS:
        return encodeNumberReply(id, this.#negotiation.status);
      case Request.RESET_DEVICE:
        this.#negotiation.reset();
        return null;
      case Request.SET_LOG_FD:
        this.#logging.setEvent(bag);
        return null;
      case Request.SET_BACKEND_REQ_FD:
        this.#channel.use(this.#parts.host.channel(bag.take()));
        return null;
      case Request.CHECK_DEVICE_STATE:
        this.#deviceMessages.checkTransfer();
        return encodeNumberReply(id, 0);
      default:
        // SET_OWNER and RESET_OWNER: the connection itself says who owns the device, and for how long.
        return null;
    }
  }

  #serveBits(id: number, bits: FeatureSet): null {
    switch (id) {
      case Request.SET_FEATURES:
        this.#negotiation.acceptFeatures(bits);
        break;
      case Request.SET_PROTOCOL_FEATURES:
        this.#negotiation.acceptProtocol(bits);
        break;
      case Request.SET_STATUS:
        this.#negotiation.setStatus(bits.word(0) & 0xff);
        break;
      case Request.NET_SET_MTU:
        this.#deviceMessages.checkMtu(bits);
        break;
      default:
        this.#deviceMessages.announce(bits, this.#nowNs);
    }
    return null;
  }

  #serveInFlight(id: number, memory: InFlightDescription, bag: DescriptorBag): Reply {
    const sizeBytes = inFlightBytes(memory, this.#device.queueSizes.length);
    if (id === Request.GET_INFLIGHT_FD) {
      this.#sharedFile?.[Symbol.dispose]();
      this.#sharedFile = this.#parts.host.newMemory(sizeBytes);
      return encodeInFlightReply({ ...memory, sizeBytes, offsetBytes: 0 });
    }
    if (memory.sizeBytes < sizeBytes) {
      throw new ProtocolError(
        "value-invalid",
        `In-flight memory has ${memory.sizeBytes} bytes; ${sizeBytes} are needed for its ${memory.queues} queues`,
      );
    }
    const mapping = this.#parts.host.map(bag.take(), sizeBytes, memory.offsetBytes);
    this.#runner.recordIn(new InFlightMemory(mapping, memory));
    return null;
  }

  #serveConfig(id: number, payload: Extract<Payload, { kind: "config" }>): Reply {
    if (id === Request.GET_CONFIG) {
      return encodeConfigReply(payload.offset, this.#deviceMessages.readConfig(payload));
    }
    this.#deviceMessages.writeConfig(payload);
    return null;
  }

  /**
   * Counts what is wrong and returns the reply that says so, if there is one. Throws on what has no answer.
   */
  #refuse(header: Header, error: unknown): Reply {
    const fault = faultOf(error);
    if (fault === null) throw error;
    const { message } = error as Error;
    this.#parts.refused(fault, message);
    const { id } = header;
    this.#parts.trace?.note({ event: "refused", id, name: requestName(id), reason: message });
    if (error instanceof ProtocolError && error.fatal) throw error;
    return failure(header, this.#negotiation.protocol, message);
  }
}

/**
 * Would this message change memory, features, or a ring that runs? Of a message that is not well formed,
 * anything.
 */
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

// How messages are answered that carry no value of their own, or that were refused.

/**
 * SET_DEVICE_STATE_FD failed, and no descriptor comes back; all other requests take any value but 0 for a
 * failure.
 */
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

/**
 * The reply that says that a message was carried out; null if none is wanted.
 * @param protocol what was agreed on
 */
function success(header: Header, protocol: FeatureSet): Reply {
  return acknowledgement(header, protocol, 0);
}

/**
 * The reply that says that a message was refused; null if none is wanted. Fatal ProtocolError if the
 * front-end waits for a reply that cannot be given.
 */
function failure(header: Header, protocol: FeatureSet, reason: string): Reply {
  const { id } = header;
  switch (id) {
    case Request.GET_CONFIG:
      return encodeConfigReply(0, new Uint8Array(0));
    case Request.SET_DEVICE_STATE_FD:
    case Request.CHECK_DEVICE_STATE:
      return encodeNumberReply(id, FAILURE);
    case Request.SET_LOG_BASE:
      if (protocol.has(ProtocolFeature.LOG_SHMFD)) return encodeNumberReply(id, FAILURE);
      break;
    default:
      if (!VALUE_REQUESTS.has(id)) break;
      throw new ProtocolError(
        "value-invalid",
        `${requestName(id)} waits for a value that cannot be given: ${reason}`,
        true,
      );
  }
  return acknowledgement(header, protocol, FAILURE);
}

/** The name under which an error is counted; null if it is one of our own. */
function faultOf(error: unknown): string | null {
  if (error instanceof ProtocolError || error instanceof GuestError) return error.fault;
  return error instanceof HostError ? "host-cannot" : null;
}

function acknowledgement({ id, flags }: Header, protocol: FeatureSet, value: number): Reply {
  const wanted = (flags & FLAG_NEED_REPLY) !== 0 && protocol.has(ProtocolFeature.REPLY_ACK);
  return wanted ? encodeNumberReply(id, value) : null;
}

// Requests of the back-end: the configuration has changed; with kicks by message, also interrupts and errors
// of rings.
//
// None of them waits for its reply: what is said is thrown away when the connection is looked at. A change of
// configuration that cannot be sent now is sent later, once; an interrupt likewise, once for each ring.

/** What waits: a request of this kind about this ring. */
interface Pending {
  readonly id: number;
  readonly ring: number | null;
}

/** The socket of SET_BACKEND_REQ_FD, and what is to go through it. */
class BackChannel implements Disposable {
  readonly #trace: ProtocolTrace | null;
  readonly #negotiated: () => FeatureSet;
  #channel: Channel | null = null;
  #pending: Pending[] = [];

  /** There is no socket yet. @param negotiated tells the protocol features that were agreed on */
  constructor(negotiated: () => FeatureSet, trace: ProtocolTrace | null) {
    this.#negotiated = negotiated;
    this.#trace = trace;
  }

  /** Takes a socket over, in place of the one before. */
  use(channel: Channel): void {
    this.#channel?.[Symbol.dispose]();
    this.#channel = channel;
    this.#pending = [];
  }

  /** Configuration space has changed. */
  configChanged(): void {
    if (this.#negotiated().has(ProtocolFeature.CONFIG)) this.#post(BackendRequest.CONFIG_CHANGE_MSG, null);
  }

  /** A ring without an event has used buffers. */
  interrupt(ring: number): void {
    if (this.#negotiated().has(ProtocolFeature.INBAND_NOTIFICATIONS)) {
      this.#post(BackendRequest.VRING_CALL, ring);
    }
  }

  /** A ring without an event is broken. */
  error(ring: number): void {
    if (this.#negotiated().has(ProtocolFeature.INBAND_NOTIFICATIONS)) {
      this.#post(BackendRequest.VRING_ERR, ring);
    }
  }

  /** Sends what could not be sent before. */
  poll(): void {
    while (this.#pending.length > 0 && this.#send(this.#pending[0])) this.#pending.shift();
  }

  /** Throws away some of what the other end has said, replies or not. True if there may be more. */
  hear(): boolean {
    return this.#channel?.discardReplies() === true;
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#channel?.[Symbol.dispose]();
    this.#channel = null;
    this.#pending = [];
  }

  #post(id: number, ring: number | null): void {
    if (this.#channel === null || !this.#negotiated().has(ProtocolFeature.BACKEND_REQ)) return;
    if (this.#pending.some((pending) => pending.id === id && pending.ring === ring)) return;
    const request = { id, ring };
    if (this.#pending.length > 0 || !this.#send(request)) this.#pending.push(request);
  }

  #send({ id, ring }: Pending): boolean {
    // A simulator's clock stands still until the interrupt is answered; a hypervisor need not answer a
    // change.
    const needReply = ring !== null && this.#negotiated().has(ProtocolFeature.REPLY_ACK);
    if (!this.#channel!.send(encodeBackendRequest(id, ring, needReply))) return false;
    this.#trace?.note({ event: "back-end request", name: backendRequestName(id), ring });
    return true;
  }
}
