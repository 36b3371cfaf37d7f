/**
 * The capture of a replay, kept so that it can be read several times (`CaptureInput`), and what is in it
 * (`readStatistics`).
 * @module
 */
import { messageOf } from "../../config/errors.ts";
import { HostError } from "../../core/errors.ts";
import { MssTable, OffloadFinder } from "../../offloads/undo_offloads/offload_finder.ts";
import {
  type ByteSource,
  FileSource,
  isPipe,
  isStandardInput,
  MemorySource,
} from "../../transports/pcap/byte_source.ts";
import { type CaptureFormat, CaptureReader } from "../../transports/pcap/capture_reader.ts";
import type { CaptureStep } from "../../transports/pcap/captured_packet.ts";
import { linkTypeName } from "../../transports/pcap/link_types.ts";
import { ETHERNET_HEADER_BYTES, formatMac, isMulticast } from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { PROTOCOL_TCP, TCP_HEADER_BYTES, TCP_OFFSET_FLAGS } from "../../wire/tcp_ip.ts";

/** The most bytes of a pipe that are kept in memory; what is longer goes into a temporary file. */
export const MAX_KEPT_BYTES: number = 64 * 1024 * 1024;
const CHUNK_BYTES = 256 * 1024;

/**
 * A capture that can be read as often as wanted: a file as it is, or what a pipe, a FIFO or standard input
 * gave, in memory or in a temporary file without a name.
 */
export class CaptureInput implements Disposable {
  /** What to call it: the path as it was given. */
  readonly name: string;
  readonly #open: () => ByteSource;
  readonly #file: Deno.FsFile | null;

  private constructor(name: string, open: () => ByteSource, file: Deno.FsFile | null) {
    this.name = name;
    this.#open = open;
    this.#file = file;
  }

  /**
   * Takes the capture `path`; `-` is standard input. What can be read only once is read now, to its end.
   * Throws HostError if that fails, or if it is long and no temporary file can be made.
   * @param maxKeptBytes the most bytes to keep in memory
   */
  static open(path: string, maxKeptBytes: number = MAX_KEPT_BYTES): CaptureInput {
    if (!isPipe(path)) return new CaptureInput(path, () => new FileSource(path), null);
    const name = isStandardInput(path) ? "standard input" : path;
    using source = new FileSource(path);
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let keptBytes = 0;
    for (;;) {
      const chunk = new Uint8Array(CHUNK_BYTES);
      const count = fill(source, chunk, name);
      chunks.push(chunk.subarray(0, count));
      keptBytes += count;
      // What is no capture may have no end either.
      if (chunks.length === 1) new CaptureReader(new ChunkSource(chunks), name)[Symbol.dispose]();
      if (count < CHUNK_BYTES) return new CaptureInput(name, () => new ChunkSource(chunks), null);
      if (keptBytes >= maxKeptBytes) break;
    }
    const file = temporaryFile(name);
    for (const chunk of chunks) write(file, chunk, name);
    for (const chunk = chunks[0];;) {
      const count = fill(source, chunk, name);
      write(file, chunk.subarray(0, count), name);
      if (count < CHUNK_BYTES) return new CaptureInput(name, () => new SharedFileSource(file), file);
    }
  }

