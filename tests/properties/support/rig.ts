/**
 * A machine under test with both of its ends: frames go into the open end of the device's cable, packets come
 * from the guest.
 * @module
 */
import type { NetGuest } from "../../../devices/net/driver/mod.ts";
import type { NetDevice } from "../../../devices/net/device.ts";
import type { Machine } from "../../../machine/machine.ts";
import type { CablePort } from "../../../transports/loopback.ts";
import type { ControlCommand, ReceivedPacket } from "../../../devices/net/driver/mod.ts";
import type { LoopbackDriver } from "../../../transports/loopback_driver/mod.ts";
import { GuestState } from "./guest_state.ts";
import { Judge } from "./judge.ts";
import { rssCommand } from "./machine.ts";
import type { MachineChoice } from "./scenario.ts";
import type { Injection } from "./traffic.ts";
import type { Witness } from "./witness.ts";

const RSS = 60;

/** A machine, its guest and its cable. */
export class Rig {
  readonly choice: MachineChoice;
  readonly machine: Machine;
  readonly device: NetDevice;
  readonly driver: LoopbackDriver<NetGuest>;
  readonly port: CablePort;
  readonly witness: Witness | null;
  readonly judge: Judge;
  /** Was the guest given few receive buffers? */
  starved = false;
  /** The link is the device's, and outlives a driver. */
  linkUp = true;
  /** Frames that went in, and packets that came out, since the stream began. */
  frames = 0;
  packets = 0;
  /** Frames in the cable, in order. */
  readonly #cable: Injection[] = [];
  /** Frames that the port has dropped, since they waited for a driver that went. */
  #dropped = 0;

  /** Starts the machine and attaches its guest. */
  constructor(choice: MachineChoice, machine: Machine, witness: Witness | null) {
    this.choice = choice;
    this.machine = machine;
    this.witness = witness;
    const [{ device, driver, parts: { network } }] = machine.devices;
    this.device = device as NetDevice;
    this.driver = driver as LoopbackDriver<NetGuest>;
    this.port = network as CablePort;
    this.judge = new Judge(machine, this.driver, this.port);
    this.driver.hooks.onPacket = (packet) => this.#note(packet);
    machine.start();
    this.attached(choice);
  }

  /** The machine's clock, in ns. */
  get nowNs(): number {
    return this.machine.parts.reactor.clock.nowNs();
  }

  /** A driver as this choice says has taken the device over: an epoch begins. */
  attached(choice: MachineChoice): void {
    const { guest } = this.driver;
    this.starved = choice.posted > 0;
    const state = new GuestState(guest.features, choice.bufferBytes);
    state.linkUp = this.linkUp;
    this.judge.beginEpoch(state);
    // Before anything else moves, so that no flow changes its queue later; a small control queue has no room
    // for that.
    if (choice.rss && choice.pairs > 1 && choice.queueSize > 8 && guest.features.has(RSS)) {
      const command = guest.control(4, 1, rssCommand(choice.pairs));
      this.obeyed(command, true);
    }
    this.settle();
  }

  /** Puts a frame into the cable. A full cable or pool is the network's loss, not the device's. */
  inject(frame: Injection): void {
    if (!this.port.inject(frame.bytes, frame.header)) return;
    this.witness?.frame(this.nowNs, frame);
    this.#cable.push(frame);
    this.frames++;
  }

  /** Turns the machine until nothing moves. */
  settle(): void {
    this.machine.parts.reactor.settle();
    // What waited when a driver went is dropped by the port, before anything that comes later.
    const { noGuest } = this.machine.counters["net0.network"];
    this.#cable.splice(0, noGuest - this.#dropped);
    this.#dropped = noGuest;
    const received = this.#cable.length - this.port.waiting;
    for (const frame of this.#cable.splice(0, received)) this.judge.epoch.receive(frame, this.nowNs);
  }

  /** Lets time pass. */
  advance(byNs: number): void {
    this.machine.parts.reactor.advanceTo(this.nowNs + byNs);
    this.settle();
  }

  /** Takes the link up or down. */
  setLink(up: boolean): void {
    this.device.setLink(up, this.nowNs);
    this.judge.epoch.state.linkUp = up;
    // What was held leaves before the link is down, and so must have come when this has settled.
    if (up) this.linkUp = true;
    this.settle();
    this.linkUp = up;
  }

  /** Checks that a command is answered as it should be. */
  obeyed(command: ControlCommand, expected: boolean): void {
    this.settle();
    const wanted = expected ? 0 : 1;
    if (command.ack !== wanted) {
      this.judge.violations.push(
        `command ${command.commandClass}/${command.command} was answered ${command.ack}, not ${wanted}`,
      );
    }
  }

  #note(packet: ReceivedPacket): void {
    const atNs = this.nowNs;
    this.witness?.packet(atNs, packet);
    this.packets++;
    if (!this.linkUp && !this.starved) {
      this.judge.violations.push("a packet was delivered while the link is down");
    }
    this.judge.delivered(atNs, packet);
  }
}
