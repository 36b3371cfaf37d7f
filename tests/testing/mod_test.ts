import { assertEquals, assertStringIncludes } from "@std/assert";

const read = (path: string) => Deno.readTextFile(new URL(`../../${path}`, import.meta.url));

Deno.test("testing/mod.ts: its example is the test of examples/drop_every.ts, to the letter", async () => {
  const comment = /```ts ignore\n([\s\S]*?)```/.exec(await read("testing/mod.ts"))![1];
  const example = comment.replaceAll(/^ \* ?/gm, "").trimEnd();
  const test = /Deno\.test\("drop-every drops[\s\S]*?\n\}\);/.exec(example)![0];
  assertStringIncludes(await read("examples/drop_every_test.ts"), test);
  assertEquals(example.split("\n").length <= 15, true, "an example of more than 15 lines");
});
