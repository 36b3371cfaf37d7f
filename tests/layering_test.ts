import { assert, assertEquals } from "@std/assert";
import { BUILT_IN_PLUGINS } from "../config/builtins.ts";
import { dirname, join, normalize } from "node:path/posix";

/** Which rooms a room may import, itself aside. What is not named here is not allowed. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  kernels: [],
  rings: ["kernels"],
  core: ["rings"],
  plugins: ["rings", "core"],
  wire: [],
  host: ["rings", "core"],
  pipeline: ["rings", "core", "plugins", "wire"],
  guest: ["rings", "core", "plugins"],
  devices: ["rings", "core", "plugins", "wire", "pipeline", "guest"],
  offloads: ["kernels", "rings", "core", "plugins", "wire", "pipeline"],
  transports: ["rings", "core", "plugins", "wire", "pipeline", "guest", "host"],
  config: ["rings", "core", "plugins", "wire", "pipeline", "devices", "offloads", "transports"],
  machine: [
    "rings",
    "core",
    "plugins",
    "wire",
    "pipeline",
    "host",
    "devices",
    "offloads",
    "transports",
    "config",
  ],
  plugin: ["kernels", "rings", "core", "plugins", "pipeline", "guest"],
  mod: [
    "plugin",
    "rings",
    "core",
    "plugins",
    "wire",
    "pipeline",
    "devices",
    "offloads",
    "transports",
    "config",
    "machine",
  ],
  cli: [
    "rings",
    "core",
    "plugins",
    "wire",
    "pipeline",
    "host",
    "devices",
    "offloads",
    "transports",
    "config",
    "machine",
    "mod",
    "testing",
  ],
  testing: [
    "rings",
    "core",
    "plugins",
    "wire",
    "pipeline",
    "guest",
    "devices",
    "offloads",
    "transports",
    "config",
    "machine",
  ],
};

/**
 * The rooms whose parts must not know each other: a device does not import another device, nor a transport
 * another.
 */
const APART = ["devices", "transports"];

/** Folders that need less than their room: queue workers serve rings of any transport. */
const NEVER: Record<string, readonly string[]> = { "machine/threads/": ["transports"] };

interface Source {
  /** Path from the root of the project. */
  readonly path: string;
  readonly text: string;
}

function roomOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.indexOf("/")) : path.replace(/\.ts$/, "");
}

/**
 * Within a room: the folder, or the file that stands for it (`transports/loopback.ts` is part `loopback`).
 */
function partOf(path: string): string {
  return path.split("/")[1]?.replace(/\.ts$/, "") ?? "";
}

function importsOf({ text }: Source): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const specifier = /(?:^|\n)\s*(?:(?:import|export)\b[^;"']*?\bfrom|import)\s*["']([^"']+)["']/g;
  return [...code.matchAll(specifier)].map((match) => match[1]);
}

function violations(sources: readonly Source[]): string[] {
  const found: string[] = [];
  for (const source of sources) {
    const room = roomOf(source.path);
    const allowed = MAY_IMPORT[room];
    if (allowed === undefined) {
      found.push(`${source.path}: is in no known room`);
      continue;
    }
    for (const specifier of importsOf(source)) {
      if (!specifier.startsWith(".")) continue;
      const target = normalize(join(dirname(source.path), specifier));
      const targetRoom = roomOf(target);
      if (targetRoom !== room && !allowed.includes(targetRoom)) {
        found.push(`${source.path} imports ${target}`);
      }
      for (const [folder, never] of Object.entries(NEVER)) {
        if (source.path.startsWith(folder) && never.includes(targetRoom)) {
          found.push(`${source.path} imports ${target}`);
        }
      }
      if (targetRoom !== room || !APART.includes(room)) continue;
      if (partOf(target) !== partOf(source.path)) found.push(`${source.path} imports ${target}`);
    }
  }
  return found;
}

const ROOT = new URL("../", import.meta.url);

function read(path: string): Source {
  return { path, text: Deno.readTextFileSync(new URL(path, ROOT)) };
}

