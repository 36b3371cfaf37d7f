/**
 * The protocol of the command channel: every order of both threads' steps, explored with the very code that
 * runs; and real threads with delays where they hurt.
 *
 * How orders are explored. `CommandChannel` reaches shared memory only by the steps of `ChannelMemory`. Here
 * that memory keeps a log of what each step of a thread has returned. To take one more step, the thread's
 * program is run again: steps of the log return at once what they did, and the first behind them is broken
 * off by an exception and becomes the thread's next step. A program is run in turns, each from what the one
 * before has left in a few local variables, and logs begin anew with each turn. So a state is the memory,
 * both threads' variables and both logs; all states that can be reached from the first are visited, each
 * once.
 *
 * Texts are plain memory: to read or write one takes two steps, and a write meanwhile is a violation. Without
 * such races JavaScript has no orders but those of whole steps (ECMAScript, "data race freedom"), which is
 * all that is explored. The rings are such an area as well: a thread that works them while the other believes
 * that they are its own is found by it.
 * @module
 */
import { assert, assertMatch, assertThrows } from "@std/assert";
import { type ChannelMemory, CommandChannel } from "../../machine/threads/command_channel.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { exchangeCommands } from "./support/exchange_commands.ts";

/** Areas behind those of texts. */
const RINGS = 3;
const LIMIT_MS = 1000;
const REPLY = 1;
const OLD_ENDED = 2;

/** How often what is rare may happen on one way through the states. */
interface Rarities {
  /** Sleeps that end for no reason. */
  readonly spurious?: number;
  /** Time limits that pass, at any point. */
  readonly late?: number;
  /** Choices of a program that are not its usual one. */
  readonly odd?: number;
}

type Step =
  | { readonly kind: "words"; readonly name: string; act(words: number[]): unknown }
  | { readonly kind: "area"; readonly area: number; readonly text: string | null }
  | {
    readonly kind: "wait";
    readonly word: number;
    readonly value: number;
    readonly blind?: true;
    readonly tells?: true;
  }
  | { readonly kind: "notify"; readonly word: number }
  | { readonly kind: "signal" | "sleep" | "now" }
  | { readonly kind: "choose"; readonly of: number }
  | { readonly kind: "until"; readonly name: string; holds(words: readonly number[]): boolean };

/** What a program keeps from turn to turn. */
interface Local {
  /** Of the last command that was given, or taken. */
  number: number;
  /** Worker: has it got the rings? */
  hasRings: boolean;
  /** What the old protocol has seen. */
  seen: number;
}

/** One thread in one state. */
interface ThreadState {
  local: Local;
  /** Has the program come to its end? */
  isOver: boolean;
  /** What the steps of this turn have returned. */
  log: unknown[];
  /** Is the step behind the log begun? */
  begun: boolean;
  /** Is that a wait, which was notified? */
  notified: boolean;
  /** Its events, by which it is woken from `sleep`. */
  event: boolean;
  nowMs: number;
}

interface State {
  words: number[];
  texts: string[];
  threads: ThreadState[];
  spurious: number;
  late: number;
  odd: number;
}

/** What a program must not do, or meet. */
class Violation extends Error {}

/** Breaks a program off at its next step. */
class NextStep {
  constructor(readonly step: Step) {}
}

/** The memory as one thread sees it: steps that the log has are passed over. */
class ModelMemory implements ChannelMemory {
  readonly buffer = new SharedArrayBuffer(0);
  readonly #log: readonly unknown[];
  #at = 0;

  constructor(log: readonly unknown[]) {
    this.#log = log;
  }

  load(word: number): number {
    return this.#words(`load ${word}`, (words) => words[word]);
  }

  store(word: number, value: number): void {
    this.#words(`store ${word} ${value}`, (words) => void (words[word] = value));
  }

