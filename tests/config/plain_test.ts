import { assert, assertEquals, assertNotStrictEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import type { ConfigIssue } from "../../config/errors.ts";
import { canonical, copyPlain, freezePlain } from "../../config/plain.ts";

function issuesOf(value: unknown): string[] {
  const issues: ConfigIssue[] = [];
  copyPlain(value, "$", issues);
  return issues.map((issue) => `${issue.path}: ${issue.problem}`);
}

Deno.test("copyPlain() copies, so that later changes do not matter", () => {
  const written = { a: [{ b: 1 }], c: undefined };
  const copy = copyPlain(written, "$", []) as { a: { b: number }[] };
  written.a[0]!.b = 2;
  assertEquals(copy, { a: [{ b: 1 }] });
  assertNotStrictEquals<unknown>(copy, written);
});

Deno.test("copyPlain() names what JSON cannot say", () => {
  assertEquals(issuesOf({ a: () => 1 }), ["$.a: cannot stand in a configuration"]);
  assertEquals(issuesOf([1n]), ["$[0]: cannot stand in a configuration"]);
  assertEquals(issuesOf([new Date(0)]), ["$[0]: cannot stand in a configuration"]);
  assertEquals(issuesOf({ a: Infinity, b: NaN }), ["$.a: is no finite number", "$.b: is no finite number"]);
  assertEquals(issuesOf(JSON.parse('{"x": {"__proto__": 1}}')), ["$.x.__proto__: this key cannot be used"]);
});

Deno.test("copyPlain() ends on a cycle", () => {
  const cycle: Record<string, unknown> = {};
  cycle.a = cycle;
  const issues = issuesOf(cycle);
  assertStrictEquals(issues.length, 1);
  assert(issues[0]!.endsWith(": nested deeper than 64 levels"), issues[0]);
});

Deno.test("canonical() is equal for equal content only", () => {
  assertStrictEquals(canonical({ b: [1, null], a: "x" }), canonical({ a: "x", b: [1, null] }));
  fc.assert(fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
    const [one, two] = [JSON.parse(JSON.stringify(a)), JSON.parse(JSON.stringify(b))];
    assertStrictEquals(canonical(one), canonical(structuredClone(one)));
    let equal = true;
    try {
      assertEquals(one, two);
    } catch {
      equal = false;
    }
    assertStrictEquals(canonical(one) === canonical(two), equal);
  }));
});

Deno.test("freezePlain() freezes plain data and leaves instances alone", () => {
  const bytes = new Uint8Array(2);
  const value = { list: [{ a: 1 }], bytes, map: new Map() };
  assertStrictEquals(freezePlain(value), value);
  assert(Object.isFrozen(value) && Object.isFrozen(value.list) && Object.isFrozen(value.list[0]));
  assert(!Object.isFrozen(value.map));
  bytes[0] = 7;
  assertStrictEquals(bytes[0], 7);
});

Deno.test("freezePlain() ends on a cycle", () => {
  const cycle: Record<string, unknown> = {};
  cycle.a = [cycle];
  freezePlain(cycle);
  assert(Object.isFrozen(cycle.a));
});
