import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { closeSync, constants, openSync } from "node:fs";
import { HostError } from "../../../core/errors.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import { MemorySource } from "../../../transports/pcap/byte_source.ts";
import { CaptureReader } from "../../../transports/pcap/capture_reader.ts";
import { CaptureWriter } from "../../../transports/pcap/capture_writer.ts";
import {
  CaptureSink,
  CHUNK_BYTES,
  FLUSH_MS,
  MAX_BACKLOG_CHUNKS,
} from "../../../transports/pcap/capture_sink.ts";
import type { CaptureOutput } from "../../../transports/pcap/capture_sink.ts";
import type { PacketDirection } from "../../../transports/pcap/captured_packet.ts";
import { OutputFile } from "../../../host/output_file.ts";
import { withFolder } from "../../cli/support/command.ts";
import { frameBytes, join } from "./build.ts";

/** An output in memory that can be slow, write little at a time, or fail. */
class MemoryOutput implements CaptureOutput {
  readonly parts: Uint8Array[] = [];
  closed = 0;
  asyncWrites = 0;
  syncWrites = 0;
  most = Infinity;
  failAfter = Infinity;
  failure: Error | null = null;
  gate: Promise<void> = Promise.resolve();

  async write(bytes: Uint8Array): Promise<number> {
    this.asyncWrites++;
    await this.gate;
    return this.#put(bytes);
  }

  writeSync(bytes: Uint8Array): number {
    this.syncWrites++;
    return this.#put(bytes);
  }

  close(): void {
    this.closed++;
  }

  get bytes(): Uint8Array<ArrayBuffer> {
    return join(...this.parts);
  }

  #put(bytes: Uint8Array): number {
    assertEquals(this.closed, 0);
    if (this.failure !== null) throw this.failure;
    if (this.parts.length >= this.failAfter) throw new Error("disk full");
    this.parts.push(bytes.slice(0, Math.min(bytes.length, this.most)));
    return this.parts.at(-1)!.length;
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => originalTimeout(resolve, ms));
}

const originalTimeout = globalThis.setTimeout;

/** Counts the timers that are started, until restored. */
function countTimers(): { started: number; restore(): void } {
  const count = { started: 0, restore: () => void (globalThis.setTimeout = originalTimeout) };
  globalThis.setTimeout = ((...args: Parameters<typeof originalTimeout>) => {
    count.started++;
    return originalTimeout(...args);
  }) as typeof originalTimeout;
  return count;
}

function turns(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 5));
}

interface Packet {
  bytes: Uint8Array<ArrayBuffer>;
  timeNs: number;
  direction: PacketDirection;
  comment: string;
}

const packets: fc.Arbitrary<Packet[]> = fc.array(
  fc.record({
    bytes: fc.uint8Array({ minLength: 0, maxLength: 300 }).map((bytes) => Uint8Array.from(bytes)),
    timeNs: fc.integer({ min: -2_000_000_000, max: 8_640_000_000_000 * 100 }),
    direction: fc.constantFrom<PacketDirection>(0, 1, 2),
    comment: fc.string({ unit: "grapheme", maxLength: 20 }),
  }),
  { maxLength: 12 },
);

for (const format of ["pcap", "pcapng"] as const) {
  Deno.test(`CaptureWriter writes ${format} that CaptureReader reads back`, async () => {
    await fc.assert(
      fc.asyncProperty(
        packets,
        fc.bigInt({ min: 3_000_000_000n, max: 3_000_000_000_000_000_000n }),
        async (list, start) => {
          const output = new MemoryOutput();
          output.most = 1000;
          const writer = new CaptureWriter(new CaptureSink(output, "x"), { format, startUnixNs: start });
          for (const { bytes, direction, timeNs, comment } of list) {
            assert(writer.writeBytes(bytes, direction, timeNs, comment));
          }
          await writer.close();
          using reader = new CaptureReader(new MemorySource(output.bytes), "x");
          assertEquals(reader.format, format);
          for (const { bytes, direction, timeNs } of list) {
            assert(reader.next());
            assertEquals(reader.packet.toBytes(), bytes);
            assertEquals(reader.startUnixNs, start + BigInt(list[0].timeNs));
            assertEquals(reader.packet.timeNs, timeNs - list[0].timeNs);
            if (format === "pcapng") {
              assertEquals(reader.packet.direction, direction);
              assertEquals(reader.packet.interfaceId, direction === 2 ? 1 : 0);
            }
          }
          assert(!reader.next());
        },
      ),
      { numRuns: 200 },
    );
  });
}

Deno.test("CaptureWriter writes the same bytes for the same packets", async () => {
  const runs = [];
  for (let i = 0; i < 2; i++) {
    const output = new MemoryOutput();
    const writer = new CaptureWriter(new CaptureSink(output, "x"));
    writer.writeBytes(frameBytes(61), 1, 5, "a comment");
    await writer.close();
    runs.push(output.bytes);
  }
  assertEquals(runs[0], runs[1]);
  const text = new TextDecoder("latin1").decode(runs[0]);
  for (const part of ["deno-virtio", "toGuest", "fromGuest", "a comment"]) assert(text.includes(part), part);
});

