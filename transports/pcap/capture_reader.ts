/**
 * Reads a capture, pcap or pcapng, packet by packet, without ever holding more than a window of the file.
 * @module
 */
import type { HostError } from "../../core/errors.ts";
import { type ByteSource, ByteWindow, FileSource, GunzipSource } from "./byte_source.ts";
import {
  CapturedPacket,
  type CaptureOddities,
  type CaptureStep,
  MAX_LISTED_PACKETS,
  newCaptureOddities,
} from "./captured_packet.ts";
import { DEFAULT_HOST_MAC } from "./link_types.ts";
import { isPcapMagic, PCAP_FILE_HEADER_BYTES, PcapParser } from "./pcap_format.ts";
import { BLOCK_SECTION_HEADER, PcapngParser } from "./pcapng_parser.ts";

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
 * Reads a capture. `next` goes to the next whole Ethernet frame; `step` does one record's or block's work,
 * for those who must not stay away for long.
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
  /** What has been read so far. */
  readonly counters: CaptureReaderCounters = { read: 0, snapped: 0, otherLinkType: 0 };
  /** What was odd so far. */
  readonly oddities: CaptureOddities = newCaptureOddities();
  /** The numbers of the first MAX_LISTED_PACKETS snapped packets. */
  readonly snappedNumbers: number[] = [];
  readonly #source: ByteSource;
  readonly #window: ByteWindow;
  readonly #hostMac: Uint8Array;
  readonly #noPacket: CapturedPacket;
  #format: CaptureFormat | null = null;
  #parser: PcapParser | PcapngParser | null = null;

  /**
   * Reads the start of the capture, if it is there already. Throws HostError if it is no capture that
   * Ethernet frames can be had from.
   * @param source where to read, packed by gzip or not, owned from now on; @param name what to call it in
   * messages
   * @param hostMac the address of the host that captured, where packets have none
   */
  constructor(source: ByteSource, name: string, hostMac: Uint8Array = DEFAULT_HOST_MAC) {
    this.#source = new GunzipSource(source);
    this.#window = new ByteWindow(this.#source, name);
    this.#hostMac = hostMac;
    this.#noPacket = new CapturedPacket(this.#window.bytes);
    try {
      this.#begin();
    } catch (error) {
      source[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Opens the file `path`, or standard input if it is `-`, and waits for what it has to give. Throws
   * HostError if it cannot be read or is no capture that Ethernet frames can be had from.
   */
  static open(path: string, hostMac?: Uint8Array): CaptureReader {
    return new CaptureReader(new FileSource(path), path, hostMac);
  }

  /** The format of the file; null if the source has not given its start yet. */
  get format(): CaptureFormat | null {
    return this.#format;
  }

  /** The packet found last; valid until the next `step` or `next`. */
  get packet(): CapturedPacket {
    return this.#parser?.packet ?? this.#noPacket;
  }

  /** When the first packet was captured, in ns since 1970; 0 before it was read. */
  get startUnixNs(): bigint {
    return this.#parser?.startUnixNs ?? 0n;
  }

  /** How many bytes of the file, unpacked, have been read. */
  get offset(): number {
    return this.#window.offset;
  }

  /** Does the file end within a record or a block, as the error said? */
  get isCutOff(): boolean {
    return this.#window.isCutOff;
  }

  /**
   * Reads one record or block, or a part of a long one. Throws HostError, with the offset, where the file is
   * cut off or the next record or block cannot be found.
   */
  step(): CaptureStep {
    if (this.#parser === null && !this.#begin()) return "wait";
    const step = this.#parser!.step();
    if (step === "end" || step === "other" || step === "wait") return step;
    this.counters.read++;
    if (step === "snapped") {
      this.counters.snapped++;
      if (this.snappedNumbers.length < MAX_LISTED_PACKETS) this.snappedNumbers.push(this.packet.number);
    } else if (step === "otherLinkType") this.counters.otherLinkType++;
    return step;
  }

  /**
   * Goes to the next whole Ethernet frame; false at the end, or if the source has no more at the moment.
   * Throws as `step` does.
   */
  next(): boolean {
    for (;;) {
      const step = this.step();
      if (step === "whole") return true;
      if (step === "end" || step === "wait") return false;
    }
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]();
  }

  /** Reads the file's first bytes; false if they are not there yet. */
  #begin(): boolean {
    const window = this.#window;
    if (!window.ensure(4)) {
      if (window.waits) return false;
      throw window.error(
        0,
        `it has ${window.available} bytes, and a capture begins with a header of 24 or more`,
      );
    }
    const magic = window.view.getUint32(window.position, false);
    const swapped = window.view.getUint32(window.position, true);
    if (magic === BLOCK_SECTION_HEADER) {
      this.#format = "pcapng";
      this.#parser = new PcapngParser(window, this.#hostMac, this.oddities);
    } else if (isPcapMagic(magic) || isPcapMagic(swapped)) {
      if (!window.ensure(PCAP_FILE_HEADER_BYTES) && window.waits) return false;
      this.#format = "pcap";
      this.#parser = new PcapParser(window, this.#hostMac, this.oddities);
    } else throw noCapture(window, magic);
    return true;
  }
}

/** First bytes of files that hold a capture in a wrapping, and how to unwrap it. */
const WRAPPINGS: readonly (readonly [magic: number, remedy: string])[] = [
  [0x28b52ffd, "it is compressed; unpack it with unzstd first"],
  [0x04224d18, "it is compressed; unpack it with unlz4 first"],
  [0xfd377a58, "it is compressed; unpack it with unxz first"],
  [0x504b0304, "it is a ZIP archive; unpack it with unzip first"],
];

function noCapture(window: ByteWindow, magic: number): HostError {
  for (const [wrapped, remedy] of WRAPPINGS) if (magic === wrapped) return window.error(0, remedy);
  const shown = magic.toString(16).padStart(8, "0");
  return window.error(
    0,
    `its first four bytes are 0x${shown}, and neither pcap nor pcapng begins so; Wireshark's editcap converts other captures`,
  );
}
