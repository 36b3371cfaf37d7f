import { assertEquals } from "@std/assert";
import { DeviceBench } from "../testing/mod.ts";
import asyncDisk from "./async_disk.ts";
import ram from "./async_disk_ram.ts";

function header(type: number, sector: number): Uint8Array {
  return new Uint8Array(new Uint32Array([type, 0, sector, 0]).buffer);
}

for (const ring of ["split", "packed"] as const) {
  Deno.test(`async-disk keeps requests and answers each with what it has written (${ring})`, async () => {
    const parts = { disk: { plugin: ram, options: { sectors: 8 } } };
    await using bench = new DeviceBench({ plugin: asyncDisk, parts, guest: { ring } });
    assertEquals([...bench.readConfig(0, 8)], [8, 0, 0, 0, 0, 0, 0, 0]);
    const sent = new Uint8Array(1024).fill(9);
    const write = bench.request(0, [header(1, 3), sent], 1);
    assertEquals([write.isDone, bench.inFlight], [false, 1]);
    await bench.idle();
    const read = bench.request(0, header(0, 3), [1024, 1]);
    const beyond = bench.request(0, header(0, 8), [512, 1]);
    const unknown = bench.request(0, header(8, 0), [20, 1]);
    await bench.idle();
    assertEquals([...write.written], [0]);
    assertEquals([...read.written], [...sent, 0]);
    assertEquals([beyond.written.at(-1), unknown.written.at(-1)], [1, 2]);
    bench.request(0, header(0, 0), [512, 1]);
    bench.reset(); // waits for what is in flight; the bench finds what is written after it
    await bench.idle();
  });
}

Deno.test("async-disk needs a reset after a request without a status byte", () => {
  using bench = new DeviceBench({ plugin: asyncDisk, parts: { disk: { plugin: ram } } });
  bench.request(0, header(0, 0), 0);
  assertEquals(bench.faults, { "buffer-too-small": 1 });
});
