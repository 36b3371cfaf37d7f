import { assert, assertEquals } from "@std/assert";
import { meaningOf, QEMU_MEANINGS, STRICT_MEANINGS } from "../../cli/replay/meanings.ts";
import { projectPath } from "./support/command.ts";

/** The comments in a table of verdicts, by verdict. */
async function commentsOf(file: string): Promise<Record<string, string>> {
  const text = await Deno.readTextFile(projectPath(`offloads/rsc_chain/${file}`));
  const table = /export const \w+_RULES = \{\n([\s\S]*?)\n\} as const/.exec(text)![1];
  const entries = [...table.matchAll(/\/\*\* ([^\n]*?)\.? \*\/\n\s+(\w+): "/g)].map((match) =>
    [match[2], match[1].replaceAll("`", "")] as const
  );
  return Object.fromEntries(entries);
}

Deno.test("STRICT_MEANINGS says what the table of strict verdicts says", async () => {
  const comments = await commentsOf("strict_verdicts.ts");
  assert(Object.keys(comments).length >= 30);
  assertEquals(STRICT_MEANINGS, comments);
});

Deno.test("QEMU_MEANINGS says what the table of the reference's verdicts says", async () => {
  const comments = await commentsOf("qemu_verdicts.ts");
  assert(Object.keys(comments).length >= 20);
  assertEquals(QEMU_MEANINGS, comments);
});

Deno.test("meaningOf() knows the verdicts of one rule book only", () => {
  assertEquals(meaningOf("merged", "strict"), "Merged: the next bytes of the flow");
  assertEquals(meaningOf("merged", "qemu"), "");
  assertEquals(meaningOf("coalesced", "qemu"), "Merged: the next bytes of the flow");
  assertEquals(meaningOf("constructor", "strict"), "");
});
