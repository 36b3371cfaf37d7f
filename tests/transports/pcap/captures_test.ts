import { assert, assertEquals } from "@std/assert";
import { FrameBatch } from "../../../pipeline/frame.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import { MemorySource } from "../../../transports/pcap/byte_source.ts";
import { CaptureReader } from "../../../transports/pcap/capture_reader.ts";
import { newReplayCounters, PcapReplay } from "../../../transports/pcap/replay.ts";
import { join, pcapHeader, record } from "./build.ts";

const folder = new URL("../../captures/", import.meta.url);
const GUEST_MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);

interface Row {
  name: string;
  stamps: string;
  packets: number;
  bytes: number;
}

const rows: Row[] = [];
for (const line of (await Deno.readTextFile(new URL("README.md", folder))).split("\n")) {
  const cells = line.split("|").map((cell) => cell.trim());
  if (!/\.pcap(ng)?$/.test(cells[1] ?? "")) continue;
  rows.push({ name: cells[1], stamps: cells[2], packets: Number(cells[4]), bytes: Number(cells[5]) });
}

function path(row: Row): string {
  return new URL(row.name, folder).pathname;
}

Deno.test("the captures are those that README.md lists", async () => {
  const names = [];
  for await (const entry of Deno.readDir(folder)) if (/\.pcap(ng)?$/.test(entry.name)) names.push(entry.name);
  assertEquals(rows.map((row) => row.name).sort(), names.sort());
  assert(rows.length >= 10);
});

for (const row of rows) {
  Deno.test(`CaptureReader finds in ${row.name} what capinfos found`, () => {
    using reader = CaptureReader.open(path(row));
    assertEquals(reader.format, row.name.endsWith("ng") ? "pcapng" : "pcap");
    let bytes = 0;
    let lastNs = 0;
    let finer = false;
    while (reader.next()) {
      bytes += reader.packet.length;
      // Packets of both directions are stamped on two cores: one may be a little older than the one before
      // it.
      assert(reader.packet.timeNs > lastNs - 100_000);
      lastNs = reader.packet.timeNs;
      finer ||= lastNs % 1000 !== 0;
    }
    assertEquals(reader.counters, { read: row.packets, snapped: 0, otherLinkType: 0 });
    assertEquals(bytes, row.bytes);
    assertEquals(finer, row.stamps === "ns");
    assert(lastNs > 1_000_000 && lastNs < 60_000_000_000);
    assert(reader.startUnixNs > 1_600_000_000_000_000_000n);
  });

  Deno.test(`CaptureReader reads ${row.name} alike after it was rewritten in the other byte order`, () => {
    using original = CaptureReader.open(path(row));
    const parts = [pcapHeader(false, 0xa1b23c4d)];
    while (original.next()) {
      const ns = original.startUnixNs + BigInt(original.packet.timeNs);
      parts.push(
        record(false, Number(ns / 1_000_000_000n), Number(ns % 1_000_000_000n), original.packet.toBytes()),
      );
    }
    using again = CaptureReader.open(path(row));
    using swapped = new CaptureReader(new MemorySource(join(...parts)), "swapped");
    while (again.next()) {
      assert(swapped.next());
      assertEquals(swapped.packet.timeNs, again.packet.timeNs);
      assertEquals(swapped.packet.toBytes(), again.packet.toBytes());
    }
    assert(!swapped.next());
    assertEquals(swapped.startUnixNs, again.startUnixNs);
  });

  Deno.test(`PcapReplay delivers ${row.name} at its own deadlines, each frame at its time`, () => {
    const pool = new FramePool();
    const counters = newReplayCounters();
    using replay = new PcapReplay({
      reader: CaptureReader.open(path(row)),
      openWriter: null,
      pace: "recorded",
      take: "guest",
      guestMac: GUEST_MAC,
      pool,
      counters,
    });
    const times = new Map<number, number>();
    {
      using reader = CaptureReader.open(path(row));
      while (reader.next()) times.set(reader.packet.number, reader.packet.timeNs);
    }
    const batch = new FrameBatch();
    const startNs = 1000;
    let nowNs = startNs;
    let latestNs = -Infinity;
    let rounds = 0;
    while (!replay.finished) {
      assert(rounds++ < 2000);
      replay.receive(batch, 64, 0, nowNs);
      for (let i = 0; i < batch.length; i++) {
        const frame = batch.at(i);
        const dueNs = startNs + times.get(frame.number)!;
        // On the dot, unless it is older than one that was delivered before it.
        assert(dueNs === nowNs || dueNs <= latestNs, `frame ${frame.number}: ${dueNs} at ${nowNs}`);
        latestNs = Math.max(latestNs, dueNs);
        assert((frame.bytes[frame.start] & 1) === 1 || frame.bytes[frame.start + 5] === 1);
      }
      batch.releaseAll();
      if (!replay.finished) nowNs = replay.deadlineNs();
    }
    assertEquals(counters.read, row.packets);
    assertEquals(counters.taken + counters.notForGuest, row.packets);
    // Where frames are large there are few.
    const least = row.name.startsWith("offloads") ? 8 : 50;
    assert(counters.taken > least && counters.notForGuest > least);
    assertEquals(pool.inUse, 0);
  });
}
