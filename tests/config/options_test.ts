import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import * as v from "npm:valibot@^1";
import { z } from "zod";
import { describeIssue } from "../../config/errors.ts";
import { checkOptions, checkOptionsNow } from "../../config/options.ts";
import type { OptionsSchema } from "../../plugins/plugin.ts";

/** The lines about options that must be wrong; checked both ways. */
async function lines(
  schema: OptionsSchema<unknown>,
  written: unknown,
  alsoKnown?: string[],
): Promise<string[]> {
  const result = await checkOptions(schema, written, "$.o", { alsoKnown: alsoKnown ?? [] });
  if (result.ok) throw new Error("these options should have been refused");
  return result.issues.map(describeIssue);
}

/** A schema as an author writes it who uses no library. */
function byHand(validate: (value: unknown) => unknown, more: object = {}): OptionsSchema<unknown> {
  return { "~standard": { version: 1, vendor: "hand", validate, ...more } } as OptionsSchema<unknown>;
}

Deno.test("checkOptions() gives the completed options of zod", async () => {
  const schema = z.strictObject({ nth: z.int().default(10) });
  assertEquals(await checkOptions(schema, {}, "$"), { ok: true, options: { nth: 10 } });
  assertEquals(checkOptionsNow(schema, { nth: 3 }, "$"), { ok: true, options: { nth: 3 } });
});

Deno.test("checkOptions() tells wrong types by what belongs there", async () => {
  const schema = z.strictObject({
    text: z.string(),
    count: z.int().describe("How many."),
    flag: z.boolean(),
    list: z.array(z.number()),
    map: z.record(z.string(), z.string()),
  });
  assertEquals(await lines(schema, { text: 1, count: 1.5, flag: "yes", list: {}, map: [] }), [
    "$.o.text: 1 is not what belongs here; write text in double quotes",
    "$.o.count: 1.5 is not what belongs here; write an integer (How many)",
    '$.o.flag: "yes" is not what belongs here; write true or false',
    "$.o.list: {} is not what belongs here; write a list in []",
    "$.o.map: [] is not what belongs here; write an object in {}",
  ]);
  assertEquals(await lines(schema, { count: 1, flag: true, list: [1, "2"], map: { a: 1 } }), [
    "$.o.text: missing; write text in double quotes",
    '$.o.list[1]: "2" is not what belongs here; write a number',
    "$.o.map.a: 1 is not what belongs here; write text in double quotes",
  ]);
  assertEquals(await lines(schema, null), ["$.o: is not what belongs here; write an object in {}"]);
});

Deno.test("checkOptions() tells limits", async () => {
  const schema = z.strictObject({
    a: z.number().min(2).optional(),
    b: z.number().lt(5).optional(),
    c: z.string().min(3).optional(),
    d: z.array(z.number()).max(1).optional(),
    e: z.int().multipleOf(4).optional(),
    f: z.string().max(1).optional(),
  });
  assertEquals(await lines(schema, { a: 1, b: 5, c: "x", d: [1, 2], e: 3, f: "xy" }), [
    "$.o.a: 1 is too small; at least 2",
    "$.o.b: 5 is too large; less than 5",
    '$.o.c: "x" is too short; at least 3 characters',
    "$.o.d: [1,2] has too many items; at most 1",
    "$.o.e: 3 is no multiple of 4",
    '$.o.f: "xy" is too long; at most 1 character',
  ]);
});

Deno.test("checkOptions() tells the choice and suggests from it", async () => {
  const schema = z.strictObject({ pace: z.enum(["recorded", "fast"]).describe("How fast.") });
  assertEquals(await lines(schema, { pace: "fsat" }), [
    '$.o.pace: "fsat" is not one of "recorded", "fast"; did you mean "fast"? (How fast)',
  ]);
  assertEquals(await lines(schema, { pace: 7 }), ['$.o.pace: 7 is not one of "recorded", "fast" (How fast)']);
  assertEquals(await lines(schema, {}), ['$.o.pace: missing; write one of "recorded", "fast" (How fast)']);
  assertEquals(await lines(z.strictObject({ one: z.literal(1) }), { one: 2 }), ["$.o.one: 2 is not 1"]);
});

