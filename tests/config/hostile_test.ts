import { assert } from "@std/assert";
import fc from "fast-check";
import { cpuUsage } from "node:process";
import { ConfigError } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import { resolveConfig } from "../../config/resolve.ts";
import { BASE_URL, fakeRegistry } from "./fakes.ts";

const registry = fakeRegistry();

/** Whatever is given: a frozen configuration or a ConfigError with at least one issue, and nothing else. */
async function isHandled(attempt: Promise<unknown>): Promise<void> {
  try {
    assert(Object.isFrozen(await attempt));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    assert(error.issues.length > 0);
    assert(error.message.length < 100_000);
  }
}

const word = fc.oneof(
  fc.constantFrom(
    ...[
      "devices",
      "use",
      "driver",
      "network",
      "offloads",
      "inner",
      "name",
      "enabled",
      "clock",
      "nth",
      "limit",
    ],
    ...["net", "tap", "pcap", "loopback", "rsc-v4", "checksum", "./good.ts", "./network.ts", "./throws.ts"],
    ...["__proto__", "constructor", "toString", "hasOwnProperty", "then", "~standard", "_zod", "length", ""],
  ),
  fc.string({ unit: "binary", maxLength: 6 }),
);

/** Values made of words that mean something, so that they get far. */
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 6, withCrossShrink: true },
    word,
    fc.constantFrom(null, true, false, 0, -1, 1e308, 2.5),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(word, tie("value"), { maxKeys: 4 }),
    fc.record({ use: word, driver: tie("value"), network: tie("value"), offloads: tie("value") }, {
      requiredKeys: [],
    }),
  ),
}));

Deno.test("parseConfig() gives nothing but a configuration or a ConfigError for any JSON value", async () => {
  await fc.assert(
    fc.asyncProperty(value, async (config) => {
      await isHandled(parseConfig(JSON.stringify(config), BASE_URL, registry));
    }),
    { numRuns: 300 },
  );
});

Deno.test("parseConfig() gives nothing but a configuration or a ConfigError for any device", async () => {
  await fc.assert(
    fc.asyncProperty(value, value, value, word, value, async (driver, network, offload, key, option) => {
      const device = {
        use: "net",
        driver,
        network,
        offloads: [offload, { use: "rsc-v4", [key]: option }],
        [key]: option,
      };
      await isHandled(parseConfig(JSON.stringify({ devices: [device] }), BASE_URL, registry));
    }),
    { numRuns: 300 },
  );
});

Deno.test("resolveConfig() gives nothing but a configuration or a ConfigError for any value at all", async () => {
  const anything = fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withTypedArray: true,
    withNullPrototype: true,
    withSparseArray: true,
  });
  await fc.assert(
    fc.asyncProperty(anything, async (config) => {
      await isHandled(resolveConfig(config, BASE_URL, registry));
      await isHandled(resolveConfig({ devices: [config] }, BASE_URL, registry));
      await isHandled(resolveConfig({ devices: [{ use: "net", driver: config }] }, BASE_URL, registry));
    }),
    { numRuns: 200 },
  );
});

Deno.test("ResolvedConfig.resolvePart() gives nothing but a part or a ConfigError for any value", async () => {
  const text = JSON.stringify({ devices: [{ use: "net", driver: "loopback" }] });
  const config = await parseConfig(text, BASE_URL, registry);
  const kind = fc.constantFrom("device" as const, "driver" as const, "network" as const, "offload" as const);
  fc.assert(
    fc.property(kind, value, (wanted, written) => {
      try {
        assert(Object.isFrozen(config.resolvePart(wanted, written, "$.x")));
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
      }
    }),
    { numRuns: 300 },
  );
});

Deno.test("parseConfig() stays quick for a megabyte of mistakes", async () => {
  // Processor time: other programs of this machine take nothing of it.
  const start = cpuUsage();
  const many = (item: string) => Array(Math.floor(900_000 / (item.length + 1))).fill(item).join();
  const keys = Array.from({ length: 60_000 }, (_, i) => `"key${i}":0`).join();
  const device = '"use":"net","driver":"loopback"';
  const texts = [
    `{"devices":[${many("7")}]}`,
    `{"devices":[{${device},${keys}}]}`,
    `{"devices":[{${device},"offloads":[${many('"x"')}]}]}`,
    `{"devices":[{${device},"offloads":[{"use":"rsc-v4","ports":[${many('"x"')}]}]}]}`,
    `{"devices":[{${device},"network":{"use":"pcap","inner":[${many("0")}]}}]}`,
    `{${many('"a":1')}}`,
    `[${many("[]")}`,
  ];
  for (const text of texts) await isHandled(parseConfig(text, BASE_URL, registry));
  const { user, system } = cpuUsage(start);
  const tookMs = (user + system) / 1000;
  assert(tookMs < 15_000, `took ${Math.round(tookMs)} ms`);
});
