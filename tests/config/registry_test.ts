import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../config/errors.ts";
import { builtIns, importProblem, type PluginKind, PluginRegistry } from "../../config/registry.ts";
import { BASE_URL, fakePlugins, fakeRegistry } from "./fakes.ts";

const FIXTURES = new URL(".", BASE_URL).href;

async function failure(use: string, kind: PluginKind = "offload"): Promise<string> {
  const error = await assertRejects(() => fakeRegistry().load(kind, use, BASE_URL, "$.x"), ConfigError);
  return error.message;
}

Deno.test("PluginRegistry.load() finds built-in plugins by kind and name", async () => {
  const registry = fakeRegistry();
  const driver = await registry.load("driver", "loopback", BASE_URL, "$");
  const network = await registry.load("network", "loopback", BASE_URL, "$");
  assertStrictEquals(driver.kind, "driver");
  assertStrictEquals(network.kind, "network");
  assertStrictEquals(registry.find("driver", "loopback", BASE_URL, "$"), driver);
});

Deno.test("PluginRegistry.builtIns() lists a kind by name", () => {
  assertEquals(fakeRegistry().builtIns("network").map((plugin) => plugin.name), ["loopback", "pcap", "tap"]);
  assertEquals(new PluginRegistry(new Map()).builtIns("network"), []);
});

Deno.test("builtIns() refuses two of a name, and what is no plugin", () => {
  assertThrows(
    () => builtIns([fakePlugins[0]!, fakePlugins[0]!]),
    TypeError,
    'Cannot use two built-in plugins of kind device named "net"',
  );
  assertThrows(
    () => builtIns([{ ...fakePlugins[0]!, api: 3 as 2 }]),
    TypeError,
    'Cannot use built-in plugin "net": it has api 3',
  );
});

Deno.test("PluginRegistry.load() suggests, lists or redirects for an unknown name", async () => {
  assertStrictEquals(await failure("rsc-v44"), '$.x: unknown offload "rsc-v44", did you mean "rsc-v4"?');
  assertStrictEquals(await failure("tap"), '$.x: "tap" is a network transport; an offload is needed here');
  assertStrictEquals(
    await failure("zzz"),
    '$.x: unknown offload "zzz"; built in are "checksum", "drop-every", "rsc-v4"; ' +
      'a module of your own is written "./name.ts"',
  );
  const module = 'a module begins with "./", "../", "/", "file:", "jsr:", "npm:" or "https:"';
  assertStrictEquals(await failure("stage.ts"), `$.x: unknown offload "stage.ts"; ${module}`);
  assertStrictEquals(await failure("a\\b"), `$.x: unknown offload "a\\\\b"; ${module}`);
  assertStrictEquals(
    await failure("http://x/y.ts"),
    '$.x: unknown offload "http://x/y.ts"; modules come by https: only',
  );
  assert((await failure("__proto__")).startsWith('$.x: unknown offload "__proto__"; '));
  assert((await failure("")).startsWith('$.x: unknown offload ""; '));
});

Deno.test("PluginRegistry.load() imports a default export, relative to the configuration", async () => {
  const plugin = await fakeRegistry().load("offload", "./good.ts", BASE_URL, "$");
  assertStrictEquals(plugin.name, "good");
  const up = await fakeRegistry().load("offload", "../fixtures/good.ts", BASE_URL, "$");
  const absolute = await fakeRegistry().load("offload", new URL("good.ts", FIXTURES).pathname, BASE_URL, "$");
  const byUrl = await fakeRegistry().load("offload", `${FIXTURES}good.ts`, BASE_URL, "$");
  for (const same of [up, absolute, byUrl]) assertStrictEquals(same, plugin);
});

Deno.test("PluginRegistry.load() takes an export named plugin where there is no default", async () => {
  assertStrictEquals((await fakeRegistry().load("offload", "./named.ts", BASE_URL, "$")).name, "good");
});

Deno.test("PluginRegistry.load() says why a module is no plugin of the wanted kind", async () => {
  const start = "$.x: the default export of";
  assertStrictEquals(
    await failure("./network.ts"),
    `${start} "./network.ts" is a network transport; an offload is needed here`,
  );
  assertStrictEquals(
    await failure("./no_default.ts"),
    '$.x: module "./no_default.ts" has no default export; export the plugin as default, it exports "stage"',
  );
  assertStrictEquals(
    await failure("./undefined.ts"),
    `${start} "./undefined.ts" is undefined; export what defineOffload() and the like return`,
  );
  assertStrictEquals(
    await failure("./undeclared.ts"),
    `${start} "./undeclared.ts" has no kind; export what defineOffload() returns`,
  );
  assertStrictEquals(
    await failure("./function.ts", "driver"),
    `${start} "./function.ts" is a function, not a plugin; export what defineDriver() returns`,
  );
  assert((await failure("./wrong_api.ts")).startsWith(`${start} "./wrong_api.ts" has api 3; `));
});

