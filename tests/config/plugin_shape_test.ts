import { assertEquals, assertStrictEquals } from "@std/assert";
import { pluginFaults, type PluginKind } from "../../config/registry.ts";
import { fakePlugins } from "./fakes.ts";

const schema = { "~standard": { version: 1, vendor: "hand", validate: (value: unknown) => ({ value }) } };
const offload = {
  kind: "offload",
  api: 2,
  name: "x",
  direction: "both",
  options: schema,
  create: () => null,
};
const device = { kind: "device", api: 2, name: "x", options: schema, create: () => null };

function fault(keys: Record<string, unknown>, kind: PluginKind = "offload"): string {
  const faults = pluginFaults({ ...(kind === "device" ? device : offload), ...keys }, kind);
  assertStrictEquals(faults.length, 1, faults.join("\n"));
  return faults[0]!;
}

Deno.test("pluginFaults() finds nothing wrong with a plugin", () => {
  for (const plugin of fakePlugins) assertEquals(pluginFaults(plugin, plugin.kind), []);
  assertEquals(pluginFaults(offload, "offload"), []);
  assertEquals(pluginFaults({ ...offload, offers: [0, 127], needs: [], summary: "s" }, "offload"), []);
  assertEquals(pluginFaults({ ...offload, offers: () => [] }, "offload"), []);
  assertEquals(pluginFaults({ ...offload, renamedOptions: { old: "new" } }, "offload"), []);
  assertEquals(pluginFaults({ ...device, facts: () => null }, "device"), []);
});

Deno.test("pluginFaults() takes a schema that is a function", () => {
  assertEquals(pluginFaults({ ...offload, options: Object.assign(() => 1, schema) }, "offload"), []);
});

Deno.test("pluginFaults() says what a value is that is no plugin", () => {
  const remedy = "not a plugin; export what defineOffload() returns";
  assertEquals(pluginFaults(() => 1, "offload"), [`is a function, ${remedy}`]);
  assertEquals(pluginFaults(null, "offload"), [`is null, ${remedy}`]);
  assertEquals(pluginFaults("x", "network"), ['is "x", not a plugin; export what defineNetwork() returns']);
  for (const inherits of ["rules", [1], null]) {
    assertStrictEquals(fault({ inherits }).endsWith("it must be a list of names of options"), true);
  }
  for (const renamedOptions of [null, 5, "x", { old: 1 }]) {
    assertStrictEquals(fault({ renamedOptions }).endsWith("it must name each old key's new name"), true);
  }
  assertStrictEquals(fault({ kind: undefined }), "has no kind; export what defineOffload() returns");
  assertStrictEquals(fault({ kind: "filter" }), 'has the kind "filter"; an offload is needed here');
  assertStrictEquals(fault({ kind: "driver" }), "is a driver transport; an offload is needed here");
});

Deno.test("pluginFaults() refuses another version of the contract", () => {
  assertStrictEquals(
    fault({ api: 1 }),
    'has api 1; this program speaks api 2, so change what "Contracts" in CHANGELOG.md names, ' +
      "and export what defineOffload() of this version returns",
  );
  assertStrictEquals(
    fault({ api: 3 }),
    "has api 3; this program speaks api 2, so use a version of the plugin made for it",
  );
  assertStrictEquals(fault({ api: undefined }).split(";")[0], "has api nothing");
});

Deno.test("pluginFaults() looks at every member", () => {
  for (const name of ["Big", "", "-a", "a--b", "1a", 5, undefined, "a".repeat(41), "a b", "net0.x"]) {
    assertStrictEquals(fault({ name }).startsWith("has the name "), true, String(name));
  }
  assertStrictEquals(fault({ summary: 1 }), "has the summary 1; it must be text");
  assertStrictEquals(fault({ create: undefined }), "has no create; it must be a function");
  assertStrictEquals(fault({ create: 1 }), "has a wrong create; it must be a function");
  assertStrictEquals(fault({ direction: "up" }).split(";")[0], 'has the direction "up"');
  assertStrictEquals(fault({ direction: undefined }).split(";")[0], "has the direction nothing");
  for (const bits of [[128], [-1], [1.5], ["1"], 3, null]) {
    assertStrictEquals(fault({ offers: bits }).split(";")[1], " it must be a list of feature bits, 0 to 127");
    assertStrictEquals(fault({ needs: bits }).split(";")[1], " it must be a list of feature bits, 0 to 127");
  }
  assertStrictEquals(fault({ needs: () => [] }).split(";")[0], 'has "needs" a function');
  assertStrictEquals(fault({ facts: 1 }, "device").split(";")[0], "has the facts 1");
  for (const frontEnd of [1, {}, { type: "N" }]) {
    assertStrictEquals(fault({ frontEnd }, "device").split(" {")[0].split(" 1")[0], "has the frontEnd");
  }
  assertStrictEquals(
    fault({ frontEnd: { type: "net", frontEnds: "qemu" } }, "device").split(' "')[0],
    "has the frontEnds",
  );
  assertStrictEquals(
    fault({ frontEnd: { type: "net", filters: { qemu: { agreed: 5 } } } }, "device").split(" {")[0],
    "has in its frontEnd the filters",
  );
  assertStrictEquals(
    fault({ frontEnd: { type: "net", qemu: 1 } }, "device").split(";")[0],
    "has in its frontEnd the qemu 1",
  );
});

Deno.test("pluginFaults() looks into the schema of the options", () => {
  const before = (options: unknown) => fault({ options }).split(";")[0];
  assertStrictEquals(before(undefined), "has no options");
  assertStrictEquals(before(null), "has the options null");
  assertStrictEquals(before("x"), 'has the options "x"');
  assertStrictEquals(before({}), 'has options without "~standard"');
  assertStrictEquals(before({ "~standard": { version: 2 } }), "has options of Standard Schema version 2");
  assertStrictEquals(before({ "~standard": { version: 1 } }), "has options without a validate function");
});
