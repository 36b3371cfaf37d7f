/**
 * The `pcap` network: replays a capture to the guest, writes what the device sends, or records what passes
 * through another network.
 * @module
 */
import { z } from "zod";
import { ManualClock } from "../../core/clock.ts";
import { HostError } from "../../core/errors.ts";
import { identityOfPath, identityOfStandardInput } from "../../host/file_identity.ts";
import { OutputFile } from "../../host/output_file.ts";
import {
  defineNetwork,
  type NetworkContext,
  type NetworkFacts,
  type NetworkPlugin,
  NetworkPreview,
} from "../../pipeline/plugin.ts";
import type { BuiltSite, OptionsSchema, PartIssue } from "../../plugins/plugin.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { formatMac, isMulticast, MAC_BYTES, MAC_PATTERN, parseMac } from "../../wire/ethernet.ts";
import { FileSource, isPipe, isStandardInput, PipeSource } from "./byte_source.ts";
import { CaptureReader } from "./capture_reader.ts";
import { CaptureWriter, formatOf } from "./capture_writer.ts";
import { CaptureSink } from "./capture_sink.ts";
import { PcapRecorder } from "./recorder.ts";
import { newReplayCounters, PcapReplay, type ReplayPace, type ReplayTake } from "./replay.ts";

/** The options of the `pcap` network. */
export interface PcapOptions {
  /** The capture to replay. */
  read?: string | undefined;
  /** The capture to write. */
  write?: string | undefined;
  /** When packets arrive. */
  pace: ReplayPace;
  /** Which packets arrive. */
  take: ReplayTake;
  /** The guest's address in the capture, if it is not the device's. */
  guestMac?: string | undefined;
  /** The network to record. */
  inner?: unknown;
}

const options: OptionsSchema<PcapOptions> = z.strictObject({
  read: z.string().min(1).optional().describe(
    "Capture to replay to the guest: pcap or pcapng, also packed by gzip, also a pipe; - is standard input. " +
      "Packets of cooked, loopback and raw IP captures get an Ethernet header.",
  ),
  write: z.string().min(1).optional().describe(
    "Capture to write: what the device sends or, with inner, what passes both ways. " +
      "pcapng, or pcap with nanosecond stamps if the name ends in .pcap.",
  ),
  pace: z.enum(["recorded", "fast"]).default("recorded").describe(
    "recorded: packets arrive at their recorded times. fast: as fast as the guest takes them.",
  ),
  take: z.enum(["guest", "all"]).default("guest").describe(
    "guest: only packets to the guest's MAC address, broadcasts and multicasts of others. all: every packet.",
  ),
  guestMac: z.string().regex(MAC_PATTERN, "must be a MAC address such as 52:54:00:00:00:01").optional()
    .describe("The guest's MAC address in the capture, if it is not the device's."),
  inner: z.unknown().optional().describe("Another network: its frames are recorded to write, both ways."),
}).superRefine((value, context) => {
  const issue = (key: string, message: string) => context.addIssue({ code: "custom", path: [key], message });
  if (value.inner !== undefined) {
    if (value.read !== undefined) issue("read", "cannot stand beside inner; put it into the inner network");
    if (value.write === undefined) issue("write", "is needed beside inner: the capture to record to");
  } else if (value.read === undefined && value.write === undefined) {
    issue("read", "or write is needed: the capture to replay or to write");
  }
});

/** The `pcap` network plugin. */
const pcap: NetworkPlugin<PcapOptions> = defineNetwork({
  name: "pcap",
  summary: "Replays a capture to the guest, writes what the device sends, or records another network.",
  options,
  permissions: ({ read, write }) => ({
    read: read === undefined || isStandardInput(read) ? [] : [read],
    write: write === undefined ? [] : [write],
  }),
  hints: pcapHints,
  describe: ({ write }, { path, absolutePath }) => ({
    needs: write === undefined ? [] : [{ path: `${path}.write`, file: absolutePath(write), use: "write" }],
  }),
  preview: previewPcap,
  create: createPcap,
});
export default pcap;

function createPcap(context: NetworkContext, options: PcapOptions): FrameTransport {
  const readPath = options.read === undefined
    ? null
    : isStandardInput(options.read)
    ? options.read
    : context.resolvePath(options.read);
  const writePath = options.write === undefined ? null : context.resolvePath(options.write);
  if (options.inner !== undefined && writePath !== null) {
    return createRecorder(context, context.inner(options.inner, "inner"), writePath);
  }
  if (readPath !== null) {
    if (readPath === writePath) {
      throw new HostError(
        `${context.path}: cannot write to "${writePath}" while reading it; choose another file`,
      );
    }
    const identity = isStandardInput(readPath) ? identityOfStandardInput() : identityOfPath(readPath);
    context.claimFile({ key: "read", path: readPath, use: "read", identity });
  }
  const { clock } = context;
  return new PcapReplay({
    clock: readPath !== null && clock instanceof ManualClock && isPipe(readPath) ? clock : null,
    reader: readPath === null ? null : openReader(context, readPath, options.guestMac === undefined),
    openWriter: writePath === null ? null : (startUnixNs) => openWriter(context, writePath, startUnixNs),
    pace: options.pace,
    take: options.take,
    guestMac: options.guestMac === undefined ? context.guestMac : parseMac(options.guestMac),
    pool: context.pool,
    counters: context.publish(newReplayCounters()),
  });
}