/** The sources of a room: its folder, if it has one. */
function sourcesOf(room: string): Source[] {
  return [...Deno.readDirSync(new URL(`${room}/`, ROOT))].flatMap(({ name, isDirectory }) => {
    const path = `${room}/${name}`;
    return isDirectory ? sourcesOf(path) : name.endsWith(".ts") ? [read(path)] : [];
  });
}

function projectSources(): Source[] {
  return Object.keys(MAY_IMPORT).flatMap((room) => [
    ...(["mod", "plugin", "cli"].includes(room) ? [read(`${room}.ts`)] : []),
    ...(["mod", "plugin"].includes(room) ? [] : sourcesOf(room)),
  ]);
}

Deno.test("imports point one way: cli, mod, machine, config, then devices, offloads and transports, then pipeline, then plugins, then core, host and wire, then rings and kernels", () => {
  const sources = projectSources();
  assert(sources.length > 50, `only ${sources.length} files were found`);
  assertEquals(violations(sources), []);
});

/** What benches and tests share (`rigs`), and the benches: neither may import a test. */
const AROUND: Record<string, readonly string[]> = { rigs: ["tests", "bench"], bench: ["tests"] };

function importsOfTests(sources: readonly Source[]): string[] {
  return sources.flatMap((source) =>
    importsOf(source)
      .filter((specifier) => specifier.startsWith("."))
      .map((specifier) => normalize(join(dirname(source.path), specifier)))
      .filter((target) => AROUND[roomOf(source.path)].includes(roomOf(target)))
      .map((target) => `${source.path} imports ${target}`)
  );
}

Deno.test("no bench imports a test, and what both share imports neither", () => {
  const sources = Object.keys(AROUND).flatMap(sourcesOf);
  assert(sources.length > 20, `only ${sources.length} files were found`);
  assertEquals(importsOfTests(sources), []);
  for (
    const [path, specifier] of [["bench/tap.ts", "../tests/run.ts"], ["rigs/qemu.ts", "../bench/tap.ts"]]
  ) {
    assertEquals(importsOfTests([{ path, text: `import "${specifier}";` }]).length, 1, path);
  }
});

Deno.test("an import that is turned round is found", () => {
  const turned = [
    ["core/reactor.ts", "../devices/net/mod.ts"],
    ["core/device.ts", "../pipeline/frame.ts"],
    ["core/device.ts", "../plugins/plugin.ts"],
    ["plugins/plugin.ts", "../pipeline/plugin.ts"],
    ["pipeline/frame.ts", "../offloads/segment.ts"],
    ["guest/software_guest.ts", "../wire/ethernet.ts"],
    ["transports/loopback_driver/mod.ts", "../../devices/net/mod.ts"],
    ["wire/tcp_ip.ts", "../core/errors.ts"],
    ["devices/net/device.ts", "../../offloads/rsc_v4.ts"],
    ["offloads/rsc_v4.ts", "../transports/loopback.ts"],
    ["transports/pcap/replay.ts", "../loopback.ts"],
    ["devices/net/device.ts", "../entropy/device.ts"],
    ["machine/build.ts", "../cli.ts"],
    ["config/load.ts", "../machine/build.ts"],
    ["machine/threads/queue_set_runner.ts", "../../transports/vhost_user/rings.ts"],
    ["core/reactor.ts", "../host/epoll.ts"],
    ["devices/net/device.ts", "../../host/libc.ts"],
    ["mod.ts", "./testing/mod.ts"],
    ["testing/mod.ts", "../mod.ts"],
    ["cli/demo.ts", "../rigs/qemu.ts"],
  ];
  for (const [path, specifier] of turned) {
    const text = `/** Words. */\nimport {\n  some,\n} from "${specifier}";\n`;
    assertEquals(violations([{ path, text }]).length, 1, `${path} importing ${specifier} went unnoticed`);
  }
});

