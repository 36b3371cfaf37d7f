import { assertEquals } from "@std/assert";
import { newRegistry } from "../../config/builtins.ts";
import { configJsonSchema } from "../../config/json_schema.ts";
import { command, projectPath, withFolder } from "./support/command.ts";

Deno.test("config.schema.json is what the task schema writes (run it, if this fails)", async () => {
  const { code, out } = await command(["schema"]);
  assertEquals(code, 0);
  assertEquals(JSON.parse(out), configJsonSchema(newRegistry()));
  assertEquals(await Deno.readTextFile(projectPath("config.schema.json")), out);
});

Deno.test("schema --out writes the same to a file", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/s.json`;
    const { code, out } = await command(["schema", "--out", path]);
    assertEquals([code, out], [0, `Wrote ${path}\n`]);
    assertEquals(await Deno.readTextFile(path), (await command(["schema"])).out);
    const json = await command(["schema", "--out", path, "--json"]);
    assertEquals(JSON.parse(json.out), { written: path });
  });
});
