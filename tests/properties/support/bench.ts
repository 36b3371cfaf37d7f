/**
 * Builds the machine of a scenario from JSON, runs its streams, and finds out what is wrong.
 *
 * Frames go into the open end of the device's cable, as many as come at the same moment in one batch; packets are taken from
 * the guest. A stream ends when nothing is held any more: then no frame may be out of the pool. A reset begins a new
 * `Epoch`; each is judged for itself. Frames that the device has not received by then are the next epoch's.
 * @module
 */
import { buildMachine } from "../../../config/build.ts";
import { newRegistry } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import type { Machine } from "../../../config/machine.ts";
import type { CounterGroups } from "../../../core/device.ts";
import { FeatureSet } from "../../../core/features.ts";
import type { NetDevice } from "../../../devices/net/device.ts";
import type { CablePort } from "../../../transports/loopback.ts";
import type {
  ControlCommand,
  LoopbackDriver,
  ReceivedPacket,
} from "../../../transports/loopback_driver/mod.ts";
import { Epoch, snapshot } from "./epoch.ts";
import { GuestState, offloadMask } from "./guest_state.ts";
import { configOf, guestOptionsOf, rssCommand } from "./machine.ts";
import { Packet } from "./packet.ts";
import {
  ACCEPTED,
  type Accepted,
  EVENT_KINDS,
  type EventKind,
  type FrameKind,
  type MachineChoice,
  possible,
  type Step,
  waitNs,
} from "./scenario.ts";
import { type Injection, Traffic } from "./traffic.ts";

const REGISTRY = newRegistry();
const EVENTS: ReadonlySet<string> = new Set(EVENT_KINDS);
const CTRL_RX = 18;
const MQ = 22;
const RSS = 60;
const CTRL_VQ = 17;

/** What a stream has been. */
export interface StreamReport {
  /** What is wrong, in words. */
  readonly violations: string[];
  /** Frames that went in. */
  readonly frames: number;
  /** Packets that came out. */
  readonly packets: number;
}

/** Told of everything that goes in and comes out, for a record. */
export interface Witness {
  /** A frame goes in. */
  frame(atNs: number, frame: Injection): void;
  /** The guest asks for offloads. */
  offloads(atNs: number, mask: readonly number[]): void;
  /** The guest posts receive buffers. */
  post(atNs: number, buffers: number): void;
  /** A packet has come out. */
  packet(atNs: number, packet: ReceivedPacket): void;
}

/** A machine under test. */
export class Bench {
  readonly #choice: MachineChoice;
  readonly #machine: Machine;
  readonly #device: NetDevice;
  readonly #driver: LoopbackDriver;
  readonly #port: CablePort;
  readonly #witness: Witness | null;
  readonly #sent: Uint8Array[] = [];
  readonly #carried: Uint8Array[] = [];
  /** Frames in the cable, in order. */
  readonly #cable: Injection[] = [];
  #violations: string[] = [];
  #epoch!: Epoch;
  #starved = false;
  #mayBeUnmergeable = false;
  /** The link is the device's, and outlives a driver. */
  #linkUp = true;
  #frames = 0;
  #packets = 0;

  private constructor(choice: MachineChoice, machine: Machine, witness: Witness | null) {
    this.#choice = choice;
    this.#machine = machine;
    this.#witness = witness;
    const [{ device, driver, network }] = machine.devices;
    this.#device = device as NetDevice;
    this.#driver = driver as LoopbackDriver;
    this.#port = network as CablePort;
    this.#driver.hooks.onPacket = (packet) => this.#note(packet);
    this.#port.tap((frame) => this.#carried.push(frame.toBytes()));
    machine.start();
    this.#attached(choice);
  }

  /** Builds the machine and attaches its guest. */
  static async open(written: MachineChoice, witness: Witness | null = null): Promise<Bench> {
    const choice = possible(written);
    const config = await parseConfig(JSON.stringify(configOf(choice)), import.meta.url, REGISTRY);
    return new Bench(choice, buildMachine(config), witness);
  }

  /** Every counter of the machine, live. */
  get counters(): CounterGroups {
    return this.#machine.counters;
  }