/**
 * Opens the capture. A pipe must not keep the process waiting. By a manual clock the time of the next frame
 * must be known before the clock is moved, and there the clock is held.
 */
function openReader(context: NetworkContext, path: string, guestIsHost: boolean): CaptureReader {
  const clock = context.clock instanceof ManualClock ? context.clock : null;
  const source = isPipe(path) ? new PipeSource(path, () => context.wake(), clock) : new FileSource(path);
  // Of packets without addresses, those to the host that captured are for the guest.
  return new CaptureReader(source, path, guestIsHost ? context.guestMac : undefined);
}

/** What is wrapped belongs to the builder of the machine until the recorder is there. */
function createRecorder(context: NetworkContext, inner: FrameTransport, path: string): FrameTransport {
  const writer = openWriter(context, path, inner instanceof PcapReplay ? inner.startUnixNs : 0n);
  return new PcapRecorder(inner, writer, context.publish({ written: 0, writeDropped: 0 }));
}

/**
 * Opens a capture that is emptied and begun when the machine starts. Throws HostError and what `claimFile`
 * throws.
 */
function openWriter(context: NetworkContext, path: string, startUnixNs: bigint): CaptureWriter {
  // By a virtual clock time stands still while a write takes as long as it likes, and nothing is lost.
  const waits = context.clock instanceof ManualClock;
  const file = OutputFile.open(path, "capture", waits);
  try {
    context.claimFile({ key: "write", path, use: "write", identity: file.identity });
  } catch (error) {
    file.discard();
    throw error;
  }
  const sink = new CaptureSink(file, path, {
    held: true,
    neverWaits: !waits,
    trouble: (why, lost) =>
      context.report?.(
        why === null
          ? { event: "recording-resumed", path, lost }
          : { event: "recording-failed", path, message: why },
      ),
  });
  const writer = new CaptureWriter(sink, { format: formatOf(path), startUnixNs });
  context.onStart(() => writer.begin());
  return writer;
}

/**
 * What is written is only claimed, so that it is compared with other files. A pipe stays closed: what is read
 * of it now would be missing when the configuration runs.
 */
function previewPcap(context: NetworkContext, { write, inner, ...options }: PcapOptions): FrameTransport {
  if (write !== undefined) {
    const path = context.resolvePath(write);
    context.claimFile({ key: "write", path, use: "write", identity: identityOfPath(path) });
  }
  // A recorder passes on what the network behind it can do.
  if (inner !== undefined) return context.inner(inner, "inner");
  const { read } = options;
  if (read === undefined || !isPipe(isStandardInput(read) ? read : context.resolvePath(read))) {
    return createPcap(context, options);
  }
  return new NetworkPreview(1, undefined, null);
}

/** How much of a capture is looked at: enough to know whom it is for. */
const MAX_PACKETS_LOOKED_AT = 200_000;

/** A capture that has nothing for this guest: the network is silent. */
function pcapHints(
  { read, take, guestMac }: PcapOptions,
  { path, facts, absolutePath }: BuiltSite,
): PartIssue[] {
  if (read === undefined || take === "all") return [];
  const mac = guestMac === undefined ? (facts as NetworkFacts | undefined)?.guestMac : parseMac(guestMac);
  if (mac === undefined) return [];
  // As when it runs: of packets without addresses, those to the host that captured are for the guest.
  const seen = stationsOf(absolutePath(read), guestMac === undefined ? mac : undefined);
  if (seen === null || seen.stations.has(formatMac(mac))) return [];
  const [busiest] = [...seen.stations].sort((a, b) => b[1] - a[1]);
  return [{
    path: guestMac === undefined ? path : `${path}.guestMac`,
    value: formatMac(mac),
    problem:
      `is the guest's address, and no packet of ${seen.isWhole ? "" : "the beginning of "}the capture is ` +
      "sent to it",
    remedy: busiest === undefined
      ? 'write "take": "all" to deliver every packet'
      : `write "guestMac": "${busiest[0]}", to which most are sent, or "take": "all"`,
  }];
}

/** To which stations packets of a capture are sent, and how many; null if it cannot be read a second time. */
function stationsOf(
  file: string,
  hostMac: Uint8Array | undefined,
): { stations: Map<string, number>; isWhole: boolean } | null {
  const stations = new Map<string, number>();
  try {
    if (!Deno.statSync(file).isFile) return null;
    using reader = CaptureReader.open(file, hostMac);
    for (let packets = 0; packets < MAX_PACKETS_LOOKED_AT; packets++) {
      if (!reader.next()) return { stations, isWhole: true };
      const { bytes, at, length } = reader.packet;
      if (length < MAC_BYTES || isMulticast(bytes, at)) continue;
      const mac = formatMac(bytes, at);
      // A capture of a flood has as many addresses as packets; a few thousand tell as much.
      if (stations.has(mac) || stations.size < 4096) stations.set(mac, (stations.get(mac) ?? 0) + 1);
    }
    return { stations, isWhole: false };
  } catch {
    // What is damaged is told where it is replayed.
    return null;
  }
}
