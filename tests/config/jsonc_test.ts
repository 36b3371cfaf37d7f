import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ConfigError } from "../../config/errors.ts";
import { parseJsonc, positionAt } from "../../config/jsonc.ts";

function failure(text: string): string {
  return assertThrows(() => parseJsonc(text), ConfigError).message;
}

Deno.test("parseJsonc() takes comments, trailing commas and a byte order mark", () => {
  const text = '\ufeff// head\n{ "a": [1, 2,], /* in */ "b": { "c": "// text", }, }\r\n// tail';
  assertEquals(parseJsonc(text), { a: [1, 2], b: { c: "// text" } });
});

Deno.test("parseJsonc() reads whatever JSON.stringify() writes", () => {
  fc.assert(fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
    const text = JSON.stringify(value, null, 1);
    assertEquals(JSON.stringify(parseJsonc(text)), JSON.stringify(JSON.parse(text)));
  }));
});

Deno.test("parseJsonc() names line and column and marks the place", () => {
  assertStrictEquals(
    failure('{\n  "use": "net"\n  "mac": 1\n}'),
    'line 3, column 3: a "," is missing here\n3 |   "mac": 1\n      ^',
  );
});

Deno.test("parseJsonc() has words for every kind of mistake", () => {
  const cases: [string, string][] = [
    ["", "line 1, column 1: a value is missing here"],
    ["{", 'line 1, column 2: a "}" is missing here'],
    ['{"a"}', 'line 1, column 5: a ":" is missing here, between key and value'],
    ['{"a":', "line 1, column 6: a value is missing here"],
    ["[", 'line 1, column 2: a "]" is missing here'],
    ["[1", 'line 1, column 3: a "]" is missing here'],
    ["{a: 1}", "line 1, column 2: this is not JSON; keys and text need double quotes"],
    ["[1]\n]", "line 2, column 1: the configuration has ended before this; take it away"],
    ["[1,,2]", "line 1, column 4: a value is missing here"],
    ["[/* x", "line 1, column 2: this comment is not closed"],
    ['["x\n"]', "line 1, column 2: this text is not closed by a double quote on its line"],
    ["[1e]", "line 1, column 2: this number is not complete"],
    ['["\\x"]', "line 1, column 2: there is no such escape; a backslash itself is written \\\\"],
    ['["\\u12"]', "line 1, column 2: this is no Unicode escape; write \\u and four hexadecimal digits"],
    ['["\t"]', "line 1, column 2: this character cannot stand here; in text it needs an escape"],
    ["{,}", "line 1, column 2: a key in double quotes is missing here"],
    ["[1}", 'line 1, column 3: a "]" is missing here'],
    ["[-]", "line 1, column 2: this is not JSON; keys and text need double quotes"],
    ["[1.e]", "line 1, column 2: this number is not complete"],
    ["[01]", 'line 1, column 3: a "," is missing here'],
    ["[1]/", "line 1, column 4: the configuration has ended before this; take it away"],
    [
      "[\u00a01]",
      "line 1, column 2: U+00A0, a no-break space, cannot stand here; write a plain space, or take it away",
    ],
    [
      "[1,\u20092]",
      "line 1, column 4: U+2009, a character that cannot be told from a space, cannot stand here; write a plain space, or take it away",
    ],
    [
      '{\u201ca": 1}',
      'line 1, column 2: U+201C, a typographic quotation mark, cannot stand here; write a plain double quote ("), or take it away',
    ],
    [
      "[1]\ufeff",
      "line 1, column 4: U+FEFF, a byte order mark, cannot stand here; write a plain space, or take it away",
    ],
    ["[\u20131]", "line 1, column 2: U+2013, a dash, cannot stand here; write a hyphen, or take it away"],
    [
      "[\u201ea\u201c]",
      'line 1, column 2: U+201E, a typographic quotation mark, cannot stand here; write a plain double quote ("), or take it away',
    ],
    [
      '{"a"\uff1a 1}',
      "line 1, column 5: U+FF1A, a wide form of :, cannot stand here; write a plain :, or take it away",
    ],
    ["[\u22121]", "line 1, column 2: U+2212, a dash, cannot stand here; write a hyphen, or take it away"],
    ["[NaN]", "line 1, column 2: this is not JSON; keys and text need double quotes"],
  ];
  for (const [text, expected] of cases) assertStrictEquals(failure(text).split("\n")[0], expected, text);
});

