import { assertEquals } from "@std/assert";
import { FromNetwork } from "../../../devices/net/from_network.ts";
import { ReceiveFilter } from "../../../devices/net/receive_filter.ts";
import { Steering } from "../../../devices/net/steering.ts";
import type { ToGuest } from "../../../devices/net/to_guest.ts";
import type { FrameBatch } from "../../../pipeline/frame.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { Pipeline } from "../../../pipeline/pipeline.ts";
import { tcp } from "../../../testing/mod.ts";

/** A network with a queue for each list of sequence numbers, and a guest with so many buffers. */
function parts(queues: number[][], buffers: number) {
  const pool = new FramePool();
  const got: number[] = [];
  const toGuest = {
    isBlocked: false,
    accept(frames: FrameBatch) {
      for (let i = 0; i < frames.length; i++) {
        const frame = frames.at(i);
        if (got.length < buffers) got.push(frame.view.getUint32(frame.start + 38));
        else toGuest.isBlocked = true;
        frame.release();
      }
      frames.clear();
    },
  };
  const network: FrameTransport = {
    capabilities: OffloadCapabilities.none,
    queuePairs: queues.length,
    maxFrameBytes: 2048,
    receive(out, _limit, queue) {
      const seqs = queues[queue].splice(0);
      for (const seq of seqs) out.push(pool.takeCopy(tcp({ seq }))!);
      return seqs.length;
    },
    send: () => 0,
    [Symbol.dispose]() {},
  };
  const fromNetwork = new FromNetwork({
    network,
    filter: new ReceiveFilter(new Uint8Array(6)),
    steering: new Steering(queues.length),
    counters: { dropped_link_down: 0 },
    pipeline: new Pipeline([], toGuest),
    toGuest: toGuest as unknown as ToGuest,
    onlyPair: null,
  });
  return { fromNetwork, got, toGuest, queues };
}

Deno.test("FromNetwork receives nothing more while a frame waits for buffers: its flow may have moved to the next queue", () => {
  const { fromNetwork, got, toGuest, queues } = parts([[1, 2], [3], [4]], 1);
  fromNetwork.poll(0);
  assertEquals([got, queues], [[1], [[], [3], [4]]]);
  toGuest.isBlocked = false;
  queues[0].push(5);
  // It goes on with the next queue, so that none is kept waiting by one whose frames always wait.
  fromNetwork.poll(0);
  assertEquals(queues, [[5], [], [4]]);
});

Deno.test("FromNetwork takes from every queue in turn while there are buffers", () => {
  const { fromNetwork, got, queues } = parts([[1], [2], [3]], 10);
  fromNetwork.poll(0);
  queues[0].push(4);
  queues[2].push(5);
  fromNetwork.poll(0);
  assertEquals(got, [1, 2, 3, 4, 5]);
});
