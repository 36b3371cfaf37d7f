import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { GuestError } from "../../rings/guest_error.ts";
import { HostError } from "../../core/errors.ts";
import { PluginError } from "../../plugins/contract.ts";

Deno.test("GuestError carries the rule that was broken, and begins its message with it", () => {
  const error = new GuestError("descriptor-loop", "A chain of 9 descriptors in a ring of 8");
  assert(error instanceof Error);
  assertEquals(error.name, "GuestError");
  assertEquals(error.fault, "descriptor-loop");
  assertEquals(error.message, "descriptor-loop: A chain of 9 descriptors in a ring of 8");
});

Deno.test("HostError is an error of its own name", () => {
  const cause = new Error("EPERM");
  const error = new HostError("Cannot open /dev/net/tun: run as root", { cause });
  assertEquals(error.name, "HostError");
  assertStrictEquals(error.cause, cause);
});

Deno.test("PluginError says which plugin threw, where, and what", () => {
  const cause = new TypeError("x is not a function");
  const error = new PluginError("drop-every", "process", cause);
  assertEquals([error.name, error.plugin, error.hook], ["PluginError", "drop-every", "process"]);
  assertEquals(error.message, 'plugin "drop-every" failed in process: x is not a function');
  assertStrictEquals(error.cause, cause);
});

Deno.test("PluginError tells of thrown things that are no errors", () => {
  assertEquals(new PluginError("odd", "create", 42).message, 'plugin "odd" failed in create: 42');
  assertEquals(
    new PluginError("odd", "create", undefined).message,
    'plugin "odd" failed in create: undefined',
  );
});
