/**
 * Finds and reads vectors, runs their events through a whole device (configuration, rings, control queue,
 * clock), and compares what it delivered with the recording, bit for bit.
 * @module
 */
import type { NetGuest } from "../../devices/net/driver/mod.ts";
import { LimitedBytesTransformStream, toText } from "@std/streams";
import { newRegistry } from "../../config/builtins.ts";
import { messageOf } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import type { CounterGroups } from "../../plugins/plugin.ts";
import { HostError } from "../../core/errors.ts";
import { FeatureSet } from "../../core/features.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { VerdictLog } from "../../pipeline/stage.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import type { CablePort } from "../../transports/loopback.ts";
import type { ControlCommand, ReceivedPacket } from "../../devices/net/driver/mod.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import {
  DEFAULT_FEATURES,
  fromHex,
  headerOf,
  parseVector,
  type Vector,
  type VectorAck,
  type VectorConfig,
  VectorError,
  type VectorEvent,
  type VectorPacket,
  vectorPacket,
} from "./format.ts";
import { framePool } from "../../pipeline/kinds.ts";

/** How the rings are driven; what a vector delivers must not depend on it. */
export interface RingChoice {
  /** Layout; default split. */
  readonly ring?: "split" | "packed";
  /** Indirect descriptors; default false. */
  readonly indirect?: boolean | "always";
  /** EVENT_IDX; default true. */
  readonly eventIndex?: boolean;
}

/** How to run a vector. */
export interface RunVectorOptions {
  /** The rule book. */
  readonly rules: RuleBook;
  /** How the rings are driven. */
  readonly rings?: RingChoice;
  /** Where to explain what happens to each frame. */
  readonly verdicts?: VerdictLog;
}

/** What a device delivered. */
export interface VectorRun {
  /** The packets, in order of delivery. */
  readonly packets: readonly VectorPacket[];
  /** The answers to control commands, in order. */
  readonly acks: readonly VectorAck[];
  /** Every counter at the end. */
  readonly counters: CounterGroups;
  /** What the guest found wrong with the device, in words. */
  readonly guestErrors: readonly string[];
  /** Frames that were still somewhere when nothing was left to do. */
  readonly framesLeft: number;
}

/** Runs the events at their times, until nothing is left to drain. */
export async function runVector(vector: Vector, options: RunVectorOptions): Promise<VectorRun> {
  const { head, events } = vector;
  const config = await parseConfig(
    JSON.stringify(vectorMachine(head.config, options)),
    import.meta.url,
    newRegistry(),
  );
  await using machine = buildMachine(
    config,
    options.verdicts === undefined ? {} : { verdicts: options.verdicts },
  );
  const bench = new VectorBench(machine);
  machine.start();
  machine.parts.reactor.settle();
  for (const event of events) {
    machine.parts.reactor.advanceTo(event.t_ns);
    bench.apply(event);
  }
  machine.parts.reactor.advanceTo(LAST_TIME_NS);
  return bench.result();
}

/** Long after everything is due: the slowest interval is 10 s. */
const LAST_TIME_NS = 1e15;

/** The configuration that a vector's own describes. */
function vectorMachine(config: VectorConfig, { rules, rings = {} }: RunVectorOptions): object {
  const rsc = { intervalUs: config.rsc_interval_ns / 1000 };
  return {
    name: "vector",
    clock: "virtual",
    devices: [{
      use: "net",
      name: "net0",
      rules,
      mac: "52:54:00:12:34:56",
      driver: {
        use: "loopback",
        ring: rings.ring ?? "split",
        indirect: rings.indirect ?? false,
        eventIndex: rings.eventIndex ?? true,
        queueSize: config.rx_bufs,
        mergeable: config.mrg_rxbuf,
        receiveBufferBytes: config.rx_buf_len ?? (config.mrg_rxbuf ? 4096 : 69_632),
        receiveBuffers: config.rx_posted ?? "all",
        accept: config.features ?? DEFAULT_FEATURES,
      },
      network: { use: "loopback", queueFrames: 65_536 },
      offloads: [{ use: "rsc-v4", ...rsc }, { use: "rsc-v6", ...rsc }],
    }],
  };
}

/** The outside of the machine: puts events in, takes deliveries down. */
class VectorBench {
  readonly #machine: Machine;
  readonly #driver: LoopbackDriver<NetGuest>;
  readonly #port: CablePort;
  readonly #packets: VectorPacket[] = [];
  readonly #commands: { readonly t_ns: number; readonly command: ControlCommand }[] = [];
  readonly #acks: VectorAck[] = [];

  constructor(machine: Machine) {
    this.#machine = machine;
    const [{ driver, parts: { network } }] = machine.devices;
    this.#driver = driver as LoopbackDriver<NetGuest>;
    this.#port = network as CablePort;
    this.#driver.hooks.onPacket = (packet) => this.#note(packet);
  }

  /** Does what the event says, and everything that follows from it at that moment. */
  apply(event: VectorEvent): void {
    if ("frame" in event) {
      this.#port.inject(fromHex(event.frame), headerOf(event));
    } else if ("offloads" in event) {
      this.#commands.push({
        t_ns: event.t_ns,
        command: this.#driver.guest.setGuestOffloads(FeatureSet.fromBigInt(event.offloads)),
      });
    } else {
      this.#driver.guest.postReceiveBuffers(event.post);
    }
    this.#machine.parts.reactor.settle();
    for (const { t_ns, command } of this.#commands) {
      if (command.ack !== null) this.#acks.push({ t_ns, ctrl_ack: command.ack });
    }
    this.#commands.length = 0;
  }

  /** What was delivered. */
  result(): VectorRun {
    return {
      packets: this.#packets,
      acks: this.#acks,
      counters: this.#machine.counters,
      guestErrors: this.#driver.guest.errors,
      framesLeft: framePool(this.#machine.parts.scope).inUse,
    };
  }

  #note(packet: ReceivedPacket): void {
    this.#packets.push(vectorPacket(this.#machine.parts.reactor.clock.nowNs(), packet));
  }
}

