/**
 * Builds the machine of a scenario from JSON, runs its streams, and finds out what is wrong.
 *
 * Frames go into the cable, as many as come at the same moment in one batch. A stream ends when nothing is
 * held any more: then no frame may be out of the pool. A reset begins a new `Epoch`; each is judged for
 * itself. Frames that the device has not received by then are dropped by its port.
 * @module
 */
import "./shared_arenas.ts";
import { newRegistry } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import type { CounterGroups } from "../../../plugins/plugin.ts";
import { buildMachine } from "../../../machine/build.ts";
import { happen } from "./guest_events.ts";
import { configOf } from "./machine.ts";
import { Rig } from "./rig.ts";
import {
  EVENT_KINDS,
  type EventKind,
  type FrameKind,
  type MachineChoice,
  possible,
  type Step,
  waitNs,
} from "./scenario.ts";
import { type Injection, Traffic } from "./traffic.ts";
import type { Witness } from "./witness.ts";
import { framePool } from "../../../pipeline/kinds.ts";

const REGISTRY = newRegistry();
const EVENTS: ReadonlySet<string> = new Set(EVENT_KINDS);

/** What a stream has been. */
export interface StreamReport {
  /** What is wrong, in words. */
  readonly violations: string[];
  /** Frames that went in. */
  readonly frames: number;
  /** Packets that came out. */
  readonly packets: number;
}

/** A machine under test. */
export class Bench {
  readonly #rig: Rig;
  #mayBeUnmergeable = false;

  private constructor(rig: Rig) {
    this.#rig = rig;
  }

  /** Builds the machine and attaches its guest. */
  static async open(written: MachineChoice, witness: Witness | null = null): Promise<Bench> {
    const choice = possible(written);
    const config = await parseConfig(JSON.stringify(configOf(choice)), import.meta.url, REGISTRY);
    return new Bench(new Rig(choice, buildMachine(config), witness));
  }

  /** Every counter of the machine, live. */
  get counters(): CounterGroups {
    return this.#rig.machine.counters;
  }

  /** Runs a stream until nothing is held any more, and judges it. */
  run(steps: readonly Step[]): StreamReport {
    const rig = this.#rig;
    const { judge, choice } = rig;
    judge.violations = [];
    rig.frames = rig.packets = 0;
    judge.beginEpoch(judge.epoch.state);
    this.#mayBeUnmergeable = !judge.epoch.state.mergeable || steps.some(([kind]) => kind === "reset");
    const traffic = new Traffic();
    const intervalNs = Math.round(choice.intervalUs * 1000);
    let pending = false;
    for (const [kind, flow, size, time, detail] of steps) {
      const isEvent = EVENTS.has(kind);
      const byNs = waitNs(time, intervalNs);
      if (pending && (isEvent || byNs >= 0)) rig.settle();
      if (byNs > 0) rig.advance(byNs);
      if (isEvent) happen(rig, kind as EventKind, detail);
      else for (const frame of traffic.frames(kind as FrameKind, flow, size, detail)) this.#inject(frame);
      pending = !isEvent;
    }
    this.#finish();
    judge.endEpoch(choice, rig.starved, false);
    judge.endStream();
    return { violations: judge.violations, frames: rig.frames, packets: rig.packets };
  }

  /** Closes the machine; what is wrong then. */
  async close(): Promise<string[]> {
    const { machine } = this.#rig;
    await machine.close();
    const { inUse } = framePool(machine.parts.scope);
    return inUse === 0 ? [] : [`${inUse} frames are not back after the end`];
  }

  #inject(frame: Injection): void {
    // A guest that takes large packets without MRG_RXBUF gives the 65562 bytes that it is told to: no frame
    // is longer.
    if (this.#mayBeUnmergeable && frame.bytes.length > 65_550) return;
    this.#rig.inject(frame);
  }

  /** Lets everything out: link up, buffers posted, time passed. */
  #finish(): void {
    const rig = this.#rig;
    const { choice, device, driver, port } = rig;
    rig.settle();
    rig.setLink(true);
    const feed = () => {
      for (let tries = 0; rig.starved && tries < 10_000; tries++) {
        if (port.waiting === 0 && device.waitingFrames.toGuest === 0) return;
        for (let pair = 0; pair < choice.pairs; pair++) driver.guest.postReceiveBuffers(32_768, pair);
        rig.settle();
      }
    };
    feed();
    rig.advance(Math.round(choice.intervalUs * 1000) + 1000);
    feed();
  }
}