Deno.test("checkOptions() goes into the form of a union that was meant", async () => {
  const schema = z.strictObject({
    limit: z.union([z.literal("none"), z.strictObject({ segments: z.int().min(2) })]),
  });
  assertEquals(await lines(schema, { limit: { segments: 1 } }), [
    "$.o.limit.segments: 1 is too small; at least 2",
  ]);
  assertEquals(await lines(schema, { limit: { segmnts: 2 } }), [
    "$.o.limit.segments: missing; write an integer",
    '$.o.limit.segmnts: unknown key, did you mean "segments"?',
  ]);
  assertEquals(await lines(schema, { limit: "non" }), [
    '$.o.limit: "non" is not what belongs here; did you mean "none"?',
  ]);
  assertEquals(await lines(schema, { limit: 5 }), [
    '$.o.limit: 5 is not what belongs here; write "none" or an object in {}',
  ]);
});

Deno.test("checkOptions() tells the choices of a discriminated union", async () => {
  const schema = z.discriminatedUnion("mode", [
    z.strictObject({ mode: z.literal("fixed"), us: z.number() }),
    z.strictObject({ mode: z.literal("auto") }),
  ]);
  assertEquals(await lines(schema, { mode: "atuo" }), [
    '$.o.mode: "atuo" is not what belongs here; did you mean "auto"?',
  ]);
  assertEquals(await lines(schema, { mode: "fixed" }), ["$.o.us: missing; write a number"]);
  assertEquals(await lines(schema, { mode: "auto", us: 1 }), [
    '$.o.us: unknown key; known are "mode", "us"',
  ]);
});

Deno.test("checkOptions() uses messages of the author as they are", async () => {
  const schema = z.strictObject({
    mac: z.string().regex(/^a$/, "is no MAC address; write six bytes").describe("Not shown twice").optional(),
    even: z.number().refine((n) => n % 2 === 0, "Only even numbers work.").optional(),
    read: z.string().optional(),
  }).check((context) => {
    if (context.value.read === undefined) {
      context.issues.push({
        code: "custom",
        path: ["read"],
        message: "is needed beside even",
        input: context.value,
      });
    }
    if (context.value.even === 4) {
      context.issues.push({ code: "custom", message: "needs less", input: context.value });
    }
  });
  assertEquals(await lines(schema, { mac: "b", even: 3, read: "x" }), [
    '$.o.mac: "b" is no MAC address; write six bytes',
    "$.o.even: 3 is refused: Only even numbers work",
  ]);
  assertEquals(await lines(schema, { even: 4 }), ["$.o.read: is needed beside even", "$.o: needs less"]);
});

Deno.test("checkOptions() suggests keys, its own and those beside the options", async () => {
  const schema = z.strictObject({
    nth: z.int().default(2),
    deep: z.strictObject({ inside: z.int() }).optional(),
  });
  assertEquals(await lines(schema, { nht: 3, enbled: false, deep: { insid: 1, inside: 1 } }, ["enabled"]), [
    '$.o.deep.insid: unknown key, did you mean "inside"?',
    '$.o.nht: unknown key, did you mean "nth"?',
    '$.o.enbled: unknown key, did you mean "enabled"?',
  ]);
});

Deno.test("checkOptions() refuses unknown keys where a schema would drop them in silence", async () => {
  assertEquals(await lines(z.object({ nth: z.int() }), { nth: 1, nht: 2 }), [
    '$.o.nht: unknown key, did you mean "nth"?',
  ]);
  assertEquals(await checkOptions(z.looseObject({ nth: z.int() }), { nth: 1, more: 2 }, "$"), {
    ok: true,
    options: { nth: 1, more: 2 },
  });
  assertEquals(
    (await checkOptions(z.object({ a: z.int() }).catchall(z.string()), { a: 1, b: "x" }, "$")).ok,
    true,
  );
});

Deno.test("checkOptions() names twenty unknown keys and counts the others", async () => {
  const many = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`key${i}`, 0]));
  const found = await lines(z.strictObject({ nth: z.int().optional() }), many);
  assertStrictEquals(found.length, 21);
  assertStrictEquals(found[20], "$.o: 99980 more unknown keys");
});

Deno.test("checkOptions() puts two hundred mistakes into words and counts the others", async () => {
  const found = await lines(z.strictObject({ list: z.array(z.string()) }), { list: Array(100_000).fill(0) });
  assertStrictEquals(found.length, 201);
  assertStrictEquals(found[200], "$.o: 99800 more problems");
});

