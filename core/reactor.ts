/**
 * The reactor: turns everything that has work, and sleeps when nothing has.
 *
 * Theory of operation. A *round* polls every member once, with one reading of the clock. Rounds follow each
 * other while any of them did something. Then the members' deadlines tell when to come back. Under a manual
 * clock (`settle`, `advanceTo`, `runToEnd`) the clock is simply moved to that moment, so that a run is a
 * function of its inputs; while an input has not come (`ManualClock.hold`) it stands, and `runToEnd` sleeps
 * until `wake`. In real time (`run`) the reactor sleeps until then or until `wake`. Timers of this runtime
 * are coarse (2 ms), so the last stretch before a deadline is spent turning over the event loop instead;
 * signals and console keep working.
 *
 * With `pollMaxNs` it *polls* before it sleeps, for a time that adapts itself (`PollTime`): it asks its
 * waiter over and over what has happened, and turns a round when something has. A sleep that costs nothing,
 * and a wake that takes the kernel 30 to 100 microseconds, become a processor in full use and one of none.
 * The wait that is judged lasts from the first round that did nothing to the next that does something; rounds
 * in between that find nothing belong to it.
 *
 * Invariants: only the reactor reads the clock; a member is never polled from within a poll. A manual clock
 * that does not get on, because a member always has more to do or is always due, is an error and not a hang.
 *
 * @module
 */
import { setImmediate } from "node:timers";
import { type Clock, ManualClock } from "./clock.ts";

/** Rounds between two turns of the event loop while there is work. */
const ROUNDS_PER_TURN = 32;
/** Rounds at one moment of a manual clock after which a member must be spinning. */
const MAX_ROUNDS = 2_000_000;

/** The shortest time of polling other than none, in ns. */
const MIN_POLL_NS = 4000;
/** Looks between two readings of the clock, which cost as much and make a number on the heap. */
const LOOKS_PER_TIME = 8;
/** From one reading to the next, in ns: if it takes longer, another program has had the processor. */
const TAKEN_NS = 1_000_000;

/**
 * How long to poll before a sleep, as QEMU's event loops have it (`poll-max-ns`): none at first; twice as
 * long after every wait that was longer, but within the limit, so that polling would have met its end; half
 * as long after one beyond the limit, during which polling was in vain.
 *
 * A thread that never sleeps has used up its share of a processor when something comes, and has to wait for
 * those that have not. So it begins with none again when another program takes the processor.
 */
export class PollTime {
  /** The limit, in ns; 0: it never polls. */
  readonly maxNs: number;
  #ns = 0;

  /** Polls for no time at first. @param maxNs the limit, in ns */
  constructor(maxNs: number) {
    this.maxNs = maxNs;
  }

  /** How long to poll now, in ns: 0 to `maxNs`. */
  get ns(): number {
    return this.#ns;
  }

  /** Learns from a wait. @param waitedNs how long it took for something to come, polled and slept */
  waited(waitedNs: number): void {
    if (waitedNs <= this.#ns) return;
    if (waitedNs <= this.maxNs) this.#ns = Math.min(Math.max(2 * this.#ns, MIN_POLL_NS), this.maxNs);
    else this.#ns = this.#ns < 2 * MIN_POLL_NS ? 0 : this.#ns / 2;
  }

  /** Another program has taken the processor while it polled. */
  taken(): void {
    this.#ns = 0;
  }
}

/** Turns pollable members, in real time or by a manual clock. */
export class Reactor {
  /** What it tells the time by. */
  readonly clock: Clock;
  readonly #pollTime: PollTime;
  readonly #members: Pollable[] = [];
  /** Those that can be asked without a round. */
  readonly #lookers: Pollable[] = [];
  #waiter: Waiter = new CoarseWaiter();
  #woken = false;
  /** When the present round began, in ns. */
  #roundNs = 0;
  /** Rounds since a manual clock has moved. */
  #rounds = 0;

  /**
   * A reactor without members that sleeps by the runtime's timers.
   * @param clock what to tell the time by
   * @param pollMaxNs how long to poll at most before a sleep, in ns, if its waiter can be asked
   * (`Waiter.look`); 0: not at all
   */
  constructor(clock: Clock, pollMaxNs = 0) {
    this.clock = clock;
    this.#pollTime = new PollTime(pollMaxNs);
  }

  /** How it sleeps. */
  get waiter(): Waiter {
    return this.#waiter;
  }

  /** Sleeps by another waiter from now on, and ends the present sleep. Who makes waiters disposes of them. */
  set waiter(waiter: Waiter) {
    const before = this.#waiter;
    this.#waiter = waiter;
    this.#woken = true;
    before.wake();
  }

  /** Adds a member; it is polled after those that are there. */
  add(member: Pollable): void {
    this.#members.push(member);
    if (member.look !== undefined) this.#lookers.push(member);
  }

