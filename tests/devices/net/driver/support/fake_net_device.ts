/**
 * A small device that looks like virtio-net to the software guest: it works real queues, keeps what it is
 * sent, delivers what it is told, and misbehaves on request. It looks at a queue only if it was woken, so
 * that a missing kick shows.
 * @module
 */
import { DescriptorChain } from "../../../../../rings/descriptor_chain.ts";
import type { Device, Session } from "../../../../../core/device.ts";
import type { GuestError } from "../../../../../rings/guest_error.ts";
import type { FeatureSet } from "../../../../../core/features.ts";
import type { Virtqueue } from "../../../../../rings/virtqueue.ts";

/** A frame to or from the guest, with its header's bytes. */
export interface FakeFrame {
  readonly queue: number;
  readonly header: Uint8Array;
  readonly bytes: Uint8Array;
}

/** A command as it arrived. */
export interface FakeCommand {
  readonly commandClass: number;
  readonly command: number;
  readonly data: Uint8Array;
  readonly descriptors: number;
}

/** How it misbehaves. */
export interface Mischief {
  /** Written to num_buffers instead of the true number; null leaves the field as it was. */
  numBuffers?: number | null;
  /** Added to the length of the first buffer of a packet. */
  addToLength?: number;
  /** Bytes that each buffer but the last is left short of. */
  leaveEmpty?: number;
  /** Used length of a transmitted frame. */
  transmitLength?: number;
  /** Used length of a command; 1 is right. */
  ackLength?: number;
}

/** The device. */
export class FakeNetDevice implements Device {
  readonly type = 1;
  readonly featureNames = new Map<number, string>();
  readonly name = "fake0";
  readonly features: FeatureSet;
  readonly queueSizes: readonly number[];
  wake: () => void = () => {
    this.wakes++;
    this.#awake = true;
  };

  wakes = 0;
  resets = 0;
  drains = 0;
  ack = 0;
  /** Look at the queues whether woken or not, and refuse kicks. */
  pollsRings = false;
  /** Stop taking what the guest sends. */
  pausesTransmit = false;
  mischief: Mischief = {};
  refuses: GuestError | null = null;
  breaks: GuestError | null = null;
  readonly sent: FakeFrame[] = [];
  readonly commands: FakeCommand[] = [];
  readonly toDeliver: FakeFrame[] = [];
  readonly config = new Uint8Array(64);
  session: Session | null = null;

  readonly #pairs: number;
  readonly #chain = new DescriptorChain();
  #awake = false;

  constructor(features: FeatureSet, queueSize = 256, pairs = 1) {
    this.features = features;
    this.#pairs = pairs;
    this.queueSizes = new Array<number>(2 * pairs + 1).fill(queueSize);
    this.config.set([0x52, 0x54, 0, 0, 0, 0x77, 1, 0, pairs, 0, 0xdc, 0x05]);
  }

  readConfig(offset: number, target: Uint8Array): void {
    for (let i = 0; i < target.length; i++) target[i] = this.config[offset + i] ?? 0;
  }

  writeConfig(offset: number, source: Uint8Array): void {
    this.config.set(source, offset);
  }

  acceptFeatures(_features: FeatureSet): void {
    if (this.refuses !== null) throw this.refuses;
  }

  activate(session: Session): void {
    this.session = session;
    for (const queue of session.queues) {
      if (this.pollsRings) queue?.disableKicks();
      else if (queue?.enableKicks()) this.#awake = true;
    }
  }

  queuesChanged(): void {}

  reset(): void {
    this.session = null;
    this.resets++;
  }

  drain(): void {
    this.drains++;
  }

  deadlineNs(): number {
    return Infinity;
  }

  /** Puts a frame in line for the guest. */
  deliver(bytes: Uint8Array, header: Uint8Array = new Uint8Array(20), queue = 0): void {
    this.toDeliver.push({ queue, header, bytes });
  }

