/**
 * The program of a thread: builds the device of one set of queues from the same configuration, and serves it
 * until it is told to stop. Everything that it opens it closes; rings and what was given stay with the main
 * thread.
 * @module
 */
import { Arena } from "../../rings/arena.ts";
import { BUILT_IN_PLUGINS, newRegistry } from "../../config/builtins.ts";
import { BUILT_IN_KINDS, partKind } from "../../config/kinds.ts";
import { parseConfig } from "../../config/load.ts";
import { SystemClock } from "../../core/clock.ts";
import { pluginError } from "../../plugins/contract.ts";
import type { DeviceContext, PartContext, ResolvedPart } from "../../plugins/plugin.ts";
import { Reactor } from "../../core/reactor.ts";
import { endSignals } from "../../host/event_fd.ts";
import { BlockingWaiter, EpollWaiter } from "../../host/waiters.ts";
import { framePool } from "../../pipeline/kinds.ts";
import { CounterBook, machineScope, NS_PER_US } from "../build.ts";
import { kindsOf } from "../conflicts.ts";
import { membersOf, type PartObject } from "../machine.ts";
import { checkDevice, checkPart, guarded, partBehind } from "../plugin_guards.ts";
import {
  CommandChannel,
  NOTICE_READY,
  SharedChannelMemory,
  type WorkerReply,
  type WorkerStart,
  writeError,
} from "./command_channel.ts";
import { CounterDeltas, QueueSetRunner } from "./queue_set_runner.ts";

/** What a worker's global scope has; the types of both scopes do not go together in one program. */
const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<WorkerStart>) => void) | null;
  postMessage(message: null): void;
};

scope.onmessage = ({ data }) => {
  scope.onmessage = null;
  void work(data);
};

async function work(start: WorkerStart): Promise<void> {
  const channel = new CommandChannel(new SharedChannelMemory(start.channel));
  const book = new CounterBook();
  const deltas = new CounterDeltas(book.groups);
  const last: { -readonly [key in keyof WorkerReply]?: WorkerReply[key] } = {};
  try {
    await serveSet(start, channel, book, deltas, last);
  } catch (error) {
    last.failure = writeError(error);
  }
  try {
    channel.end({ counters: deltas.take(), ...last } satisfies WorkerReply);
  } catch (error) {
    // What a plugin has published cannot be told; the end must be.
    channel.end({ counters: {}, ...last, failure: last.failure ?? writeError(error) } satisfies WorkerReply);
  }
  scope.postMessage(null);
}

/**
 * Works until it is told to stop. Puts into `last` how many frames were not given back, and where rings stand
 * that it had.
 */
async function serveSet(
  { sharedMemory, arena: attached, text, baseUrl, device: index, set, queues, wake, given }: WorkerStart,
  channel: CommandChannel,
  book: CounterBook,
  deltas: CounterDeltas,
  last: { framesKept?: number },
): Promise<void> {
  const config = await parseConfig(text, baseUrl, newRegistry());
  const own = config.devices[index];
  const { name, plugin, options } = own;
  const arena = attached && Arena.attach(attached.memory, attached);
  const machine = machineScope(config.frameMemoryBytes, {}, () => arena);
  const reactor = new Reactor(new SystemClock(), config.pollMaxUs * NS_PER_US);
  const stop = new AbortController();
  // What a plugin throws outside of its hooks: the rings must be let go before the thread ends of it.
  const thrown: unknown[] = [];
  const fail = (event: Event, cause: unknown, hook: string) => {
    event.preventDefault();
    thrown.push(pluginError(partBehind(cause, own), hook, cause));
    stop.abort();
  };
  // Not by `onerror`, which is called with a message instead of an event.
  addEventListener("error", (event) => fail(event, event.error, "a callback"));
  addEventListener("unhandledrejection", (event) => fail(event, event.reason, "a promise"));
  {
    using opened = new DisposableStack();
    opened.defer(endSignals);
    const waiter = opened.use(new BlockingWaiter());
    reactor.waiter = waiter;
    opened.use(waiter.watch(wake));
    const watch = (number: number) => waiter.watch(number);
    const built: PartObject[] = [];
    const build = (part: ResolvedPart, group: string): unknown => {
      const kind = partKind(part.plugin.kind);
      const base: Pick<PartContext, "path" | "arena" | "watch" | "publish"> = {
        path: part.path,
        arena,
        watch,
        publish: (counters) => book.publish(`${name}.${group}`, counters),
      };
      const site = { part, facts: undefined, machine, inner: refuseInner };
      const partContext = kind.context?.(base as PartContext, site) ?? base;
      const make = () => {
        const made = part.plugin.createInWorker!(partContext, given[part.path]);
        opened.defer(() => membersOf(made)[Symbol.dispose]?.());
        return made;
      };
      const made = guarded(part, "createInWorker", make, (object) => {
        checkPart(object);
        kind.check?.(object);
      });
      const object = membersOf(made);
      built.push(object);
      // Those of this program keep to the contract; what they do is not looked at twice.
      return BUILT_IN_PLUGINS.includes(part.plugin) ? made : kind.guard?.(made, part, machine) ?? made;
    };
    const parts = Object.entries(own.parts).map(([slot, part]) => {
      const isDeferred = partKind(plugin.slots![slot].kind).isDeferred === true;
      if (isDeferred || part === null) return [slot, part];
      const list = part as readonly ResolvedPart[];
      return [
        slot,
        Array.isArray(part)
          ? list.map((one, i) => build(one, `${slot}.${i}`))
          : build(part as ResolvedPart, slot),
      ];
    });
    const context: DeviceContext = {
      name,
      parts: Object.fromEntries(parts),
      role: { set },
      sharedMemory,
      newBuffer: (bytes) => Arena.newBuffer(arena, bytes),
      publish: (counters, group) => book.publish(group === undefined ? name : `${name}.${group}`, counters),
    };
    for (const [kind] of kindsOf(own)) Object.assign(context, kind.deviceContext?.(own, machine));
    const device = guarded(own, "create", () => plugin.create(context, options), checkDevice);
    device.wake = () => reactor.wake();
    // What finishes later does so in the event loop, which stands still while this thread sleeps in the
    // kernel.
    if (device.inflight !== undefined) {
      const awaiting = opened.use(new EpollWaiter());
      awaiting.watch(waiter.number);
      reactor.waiter = awaiting;
    }
    const runner = new QueueSetRunner({
      channel,
      device,
      arena: attached && { buffer: attached.memory.buffer as ArrayBuffer, address: attached.address },
      queues,
      deltas,
      logCounters: book.publish(`${name}.driver`, { unlogged_pages: 0 }),
      watch,
      notice: (bit) => {
        if (channel.notice(bit)) scope.postMessage(null);
      },
      stop: () => stop.abort(),
    });
    opened.defer(() => void Object.assign(last, runner.close()));
    reactor.add(runner);
    if (channel.notice(NOTICE_READY)) scope.postMessage(null);
    try {
      await reactor.run(stop.signal, () => built.some(({ finished }) => finished === true));
    } catch (cause) {
      throw pluginError(partBehind(cause, own), "poll", cause);
    }
    if (thrown.length > 0) throw thrown[0];
    // A part that has come to its end says why.
    if (!stop.signal.aborted) { for (const part of built) await part.close?.(); }
  }
  last.framesKept = framePool(machine).inUse;
  const [kept] = BUILT_IN_KINDS.flatMap((kind) => kind.leftovers?.(machine) ?? []);
  if (kept !== undefined) throw kept;
}

function refuseInner(): never {
  throw new Error("In a worker a part is made of what was given, and wraps nothing");
}
