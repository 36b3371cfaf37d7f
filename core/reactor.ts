/**
 * The reactor: turns everything that has work, and sleeps when nothing has.
 *
 * Theory of operation. A *round* polls every member once, with one reading of the clock. Rounds follow each other while any
 * of them did something. Then the members' deadlines tell when to come back. Under a manual clock (`settle`, `advanceTo`,
 * `runToEnd`) the clock is simply moved to that moment, so that a run is a function of its inputs. In real time (`run`) the
 * reactor sleeps until then or until `wake`. Timers of this runtime are coarse (2 ms), so the last stretch before a deadline
 * is spent turning over the event loop instead; signals and console keep working.
 *
 * Invariants: nobody but the reactor reads the clock; a member is never polled from within a poll.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { type Clock, ManualClock } from "./clock.ts";
import type { Pollable } from "./transport.ts";

/** Rounds between two turns of the event loop while there is work. */
const ROUNDS_PER_TURN = 32;
/** Deadlines closer than this are waited for awake. */
const COARSE_TIMER_NS = 2_500_000;
/** Longest sleep, in ms: setTimeout takes 31 bits. */
const LONGEST_SLEEP_MS = 60_000;
/** Rounds at one moment of a manual clock after which somebody must be spinning. */
const MOST_ROUNDS = 10_000_000;

/** Turns pollable members, in real time or by a manual clock. */
export class Reactor {
  /** What it tells the time by. */
  readonly clock: Clock;
  readonly #members: Pollable[] = [];
  #woken = false;
  #wakeUp: (() => void) | null = null;

  /** A reactor without members. @param clock what to tell the time by */
  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Adds a member; it is polled after those that are there. */
  add(member: Pollable): void {
    this.#members.push(member);
  }

  /** Ends a sleep: there is work. May be called from anywhere, also from within a poll. */
  wake(): void {
    this.#woken = true;
    this.#wakeUp?.();
  }

  /** One round. True if anybody did something. */
  turn(): boolean {
    const nowNs = this.clock.nowNs();
    let did = false;
    for (let i = 0; i < this.#members.length; i++) if (this.#members[i].poll(nowNs)) did = true;
    return did;
  }

  /** The earliest deadline of all members, in ns. */
  deadlineNs(): number {
    let first = Infinity;
    for (let i = 0; i < this.#members.length; i++) {
      const deadline = this.#members[i].deadlineNs();
      if (deadline < first) first = deadline;
    }
    return first;
  }

  /** Rounds until nobody does anything, without moving the clock. Throws Error if that takes ten million rounds. */
  settle(): void {
    for (let rounds = 0; this.turn(); rounds++) {
      if (rounds > MOST_ROUNDS) {
        throw new Error(`The machine does not settle: ${rounds} rounds at one moment`);
      }
    }
  }

  /**
   * Moves a manual clock to `nowNs`, stopping at every deadline on the way: what is due at a moment happens at that moment,
   * and what is due at `nowNs` has happened when this returns. Throws TypeError with another clock.
   */
  advanceTo(nowNs: number): void {
    const clock = this.#manualClock();
    this.settle();
    for (let due = this.deadlineNs(); due <= nowNs; due = this.deadlineNs()) {
      clock.advanceTo(Math.max(due, clock.nowNs()));
      this.settle();
    }
    if (nowNs > clock.nowNs()) clock.advanceTo(nowNs);
  }

  /** Runs by a manual clock until nothing is left to wait for, or `signal` aborts. Lets the event loop turn now and then. */
  async runToEnd(signal?: AbortSignal): Promise<void> {
    const clock = this.#manualClock();
    for (let rounds = 1; signal?.aborted !== true; rounds++) {
      if (!this.turn()) {
        const due = this.deadlineNs();
        if (due === Infinity) return;
        if (due > clock.nowNs()) clock.advanceTo(due);
      }
      if (rounds % 1024 === 0) await eventLoopTurn();
    }
  }

  /** Runs in real time until `signal` aborts, or `isOver` says that there is no more to come. */
  async run(signal: AbortSignal, isOver: () => boolean = () => false): Promise<void> {
    const onAbort = () => this.wake();
    signal.addEventListener("abort", onAbort);
    try {
      for (let rounds = 1; !signal.aborted; rounds++) {
        this.#woken = false;
        if (this.turn()) {
          if (rounds % ROUNDS_PER_TURN === 0) await eventLoopTurn();
          continue;
        }
        const due = this.deadlineNs();
        if (due === Infinity && isOver()) return;
        const leftNs = due - this.clock.nowNs();
        if (leftNs < COARSE_TIMER_NS) await eventLoopTurn();
        else if (!this.#woken) await this.#sleep(leftNs - COARSE_TIMER_NS);
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #sleep(forNs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#wakeUp?.(), Math.min(forNs / 1e6, LONGEST_SLEEP_MS));
      this.#wakeUp = () => {
        this.#wakeUp = null;
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #manualClock(): ManualClock {
    if (this.clock instanceof ManualClock) return this.clock;
    throw new TypeError("Cannot move the machine's clock: it was not built with a manual one");
  }
}

function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
