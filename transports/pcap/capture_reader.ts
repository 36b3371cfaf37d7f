/**
 * Reads a capture, pcap or pcapng, packet by packet, without ever holding more than a window of the file.
 * @module
 */
import { type ByteSource, ByteWindow, FileSource } from "./byte_source.ts";
import { type CapturedPacket, type CaptureStep, MAX_LISTED_PACKETS } from "./captured_packet.ts";
import { PCAP_MAGIC_MICROSECONDS, PCAP_MAGIC_NANOSECONDS, PcapParser } from "./pcap_parser.ts";
import { BLOCK_SECTION_HEADER } from "./pcapng_blocks.ts";
import { PcapngParser } from "./pcapng_parser.ts";

/** The format of a capture. */
export type CaptureFormat = "pcap" | "pcapng";

/** What has been read so far. */
export interface CaptureReaderCounters extends Record<string, number> {
  /** Packets of every kind. */
  read: number;
  /** Packets of which the capture has not all bytes. */
  snapped: number;
  /** Packets of another link type than Ethernet. */
  otherLinkType: number;
}

/**
 * Reads a capture. `next` goes to the next whole Ethernet frame; `step` does one record's or block's work, for those
 * who must not stay away for long.
 *
 * @example
 * ```ts
 * import { CaptureReader } from "./capture_reader.ts";
 * import { MemorySource } from "./byte_source.ts";
 * const header = Uint8Array.of(0xa1, 0xb2, 0x3c, 0x4d, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1);
 * using reader = new CaptureReader(new MemorySource(header), "empty.pcap");
 * if (reader.format !== "pcap" || reader.next()) throw new Error("unreachable");
 * ```
 */
export class CaptureReader implements Disposable {
  /** The format of the file. */
  readonly format: CaptureFormat;
  /** What has been read so far. */
  readonly counters: CaptureReaderCounters = { read: 0, snapped: 0, otherLinkType: 0 };
  /** The numbers of the first MAX_LISTED_PACKETS snapped packets. */
  readonly snappedNumbers: number[] = [];
  readonly #source: ByteSource;
  readonly #parser: PcapParser | PcapngParser;

  /**
   * Reads the start of the capture. Throws HostError if it is no capture of Ethernet frames.
   * @param source where to read, owned from now on; @param name what to call it in messages
   */
  constructor(source: ByteSource, name: string) {
    this.#source = source;
    try {
      const window = new ByteWindow(source, name);
      this.format = detectFormat(window);
      this.#parser = this.format === "pcap" ? new PcapParser(window) : new PcapngParser(window);
    } catch (error) {
      source[Symbol.dispose]();
      throw error;
    }
  }

  /** Opens the file `path`. Throws HostError if it cannot be read or is no capture of Ethernet frames. */
  static open(path: string): CaptureReader {
    return new CaptureReader(new FileSource(path), path);
  }

  /** The packet found last; valid until the next `step` or `next`. */
  get packet(): CapturedPacket {
    return this.#parser.packet;
  }

  /** When the first packet was captured, in ns since 1970; 0 before it was read. */
  get startUnixNs(): bigint {
    return this.#parser.startUnixNs;
  }

  /** Reads one record or block. Throws HostError, with the offset, where the file is cut off or damaged. */
  step(): CaptureStep {
    const step = this.#parser.step();
    if (step === "end" || step === "other") return step;
    this.counters.read++;
    if (step === "snapped") {
      this.counters.snapped++;
      if (this.snappedNumbers.length < MAX_LISTED_PACKETS) this.snappedNumbers.push(this.packet.number);
    } else if (step === "otherLinkType") this.counters.otherLinkType++;
    return step;
  }

  /** Goes to the next whole Ethernet frame; false at the end. Throws as `step` does. */
  next(): boolean {
    for (;;) {
      const step = this.step();
      if (step === "whole") return true;
      if (step === "end") return false;
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]();
  }
}

/** First bytes of files that hold a capture in a wrapping, and how to unwrap it. */
const WRAPPINGS: readonly (readonly [mask: number, magic: number, remedy: string])[] = [
  [0xffff0000, 0x1f8b0000, "it is compressed; unpack it with gunzip first"],
  [0xffffffff, 0x28b52ffd, "it is compressed; unpack it with unzstd first"],
  [0xffffffff, 0x04224d18, "it is compressed; unpack it with unlz4 first"],
  [0xffffffff, 0xa1b2cd34, "it is a modified pcap file; convert it with editcap -F pcap first"],
  [0xffffffff, 0x34cdb2a1, "it is a modified pcap file; convert it with editcap -F pcap first"],
];

function detectFormat(window: ByteWindow): CaptureFormat {
  if (!window.ensure(4)) {
    throw window.error(
      0,
      `it has ${window.available} bytes, and a capture begins with a header of 24 or more`,
    );
  }
  const { view, position } = window;
  const magic = view.getUint32(position, false);
  const swapped = view.getUint32(position, true);
  if (magic === BLOCK_SECTION_HEADER) return "pcapng";
  if (magic === PCAP_MAGIC_MICROSECONDS || magic === PCAP_MAGIC_NANOSECONDS) return "pcap";
  if (swapped === PCAP_MAGIC_MICROSECONDS || swapped === PCAP_MAGIC_NANOSECONDS) return "pcap";
  for (const [mask, wrapped, remedy] of WRAPPINGS) {
    if (((magic & mask) >>> 0) === wrapped) throw window.error(0, remedy);
  }
  const shown = magic.toString(16).padStart(8, "0");
  throw window.error(0, `its first four bytes are 0x${shown}, and neither pcap nor pcapng begins so`);
}
