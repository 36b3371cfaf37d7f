/**
 * A guest made of software: a complete virtio-net driver that drives a device through real rings in memory of its own.
 * How its queues are worked stands in `guest_link.ts`
 * and `queue_notifications.ts`.
 *
 * The guest distrusts the device as the device distrusts the guest: whatever is wrong with what comes back is counted as
 * `malformed` and, for the first hundred times, described in `errors`. When the device needs a reset, the guest stops
 * until it is attached again.
 * @module
 */
import {
  type Device,
  type DeviceEvent,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "../../core/device.ts";
import { HostError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { GuestMemory } from "../../core/memory.ts";
import { DriverSession } from "../../core/session.ts";
import type { Pollable } from "../../core/transport.ts";
import type { NetHeaderFields } from "../../wire/virtio_net_header.ts";
import { echoHeader, FrameMaker, swapMacs } from "./behaviour.ts";
import { type ControlCommand, NetControl } from "./control.ts";
import type { DriverRing } from "./driver_ring.ts";
import { type GuestQueues, makeQueues, QueueNotifications } from "./guest_queues.ts";
import { chooseFeatures, type GuestOptions, guestOptions, type GuestOptionsInput } from "./options.ts";
import { ReceivedPacket } from "./receive_queue.ts";

/** The guest's own address if the device gives it none: locally administered. */
const LOCAL_MAC: Uint8Array = Uint8Array.of(0x02, 0, 0, 0, 0, 1);
const PLAIN: Partial<NetHeaderFields> = {};

/**
 * A virtio-net driver in memory.
 *
 * @example
 * ```ts
 * import { SoftwareGuest } from "./software_guest.ts";
 * const guest = new SoftwareGuest({ ring: "packed", queueSize: 7, mergeable: false });
 * if (guest.attached) throw new Error("unreachable");
 * ```
 */
export class SoftwareGuest extends NetControl implements Pollable {
  /** Its options, complete. */
  readonly options: GuestOptions;
  readonly #hooks: GuestHooks;
  readonly #record = new GuestRecord();
  #link: GuestLink | null = null;
  #attached = false;

  /**
   * Makes a guest that is not attached yet. RangeError if an option is wrong.
   * @param options what is left out has its default
   * @param hooks whom to tell what
   */
  constructor(options: GuestOptionsInput = {}, hooks: GuestHooks = {}) {
    super();
    this.options = guestOptions(options);
    this.#hooks = hooks;
  }

  /** What it has counted, over all attachments; live. */
  get counters(): GuestCounters {
    return this.#record.counters;
  }

  /** What the device has done wrong, in words: the first hundred times. */
  get errors(): string[] {
    return this.#record.errors;
  }

  /** Is it driving a device? */
  get attached(): boolean {
    return this.#attached;
  }

  /** The session of the last attachment. Error if there was none, as with all that follow. */
  get session(): DriverSession {
    return this.#lastLink().session;
  }

  /** The guest's memory, made anew at each attachment. */
  get memory(): GuestMemory {
    return this.#lastLink().queues.memory;
  }

  /** The features that were agreed on. */
  override get features(): FeatureSet {
    return this.#lastLink().features;
  }

  /** The driver's side of every queue by index; null where the guest has none. */
  get rings(): readonly (DriverRing | null)[] {
    return this.#lastLink().notifications.rings;
  }

  /** Where configuration is read: the session. */
  protected override get configSource(): DriverSession {
    return this.session;
  }

  /**
   * Takes the device over, from reset to receive buffers (virtio 1.2, section 3.1.1); a device that it had before is
   * let go. HostError, with the reason, if the device refuses or the options do not fit it.
   */
  attach(device: Device): DriverSession {
    this.detach();
    const features = chooseFeatures(device.features, this.options);
    const link = new GuestLink(device, features, this.options, this.#hooks, this.#record);
    this.#link = link;
    const { session } = link;
    this.#prepareFrames(link);
    session.writeStatus(0);
    this.#advance(device, STATUS_ACKNOWLEDGE, "noticed");
    this.#advance(device, STATUS_DRIVER, "known");
    session.writeDriverFeatures(features);
    // Before virtio 1.0 there was no step at which a device could refuse.
    if (!this.options.legacy) this.#advance(device, STATUS_FEATURES_OK, `driven with features ${features}`);
    for (const { index, place } of link.queues.placed) {
      session.setupQueue(index, {
        size: place.size,
        descriptors: place.descriptors,
        driver: place.driver,
        device: place.device,
      });
    }
    link.notifications.prepare();
    this.#advance(device, STATUS_DRIVER_OK, "started");
    this.#attached = true;
    this.#begin();
    return session;
  }

  /** Lets the device go: resets it. Does nothing if the guest is not attached. */
  detach(): void {
    if (!this.#attached) return;
    this.#attached = false;
    this.#link!.close();
  }

  /** Posts up to `count` receive buffers on a queue pair, and kicks if wanted. Returns how many fitted. */
  postReceiveBuffers(count: number, queue = 0): number {
    const link = this.#attachedLink(queue);
    const posted = link.queues.receive[queue].post(count);
    link.notifications.publish(2 * queue);
    return posted;
  }

  /**
   * Sends a frame on a queue pair under a header with these fields, the rest 0, and kicks if wanted. False if the ring
   * is full. RangeError for a frame that can never fit.
   */
  send(frame: Uint8Array, header: Partial<NetHeaderFields> = PLAIN, queue = 0): boolean {
    const sent = this.enqueue(frame, header, queue);
    if (sent) this.flush(queue);
    return sent;
  }

  /** Like `send`, but the device only hears of it at the next `flush`: for many frames at once. */
  enqueue(frame: Uint8Array, header: Partial<NetHeaderFields> = PLAIN, queue = 0): boolean {
    return this.#attachedLink(queue).enqueue(frame, header, queue);
  }

  /** Shows the device all frames enqueued on a queue pair, and kicks if wanted. */
  flush(queue = 0): void {
    this.#attachedLink(queue).notifications.publish(2 * queue + 1);
  }

  /**
   * Sends a command (virtio 1.2, section 5.1.6.5) and kicks if wanted. Its `ack` is there once the device has answered
   * and the guest was polled. Error without a control queue or if too many commands are waiting.
   */
  override control(commandClass: number, command: number, data: Uint8Array): ControlCommand {
    const { queues, notifications } = this.#attachedLink(0);
    if (queues.control === null) {
      throw new Error(`Cannot send command ${commandClass}/${command}: feature CTRL_VQ was not negotiated`);
    }
    const waiting = queues.control.add(commandClass, command, data);
    notifications.publish(queues.controlIndex);
    return waiting;
  }

  /** Works the queues: takes what the device has used, reports packets, refills, behaves. */
  poll(nowNs: number): boolean {
    return this.#attached && this.#link!.poll(nowNs);
  }

  /** When the guest wants to be polled although nobody wakes it, in ns; Infinity if never. */
  deadlineNs(): number {
    return this.#attached ? this.#link!.deadlineNs() : Infinity;
  }

  #begin(): void {
    const { queuePairs, receiveBuffers } = this.options;
    const buffers = receiveBuffers === "all" ? Infinity : receiveBuffers;
    for (let pair = 0; pair < queuePairs; pair++) this.postReceiveBuffers(buffers, pair);
    if (queuePairs > 1) this.setQueuePairs(queuePairs);
  }

  #prepareFrames(link: GuestLink): void {
    const { behaviour } = this.options;
    if (typeof behaviour !== "object") return;
    const { frameBytes } = behaviour.send;
    if (!link.queues.transmit[0].fits(frameBytes)) {
      throw new HostError(
        `Cannot send frames of ${frameBytes} bytes through this ring: raise transmitBufferBytes or queueSize`,
      );
    }
    link.maker = new FrameMaker(behaviour.send, this.mac ?? LOCAL_MAC);
  }

  /** Sets a bit of the status; HostError, with the device's reasons, if the device does not take it. */
  #advance(device: Device, bit: number, what: string): void {
    const { session } = this.#link!;
    session.writeStatus(session.status | bit);
    const { status, lastFault } = session;
    if ((status & (bit | STATUS_NEEDS_RESET)) === bit && lastFault === null) return;
    session.writeStatus(status | STATUS_FAILED);
    session.writeStatus(0);
    const reason = lastFault?.message ?? "no reason given";
    throw new HostError(`Cannot attach to device ${device.name}: it refuses to be ${what} (${reason})`);
  }

  #lastLink(): GuestLink {
    if (this.#link === null) {
      throw new Error("Cannot look into a guest that was never attached: attach it first");
    }
    return this.#link;
  }

  #attachedLink(queue: number): GuestLink {
    if (!this.#attached) {
      throw new Error("Cannot use a guest that is not attached to a device: attach it first");
    }
    if (!(queue >= 0 && queue < this.options.queuePairs)) {
      throw new RangeError(
        `Cannot use queue pair ${queue}: it must be from 0 to ${this.options.queuePairs - 1}`,
      );
    }
    return this.#link!;
  }
}

