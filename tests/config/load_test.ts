import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { pathToFileURL } from "node:url";
import { newRegistry } from "../../config/builtins.ts";
import { ConfigError } from "../../config/errors.ts";
import { ConfigSource } from "../../config/jsonc.ts";
import { loadConfig, parseConfig } from "../../config/load.ts";
import { device, fakeRegistry } from "./fakes.ts";
import { partsOfKind } from "../../plugins/plugin.ts";

const GOOD = JSON.stringify({ name: "m", devices: [device()] });

async function inDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "a b%#" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function failure(pathOrUrl: string | URL): Promise<string> {
  return (await assertRejects(() => loadConfig(pathOrUrl, fakeRegistry()), ConfigError)).message;
}

Deno.test("loadConfig() takes a path, a file: URL and its text", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/net.json`;
    const url = pathToFileURL(path);
    await Deno.writeTextFile(path, `\ufeff// comment\n${GOOD}`);
    for (const one of [path, url, url.href]) {
      const config = await loadConfig(one, fakeRegistry());
      assertStrictEquals(config.baseUrl, url.href);
      assertStrictEquals(config.name, "m");
    }
  });
});

Deno.test("loadConfig() resolves a module against the file", async () => {
  await inDirectory(async (directory) => {
    const stage = new URL("fixtures/good.ts", import.meta.url).href;
    await Deno.writeTextFile(`${directory}/stage.ts`, `export { default } from ${JSON.stringify(stage)};\n`);
    const config = { devices: [device({ offloads: ["./stage.ts"] })] };
    await Deno.writeTextFile(`${directory}/net.json`, JSON.stringify(config));
    const resolved = await loadConfig(`${directory}/net.json`, fakeRegistry());
    assertStrictEquals(partsOfKind(resolved.devices[0]!, "offload")[0]!.plugin.name, "good");
  });
});

Deno.test("loadConfig() says what to do about a file that cannot be read", async () => {
  await inDirectory(async (directory) => {
    const path = `${directory}/none.json`;
    assertStrictEquals(
      await failure(path),
      `${path}: no such file; it was looked for at ${pathToFileURL(path)}`,
    );
    assertStrictEquals(
      await failure(directory),
      `${directory}: is a directory; name a file in it, such as "config.json"`,
    );
    await Deno.writeFile(path, new Uint8Array([0x7b, 0xff]));
    assertStrictEquals(await failure(path), `${path}: is not UTF-8; save it as UTF-8 text`);
    await Deno.writeTextFile(path, GOOD + " ".repeat(2 ** 20));
    assertStrictEquals(await failure(path), `${path}: is longer than 1 MiB`);
    await Deno.writeTextFile(path, GOOD + " ".repeat(2 ** 20 - GOOD.length));
    assertStrictEquals((await loadConfig(path, fakeRegistry())).name, "m");
  });
});

Deno.test("loadConfig() refuses a file without end", async () => {
  assertStrictEquals(await failure("/dev/zero"), "/dev/zero: is longer than 1 MiB");
});

Deno.test("loadConfig() refuses URLs that are no files here", async () => {
  const remedy = "is not the URL of a file here; give a path or a file: URL; fetch what lies elsewhere first";
  for (const url of ["https://x/y.json", "file://host/y.json", "data:,{}", "file:///%zz%"]) {
    const message = await failure(url);
    if (url.startsWith("file:///")) assert(message.startsWith(`${url}: `), message);
    else assertStrictEquals(message, `${url}: ${remedy}`);
  }
});

