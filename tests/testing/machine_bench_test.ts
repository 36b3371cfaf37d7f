import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ConfigError } from "../../config/errors.ts";
import { HostError } from "../../core/errors.ts";
import { MachineBench, tcp, TcpStream, VerdictList } from "../../testing/mod.ts";

Deno.test("MachineBench brings frames to the guest, through rings of any form", async () => {
  for (const ring of ["split", "packed"] as const) {
    await using bench = await MachineBench.start({ guest: { ring, queueSize: 16, mergeable: false } });
    bench.feed(tcp({ payload: 5 }), { header: { flags: 2 } });
    bench.feedBatch([tcp({ payload: 6 }), tcp({ payload: 7 })]);
    assertEquals(
      bench.out.map(({ atNs, bytes }) => [atNs, bytes]),
      [5, 6, 7].map((n) => [0, tcp({ payload: n })]),
    );
    assertEquals(bench.out.map(({ header }) => header.flags), [2, 0, 0]);
    assertEquals(bench.counters.toGuest.packets, 3);
  }
});

Deno.test("MachineBench stops at the deadlines of stages and explains where it is asked", async () => {
  const verdicts = new VerdictList();
  await using bench = await MachineBench.start({ offloads: [{ use: "rsc-v4", intervalUs: 10 }], verdicts });
  const stream = new TcpStream();
  bench.feed(stream.next(100));
  bench.advanceTo(5000);
  bench.feed(stream.next(100));
  assertEquals(bench.out, []);
  bench.advanceTo(50_000);
  assertEquals(bench.out.map(({ atNs, header }) => [atNs, header.csumStart]), [[10_000, 2]]);
  assertEquals(bench.nowNs, 50_000);
  assertEquals(verdicts.names, ["held", "merged"]);
});

Deno.test("MachineBench shows what the guest sends", async () => {
  await using bench = await MachineBench.start();
  bench.advanceTo(7);
  const frame = tcp({ payload: 20, destinationMac: "02:00:00:00:00:09" });
  bench.guest.send(frame);
  bench.settle();
  assertEquals(bench.sent.map(({ atNs, bytes }) => [atNs, bytes]), [[7, frame]]);
});

Deno.test("MachineBench drains what is held when it is closed, and may be closed twice", async () => {
  const bench = await MachineBench.start({ offloads: ["rsc-v4"] });
  bench.feed(tcp({ payload: 20 }));
  await bench.close();
  await bench.close();
  assertEquals(bench.out.length, 1);
});

Deno.test("MachineBench rejects with what is wrong in the configuration, or with why the guest was refused", async () => {
  await assertRejects(() => MachineBench.start({ offloads: ["rsc-v5"] }), ConfigError, "rsc-v5");
  await assertRejects(() => MachineBench.start({ guest: { accept: ["RSC_EXT"] } }), HostError, "RSC_EXT");
});

Deno.test("MachineBench says when a frame cannot be injected", async () => {
  await using bench = await MachineBench.start({ guest: { receiveBuffers: 0 }, network: { queueFrames: 2 } });
  bench.feed(tcp());
  bench.feedBatch([tcp(), tcp()]);
  assertThrows(() => bench.feed(tcp()), RangeError, "the port's queue is full");
  bench.guest.postReceiveBuffers(8);
  bench.settle();
  assertEquals(bench.out.length, 3);
});

Deno.test("MachineBench.close() finds a guest that was mistreated", async () => {
  const bench = await MachineBench.start();
  bench.guest.errors.push("a packet without an end");
  await assertRejects(() => bench.close(), Error, "The guest found: a packet without an end");
});
