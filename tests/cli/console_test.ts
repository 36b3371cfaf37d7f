import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  bar,
  count,
  duration,
  labelled,
  numberTable,
  plural,
  shellQuoted,
  showsUnicode,
  styleFor,
  wrap,
} from "../../cli/console/io.ts";

Deno.test("count() separates thousands", () => {
  assertEquals([0, 999, 1000, 1234567].map(count), ["0", "999", "1,000", "1,234,567"]);
  assertEquals([plural(1, "frame"), plural(0, "frame"), plural(2, "entry", "entries")], [
    "1 frame",
    "0 frames",
    "2 entries",
  ]);
});

Deno.test("duration() chooses the unit", () => {
  const shown = [0, 5, 999, 1000, 12_345, 999_400, 1_000_000, 321_000_000, 4_560_000_000, 7_200_000_000_000];
  assertEquals(shown.map(duration), [
    "0 s",
    "5 ns",
    "999 ns",
    "1.00 us",
    "12.3 us",
    "999 us",
    "1.00 ms",
    "321 ms",
    "4.56 s",
    "7,200 s",
  ]);
});

Deno.test("wrap() keeps every word in order and no line too long but for a long word", () => {
  const words = fc.array(fc.stringMatching(/^[a-z]{1,30}$/), { minLength: 1, maxLength: 40 });
  fc.assert(fc.property(words, fc.integer({ min: 1, max: 60 }), (written, width) => {
    const lines = wrap(written.join(" "), width);
    assertEquals(lines.join(" ").split(" "), written);
    for (const line of lines) assert(line.length <= width || !line.includes(" "), line);
  }));
});

Deno.test("labelled() puts the text behind the label, or below a long one", () => {
  assertEquals(
    labelled("  --a", "one two three four five six", 8, 28),
    "  --a   one two three four\n        five six\n",
  );
  assertEquals(labelled("  --long-option", "text", 8, 40), "  --long-option\n        text\n");
});

Deno.test("numberTable() aligns numbers to the right", () => {
  assertEquals(
    numberTable([["", "a"], ["x", "1,000"], ["long", "7"]]),
    "             a\n  x      1,000\n  long       7\n",
  );
});

Deno.test("bar() is as long as the value, never longer than its room, and never invisible", () => {
  assertEquals(bar(8, 8, 4, { unicode: true }), "████");
  assertEquals(bar(3, 8, 4, { unicode: true }), "█▌");
  assertEquals(bar(1, 1e9, 40, { unicode: true }), "▏");
  assertEquals(bar(1, 1e9, 40, { unicode: false }), "#");
  assertEquals(bar(99, 8, 4, { unicode: false }), "####");
  assertEquals(bar(0, 8, 4, { unicode: true }), "");
  assertEquals(bar(0, 0, 4, { unicode: false }), "");
});

Deno.test("shellQuoted() quotes what a shell would take apart", () => {
  assertEquals(["a/b.c:1", "a b", "it's", "$x"].map(shellQuoted), ["a/b.c:1", "'a b'", "'it'\\''s'", "'$x'"]);
});

Deno.test("showsUnicode() believes the locale, and expects the usual where there is none", () => {
  const shows = (variables: Record<string, string>) => showsUnicode((name) => variables[name]);
  assertEquals(shows({}), true);
  assertEquals(shows({ LANG: "" }), true);
  assertEquals(shows({ LANG: "en_GB.UTF-8" }), true);
  assertEquals(shows({ LANG: "de_AT.utf8" }), true);
  assertEquals(shows({ LANG: "C" }), false);
  assertEquals(shows({ LANG: "en_GB.UTF-8", LC_ALL: "POSIX" }), false);
  assertEquals(shows({ LANG: "C", LC_CTYPE: "C.UTF-8" }), true);
  assertEquals(shows({ LANG: "en_GB.UTF-8", TERM: "dumb" }), false);
});

Deno.test("styleFor() leaves text alone without colours", () => {
  assertEquals(styleFor({ color: false }).red("x"), "x");
  assertEquals(styleFor({ color: true }).red("x"), "\x1b[31mx\x1b[39m");
  assertEquals(styleFor({ color: true }).red(""), "");
});
