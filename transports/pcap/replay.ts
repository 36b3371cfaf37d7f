/**
 * A capture as a network: its packets arrive, and what the device sends is written to another capture.
 *
 * Theory of operation. `#seek` reads ahead to the next packet that the guest is to have and leaves it in the
 * reader (`#ready`); `receive` copies it into a frame of the pool once its time has come. So the time of the
 * next frame is always known (`deadlineNs`), and `finished` is true as soon as the last one was delivered.
 * The capture's time 0 is the first packet's; the replay's is the first `receive` or `send`.
 *
 * Work is bounded: one call reads at most MAX_STEPS_A_CALL records or blocks, and MAX_BYTES_A_CALL, beside
 * the frames it delivers; if that did not lead to a frame, `deadlineNs` asks to be called again at once.
 *
 * A pipe may have no more at the moment. Then the replay asks for nothing and delivers what is there; its
 * source wakes the reactor. The capture's time 0 is then the moment at which the first frame could be read.
 * By a manual clock, which its source holds, the result must be that of a file: frames that `receive` would
 * have returned together are gathered until all are there.
 *
 * A damaged capture is delivered up to the damage, then the replay is `finished`; `failure` and the rejection
 * of `close` say what is wrong. A capture that is damaged before its first frame is refused by the
 * constructor.
 * @module
 */
import type { ManualClock } from "../../core/clock.ts";
import { HostError } from "../../core/errors.ts";
import { FrameBatch, MAX_FRAME_BYTES } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";
import type { CaptureReader } from "./capture_reader.ts";
import type { CaptureWriter } from "./capture_writer.ts";
import { applyPacketFlags, type CaptureOddities, DIRECTION_OUTBOUND } from "./captured_packet.ts";

/** When packets of a capture arrive: at their recorded times, or as fast as the guest takes them. */
export type ReplayPace = "recorded" | "fast";
/** Which packets of a capture arrive: those for the guest, or all. */
export type ReplayTake = "guest" | "all";

/** The most records or blocks read in one call without delivering a frame. */
const MAX_STEPS_A_CALL = 1024;
/** The most bytes read in one call without delivering a frame: what is stepped over may be long. */
const MAX_BYTES_A_CALL = 4 * 1024 * 1024;
/** The most frames of one call whose flags are kept for a recorder; a device asks for no more at once. */
const MAX_FLAGGED = 64;

/** What a replay counts. */
export interface ReplayCounters extends Record<string, number> {
  /** Packets read from the capture, of every kind. */
  read: number;
  /** Frames delivered. */
  taken: number;
  /** Frames left out because they are not for the guest. */
  notForGuest: number;
  /** Packets left out because the capture has not all of their bytes. */
  snapped: number;
  /** Packets left out because they are of another link type. */
  otherLinkType: number;
  /** Packets left out because no frame can be that long. */
  tooLong: number;
  /** Packets left out because they are shorter than an Ethernet header. */
  tooShort: number;
  /** Packets left out because their block is not right, or beyond a limit of the reader. */
  unreadable: number;
  /** Packets delivered although their captured length exceeds the original one. */
  capturedAboveOriginal: number;
  /** Packets delivered whose IP length contradicts the frame check sequence that the file declares. */
  fcsContradictsIp: number;
  /** 1 if the capture is damaged or cut off. */
  damaged: number;
  /** 1 if that is because the file ends within a record, a block or its gzip stream. */
  cutOff: number;
  /** Frames that the device sent. */
  sent: number;
  /** Frames written. */
  written: number;
  /** Frames not written because the file took no more, or writing failed. */
  writeDropped: number;
}

/** Counters at 0. */
export function newReplayCounters(): ReplayCounters {
  return {
    read: 0,
    taken: 0,
    notForGuest: 0,
    snapped: 0,
    otherLinkType: 0,
    tooLong: 0,
    tooShort: 0,
    unreadable: 0,
    capturedAboveOriginal: 0,
    fcsContradictsIp: 0,
    damaged: 0,
    cutOff: 0,
    sent: 0,
    written: 0,
    writeDropped: 0,
  };
}

/** What a replay is made of. */
export interface ReplaySettings {
  /** The capture to replay; null for none. Owned from now on. */
  readonly reader: CaptureReader | null;
  /** Makes the capture to write, which begins at this time; null for none. */
  readonly openWriter: ((startUnixNs: bigint) => CaptureWriter) | null;
  /** When packets arrive. */
  readonly pace: ReplayPace;
  /** Which packets arrive. */
  readonly take: ReplayTake;
  /** The guest's address in the capture, six bytes. */
  readonly guestMac: Uint8Array;
  /** Frames come from here. */
  readonly pool: FramePool;
  /**
   * A manual clock that is held while the capture has no more at the moment; left out or null if it is not
   * waited for.
   */
  readonly clock?: ManualClock | null;
  /** What to count in. */
  readonly counters: ReplayCounters;
}

