import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import fc from "fast-check";
import { Ajv, type AnySchema, type ValidateFunction } from "npm:ajv@^8.20.0";
import { Ajv2020 } from "npm:ajv@^8.20.0/dist/2020.js";
import * as v from "npm:valibot@^1";
import { z } from "zod";
import { ConfigError } from "../../config/errors.ts";
import { configJsonSchema, configJsonSchemaText } from "../../config/json_schema.ts";
import type { JsonSchema } from "../../config/option_schema.ts";
import { SPECIFIER_PATTERN } from "../../config/registry.ts";
import { resolveConfig } from "../../config/resolve.ts";
import { defineOffload } from "../../pipeline/plugin.ts";
import type { OptionsSchema, Plugin } from "../../plugins/plugin.ts";
import { BASE_URL, device, fakePlugins, fakeRegistry } from "./fakes.ts";

function offload(name: string, options: OptionsSchema<unknown>): Plugin {
  return defineOffload({
    name,
    direction: "both",
    options,
    create() {
      throw new Error("not in these tests");
    },
  });
}

const recursive: z.ZodType = z.strictObject({
  leaf: z.int().optional(),
  get tree() {
    return z.array(recursive).optional();
  },
}).meta({ id: "node" });

/** Schemas of every shape that JSON Schema makes trouble with. */
const shapes = [
  offload("plain", z.object({ a: z.int().optional() })),
  offload("loose", z.looseObject({ a: z.int() })),
  offload(
    "choice",
    z.discriminatedUnion("mode", [
      z.strictObject({ mode: z.literal("fixed"), us: z.number() }),
      z.strictObject({ mode: z.literal("auto") }),
    ]),
  ),
  offload("recursive", recursive),
  offload("flags", z.strictObject({ mac: z.string().regex(/^[a-f]+$/i).optional() })),
  offload("both", z.intersection(z.looseObject({ a: z.int() }), z.looseObject({ b: z.int() }))),
  offload(
    "transform",
    z.strictObject({ t: z.string().transform(Number).optional(), d: z.date().optional() }),
  ),
  offload("valibot", v.strictObject({ a: v.optional(v.number()) })),
];
const registry = fakeRegistry(...shapes);

function compiled(): ValidateFunction[] {
  const schema = configJsonSchema(registry);
  const { $schema: _dialect, ...older } = structuredClone(schema);
  return [
    new Ajv2020({ strict: true, strictTypes: false, strictRequired: false }).compile(schema as AnySchema),
    // What an editor does that knows no newer draft.
    new Ajv({ strict: true, strictTypes: false, strictRequired: false }).compile(older as AnySchema),
  ];
}

const validators = compiled();

async function loads(config: unknown): Promise<boolean> {
  try {
    await resolveConfig(config, BASE_URL, registry);
    return true;
  } catch (error) {
    if (error instanceof ConfigError) return false;
    throw error;
  }
}

/** Loader and schema must say the same. */
async function agree(config: unknown, expected: boolean): Promise<void> {
  const text = JSON.stringify(config);
  assertStrictEquals(await loads(config), expected, `loader: ${text}`);
  for (const validate of validators) {
    assertStrictEquals(validate(config), expected, `schema: ${text} ${JSON.stringify(validate.errors?.[0])}`);
  }
}

const withOffload = (one: unknown) => ({ devices: [device({ offloads: [one] })] });

Deno.test("configJsonSchema() accepts what the loader accepts", async () => {
  const good: unknown[] = [
    { devices: [device()] },
    { $schema: "./x.json", name: "a", clock: "virtual", frameMemoryMiB: 1, devices: [device({ name: "x" })] },
    { devices: [{ use: "entropy", driver: { use: "vhost-user", socket: "s" } }] },
    { devices: [device({ mac: "AA:bb:cc:00:11:22", rules: "qemu" })] },
    { devices: [device({ network: { use: "pcap", inner: { use: "pcap", inner: "loopback" } } })] },
    ...[
      "checksum",
      { use: "checksum", enabled: false },
      { use: "rsc-v4", limit: { segments: 3 }, ports: [1, 2], chunk: 8, intervalUs: 0.5 },
      { use: "rsc-v4", limit: "none" },
      "./good.ts",
      { use: "./good.ts", nth: 5 },
      "plain",
      { use: "loose", a: 1, more: [] },
      { use: "choice", mode: "fixed", us: 2 },
      { use: "choice", mode: "auto", enabled: true },
      { use: "recursive", tree: [{ leaf: 1, tree: [] }] },
      { use: "flags", mac: "ABC" },
      { use: "both", a: 1, b: 2 },
      { use: "transform", t: "5" },
      { use: "valibot", a: 1 },
      "valibot",
    ].map(withOffload),
  ];
  for (const config of good) await agree(config, true);
});