  exchange(word: number, value: number): number {
    return this.#words(`exchange ${word} ${value}`, (words) => {
      const before = words[word];
      words[word] = value;
      return before;
    });
  }

  or(word: number, bits: number): number {
    return this.#words(`or ${word} ${bits}`, (words) => {
      const before = words[word];
      words[word] |= bits;
      return before;
    });
  }

  add(word: number, more: number): void {
    this.#words(`add ${word} ${more}`, (words) => void (words[word] += more));
  }

  wait(word: number, value: number, _limitMs: number): void {
    this.step({ kind: "wait", word, value });
  }

  /** As `wait`, but tells how it has ended. */
  waitTold(word: number, value: number): string {
    return this.step({ kind: "wait", word, value, tells: true }) as string;
  }

  notify(word: number): void {
    this.step({ kind: "notify", word });
  }

  write(area: number, text: string): void {
    this.step({ kind: "area", area, text });
  }

  read(area: number): string {
    return this.step({ kind: "area", area, text: null }) as string;
  }

  nowMs(): number {
    return this.step({ kind: "now" }) as number;
  }

  /** Works the rings. */
  touch(): void {
    this.write(RINGS, "");
  }

  /** Wakes the other thread from its sleep. */
  signal(): void {
    this.step({ kind: "signal" });
  }

  /** Sleeps until the other thread has signalled. */
  sleep(): void {
    this.step({ kind: "sleep" });
  }

  /** Sleeps until something holds of the words. */
  until(name: string, holds: (words: readonly number[]) => boolean): void {
    this.step({ kind: "until", name, holds });
  }

  /** 0 usually; now and then another number below `of`. */
  choose(of: number): number {
    return this.step({ kind: "choose", of }) as number;
  }

  step(step: Step): unknown {
    if (this.#at < this.#log.length) return this.#log[this.#at++];
    throw new NextStep(step);
  }

  #words(name: string, act: (words: number[]) => unknown): number {
    return this.step({ kind: "words", name, act }) as number;
  }
}

/** Takes one turn. True if it was the last. */
type Program = (memory: ModelMemory, local: Local) => boolean;

/** What a thread does next; null if it has come to its end. Turns that have ended are put behind it. */
function nextStep(program: Program, thread: ThreadState, newMemory: MemoryMaker): Step | null {
  while (!thread.isOver) {
    const local = { ...thread.local };
    try {
      thread.isOver = program(newMemory(thread.log), local);
    } catch (thrown) {
      if (thrown instanceof NextStep) return thrown.step;
      throw thrown;
    }
    thread.local = local;
    thread.log = [];
    thread.nowMs = 0;
  }
  return null;
}

type MemoryMaker = (log: readonly unknown[]) => ModelMemory;

const usualMemory: MemoryMaker = (log) => new ModelMemory(log);

/** How a state was come to. */
interface Way {
  readonly name: string;
  readonly before: Way | null;
}

/**
 * Visits every state that both programs can come to. Throws Violation with the way there. Returns how many
 * there are.
 */
function explore(
  programs: readonly [main: Program, worker: Program],
  { spurious = 0, late = 0, odd = 0 }: Rarities,
  newMemory: MemoryMaker = usualMemory,
): { states: number; ends: number } {
  const fresh = (): ThreadState => ({
    local: { number: 0, hasRings: false, seen: 0 },
    isOver: false,
    log: [],
    begun: false,
    notified: false,
    event: false,
    nowMs: 0,
  });
  const first: State = {
    words: [0, 0, 0, 0],
    texts: ["", "", "", ""],
    threads: [fresh(), fresh()],
    spurious,
    late,
    odd,
  };
  const seen = new Set<string>();
  const left: { state: State; way: Way | null }[] = [{ state: first, way: null }];
  let ends = 0;
  // The list grows meanwhile: nearest states first, so that the way to a violation is short.
  for (const { state, way } of left) {
    try {
      const steps = programs.map((program, i) => nextStep(program, state.threads[i], newMemory));
      const key = JSON.stringify(state);
      if (seen.has(key)) continue;
      seen.add(key);
      const following = steps.flatMap((step, i) => step === null ? [] : stepsFrom(state, steps, i));
      if (following.length === 0) {
        if (steps.some((step) => step !== null)) throw new Violation("nothing can go on");
        ends++;
      }
      for (const { state: after, name } of following) {
        left.push({ state: after, way: { name, before: way } });
      }
    } catch (error) {
      if (error instanceof Error) {
        for (let at = way; at !== null; at = at.before) error.message += `\n  after ${at.name}`;
      }
      throw error;
    }
  }
  return { states: seen.size, ends };
}

