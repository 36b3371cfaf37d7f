/**
 * Replays one capture and says what came of it.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import type { Pollable } from "../../core/transport.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import { type CaptureOddities, newCaptureOddities } from "../../transports/pcap/captured_packet.ts";
import type { PcapReplay } from "../../transports/pcap/replay.ts";
import type { FileIdentity } from "../../transports/pcap/output_file.ts";
import { DeliveryCapture } from "./delivery_capture.ts";
import type { Explainer } from "./explainer.ts";
import { buildReplayMachine, type ReplaySetup } from "./machine.ts";
import { InputTally, OutputTally } from "./tallies.ts";
import { type Reason, VerdictTally } from "./verdict_tally.ts";

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
  /** UDP frames yet to be finished and longer than the MTU. They are left whole: the size of their datagrams cannot be told. */
  readonly longUdpFrames: number;
  /** Was it undone? Then the guest was sent these segments, with right checksums. */
  readonly undone: boolean;
}

/** What came of a replay. */
export interface ReplayResult {
  /** What went in. */
  readonly input: InputTally;
  /** What the guest got. */
  readonly output: OutputTally;
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
  const verdicts = new VerdictTally(explainer ?? null);
  const input = new InputTally(setup.knownMss, verdicts);
  const output = new OutputTally();
  const machine = await buildReplayMachine(setup, input, verdicts);
  const { reactor } = machine.parts;
  const driver = machine.devices[0].driver as LoopbackDriver;
  const network = machine.devices[0].network as PcapReplay;
  using delivered = outputs.out === undefined
    ? null
    : new DeliveryCapture(outputs.out, network.startUnixNs, outputs.read ?? null);
  driver.hooks.onPacket = (packet) => {
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
    interrupts: driver.guest.counters.interrupts,
    reasons: verdicts.reasons,
    leftOut: leftOut(machine.counters),
    snappedNumbers: network.snappedNumbers,
    captureFailure: network.failure,
    oddities: network.oddities ?? newCaptureOddities(),
    guestErrors: driver.guest.errors,
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
  const replay = counters["net0.network"];
  const filter = Object.values(counters["net0.filter"]);
  return {
    notForGuest: replay.notForGuest,
    snapped: replay.snapped,
    otherLinkType: replay.otherLinkType,
    tooLong: replay.tooLong,
    tooShort: replay.tooShort,
    unreadable: replay.unreadable,
    cutOff: replay.cutOff,
    filtered: filter.reduce((sum, value) => sum + value, 0),
  };
}

function offloadTraces(input: InputTally, undo: Readonly<Record<string, number>> | undefined): OffloadTraces {
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