Deno.test("configJsonSchema() refuses what the loader refuses", async () => {
  const bad: unknown[] = [
    {},
    [],
    null,
    { devices: [] },
    { devices: {} },
    { devices: ["net"] },
    { devices: [device()], clok: 1 },
    { devices: [device()], clock: "sundial" },
    { devices: [device()], frameMemoryMiB: 4097 },
    { devices: [device()], name: "A" },
    { devices: [{ use: "net" }] },
    { devices: [{ driver: "loopback" }] },
    { devices: [device({ name: "no name" })] },
    { devices: [device({ mac: 5 })] },
    { devices: [device({ netwrk: "loopback" })] },
    { devices: [device({ driver: "vhost-user" })] },
    { devices: [device({ driver: "tap" })] },
    { devices: [device({ network: null })] },
    { devices: [device({ network: { use: "tap", interface: "t", inner: "loopback" } })] },
    { devices: [device({ network: { use: "pcap", inner: "lopback" } })] },
    { devices: [device({ network: { use: "pcap", inner: { use: "tap" } } })] },
    { devices: [device({ offloads: Array(65).fill("checksum") })] },
    ...[
      5,
      "rsc-v5",
      "foo.ts",
      "http://x/y.ts",
      { nth: 1 },
      { use: "checksum", enbled: false },
      { use: "checksum", enabled: "no" },
      { use: "./good.ts", enabled: "no" },
      { use: "drop-every", nth: 1 },
      { use: "rsc-v4", limit: { segments: 1 } },
      { use: "rsc-v4", chunk: 6 },
      { use: "plain", b: 1 },
      "loose",
      { use: "loose", a: "x" },
      "choice",
      { use: "choice", mode: "auto", us: 1 },
      { use: "choice", mode: "fixed", us: 1, more: 1 },
      { use: "recursive", tree: [{ leaf: "x" }] },
      { use: "recursive", tree: [{ laef: 1 }] },
      { use: "transform", t: 5 },
    ].map(withOffload),
  ];
  for (const config of bad) await agree(config, false);
});

Deno.test("configJsonSchema() agrees with the loader on configurations with one random change", async () => {
  const base = {
    clock: "system",
    frameMemoryMiB: 64,
    devices: [{
      use: "net",
      queuePairs: 2,
      driver: { use: "loopback", ring: "packed" },
      network: { use: "tap", interface: "t" },
      offloads: ["checksum", { use: "drop-every", nth: 3, enabled: true }],
    }],
  };
  const places: (string | number)[][] = [["devices"], ["devices", 0, "offloads"]];
  const walk = (value: unknown, path: (string | number)[]): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [key, member] of Object.entries(value)) {
      const step = Array.isArray(value) ? Number(key) : key;
      places.push([...path, step], [...path, `${key}x`]);
      walk(member, [...path, step]);
    }
  };
  walk(base, []);
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(
      "checksum",
      "tap",
      "loopback",
      "net",
      "virtual",
      "packed",
      0,
      1,
      2,
      8,
      9,
      64,
      [],
      {},
      true,
    ),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...places), value, async (path, changed) => {
      const config = structuredClone(base) as unknown;
      const parent = path.slice(0, -1).reduce((at, key) => (at as Record<string, unknown>)[key], config);
      if (Array.isArray(parent) && typeof path.at(-1) === "string") return;
      (parent as Record<string, unknown>)[path.at(-1)!] = structuredClone(changed);
      // Such keys the loader refuses for its own safety; no schema can say so.
      if (JSON.stringify(config).includes("__proto__")) return;
      // Whether a module is there, no schema knows either; one character, such as "/", makes a specifier.
      if (new RegExp(`"${SPECIFIER_PATTERN.slice(1)}`).test(JSON.stringify(config))) return;
      await agree(config, await loads(config));
    }),
    { numRuns: 400 },
  );
});

Deno.test("configJsonSchema() describes every key of ours and shows defaults", () => {
  const schema = configJsonSchema(registry);
  const definitions = schema.$defs as Record<string, JsonSchema>;
  const ours = [
    schema,
    definitions["device.entropy"]!,
    definitions["device.module"]!,
    definitions["offload.module"]!,
  ];
  for (const one of ours) {
    for (const [key, member] of Object.entries(one.properties as Record<string, JsonSchema>)) {
      if (key !== "use") assertStrictEquals(typeof member.description, "string", key);
    }
  }
  const { clock, frameMemoryMiB, name } = schema.properties as Record<string, JsonSchema>;
  assertEquals([clock!.default, frameMemoryMiB!.default, name!.default], ["system", 128, "machine"]);
  const rsc = definitions["offload.rsc-v4"]!;
  assertStrictEquals(rsc.description, "Joins TCP segments");
  assertEquals(Object.keys(rsc.properties as object), [
    "use",
    "enabled",
    "intervalUs",
    "ports",
    "limit",
    "chunk",
  ]);
});

Deno.test("configJsonSchemaText() is the same whatever the order of the plugins", () => {
  const text = configJsonSchemaText(fakeRegistry());
  assertStrictEquals(configJsonSchemaText(fakeRegistry()), text);
  const names = Object.keys(JSON.parse(text).$defs);
  assertEquals(names.filter((name) => name.startsWith("offload")), [
    "offload.checksum",
    "offload.drop-every",
    "offload.rsc-v4",
    "offload.module",
    "offload",
  ]);
  assert(text.startsWith('{\n  "$schema": "https://json-schema.org/draft/2020-12/schema",\n'));
  assert(text.endsWith("}\n"));
  assert(fakePlugins.every((plugin) => names.includes(`${plugin.kind}.${plugin.name}`)));
});

Deno.test("configJsonSchema() leaves no reference without a target", () => {
  const schema = configJsonSchema(registry);
  const names = Object.keys(schema.$defs as object);
  const found = [...JSON.stringify(schema).matchAll(/"\$ref":"([^"]*)"/g)].map((match) => match[1]!);
  assert(found.length > 20);
  for (const one of found) assert(names.includes(one.replace("#/$defs/", "")), one);
});