/** What can follow if thread `i` goes on. */
function stepsFrom(
  state: State,
  steps: readonly (Step | null)[],
  i: number,
): { state: State; name: string }[] {
  const step = steps[i]!;
  const other = 1 - i;
  const found: { state: State; name: string }[] = [];
  const add = (what: string, change: (after: State, thread: ThreadState) => void) => {
    const threads = state.threads.map((thread) => ({ ...thread, log: [...thread.log] }));
    const after = { ...state, words: [...state.words], texts: [...state.texts], threads };
    change(after, after.threads[i]);
    found.push({ state: after, name: `${i === 0 ? "main" : "worker"}: ${what}` });
  };
  const finish = (
    what: string,
    result: unknown,
    change: (after: State, thread: ThreadState) => void = () => {},
  ) =>
    add(what, (after, thread) => {
      thread.log.push(result ?? null);
      thread.begun = thread.notified = false;
      change(after, thread);
    });
  const { begun, notified, event, nowMs } = state.threads[i];
  switch (step.kind) {
    case "words": {
      const words = [...state.words];
      const result = step.act(words);
      finish(step.name, result, (after) => void (after.words = words));
      break;
    }
    case "area": {
      const { area, text } = step;
      const name = `${text === null ? "read" : "write"} ${area === RINGS ? "rings" : `text ${area}`}`;
      const theirs = steps[other];
      if (
        !begun && state.threads[other].begun && theirs?.kind === "area" && theirs.area === area &&
        (text !== null || theirs.text !== null)
      ) throw new Violation(`both threads at once: ${name}`);
      if (!begun) add(name, (_, thread) => void (thread.begun = true));
      else if (text === null) finish(`${name} done`, state.texts[area]);
      else finish(`${name} done`, null, (after) => void (after.texts[area] = text));
      break;
    }
    case "wait": {
      const name = `wait ${step.word}`;
      const told = (how: string) => step.tells ? how : null;
      if (!begun && !step.blind && state.words[step.word] !== step.value) {
        finish(`${name}, not at all`, told("not-equal"));
      } else if (!begun) add(name, (_, thread) => void (thread.begun = true));
      else if (notified) finish(`${name}, notified`, told("ok"));
      if (begun && state.spurious > 0) {
        finish(`${name}, woken for no reason`, told("ok"), (after) => void after.spurious--);
      }
      if (begun && state.late > 0) {
        finish(`${name}, too long`, told("timed-out"), (after, thread) => {
          after.late--;
          thread.nowMs += 10 * LIMIT_MS;
        });
      }
      break;
    }
    case "notify": {
      const theirs = steps[other];
      const waits = theirs?.kind === "wait" && theirs.word === step.word && state.threads[other].begun;
      finish(`notify ${step.word}`, null, (after) => void (after.threads[other].notified ||= waits));
      break;
    }
    case "signal":
      finish("signal", null, (after) => void (after.threads[other].event = true));
      break;
    case "sleep":
      if (event) finish("wake", null, (_, thread) => void (thread.event = false));
      else if (state.spurious > 0) finish("wake for no reason", null, (after) => void after.spurious--);
      break;
    case "until":
      if (step.holds(state.words)) finish(step.name, null);
      break;
    case "now":
      finish("look at the clock", nowMs);
      if (state.late > 0) {
        finish("look at the clock late", nowMs + 10 * LIMIT_MS, (after, thread) => {
          after.late--;
          thread.nowMs += 10 * LIMIT_MS;
        });
      }
      break;
    case "choose":
      finish("choose 0", 0);
      for (let choice = 1; choice < step.of && state.odd > 0; choice++) {
        finish(`choose ${choice}`, choice, (after) => void after.odd--);
      }
      break;
  }
  return found;
}

function check(holds: boolean, problem: string): void {
  if (!holds) throw new Violation(problem);
}