// The software guest's side of one attachment: memory and queues laid out, then worked until the device is let go.
//
// Theory of operation. One turn, `poll()`, goes over the queue pairs: first takes back what the device has transmitted,
// then takes what it has received, posts the receive buffers again, and last looks at the control queue and makes
// frames up if that is the guest's behaviour. From each queue it takes at most `BUDGET` chains; what is left stays
// pending for the next turn (see `queue_notifications.ts`).
//
// A received packet is gathered in the storage of the queues, header fields in `#packet`. Whoever wants to keep it gets
// a copy of both; with option `reuse` everybody looks at the same object and the gathered bytes. An echo is made from
// the gathered bytes in place, after the hook was told.
//
// After `close()` nothing is touched any more; a loop that is under way when a hook closes the link ends at once.

/** Chains that one turn takes from one queue at most. */
const BUDGET = 64;

/** One attachment. Made by `SoftwareGuest`. */
export class GuestLink {
  /** What the guest accepts. */
  readonly features: FeatureSet;
  /** Memory and queues. */
  readonly queues: GuestQueues;
  /** Interrupts and kicks. */
  readonly notifications: QueueNotifications;
  /** The conversation with the device. */
  readonly session: DriverSession;
  /** Makes frames up, if that is the guest's behaviour. Set when the MAC address is known. */
  maker: FrameMaker | null = null;