  /** Ends a sleep: there is work. May be called from anywhere, also from within a poll. */
  wake(): void {
    this.#woken = true;
    this.#waiter.wake();
  }

  /** One round. True if anybody did something. */
  turn(): boolean {
    const nowNs = this.#roundNs = this.clock.nowNs();
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

  /** Rounds until no member does anything, by a standing clock. Throws Error after two million rounds. */
  settle(): void {
    for (this.#rounds = 0; this.turn();) this.#count();
  }

  /**
   * Moves a manual clock to `nowNs`, stopping at every deadline on the way: what is due at a moment happens
   * at that moment, and what is due at `nowNs` has happened when this returns. A time that has passed only
   * settles. Throws TypeError with another clock, RangeError for a time that is not finite, and Error after
   * two million rounds at one moment, or if an input has not come: it can be waited for by `runToEnd` only.
   */
  advanceTo(nowNs: number): void {
    const clock = this.#manualClock();
    if (!Number.isFinite(nowNs)) {
      throw new RangeError(`Cannot advance to ${nowNs} ns: the time must be finite`);
    }
    const endNs = Math.max(nowNs, clock.nowNs());
    this.#rounds = 0;
    for (;;) {
      const state = this.#step(clock, endNs);
      if (state === "over") break;
      if (state === "moved") continue;
      throw new Error(
        `Cannot advance to ${nowNs} ns: an input has not come, so that it is not known what is due; use run or runToEnd`,
      );
    }
    clock.advanceTo(endNs);
  }

  /**
   * Runs by a manual clock until nothing is left to wait for, or `signal` aborts. Lets the event loop turn
   * now and then, and sleeps while an input has not come; when `signal` aborts inputs are not waited for any
   * more (`mayBeHeld`). Rejects with TypeError with another clock, with Error after two million rounds at one
   * moment.
   */
  async runToEnd(signal?: AbortSignal): Promise<void> {
    const clock = this.#manualClock();
    clock.mayBeHeld = signal?.aborted !== true;
    const onAbort = () => {
      clock.mayBeHeld = false;
      this.wake();
    };
    signal?.addEventListener("abort", onAbort);
    try {
      this.#rounds = 0;
      for (let steps = 1; signal?.aborted !== true; steps++) {
        const state = this.#step(clock, Number.MAX_VALUE);
        if (state === "over") return;
        if (state === "held") await this.#waiter.wait(Infinity, 0);
        else if (steps % 1024 === 0) await eventLoopTurn();
      }
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Runs in real time until `signal` aborts, or `isOver` says that there is no more to come. */
  async run(signal: AbortSignal, isOver: () => boolean = () => false): Promise<void> {
    const onAbort = () => this.wake();
    signal.addEventListener("abort", onAbort);
    const pollTime = this.#pollTime;
    const mayPoll = pollTime.maxNs > 0;
    /** When the present wait began, in ns; negative outside of one. */
    let idleSinceNs = -1;
    /** Was polling in vain? Then it sleeps. */
    let isVain = false;
    /** When the event loop was last let turn while polling, in ns. */
    let turnedNs = this.clock.nowNs();
    try {
      for (let rounds = 1; !signal.aborted; rounds++) {
        this.#woken = false;
        const did = this.turn();
        if (did && idleSinceNs >= 0) {
          pollTime.waited(this.#roundNs - idleSinceNs);
          idleSinceNs = -1;
          isVain = false;
        }
        // Behind a round and not before it: a member woken for a deadline or an event comes first.
        if (rounds % ROUNDS_PER_TURN === 0) {
          await eventLoopTurn();
          continue;
        }
        if (did) continue;
        const dueNs = this.deadlineNs();
        if (dueNs === Infinity && isOver()) return;
        if (this.#woken) continue;
        const nowNs = this.clock.nowNs();
        if (mayPoll && !isVain && dueNs > nowNs && this.#waiter.look !== undefined) {
          if (idleSinceNs < 0) idleSinceNs = nowNs;
          const endNs = idleSinceNs + pollTime.ns;
          if (nowNs < endNs) {
            const turnNs = turnedNs + (this.#waiter.turnNs ?? Infinity);
            const found = nowNs < turnNs ? this.#lookOut(nowNs, Math.min(endNs, dueNs, turnNs)) : "turn";
            if (found !== "turn") continue;
            await eventLoopTurn();
            turnedNs = nowNs;
            continue;
          }
          isVain = true;
        }
        await this.#waiter.wait(dueNs, nowNs);
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Polls from `nowNs` until something has happened, the event loop is to turn, or the time is `endNs`. */
  #lookOut(nowNs: number, endNs: number): LookedFor {
    const waiter = this.#waiter;
    let found: LookedFor = "nothing";
    while (found === "nothing" && nowNs < endNs) {
      for (let looks = 0; found === "nothing" && looks < LOOKS_PER_TIME; looks++) {
        found = this.#hasWork() ? "event" : waiter.look!();
      }
      const lookedNs = nowNs;
      nowNs = this.clock.nowNs();
      if (nowNs - lookedNs < TAKEN_NS) continue;
      this.#pollTime.taken();
      break;
    }
    return found;
  }

  #hasWork(): boolean {
    for (let i = 0; i < this.#lookers.length; i++) if (this.#lookers[i].look!()) return true;
    return false;
  }

  /** A round; if it does nothing the clock moves to what is due next, unless that is after `endNs`. */
  #step(clock: ManualClock, endNs: number): "moved" | "held" | "over" {
    this.#count();
    if (this.turn()) return "moved";
    if (clock.isHeld) {
      this.#rounds = 0;
      return "held";
    }
    const due = this.deadlineNs();
    if (due > endNs) return "over";
    if (due > clock.nowNs()) {
      clock.advanceTo(due);
      this.#rounds = 0;
    }
    return "moved";
  }

  /** Throws Error when there were too many rounds at this moment. */
  #count(): void {
    if (++this.#rounds <= MAX_ROUNDS) return;
    throw new Error(
      `The machine does not settle: after ${MAX_ROUNDS} rounds at ${this.clock.nowNs()} ns there is still something to do`,
    );
  }

  #manualClock(): ManualClock {
    if (this.clock instanceof ManualClock) return this.clock;
    throw new TypeError("Cannot move the machine's clock: it was not built with a manual one");
  }
}

/** Something the reactor turns: bounded work now, and a time at which to come back. */
export interface Pollable {
  /** Does a bounded amount of work at time `nowNs`. True if it did something, and so may have more to do. */
  poll(nowNs: number): boolean;
  /** When it wants to be polled again although nothing wakes it, in ns; Infinity if never. */
  deadlineNs(): number;
  /**
   * Is there work that shows in memory, such as a buffer in a ring? Called over and over while the reactor
   * polls instead of sleeping, so that nothing need tell of such work meanwhile; there is another round
   * before it sleeps. It makes no system call and no objects. Left out: what is to be done is told.
   */
  look?(): boolean;
}

/** Does this object have work of its own? */
export function isPollable(object: object): object is Pollable {
  return "poll" in object && "deadlineNs" in object;
}

/** Deadlines closer than this are waited for awake: timers of the runtime are late by as much. */
const COARSE_TIMER_NS = 2_500_000;
/** Longest sleep, in ms: setTimeout takes 31 bits. */
const LONGEST_SLEEP_MS = 60_000;

/** Lets the reactor sleep: by the runtime's timers, or, with one of `host`, until something happens there. */
export interface Waiter extends Disposable {
  /**
   * Sleeps until the time is `untilNs` (Infinity: for ever), `wake` is called, or something has happened that
   * the reactor should look at. It may end earlier. Returns nothing if there is no reason to sleep; the
   * caller then turns another round. Not called again before it has resolved.
   * @param untilNs when to be back; in the past: at once, but let the event loop turn
   * @param nowNs the present time
   */
  wait(untilNs: number, nowNs: number): Promise<void> | void;
  /** Ends the sleep, if there is one. */
  wake(): void;
  /**
   * Asks, without sleeping, what would end a sleep now. Called over and over: it makes no objects. Left out:
   * it cannot be asked.
   */
  look?(): LookedFor;
  /**
   * How long the event loop may stand still while the reactor looks, in ns. Left out: for as long as it
   * likes.
   */
  readonly turnNs?: number;
}

/**
 * What a waiter has found: an event, after which a round is to be turned; something for the event loop, which
 * is to be let turn; or nothing.
 */
export type LookedFor = "event" | "turn" | "nothing";

/** One turn of the event loop: signals, timers and promises of others get their chance. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Sleeps by the runtime's timers, and needs nothing else. */
export class CoarseWaiter implements Waiter {
  #wakeUp: (() => void) | null = null;

  /** Sleeps until shortly before `untilNs`, and turns the event loop from then on. */
  wait(untilNs: number, nowNs: number): Promise<void> {
    const leftNs = untilNs - nowNs;
    if (leftNs < COARSE_TIMER_NS) return eventLoopTurn();
    return new Promise((resolve) => {
      const sleepMs = Math.min((leftNs - COARSE_TIMER_NS) / 1e6, LONGEST_SLEEP_MS);
      const timer = setTimeout(() => this.wake(), sleepMs);
      this.#wakeUp = () => {
        this.#wakeUp = null;
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Ends the sleep. */
  wake(): void {
    this.#wakeUp?.();
  }

  /** Ends the sleep; there is nothing to close. */
  [Symbol.dispose](): void {
    this.wake();
  }
}
