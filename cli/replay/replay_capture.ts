/**
 * Replays a capture: builds the machine, runs it to the end of the capture, and collects the result.
 * @module
 */
import { pathToFileURL } from "node:url";
import { z } from "zod";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { HostError } from "../../core/errors.ts";
import type { Frame } from "../../pipeline/frame.ts";
import {
  defineNetwork,
  defineOffload,
  type NetworkPlugin,
  type OffloadPlugin,
} from "../../pipeline/plugin.ts";
import { OFFER_AGAIN, type RuleBook } from "../../pipeline/qemu_compat.ts";
import { perFrame, type VerdictLog } from "../../pipeline/stage.ts";
import type { Pollable } from "../../core/reactor.ts";
import type { FileIdentity } from "../../host/file_identity.ts";
import { OutputFile } from "../../host/output_file.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import { defineUndoOffloads, undoOffloads } from "../../offloads/undo_offloads.ts";
import { type MssTable, OffloadFinder } from "../../offloads/undo_offloads/offload_finder.ts";
import { CaptureWriter, formatOf } from "../../transports/pcap/capture_writer.ts";
import { CaptureSink } from "../../transports/pcap/capture_sink.ts";
import {
  type CaptureOddities,
  DIRECTION_INBOUND,
  newCaptureOddities,
  offloadFlags,
} from "../../transports/pcap/captured_packet.ts";
import { newReplayCounters, PcapReplay, type ReplayPace } from "../../transports/pcap/replay.ts";
import type { NetGuest, ReceivedPacket } from "../../testing/mod.ts";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../../wire/virtio_net_header.ts";
import { type CaptureInput, tcpPayloadBytes } from "./capture_input.ts";
import { type Explainer, kindOfFrame, type Reason, VerdictCounters } from "./explainer.ts";

/** What a replay is to be. */
export interface ReplaySetup {
  /** The capture. */
  readonly capture: CaptureInput;
  /** The guest's address. */
  readonly guestMac: string;
  /** The rule book. */
  readonly rules: RuleBook;
  /** Longest time a segment is held, in microseconds; null for a device without RSC. */
  readonly intervalUs: number | null;
  /** Make of frames captured with offloads what was on the wire? */
  readonly undoOffloads: boolean;
  /** What the connections of the capture have announced. */
  readonly knownMss: MssTable;
  /** When frames arrive. */
  readonly pace: ReplayPace;
}

/** What a replay writes besides its result. */
export interface ReplayOutputs {
  /** The file to write the delivered packets to. */
  readonly out?: string | undefined;
  /** Which file the capture is, so that it is not overwritten. */
  readonly read?: FileIdentity | null;
  /** Told of every frame. */
  readonly explainer?: Explainer | undefined;
}

/** Frames of a capture that the guest did not get, by reason. */
export interface LeftOut {
  /** Not to the guest's address. */
  readonly notForGuest: number;
  /** Not all of their bytes are in the capture. */
  readonly snapped: number;
  /** No Ethernet. */
  readonly otherLinkType: number;
  /** Longer than a frame can be. */
  readonly tooLong: number;
  /** Shorter than an Ethernet header. */
  readonly tooShort: number;
  /** Of a block that is not right, or beyond a limit of the reader. */
  readonly unreadable: number;
  /** 1 if the file ends within a record or block. */
  readonly cutOff: number;
  /** Refused by the device's receive filter. */
  readonly filtered: number;
}

/** What offloads of the captured host had left in the frames to the guest. */
export interface OffloadTraces {
  /** Frames whose checksum was yet to be computed. */
  readonly partialChecksums: number;
  /** TCP frames that hold several segments. */
  readonly largeFrames: number;
  /** The segments in these. */
  readonly segments: number;
  /**
   * UDP frames yet to be finished and longer than the MTU. They are left whole: the size of their datagrams
   * cannot be told.
   */
  readonly longUdpFrames: number;
  /** Was it undone? Then the guest was sent these segments, with right checksums. */
  readonly undone: boolean;
}

