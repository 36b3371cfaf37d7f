/**
 * The counters of a machine, as they are asked for while it runs.
 * @module
 */
import type { Machine } from "../../machine/machine.ts";

/** What a device has moved one way. */
export interface Moved {
  /** Packets. */
  readonly packets: number;
  /** Their bytes. */
  readonly bytes: number;
}

/** What a device has moved. */
export interface DeviceMoves {
  /** The device. */
  readonly name: string;
  /** To its guest. */
  readonly toGuest: Moved;
  /** From its guest. */
  readonly fromGuest: Moved;
}

/** All counters at one moment. */
export type CounterSnapshot = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** Looks at the counters of a machine. */
export class CounterView {
  readonly #machine: Machine;

  /** @param machine whose counters to look at */
  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** The machine's own time, in ns from its start. */
  get nowNs(): number {
    return this.#machine.parts.reactor.clock.nowNs();
  }

  /** A copy of all counters. What a plugin has published in place of a number is left out. */
  snapshot(): CounterSnapshot {
    return Object.fromEntries(
      Object.entries(this.#machine.counters).map(([group, counters]) => [
        group,
        Object.fromEntries(Object.entries(counters).filter(([, count]) => typeof count === "number")),
      ]),
    );
  }

  /** What each device has moved so far; zeros for a device that does not count packets. */
  moves(): DeviceMoves[] {
    const { counters } = this.#machine;
    const moved = (group: string): Moved => ({
      packets: counters[group]?.packets ?? 0,
      bytes: counters[group]?.bytes ?? 0,
    });
    return this.#machine.devices.map(({ name }) => ({
      name,
      toGuest: moved(`${name}.toGuest`),
      fromGuest: moved(`${name}.fromGuest`),
    }));
  }
}
