/**
 * Finds out what is wrong with a machine under test: each epoch by itself, and at the end of a stream that
 * nothing is left.
 * @module
 */
import type { NetGuest } from "../../../devices/net/driver/mod.ts";
import type { Machine } from "../../../machine/machine.ts";
import { vectorHeader } from "../../../testing/vectors/format.ts";
import type { CablePort } from "../../../transports/loopback.ts";
import type { LoopbackDriver } from "../../../transports/loopback_driver/mod.ts";
import type { ReceivedPacket } from "../../../devices/net/driver/mod.ts";
import { Epoch, snapshot } from "./epoch.ts";
import type { GuestState } from "./guest_state.ts";
import type { MachineChoice } from "./scenario.ts";
import { framePool } from "../../../pipeline/kinds.ts";

/** Judges one machine. */
export class Judge {
  /** What is wrong with the stream at hand, in words. */
  violations: string[] = [];
  readonly #machine: Machine;
  readonly #driver: LoopbackDriver<NetGuest>;
  /** What the guest has sent while the link was up, and what the cable has taken. */
  readonly #sent: Uint8Array[] = [];
  readonly #carried: Uint8Array[] = [];
  #epoch!: Epoch;

  /** Listens at the cable. There is no epoch yet. */
  constructor(machine: Machine, driver: LoopbackDriver<NetGuest>, port: CablePort) {
    this.#machine = machine;
    this.#driver = driver;
    port.tap((frame) => this.#carried.push(frame.toBytes()));
  }

  /** The epoch at hand. */
  get epoch(): Epoch {
    return this.#epoch;
  }

  /** A guest has attached, or a stream begins: what follows is judged by itself. */
  beginEpoch(state: GuestState): void {
    this.#epoch = new Epoch(state, snapshot(this.#machine.counters));
  }

  /** Judges the epoch. @param starved were buffers short? @param endsInReset is what is left discarded? */
  endEpoch(choice: MachineChoice, starved: boolean, endsInReset: boolean): void {
    const { intervalUs, maxSegments, timestamps, flushOnPush } = choice;
    const intervalNs = starved ? Infinity : Math.round(intervalUs * 1000);
    const options = { intervalNs, maxSegments, timestamps, flushOnPush, endsInReset };
    this.violations.push(...this.#epoch.violations(this.#machine.counters, options));
    for (const [fault, count] of Object.entries(this.#driver.guest.session.faults)) {
      this.violations.push(`${count} guest faults: ${fault}`);
    }
  }

  /** A packet was delivered. */
  delivered(atNs: number, packet: ReceivedPacket): void {
    const { bytes, queuePair, numBuffers } = packet;
    const hdr = { ...vectorHeader(packet), num_buffers: numBuffers };
    this.#epoch.outputs.push({ atNs, bytes, queue: queuePair, hdr });
  }

  /** The guest has sent this frame, and the link is up. */
  sent(frame: Uint8Array): void {
    this.#sent.push(frame);
  }

  /**
   * A stream has ended: no frame may be anywhere, and all that the guest sent must have been carried, in
   * order.
   */
  endStream(): void {
    const { inUse } = framePool(this.#machine.parts.scope);
    if (inUse !== 0) this.violations.push(`${inUse} frames are not back at the end`);
    for (const error of this.#driver.guest.errors.splice(0)) this.violations.push(`guest: ${error}`);
    if (
      this.#sent.length !== this.#carried.length ||
      this.#sent.some((bytes, i) => differ(bytes, this.#carried[i]))
    ) {
      this.violations.push(
        `the guest sent ${this.#sent.length} frames, the cable took ${this.#carried.length}`,
      );
    }
    this.#sent.length = this.#carried.length = 0;
  }
}

function differ(a: Uint8Array, b: Uint8Array): boolean {
  return a.length !== b.length || a.some((byte, i) => byte !== b[i]);
}