Deno.test("an import that points the right way is let through", () => {
  const right = [
    ["devices/net/device.ts", "../../pipeline/frame.ts"],
    ["transports/loopback.ts", "./loopback/cable.ts"],
    ["transports/tap/tap.ts", "../../host/libc.ts"],
    ["machine/build.ts", "../devices/net/mod.ts"],
    ["core/reactor.ts", "node:timers"],
  ];
  for (const [path, specifier] of right) {
    assertEquals(violations([{ path, text: `export * from "${specifier}";` }]), []);
  }
});

Deno.test("core, rings and wire depend on no library", () => {
  for (const source of projectSources()) {
    if (!/^(core|rings|wire)\//.test(source.path)) continue;
    const libraries = importsOf(source).filter((name) => !name.startsWith(".") && !name.startsWith("node:"));
    assertEquals(libraries, [], source.path);
  }
});

Deno.test("only the command line prints and exits, and only host calls foreign functions", () => {
  for (const { path, text } of projectSources()) {
    const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\/\/.*$/gm, "");
    if (!/^(cli\.ts|cli\/)/.test(path)) {
      assert(!/\bconsole\.|\bDeno\.exit\b|\bDeno\.std(out|err)\b/.test(code), `${path} prints or exits`);
    }
    if (!path.startsWith("host/")) {
      assert(!/\bDeno\.dlopen\b|\bUnsafePointer/.test(code), `${path} uses FFI`);
    }
  }
});

/** Rooms that know no device type, transport or plugin; the list of the built-in ones does. */
const BLIND = /^(core|plugins|config|machine)\//;
const BUILT_INS = "config/builtins.ts";
/**
 * Files and folders of the command line that are about a format or a protocol, and all that each may import
 * of it: captures are replayed, and vhost-user is what other programs attach by. These compare no plugin
 * either.
 */
const SUBJECTS: Record<string, readonly string[]> = {
  "cli/replay/": ["transports/pcap/", "offloads/undo_offloads"],
  "cli/guest.ts": ["transports/vhost_user/mod.ts"],
  "cli/run/attach.ts": ["transports/vhost_user/mod.ts"],
  "cli/run/protocol_log.ts": ["transports/vhost_user/mod.ts"],
};

/** The subject of a file if this may be imported for it. */
function subjectOf(path: string, target: string): string | undefined {
  return Object.keys(SUBJECTS).find((subject) =>
    path.startsWith(subject) && SUBJECTS[subject].some((one) => target.startsWith(one))
  );
}

const NAMES = [...new Set(BUILT_IN_PLUGINS.map(({ name }) => name))].join("|");
/** A plugin compared with one, its name with a name of the built-in ones, a device type with a number. */
const COMPARED = new RegExp(
  `\\bplugin\\s*[!=]==?\\s*(?!undefined|null)[A-Za-z]\\w*|` +
    `(?:\\bname|\\buse)\\s*[!=]==?\\s*["'\`](?:${NAMES})["'\`]|\\btype\\s*[!=]==?\\s*\\d+`,
  "g",
);

/** Names that mean nothing else. */
const DISTINCT = ["vhost-user", "pcap", "tap", "entropy", "rsc-v4", "rsc-v6", "undo-offloads"];
/** A text of a program that has one in it. */
const SAID = new RegExp(`["'\`][^"'\`\n]*\\b(?:${DISTINCT.join("|")})\\b`, "g");

function pluginsImported({ path, text }: Source): string[] {
  return importsOf({ path, text }).map((specifier) => normalize(join(dirname(path), specifier)))
    .filter((target) => /^(devices|offloads|transports)\//.test(target));
}

/** Where a room names a device type, a transport or a plugin that it must not know. */
function identities(sources: readonly Source[]): string[] {
  return sources.flatMap((source) => {
    const { path, text } = source;
    const isBlind = BLIND.test(path) && path !== BUILT_INS;
    if (!isBlind && !path.startsWith("cli/")) return [];
    const imports = pluginsImported(source).filter((target) => subjectOf(path, target) === undefined)
      .map((target) => `${path} imports ${target}`);
    const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/(^|\s)\/\/.*$/gm, "");
    const others = code.replace(COMPARED, "").replace(/\bfrom\s*"[^"]*"/g, "");
    const named = [...code.matchAll(COMPARED), ...isBlind ? others.matchAll(SAID) : []];
    return [...imports, ...named.map(([text]) => `${path} names: ${text}`)];
  });
}