/** What came of a replay. */
export interface ReplayResult {
  /** What went in. */
  readonly input: InputCounters;
  /** What the guest got. */
  readonly output: OutputCounters;
  /** Interrupts that the guest got for it. */
  readonly interrupts: number;
  /** What was decided, the most frequent first. */
  readonly reasons: readonly Reason[];
  /** What the guest did not get. */
  readonly leftOut: LeftOut;
  /** The numbers of the first snapped packets. */
  readonly snappedNumbers: readonly number[];
  /** What is odd about the capture, by how many packets or blocks. */
  readonly oddities: Readonly<CaptureOddities>;
  /** What ends the capture before its end, if something does. */
  readonly captureFailure: HostError | null;
  /** What the guest found wrong with the device. */
  readonly guestErrors: readonly string[];
  /** What offloads had left in the frames to the guest. */
  readonly offloads: OffloadTraces;
  /** Frames lost in the device, by counter. */
  readonly dropped: Readonly<Record<string, number>>;
  /** What is wrong with the capture or the output, if something is. */
  readonly failure: HostError | null;
}

/** Replays a capture to its end. Throws HostError if it cannot be opened, or the output cannot be created. */
export async function replayCapture(setup: ReplaySetup, outputs: ReplayOutputs = {}): Promise<ReplayResult> {
  const { explainer } = outputs;
  const verdicts = new VerdictCounters(explainer ?? null);
  const input = new InputCounters(setup.knownMss, verdicts);
  const output = new OutputCounters();
  const machine = await buildReplayMachine(setup, input, verdicts);
  const { reactor } = machine.parts;
  const { guest } = machine.devices[0].driver as unknown as { readonly guest: NetGuest };
  const network = machine.devices[0].parts.network as PcapReplay;
  using delivered = outputs.out === undefined
    ? null
    : new DeliveryCapture(outputs.out, network.startUnixNs, outputs.read ?? null);
  guest.hooks.onPacket = (packet) => {
    const segments = output.note(packet);
    delivered?.write(packet, segments, reactor.clock.nowNs());
  };
  let failure: HostError | null = null;
  const attempt = async (step: () => Promise<void>) => {
    try {
      await step();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
      failure ??= error;
    }
  };
  machine.start();
  const settle = () => {
    verdicts.settle();
    explainer?.showJudged();
  };
  reactor.add(afterEachRound(settle));
  try {
    await machine.run(new AbortController().signal);
  } finally {
    await attempt(() => machine.close());
  }
  if (delivered !== null) await attempt(() => delivered.close());
  settle();
  explainer?.finish();
  return {
    input,
    output,
    interrupts: guest.counters.interrupts,
    reasons: verdicts.reasons,
    leftOut: leftOut(machine.counters),
    snappedNumbers: network.snappedNumbers,
    captureFailure: network.failure,
    oddities: network.oddities ?? newCaptureOddities(),
    guestErrors: guest.errors,
    offloads: offloadTraces(input, machine.counters["net0.undo-offloads"]),
    dropped: dropped(machine.counters),
    failure,
  };
}

/** Frames do not leave a round: what was judged in it can be told when it is over. */
function afterEachRound(action: () => void): Pollable {
  return {
    poll: () => {
      action();
      return false;
    },
    deadlineNs: () => Infinity,
  };
}

type Counters = Readonly<Record<string, Readonly<Record<string, number>>>>;

function leftOut(counters: Counters): LeftOut {
  const { notForGuest, snapped, otherLinkType, tooLong, tooShort, unreadable, cutOff } =
    counters["net0.network"];
  const filtered = Object.values(counters["net0.filter"]).reduce((sum, value) => sum + value, 0);
  return { notForGuest, snapped, otherLinkType, tooLong, tooShort, unreadable, cutOff, filtered };
}

function offloadTraces(
  input: InputCounters,
  undo: Readonly<Record<string, number>> | undefined,
): OffloadTraces {
  const { partialChecksums, largeFrames, longUdpFrames, dataFrames, dataSegments } = input;
  const segments = dataSegments - dataFrames + largeFrames;
  return undo === undefined ? { partialChecksums, largeFrames, segments, longUdpFrames, undone: false } : {
    partialChecksums: undo.partial,
    largeFrames: undo.cut,
    segments: undo.segments,
    longUdpFrames: undo.large_udp,
    undone: true,
  };
}