  readonly #options: GuestOptions;
  readonly #hooks: GuestHooks;
  readonly #record: GuestRecord;
  readonly #echo: NetHeaderFields = {
    flags: 0,
    gsoType: 0,
    hdrLen: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
  };
  #packet = new ReceivedPacket();
  #blocked = false;
  #broken = false;

  /** Lays everything out; the device hears nothing yet. HostError if the options do not fit the device. */
  constructor(
    device: Device,
    features: FeatureSet,
    options: GuestOptions,
    hooks: GuestHooks,
    record: GuestRecord,
  ) {
    this.features = features;
    this.#options = options;
    this.#hooks = hooks;
    this.#record = record;
    this.queues = makeQueues(device, options, features, (problem) => record.malformed(problem));
    const { placed, memory } = this.queues;
    this.notifications = new QueueNotifications(device, placed, options.polling, hooks, record);
    this.session = new DriverSession(device, memory, this.notifications);
  }

  /** Adds a frame to a transmit queue; false if that is full. */
  enqueue(frame: Uint8Array, header: Partial<NetHeaderFields>, pair: number): boolean {
    if (!this.queues.transmit[pair].add(frame, header)) return false;
    this.#record.counters.sent++;
    this.#record.counters.sentBytes += frame.length;
    return true;
  }

  /** Works all queues once. True if anything was done. */
  poll(nowNs: number): boolean {
    if (this.#isBroken()) return false;
    this.notifications.due = false;
    let worked = false;
    for (let pair = 0; pair < this.queues.receive.length; pair++) {
      if (this.#takeTransmitted(pair)) worked = true;
      if (this.#takeReceived(pair)) worked = true;
    }
    if (this.#takeAnswers()) worked = true;
    if (this.maker !== null && this.#make(this.maker, nowNs)) worked = true;
    return worked;
  }

  /** When it wants to be polled: at once if an interrupt is waiting, when a frame is to be made, or never. */
  deadlineNs(): number {
    if (this.#broken) return Infinity;
    if (this.notifications.due) return 0;
    return this.maker === null || this.#blocked ? Infinity : this.maker.deadlineNs;
  }

  /** Resets the device and touches nothing any more. */
  close(): void {
    this.notifications.closed = true;
    this.session.writeStatus(0);
  }

  #takeTransmitted(pair: number): boolean {
    const { notifications } = this;
    const index = 2 * pair + 1;
    if (!notifications.wants(index)) return false;
    const queue = this.queues.transmit[pair];
    let taken = 0;
    do {
      notifications.refuse(index);
      for (; taken < BUDGET && !notifications.closed; taken++) {
        const found = queue.reclaim(this.#options.legacy);
        if (found === "nothing") break;
        if (found === "malformed") continue;
        this.#record.counters.transmitted++;
        this.#blocked = false;
        this.#hooks.onUsedTransmit?.(pair);
      }
    } while (taken < BUDGET && notifications.rest(index));
    return taken > 0;
  }

  #takeReceived(pair: number): boolean {
    const { notifications } = this;
    const index = 2 * pair;
    if (!notifications.wants(index)) return false;
    const queue = this.queues.receive[pair];
    let taken = 0;
    do {
      notifications.refuse(index);
      for (; taken < BUDGET && !notifications.closed; taken++) {
        const found = queue.take(this.#packet);
        if (found === "nothing") break;
        if (found === "packet") this.#deliver(pair, queue.length);
      }
    } while (taken < BUDGET && notifications.rest(index));
    if (taken === 0 || notifications.closed) return taken > 0;
    if (this.#options.receiveBuffers === "all") {
      queue.post(Infinity);
      notifications.publish(index);
    }
    if (this.#options.behaviour === "echo") notifications.publish(index + 1);
    return true;
  }

  #takeAnswers(): boolean {
    const { notifications } = this;
    const { control, controlIndex } = this.queues;
    if (control === null || !notifications.wants(controlIndex)) return false;
    let taken = 0;
    do {
      notifications.refuse(controlIndex);
      for (; taken < BUDGET && !notifications.closed; taken++) {
        const answered = control.take();
        if (answered === null) break;
        this.#hooks.onControl?.(answered);
      }
    } while (taken < BUDGET && notifications.rest(controlIndex));
    return taken > 0;
  }

  #deliver(pair: number, length: number): void {
    const packet = this.#packet;
    const { storage } = this.queues;
    const { reuse, behaviour } = this.#options;
    const { counters } = this.#record;
    packet.queue = pair;
    packet.bytes = reuse ? storage.view(length) : storage.copy(length);
    counters.received++;
    counters.receivedBytes += length;
    const echo = behaviour === "echo" && this.queues.transmit[pair].fits(length) &&
      echoHeader(packet, this.features, this.#echo);
    if (behaviour === "echo" && !echo) counters.echoRefused++;
    this.#hooks.onPacket?.(packet);
    if (!reuse) this.#packet = new ReceivedPacket();
    if (!echo || this.notifications.closed) return;
    const frame = storage.view(length);
    swapMacs(frame);
    if (this.enqueue(frame, this.#echo, pair)) counters.echoed++;
    else counters.echoDropped++;
  }

  #make(maker: FrameMaker, nowNs: number): boolean {
    let made = 0;
    while (made < BUDGET && !this.notifications.closed) {
      const frame = maker.due(nowNs);
      if (frame === null) break;
      this.#blocked = !this.enqueue(frame, PLAIN, 0);
      if (this.#blocked) break;
      maker.sent();
      made++;
    }
    if (made > 0) this.notifications.publish(1);
    return made > 0;
  }

  #isBroken(): boolean {
    if (!this.#broken && (this.session.status & STATUS_NEEDS_RESET) !== 0) {
      this.#broken = true;
      this.#record.counters.needsReset++;
      this.#record.note(`the device needs a reset: ${JSON.stringify(this.session.faults)}`);
    }
    return this.#broken;
  }
}

// What a software guest counts, and whom it tells.

/** What the guest tells the world. */
export interface GuestHooks {
  /** A packet has come. With option `reuse` the object and its bytes are only valid during the call. */
  onPacket?(packet: ReceivedPacket): void;
  /** The device has used a transmitted frame of this queue pair. */
  onUsedTransmit?(queue: number): void;
  /** The device has answered a command. */
  onControl?(command: ControlCommand): void;
  /** Something has happened between guest and device. */
  onEvent?(event: DeviceEvent): void;
  /** The configuration has changed. The device is in the middle of its work: the guest must not be detached here. */
  onConfigChanged?(): void;
}

/** What the guest counts. */
export type GuestCounters = {
  /** Packets received. */
  received: number;
  /** Bytes of these, without headers. */
  receivedBytes: number;
  /** Frames given to the device, echoes included. */
  sent: number;
  /** Bytes of these, without headers. */
  sentBytes: number;
  /** Frames that the device has used. */
  transmitted: number;
  /** Packets returned to their sender. */
  echoed: number;
  /** Packets not returned since the device takes no such frames, or no ring of this size can hold them. */
  echoRefused: number;
  /** Packets not returned since the ring was full. */
  echoDropped: number;
  /** Interrupts. */
  interrupts: number;
  /** Interrupts of a queue on which they were refused: allowed, but a waste. */
  unwantedInterrupts: number;
  /** Kicks. */
  kicks: number;
  /** Configuration changes that the device told. */
  configChanges: number;
  /** Times that the device needed a reset. */
  needsReset: number;
  /** Things that a device must not do; see `errors`. */
  malformed: number;
};

const MAX_ERRORS = 100;

/** What a guest keeps for the world to look at: counters, and what went wrong in words. */
export class GuestRecord {
  /** All counters, live. */
  readonly counters: GuestCounters = {
    received: 0,
    receivedBytes: 0,
    sent: 0,
    sentBytes: 0,
    transmitted: 0,
    echoed: 0,
    echoRefused: 0,
    echoDropped: 0,
    interrupts: 0,
    unwantedInterrupts: 0,
    kicks: 0,
    configChanges: 0,
    needsReset: 0,
    malformed: 0,
  };
  /** What the device has done wrong: the first hundred. */
  readonly errors: string[] = [];

  /** Counts something that a device must not do. */
  malformed(problem: string): void {
    this.counters.malformed++;
    this.note(problem);
  }

  /** Keeps a problem in words, if there is room. */
  note(problem: string): void {
    if (this.errors.length < MAX_ERRORS) this.errors.push(problem);
  }
}
