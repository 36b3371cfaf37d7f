import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FeatureSet } from "../../core/features.ts";

const bits = fc.uniqueArray(fc.nat(127), { maxLength: 40 });

function maskOf(numbers: Iterable<number>): bigint {
  let mask = 0n;
  for (const bit of numbers) mask |= 1n << BigInt(bit);
  return mask;
}

Deno.test("FeatureSet does set arithmetic as masks do", () => {
  fc.assert(
    fc.property(bits, bits, (left, right) => {
      const a = FeatureSet.from(left);
      const b = FeatureSet.of(...right);
      const [x, y] = [maskOf(left), maskOf(right)];
      assertEquals(a.toBigInt(), x);
      assertEquals(a.union(b).toBigInt(), x | y);
      assertEquals(a.intersect(b).toBigInt(), x & y);
      assertEquals(a.minus(b).toBigInt(), x & ~y);
      assertEquals(a.with(...right).toBigInt(), x | y);
      assertEquals(a.without(...right).toBigInt(), x & ~y);
      assertEquals(a.equals(b), x === y);
      assertEquals(a.isEmpty, x === 0n);
      assertEquals(a.hasAll(right), (x & y) === y);
      assertEquals([...a], [...left].sort((p, q) => p - q));
      assertEquals(a.toString(), `0x${x.toString(16)}`);
    }),
    { numRuns: 200 },
  );
});

Deno.test("FeatureSet.from() and its inverse agree for words and big integers", () => {
  fc.assert(fc.property(bits, (numbers) => {
    const set = FeatureSet.from(numbers);
    const words = [0, 1, 2, 3].map((index) => set.word(index));
    assert(words.every((word) => Number.isInteger(word) && word >= 0 && word <= 0xffffffff));
    assert(FeatureSet.fromWords(...words).equals(set));
    assert(FeatureSet.fromBigInt(set.toBigInt()).equals(set));
  }));
});

Deno.test("FeatureSet.fromWords() takes missing words as 0 and leaves more than four alone", () => {
  assertEquals([...FeatureSet.fromWords(1 << 31, 1)], [31, 32]);
  assertEquals([...FeatureSet.fromWords(1, 0, 0, 1 << 31, 1)], [0, 127]);
  assert(FeatureSet.fromWords().isEmpty);
});

Deno.test("FeatureSet.fromBigInt() keeps the lowest 128 bits", () => {
  assertEquals(FeatureSet.fromBigInt(1n << 128n | 1n << 127n).toBigInt(), 1n << 127n);
});

Deno.test("FeatureSet.from() refuses what is no bit number, and says which", () => {
  for (const bit of [-1, 128, 1.5, NaN, Infinity]) {
    assertThrows(
      () => FeatureSet.of(bit),
      RangeError,
      `Cannot use feature bit ${bit}: it must be an integer`,
    );
  }
});

Deno.test("FeatureSet.has() answers false for numbers that are no bits", () => {
  const all = FeatureSet.fromBigInt((1n << 128n) - 1n);
  for (const bit of [-1, 128, 4096]) assertEquals(all.has(bit), false);
  assertEquals([...all].length, 128);
});

Deno.test("FeatureSet is not changed by what is made from it", () => {
  const set = FeatureSet.of(3, 61);
  set.with(4);
  set.without(3);
  set.union(FeatureSet.of(9));
  set.minus(FeatureSet.of(61));
  assertEquals([...set], [3, 61]);
  assertEquals([...FeatureSet.none], []);
});