  poll(): boolean {
    if (this.breaks !== null) throw this.breaks;
    const look = this.#awake || this.pollsRings;
    this.#awake = false;
    let worked = this.#deliverAll();
    if (!look) return worked;
    for (let pair = 0; pair < this.#pairs; pair++) {
      if (this.#takeAll(2 * pair + 1, pair)) worked = true;
    }
    if (this.#takeAll(2 * this.#pairs, -1)) worked = true;
    this.#awake = worked;
    return worked;
  }

  get #headerBytes(): number {
    const { features } = this.session!;
    return features.has(57) ? 20 : features.has(32) || features.has(15) ? 12 : 10;
  }

  #takeAll(index: number, pair: number): boolean {
    const queue = this.session!.queues[index] ?? null;
    if (queue === null || (pair >= 0 && this.pausesTransmit)) return false;
    let worked = false;
    if (!this.pollsRings) queue.disableKicks();
    do {
      while (queue.pop(this.#chain)) {
        worked = true;
        if (pair >= 0) this.#takeFrame(queue, pair);
        else this.#takeCommand(queue);
      }
      if (queue.publish()) this.session!.interrupt(index);
    } while (!this.pollsRings && queue.enableKicks());
    return worked;
  }

  #takeFrame(queue: Virtqueue, pair: number): void {
    const header = new Uint8Array(this.#headerBytes);
    const bytes = new Uint8Array(this.#chain.readableBytes - header.length);
    this.#chain.read(header, 0, header.length);
    this.#chain.read(bytes, 0, bytes.length);
    this.sent.push({ queue: pair, header, bytes });
    queue.push(this.#chain.head, this.mischief.transmitLength ?? 0);
  }

  #takeCommand(queue: Virtqueue): void {
    const all = new Uint8Array(this.#chain.readableBytes);
    this.#chain.read(all, 0, all.length);
    const { descriptors } = this.#chain;
    this.commands.push({ commandClass: all[0], command: all[1], data: all.slice(2), descriptors });
    this.#chain.write(Uint8Array.of(this.ack), 0, 1);
    queue.push(this.#chain.head, this.mischief.ackLength ?? 1);
  }

  #deliverAll(): boolean {
    let delivered = 0;
    const touched = new Set<number>();
    for (const frame of this.toDeliver) {
      const queue = this.session!.queues[2 * frame.queue]!;
      // A round is bounded: the session gives no more out than its budget.
      if (delivered === 1000 || !this.#deliverOne(queue, frame)) break;
      touched.add(2 * frame.queue);
      delivered++;
    }
    this.toDeliver.splice(0, delivered);
    for (const index of touched) {
      if (this.session!.queues[index]!.publish()) this.session!.interrupt(index);
    }
    return delivered > 0;
  }

  #deliverOne(queue: Virtqueue, frame: FakeFrame): boolean {
    const headerBytes = this.#headerBytes;
    const mergeable = this.session!.features.has(15);
    const packet = new Uint8Array(headerBytes + frame.bytes.length);
    packet.set(frame.header.subarray(0, headerBytes));
    packet.set(frame.bytes, headerBytes);
    const taken: { head: number; written: number }[] = [];
    let room = 0;
    while (room < packet.length && queue.pop(this.#chain)) {
      const count = this.#chain.writableBytes - (this.mischief.leaveEmpty ?? 0);
      taken.push({ head: this.#chain.head, written: Math.min(count, packet.length - room) });
      room += count;
      if (!mergeable) break;
    }
    if (room < packet.length) {
      queue.unpop(taken.length);
      if (queue.enableKicks()) this.wake();
      return false;
    }
    queue.unpop(taken.length);
    this.#writeNumBuffers(packet, headerBytes, taken.length);
    let at = 0;
    for (let i = 0; i < taken.length; i++) {
      queue.pop(this.#chain);
      this.#chain.write(packet, at, taken[i].written);
      at += taken[i].written;
      queue.push(taken[i].head, taken[i].written + (i === 0 ? this.mischief.addToLength ?? 0 : 0));
    }
    return true;
  }

  #writeNumBuffers(packet: Uint8Array, headerBytes: number, count: number): void {
    if (headerBytes < 12) return;
    const { numBuffers } = this.mischief;
    const value = numBuffers === undefined ? count : numBuffers ?? 0xa5a5;
    packet[10] = value & 0xff;
    packet[11] = value >>> 8;
  }
}
