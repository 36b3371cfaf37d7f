import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { internetChecksum, internetSum } from "../../testing/mod.ts";
import {
  addToSum,
  fold,
  isSumRight,
  storeChecksum,
  storePartial,
  sumOf16,
  swap16,
} from "../../wire/checksum.ts";

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Zero has two forms in one's complement; both are the same sum. */
function assertSameSum(actual: number, expected: number, message?: string): void {
  assertEquals(swap16(fold(actual)) % 0xffff, expected % 0xffff, message);
}

Deno.test("addToSum() agrees with the plainest implementation for any bytes, offset and length", () => {
  const bytes = fc.uint8Array({ maxLength: 400 });
  fc.assert(
    fc.property(bytes, fc.nat(40), fc.nat(40), fc.nat(0xffff), (data, before, behind, start) => {
      const whole = new Uint8Array(before + data.length + behind).fill(0xa5);
      whole.set(data, before);
      const sum = addToSum(viewOf(whole), before, data.length, sumOf16(start));
      assertSameSum(sum, internetSum(data, 0, data.length, start));
    }),
    { numRuns: 500 },
  );
});

Deno.test("addToSum() carries what full words carry, at every length up to 200 and at the longest", () => {
  const ones = new Uint8Array(65_536).fill(0xff);
  for (let length = 0; length <= 200; length++) {
    assertSameSum(addToSum(viewOf(ones), 0, length, 0), internetSum(ones, 0, length), `length ${length}`);
  }
  for (const length of [65_520, 65_534, 65_535]) {
    const sum = addToSum(viewOf(ones), 1, length, 0xffff);
    assertSameSum(sum, internetSum(ones, 1, 1 + length, 0xffff), `length ${length}`);
  }
});

Deno.test("addToSum() adds pieces that begin at even places to the sum of the whole", () => {
  const cuts = fc.array(fc.nat(60), { maxLength: 6 });
  fc.assert(fc.property(cuts, fc.uint8Array({ minLength: 1, maxLength: 99 }), (halves, last) => {
    const lengths = halves.map((half) => 2 * half);
    const whole = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0) + last.length);
    whole.forEach((_, i) => whole[i] = (i * 167 + 13) & 0xff);
    whole.set(last, whole.length - last.length);
    let sum = 0;
    let at = 0;
    for (const length of [...lengths, last.length]) {
      sum = addToSum(viewOf(whole), at, length, sum);
      at += length;
    }
    assertSameSum(sum, internetSum(whole));
  }));
});

Deno.test("addToSum() adds nothing for no bytes, and reads none", () => {
  assertEquals(addToSum(viewOf(new Uint8Array(0)), 0, 0, 0x1234), 0x1234);
});

Deno.test("fold() brings any sum of 32 bits into 16, and leaves 16 bits alone", () => {
  fc.assert(
    fc.property(fc.nat(0xffffffff), (sum) => {
      const folded = fold(sum);
      assert(folded >= 0 && folded <= 0xffff);
      assertEquals(folded % 0xffff, sum % 0xffff);
      assertEquals(folded === 0, sum === 0, "only nothing is 0: all ones stay all ones");
    }),
    { numRuns: 500 },
  );
  for (const sum of [0, 1, 0xfffe, 0xffff]) assertEquals(fold(sum), sum);
  assertEquals([fold(0x1fffe), fold(0xffffffff), fold(0x10000)], [0xffff, 0xffff, 1]);
});

Deno.test("swap16() exchanges two bytes, twice for nothing", () => {
  assertEquals([swap16(0x1234), swap16(0xff00), swap16(0x00ff)], [0x3412, 0xff, 0xff00]);
  for (const value of [0, 1, 0x8000, 0xabcd]) assertEquals(swap16(swap16(value)), value);
});

Deno.test("storeChecksum() completes bytes so that they sum up to all ones, as the example of RFC 1071", () => {
  // The example of RFC 1071, section 3, whose sum is ddf2 in network order.
  const example = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assertEquals(swap16(fold(addToSum(viewOf(example), 0, 8, 0))), 0xddf2);
  fc.assert(fc.property(fc.uint8Array({ minLength: 2, maxLength: 90 }), (data) => {
    const at = 0;
    data.fill(0, at, at + 2);
    const view = viewOf(data);
    storeChecksum(view, at, addToSum(view, 0, data.length, 0));
    assertEquals(isSumRight(addToSum(view, 0, data.length, 0)), true);
    const stored = view.getUint16(at);
    data.fill(0, at, at + 2);
    assertEquals(stored, internetChecksum(data));
  }));
});

Deno.test("isSumRight() refuses a sum with any single bit wrong", () => {
  const data = Uint8Array.from({ length: 61 }, (_, i) => i * 7);
  data.fill(0, 10, 12);
  const view = viewOf(data);
  storeChecksum(view, 10, addToSum(view, 0, data.length, 0));
  for (let bit = 0; bit < 8 * data.length; bit++) {
    data[bit >>> 3] ^= 1 << (bit & 7);
    assertEquals(isSumRight(addToSum(view, 0, data.length, 0)), false, `bit ${bit}`);
    data[bit >>> 3] ^= 1 << (bit & 7);
  }
});

Deno.test("storePartial() stores a sum that the receiver can go on with", () => {
  const data = Uint8Array.from({ length: 30 }, (_, i) => 255 - i);
  const view = viewOf(data);
  const pseudo = sumOf16(6) + sumOf16(1448) + sumOf16(0xc0a8);
  storePartial(view, 16, pseudo);
  assertEquals(view.getUint16(16), internetSum(Uint8Array.of(0, 6, 1448 >> 8, 1448 & 255, 0xc0, 0xa8)));
  storeChecksum(view, 16, addToSum(view, 0, 30, 0));
  assertEquals(isSumRight(addToSum(view, 0, 30, pseudo)), true);
});