/** Replays a capture and writes another. */
export class PcapReplay implements FrameTransport {
  /** As long as a frame can be. */
  readonly maxFrameBytes: number = MAX_FRAME_BYTES;
  /** A file holds frames as they are on a wire. */
  readonly capabilities: OffloadCapabilities = OffloadCapabilities.none;
  /** A file is one queue. */
  readonly queuePairs: number = 1;
  /**
   * The `epb_flags` of the frames that the last `receive` has delivered, up to the first MAX_FLAGGED of them.
   */
  readonly packetFlags: Uint32Array<ArrayBuffer> = new Uint32Array(MAX_FLAGGED);
  readonly #reader: CaptureReader | null;
  readonly #writer: CaptureWriter | null;
  readonly #recorded: boolean;
  readonly #takeAll: boolean;
  readonly #guestMac: Uint8Array;
  readonly #pool: FramePool;
  readonly #counters: ReplayCounters;
  readonly #clock: ManualClock | null;
  /** Frames that others must leave with, which a held clock waits for. */
  readonly #gathered: FrameBatch = new FrameBatch();
  #acceptsPartial = true;
  /** Is the first frame still to come, so that it is not known when the capture begins? */
  #isLate = false;
  #ready = false;
  #waits = false;
  #ended: boolean;
  #started = false;
  #startNs = 0;
  #nowNs = 0;
  #failure: HostError | null = null;

