import { assertEquals, assertStrictEquals } from "@std/assert";
import {
  childPath,
  ConfigError,
  type ConfigIssue,
  describeIssue,
  messageOf,
  printable,
  quotedList,
  showValue,
} from "../../config/errors.ts";

Deno.test("ConfigError shows every issue on a line of its own", () => {
  const issues: ConfigIssue[] = [
    { path: "$.a", problem: 'unknown key, did you mean "b"?' },
    { path: "$.mac", value: "52:54:00", problem: "is no MAC address", remedy: "write six bytes" },
    { path: "$", problem: "odd", excerpt: "1 | x\n    ^" },
  ];
  const error = new ConfigError(issues);
  assertEquals(
    error.message,
    '$.a: unknown key, did you mean "b"?\n$.mac: "52:54:00" is no MAC address; write six bytes\n$: odd\n1 | x\n    ^',
  );
  assertStrictEquals(error.name, "ConfigError");
  assertEquals(error.issues, issues);
});

Deno.test("ConfigError stops telling after a hundred issues, and says so", () => {
  const issues = Array.from({ length: 250 }, (_, i) => ({ path: `$[${i}]`, problem: "wrong" }));
  const lines = new ConfigError(issues).message.split("\n");
  assertStrictEquals(lines.length, 101);
  assertStrictEquals(lines[99], "$[99]: wrong");
  assertStrictEquals(lines[100], "and 150 more problems");
});

Deno.test("ConfigError keeps its cause", () => {
  const cause = new Error("deep");
  assertStrictEquals(new ConfigError([{ path: "$", problem: "x" }], { cause }).cause, cause);
});

Deno.test("describeIssue() shows a value that is undefined, and none where none was given", () => {
  assertStrictEquals(
    describeIssue({ path: "$", value: undefined, problem: "is wrong" }),
    "$: nothing is wrong",
  );
  assertStrictEquals(describeIssue({ path: "$", problem: "is wrong" }), "$: is wrong");
});

Deno.test("describeIssue() lets no control character of a message through", () => {
  const text = describeIssue({ path: "$", problem: "\x1b[31mred\r\nnew line\u202e", value: "\x07" });
  assertStrictEquals(text, '$: "\\u0007" \\u001b[31mred\\u000d\\u000anew line\\u202e');
});

Deno.test("messageOf() makes one line of whatever was thrown", () => {
  assertStrictEquals(messageOf(new Error("two\n  lines.")), "two lines");
  assertStrictEquals(messageOf(new RangeError("")), "RangeError");
  assertStrictEquals(messageOf(null), "null");
  assertStrictEquals(messageOf(Object.create(null)), "something that cannot be shown");
});

Deno.test("showValue() writes short JSON and cuts long values", () => {
  assertStrictEquals(showValue("a\nb"), '"a\\nb"');
  assertStrictEquals(showValue([1, { a: null }]), '[1,{"a":null}]');
  assertStrictEquals(showValue(-0.5), "-0.5");
  assertStrictEquals(showValue(10n), "10n");
  assertStrictEquals(showValue(undefined), "nothing");
  assertStrictEquals(showValue(() => 1), "a function");
  assertStrictEquals(showValue("x".repeat(100)), `"${"x".repeat(59)}…"`);
  assertStrictEquals(showValue({ a: "y".repeat(100) }).length, 60);
  const cycle: unknown[] = [];
  cycle.push(cycle);
  assertStrictEquals(showValue(cycle), "an object");
});

Deno.test("showValue() never cuts a surrogate pair in two", () => {
  const text = showValue("x".repeat(58) + "😀".repeat(5));
  assertStrictEquals(text, `"${"x".repeat(58)}…"`);
});

Deno.test("printable() escapes what cannot be seen and keeps what can", () => {
  assertStrictEquals(printable("ä€😀 z"), "ä€😀 z");
  assertStrictEquals(printable("\u009b\u200f\ud800"), "\\u009b\\u200f\\ud800");
});

Deno.test("childPath() quotes keys that are no plain words", () => {
  assertStrictEquals(childPath("$", "devices"), "$.devices");
  assertStrictEquals(childPath("$.a", 3), "$.a[3]");
  assertStrictEquals(childPath("$", "two words"), '$["two words"]');
  assertStrictEquals(childPath("$", ""), '$[""]');
  assertStrictEquals(childPath("$", "\x1b"), '$["\\u001b"]');
  assertStrictEquals(childPath("$", "k".repeat(1000)), `$["${"k".repeat(59)}…"]`);
  assertStrictEquals(childPath("$", Symbol("s")), "$.s");
});

Deno.test("quotedList() counts what it does not show", () => {
  assertStrictEquals(quotedList(["a", "b"]), '"a", "b"');
  assertStrictEquals(quotedList(["a", "b", "c"], 2), '"a", "b" and 1 more');
});
