/**
 * The command `init`: a project of one's own, in which everything type-checks, lints, tests and runs from the
 * start.
 *
 * Theory of operation. The project names this framework by `@deno-virtio/deno-virtio`, today and after it was
 * published. Run from a registry, that name stands for the registry's package. Run from files, it stands for
 * a module of the project, `framework/mod.ts`, which hands on what is at the framework's place: a name that
 * led there directly would make the runtime read the framework's own deno.json as a part of the project. What
 * the framework imports by name is then taken over from that file, so that both use the same.
 * @module
 */
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { messageOf, quoted } from "../config/errors.ts";
import { HostError } from "../core/errors.ts";
import { EXIT_OK } from "./console/failure.ts";
import { type Io, shellQuoted, styleFor, VERSION } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";

/** How `init` is used. */
export const INIT: CommandUsage = {
  name: "init",
  operands: "FOLDER [options]",
  least: 1,
  most: 1,
  summary: "Begin a project of your own: a plugin, its test, a configuration.",
  about: [
    "Writes a folder with a stage, its test, a configuration that runs it, and a deno.json that finds this framework. " +
    "Everything in it type-checks, lints, tests and runs at once. The folder must be empty, or not be there yet. Needs " +
    "--allow-read and --allow-write.",
  ],
  options: [],
  examples: ["init my-plugin"],
};

const NAME = "@deno-virtio/deno-virtio";
/** What the framework has to offer, by the module that a project gets for it. */
const DOORS = [["", "mod.ts"], ["/plugin", "plugin.ts"], ["/cli", "cli.ts"], ["/testing", "testing/mod.ts"], [
  "/wire",
  "wire/mod.ts",
]] as const;
/** Files that an empty folder may have. */
const NOTHING = new Set([".git", ".DS_Store"]);

/** Writes a project. */
export async function runInit(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(INIT, args, io);
  if (parsed === null) return EXIT_OK;
  const [written] = parsed.operands;
  const folder = resolve(written);
  try {
    await refuseUsed(folder, written);
    const files = { ...await frameworkFiles(folder), ...PROJECT_FILES };
    for (const [name, text] of Object.entries(files)) {
      const path = resolve(folder, name);
      await Deno.mkdir(resolve(path, ".."), { recursive: true });
      await Deno.writeTextFile(path, text, { createNew: true });
    }
    if (parsed.json) io.out(`${JSON.stringify({ folder, files: Object.keys(files) })}\n`);
    else io.out(told(written, Object.keys(files), io));
  } catch (cause) {
    if (cause instanceof HostError || cause instanceof Deno.errors.NotCapable) throw cause;
    throw new HostError(`Cannot write a project to ${quoted(written)}: ${messageOf(cause)}`, { cause });
  }
  return EXIT_OK;
}

async function refuseUsed(folder: string, written: string): Promise<void> {
  const remedy = "name a folder that is empty, or not there yet";
  try {
    for await (const { name } of Deno.readDir(folder)) {
      if (NOTHING.has(name)) continue;
      throw new HostError(
        `Cannot write a project to ${quoted(written)}: it has ${quoted(name)} in it; ${remedy}`,
      );
    }
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) return;
    if (cause instanceof Deno.errors.NotADirectory) {
      throw new HostError(`Cannot write a project to ${quoted(written)}: it is a file; ${remedy}`, { cause });
    }
    throw cause;
  }
}

/** `deno.json`, and what else it takes to find the framework from `folder`. */
async function frameworkFiles(folder: string): Promise<Record<string, string>> {
  const root = new URL("../", import.meta.url);
  if (root.protocol !== "file:") {
    const registry = root.hostname === "jsr.io" ? "jsr" : "npm";
    return {
      "deno.json": json({
        tasks: TASKS,
        imports: {
          [NAME]: `${registry}:${NAME}@^${VERSION}`,
          "@std/assert": "jsr:@std/assert@^1.0.13",
          zod: "npm:zod@^4.6.7",
        },
      }),
    };
  }
  // What is not there yet has no real path, but the folder that it will be in has one.
  await Deno.mkdir(folder, { recursive: true });
  const home = await Deno.realPath(folder);
  const own = JSON.parse(await Deno.readTextFile(new URL("deno.json", root))) as {
    imports: Record<string, string>;
    links?: string[];
  };
  const at = (path: string, from = home) => relativeUrl(pathToFileURL(`${from}/`), new URL(path, root));
  const doors = DOORS.map(([door, module]) => [NAME + door, `./framework/${moduleOf(module)}`]);
  const links = (own.links ?? []).map((link) => decodeURI(at(link)));
  const { "fast-check": _tests, ...imports } = own.imports;
  const files: Record<string, string> = {
    "deno.json": json({
      tasks: TASKS,
      imports: { ...Object.fromEntries(doors), ...imports },
      ...(links.length === 0 ? {} : { links }),
    }),
  };
  for (const [, module] of DOORS) {
    const target = JSON.stringify(at(module, `${home}/framework`));
    files[`framework/${moduleOf(module)}`] = module === "cli.ts"
      ? `import { start } from ${target};\n` +
        "// What plugins import needs no permission if it is there before them.\n" +
        'import "./mod.ts";\nimport "./plugin.ts";\n\nif (import.meta.main) await start();\n'
      : `export * from ${target};\n`;
  }
  return files;
}