/** Names each difference; none if the run is equal to the recording, bit for bit. */
export function differences(vector: Vector, run: VectorRun): string[] {
  const found: string[] = [];
  const count = Math.max(vector.packets.length, run.packets.length);
  for (let i = 0; i < count; i++) {
    const wanted = vector.packets[i];
    const got = run.packets[i];
    const where = `packet ${i + 1}`;
    if (wanted === undefined) found.push(`${where}: not recorded, but delivered at ${got.t_ns} ns`);
    else if (got === undefined) found.push(`${where}: recorded at ${wanted.t_ns} ns, but not delivered`);
    else found.push(...packetDifferences(where, wanted, got));
  }
  const acks = Math.max(vector.acks.length, run.acks.length);
  for (let i = 0; i < acks; i++) {
    const wanted = vector.acks[i];
    const got = run.acks[i];
    if (wanted?.ctrl_ack !== got?.ctrl_ack || wanted?.t_ns !== got?.t_ns) {
      found.push(`control answer ${i + 1}: wanted ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`);
    }
  }
  for (const error of run.guestErrors) found.push(`guest: ${error}`);
  if (run.framesLeft > 0) found.push(`pool: ${run.framesLeft} frames are not back at the end`);
  return found;
}

function packetDifferences(where: string, wanted: VectorPacket, got: VectorPacket): string[] {
  const found: string[] = [];
  if (wanted.t_ns !== got.t_ns) found.push(`${where}, t_ns: wanted ${wanted.t_ns}, got ${got.t_ns}`);
  for (const field of Object.keys(wanted.hdr) as (keyof VectorPacket["hdr"])[]) {
    const value = wanted.hdr[field];
    // The recording could not see num_buffers where the reference left it unwritten.
    if (value === null || value === got.hdr[field]) continue;
    found.push(`${where}, ${field}: wanted ${value}, got ${got.hdr[field]}`);
  }
  if (wanted.frame !== got.frame) found.push(`${where}, ${frameDifference(wanted.frame, got.frame)}`);
  return found;
}

function frameDifference(wanted: string, got: string): string {
  if (wanted.length !== got.length) return `length: wanted ${wanted.length / 2} bytes, got ${got.length / 2}`;
  let at = 0;
  while (wanted[at] === got[at]) at++;
  const byte = at >> 1;
  const excerpt = (digits: string) => digits.slice(2 * byte, 2 * byte + 16);
  return `frame, byte ${byte}: wanted ${excerpt(wanted)}…, got ${excerpt(got)}…`;
}

/** The most bytes of a vector; the recorded ones have less than a hundredth. */
export const MAX_VECTOR_BYTES: number = 64 * 1024 * 1024;
/** The path that stands for standard input. */
const STANDARD_INPUT = "-";
/** Folders within folders, at most. */
const MAX_DEPTH = 8;
/** What a vector's file name ends in. */
const SUFFIX = ".jsonl";

/**
 * The vector files that are meant by `paths`: files as they are, folders for all `.jsonl` files in them and
 * below, in order of their names; `-` is standard input. No file twice. Throws HostError for a path that
 * there is not, and for a folder without a vector.
 */
export function findVectors(paths: readonly string[]): string[] {
  const found = new Set<string>();
  for (const path of paths) {
    if (path === STANDARD_INPUT || !isFolder(path)) found.add(path);
    else if (addFolder(path, found, 0) === 0) {
      throw new HostError(`Cannot find a vector in "${path}": no file in it ends in ${SUFFIX}`);
    }
  }
  return [...found];
}

/** Reads a vector. Throws VectorError if it is none, HostError if it cannot be read or is too long. */
export async function readVector(path: string): Promise<Vector> {
  let text: string;
  try {
    const input = path === STANDARD_INPUT ? Deno.stdin : await Deno.open(path);
    text = await toText(
      input.readable
        .pipeThrough(new LimitedBytesTransformStream(MAX_VECTOR_BYTES, { error: true }))
        .pipeThrough(new TextDecoderStream("utf-8", { fatal: true })),
    );
  } catch (cause) {
    if (cause instanceof RangeError) {
      throw new HostError(`Cannot read "${path}": it is longer than ${MAX_VECTOR_BYTES} bytes`, { cause });
    }
    if (cause instanceof TypeError) throw new VectorError(`${path}: is not UTF-8 text`, { cause });
    throw new HostError(`Cannot read "${path}": ${messageOf(cause)}`, { cause });
  }
  return parseVector(text, path);
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (cause) {
    throw new HostError(
      `Cannot find "${path}": ${messageOf(cause)}; name a .jsonl file or a folder with some`,
      { cause },
    );
  }
}

/**
 * Adds the files of a folder and returns how many there are. Links to folders are not followed: they may go
 * in circles.
 */
function addFolder(folder: string, found: Set<string>, depth: number): number {
  let files = 0;
  const entries = [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1);
  for (const { name, isDirectory } of entries) {
    const path = `${folder.replace(/[/\\]+$/, "")}/${name}`;
    if (isDirectory && depth < MAX_DEPTH) files += addFolder(path, found, depth + 1);
    else if (!isDirectory && name.endsWith(SUFFIX)) {
      found.add(path);
      files++;
    }
  }
  return files;
}
