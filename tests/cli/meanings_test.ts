import { assert, assertEquals } from "@std/assert";
import { meaningOf, QEMU_MEANINGS, STRICT_MEANINGS } from "../../cli/replay/explainer.ts";
import { projectPath } from "./support/command.ts";

/** The comments in a table of verdicts, by verdict. */
async function commentsOf(table: string): Promise<Record<string, string>> {
  const text = await Deno.readTextFile(projectPath("offloads/rsc_chain/verdicts.ts"));
  const [, lines] = new RegExp(`export const ${table} = \\{\\n([\\s\\S]*?)\\n\\} as const`).exec(text)!;
  const entries = [...lines.matchAll(/\/\*\* ([^\n]*?)\.? \*\/\n\s+(\w+): "/g)].map((match) =>
    [match[2], match[1].replaceAll("`", "")] as const
  );
  return Object.fromEntries(entries);
}

Deno.test("STRICT_MEANINGS says what the table of strict verdicts says", async () => {
  const comments = await commentsOf("STRICT_RULES");
  assert(Object.keys(comments).length >= 30);
  assertEquals(STRICT_MEANINGS, comments);
});

Deno.test("QEMU_MEANINGS says what the table of the reference's verdicts says", async () => {
  const comments = await commentsOf("QEMU_RULES");
  assert(Object.keys(comments).length >= 20);
  assertEquals(QEMU_MEANINGS, comments);
});

Deno.test("meaningOf() knows the verdicts of one rule book only", () => {
  assertEquals(meaningOf("merged", "strict"), "Merged: the next bytes of the flow");
  assertEquals(meaningOf("merged", "qemu"), "");
  assertEquals(meaningOf("coalesced", "qemu"), "Merged: the next bytes of the flow");
  assertEquals(meaningOf("constructor", "strict"), "");
});