  /** Begins to read it anew. Throws HostError if it cannot be opened or is no capture. */
  reader(): CaptureReader {
    return new CaptureReader(this.#open(), this.name);
  }

  /** Gives the temporary file back, if there is one. */
  [Symbol.dispose](): void {
    this.#file?.close();
  }
}

/** Reads until `into` is full or the source ends; returns how many bytes that were. */
function fill(source: ByteSource, into: Uint8Array, name: string): number {
  let length = 0;
  try {
    while (length < into.length) {
      const count = source.read(into.subarray(length));
      if (count <= 0) break;
      length += count;
    }
  } catch (cause) {
    throw new HostError(`Cannot read capture "${name}": ${messageOf(cause)}`, { cause });
  }
  return length;
}

/** A file that is gone as soon as it is closed. */
function temporaryFile(name: string): Deno.FsFile {
  try {
    const path = Deno.makeTempFileSync({ prefix: "deno-virtio-" });
    const file = Deno.openSync(path, { read: true, write: true });
    Deno.removeSync(path);
    return file;
  } catch (cause) {
    throw new HostError(
      `Cannot keep capture "${name}": it can be read only once, is longer than ${MAX_KEPT_BYTES} bytes, and there is no ` +
        `temporary file for it (${messageOf(cause)}); run with --allow-write, or write it to a file first`,
      { cause },
    );
  }
}

function write(file: Deno.FsFile, bytes: Uint8Array, name: string): void {
  try {
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  } catch (cause) {
    throw new HostError(`Cannot keep capture "${name}" in a temporary file: ${messageOf(cause)}`, { cause });
  }
}

/** Chunks in memory, one after the other. */
class ChunkSource implements ByteSource {
  readonly #chunks: readonly Uint8Array[];
  #index = 0;
  #source = new MemorySource(new Uint8Array(0));

  constructor(chunks: readonly Uint8Array[]) {
    this.#chunks = chunks;
  }

  read(into: Uint8Array): number {
    for (;;) {
      const count = this.#source.read(into);
      if (count > 0 || this.#index === this.#chunks.length) return count;
      this.#source = new MemorySource(this.#chunks[this.#index++]);
    }
  }

  [Symbol.dispose](): void {}
}

/** A file that several read, each at its own place. */
class SharedFileSource implements ByteSource {
  readonly #file: Deno.FsFile;
  #at = 0;

  constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  read(into: Uint8Array): number {
    this.#file.seekSync(this.#at, Deno.SeekMode.Start);
    const count = this.#file.readSync(into) ?? 0;
    this.#at += count;
    return count;
  }

