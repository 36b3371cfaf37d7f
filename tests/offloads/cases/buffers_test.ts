/**
 * Cases 85 to 87: the guest has no buffers, or is not there. Neither rule book loses what the reference loses
 * here.
 */
import { assertEquals } from "@std/assert";
import { departures, startDevice } from "./case.ts";
import { A, B, C, merged, packet, stale } from "./packets.ts";

const gap = packet({ seq: 1101 });
const fin = packet({ seq: 1100, flags: ["FIN", "ACK"] });
const fin2 = packet({ seq: 1200, payload: 50, flags: ["FIN", "ACK"] });
const RULES = [["Q", "qemu"], ["S", "strict"]] as const;
const NO_BUFFERS = { receiveBuffers: 0 };

for (const [letter, rules] of RULES) {
  Deno.test(`case 85 ${letter}: without buffers at FINAL, A waits and is not lost`, async () => {
    await using bench = await startDevice(rules, {}, NO_BUFFERS);
    bench.feed(A);
    bench.advanceTo(1);
    bench.feed(gap);
    assertEquals(bench.out, []);
    bench.advanceTo(5);
    bench.guest.postReceiveBuffers(4);
    bench.advanceTo(2_000_000);
    // The reference offers the packet that made A leave again, from the first rule on: now it is held.
    const gapLeaves = rules === "qemu" ? 300_005 : 5;
    assertEquals(departures(bench), [[5, "[0,0,-]", A], [gapLeaves, "[0,0,-]", gap]]);
    if (rules === "qemu") assertEquals(bench.counters["rsc-v4"].final_failed, 0);
  });

  Deno.test(`case 85 ${letter}: buffers that come one by one go to A first`, async () => {
    await using bench = await startDevice(rules, {}, NO_BUFFERS);
    bench.feed(A);
    bench.advanceTo(1);
    bench.feed(gap);
    for (const atNs of [5, 400_000]) {
      bench.advanceTo(atNs);
      bench.guest.postReceiveBuffers(1);
      bench.settle();
    }
    bench.advanceTo(2_000_000);
    const gapLeaves = rules === "qemu" ? 700_000 : 400_000;
    assertEquals(departures(bench), [[5, "[0,0,-]", A], [gapLeaves, "[0,0,-]", gap]]);
  });

  Deno.test(`case 85 ${letter}: a small packet does not overtake the packet that it flushed`, async () => {
    // Two buffers of 256 bytes: the packet of two needs both, the packet behind it only one.
    await using bench = await startDevice(rules, {}, { receiveBuffers: 1, receiveBufferBytes: 256 });
    bench.feed(A);
    bench.feed(B);
    bench.advanceTo(1);
    bench.feed(fin2);
    assertEquals(bench.out, []);
    bench.advanceTo(5);
    bench.guest.postReceiveBuffers(2);
    bench.settle();
    const packet = rules === "qemu" ? stale(A, { payload: 200 }) : merged({ payload: 200 });
    const info = rules === "qemu" ? "[4,1,2]" : "[5,1,2]";
    assertEquals(departures(bench), [[5, info, packet], [5, "[0,0,-]", fin2]]);
  });

  Deno.test(`case 86 ${letter}: without buffers at FIN, A waits and FIN behind it`, async () => {
    await using bench = await startDevice(rules, {}, NO_BUFFERS);
    bench.feed(A);
    bench.advanceTo(1);
    bench.feed(fin);
    assertEquals(bench.out, []);
    bench.advanceTo(5);
    bench.guest.postReceiveBuffers(2);
    bench.settle();
    assertEquals(departures(bench), [[5, "[0,0,-]", A], [5, "[0,0,-]", fin]]);
    if (rules === "qemu") assertEquals(bench.counters["rsc-v4"].drain_failed, 0);
  });

  Deno.test(`case 86 ${letter}: without buffers when the timer runs out, packets wait in order`, async () => {
    await using bench = await startDevice(rules, {}, NO_BUFFERS);
    const flows = [packet({ sourcePort: 1 }), packet({ sourcePort: 2 }), packet({ sourcePort: 3 })];
    for (const frame of flows) bench.feed(frame);
    bench.advanceTo(300_000);
    bench.guest.postReceiveBuffers(2);
    bench.settle();
    bench.advanceTo(1_000_000);
    bench.guest.postReceiveBuffers(1);
    bench.settle();
    assertEquals(departures(bench), [
      [300_000, "[0,0,-]", flows[0]],
      [300_000, "[0,0,-]", flows[1]],
      [1_000_000, "[0,0,-]", flows[2]],
    ]);
    if (rules === "qemu") assertEquals(bench.counters["rsc-v4"].purge_failed, 0);
  });

  Deno.test(`case 86 ${letter}: while a packet waits, nothing more is taken from the network`, async () => {
    await using bench = await startDevice(rules, {}, NO_BUFFERS);
    bench.feed(A);
    bench.advanceTo(300_000);
    bench.feed(B);
    bench.feed(C);
    assertEquals(bench.port.waiting, 2);
    bench.advanceTo(400_000);
    bench.guest.postReceiveBuffers(8);
    bench.advanceTo(2_000_000);
    const packet = rules === "qemu"
      ? stale(B, { seq: 1100, payload: 200 })
      : merged({ seq: 1100, payload: 200 });
    assertEquals(departures(bench), [
      [400_000, "[0,0,-]", A],
      [700_000, rules === "qemu" ? "[4,1,2]" : "[5,1,2]", packet],
    ]);
  });

  Deno.test(`case 87 ${letter}: what is held when the driver goes is discarded and counted`, async () => {
    await using bench = await startDevice(rules);
    bench.feed(A);
    bench.feed(packet({ sourcePort: 2222 }));
    bench.advanceTo(1);
    bench.guest.detach();
    bench.feed(gap);
    bench.advanceTo(2_000_000);
    assertEquals(bench.out, []);
    assertEquals(bench.counters[""].discarded_at_reset, 2);
    assertEquals(bench.port.waiting, 1);
  });

  Deno.test(`case 87 ${letter}: what waits for buffers when the driver goes is discarded and counted`, async () => {
    await using bench = await startDevice(rules, {}, NO_BUFFERS);
    bench.feed(A);
    bench.advanceTo(1);
    bench.feed(gap);
    bench.guest.detach();
    assertEquals(bench.counters[""].discarded_at_reset, 2);
    assertEquals(bench.pool.inUse, 0);
  });
}
