/**
 * A TAP interface as a network.
 *
 * Theory of operation. Each queue of the interface is a descriptor, watched by the reactor and read and
 * written without waiting. Reading ends when the kernel has no more (its next frame wakes the reactor), when
 * the limit is reached, or when the pool is empty. Writing ends when the kernel has no room (EAGAIN): that
 * frame and all behind it stay the device's, which offers them again when there is. Anything else that the
 * kernel says to a frame drops it, counted by the error's name; an interface that is down (EIO) is like a
 * cable that is unplugged.
 *
 * What the kernel may hand over unfinished follows the guest (`guestCapabilities`): without a guest that
 * takes large frames it segments and checksums itself. Frames that it has queued before are as they are; the
 * device judges each.
 *
 * The kernel spreads flows over all queues that are attached. Those behind the pairs that the guest uses are
 * detached, and with them goes what they had, which would not be received. A queue can be given to another
 * thread, which makes a transport of its own of a duplicate of the descriptor; here it is then only written
 * to, on behalf of the device itself.
 *
 * Nothing is read while there is no guest; what the kernel has queued meanwhile is thrown away when one comes
 * (`hasGuest`).
 *
 * If the interface is deleted, the transport is `finished`, and `close` rejects with the reason.
 *
 * Invariants: watches end before descriptors are closed; the pool gets back what the reader has set aside.
 *
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { CallBatch } from "../../host/call_batch.ts";
import type { FileDescriptor } from "../../host/descriptors.ts";
import { errno, libc, type LibcSymbols } from "../../host/libc.ts";
import { FrameBatch, MAX_FRAME_BYTES } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import * as tun from "./open_tap.ts";
import type { OpenTap } from "./open_tap.ts";
import { countError, type TapCounters, TapReader, TapWriter } from "./tap_queue.ts";

/** Frames written in one call of `send`: as many as a few large ones are cut into. */
const BURST = 128;
/** System calls that are made at once. */
const MAX_CALLS = 64;
/** Frames thrown away at once. */
const STALE_BURST = 64;

/**
 * Most frames that are taken from a queue and thrown away when a guest comes; the kernel keeps 500 to 1000 by
 * default.
 */
const MAX_STALE_FRAMES = 4096;

/** What a transport is made of. */
export interface TapSettings {
  /** Frames come from here. */
  readonly pool: FramePool;
  /** What to count in. */
  readonly counters: TapCounters;
  /** May unfinished frames be exchanged? */
  readonly offloads: boolean;
  /** Are several system calls made at once, where the kernel allows that? Default: yes. */
  readonly batchesCalls?: boolean;
  /** Has the reactor woken when something happens to a descriptor. */
  watch(number: number): Disposable;
}

/** A queue that is given to another thread. Plain JSON. */
export interface GivenQueue {
  /** Its descriptor, which stays with the giver. */
  readonly descriptor: number;
  /** The interface's name. */
  readonly name: string;
  /** Bytes of the virtio-net header: 12, 10, or 0 for none. */
  readonly headerBytes: number;
  /** The interface's MTU, in bytes. */
  readonly mtu: number;
  /** Does the kernel know large UDP frames, and may they be exchanged? */
  readonly largeUdp: boolean;
  /** May unfinished frames be exchanged? */
  readonly offloads: boolean;
}

