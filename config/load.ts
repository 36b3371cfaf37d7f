/**
 * Reads a configuration: file or text in, complete configuration or ConfigError out.
 * @module
 */
import { pathToFileURL } from "node:url";
import { ConfigError, type ConfigIssue, messageOf, printable, quoted } from "./errors.ts";
import { ConfigSource, LONGEST_TEXT, parseJsonc } from "./jsonc.ts";
import type { PluginRegistry } from "./registry.ts";
import { resolveConfig } from "./resolve.ts";
import type { ResolvedConfig } from "./types.ts";

/**
 * Reads and resolves a configuration file: JSON, with comments and trailing commas if you like, UTF-8, at
 * most 1 MiB.
 * @param pathOrUrl the file, as a path or as a `file:` URL; `-` is standard input, and there, as behind
 * `<(...)` of a shell, paths in the text mean the current directory
 * @param registry finds the plugins; modules that the file names are imported, which runs their code
 * @throws {ConfigError} if the file cannot be read, or with everything that is wrong in it
 */
export async function loadConfig(pathOrUrl: string | URL, registry: PluginRegistry): Promise<ResolvedConfig> {
  const url = isDescriptor(pathOrUrl) ? pathToFileURL("-") : fileUrl(pathOrUrl);
  const input = isStandardInput(pathOrUrl) ? Deno.stdin : isDescriptor(pathOrUrl) ? String(pathOrUrl) : url;
  const bytes = await readAll(input, printable(String(pathOrUrl)));
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const remedy = "save it as UTF-8 text";
    throw new ConfigError([{ path: printable(String(pathOrUrl)), problem: "is not UTF-8", remedy }], {
      cause,
    });
  }
  return await parseConfig(text, url, registry, printable(String(pathOrUrl)));
}

/**
 * Resolves a configuration that is there as text.
 * @param text JSON, with comments and trailing commas if you like, at most 1 MiB
 * @param baseUrl URL of the file it comes from: paths and module specifiers are resolved against it
 * @param registry finds the plugins; modules that the text names are imported, which runs their code
 * @param file what messages call the text; by default the last part of `baseUrl`, or `configuration`
 * @throws {ConfigError} with everything that is wrong, each with file, line, column and path
 */
export async function parseConfig(
  text: string,
  baseUrl: string | URL,
  registry: PluginRegistry,
  file: string = nameOf(baseUrl),
): Promise<ResolvedConfig> {
  const source = new ConfigSource(file, text);
  try {
    return Object.freeze({ ...await resolveConfig(parseJsonc(text), baseUrl, registry), source });
  } catch (cause) {
    if (!(cause instanceof ConfigError) || !URL.canParse(baseUrl)) throw cause;
    throw new ConfigError(source.located(cause.issues), { cause });
  }
}

function nameOf(baseUrl: string | URL): string {
  const name = URL.parse(baseUrl)?.pathname.split("/").at(-1) ?? "";
  return name === "" ? "configuration" : printable(name);
}

/** Descriptors of this process as files: paths in what comes from there mean the current directory. */
const DESCRIPTOR_PATH = /^\/(?:dev|proc\/(?:self|\d+))\/fd\/\d+$/;

/** Does the name stand for standard input? */
export function isStandardInput(pathOrUrl: string | URL): boolean {
  return pathOrUrl === "-" || pathOrUrl === "/dev/stdin";
}

/** Does the text come from a descriptor, such as standard input (`-`) or what a shell writes for `<(...)`? */
export function isDescriptor(pathOrUrl: string | URL): boolean {
  return pathOrUrl === "-" || pathOrUrl === "/dev/stdin" || DESCRIPTOR_PATH.test(String(pathOrUrl));
}

function fileUrl(pathOrUrl: string | URL): URL {
  // One letter before the colon is a drive.
  const isUrl = pathOrUrl instanceof URL || /^[a-z][a-z0-9+.-]+:/i.test(pathOrUrl);
  if (!isUrl) return pathToFileURL(pathOrUrl);
  const url = URL.parse(pathOrUrl);
  if (url?.protocol === "file:" && url.hostname === "") return url;
  const remedy = "give a path or a file: URL; fetch what lies elsewhere first";
  throw new ConfigError([{
    path: printable(String(pathOrUrl)),
    problem: "is not the URL of a file here",
    remedy,
  }]);
}

async function readAll(input: URL | string | typeof Deno.stdin, shown: string): Promise<Uint8Array> {
  const isPath = typeof input === "string" || input instanceof URL;
  // A buffer of a byte too many shows that a file is too long without trusting its size, which devices do not
  // have.
  const buffer = new Uint8Array(LONGEST_TEXT + 1);
  let length = 0;
  try {
    using file = isPath ? await Deno.open(input) : null;
    const from = isPath ? file! : input;
    while (length < buffer.length) {
      const count = await from.read(buffer.subarray(length));
      if (count === null) break;
      length += count;
    }
  } catch (cause) {
    throw new ConfigError([{ path: shown, ...readProblem(cause, isPath ? input : "-") }], { cause });
  }
  if (length > LONGEST_TEXT) throw new ConfigError([{ path: shown, problem: "is longer than 1 MiB" }]);
  return buffer.subarray(0, length);
}

function readProblem(thrown: unknown, url: URL | string): Omit<ConfigIssue, "path"> {
  if (thrown instanceof Deno.errors.NotFound) {
    return { problem: "no such file", remedy: `it was looked for at ${url}` };
  }
  if (thrown instanceof Deno.errors.NotCapable) {
    const path = /read access to "([^"]+)"/.exec(thrown.message)?.[1];
    const remedy = path === undefined || !/^[\w./:@+-]+$/.test(path)
      ? "run with --allow-read"
      : `run with --allow-read=${path}`;
    return { problem: "Deno may not read this file", remedy };
  }
  if (thrown instanceof Deno.errors.PermissionDenied) {
    return {
      problem: "this user may not read the file",
      remedy: `change its owner or mode, such as with chmod a+r`,
    };
  }
  if (thrown instanceof Deno.errors.IsADirectory) {
    return { problem: "is a directory", remedy: `name a file in it, such as ${quoted("config.json")}` };
  }
  return { problem: `cannot be read: ${messageOf(thrown)}` };
}
