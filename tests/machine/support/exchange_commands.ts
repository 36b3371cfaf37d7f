/**
 * Commands and replies between two real threads, as many as are wanted, with the events and waits that queue
 * workers use, and with preemption planted where it once did harm. By itself, for a long run beside other
 * work:
 *
 *     deno run -A tests/machine/support/exchange_commands.ts 1000000
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { EventFd } from "../../../host/event_fd.ts";
import { BlockingWaiter } from "../../../host/waiters.ts";
import { CommandChannel, SharedChannelMemory } from "../../../machine/threads/command_channel.ts";

/** What is exchanged. */
export interface Exchange {
  /** Commands at most. */
  readonly commands: number;
  /** Of how many notifies one comes late, on the average. */
  readonly delayEvery: number;
  /** When to end before that, in ms. */
  readonly limitMs?: number;
}

interface Start {
  readonly buffer: SharedArrayBuffer;
  readonly wake: number;
  readonly delayEvery: number;
}

interface Command {
  readonly number: number;
  readonly text: string;
}

interface Reply extends Command {
  /** Commands that the worker has taken. */
  readonly taken: number;
}

/** What a worker's global scope has; the types of both scopes do not go together in one program. */
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Start>) => void;
  postMessage(message: null): void;
};

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** Texts of very different lengths, so that a mixture of two is not JSON. */
function textOf(number: number): string {
  return "x".repeat(number % 7 === 0 ? 4000 + number % 97 : number % 31);
}

/** Sleeps between the store and the notify that tells of it. */
class LateMemory extends SharedChannelMemory {
  readonly #every: number;

  constructor(every: number, buffer?: SharedArrayBuffer) {
    super(buffer);
    this.#every = every;
  }

  override notify(word: number): void {
    if (Math.random() * this.#every < 1) Atomics.wait(sleeper, 0, 0, 2 * Math.random());
    super.notify(word);
  }
}

/**
 * Gives commands and checks every reply. Returns how many there were, and for how long the longest was waited
 * for, in ms.
 */
export async function exchangeCommands(
  { commands, delayEvery, limitMs = Infinity }: Exchange,
): Promise<{ count: number; longestMs: number }> {
  using event = EventFd.create();
  const channel = new CommandChannel();
  const worker = new Worker(import.meta.url, { type: "module", name: "exchange" });
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  worker.onmessage = () => resolve();
  worker.postMessage({ buffer: channel.buffer, wake: event.fd.number, delayEvery } satisfies Start);
  await ready;
  const began = performance.now();
  let count = 0, longestMs = 0;
  while (count < commands && performance.now() - began < limitMs) {
    const number = ++count;
    const from = performance.now();
    channel.command({ number, text: textOf(number) } satisfies Command);
    event.signal();
    const reply = channel.reply(60_000) as Reply | null;
    assert(reply !== null, `no reply to command ${number}`);
    assertEquals([reply.number, reply.taken, reply.text.length], [number, number, textOf(number + 1).length]);
    longestMs = Math.max(longestMs, performance.now() - from);
  }
  channel.stop();
  event.signal();
  while (!channel.hasEnded) await new Promise((resolve) => setTimeout(resolve, 1));
  assertEquals(channel.lastWords, { taken: count });
  worker.terminate();
  return { count, longestMs };
}

function answerCommands({ buffer, wake, delayEvery }: Start): void {
  const channel = new CommandChannel(new LateMemory(delayEvery, buffer));
  using waiter = new BlockingWaiter();
  using _watch = waiter.watch(wake);
  let taken = 0;
  while (!channel.mustStop) {
    if (!channel.hasCommand) {
      waiter.wait(Infinity, 0);
      continue;
    }
    const { number, text } = channel.takeCommand() as Command;
    assertEquals(text, textOf(number));
    taken++;
    channel.answer({ number, taken, text: textOf(number + 1) } satisfies Reply);
  }
  channel.end({ taken });
}

if ("WorkerGlobalScope" in globalThis && self.name === "exchange") {
  scope.onmessage = ({ data }) => {
    scope.postMessage(null);
    answerCommands(data);
  };
} else if (import.meta.main) {
  const commands = Number(Deno.args[0] ?? 1_000_000);
  const from = performance.now();
  const { longestMs } = await exchangeCommands({ commands, delayEvery: 2000 });
  const seconds = (performance.now() - from) / 1000;
  console.log(`${commands} commands in ${seconds.toFixed(1)} s, the longest ${longestMs.toFixed(1)} ms`);
}