Deno.test("parseJsonc() shows only the neighbourhood of a mistake on a long line", () => {
  const text = `[${"1,".repeat(500)}x${",1".repeat(500)}]`;
  const [head, excerpt, caret] = failure(text).split("\n") as [string, string, string];
  assertStrictEquals(head, "line 1, column 1002: this is not JSON; keys and text need double quotes");
  assertStrictEquals(excerpt.length, "1 | ".length + 1 + 72 + 1);
  assertStrictEquals(excerpt[caret.indexOf("^")], "x");
});

Deno.test("parseJsonc() keeps the caret in place behind tabs and escaped characters", () => {
  const [, excerpt, caret] = failure('{\t"\u202e": x}').split("\n") as [string, string, string];
  assertStrictEquals(excerpt[caret.indexOf("^")], "x");
});

Deno.test("parseJsonc() refuses a key given twice, also when it is __proto__", () => {
  assertStrictEquals(
    failure('{"a": {"b": 1,\n "b": 2}}'),
    "$.a.b: key given twice, again on line 2, column 2; keep one",
  );
  assertStrictEquals(
    failure('{"__proto__": 1, "__proto__": 2}'),
    "$.__proto__: key given twice, again on line 1, column 18; keep one",
  );
  assertStrictEquals(failure('[0, {"a": 1, "a": 2}]').split(":")[0], "$[1].a");
});

Deno.test("parseJsonc() reports twenty keys given twice, and does not walk the text for more", () => {
  const error = assertThrows(() => parseJsonc(`{${'"a":1,'.repeat(100_000)}}`), ConfigError);
  assertStrictEquals(error.issues.length, 20);
});

Deno.test("parseJsonc() makes __proto__ a key and nothing else", () => {
  const value = parseJsonc('{"__proto__": {"polluted": true}}') as Record<string, unknown>;
  assertEquals(Object.keys(value), ["__proto__"]);
  assertStrictEquals(value.polluted, undefined);
});

Deno.test("parseJsonc() refuses nesting deeper than 64 without recursing into it", () => {
  const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
  assertEquals(JSON.stringify(parseJsonc(nested(64))), nested(64));
  assertStrictEquals(failure(nested(65)).split("\n")[0], "line 1, column 65: nested deeper than 64 levels");
  assertStrictEquals(
    failure("[".repeat(500_000)).split("\n")[0],
    "line 1, column 65: nested deeper than 64 levels",
  );
  assertEquals(parseJsonc(`["${"[".repeat(100)}"] // ${"{".repeat(100)}`), ["[".repeat(100)]);
});

Deno.test("parseJsonc() refuses text over 1 MiB", () => {
  const text = `"${"x".repeat(2 ** 20 - 2)}"`;
  assertStrictEquals((parseJsonc(text) as string).length, 2 ** 20 - 2);
  assertStrictEquals(failure(text + " "), "$: longer than 1048576 characters");
});

Deno.test("parseJsonc() gives nothing but values and ConfigError for any text", () => {
  const token = fc.constantFrom(
    ...'{}[],:"\\/*\n-+.e0189tfn '.split(""),
    "true",
    "null",
    '"a"',
    "//",
    "\u2028",
    "\ud800",
  );
  fc.assert(
    fc.property(fc.array(token, { maxLength: 40 }), (tokens) => {
      try {
        parseJsonc(tokens.join(""));
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("positionAt() counts every kind of line end once", () => {
  assertEquals(positionAt("a\r\nb\nc\rd", 7), { line: 4, column: 1 });
  assertEquals(positionAt("abc", 2), { line: 1, column: 3 });
});