/** A TAP that carries frames. */
export class TapTransport implements FrameTransport {
  /** As long as a frame can be. */
  readonly maxFrameBytes: number = MAX_FRAME_BYTES;
  /** All that the kernel finishes itself. */
  readonly capabilities: OffloadCapabilities;
  /** One for each queue of the interface. */
  readonly queuePairs: number;
  /** The interface's name. */
  readonly interfaceName: string;
  readonly #queues: readonly FileDescriptor[];
  readonly #watches: Disposable[] = [];
  readonly #headerBytes: number;
  readonly #mtu: number;
  /** How many queues are attached, from the first one on. */
  #pairs: number;
  /** Makes several calls at once; null where the kernel refuses that. */
  readonly #calls: CallBatch | null;
  /** By queue: may a write find no room? */
  readonly #mayWait: readonly boolean[];
  readonly #reader: TapReader;
  readonly #writer: TapWriter;
  readonly #counters: TapCounters;
  readonly #offloads: boolean;
  readonly #largeUdp: boolean;
  readonly #c: LibcSymbols = libc();
  /** Queues that another thread reads. */
  readonly #given = new Set<number>();
  #moreAtNs = Infinity;
  #gone = false;
  #open = true;

  /** Owns the queues of `tap` from now on, also if it throws: HostError if they cannot be watched. */
  constructor(tap: OpenTap, settings: TapSettings) {
    const { pool, counters } = settings;
    this.#queues = tap.queues;
    this.#headerBytes = tap.headerBytes;
    this.#mtu = tap.mtu;
    this.#pairs = tap.queues.length;
    this.#counters = counters;
    this.#offloads = settings.offloads && tap.headerBytes > 0;
    this.#largeUdp = this.#offloads && tap.largeUdp;
    this.capabilities = tapCapabilities(this.#offloads, this.#largeUdp);
    this.queuePairs = tap.queues.length;
    this.interfaceName = tap.name;
    this.#calls = settings.batchesCalls === false ? null : CallBatch.open(MAX_CALLS);
    this.#reader = new TapReader(pool, tap.headerBytes, counters, this.#calls);
    this.#writer = new TapWriter(pool, tap.headerBytes, counters, this.#calls);
    this.#mayWait = tap.queues.map((queue) => tun.hasSendLimit(queue));
    try {
      for (const { number } of tap.queues) this.#watches.push(settings.watch(number));
    } catch (cause) {
      this[Symbol.dispose]();
      throw cause;
    }
  }

  /** Has the interface been deleted? */
  get finished(): boolean {
    return this.#gone;
  }

  /** Reads frames that have arrived. */
  receive(out: FrameBatch, limit: number, queue: number, nowNs: number): number {
    if (this.#gone || !this.#open || queue >= this.#pairs) return 0;
    const count = this.#reader.read(this.#queues[queue].number, out, limit);
    if (this.#reader.end === "gone") this.#gone = true;
    // A device that got nothing does not call again by itself, and the kernel has told of these frames
    // already.
    this.#moreAtNs = count === 0 && this.#reader.end === "more" ? nowNs : Infinity;
    return count;
  }

  /** Writes frames, up to 128, until there is no room. */
  send(batch: FrameBatch, queue: number, _nowNs: number): number {
    if (!this.#open) return 0;
    const number = this.#queues[queue].number;
    const count = Math.min(batch.length, BURST);
    let taken = 0;
    if (!this.#gone) {
      taken = this.#writer.writeFirst(number, batch, count, this.#mayWait[queue]);
      this.#gone = this.#writer.end === "gone";
    }
    if (this.#gone) {
      this.#counters.noInterface += count - taken;
      taken = count;
    }
    // Last to first: so they come out of the pool in the same order the next time.
    for (let i = taken - 1; i >= 0; i--) batch.at(i).release();
    return taken;
  }

  /** At once, if frames were left in the kernel's queue; else the kernel tells. */
  deadlineNs(): number {
    return this.#moreAtNs;
  }

  /** Has the kernel finish what the guest does not take unfinished. */
  guestCapabilities(capabilities: OffloadCapabilities): void {
    if (!this.#offloads || this.#gone || !this.#open) return;
    const wanted = BigInt(offloadFlags(capabilities, this.#largeUdp));
    for (const { number } of this.#queues) {
      if (this.#c.ioctlValue(number, tun.TUNSETOFFLOAD, wanted) === 0) continue;
      // The device drops what the guest does not take, so that nothing wrong reaches it.
      countError(this.#counters, "offload", errno());
    }
  }

  /** What the kernel has queued while there was no guest is for none that comes. */
  hasGuest(present: boolean): void {
    if (!present || this.#gone || !this.#open) return;
    const stale = new FrameBatch();
    for (let queue = 0; queue < this.#pairs; queue++) {
      if (this.#given.has(queue)) continue;
      for (let read = 0; read < MAX_STALE_FRAMES; read += STALE_BURST) {
        this.#counters.noGuest += this.#reader.read(this.#queues[queue].number, stale, STALE_BURST);
        stale.releaseAll();
        if (this.#reader.end !== "more") break;
      }
    }
    if (this.#reader.end === "gone") this.#gone = true;
  }

  /** Attaches the first `pairs` queues and detaches the others. */
  useQueuePairs(pairs: number): void {
    if (this.#gone || !this.#open || this.#queues.length === 1) return;
    const request = new tun.InterfaceRequest();
    const { bytes } = request;
    for (let queue = pairs; queue < this.#pairs; queue++) {
      request.flags = tun.IFF_DETACH_QUEUE;
      this.#setQueue(queue, bytes);
    }
    for (let queue = this.#pairs; queue < pairs; queue++) {
      request.flags = tun.IFF_ATTACH_QUEUE;
      this.#setQueue(queue, bytes);
    }
    this.#pairs = pairs;
  }

  /** Leaves queue `queue` to another thread, which is told by this how to take it. */
  giveToWorker(queue: number): GivenQueue {
    this.#watches[queue][Symbol.dispose]();
    this.#given.add(queue);
    return {
      descriptor: this.#queues[queue].number,
      name: this.interfaceName,
      headerBytes: this.#headerBytes,
      mtu: this.#mtu,
      largeUdp: this.#largeUdp,
      offloads: this.#offloads,
    };
  }

  /** Rejects with HostError if the interface was deleted. */
  close(): Promise<void> {
    if (!this.#gone) return Promise.resolve();
    return Promise.reject(
      new HostError(
        `Cannot go on with interface ${this.interfaceName}: it was deleted; make it again and restart`,
      ),
    );
  }

  /** Lets the interface go; it disappears unless it is persistent. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    for (const watch of this.#watches) watch[Symbol.dispose]();
    for (const queue of this.#queues) queue[Symbol.dispose]();
    this.#reader[Symbol.dispose]();
    this.#calls?.[Symbol.dispose]();
  }

  #setQueue(queue: number, request: Uint8Array<ArrayBuffer>): void {
    // A queue that cannot be detached only costs frames that are not received.
    if (this.#c.ioctl(this.#queues[queue].number, tun.TUNSETQUEUE, request) !== 0) {
      countError(this.#counters, "queue", errno());
    }
  }
}

/** What the kernel finishes itself. @param largeUdp does it know large UDP frames? */
export function tapCapabilities(offloads: boolean, largeUdp: boolean): OffloadCapabilities {
  if (!offloads) return OffloadCapabilities.none;
  return largeUdp ? OffloadCapabilities.all : OffloadCapabilities.of("csum", "tso4", "tso6", "ecn");
}

/**
 * The kernel takes large frames only together with partial checksums, ECN only with TCP, and both kinds of
 * UDP at once.
 */
function offloadFlags(capabilities: OffloadCapabilities, largeUdp: boolean): number {
  const { csum, tso4, tso6, ecn, uso4, uso6 } = capabilities;
  if (!csum) return 0;
  let flags = tun.TUN_F_CSUM;
  if (tso4) flags |= tun.TUN_F_TSO4;
  if (tso6) flags |= tun.TUN_F_TSO6;
  if (ecn && (tso4 || tso6)) flags |= tun.TUN_F_TSO_ECN;
  if (uso4 && uso6 && largeUdp) flags |= tun.TUN_F_USO4 | tun.TUN_F_USO6;
  return flags;
}
