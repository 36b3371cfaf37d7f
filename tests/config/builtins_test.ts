import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { BUILT_IN_PLUGINS, newRegistry } from "../../config/builtins.ts";
import { describeIssue } from "../../config/errors.ts";
import { checkOptions } from "../../config/options.ts";
import { pluginFaults } from "../../config/registry.ts";

Deno.test("every built-in plugin has the shape that plugins of others must have", () => {
  for (const plugin of BUILT_IN_PLUGINS) {
    assertEquals(pluginFaults(plugin, plugin.kind), [], plugin.name);
    assert(plugin.summary !== undefined && plugin.summary.length > 10, `${plugin.name} has no summary`);
  }
});

Deno.test("no two built-in plugins of a kind have the same name", () => {
  const names = BUILT_IN_PLUGINS.map(({ kind, name }) => `${kind} ${name}`);
  assertEquals(new Set(names).size, names.length);
});

Deno.test("newRegistry() finds every built-in plugin by its name, without waiting", () => {
  const registry = newRegistry();
  for (const plugin of BUILT_IN_PLUGINS) {
    assertStrictEquals(registry.find(plugin.kind, plugin.name, "file:///config.json", "$"), plugin);
  }
});

Deno.test("the built-in plugins are enough for the machines of the manual", () => {
  const kinds = (kind: string) =>
    BUILT_IN_PLUGINS.filter((plugin) => plugin.kind === kind).map(({ name }) => name);
  const has = (kind: string, ...names: string[]) => names.every((name) => kinds(kind).includes(name));
  assert(has("device", "net"));
  assert(has("driver", "loopback"));
  assert(has("network", "loopback", "pcap"));
  assert(has("offload", "rsc-v4", "rsc-v6", "checksum"));
});

Deno.test("the options of every built-in plugin but those that need to be told something have defaults", async () => {
  const needy: string[] = [];
  for (const { name, kind, options } of BUILT_IN_PLUGINS) {
    const result = await options["~standard"].validate({});
    if (result.issues !== undefined) needy.push(`${kind} ${name}`);
  }
  for (
    const free of ["device net", "driver loopback", "network loopback", "offload rsc-v4", "offload checksum"]
  ) {
    assertEquals(needy.includes(free), false, free);
  }
  assert(needy.includes("network pcap"), "a capture needs a file");
});

Deno.test("an option key of an earlier version is an error that tells the present name", async () => {
  const renamed = {
    "rsc-v4": ["mostFlows", "mostSegments"],
    "rsc-v6": ["mostFlows", "mostSegments"],
    segment: ["mostSegments"],
  };
  for (const [name, keys] of Object.entries(renamed)) {
    const { options, renamedOptions } = newRegistry().builtIns("offload").find((one) => one.name === name)!;
    const written = Object.fromEntries(keys.map((key) => [key, 2]));
    const result = await checkOptions(options, written, "$.o", { renamed: renamedOptions });
    const lines = result.ok ? [] : result.issues.map(describeIssue);
    assertEquals(
      lines,
      keys.map((key) => `$.o.${key}: has another name now; write "${key.replace("most", "max")}"`),
    );
  }
});