/** What a module of the framework is called in a project. */
function moduleOf(module: string): string {
  return module.replace(/^(\w+)\/mod\.ts$/, "$1.ts");
}

/** The way from a folder to a file, as an import writes it. */
function relativeUrl(from: URL, to: URL): string {
  const start = from.pathname.split("/").slice(0, -1);
  const end = to.pathname.split("/");
  let common = 0;
  while (common < start.length && common < end.length - 1 && start[common] === end[common]) common++;
  // Nothing in common but the root: a file of another disk is better named by where it is.
  if (common <= 1) return to.href;
  const up = "../".repeat(start.length - common);
  return `${up === "" ? "./" : up}${end.slice(common).join("/")}`;
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function told(folder: string, files: readonly string[], io: Io): string {
  const { bold, cyan } = styleFor(io);
  const steps = [
    ["The test of the stage:", "deno task test"],
    ["A device with the stage, run:", "deno task start"],
    ["Everything that must be right before a commit:", "deno task ok"],
    ["Other commands, such as what a configuration makes:", "deno task virtio check config.jsonc"],
  ];
  const next = steps.map(([what, command]) => `  ${what}\n    ${cyan(command)}\n`).join("");
  const list = files.map((file) => `  ${file}\n`).join("");
  const name = basename(resolve(folder));
  return `Wrote a project to ${bold(name)}:\n${list}\n${bold("Next steps")}\n    ${
    cyan(`cd ${shellQuoted(folder)}`)
  }\n${next}`;
}

const TASKS = {
  start: `deno run --allow-read ${NAME}/cli run config.jsonc`,
  virtio: `deno run --allow-read ${NAME}/cli`,
  test: "deno test --allow-read",
  ok: "deno fmt --check && deno lint && deno check . && deno test --allow-read",
};

const PROJECT_FILES: Readonly<Record<string, string>> = {
  "config.jsonc": `// A guest made of software sends 100 short frames through the stage to a cable
// that has no other end. It runs until nothing is left to do: deno task start
{
  "clock": "virtual",
  "devices": [
    {
      "use": "net",
      "driver": {
        "use": "loopback",
        "behaviour": { "send": { "count": 100, "frameBytes": 64 } }
      },
      "network": "loopback",
      "offloads": [{ "use": "./stage.ts", "minBytes": 128 }]
    }
  ]
}
`,
  "stage.ts": `import {
  defineOffload,
  type OffloadPlugin,
  perFrame,
} from "@deno-virtio/deno-virtio/plugin";
import { z } from "zod";

/** What the stage can be told. */
export interface PadOptions {
  /** The length that every frame has at least, in bytes. */
  minBytes: number;
}

/** Pads frames from the guest to the least length that a wire takes. */
const pad: OffloadPlugin<PadOptions> = defineOffload({
  name: "pad",
  summary: "Pads frames from the guest to the least length.",
  direction: "fromGuest",
  options: z.strictObject({
    minBytes: z.int().min(14).max(1500).default(60),
  }),
  create(context, { minBytes }) {
    const counters = context.publish({ padded: 0 });
    return perFrame((frame, output) => {
      const missing = minBytes - frame.length;
      if (frame.next === null && missing > 0 && missing <= frame.tailRoom) {
        const end = frame.start + frame.length;
        frame.bytes.fill(0, end, end + missing);
        frame.length += missing;
        frame.total += missing;
        counters.padded++;
      }
      output.push(frame);
    });
  },
});

export default pad;
`,
  "stage_test.ts": `import {
  MachineBench,
  StageBench,
  tcp,
} from "@deno-virtio/deno-virtio/testing";
import { assertEquals } from "@std/assert";
import pad from "./stage.ts";

Deno.test("pad makes short frames 60 bytes long, and leaves long ones alone", () => {
  using bench = new StageBench(pad, { direction: "fromGuest" });
  bench.feed(tcp());
  bench.feed(tcp({ payload: 100 }));
  assertEquals(bench.out.map(({ bytes }) => bytes.length), [60, 154]);
  assertEquals(bench.counters.pad.padded, 1);
});

Deno.test("pad works in a whole device", async () => {
  await using bench = await MachineBench.start({
    baseUrl: import.meta.url,
    offloads: [{ use: "./stage.ts", minBytes: 64 }],
  });
  bench.guest.send(tcp());
  bench.settle();
  assertEquals(bench.sent.map(({ bytes }) => bytes.length), [64]);
});
`,
};
