import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { editDistance, suggest, unknownKey } from "../../config/wording.ts";

Deno.test("editDistance() counts letters too many, missing, wrong and exchanged", () => {
  assertStrictEquals(editDistance("nht", "nth"), 1);
  assertStrictEquals(editDistance("nth", "nth"), 0);
  assertStrictEquals(editDistance("intrvalUs", "intervalUs"), 1);
  assertStrictEquals(editDistance("kitten", "sitting"), 3);
  assertStrictEquals(editDistance("", "abc"), 3);
  assertStrictEquals(editDistance("ca", "abc"), 3);
});

Deno.test("editDistance() is symmetric, zero only for equal words, and at most the longer length", () => {
  const word = fc.string({ maxLength: 8, unit: fc.constantFrom("a", "b", "c") });
  fc.assert(fc.property(word, word, (a, b) => {
    const distance = editDistance(a, b);
    assertStrictEquals(distance, editDistance(b, a));
    assertStrictEquals(distance === 0, a === b);
    assert(distance <= Math.max(a.length, b.length));
    assert(distance >= Math.abs(a.length - b.length));
  }));
});

Deno.test("suggest() finds the nearest known word", () => {
  const known = ["intervalUs", "nth", "offloads", "network", "name", "mac"];
  assertStrictEquals(suggest("nht", known), "nth");
  assertStrictEquals(suggest("ofloads", known), "offloads");
  assertStrictEquals(suggest("NETWORK", known), "network");
  assertStrictEquals(suggest("interval_us", known), "intervalUs");
  assertStrictEquals(suggest("interval", known), "intervalUs");
  assertStrictEquals(suggest("offloadsList", known), "offloads");
});

Deno.test("suggest() rather says nothing than nonsense", () => {
  const known = ["nth", "mac", "intervalUs", "a"];
  for (const word of ["zzz", "", "b", "queue", "x".repeat(1000), "-", "timeout"]) {
    assertStrictEquals(suggest(word, known), null, word);
  }
});

Deno.test("suggest() does not depend on the order of the known words", () => {
  const known = ["rsc-v4", "rsc-v6"];
  assertStrictEquals(suggest("rsc-v5", known), "rsc-v4");
  assertStrictEquals(suggest("rsc-v5", known.toReversed()), "rsc-v4");
});

Deno.test("unknownKey() suggests, or lists what is known, or says that it does not know", () => {
  assertEquals(unknownKey("nht", ["nth"]), { problem: 'unknown key, did you mean "nth"?' });
  assertEquals(unknownKey("zzz", ["nth"], ["name"]), {
    problem: "unknown key",
    remedy: 'known are "nth", "name"',
  });
  assertEquals(unknownKey("zzz", []), { problem: "unknown key", remedy: "there are no options here" });
  assertEquals(unknownKey("zzz", null, ["name"]), { problem: "unknown key" });
  assertEquals(unknownKey("nmae", null, ["name"]), { problem: 'unknown key, did you mean "name"?' });
});