Deno.test("loadConfig() names the permission for the file, then the one for the module", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/net.json`;
    const stage = `${directory}/stage.ts`;
    await Deno.writeTextFile(path, JSON.stringify({ devices: [device({ offloads: ["./stage.ts"] })] }));
    await Deno.writeTextFile(stage, "throw 1;\n");
    const script = new URL("fixtures/run_load.ts", import.meta.url).pathname;
    const run = async (...permissions: string[]): Promise<string> => {
      const args = ["run", "--no-prompt", "--no-check", ...permissions, script, path];
      const { stdout } = await new Deno.Command(Deno.execPath(), { args, env: { NO_COLOR: "1" } }).output();
      return new TextDecoder().decode(stdout).trim();
    };
    assertStrictEquals(
      await run(),
      `ConfigError: ${path}: Deno may not read this file; run with --allow-read=${path}`,
    );
    assertStrictEquals(
      await run(`--allow-read=${path}`),
      `ConfigError: ${path}:1:79: $.devices[0].offloads[0]: module "./stage.ts" may not be loaded: ` +
        `read access to "${stage}" is missing; run with --allow-read=${stage}`,
    );
    assertStrictEquals(
      await run(`--allow-read=${directory}`),
      `ConfigError: ${path}:1:79: $.devices[0].offloads[0]: module "./stage.ts" failed while it was loaded: 1`,
    );
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("parseConfig() reads text as if it were in a file", async () => {
  const config = await parseConfig(GOOD, new URL("file:///somewhere/net.json"), fakeRegistry());
  assertEquals([config.name, config.baseUrl], ["m", "file:///somewhere/net.json"]);
  const error = await assertRejects(() => parseConfig("{", "file:///x", fakeRegistry()), ConfigError);
  assertStrictEquals(error.message.split("\n")[0], 'x:1:2: a "}" is missing here');
  const { file, line, column } = error.issues[0]!;
  assertEquals({ file, line, column }, { file: "x", line: 1, column: 2 });
  const base = await assertRejects(() => parseConfig(GOOD, "nowhere", fakeRegistry()), ConfigError);
  assertStrictEquals(base.message, '$: the base URL "nowhere" is no URL; give one such as "file:///dir/"');
});

Deno.test("parseConfig() says where in the text each mistake stands: value, key, or what lacks a key", async () => {
  const text = `{
  // a comment
  "devices": [{
    "use": "net",
    "mac": "52:54:00",
    "drivr": 1,
    "driver": { "use": "loopback", "rings": "split" },
    "offloads": ["rsc-v4", { "use": "rsc-v5" }]
  }, { "use": "net", "options": { "two words": [1, { "x": 2 }] } }]
}`;
  const error = await assertRejects(
    () => parseConfig(text, "file:///d/net.jsonc", fakeRegistry(), "d/net.jsonc"),
    ConfigError,
  );
  const places = error.issues.map(({ file, line, column, path }) => `${file}:${line}:${column} ${path}`);
  assertEquals(places, [
    "d/net.jsonc:5:12 $.devices[0].mac",
    "d/net.jsonc:6:5 $.devices[0].drivr",
    "d/net.jsonc:7:36 $.devices[0].driver.rings",
    "d/net.jsonc:8:30 $.devices[0].offloads[1].use",
    "d/net.jsonc:9:22 $.devices[1].options",
    "d/net.jsonc:9:6 $.devices[1].driver",
  ]);
  assertEquals(
    error.message.split("\n")[0]!.startsWith('d/net.jsonc:5:12: $.devices[0].mac: "52:54:00" is'),
    true,
  );
});

Deno.test("a configuration knows where its parts stand, also behind a byte order mark and odd keys", async () => {
  const { source } = await parseConfig(`\ufeff${GOOD}`, "file:///d/net.jsonc", fakeRegistry());
  assertStrictEquals(source!.placeOf("$"), "net.jsonc:1:1");
  const odd = new ConfigSource("o.json", '{"a b": {"c\\"]": [1,\n 2]}, "a": {}}');
  assertStrictEquals(odd.placeOf('$["a b"]["c\\"]"][1]'), "o.json:2:2");
  assertStrictEquals(odd.placeOf('$["a b"]["c\\"]"][1].x[7]'), "o.json:2:2");
  assertStrictEquals(odd.placeOf("$.a.b"), "o.json:2:12");
  assertStrictEquals(odd.placeOf("$.z"), "o.json:1:1");
});

Deno.test("parseConfig() says that a network is missing, together with all else", async () => {
  const text = '{\n "devices": [\n  { "use": "net", "driver": "loopback", "mac": 1 }\n ]\n}';
  const error = await assertRejects(() => parseConfig(text, "file:///n.json", newRegistry()), ConfigError);
  assertEquals(error.message.split("\n").map((line) => line.split(";")[0]), [
    "n.json:3:48: $.devices[0].mac: 1 is not what belongs here",
    "n.json:3:3: $.devices[0].network: missing",
  ]);
});