/** What both protocols are used by. */
interface Channel {
  command(command: unknown): void;
  reply(limitMs: number): unknown;
  readonly hasEnded: boolean;
  readonly lastWords: unknown;
  stop(): void;
  readonly mustStop: boolean;
  readonly hasCommand: boolean;
  takeCommand(): unknown;
  answer(reply: unknown): void;
  end(last: unknown): void;
}

type ChannelMaker = (memory: ModelMemory, local: Local) => Channel;

const usualChannel: ChannelMaker = (memory) => new CommandChannel(memory);

interface Numbered {
  readonly number: number;
}

/**
 * Both threads as they use the channel: rings are attached by odd commands and taken back by even ones. The
 * worker may fail before and behind every command. The main thread may give up a reply that does not come,
 * wait again, or try the next command.
 */
function bothPrograms(commands: number, newChannel: ChannelMaker = usualChannel): [Program, Program] {
  const main: Program = (memory, local) => {
    const channel = newChannel(memory, local);
    const isOver = () => {
      // In REPLY, or in the old protocol's word.
      memory.until(
        "it has ended",
        (words) => (newChannel === usualChannel ? words[REPLY] & 1 : words[OLD_ENDED]) !== 0,
      );
      check((channel.lastWords as Numbered).number <= local.number, "other last words");
      memory.touch();
      return true;
    };
    const stop = () => {
      channel.stop();
      memory.signal();
      return isOver();
    };
    if (local.number >= commands) return stop();
    channel.command({ number: ++local.number });
    memory.signal();
    let reply = channel.reply(LIMIT_MS) as Numbered | null;
    while (reply === null) {
      if (channel.hasEnded) return isOver();
      const choice = memory.choose(3);
      if (choice === 0) return stop();
      if (choice === 2) {
        // Refused, unless the reply has come or the worker has ended meanwhile.
        try {
          channel.command({ number: local.number + 1 });
        } catch (error) {
          if (error instanceof NextStep || error instanceof Violation) throw error;
          continue;
        }
        local.number++;
        memory.signal();
      }
      reply = channel.reply(LIMIT_MS) as Numbered | null;
    }
    check(reply.number === local.number, `reply ${reply.number} taken for that to command ${local.number}`);
    if (local.number % 2 === 0) memory.touch();
    return false;
  };
  const worker: Program = (memory, local) => {
    const channel = newChannel(memory, local);
    const end = () => {
      if (local.hasRings) memory.touch();
      channel.end({ number: local.number });
      return true;
    };
    if (memory.choose(2) === 1 || channel.mustStop) return end();
    if (!channel.hasCommand) {
      if (local.hasRings) memory.touch();
      memory.sleep();
      return false;
    }
    const { number } = channel.takeCommand() as Numbered;
    check(number === local.number + 1, `command ${number} read after command ${local.number}`);
    local.number = number;
    if (memory.choose(2) === 1) return end();
    if (local.hasRings) memory.touch();
    local.hasRings = number % 2 === 1;
    channel.answer({ number });
    return false;
  };
  return [main, worker];
}

/** The protocol before numbers were looked at: every wake is taken for the reply. */
class AnyWakeChannel implements Channel {
  readonly #memory: ModelMemory;
  readonly #local: Local;

  constructor(memory: ModelMemory, local: Local) {
    this.#memory = memory;
    this.#local = local;
  }

  command(command: unknown): void {
    this.#memory.write(0, JSON.stringify(command));
    this.#memory.add(0, 1);
  }

