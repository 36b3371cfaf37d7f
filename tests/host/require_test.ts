import { assert, assertEquals } from "@std/assert";
import { decide, program } from "./support/require.ts";

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
