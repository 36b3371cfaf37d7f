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
import type { DriverSession } from "../../core/session.ts";
import type { Pollable } from "../../core/transport.ts";
import type { NetHeaderFields } from "../../wire/virtio_net_header.ts";
import { FrameMaker } from "./behaviour.ts";
import type { ControlCommand } from "./control_queue.ts";
import type { DriverRing } from "./driver_ring.ts";
import { type GuestCounters, type GuestHooks, GuestRecord } from "./guest_counters.ts";
import { GuestLink } from "./guest_link.ts";
import { chooseFeatures } from "./negotiation.ts";
import { NetControl } from "./net_control.ts";
import { type GuestOptions, guestOptions, type GuestOptionsInput } from "./options.ts";

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
