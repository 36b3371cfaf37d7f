/**
 * The program of a thread: builds the device of one set of queues from the same configuration, and serves it until it is
 * told to stop. Everything that it opens it closes; rings and what was given stay with the main thread.
 * @module
 */
import { BUILT_IN_PLUGINS, newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { SystemClock } from "../../core/clock.ts";
import type { DeviceContext } from "../../core/device.ts";
import { Reactor } from "../../core/reactor.ts";
import type { NetworkDeviceContext } from "../../pipeline/plugin.ts";
import { endSignals } from "../../host/event_fd.ts";
import { BlockingWaiter, EpollWaiter } from "../../host/waiters.ts";
import { CounterBook, newFramePool } from "../build.ts";
import { guardNetwork, keptFrames, partBehind, pluginError } from "../plugin_guards.ts";
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

/** Works until it is told to stop. Puts into `last` how many frames were not given back, and where rings stand that it had. */
async function serveSet(
  { sharedMemory, text, baseUrl, device: index, set, queues, wake, given }: WorkerStart,
  channel: CommandChannel,
  book: CounterBook,
  deltas: CounterDeltas,
  last: { framesKept?: number },
): Promise<void> {
  const config = await parseConfig(text, baseUrl, newRegistry());
  const own = config.devices[index];
  const { name, plugin, options, offloads, network: part } = own;
  const pool = newFramePool(config.frameMemoryBytes);
  const reactor = new Reactor(new SystemClock());
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
    const network = part && opened.use(
      part.plugin.createInWorker!({
        path: part.path,
        pool: pool.lentTo({ plugin: part.plugin.name, path: part.path, kind: "network" }),
        watch,
        publish: (counters) => book.publish(`${name}.network`, counters),
      }, given.network),
    );
    // Those of this program keep to the contract; their frames are not looked at twice.
    const isTrusted = part !== null && BUILT_IN_PLUGINS.includes(part.plugin);
    const context = {
      name,
      pool: pool.lentTo({ plugin: plugin.name, path: own.path, kind: "device" }),
      parts: { network: isTrusted ? network : network && guardNetwork(network, part!, pool), offloads },
      verdicts: null,
      role: { set },
      sharedMemory,
      publish: (counters, group) => book.publish(group === undefined ? name : `${name}.${group}`, counters),
    } satisfies DeviceContext & Omit<NetworkDeviceContext, "parts">;
    const device = plugin.create(context, options);
    device.wake = () => reactor.wake();
    // What finishes later does so in the event loop, which stands still while this thread sleeps in the kernel.
    if (device.inflight !== undefined) {
      const awaiting = opened.use(new EpollWaiter());
      awaiting.watch(waiter.number);
      reactor.waiter = awaiting;
    }
    const runner = new QueueSetRunner({
      channel,
      device,
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
      await reactor.run(stop.signal, () => network?.finished === true);
    } catch (cause) {
      throw pluginError(partBehind(cause, own), "poll", cause);
    }
    if (thrown.length > 0) throw thrown[0];
    // A network that has come to its end says why.
    if (!stop.signal.aborted) await network?.close?.();
  }
  last.framesKept = pool.inUse;
  const [kept] = keptFrames(pool);
  if (kept !== undefined) throw kept;
}
