/**
 * What the commands write destroys nothing that they read, by whatever name it goes.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { command, projectPath, ROOT, withFolder } from "./support/command.ts";

const CAPTURE = projectPath("tests/captures/request_response_v4.pcapng");
const VECTOR = projectPath("tests/vectors/rsc/ack_dup_v6.jsonl");

Deno.test("replay --out refuses the capture by a symbolic link, a hard link and standard input", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/in.pcapng`;
    await Deno.copyFile(CAPTURE, path);
    await Deno.symlink("in.pcapng", `${folder}/soft.pcapng`);
    await Deno.link(path, `${folder}/hard.pcapng`);
    const before = await Deno.readFile(path);
    for (const out of ["in.pcapng", "soft.pcapng", "hard.pcapng"]) {
      const { code, err } = await command(["replay", path, "--out", `${folder}/${out}`]);
      assertEquals(code, 1, err);
      assertStringIncludes(err, "choose another file");
      const script = `"${Deno.execPath()}" run -A mod.ts replay - --out ${folder}/${out} < ${path}`;
      const { code: piped, stderr } = await new Deno.Command("bash", { args: ["-c", script], cwd: ROOT })
        .output();
      assertEquals(piped, 1);
      assertStringIncludes(new TextDecoder().decode(stderr), "choose another file");
      assertEquals((await Deno.readFile(path)).length, before.length);
    }
  });
});

Deno.test("vectors --record refuses links to vectors that are run", async () => {
  await withFolder(async (folder) => {
    await Deno.mkdir(`${folder}/in`);
    await Deno.mkdir(`${folder}/out`);
    await Deno.copyFile(VECTOR, `${folder}/in/a.jsonl`);
    await Deno.copyFile(VECTOR, `${folder}/in/b.jsonl`);
    // The recording of the one would overwrite the other.
    await Deno.link(`${folder}/in/b.jsonl`, `${folder}/out/a.jsonl`);
    const linked = await command(["vectors", `${folder}/in`, "--record", `${folder}/out`]);
    assertEquals([linked.code, linked.out], [1, ""]);
    assertStringIncludes(linked.err, "is a vector to be run");
    assertEquals(await Deno.readTextFile(`${folder}/in/b.jsonl`), await Deno.readTextFile(VECTOR));
    await Deno.remove(`${folder}/out/a.jsonl`);
    await Deno.symlink("b.jsonl", `${folder}/out/a.jsonl`);
    const twice = await command(["vectors", `${folder}/in`, "--record", `${folder}/out`]);
    assertEquals([twice.code, twice.out], [1, ""]);
    assertStringIncludes(twice.err, "run them apart");
  });
});

Deno.test("schema --out replaces a schema, and refuses what is none and a FIFO that nothing reads", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/config.jsonc`;
    await Deno.writeTextFile(path, '{ "devices": [] } // Precious.');
    await Deno.symlink("config.jsonc", `${folder}/link.json`);
    for (const out of [path, `${folder}/link.json`]) {
      const { code, err } = await command(["schema", "--out", out]);
      assertEquals(code, 1);
      assertStringIncludes(err, "choose another file");
    }
    assertEquals(await Deno.readTextFile(path), '{ "devices": [] } // Precious.');
    for (let i = 0; i < 2; i++) {
      assertEquals((await command(["schema", "--out", `${folder}/schema.json`])).code, 0);
    }
    await new Deno.Command("mkfifo", { args: [`${folder}/fifo`] }).output();
    const { code, err } = await command(["schema", "--out", `${folder}/fifo`]);
    assertEquals(code, 1);
    assertStringIncludes(err, "nothing reads this FIFO");
  });
});
