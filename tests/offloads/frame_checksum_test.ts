import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { addFrameToSum, storeFullChecksum } from "../../offloads/checksum.ts";
import type { Frame } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import { internetChecksum, internetSum } from "../../testing/mod.ts";
import { addToSum, fold, isSumRight, storeChecksum, sumOf16, swap16 } from "../../wire/checksum.ts";

/** A sum of the code, in the order of the naive one; 0 and 0xffff are the same sum. */
function comparable(sum: number): number {
  return swap16(fold(sum)) % 0xffff;
}

/** A frame whose pieces hold these bytes, its first piece headed by `headroom` others. */
function frameOf(pool: FramePool, pieces: readonly Uint8Array[]): Frame {
  const [first, ...rest] = pieces.map((piece) => pool.takeCopy(piece)!);
  for (const piece of rest) first.append(piece);
  return first;
}

const bytes = fc.uint8Array({ maxLength: 600 });

Deno.test("addToSum() equals the naive sum at any offset, of any length, on top of any sum", () => {
  fc.assert(fc.property(bytes, fc.nat(40), fc.nat(0xffff), (data, offset, start) => {
    const storage = new Uint8Array(data.length + offset + 8).fill(0xa5);
    storage.set(data, offset);
    const sum = addToSum(new DataView(storage.buffer), offset, data.length, sumOf16(start));
    assertEquals(comparable(sum), internetSum(data, 0, data.length, start) % 0xffff);
  }));
});

Deno.test("addToSum() carries where all words are 0xffff, up to 65535 bytes", () => {
  for (const length of [2, 64, 1448, 65_534, 65_535]) {
    const data = new Uint8Array(length).fill(0xff);
    const sum = addToSum(new DataView(data.buffer), 0, length, 0xffff);
    assertEquals(comparable(sum), internetSum(data) % 0xffff, `${length} bytes`);
  }
});

Deno.test("addFrameToSum() equals the naive sum over pieces of any lengths, odd and empty ones among them", () => {
  const pool = new FramePool();
  fc.assert(fc.property(fc.array(bytes, { minLength: 1, maxLength: 9 }), fc.nat(20), (pieces, skip) => {
    const frame = frameOf(pool, pieces);
    const from = Math.min(skip, pieces[0].length);
    const sum = addFrameToSum(frame, frame.start + from, 0);
    assertEquals(comparable(sum), internetSum(frame.toBytes(), from) % 0xffff);
    frame.release();
  }));
  assertEquals(pool.inUse, 0);
});

Deno.test("addFrameToSum() adds 64 KiB in 45 odd pieces", () => {
  const pool = new FramePool();
  const pieces = Array.from({ length: 45 }, (_, n) => new Uint8Array(1447).map((_, i) => i * 31 + n));
  const frame = frameOf(pool, pieces);
  assertEquals(comparable(addFrameToSum(frame, frame.start, 0)), internetSum(frame.toBytes()) % 0xffff);
  frame.release();
});

Deno.test("storeFullChecksum() makes the sum over everything right, whatever stood in the field", () => {
  const pool = new FramePool();
  const header = fc.uint8Array({ minLength: 20, maxLength: 60 });
  fc.assert(fc.property(header, fc.array(bytes, { maxLength: 5 }), fc.nat(0xffff), (first, rest, pseudo) => {
    const frame = frameOf(pool, [first, ...rest]);
    storeFullChecksum(frame, frame.start, frame.start + 16, sumOf16(pseudo));
    const whole = frame.toBytes();
    assertEquals(internetSum(whole, 0, whole.length, pseudo) % 0xffff, 0);
    assertEquals(isSumRight(addFrameToSum(frame, frame.start, sumOf16(pseudo))), true);
    frame.release();
  }));
});

Deno.test("storeChecksum() stores what the naive checksum is", () => {
  const data = Uint8Array.of(
    0x45,
    0,
    0,
    0x73,
    0,
    0,
    0x40,
    0,
    0x40,
    0x11,
    0,
    0,
    0xc0,
    0xa8,
    0,
    1,
    0xc0,
    0xa8,
    0,
    0xc7,
  );
  const view = new DataView(data.buffer);
  const naive = internetChecksum(data);
  storeChecksum(view, 10, addToSum(view, 0, 20, 0));
  assertEquals([view.getUint16(10), naive], [0xb861, 0xb861]);
});

Deno.test("isSumRight() finds any single byte that was changed", () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 2, maxLength: 200 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (data, at, by) => {
        const whole = new Uint8Array(data.length + (data.length & 1) + 2);
        whole.set(data, 2);
        const view = new DataView(whole.buffer);
        storeChecksum(view, 0, addToSum(view, 0, whole.length, 0));
        const place = 2 + at % data.length;
        assertEquals(isSumRight(addToSum(view, 0, whole.length, 0)), true);
        const before = whole[place];
        whole[place] ^= by;
        // 0x0000 and 0xffff are one sum: a word that turns from one into the other goes unnoticed, but that
        // is two bytes.
        assertEquals(isSumRight(addToSum(view, 0, whole.length, 0)), whole[place] === before);
      },
    ),
  );
});