  reply(): unknown {
    if (this.#memory.waitTold(REPLY, this.#local.seen) === "timed-out") return null;
    this.#local.seen = this.#memory.load(REPLY);
    return JSON.parse(this.#memory.read(1));
  }

  get hasEnded(): boolean {
    return this.#memory.load(OLD_ENDED) !== 0;
  }

  get lastWords(): unknown {
    return JSON.parse(this.#memory.read(2));
  }

  stop(): void {
    this.#memory.store(3, 1);
  }

  get mustStop(): boolean {
    return this.#memory.load(3) !== 0;
  }

  get hasCommand(): boolean {
    return this.#memory.load(0) !== this.#local.seen;
  }

  takeCommand(): unknown {
    this.#local.seen = this.#memory.load(0);
    return JSON.parse(this.#memory.read(0));
  }

  answer(reply: unknown): void {
    this.#memory.write(1, JSON.stringify(reply));
    this.#memory.add(REPLY, 1);
    this.#memory.notify(REPLY);
  }

  end(last: unknown): void {
    this.#memory.write(2, JSON.stringify(last));
    this.#memory.store(OLD_ENDED, 1);
    this.#memory.add(REPLY, 1);
    this.#memory.notify(REPLY);
  }
}

Deno.test("in every order of steps each command is read once, each reply is its command's, and rings have one owner", () => {
  const { states, ends } = explore(bothPrograms(4), {});
  assert(states > 1000 && ends > 0, `${states} states, ${ends} ends`);
});

for (
  const [name, commands, rarities] of [
    ["waits that end for no reason", 3, { spurious: 2 }],
    ["a worker that ends at any point", 3, { odd: 1 }],
    ["a worker that ends at any point, and waits that end for no reason", 2, { odd: 1, spurious: 1 }],
    ["time limits that pass at any point", 3, { late: 1 }],
    ["time limits, after which it is waited for again or the next command is tried", 2, { late: 2, odd: 1 }],
    ["all of that", 2, { spurious: 1, late: 1, odd: 1 }],
  ] as const
) {
  Deno.test(`the same with ${name}`, () => {
    const { states, ends } = explore(bothPrograms(commands, usualChannel), rarities);
    assert(states > 1000 && ends > 0, `${states} states, ${ends} ends`);
  });
}

Deno.test("the exploration finds what was wrong when every wake was taken for the reply", () => {
  const old: ChannelMaker = (memory, local) => new AnyWakeChannel(memory, local);
  const { message } = assertThrows(() => explore(bothPrograms(3, old), {}), Violation);
  assertMatch(message, /reply 1 taken for that to command 2|both threads at once|command \d read after/);
  assertMatch(message, /notified/);
});

for (
  const [what, Memory, problem] of [
    [
      "a reply that is not notified",
      class extends ModelMemory {
        override notify(): void {}
      },
      /nothing can go on/,
    ],
    [
      "a wait that does not look at the word first",
      class extends ModelMemory {
        override wait(word: number, value: number): void {
          this.step({ kind: "wait", word, value, blind: true });
        }
      },
      /nothing can go on/,
    ],
    [
      "a text that is written behind its number",
      class extends ModelMemory {
        #late: [number, string] | null = null;
        override write(area: number, text: string): void {
          if (area === RINGS) super.write(area, text);
          else this.#late = [area, text];
        }
        override store(word: number, value: number): void {
          super.store(word, value);
          if (this.#late !== null) super.write(...this.#late);
          this.#late = null;
        }
      },
      /both threads at once|Unexpected end of JSON input|read after command|taken for that/,
    ],
  ] as const
) {
  Deno.test(`the exploration finds ${what}`, () => {
    const { message } = assertThrows(() => explore(bothPrograms(3), {}, (log) => new Memory(log)), Error);
    assertMatch(message, problem);
  });
}

Deno.test("no notice is lost, in whatever order it is raised, told of and taken", () => {
  const BITS = [1, 2, 4];
  const main: Program = (memory, local) => {
    // Takes when it is told to, and now and then by itself.
    if (memory.choose(2) === 0) memory.sleep();
    local.seen |= new CommandChannel(memory).takeNotices();
    return local.seen === 7;
  };
  const worker: Program = (memory, local) => {
    if (new CommandChannel(memory).notice(BITS[local.number])) memory.signal();
    return ++local.number === BITS.length;
  };
  const { states, ends } = explore([main, worker], { odd: 2 });
  assert(states > 100 && ends > 0, `${states} states, ${ends} ends`);
});

hostTest(
  "real threads that are preempted before every notify lose no command and mix up no reply",
  [linux],
  async () => {
    await exchangeCommands({ commands: 300, delayEvery: 1 });
  },
);

hostTest("real threads keep count of some thousand commands, preempted now and then", [linux], async () => {
  await exchangeCommands({ commands: 1_000_000, delayEvery: 50, limitMs: 2000 });
});
