import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { command, projectPath, withFolder } from "./support/command.ts";

async function deno(cwd: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd,
    env: { NO_COLOR: "1" },
  }).output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

Deno.test("init writes a project in which everything passes and runs at once, without a warning", async () => {
  await withFolder(async (parent) => {
    const folder = `${parent}/my plugin`;
    const { code, out, err } = await command(["init", folder]);
    assertEquals([code, err], [0, ""]);
    assertStringIncludes(out, `cd '${folder}'\n`);

    const ok = await deno(folder, "task", "ok");
    assertEquals(ok.code, 0, ok.out + ok.err);
    assert(!/warning/i.test(ok.out + ok.err), ok.err);
    assertStringIncludes(ok.out, "2 passed | 0 failed");

    const start = await deno(folder, "task", "--quiet", "start");
    assertEquals([start.code, start.err], [0, ""]);
    assertStringIncludes(start.out, "padded   100\n");

    // What `check` prints to copy works here, with these permissions and no others.
    const check = await deno(folder, "task", "--quiet", "virtio", "check", "config.jsonc");
    const line = /^ {2}deno (run .*)$/m.exec(check.out)![1];
    assertEquals(line, "run --allow-read=config.jsonc,stage.ts framework/cli.ts config.jsonc");
    const run = await deno(folder, ...line.split(" "));
    assertEquals([run.code, run.err], [0, ""]);
    assertEquals(run.out.replace(/after .* ms/, ""), start.out.replace(/after .* ms/, ""));

    // A beginner's mistake: the framework by a name that nothing gives it.
    await Deno.writeTextFile(`${folder}/stage.ts`, 'import "deno-virtio";\n');
    const wrong = await deno(folder, "task", "--quiet", "virtio", "check", "config.jsonc");
    assertEquals(wrong.code, 2);
    assertStringIncludes(
      wrong.err,
      'module "./stage.ts" imports "deno-virtio", which no deno.json of its folder names; add it to "imports" there; ' +
        'the framework is "@deno-virtio/deno-virtio" in a project of init',
    );
  });
});

Deno.test("init takes an empty folder, refuses one that is not, and a file, and says what to do", async () => {
  await withFolder(async (parent) => {
    const empty = `${parent}/empty`;
    await Deno.mkdir(`${empty}/.git`, { recursive: true });
    const { code, out } = await command(["init", empty, "--json"]);
    assertEquals([code, JSON.parse(out).folder], [0, empty]);
    const { imports } = JSON.parse(await Deno.readTextFile(`${empty}/deno.json`));
    for (const door of ["", "/plugin", "/cli", "/testing", "/wire"]) {
      assertEquals((await Deno.stat(`${empty}/${imports[`@deno-virtio/deno-virtio${door}`]}`)).isFile, true);
    }

    const remedy = "name a folder that is empty, or not there yet";
    await Deno.mkdir(`${parent}/full`);
    await Deno.writeTextFile(`${parent}/full/mine.txt`, "precious");
    await Deno.writeTextFile(`${parent}/file`, "");
    for (
      const [name, problem] of [["full", 'it has "mine.txt" in it'], ["file", "it is a file"], [
        "empty",
        "in it; name a",
      ]]
    ) {
      const refused = await command(["init", `${parent}/${name}`]);
      assertEquals([refused.code, refused.out], [1, ""]);
      assertStringIncludes(refused.err, problem);
      assertStringIncludes(refused.err, remedy);
    }
    assertEquals(Array.from(Deno.readDirSync(`${parent}/full`), ({ name }) => name), ["mine.txt"]);
  });
});

Deno.test("deno task install makes a command that runs from any folder, and finds what it is made of", async () => {
  await withFolder(async (folder) => {
    const installed = await deno(projectPath(""), "task", "--quiet", "install", "--root", folder);
    assertEquals(installed.code, 0, installed.err);
    const { code, stdout, stderr } = await new Deno.Command(`${folder}/bin/deno-virtio`, {
      args: ["run", projectPath("examples/replay_capture.jsonc")],
      cwd: folder,
      env: { NO_COLOR: "1" },
    }).output();
    assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
    assertStringIncludes(new TextDecoder().decode(stdout), "nothing is left to do");
  });
});