Deno.test("PluginRegistry.load() tells everything that is wrong with a plugin", async () => {
  const lines = (await failure("./many_faults.ts")).split("\n");
  const said = lines.map((line) => line.replace('$.x: the default export of "./many_faults.ts" has ', ""));
  assertEquals(said.map((line) => line.split(";")[0]), [
    'the name "Many Faults"',
    "the summary 5",
    "options of Standard Schema version 2",
    "no create",
    'the direction "sideways"',
    '"offers" [200]',
    '"needs" 7',
  ]);
});

Deno.test("PluginRegistry.load() puts failed imports into words", async () => {
  assertStrictEquals(
    await failure("./not_there.ts"),
    `$.x: module "./not_there.ts" does not exist; it was looked for at ${FIXTURES}not_there.ts`,
  );
  assertStrictEquals(
    await failure("./throws.ts"),
    '$.x: module "./throws.ts" failed while it was loaded: the cupboard is bare',
  );
  assertStrictEquals(
    await failure("./throws_null.ts"),
    '$.x: module "./throws_null.ts" failed while it was loaded: null',
  );
  assert(
    (await failure("./imports_missing.ts")).startsWith('$.x: module "./imports_missing.ts" imports "file:'),
  );
  assert(
    (await failure("./bad_import.ts")).startsWith('$.x: module "./bad_import.ts" does not fit together: '),
  );
  assert((await failure("./")).startsWith('$.x: module "./" cannot be loaded: '));
  assert((await failure("https://[")).startsWith('$.x: "https://[" is no module specifier; '));
  assert((await failure(`./${"x".repeat(3000)}`)).includes("is no module specifier"));
});

Deno.test("PluginRegistry.load() puts a syntax error into words", async () => {
  // Written here, because a file that does not parse would stop the tools that read all files.
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${directory}/broken.ts`, "export default 1 +;\n");
    const message = await failure(`${directory}/broken.ts`);
    assert(message.includes("cannot be parsed: SyntaxError"), message);
    assertStrictEquals(message.split("\n").length, 1);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("PluginRegistry.load() keeps the cause of a failed import", async () => {
  const error = await assertRejects(
    () => fakeRegistry().load("offload", "./throws.ts", BASE_URL, "$"),
    ConfigError,
  );
  assertStrictEquals((error.cause as Error).message, "the cupboard is bare");
});

Deno.test("PluginRegistry.find() answers only for what has been loaded", async () => {
  const registry = fakeRegistry();
  const error = assertThrows(() => registry.find("offload", "./good.ts", BASE_URL, "$.x"), ConfigError);
  assertStrictEquals(
    error.message,
    '$.x: module "./good.ts" has not been loaded, and it is too late for that; ' +
      'modules are loaded in advance only under the key "inner"',
  );
  const plugin = await registry.load("offload", "./good.ts", BASE_URL, "$.x");
  assertStrictEquals(registry.find("offload", "./good.ts", BASE_URL, "$.x"), plugin);
  assertThrows(() => registry.find("network", "./good.ts", BASE_URL, "$.x"), ConfigError, "is an offload");
});

Deno.test("importProblem() names the permission that is missing", () => {
  const module = new TypeError('Requires read access to "/p/x.ts", run again with the --allow-read flag');
  assertEquals(importProblem(module, "./x.ts", "file:///p/x.ts"), {
    problem: 'module "./x.ts" may not be loaded: read access to "/p/x.ts" is missing',
    remedy: "run with --allow-read=/p/x.ts",
  });
  const remote = new TypeError('Requires import access to "h:9", run again with the --allow-import flag');
  assertEquals(importProblem(remote, "https://h:9/x.ts", "https://h:9/x.ts"), {
    problem: 'module "https://h:9/x.ts" may not be loaded: import access to "h:9" is missing',
    remedy: "run with --allow-import=h:9",
  });
});

Deno.test("importProblem() gives no scope that would fall apart on a command line", () => {
  const thrown = new TypeError('Requires read access to "/a b/x.ts", run again with the --allow-read flag');
  assertEquals(importProblem(thrown, "./x.ts", "file:///a%20b/x.ts"), {
    problem: 'module "./x.ts" may not be loaded: read access to "/a b/x.ts" is missing',
    remedy: "run with --allow-read",
  });
});
