import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { typeInWords } from "../../cli/plugins.ts";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { command, longestLine } from "./support/command.ts";

interface Listed {
  readonly kind: string;
  readonly name: string;
  readonly summary: string;
  readonly direction?: string;
  readonly options: readonly {
    name: string;
    type: string;
    required: boolean;
    default?: unknown;
    description: string;
  }[];
}

Deno.test("plugins --json lists every built-in plugin, and of each option what it is", async () => {
  const { code, out } = await command(["plugins", "--json"]);
  assertEquals(code, 0);
  const listed = JSON.parse(out) as Listed[];
  assertEquals(listed.length, BUILT_IN_PLUGINS.length);
  for (const { kind, name } of BUILT_IN_PLUGINS) {
    assertEquals(listed.filter((one) => one.kind === kind && one.name === name).length, 1, `${kind} ${name}`);
  }
  for (const { name, summary, options } of listed) {
    assert(summary.length > 10, name);
    for (const option of options) {
      assert(option.description.length > 5, `${name}.${option.name} has no description`);
      assert(option.type !== "", `${name}.${option.name} has no type`);
      assertEquals(option.required, false, `${name}.${option.name}`);
    }
  }
  const rsc = listed.find(({ name }) => name === "rsc-v4")!;
  assertEquals([rsc.kind, rsc.direction], ["offload", "toGuest"]);
  assertEquals(rsc.options.find(({ name }) => name === "maxFlows"), {
    name: "maxFlows",
    type: "integer 1 to 65536",
    required: false,
    default: 4096,
    description: "Most flows held at once, for each queue pair; the oldest leaves early to make room",
  });
});

Deno.test("plugins prints the kinds, the names and the options within 80 columns", async () => {
  const { code, out } = await command(["plugins"]);
  assertEquals(code, 0);
  for (const heading of ["Devices", "Ways to the guest", "Ways to the network", "Offloads"]) {
    assertStringIncludes(out, heading);
  }
  assertMatch(out, /\n {4}intervalUs +number 0 to 10000000\. Longest time/);
  assertStringIncludes(out.replace(/\s+/g, " "), '"strict" or "qemu". Rule book of the device');
  assert(longestLine(out).length <= 80, longestLine(out));
});

Deno.test("plugins NAME shows the plugins of one name, of every kind", async () => {
  const { out } = await command(["plugins", "loopback", "--json"]);
  assertEquals((JSON.parse(out) as Listed[]).map(({ kind }) => kind), ["driver", "network"]);
});

Deno.test("typeInWords() describes what a schema takes", () => {
  const cases: [object, string][] = [
    [{ type: "integer", minimum: -9007199254740991, maximum: 9007199254740991 }, "integer"],
    [{ type: "integer", minimum: 0, maximum: 9007199254740991 }, "integer from 0"],
    [{ type: "number", maximum: 5 }, "number up to 5"],
    [{ enum: ["a", 1] }, '"a" or 1'],
    [{ const: true }, "true"],
    [{ anyOf: [{ type: "boolean" }, { const: "always" }] }, 'true or false or "always"'],
    [{ type: "array", items: { type: "string" } }, "list of text"],
    [{ type: "array" }, "list of anything"],
    [{ type: "object", properties: { a: {}, b: {} } }, "{ a, b }"],
    [{ type: "object" }, "object"],
    [{}, "anything"],
  ];
  for (const [schema, words] of cases) assertEquals(typeInWords(schema as Record<string, unknown>), words);
});
