import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { checkFolder, findUml } from "../../cli/guest/uml.ts";
import { HostError } from "../../core/errors.ts";
import { command, projectPath, withFolder } from "./support/command.ts";

/**
 * The command `guest` up to its guest; with one in `tests/peers/uml_test.ts`.
 */

const isRight = Deno.build.os === "linux" && Deno.build.arch === "x86_64";

Deno.test("guest refuses what it cannot use, with the remedy", async () => {
  const json = await command(["guest", "--json"]);
  assertEquals([json.code, json.out], [2, ""]);
  assertStringIncludes(json.err, "--json needs --run");
  const memory = await command(["guest", "--memory-mib", "8"]);
  assertEquals(memory.code, 2);
  assertStringIncludes(memory.err, "from 64 to 4096");
  const none = await command(["guest", projectPath("examples/loopback_echo.jsonc")]);
  assertEquals([none.code, none.out], [1, ""]);
  assertStringIncludes(none.err, 'has no device for a guest: write "driver": { "use": "vhost-user"');
});

Deno.test({
  name: "findUml() takes the packages from the folder that is named, and no busybox that needs libraries",
  ignore: !isRight,
  fn: () =>
    withFolder(async (folder) => {
      await Deno.mkdir(`${folder}/usr/bin`, { recursive: true });
      await Deno.writeTextFile(`${folder}/usr/bin/linux.uml`, "");
      await Deno.copyFile("/bin/sh", `${folder}/usr/bin/busybox`);
      const error = assertThrows(() => findUml(folder), HostError);
      assertStringIncludes(error.message, "busybox needs libraries");
      assertStringIncludes(error.message, "apt-get install user-mode-linux busybox-static");
    }),
});

Deno.test("checkFolder() refuses what a kernel's command line cannot hold", () => {
  checkFolder("/tmp/deno-virtio-uml-0");
  for (const folder of ["/tmp/a b", '/tmp/"', "/tmp/a:b", "/tmp/a,b", `/tmp/${"x".repeat(100)}`]) {
    assertThrows(() => checkFolder(folder), HostError, "set TMPDIR");
  }
});