  /** Opens both captures. Throws HostError if one cannot be used. */
  constructor(settings: ReplaySettings) {
    this.#reader = settings.reader;
    this.#recorded = settings.pace === "recorded";
    this.#takeAll = settings.take === "all";
    this.#guestMac = settings.guestMac;
    this.#pool = settings.pool;
    this.#counters = settings.counters;
    this.#clock = settings.clock ?? null;
    this.#ended = settings.reader === null;
    try {
      this.#seek();
      if (this.#failure !== null) throw this.#failure;
      this.#isLate = this.#waits;
      this.#writer = settings.openWriter?.(this.startUnixNs) ?? null;
    } catch (error) {
      this.#reader?.[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * When the first packet was captured, in ns since 1970; 0 without a capture, and before its first packet is
   * there.
   */
  get startUnixNs(): bigint {
    return this.#reader?.startUnixNs ?? 0n;
  }

  /** Is it not known yet when the first packet was captured, because a pipe has not given it? */
  get isLate(): boolean {
    return this.#isLate;
  }

  /** Has every frame been delivered? */
  get finished(): boolean {
    return this.#ended && !this.#ready && this.#gathered.length === 0;
  }

  /** Has it still to find out whether there is another frame at this time? */
  get isBehind(): boolean {
    if (this.#ready || this.#ended) return false;
    return !this.#waits || this.#clock?.isHeld === true;
  }

  /** What is wrong with the capture, once that was met; null if all is well. */
  get failure(): HostError | null {
    return this.#failure;
  }

  /** What is odd about the capture so far; null without one. */
  get oddities(): Readonly<CaptureOddities> | null {
    return this.#reader?.oddities ?? null;
  }

  /** The numbers of the first snapped packets, which were left out. */
  get snappedNumbers(): readonly number[] {
    return this.#reader?.snappedNumbers ?? [];
  }

  /** Delivers the frames whose time has come. */
  receive(out: FrameBatch, limit: number, _queue: number, nowNs: number): number {
    this.#start(nowNs);
    const reader = this.#reader;
    if (this.#isLate && (this.#ready || this.#seek())) this.#startAnew(nowNs);
    const into = this.#clock === null ? out : this.#gathered;
    let count = this.#gathered.length;
    let isShort = false;
    while (reader !== null && count < limit) {
      if (!this.#ready && !this.#seek()) {
        isShort = this.#waits;
        break;
      }
      const packet = reader.packet;
      if (this.#recorded && packet.timeNs > nowNs - this.#startNs) break;
      const frame = this.#pool.take(packet.length);
      if (frame === null) break;
      packet.copyTo(frame.bytes, frame.start);
      frame.number = packet.number;
      const flags = applyPacketFlags(packet.flags, frame, this.#acceptsPartial);
      if (count < MAX_FLAGGED) this.packetFlags[count] = flags;
      into.push(frame);
      this.#ready = false;
      this.#counters.taken++;
      count++;
    }
    if (!this.#ready) this.#seek();
    if (into === out) return count;
    return isShort && this.#clock!.isHeld ? 0 : this.#release(out, Math.min(count, limit));
  }

  /** Writes and releases frames. What the file cannot take is counted: a slow disk holds no guest up. */
  send(batch: FrameBatch, _queue: number, nowNs: number): number {
    this.#start(nowNs);
    const writer = this.#writer;
    for (let i = 0; i < batch.length; i++) {
      const frame = batch.at(i);
      if (writer !== null) {
        if (writer.write(frame, DIRECTION_OUTBOUND, nowNs - this.#startNs)) this.#counters.written++;
        else this.#counters.writeDropped++;
      }
      this.#counters.sent++;
      frame.release();
    }
    return batch.length;
  }

  /** A checksum that is not ready is computed for a guest that does not take it so. */
  guestCapabilities({ csum }: OffloadCapabilities): void {
    this.#acceptsPartial = csum;
  }

  /** When the next frame's time comes; the present while it has come or the search for it goes on. */
  deadlineNs(): number {
    if (this.finished || (this.#waits && !this.#ready)) return Infinity;
    if (!this.#ready || !this.#recorded || !this.#started) return this.#nowNs;
    return Math.max(this.#nowNs, this.#startNs + this.#reader!.packet.timeNs);
  }

  /** Completes what was written. Rejects with HostError if that failed or the capture is damaged. */
  async close(): Promise<void> {
    try {
      await this.#writer?.close();
    } finally {
      const lost = this.#writer?.unwritten ?? 0;
      this.#counters.written -= lost;
      this.#counters.writeDropped += lost;
    }
    if (this.#failure !== null) throw this.#failure;
  }

  /** Closes both files. */
  [Symbol.dispose](): void {
    this.#ended = true;
    this.#ready = false;
    this.#gathered.releaseAll();
    this.#reader?.[Symbol.dispose]();
    this.#writer?.[Symbol.dispose]();
  }

  /** Hands the first `count` of the gathered frames over. */
  #release(out: FrameBatch, count: number): number {
    for (let i = 0; i < count; i++) out.push(this.#gathered.at(i));
    this.#gathered.dropFirst(count);
    return count;
  }

  #start(nowNs: number): void {
    if (!Number.isFinite(nowNs)) return;
    this.#nowNs = nowNs;
    if (this.#started) return;
    this.#started = true;
    this.#startNs = nowNs;
  }

  /** The first frame of a pipe is there: this is when the capture begins. */
  #startAnew(nowNs: number): void {
    this.#isLate = false;
    if (Number.isFinite(nowNs)) this.#startNs = nowNs;
    this.#writer?.setStart(this.startUnixNs);
  }

  /**
   * Reads on to a frame that the guest is to have; false if there is none now, or the work of one call is
   * done.
   */
  #seek(): boolean {
    const reader = this.#reader;
    if (reader === null) return false;
    const most = reader.offset + MAX_BYTES_A_CALL;
    this.#waits = false;
    for (let steps = 0; !this.#ready && !this.#waits && !this.#ended && steps < MAX_STEPS_A_CALL; steps++) {
      try {
        const step = reader.step();
        if (step === "end") this.#ended = true;
        else if (step === "wait") this.#waits = true;
        else if (step === "whole") this.#ready = this.#wanted(reader);
        else if (step === "unreadable") this.#counters.unreadable++;
      } catch (error) {
        if (!(error instanceof HostError)) throw error;
        this.#ended = true;
        this.#failure = error;
        this.#counters.damaged = 1;
        if (reader.isCutOff) this.#counters.cutOff = 1;
      }
      if (reader.offset > most) break;
    }
    const counters = this.#counters;
    counters.read = reader.counters.read;
    counters.snapped = reader.counters.snapped;
    counters.otherLinkType = reader.counters.otherLinkType;
    counters.capturedAboveOriginal = reader.oddities.capturedAboveOriginal;
    counters.fcsContradictsIp = reader.oddities.fcsContradictsIp;
    return this.#ready;
  }

  #wanted(reader: CaptureReader): boolean {
    const { bytes, at, length } = reader.packet;
    if (length > MAX_FRAME_BYTES) {
      this.#counters.tooLong++;
      return false;
    }
    if (length < ETHERNET_HEADER_BYTES) {
      this.#counters.tooShort++;
      return false;
    }
    if (this.#takeAll) return true;
    // A broadcast or multicast that the guest itself sent would come back to it as an echo.
    const group = (bytes[at] & 1) === 1;
    const wanted = group ? !this.#isGuest(bytes, at + 6) : this.#isGuest(bytes, at);
    if (!wanted) this.#counters.notForGuest++;
    return wanted;
  }

  #isGuest(bytes: Uint8Array, at: number): boolean {
    for (let i = 0; i < 6; i++) if (bytes[at + i] !== this.#guestMac[i]) return false;
    return true;
  }
}