Deno.test("checkOptions() understands valibot", async () => {
  const schema = v.strictObject({
    nth: v.optional(v.pipe(v.number(), v.integer(), v.minValue(2)), 10),
    mode: v.picklist(["a", "b"]),
    deep: v.optional(v.strictObject({ x: v.number() })),
  });
  assertEquals(await checkOptions(schema, { mode: "a" }, "$"), { ok: true, options: { nth: 10, mode: "a" } });
  assertEquals(await lines(schema, { nth: 1, mode: "c", nht: 2 }, ["enabled"]), [
    "$.o.nth: 1 is refused: Invalid value: Expected >=2 but received 1",
    '$.o.mode: "c" is refused: Invalid type: Expected ("a" | "b") but received "c"',
    "$.o.nht: unknown key",
  ]);
  assertEquals(await lines(schema, { deep: { x: 1, y: 2 } }), [
    "$.o.mode: missing",
    "$.o.deep.y: unknown key",
  ]);
});

Deno.test("checkOptions() understands a schema written by hand", async () => {
  const schema = byHand((value) => {
    const { level } = value as { level?: unknown };
    return level === 1
      ? { value: { level: 1 } }
      : { issues: [{ message: "must be 1.", path: [{ key: "level" }] }] };
  });
  assertEquals(checkOptionsNow(schema, { level: 1, other: 2 }, "$"), { ok: true, options: { level: 1 } });
  assertEquals(await lines(schema, { level: 2 }), ["$.o.level: 2 must be 1"]);
  assertEquals(await lines(schema, {}), ["$.o.level: missing"]);
});

Deno.test("checkOptions() learns keys and descriptions from Standard JSON Schema", async () => {
  const described = {
    type: "object",
    properties: { level: { type: "integer", description: "How loud" } },
    additionalProperties: false,
  };
  const validate = (value: unknown) =>
    Object.keys(value as object).every((key) => key === "level")
      ? { issues: [{ message: "is too loud", path: ["level"] }] }
      : { issues: [{ message: "odd", path: ["lvel"], expected: "never" }] };
  const schema = byHand(validate, { jsonSchema: { input: () => described, output: () => described } });
  assertEquals(await lines(schema, { lvel: 1 }), ['$.o.lvel: unknown key, did you mean "level"?']);
  assertEquals(await lines(schema, { level: 9 }), ["$.o.level: 9 is too loud (How loud)"]);
});

Deno.test("checkOptions() does without a JSON Schema that cannot be made", async () => {
  const refuse = () => ({ issues: [{ message: "no", path: ["a"] }] });
  const fails = () => {
    throw new Error("cannot be said");
  };
  const schema = byHand(refuse, { jsonSchema: { input: fails, output: fails } });
  assertEquals(await lines(schema, { a: 1 }), ["$.o.a: 1 is refused: no"]);
  assertEquals(await lines(byHand(refuse, { jsonSchema: { input: () => 5 } }), { a: 1 }), [
    "$.o.a: 1 is refused: no",
  ]);
});

Deno.test("checkOptions() waits for an asynchronous schema; checkOptionsNow() refuses it", async () => {
  const schema = byHand(async (value) => {
    await Promise.resolve();
    return { value };
  });
  assertEquals(await checkOptions(schema, { a: 1 }, "$"), { ok: true, options: { a: 1 } });
  assertEquals(checkOptionsNow(schema, {}, "$.o"), {
    ok: false,
    issues: [{
      path: "$.o",
      problem: "these options can only be validated asynchronously, and not at this time",
      remedy: 'put them under the key "inner"',
    }],
  });
  // The rejection must not surface anywhere: the test runner fails on one that is not handled.
  assert(!checkOptionsNow(byHand(() => Promise.reject(new Error("late"))), {}, "$").ok);
  await new Promise((resolve) => setTimeout(resolve, 0));
});

Deno.test("checkOptions() blames the plugin for a schema that fails", async () => {
  const blame = (
    what: string,
  ) => [`$.o: the schema of these options failed: ${what}; this is a fault of the plugin`];
  const thrown = byHand(() => {
    throw new Error("oops");
  });
  assertEquals(await lines(thrown, {}), blame("oops"));
  assertEquals(checkOptionsNow(thrown, {}, "$").ok, false);
  assertEquals(await lines(byHand(() => Promise.reject(null)), {}), blame("null"));
  assertEquals(await lines(byHand(() => ({})), {}), blame('it answered with neither "value" nor "issues"'));
  assertEquals(await lines(byHand(() => ({ issues: [] })), {}), blame("it refused without saying why"));
  for (const garbage of [undefined, null, 5, { issues: 5 }, { issues: [null] }]) {
    const [line] = await lines(byHand(() => garbage), {});
    assert(line!.startsWith("$.o: the schema of these options failed: "), line);
  }
  assertEquals(await lines(byHand(() => ({ issues: [{}] })), { a: 1 }), ["$.o: no reason was given"]);
});