function dropped(counters: Counters): Record<string, number> {
  const lost = Object.entries({ ...counters["net0.undo-offloads"], ...counters["net0.toGuest"] })
    .filter(([name, value]) => name.startsWith("dropped_") && value > 0);
  return Object.fromEntries(lost);
}

/**
 * Builds a network device with both RSC stages, a capture as its network, and a guest made of software.
 * Throws HostError if the capture cannot be opened.
 */
async function buildReplayMachine(
  setup: ReplaySetup,
  input: InputCounters,
  verdicts: VerdictLog,
): Promise<Machine> {
  const { intervalUs } = setup;
  const rsc = intervalUs === null ? [] : ["rsc-v4", "rsc-v6"].map((use) => ({ use, intervalUs }));
  const written = {
    name: "replay",
    clock: "virtual",
    devices: [{
      use: "net",
      name: "net0",
      mac: setup.guestMac,
      rules: setup.rules,
      driver: { use: "loopback", queueSize: 1024, reuse: true },
      network: "capture-input",
      offloads: [...setup.undoOffloads ? [undoOffloads.name] : [], "input-counters", ...rsc],
    }],
  };
  const registry = new PluginRegistry(builtIns([
    ...BUILT_IN_PLUGINS.filter((plugin) => plugin.name !== undoOffloads.name),
    // The guest's own SYNs do not arrive at it, but they bound the segments that do.
    defineUndoOffloads(setup.knownMss),
    input.plugin(),
    inputNetwork(setup),
  ]));
  const config = await parseConfig(JSON.stringify(written), pathToFileURL("replay.json"), registry);
  return buildMachine(config, { verdicts });
}

/** The capture as a network; unlike the network `pcap` it reads what was opened already. */
function inputNetwork({ capture, pace }: ReplaySetup): NetworkPlugin<Record<string, never>> {
  return defineNetwork<Record<string, never>>({
    name: "capture-input",
    options: z.strictObject({}),
    create: ({ guestMac, pool, publish }) =>
      new PcapReplay({
        reader: capture.reader(),
        openWriter: null,
        pace,
        take: "guest",
        guestMac,
        pool,
        counters: publish(newReplayCounters()),
      }),
  });
}

/** Writes what the guest got to a capture, packet by packet, at the times of delivery. */
class DeliveryCapture implements Disposable {
  readonly #writer: CaptureWriter;

  /**
   * Creates the file: pcapng, or pcap without comments if its name ends so. Throws HostError if that cannot
   * be.
   * @param path the file; @param startUnixNs time 0 of the replay, in ns since 1970; @param read which file
   * it must not be
   */
  constructor(path: string, startUnixNs: bigint, read: FileIdentity | null) {
    // A replay has no need to hurry: written at once, nothing is ever refused for a slow disk.
    const file = OutputFile.open(path, "", true);
    if (read !== null && file.identity === read) {
      file.close();
      throw new HostError(`Cannot write to "${path}" while reading it; choose another file`);
    }
    this.#writer = new CaptureWriter(new CaptureSink(file, path), { format: formatOf(path), startUnixNs });
  }

  /** Writes a packet; a failure is told by `close`. */
  write(packet: ReceivedPacket, segments: number, nowNs: number): void {
    const flags = DIRECTION_INBOUND | offloadFlags(packet.flags, packet.gsoType);
    this.#writer.writeBytes(packet.bytes, flags, nowNs, commentOn(packet, segments));
  }

  /** Completes the file. Rejects with HostError if it could not be written. */
  close(): Promise<void> {
    return this.#writer.close();
  }

  /** Closes the file if `close` has not. */
  [Symbol.dispose](): void {
    this.#writer[Symbol.dispose]();
  }
}

