import { assertEquals } from "@std/assert";
import { MachineBench, StageBench, tcp, TcpStream } from "../testing/mod.ts";
import dropEvery from "./drop_every.ts";

Deno.test("drop-every drops every third frame and counts it", () => {
  using bench = new StageBench({ plugin: dropEvery, options: { nth: 3 } });
  for (let i = 0; i < 7; i++) bench.feed(tcp({ id: i }));
  assertEquals(bench.out.map(({ number }) => number), [1, 2, 4, 5, 7]);
  assertEquals(bench.counters["drop-every"].dropped, 2);
});

Deno.test("drop-every in front of rsc-v4 makes a gap that is not merged", async () => {
  await using bench = await MachineBench.start({
    baseUrl: import.meta.url,
    offloads: [{ use: "./drop_every.ts", nth: 3 }, "rsc-v4"],
  });
  const stream = new TcpStream();
  bench.feedBatch([stream.next(100), stream.next(100), stream.next(100), stream.next(100)]);
  assertEquals(bench.out.map(({ bytes }) => bytes.length), [254, 154]);
  assertEquals(bench.counters["rsc-v4"].out_of_order, 1);
});
