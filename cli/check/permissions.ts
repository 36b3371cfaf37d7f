/**
 * What Deno must permit for a configuration to run.
 *
 * Each plugin says what it needs (`PluginBase.permissions`); what a module needs that does not say so, its
 * author knows.
 * @module
 */
import { fileURLToPath } from "node:url";
import { isDescriptor, isStandardInput } from "../../config/load.ts";
import { isPlainObject } from "../../config/plain.ts";
import { PluginRegistry } from "../../config/registry.ts";
import type { ResolvedConfig, ResolvedPart } from "../../config/types.ts";
import { partsOf } from "../../plugins/plugin.ts";
import { permissionsTold } from "../../machine/descriptions.ts";
import { shellQuoted } from "../console/io.ts";

/** The permission flags of a configuration, and what they do not cover. */
export interface Permissions {
  /** Flags for `deno run`. */
  readonly flags: readonly string[];
  /** Modules whose own needs are not known. */
  readonly modules: readonly string[];
}

/** The folder of this program; null if it runs from elsewhere than files. */
const PROGRAM = import.meta.url.startsWith("file:") ? fileURLToPath(new URL("../..", import.meta.url)) : null;
/** Hosts from which Deno imports without being told. */
const TRUSTED_HOSTS = new Set([
  "jsr.io",
  "deno.land",
  "esm.sh",
  "raw.esm.sh",
  "cdn.jsdelivr.net",
  "raw.githubusercontent.com",
  "gist.githubusercontent.com",
]);

/**
 * The permissions for a configuration.
 * @param path the configuration file, as the user wrote it
 * @param written the configuration as it stands in the file
 * @param config the same, resolved
 */
export function permissionsOf(path: string, written: unknown, config: ResolvedConfig): Permissions {
  const needs = new Needs(config.baseUrl);
  if (!isDescriptor(path)) needs.read.add(path);
  for (const part of config.devices.flatMap(partsOf)) {
    needs.gather(part, valueAt(written, part.path));
  }
  if (runnablePath(path) === SAVED_FILE) needs.read.add(SAVED_FILE);
  // A thread reads the program's own modules anew, and the runtime asks for each.
  if (PROGRAM !== null && config.devices.some(({ mode }) => mode === "threads")) {
    needs.read.add(shortPath(PROGRAM));
  }
  const flags = needs.read.size > 0 ? [listFlag("--allow-read", needs.read)] : [];
  if (needs.write.size > 0) flags.push(listFlag("--allow-write", needs.write));
  if (needs.hosts.size > 0) flags.push(listFlag("--allow-import", needs.hosts));
  // The runtime cannot confine native calls to a library: this is the right to do anything.
  if (needs.native) flags.push("--allow-ffi");
  return { flags, modules: [...needs.modules] };
}

/** Stands for a configuration that came by a descriptor of a shell, which is gone when the line is pasted. */
const SAVED_FILE = "FILE";

/**
 * The configuration as it stands in a line that can be run later.
 * @param path the file, as the user wrote it
 */
export function runnablePath(path: string): string {
  return isDescriptor(path) && !isStandardInput(path) ? SAVED_FILE : path;
}

/** The value at a path such as `$.devices[0].network`. */
export function valueAt(root: unknown, path: string): unknown {
  let value = root;
  for (const [, name, index] of path.matchAll(/\.(\w+)|\[(\d+)\]/g)) {
    if (index !== undefined) value = Array.isArray(value) ? value[Number(index)] : undefined;
    else value = isPlainObject(value) ? value[name] : undefined;
  }
  return value;
}

class Needs {
  readonly read = new Set<string>();
  readonly write = new Set<string>();
  readonly hosts = new Set<string>();
  readonly modules = new Set<string>();
  native = false;
  readonly #baseUrl: string;

  constructor(baseUrl: string) {
    this.#baseUrl = baseUrl;
  }

  /** Looks at a part. @param entry what stands at its place in the configuration */
  gather(part: ResolvedPart, entry: unknown): void {
    const use = isPlainObject(entry) ? entry.use : entry;
    if (typeof use === "string") this.#module(use);
    const { read, write, ffi } = permissionsTold(part);
    for (const file of read) this.read.add(this.#file(file));
    for (const file of write) this.write.add(this.#file(file));
    if (ffi) this.native = true;
  }

  #module(use: string): void {
    if (!PluginRegistry.isSpecifier(use)) return;
    this.modules.add(use);
    const url = URL.parse(use, this.#baseUrl);
    if (url?.protocol === "file:") this.read.add(shortPath(fileURLToPath(url)));
    if (url?.protocol === "https:" && !TRUSTED_HOSTS.has(url.host)) this.hosts.add(url.host);
  }

  #file(written: string): string {
    if (written.startsWith("/")) return written;
    return shortPath(fileURLToPath(new URL(written.replace(/[%?#]/g, encodeURIComponent), this.#baseUrl)));
  }
}

/** Relative to the current directory where the file lies below it. */
function shortPath(path: string): string {
  const here = `${Deno.cwd()}/`;
  if (path === here) return ".";
  return path.startsWith(here) ? path.slice(here.length) : path;
}

function listFlag(flag: string, values: Iterable<string>): string {
  // Deno separates by commas, and a comma in a name is doubled.
  return shellQuoted(`${flag}=${[...values].map((value) => value.replaceAll(",", ",,")).join(",")}`);
}
