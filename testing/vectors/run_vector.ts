/**
 * Runs a vector's events through a whole device: configuration, rings, control queue, clock.
 * @module
 */
import { buildMachine } from "../../machine/build.ts";
import { newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import type { Machine } from "../../machine/machine.ts";
import type { CounterGroups } from "../../core/device.ts";
import { FeatureSet } from "../../core/features.ts";
import type { RuleBook, VerdictLog } from "../../core/stage.ts";
import type { CablePort } from "../../transports/loopback.ts";
import type { ControlCommand, LoopbackDriver, ReceivedPacket } from "../../transports/loopback_driver/mod.ts";
import { NetHeader } from "../../core/frame.ts";
import { readNetHeader } from "../../wire/virtio_net_header.ts";
import { vectorPacket } from "./delivered.ts";
import {
  DEFAULT_FEATURES,
  fromHex,
  type Vector,
  type VectorAck,
  type VectorConfig,
  type VectorEvent,
  type VectorPacket,
} from "./format.ts";

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
  readonly #driver: LoopbackDriver;
  readonly #port: CablePort;
  readonly #packets: VectorPacket[] = [];
  readonly #commands: { readonly t_ns: number; readonly command: ControlCommand }[] = [];
  readonly #acks: VectorAck[] = [];

  constructor(machine: Machine) {
    this.#machine = machine;
    const [{ driver, network }] = machine.devices;
    this.#driver = driver as LoopbackDriver;
    this.#port = network as CablePort;
    this.#driver.hooks.onPacket = (packet) => this.#note(packet);
  }

  /** Does what the event says, and everything that follows from it at that moment. */
  apply(event: VectorEvent): void {
    if ("frame" in event) {
      const header = new NetHeader();
      if (event.vnet_hdr !== undefined) {
        const bytes = new Uint8Array(12);
        bytes.set(fromHex(event.vnet_hdr).subarray(0, 12));
        readNetHeader(new DataView(bytes.buffer), 0, header);
      }
      this.#port.inject(fromHex(event.frame), header);
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
      framesLeft: this.#machine.parts.pool.inUse,
    };
  }

  #note(packet: ReceivedPacket): void {
    this.#packets.push(vectorPacket(this.#machine.parts.reactor.clock.nowNs(), packet));
  }
}