Deno.test("core, plugins, config, machine and the command line know no plugin but what a command is about", () => {
  const sources = projectSources();
  assertEquals(identities(sources), []);
  const names = BUILT_IN_PLUGINS.map(({ name }) => name);
  assertEquals(DISTINCT.filter((name) => !names.includes(name)), [], "these are no plugins");
  const used = new Set(
    sources.flatMap((source) => pluginsImported(source).map((target) => subjectOf(source.path, target))),
  );
  assertEquals(
    Object.keys(SUBJECTS).filter((subject) => !used.has(subject)),
    [],
    "what is over is not excepted",
  );
});

Deno.test("a plugin that is known by name is found", () => {
  const wrong: [string, string][] = [
    ["machine/build.ts", 'import { net } from "../devices/net/mod.ts";'],
    ["config/resolve.ts", 'import type { TapOptions } from "../transports/tap/mod.ts";'],
    ["core/session.ts", "if (this.device.type === 1) x();"],
    ["cli/plugins.ts", "if (part.plugin === net) x();"],
    ["cli/demo.ts", 'if (plugin.name !== "pcap") x();'],
    ["cli/run/attach.ts", 'import { net } from "../../devices/net/mod.ts";'],
    ["cli/guest.ts", "if (device.type === 4) x();"],
    ["config/load.ts", 'if (entry.use === "pcap") x();'],
    ["config/schema.ts", 'const help = "needs the driver vhost-user";'],
    ["machine/build.ts", "const help = `open the tap`;"],
    ["cli/replay/report.ts", "if (part.plugin === pcap) x();"],
    ["cli/replay.ts", 'import { x } from "../transports/pcap/pcap.ts";'],
    ["cli/check.ts", 'import { x } from "../transports/vhost_user/mod.ts";'],
    ["cli/replay/report.ts", 'import { x } from "../../devices/net/driver/mod.ts";'],
  ];
  for (const [path, text] of wrong) assertEquals(identities([{ path, text }]).length, 1, `${path}: ${text}`);
  const right: [string, string][] = [
    [BUILT_INS, 'import { net } from "../devices/net/mod.ts";'],
    ["machine/build.ts", "if (plugin === undefined) x(); // plugin === net"],
    ["cli/guest.ts", 'import { x } from "../transports/vhost_user/mod.ts";'],
    ["cli/replay/report.ts", 'import { x } from "../../transports/pcap/pcap.ts";'],
  ];
  for (const [path, text] of right) assertEquals(identities([{ path, text }]), []);
});

/** What a file imports when it runs: not for its types alone. */
function runtimeImportsOf({ path, text }: Source): string[] {
  const noTypes = text.replace(/(^|\n)\s*(?:import|export) type\b[^;]*;/g, "$1")
    .replace(/(^|\n)\s*(?:import|export) \{(?:\s*type [\w$]+(?: as [\w$]+)?,?)+\s*\} from[^;]*;/g, "$1");
  return importsOf({ path, text: noTypes });
}

/** Circles of imports, each as one line. */
function circles(sources: readonly Source[]): string[] {
  const graph = new Map(sources.map((source) => [
    source.path,
    runtimeImportsOf(source).filter((name) => name.startsWith(".")).map((name) =>
      normalize(join(dirname(source.path), name))
    ),
  ]));
  const found = new Set<string>();
  const done = new Set<string>();
  const visit = (path: string, way: readonly string[]) => {
    const at = way.indexOf(path);
    if (at >= 0) found.add(way.slice(at).toSorted().join(" "));
    if (at >= 0 || done.has(path)) return;
    for (const target of graph.get(path) ?? []) visit(target, [...way, path]);
    done.add(path);
  };
  for (const path of graph.keys()) visit(path, []);
  return [...found];
}