Deno.test("CaptureWriter writes all pieces of a frame, and keeps the last stamp for a flush at Infinity", async () => {
  const pool = new FramePool();
  const frame = pool.takeCopy(frameBytes(100, 1))!;
  frame.append(pool.takeCopy(new Uint8Array(50).fill(2))!);
  const output = new MemoryOutput();
  const writer = new CaptureWriter(new CaptureSink(output, "x"));
  assert(writer.write(frame, 2, 1000));
  assert(writer.write(frame, 2, Infinity));
  await writer.close();
  using reader = new CaptureReader(new MemorySource(output.bytes), "x");
  for (let i = 0; i < 2; i++) {
    assert(reader.next());
    assertEquals(reader.packet.toBytes(), join(frameBytes(100, 1), new Uint8Array(50).fill(2)));
    assertEquals(reader.packet.timeNs, 0);
  }
  frame.release();
  assertEquals(pool.inUse, 0);
});

Deno.test("CaptureWriter.stage() leaves nothing behind without commit()", async () => {
  const pool = new FramePool();
  const frame = pool.takeCopy(frameBytes(60))!;
  const output = new MemoryOutput();
  const writer = new CaptureWriter(new CaptureSink(output, "x"));
  assert(writer.stage(frame, 1, 1));
  assert(writer.stage(frame, 2, 2));
  writer.commit();
  writer.commit();
  await writer.close();
  using reader = new CaptureReader(new MemorySource(output.bytes), "x");
  assert(reader.next());
  assertEquals(reader.packet.direction, 2);
  assert(!reader.next());
  frame.release();
});

Deno.test("CaptureWriter moves stamps that the format cannot hold to its limits", async () => {
  for (const format of ["pcap", "pcapng"] as const) {
    for (const [start, timeNs] of [[0n, -5], [(1n << 64n) + 5n, 7], [-(1n << 70n), 3]] as const) {
      const output = new MemoryOutput();
      const writer = new CaptureWriter(new CaptureSink(output, "x"), { format, startUnixNs: start });
      assert(writer.writeBytes(frameBytes(60), 1, timeNs));
      await writer.close();
      using reader = new CaptureReader(new MemorySource(output.bytes), "x");
      assert(reader.next());
      const last = format === "pcap" ? 0xffffffffn * 1_000_000_000n : 0xffffffffn << 32n;
      assertEquals(reader.startUnixNs, start > 0n ? last : 0n);
    }
  }
});

Deno.test("CaptureSink writes in the background, in order, in chunks", async () => {
  const output = new MemoryOutput();
  output.most = 100_000;
  const writer = new CaptureWriter(new CaptureSink(output, "x"));
  for (let i = 0; i < 20; i++) assert(writer.writeBytes(frameBytes(100_000, i), 1, i));
  assertEquals(output.parts.length, 0);
  await turns();
  assert(output.parts.length > 0);
  assertEquals(output.syncWrites, 0);
  await writer.close();
  assertEquals(output.closed, 1);
  using reader = new CaptureReader(new MemorySource(output.bytes), "x");
  for (let i = 0; i < 20; i++) {
    assert(reader.next());
    assertEquals(reader.packet.toBytes(), frameBytes(100_000, i));
  }
  assert(!reader.next());
});

Deno.test("CaptureSink writes at once when the program never yields, so that memory stays bounded", async () => {
  const output = new MemoryOutput();
  const writer = new CaptureWriter(new CaptureSink(output, "x"));
  const count = Math.ceil((MAX_BACKLOG_CHUNKS + 4) * CHUNK_BYTES / 200_000);
  const bytes = frameBytes(200_000);
  for (let i = 0; i < count; i++) assert(writer.writeBytes(bytes, 1, i));
  assertEquals([output.syncWrites, output.asyncWrites], [MAX_BACKLOG_CHUNKS, 0]);
  await writer.close();
  using reader = new CaptureReader(new MemorySource(output.bytes), "x");
  for (let i = 0; i < count; i++) assert(reader.next() && reader.packet.timeNs === i);
});

Deno.test("CaptureSink refuses while a slow write is under way, and loses nothing", async () => {
  const output = new MemoryOutput();
  const gate = Promise.withResolvers<void>();
  output.gate = gate.promise;
  const writer = new CaptureWriter(new CaptureSink(output, "x"));
  const bytes = frameBytes(250_000);
  for (let i = 0; i < 4; i++) assert(writer.writeBytes(bytes, 1, 0));
  await turns();
  let taken = 4;
  while (taken < 1000 && writer.writeBytes(bytes, 1, 0)) taken++;
  assert(taken < 100, `took ${taken}`);
  assert(!writer.failed);
  assertEquals(output.syncWrites, 0);
  gate.resolve();
  await turns();
  assert(writer.writeBytes(bytes, 1, 0));
  await writer.close();
  using reader = new CaptureReader(new MemorySource(output.bytes), "x");
  while (reader.next());
  assertEquals(reader.counters.read, taken + 1);
});