  [Symbol.dispose](): void {}
}

/** Destinations that are told apart; a capture of a flood has more, and none of them is a guest. */
const MAX_STATIONS = 65_536;

/** What one station receives in a capture. */
export interface Station {
  /** Its address. */
  readonly mac: string;
  /** Frames sent to it. */
  readonly frames: number;
  /** Bytes of TCP payload in these, or as many as they had on the wire. */
  readonly payloadBytes: number;
}

/** What is in a capture. */
export interface CaptureStatistics {
  /** Its format. */
  readonly format: CaptureFormat;
  /** Packets of every kind. */
  readonly packets: number;
  /** Link types of which no Ethernet frame can be made, in words. */
  readonly otherLinkTypes: readonly string[];
  /** Are all packets of such a link type? */
  readonly isAllOther: boolean;
  /** Packets of which the capture has not all bytes. */
  readonly snapped: number;
  /** The most bytes that it has of one of these: the snap length, if that was the reason. */
  readonly longestSnappedBytes: number;
  /** Time from the first packet to the latest, in ns. */
  readonly durationNs: number;
  /** When the first packet was captured, in ns since 1970. */
  readonly startUnixNs: bigint;
  /** Bytes of TCP payload to all stations. */
  readonly payloadBytes: number;
  /**
   * The receivers, the one with most TCP payload first: the likeliest guest. Group addresses are no stations,
   * nor is the address 0.
   */
  readonly stations: readonly Station[];
  /** What its connections have announced, in both directions. */
  readonly knownMss: MssTable;
}

/**
 * Reads a capture once; what is behind a damaged place is not counted. Throws HostError if it cannot be read,
 * or is damaged before its first packet.
 */
export function readStatistics(capture: CaptureInput): CaptureStatistics {
  using reader = capture.reader();
  const stations = new Map<number, { mac: string; frames: number; payloadBytes: number }>();
  const knownMss = new MssTable();
  const finder = new OffloadFinder(knownMss, {});
  let view = new DataView(new ArrayBuffer(0));
  const otherLinkTypes = new Set<string>();
  let payloadBytes = 0;
  let lastNs = 0;
  let longestSnappedBytes = 0;
  for (let step = goOn(reader); step !== "end"; step = goOn(reader)) {
    if (step === "otherLinkType") otherLinkTypes.add(linkTypeName(reader.packet.linkType));
    if (step !== "whole" && step !== "snapped") continue;
    const { bytes, at, length, originalLength, timeNs } = reader.packet;
    if (timeNs > lastNs) lastNs = timeNs;
    if (step === "snapped") longestSnappedBytes = Math.max(longestSnappedBytes, length);
    if (view.buffer !== bytes.buffer) view = new DataView(bytes.buffer);
    finder.learn({ bytes, view, start: at, length, total: length });
    if (length < ETHERNET_HEADER_BYTES || isMulticast(bytes, at)) continue;
    const key = macKey(bytes, at);
    if (key === 0) continue;
    let station = stations.get(key);
    if (station === undefined) {
      if (stations.size >= MAX_STATIONS) continue;
      stations.set(key, station = { mac: formatMac(bytes, at), frames: 0, payloadBytes: 0 });
    }
    const payload = Math.max(0, tcpPayloadBytes(bytes, at, originalLength, length));
    station.frames++;
    station.payloadBytes += payload;
    payloadBytes += payload;
  }
  return {
    format: reader.format!,
    packets: reader.counters.read,
    otherLinkTypes: [...otherLinkTypes],
    isAllOther: reader.counters.otherLinkType === reader.counters.read,
    snapped: reader.counters.snapped,
    longestSnappedBytes,
    durationNs: lastNs,
    startUnixNs: reader.startUnixNs,
    payloadBytes,
    // Sorting is stable: of equals the one that was seen first comes first.
    stations: [...stations.values()].sort((a, b) => b.payloadBytes - a.payloadBytes || b.frames - a.frames),
    knownMss,
  };
}

/** The next step; the end also at a damaged place, which the replay reports when it gets there. */
function goOn(reader: CaptureReader): CaptureStep {
  try {
    return reader.step();
  } catch (error) {
    if (error instanceof HostError && reader.counters.read > 0) return "end";
    throw error;
  }
}

function macKey(bytes: Uint8Array, at: number): number {
  let key = 0;
  for (let i = 0; i < 6; i++) key = key * 256 + bytes[at + i];
  return key;
}

/** The frame is no TCP segment, or not a whole one. */
export const NO_TCP = -1;

const headers = new HeaderLocator();

/**
 * Bytes of TCP payload in a frame, behind any tags, options and extension headers; `NO_TCP` for a
 * fragment, for another protocol, and for a packet that is not wholly in the frame.
 * @param bytes where the frame is; @param at its first byte; @param length its bytes, or as many as it had if
 * it was cut
 * @param there how many of its bytes are there; by default all
 */
export function tcpPayloadBytes(
  bytes: Uint8Array,
  at: number,
  length: number,
  there: number = length,
): number {
  headers.locate(bytes, at, there);
  const { version, transportAt, protocol } = headers;
  // A length of 0 ends with the frame, all of it.
  const packetEnd = headers.packetEnd === at + there
    ? Math.max(headers.packetEnd, at + length)
    : headers.packetEnd;
  if (version === 0 || transportAt < 0 || protocol !== PROTOCOL_TCP || packetEnd > at + length) return NO_TCP;
  if (transportAt + TCP_OFFSET_FLAGS >= at + there) return NO_TCP;
  const tcpBytes = (bytes[transportAt + TCP_OFFSET_FLAGS] >>> 4) * 4;
  const payloadBytes = packetEnd - transportAt - tcpBytes;
  return tcpBytes < TCP_HEADER_BYTES || payloadBytes < 0 ? NO_TCP : payloadBytes;
}