  get #nowNs(): number {
    return this.#machine.parts.reactor.clock.nowNs();
  }

  /** Runs a stream until nothing is held any more, and judges it. */
  run(steps: readonly Step[]): StreamReport {
    this.#violations = [];
    this.#frames = this.#packets = 0;
    this.#beginEpoch();
    this.#mayBeUnmergeable = !this.#epoch.state.mergeable || steps.some(([kind]) => kind === "reset");
    const traffic = new Traffic();
    const intervalNs = Math.round(this.#choice.intervalUs * 1000);
    let pending = false;
    for (const [kind, flow, size, time, detail] of steps) {
      const isEvent = EVENTS.has(kind);
      const byNs = waitNs(time, intervalNs);
      if (pending && (isEvent || byNs >= 0)) this.#settle();
      if (byNs > 0) this.#advance(byNs);
      if (isEvent) this.#event(kind as EventKind, detail);
      else for (const frame of traffic.frames(kind as FrameKind, flow, size, detail)) this.#inject(frame);
      pending = !isEvent;
    }
    this.#finish();
    this.#endEpoch(false);
    if (this.#machine.parts.pool.inUse !== 0) {
      this.#violations.push(`${this.#machine.parts.pool.inUse} frames are not back at the end`);
    }
    const { guest } = this.#driver;
    for (const error of guest.errors.splice(0)) this.#violations.push(`guest: ${error}`);
    if (
      this.#sent.length !== this.#carried.length ||
      this.#sent.some((bytes, i) => differ(bytes, this.#carried[i]))
    ) {
      this.#violations.push(
        `the guest sent ${this.#sent.length} frames, the cable took ${this.#carried.length}`,
      );
    }
    this.#sent.length = this.#carried.length = 0;
    return { violations: this.#violations, frames: this.#frames, packets: this.#packets };
  }

  /** Closes the machine; what is wrong then. */
  async close(): Promise<string[]> {
    await this.#machine.close();
    const { inUse } = this.#machine.parts.pool;
    return inUse === 0 ? [] : [`${inUse} frames are not back after the end`];
  }

  #inject(frame: Injection): void {
    // A guest that takes large packets without MRG_RXBUF gives the 65562 bytes that it is told to: no frame is longer.
    if (this.#mayBeUnmergeable && frame.bytes.length > 65_550) return;
    // A full cable or pool is the network's loss, not the device's.
    if (!this.#port.inject(frame.bytes, frame.header)) return;
    this.#witness?.frame(this.#nowNs, frame);
    this.#cable.push(frame);
    this.#frames++;
  }

  #settle(): void {
    this.#machine.parts.reactor.settle();
    const received = this.#cable.length - this.#port.waiting;
    for (const frame of this.#cable.splice(0, received)) this.#epoch.receive(frame, this.#nowNs);
  }

  #advance(byNs: number): void {
    this.#machine.parts.reactor.advanceTo(this.#nowNs + byNs);
    this.#settle();
  }

  #event(kind: EventKind, detail: number): void {
    const { guest } = this.#driver;
    const { state } = this.#epoch;
    switch (kind) {
      case "offloads":
        if (!state.has(CTRL_VQ)) return;
        this.#offloads(offloadMask(detail));
        return;
      case "post":
        guest.postReceiveBuffers(1 + detail % 40, (detail >>> 8) % this.#choice.pairs);
        this.#witness?.post(this.#nowNs, 1 + detail % 40);
        return this.#settle();
      case "reset":
        return this.#reset(detail);
      case "link":
        return this.#setLink((detail & 1) === 1);
      case "promiscuous": {
        if (!state.has(CTRL_RX)) return;
        const on = (detail & 1) === 1;
        this.#obeyed(guest.setReceiveMode("promisc", on), true);
        state.promiscuous = on;
        return;
      }
      case "pairs":
        // Between queues there is no order, and what waits for buffers stays where it is.
        if (this.#choice.pairs === 1 || !state.has(MQ) || this.#starved) return;
        this.#epoch.queuesChange = true;
        return this.#obeyed(guest.setQueuePairs(1 + detail % this.#choice.pairs), true);
      case "send":
        return this.#send(detail);
    }
  }

  #setLink(up: boolean): void {
    this.#device.setLink(up, this.#nowNs);
    this.#epoch.state.linkUp = up;
    // What was held leaves before the link is down, and so must have come when this has settled.
    if (up) this.#linkUp = true;
    this.#settle();
    this.#linkUp = up;
  }

  #offloads(mask: readonly number[]): void {
    const { guest } = this.#driver;
    this.#witness?.offloads(this.#nowNs, mask);
    this.#obeyed(guest.setGuestOffloads(FeatureSet.of(...mask)), this.#epoch.state.setOffloads(mask));
  }

  #obeyed(command: ControlCommand, expected: boolean): void {
    this.#settle();
    const wanted = expected ? 0 : 1;
    if (command.ack !== wanted) {
      this.#violations.push(
        `command ${command.commandClass}/${command.command} was answered ${command.ack}, not ${wanted}`,
      );
    }
  }

  /** Sends a frame of the guest's own, to somebody who is not in the traffic. */
  #send(detail: number): void {
    const packet = new Packet();
    packet.protocol = 17;
    packet.source = 200;
    packet.destination = 201;
    packet.payloadBytes = detail % 1400;
    packet.seq = detail >>> 0;
    const frame = packet.write();
    const counters = this.#machine.counters["net0.fromGuest"];
    const before = counters.dropped_link_down;
    const sent = this.#driver.guest.send(frame, {}, 0);
    if (sent && this.#linkUp) this.#sent.push(frame);
    this.#settle();
    const dropped = counters.dropped_link_down - before;
    if (dropped !== (sent && !this.#linkUp ? 1 : 0)) {
      this.#violations.push(`${dropped} frames sent were dropped`);
    }
  }

  /** Another driver takes the device over, perhaps with other features and rings. */
  #reset(detail: number): void {
    const { guest } = this.#driver;
    this.#settle();
    guest.detach();
    this.#endEpoch(true);
    const names = Object.keys(ACCEPTED) as Accepted[];
    const choice = possible({
      ...this.#choice,
      accepted: (detail & 1) === 0 ? this.#choice.accepted : names[(detail >>> 4) % names.length],
      ring: (detail & 2) === 0 ? this.#choice.ring : "packed",
      mergeable: this.#choice.mergeable && (detail & 4) === 0,
    });
    Object.assign(guest.options, guestOptionsOf(choice));
    guest.attach(this.#device);
    this.#attached(choice);
  }

  #attached(choice: MachineChoice): void {
    const { guest } = this.#driver;
    this.#starved = choice.posted > 0;
    const state = new GuestState(guest.features, choice.bufferBytes);
    state.linkUp = this.#linkUp;
    this.#epoch = new Epoch(state, snapshot(this.#machine.counters));
    // Before anything else moves, so that no flow changes its queue later; a small control queue has no room for that.
    if (choice.rss && choice.pairs > 1 && choice.queueSize > 8 && guest.features.has(RSS)) {
      const command = guest.control(4, 1, rssCommand(choice.pairs));
      this.#obeyed(command, true);
    }
    this.#settle();
  }

  #beginEpoch(): void {
    this.#epoch = new Epoch(this.#epoch.state, snapshot(this.#machine.counters));
  }

  #endEpoch(endsInReset: boolean): void {
    const { intervalUs, mostSegments, timestamps, flushOnPush } = this.#choice;
    const intervalNs = this.#starved ? Infinity : Math.round(intervalUs * 1000);
    const options = { intervalNs, mostSegments, timestamps, flushOnPush, endsInReset };
    this.#violations.push(...this.#epoch.violations(this.#machine.counters, options));
    for (const [fault, count] of Object.entries(this.#driver.guest.session.faults)) {
      this.#violations.push(`${count} guest faults: ${fault}`);
    }
  }

  /** Lets everything out: link up, buffers posted, time passed. */
  #finish(): void {
    const { guest } = this.#driver;
    this.#settle();
    this.#setLink(true);
    const feed = () => {
      for (let tries = 0; this.#starved && tries < 10_000; tries++) {
        if (this.#port.waiting === 0 && this.#device.waitingFrames.toGuest === 0) return;
        for (let pair = 0; pair < this.#choice.pairs; pair++) guest.postReceiveBuffers(32_768, pair);
        this.#settle();
      }
    };
    feed();
    this.#advance(Math.round(this.#choice.intervalUs * 1000) + 1000);
    feed();
  }

  #note(packet: ReceivedPacket): void {
    const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset, numBuffers, bytes, queue } = packet;
    const atNs = this.#nowNs;
    this.#witness?.packet(atNs, packet);
    this.#packets++;
    if (!this.#linkUp && !this.#starved) {
      this.#violations.push("a packet was delivered while the link is down");
    }
    this.#epoch.outputs.push({
      atNs,
      bytes,
      queue,
      hdr: {
        flags,
        gso_type: gsoType,
        hdr_len: hdrLen,
        gso_size: gsoSize,
        csum_start: csumStart,
        csum_offset: csumOffset,
        num_buffers: numBuffers,
      },
    });
  }
}

function differ(a: Uint8Array, b: Uint8Array): boolean {
  return a.length !== b.length || a.some((byte, i) => byte !== b[i]);
}
