import { assert, assertEquals, assertMatch, assertNotEquals } from "@std/assert";
import { QEMU_COUNTERS } from "../../offloads/rsc_chain/qemu_chain.ts";
import { newStrictCounters, QEMU_RULES, STRICT_RULES } from "../../offloads/rsc_chain/verdicts.ts";

const document = await Deno.readTextFile(new URL("../../docs/rules.md", import.meta.url));
const cases = await caseFiles();

async function caseFiles(): Promise<string[]> {
  const folder = new URL("./cases/", import.meta.url);
  const texts: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (name.endsWith("_test.ts")) texts.push(await Deno.readTextFile(new URL(name, folder)));
  }
  return texts;
}

/** The rows of a rule table: id, verdict, text, cases. */
function rowsOf(heading: string): string[][] {
  const section = document.split(/^## /m).find((text) => text.startsWith(heading));
  assert(section !== undefined, `docs/rules.md has no section ${heading}`);
  return section.split("\n").filter((line) => /^\| [SQ]\d/.test(line)).map((line) =>
    line.slice(1, -1).split(" | ").map((cell) => cell.trim())
  );
}

/** All numbers of cases for which a test is declared. */
const declared: ReadonlySet<number> = new Set(
  cases.flatMap((text) =>
    [
      ...[...text.matchAll(/\btestCase\((\d+)/g), ...text.matchAll(/Deno\.test\([`"]case (\d+)/g)],
      // Loops over several numbers give them in the first column of a table.
      ...(/\btestCase\(number/.test(text) ? text.matchAll(/\[(\d+), "/g) : []),
    ].map((match) => Number(match[1]))
  ),
);

for (const [heading, rules] of [["Strict", STRICT_RULES], ["The reference", QEMU_RULES]] as const) {
  Deno.test(`docs/rules.md, ${heading}: has every rule of the code, in its order, and no other`, () => {
    const rows = rowsOf(heading).map(([id, verdict]) => [verdict.replaceAll("`", ""), id]);
    assertEquals(rows, Object.values(rules).map(({ verdict, id }) => [verdict, id]));
    assertEquals(Object.keys(rules), Object.values(rules).map(({ verdict }) => verdict));
  });

  Deno.test(`docs/rules.md, ${heading}: says of every rule what the code says, and nothing else`, () => {
    assertEquals(
      rowsOf(heading).map(([, , text]) => text),
      Object.values(rules).map(({ text }) => `${text}.`),
    );
    for (const { text } of Object.values(rules)) assertMatch(text, /^[A-Z][^\n`|]+: [^\n`|]+[^.\s]$/);
  });

  Deno.test(`docs/rules.md, ${heading}: says of every rule which cases show it`, () => {
    for (const row of rowsOf(heading)) {
      assertEquals(row.length, 4, row[0]);
      for (const cell of row) assertNotEquals(cell, "", row[0]);
      for (const number of row[3].split(", ")) {
        assert(declared.has(Number(number)), `${row[0]}: case ${number}`);
      }
    }
  });

  Deno.test(`docs/rules.md, ${heading}: every counted verdict is named as a counter by a case`, () => {
    for (const verdict of Object.keys(rules)) {
      if (verdict === "direct") continue;
      assert(cases.some((text) => new RegExp(`\\b${verdict}: [1-9]`).test(text)), verdict);
    }
  });
}

Deno.test("docs/rules.md: no rule has two verdicts, and no verdict two rules", () => {
  for (const rules of [STRICT_RULES, QEMU_RULES]) {
    assertEquals(new Set(Object.values(rules).map(({ id }) => id)).size, Object.keys(rules).length);
  }
});

Deno.test("docs/rules.md: names every counter of both rule books", () => {
  for (const name of [...Object.keys(newStrictCounters()), ...QEMU_COUNTERS]) {
    assert(document.includes(`\`${name}\``), name);
  }
});

Deno.test("all 99 cases are tests", () => {
  const missing = Array.from({ length: 99 }, (_, i) => i + 1).filter((number) => !declared.has(number));
  assertEquals(missing, []);
});