Deno.test("CaptureSink keeps the first failure, takes nothing more, and close() rejects with it", async () => {
  const output = new MemoryOutput();
  output.failAfter = 0;
  const writer = new CaptureWriter(new CaptureSink(output, "out.pcapng"));
  for (let i = 0; i < 6; i++) assert(writer.writeBytes(frameBytes(200_000), 1, 0));
  await turns();
  assert(writer.failed);
  assert(!writer.writeBytes(frameBytes(60), 1, 0));
  await assertRejects(() => writer.close(), HostError, 'Cannot write capture "out.pcapng": disk full');
  assertEquals(output.closed, 1);
});

Deno.test("CaptureSink writes the header at once and records soon after, and rests when all is written", async () => {
  const output = new MemoryOutput();
  const writer = new CaptureWriter(new CaptureSink(output, "x"));
  await turns();
  const header = output.bytes.length;
  assert(header > 0);
  const timers = countTimers();
  try {
    assert(writer.writeBytes(frameBytes(60), 1, 0));
    assert(writer.writeBytes(frameBytes(60), 1, 1));
    assertEquals(timers.started, 1);
    await sleep(FLUSH_MS + 50);
    using reader = new CaptureReader(new MemorySource(output.bytes), "x");
    assert(reader.next() && reader.next() && !reader.next());
    // Idle is idle: no timer runs, and none is started.
    const { asyncWrites } = output;
    timers.started = 0;
    await sleep(3 * FLUSH_MS);
    assertEquals([timers.started, output.asyncWrites], [0, asyncWrites]);
  } finally {
    timers.restore();
  }
  await writer.close();
});

Deno.test("CaptureSink goes on when a full disk has room again: whole but for what was refused, which is told", async () => {
  const output = new MemoryOutput();
  const told: (string | number)[] = [];
  const trouble = (why: string | null, lost: number) => void told.push(why ?? lost);
  const writer = new CaptureWriter(new CaptureSink(output, "x", { neverWaits: true, trouble }));
  await turns();
  output.most = 1000;
  output.failure = Object.assign(new Error("No space left on device"), { code: "ENOSPC" });
  let taken = 0;
  let refused = 0;
  for (let i = 0; i < 200; i++) {
    if (writer.writeBytes(frameBytes(200_000), 1, i)) taken++;
    else refused++;
    if (i % 20 === 0) await turns();
  }
  assert(refused > 100 && !writer.failed);
  output.failure = null;
  output.most = Infinity;
  await sleep(1200);
  assert(writer.writeBytes(frameBytes(60), 1, 1000));
  await writer.close();
  assertEquals(told, ["No space left on device; it is tried again every second", refused]);
  using reader = new CaptureReader(new MemorySource(output.bytes), "x");
  for (let i = 0; i < taken; i++) assert(reader.next() && reader.packet.length === 200_000);
  assert(reader.next() && !reader.next());
});

Deno.test("CaptureSink never waits for a FIFO whose reader rests: it refuses, and closes within its time", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/fifo`;
    await new Deno.Command("mkfifo", { args: [path] }).output();
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const writer = new CaptureWriter(
      new CaptureSink(OutputFile.open(path, "capture"), path, { neverWaits: true }),
    );
    let refused = 0;
    let longestMs = 0;
    for (let i = 0; i < 200; i++) {
      const beforeMs = performance.now();
      if (!writer.writeBytes(frameBytes(200_000), 1, i)) refused++;
      longestMs = Math.max(longestMs, performance.now() - beforeMs);
      if (i % 10 === 0) await turns();
    }
    assert(refused > 100, String(refused));
    assert(longestMs < 500, `${longestMs} ms`);
    await assertRejects(() => writer.close(), HostError, "has taken nothing for 5 seconds");
    closeSync(reader);
  });
});

Deno.test("CaptureSink completes the file when it is only disposed of, also during a write", async () => {
  const output = new MemoryOutput();
  const writer = new CaptureWriter(new CaptureSink(output, "x"));
  writer.writeBytes(frameBytes(60), 1, 0);
  writer[Symbol.dispose]();
  writer[Symbol.dispose]();
  assertEquals(output.closed, 1);
  using reader = new CaptureReader(new MemorySource(output.bytes), "x");
  assert(reader.next());

  const slow = new MemoryOutput();
  const gate = Promise.withResolvers<void>();
  slow.gate = gate.promise;
  const other = new CaptureWriter(new CaptureSink(slow, "x"));
  for (let i = 0; i < 4; i++) assert(other.writeBytes(frameBytes(200_000), 1, 0));
  await turns();
  other[Symbol.dispose]();
  assertEquals(slow.closed, 0);
  gate.resolve();
  await turns();
  assertEquals(slow.closed, 1);
  using whole = new CaptureReader(new MemorySource(slow.bytes), "x");
  for (let i = 0; i < 4; i++) assert(whole.next());
});

Deno.test("CaptureWriter.open() says which file cannot be written", () => {
  assertThrows(
    () => CaptureWriter.open("/no/such/x.pcap"),
    HostError,
    'Cannot write capture "/no/such/x.pcap"',
  );
});
