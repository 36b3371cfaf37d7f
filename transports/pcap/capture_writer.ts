/**
 * Writes a capture with nanosecond stamps: pcapng, or classic pcap where a tool wants it. The same packets
 * give the same bytes: no host name, no wall clock.
 * @module
 */
import type { Frame } from "../../pipeline/frame.ts";
import type { CaptureFormat } from "./capture_reader.ts";
import { CaptureSink, type RecordEncoder } from "./capture_sink.ts";
import { MAX_CAPTURED_BYTES, offloadFlags } from "./captured_packet.ts";
import { PcapEncoder } from "./pcap_format.ts";
import { PcapngEncoder } from "./pcapng_writer.ts";

/** How a capture is written. */
export interface CaptureWriterOptions {
  /** The format; default pcapng. */
  format?: CaptureFormat;
  /** The time that is 0 in `timeNs`, in ns since 1970; default 0. */
  startUnixNs?: bigint;
}

/**
 * Writes a capture. In pcapng, interface 0 is `toGuest` (inbound, as the guest sees it) and interface 1
 * `fromGuest` (outbound). Frames in several pieces are written whole.
 */
export class CaptureWriter implements Disposable {
  readonly #sink: CaptureSink;
  readonly #encoder: RecordEncoder;
  #staged = 0;
  #lastNs = 0;

  /**
   * Begins a capture: the header is written at once.
   * @param sink where to write, owned from now on; @param options the format and its start
   */
  constructor(sink: CaptureSink, options: CaptureWriterOptions = {}) {
    this.#sink = sink;
    const start = options.startUnixNs ?? 0n;
    this.#encoder = options.format === "pcap" ? new PcapEncoder(start) : new PcapngEncoder(start);
    const header = this.#encoder.fileHeader();
    sink.bytes.set(header, sink.reserve(header.length));
    sink.commit(header.length, 0);
  }

  /**
   * Creates the file `path`: classic pcap if its name ends in `.pcap`, else pcapng. Throws HostError if it
   * cannot.
   */
  static open(path: string, startUnixNs = 0n): CaptureWriter {
    return new CaptureWriter(CaptureSink.open(path), { format: formatOf(path), startUnixNs });
  }

  /** Writes the header, and lets everything else follow, if the sink was held until now. Throws HostError. */
  begin(): void {
    this.#sink.begin();
  }

  /**
   * Says which time is 0 in `timeNs` from now on, in ns since 1970, if that was not known when the capture
   * was begun.
   */
  setStart(startUnixNs: bigint): void {
    this.#encoder.setStart(startUnixNs);
  }

  /** Has writing failed, so that nothing more will be taken? `close` says why. */
  get failed(): boolean {
    return this.#sink.failure !== null;
  }

  /**
   * Encodes a frame, which `commit` then keeps and the next call forgets. False if it cannot be taken now.
   * @param frame all its pieces are copied; @param flags its `epb_flags`, less those that its header tells; a
   * direction, as the guest sees it, is one of them
   * @param timeNs when, in ns from the start of the capture; @param comment for the reader; pcapng only
   */
  stage(frame: Frame, flags: number, timeNs: number, comment = ""): boolean {
    const { header } = frame;
    const at = this.#reserve(
      frame.total,
      flags | offloadFlags(header.flags, header.gsoType),
      timeNs,
      comment,
    );
    if (at < 0) return false;
    frame.copyTo(this.#sink.bytes, at);
    return true;
  }

  /** Keeps the frame that was staged last. */
  commit(): void {
    this.#sink.commit(this.#staged);
    this.#staged = 0;
  }

  /** Writes a frame: `stage` and `commit`. False if it cannot be taken now. */
  write(frame: Frame, flags: number, timeNs: number, comment = ""): boolean {
    const taken = this.stage(frame, flags, timeNs, comment);
    if (taken) this.commit();
    return taken;
  }

  /**
   * Writes a packet that is no frame of a pool; otherwise as `write`.
   * @param flags its `epb_flags`; a direction alone is one of them
   */
  writeBytes(bytes: Uint8Array, flags: number, timeNs: number, comment = ""): boolean {
    const at = this.#reserve(bytes.length, flags, timeNs, comment);
    if (at < 0) return false;
    this.#sink.bytes.set(bytes, at);
    this.commit();
    return true;
  }

  /** Frames that were taken and, because writing has failed, are not in the file. */
  get unwritten(): number {
    return this.#sink.unwritten;
  }

  /** Completes the file. Rejects with HostError if a write failed. */
  close(): Promise<void> {
    return this.#sink.close();
  }

  /** Closes the file if `close` has not. */
  [Symbol.dispose](): void {
    this.#sink[Symbol.dispose]();
  }

  #reserve(length: number, flags: number, timeNs: number, comment: string): number {
    this.#staged = 0;
    if (length > MAX_CAPTURED_BYTES) return -1;
    const { headBytes, maxTailBytes } = this.#encoder;
    const at = this.#sink.reserve(headBytes + length + maxTailBytes);
    if (at < 0) return -1;
    // A last flush happens at Infinity: it keeps the stamp of the packet before it.
    if (Number.isFinite(timeNs)) this.#lastNs = timeNs;
    this.#staged = this.#encoder.encode(this.#sink, at, length, flags, this.#lastNs, comment);
    return at + headBytes;
  }
}

/** The format that a file of this name is to have: classic pcap if the name ends in `.pcap`, else pcapng. */
export function formatOf(path: string): CaptureFormat {
  return path.toLowerCase().endsWith(".pcap") ? "pcap" : "pcapng";
}
