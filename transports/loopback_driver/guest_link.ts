/**
 * The software guest's side of one attachment: memory and queues laid out, then worked until the device is let go.
 *
 * Theory of operation. One turn, `poll()`, goes over the queue pairs: first takes back what the device has transmitted,
 * then takes what it has received, posts the receive buffers again, and last looks at the control queue and makes
 * frames up if that is the guest's behaviour. From each queue it takes at most `BUDGET` chains; what is left stays
 * pending for the next turn (see `queue_notifications.ts`).
 *
 * A received packet is gathered in the storage of the queues, header fields in `#packet`. Whoever wants to keep it gets
 * a copy of both; with option `reuse` everybody looks at the same object and the gathered bytes. An echo is made from
 * the gathered bytes in place, after the hook was told.
 *
 * After `close()` nothing is touched any more; a loop that is under way when a hook closes the link ends at once.
 * @module
 */
import { type Device, STATUS_NEEDS_RESET } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import { DriverSession } from "../../core/session.ts";
import type { NetHeaderFields } from "../../wire/virtio_net_header.ts";
import { echoHeader, type FrameMaker, swapMacs } from "./behaviour.ts";
import type { GuestHooks, GuestRecord } from "./guest_counters.ts";
import { type GuestQueues, makeQueues } from "./guest_queues.ts";
import type { GuestOptions } from "./options.ts";
import { QueueNotifications } from "./queue_notifications.ts";
import { ReceivedPacket } from "./received_packet.ts";

/** Chains that one turn takes from one queue at most. */
const BUDGET = 64;
const PLAIN: Partial<NetHeaderFields> = {};

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