Deno.test("no files import each other in a circle when they run", () => {
  assertEquals(circles(projectSources()), []);
});

/**
 * Circles of imports, those of types alone included, that leave a folder: its files may describe each other.
 */
function circlesBetweenFolders(sources: readonly Source[]): string[] {
  const found = new Set<string>();
  const graph = new Map(sources.map((source) => [
    source.path,
    importsOf(source).filter((name) => name.startsWith(".")).map((name) =>
      normalize(join(dirname(source.path), name))
    ),
  ]));
  const reach = (from: string): Set<string> => {
    const reached = new Set<string>();
    const ahead = [from];
    for (let path = ahead.pop(); path !== undefined; path = ahead.pop()) {
      for (const target of graph.get(path) ?? []) {
        if (!reached.has(target)) ahead.push(target);
        reached.add(target);
      }
    }
    return reached;
  };
  const reached = new Map([...graph.keys()].map((path) => [path, reach(path)]));
  for (const [path, targets] of reached) {
    const circle = [...targets].filter((target) => reached.get(target)?.has(path));
    if (new Set(circle.map(dirname)).size > 1) found.add(circle.toSorted().join(" "));
  }
  return [...found];
}

Deno.test("no imports, those of types included, run in a circle through several folders", () => {
  assertEquals(circlesBetweenFolders(projectSources()), []);
  const file = (path: string, ...to: string[]) => ({
    path,
    text: to.map((name) => `import type { X } from "${name}";`).join("\n"),
  });
  const planted = [
    file("cli/a.ts", "./check/b.ts"),
    file("cli/check/b.ts", "./c.ts"),
    file("cli/check/c.ts", "../a.ts", "./d.ts"),
    file("cli/check/d.ts", "./c.ts"),
  ];
  assertEquals(circlesBetweenFolders(planted), [
    "cli/a.ts cli/check/b.ts cli/check/c.ts cli/check/d.ts",
  ]);
  assertEquals(circlesBetweenFolders(planted.slice(1)), []);
});

Deno.test("a circle of imports is found, and one of types alone let through", () => {
  const file = (path: string, keyword: string, ...to: string[]) => ({
    path,
    text: to.map((name) => `import ${keyword} from "./${name}.ts";`).join("\n"),
  });
  const circle = (keyword: string) =>
    circles([
      file("core/a.ts", keyword, "b"),
      file("core/b.ts", keyword, "c"),
      file("core/c.ts", keyword, "a"),
    ]);
  assertEquals(circle("{ x }").length, 1);
  assertEquals(circle("{ type X, y }").length, 1);
  assertEquals(circle("type { X }"), []);
  assertEquals(circle("{ type X, type Y }"), []);
  const x = "{ x }";
  assertEquals(
    circles([file("core/a.ts", x, "b", "c"), file("core/b.ts", x, "c"), file("core/c.ts", x)]),
    [],
  );
});

/** Tests that use what plugin authors use: the doors of the project, and no room behind them. */
const BY_PUBLIC_IMPORTS = [
  "tests/devices/entropy/device_test.ts",
  "tests/devices/entropy/driver_test.ts",
  "tests/transports/loopback/network_test.ts",
];

function imported({ path, text }: Source): string[] {
  return importsOf({ path, text }).filter((name) => name.startsWith("."))
    .map((name) => normalize(join(dirname(path), name)))
    .filter((target) => !["plugin.ts", "mod.ts", "testing/mod.ts", "wire/mod.ts"].includes(target));
}

Deno.test("the tests of entropy and of a network use public imports alone", () => {
  for (const path of BY_PUBLIC_IMPORTS) assertEquals(imported(read(path)), [], path);
  const text = 'import { x } from "../../../core/device.ts";\nimport { y } from "../../../plugin.ts";';
  assertEquals(imported({ path: BY_PUBLIC_IMPORTS[0], text }), ["core/device.ts"]);
});
