/**
 * The program of a thread: builds the device of one queue pair from the same configuration, and works it until it is told to
 * stop. Everything that it opens it closes; what was lent or given stays with the main thread.
 * @module
 */
import { SystemClock } from "../../core/clock.ts";
import { Reactor } from "../../core/reactor.ts";
import { BlockingWaiter } from "../../transports/host/blocking_waiter.ts";
import { newRegistry } from "../builtins.ts";
import { CounterBook } from "../counter_book.ts";
import { newFramePool } from "../frame_memory.ts";
import { parseConfig } from "../load.ts";
import { Mailbox, NOTICE_READY } from "./mailbox.ts";
import { type LaneReply, type LaneStart, writeError } from "./orders.ts";
import { PairWorker } from "./pair_worker.ts";
import { Tally } from "./tally.ts";

/** What a worker's global scope has; the types of both scopes do not go together in one program. */
const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<LaneStart>) => void) | null;
  postMessage(message: null): void;
};

scope.onmessage = ({ data }) => {
  scope.onmessage = null;
  void work(data);
};

async function work(start: LaneStart): Promise<void> {
  const mailbox = new Mailbox(start.mailbox);
  const book = new CounterBook();
  const tally = new Tally(book.groups);
  let last: Partial<LaneReply>;
  try {
    last = { framesKept: await workPair(start, mailbox, book, tally) };
  } catch (error) {
    last = { failure: writeError(error) };
  }
  mailbox.end({ counters: tally.take(), ...last } satisfies LaneReply);
  scope.postMessage(null);
}

/** Works until it is told to stop. Returns how many frames were not given back. */
async function workPair(
  { text, baseUrl, device: index, pair, wake, given }: LaneStart,
  mailbox: Mailbox,
  book: CounterBook,
  tally: Tally,
): Promise<number> {
  const config = await parseConfig(text, baseUrl, newRegistry());
  const { name, plugin, options, offloads, network: part } = config.devices[index];
  const pool = newFramePool(config.frameMemoryBytes);
  const reactor = new Reactor(new SystemClock());
  const stop = new AbortController();
  {
    using opened = new DisposableStack();
    const waiter = opened.use(new BlockingWaiter());
    reactor.waiter = waiter;
    opened.use(waiter.watch(wake));
    const watch = (number: number) => waiter.watch(number);
    const network = opened.use(
      part!.plugin.takeQueue!({
        path: part!.path,
        pool,
        watch,
        publish: (counters) => book.publish(`${name}.network`, counters),
      }, given),
    );
    const device = plugin.create({
      name,
      pool,
      offloads,
      network,
      verdicts: null,
      role: { pair },
      publish: (counters, group) => book.publish(group === undefined ? name : `${name}.${group}`, counters),
    }, options);
    const worker = new PairWorker({
      mailbox,
      device,
      tally,
      logCounters: book.publish(`${name}.driver`, { unlogged_pages: 0 }),
      watch,
      notice: (bit) => {
        if (mailbox.notice(bit)) scope.postMessage(null);
      },
      stop: () => stop.abort(),
    });
    opened.defer(() => worker.close());
    reactor.add(worker);
    if (mailbox.notice(NOTICE_READY)) scope.postMessage(null);
    await reactor.run(stop.signal, () => network.finished === true);
    // A network that has come to its end says why.
    if (!stop.signal.aborted) await network.close?.();
  }
  return pool.inUse;
}
