/**
 * The command line: `run`, `check`, `replay`, `vectors`, `plugins`, `schema`, `init`, `guest`, `demo`. It
 * prints and ends the process; nothing else in the project does.
 *
 * ```sh
 * deno run --allow-read mod.ts replay capture.pcapng
 * ```
 *
 * Exit codes: 0 all is well, 1 something failed, 2 the command line or the configuration cannot be used.
 * @module
 */
import { EXIT_OK, EXIT_USAGE, reportFailure } from "./cli/console/failure.ts";
import { type Io, labelled, styleFor, systemIo, VERSION, wrap } from "./cli/console/io.ts";
import {
  type CommandUsage,
  COMMON_OPTIONS,
  programName,
  unknownOption,
  UsageError,
} from "./cli/console/usage.ts";
import { suggest } from "./config/wording.ts";
export type { Io, Live } from "./cli/console/io.ts";

interface Command {
  readonly usage: CommandUsage;
  readonly run: (args: readonly string[], io: Io) => Promise<number>;
}

/** The commands, each loaded when it is needed: what the others need would make every start slower. */
const COMMANDS: ReadonlyMap<string, () => Promise<Command>> = new Map([
  ["run", () => import("./cli/run.ts").then(({ RUN, runRun }) => ({ usage: RUN, run: runRun }))],
  ["check", () => import("./cli/check.ts").then(({ CHECK, runCheck }) => ({ usage: CHECK, run: runCheck }))],
  [
    "replay",
    () => import("./cli/replay.ts").then(({ REPLAY, runReplay }) => ({ usage: REPLAY, run: runReplay })),
  ],
  [
    "vectors",
    () => import("./cli/vectors.ts").then(({ VECTORS, runVectors }) => ({ usage: VECTORS, run: runVectors })),
  ],
  [
    "plugins",
    () => import("./cli/plugins.ts").then(({ PLUGINS, runPlugins }) => ({ usage: PLUGINS, run: runPlugins })),
  ],
  [
    "schema",
    () => import("./cli/schema.ts").then(({ SCHEMA, runSchema }) => ({ usage: SCHEMA, run: runSchema })),
  ],
  ["init", () => import("./cli/init.ts").then(({ INIT, runInit }) => ({ usage: INIT, run: runInit }))],
  ["guest", () => import("./cli/guest.ts").then(({ GUEST, runGuest }) => ({ usage: GUEST, run: runGuest }))],
  ["demo", () => import("./cli/demo.ts").then(({ DEMO, runDemo }) => ({ usage: DEMO, run: runDemo }))],
]);

/**
 * Runs a command line and returns the exit code. Never throws.
 * @param args what stands behind the program's name
 * @param io where to print
 */
export async function main(args: readonly string[], io: Io): Promise<number> {
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  const has = (option: string) => args.slice(0, end).includes(option);
  const shown = has("--no-color") ? { ...io, color: false } : io;
  try {
    return await dispatch(args, shown);
  } catch (error) {
    return reportFailure(error, shown, has("--debug"));
  }
}

/** Runs the command line of this process and ends it. */
export async function start(): Promise<never> {
  const io = systemIo();
  const code = await main(Deno.args, io);
  await io.settle?.();
  Deno.exit(code);
}

async function dispatch(args: readonly string[], io: Io): Promise<number> {
  // What stands before the command belongs to it: --json check x is check --json x.
  const at = args.findIndex((arg) => !arg.startsWith("-"));
  const before = at < 0 ? args : args.slice(0, at);
  if (before.includes("--version") || before.includes("-V")) {
    io.out(`deno-virtio ${VERSION} (deno ${Deno.version.deno}, v8 ${Deno.version.v8})\n`);
    return EXIT_OK;
  }
  const wantsHelp = before.includes("--help") || before.includes("-h") || args[at] === "help";
  if (at < 0 || wantsHelp) return await withoutCommand(args, at, wantsHelp, io);
  const word = args[at];
  const load = COMMANDS.get(word);
  if (load !== undefined) return await (await load()).run([...before, ...args.slice(at + 1)], io);
  if (/[./\\]/.test(word)) return await (await COMMANDS.get("run")!()).run(args, io);
  const names = [...COMMANDS.keys()];
  const nearest = suggest(word, names);
  const remedy = nearest === null ? `there are ${names.join(", ")}` : `did you mean "${nearest}"?`;
  throw new UsageError("", `Unknown command "${word}"${nearest === null ? "; " : ", "}${remedy}`);
}

async function withoutCommand(
  args: readonly string[],
  at: number,
  wantsHelp: boolean,
  io: Io,
): Promise<number> {
  if (!wantsHelp) {
    const odd = args.find((arg) => !COMMON_OPTIONS.some(({ name }) => arg === `--${name}`));
    if (odd !== undefined) throw new UsageError("", unknownOption(odd, [...COMMON_OPTIONS, VERSION_OPTION]));
    io.err(await mainHelp(io));
    return EXIT_USAGE;
  }
  const topic = args[at] === "help" ? args[at + 1] : args[at];
  const load = COMMANDS.get(topic);
  if (load !== undefined) return await (await load()).run(["--help"], io);
  io.out(await mainHelp(io));
  return EXIT_OK;
}

const VERSION_OPTION = { name: "version", help: "Print the version." };

async function mainHelp(io: Io): Promise<string> {
  const { bold, cyan } = styleFor(io);
  const about =
    "Virtio devices in TypeScript, put together by a JSON file: devices, ways to the guest and to the " +
    "network, and the offloads that frames go through, such as receive segment coalescing (RSC).";
  let text = `${bold("Usage:")} deno-virtio COMMAND [options]\n\n${wrap(about, io.columns).join("\n")}\n\n`;
  text += `${bold("Commands:")}\n`;
  for (const load of COMMANDS.values()) {
    const { usage } = await load();
    text += labelled(`  ${usage.name}`, usage.summary, 14, io.columns);
  }
  text += `\n${bold("Options of every command:")}\n`;
  for (const { name, help } of [...COMMON_OPTIONS, VERSION_OPTION]) {
    text += labelled(`  --${name}`, help, 14, io.columns);
  }
  const note =
    "A configuration alone is run. Exit codes: 0 all is well, 1 something failed, 2 the command line or the " +
    'configuration cannot be used. Here "deno-virtio" stands for';
  text += `\n${wrap(note, io.columns).join("\n")}\n  ${cyan(`deno run --allow-read ${programName()}`)}\n`;
  return `${text}The command "check" tells which other permissions a configuration needs.\n`;
}

if (import.meta.main) start();
