import { assert, assertEquals } from "@std/assert";
import { decide, hostTest, linux, program } from "../../rigs/require.ts";

Deno.test("a test whose needs are met runs, wherever that is", () => {
  assertEquals([decide(null, undefined), decide(null, "true")], ["run", "run"]);
});

Deno.test("a test that lacks something is skipped, but fails where CI is true", () => {
  assertEquals(decide("root", undefined), "skip");
  assertEquals(decide("root", "false"), "skip");
  assertEquals(decide("root", "true"), "fail");
});

Deno.test("program() tells what is there from what is missing, and where to get it", () => {
  assertEquals(program("sh", "dash")(), null);
  assertEquals(program("no-such-program", "a package")(), "no-such-program is missing: install a package");
  assert(program("a b", "x")() !== null);
});

hostTest(
  "program() tells a program whose libraries are not there yet",
  [linux, program("ldd", "libc-bin")],
  () => {
    const folder = Deno.makeTempDirSync();
    const path = `${folder}/half-installed`;
    try {
      // Some program that is linked with the C library, made to ask for another.
      const bytes = Deno.readFileSync("/bin/sh");
      const text = new TextDecoder("latin1").decode(bytes);
      bytes.set(new TextEncoder().encode("libq.so.6"), text.indexOf("libc.so.6\0"));
      Deno.writeFileSync(path, bytes, { mode: 0o755 });
      assertEquals(
        program(path, "a package")(),
        `${path} lacks libraries, or is being installed: install a package`,
      );
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  },
);