/** What a capture cannot say of a packet by itself. */
function commentOn(packet: ReceivedPacket, segments: number): string {
  const facts = [segments === 1 ? "1 segment" : `${segments} segments`];
  if (packet.gsoSize > 0) facts.push(`gso_size ${packet.gsoSize}`);
  if ((packet.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0) facts.push("RSC_INFO");
  if ((packet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) facts.push("checksum left to the guest");
  return facts.join(", ");
}

/** What came from the network. */
export class InputCounters {
  /** Frames. */
  frames = 0;
  /** Their bytes. */
  bytes = 0;
  /** Those with TCP data. */
  dataFrames = 0;
  /** TCP segments with data: as many as were on the wire, where a frame holds several. */
  dataSegments = 0;
  /** Bytes of TCP payload. */
  payloadBytes = 0;
  /** Frames that hold several segments: no wire carries them. */
  largeFrames = 0;
  /** Frames whose checksum is yet to be computed. */
  partialChecksums = 0;
  /** UDP frames yet to be finished and longer than the MTU: of several datagrams, maybe. */
  longUdpFrames = 0;
  readonly #finder: OffloadFinder;
  readonly #verdicts: VerdictCounters;

  /**
   * Has counted nothing yet.
   * @param knownMss what the connections of the capture have announced
   * @param verdicts told of every frame, before the stages that judge it are
   */
  constructor(knownMss: MssTable, verdicts: VerdictCounters) {
    this.#finder = new OffloadFinder(knownMss, {});
    this.#verdicts = verdicts;
  }

  /**
   * A stage that lets every frame pass and counts it: the first of a pipeline sees what the device was given.
   */
  plugin(): OffloadPlugin<Record<string, never>> {
    return defineOffload<Record<string, never>>({
      name: "input-counters",
      direction: "toGuest",
      options: z.strictObject({}),
      create: () =>
        perFrame((frame, output) => {
          // A frame that found no room at the guest comes by again.
          if (frame.mark !== OFFER_AGAIN) {
            this.#note(frame);
            this.#verdicts.expect(frame.number, kindOfFrame(frame.bytes, frame.start, frame.length));
          }
          output.push(frame);
        }),
    });
  }

  #note(frame: Frame): void {
    const finder = this.#finder;
    this.frames++;
    this.bytes += frame.length;
    const isFound = finder.find(frame);
    if (isFound && finder.isPartial) this.partialChecksums++;
    if (isFound && finder.isLargeUdp) this.longUdpFrames++;
    const payload = tcpPayloadBytes(frame.bytes, frame.start, frame.length);
    if (payload <= 0) return;
    const segments = isFound ? finder.segments : 1;
    if (segments > 1) this.largeFrames++;
    this.dataFrames++;
    this.dataSegments += segments;
    this.payloadBytes += payload;
  }
}

/** What the guest got. */
export class OutputCounters {
  /** Packets. */
  packets = 0;
  /** Their bytes. */
  bytes = 0;
  /** Those that are TCP segments with data, or several merged. */
  dataPackets = 0;
  /** Bytes of TCP payload. */
  payloadBytes = 0;
  /** Packets that hold several segments. */
  coalesced = 0;
  /** Bytes of the largest packet. */
  largestBytes = 0;
  /** How many packets with TCP data hold so many segments. */
  readonly bySegments: Map<number, number> = new Map();

  /** Counts a packet and returns how many segments it holds. */
  note(packet: ReceivedPacket): number {
    const { length } = packet.bytes;
    const payload = tcpPayloadBytes(packet.bytes, 0, length);
    const segments = segmentsOf(packet, payload);
    this.packets++;
    this.bytes += length;
    if (length > this.largestBytes) this.largestBytes = length;
    if (segments > 1) this.coalesced++;
    if (payload > 0) {
      this.dataPackets++;
      this.payloadBytes += payload;
      this.bySegments.set(segments, (this.bySegments.get(segments) ?? 0) + 1);
    }
    return segments;
  }
}

/** Segments in a packet: what the device says, else what its size says, else 1. */
function segmentsOf(packet: ReceivedPacket, payloadBytes: number): number {
  if (packet.gsoType === VIRTIO_NET_HDR_GSO_NONE) return 1;
  if ((packet.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0) return packet.csumStart;
  return packet.gsoSize > 0 && payloadBytes > 0 ? Math.ceil(payloadBytes / packet.gsoSize) : 1;
}
