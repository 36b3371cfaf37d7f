/**
 * What a command takes, in one description: its options are parsed by it, its help is printed from it.
 * @module
 */
import { parseArgs } from "@std/cli";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";
import { suggest } from "../../config/wording.ts";
import { type Io, labelled, shellQuoted, styleFor, wrap } from "./io.ts";

/** An option of a command. */
export interface OptionUsage {
  /** Its name, without hyphens. */
  readonly name: string;
  /** What its value is called; without it the option is a switch. */
  readonly value?: string;
  /** One or two sentences. */
  readonly help: string;
}

/** A command. */
export interface CommandUsage {
  /** Its name. */
  readonly name: string;
  /** What stands behind the name, such as `CONFIG [options]`. */
  readonly operands: string;
  /** How many operands it needs. */
  readonly least: number;
  /** How many operands it takes. */
  readonly most: number;
  /** One line. */
  readonly summary: string;
  /** A paragraph or two. */
  readonly about: readonly string[];
  /** Its options, less those of every command. */
  readonly options: readonly OptionUsage[];
  /** What can be typed. */
  readonly examples: readonly string[];
}

/** The program cannot tell what is wanted. The message says why, and the exit code is 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
  /** The command whose help would explain it; empty for the program's. */
  readonly command: string;

  /**
   * @param command the command whose help would explain it,
   * @param message what is wrong and what to write
   */
  constructor(command: string, message: string) {
    super(message);
    this.command = command;
  }
}

/** The options of every command. */
export const COMMON_OPTIONS: readonly OptionUsage[] = [
  { name: "json", help: "Print JSON, for programs." },
  { name: "no-color", help: "Print without colours, as with NO_COLOR set." },
  { name: "debug", help: "Print stack traces of errors." },
  { name: "help", help: "Print this help." },
];

/** A command line, understood. */
export class ParsedArgs {
  readonly #command: string;
  readonly #values: Record<string, unknown>;
  /** What is no option, in order. */
  readonly operands: readonly string[];

  /** Made by `parseCommand`. */
  constructor(command: string, values: Record<string, unknown>, operands: readonly string[]) {
    this.#command = command;
    this.#values = values;
    this.operands = operands;
  }

  /** Is JSON wanted? */
  get json(): boolean {
    return this.flag("json");
  }

  /** Was the switch given? */
  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  /** The value of an option; undefined if it was not given. */
  value(name: string): string | undefined {
    const value = this.#values[name];
    return typeof value === "string" ? value : undefined;
  }

  /**
   * The value of an option that is one of `choices`; the first if it was not given. Throws UsageError for
   * another.
   */
  choice<T extends string>(name: string, choices: readonly [T, ...T[]]): T {
    const value = this.value(name);
    if (value === undefined) return choices[0];
    const found = choices.find((choice) => choice === value);
    if (found !== undefined) return found;
    throw this.usageError(`--${name} is "${value}"; write ${choices.join(" or ")}`);
  }

  /**
   * The value of an option that is a number; undefined if it was not given. Throws UsageError out of range.
   */
  number(name: string, least: number, most: number): number | undefined {
    const value = this.value(name);
    if (value === undefined) return undefined;
    const number = /^[0-9]+(\.[0-9]+)?$/.test(value) ? Number(value) : NaN;
    if (number >= least && number <= most) return number;
    throw this.usageError(`--${name} is "${value}"; write a number from ${least} to ${most}`);
  }

  /** An error about this command's line. */
  usageError(message: string): UsageError {
    return new UsageError(this.#command, message);
  }
}

/**
 * Parses a command's arguments. Prints the help and returns null if that is wanted. Throws UsageError for an
 * option that there is not, with a suggestion, for a missing value, and for too few or too many operands.
 */
export function parseCommand(usage: CommandUsage, args: readonly string[], io: Io): ParsedArgs | null {
  const options = [...usage.options, ...COMMON_OPTIONS];
  const fail = (message: string): never => {
    throw new UsageError(usage.name, message);
  };
  const valued = options.filter((option) => option.value !== undefined).map((option) => option.name);
  const parsed = parseArgs(withHyphens(args, valued), {
    string: ["_", ...valued],
    boolean: options.filter((option) => option.value === undefined).map((option) => option.name),
    alias: { help: "h" },
    unknown: (arg, key) => {
      if (key !== undefined) fail(unknownOption(arg, options));
    },
  });
  if (parsed.help === true) {
    io.out(commandHelp(usage, io));
    return null;
  }
  for (const name of valued) {
    if (parsed[name] === "") fail(`--${name} needs a value: write --${name} ${valueName(options, name)}`);
  }
  const operands = parsed._.map(String);
  const whole = `write "${usage.name} ${usage.operands}"`;
  if (operands.length < usage.least) {
    fail(`${usage.operands.split(" ")[operands.length]} is missing; ${whole}`);
  }
  if (operands.length > usage.most) {
    fail(`"${operands[usage.most]}" is one word too many; ${whole}`);
  }
  return new ParsedArgs(usage.name, parsed, operands);
}

/**
 * The arguments with a value that is a hyphen alone written as `--name=-`: the parser takes it for an option
 * otherwise.
 */
function withHyphens(args: readonly string[], valued: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const last = joined.at(-1);
    if (arg === "-" && last !== undefined && valued.some((name) => last === `--${name}`)) {
      joined[joined.length - 1] = `${last}=-`;
    } else joined.push(arg);
  }
  return joined;
}

/** The help of a command. */
function commandHelp(usage: CommandUsage, io: Io): string {
  const { bold, cyan } = styleFor(io);
  let text = `${bold("Usage:")} deno-virtio ${usage.name} ${usage.operands}\n\n`;
  for (const paragraph of usage.about) text += wrap(paragraph, io.columns).join("\n") + "\n\n";
  text += bold("Options:") + "\n";
  for (const { name, value, help } of [...usage.options, ...COMMON_OPTIONS]) {
    const label = `  --${name}${value === undefined ? "" : ` ${value}`}`;
    text += labelled(label, help, OPTION_COLUMN, io.columns);
  }
  text += `\n${bold("Examples:")}\n`;
  for (const example of usage.examples) text += `  ${cyan(`deno-virtio ${example}`)}\n`;
  return text;
}

const OPTION_COLUMN = 25;

/**
 * What stands for this program behind `deno run`, in lines to copy: the module that the process was started
 * with, seen from the present folder. In a project of one's own it is another than here.
 */
export function programName(): string {
  try {
    const main = Deno.mainModule;
    if (!/\/(mod|cli)\.[jt]s$/.test(main)) return "mod.ts";
    if (!main.startsWith("file:")) return shellQuoted(main);
    const path = fileURLToPath(main);
    const near = relative(Deno.cwd(), path);
    return shellQuoted(near.startsWith("..") ? path : near);
  } catch {
    // Reading where one is may be forbidden.
    return "mod.ts";
  }
}

/** What to say of an option that there is not. */
export function unknownOption(arg: string, options: readonly OptionUsage[]): string {
  const written = arg.replace(/=.*$/s, "");
  const nearest = suggest(written.replace(/^-+/, ""), options.map((option) => option.name));
  const remedy = nearest === null ? "" : `, did you mean --${nearest}?`;
  return `Unknown option ${written}${remedy}`;
}

function valueName(options: readonly OptionUsage[], name: string): string {
  return options.find((option) => option.name === name)!.value!;
}
