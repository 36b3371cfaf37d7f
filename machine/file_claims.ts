/**
 * Which files a machine reads and writes: no part of it may destroy what another one needs.
 *
 * Files are compared by device and inode, not by name: links, bind mounts and descriptors lead to one file by
 * many names.
 * @module
 */
import { fileURLToPath } from "node:url";
import { ConfigError, printable, quoted } from "../config/errors.ts";
import { partKind } from "../config/kinds.ts";
import { isPlainObject } from "../config/plain.ts";
import { PluginRegistry } from "../config/registry.ts";
import type { ResolvedConfig } from "../config/types.ts";
import type { FileClaim } from "../plugins/plugin.ts";
import { identityOfPath } from "../host/file_identity.ts";

interface Claimed {
  readonly claim: Pick<FileClaim, "use" | "path">;
  readonly place: string;
}

/** The files of one machine. */
export class FileClaims {
  readonly #claimed = new Map<string, Claimed[]>();

  /** Claims the configuration file itself and the modules that it names, as files that are read. */
  constructor({ baseUrl, text, devices }: Pick<ResolvedConfig, "baseUrl" | "text" | "devices">) {
    this.#claimUrl(baseUrl, "the configuration");
    const slots = devices.flatMap(({ plugin }) => Object.entries(plugin.slots ?? {}));
    const wrapping = slots.flatMap(([, { kind }]) => partKind(kind).wraps ?? []);
    const places = new Set(["use", "devices", "driver", ...slots.map(([name]) => name), ...wrapping]);
    for (const use of specifiersOf(JSON.parse(text), places)) {
      const url = URL.parse(use, baseUrl);
      if (url !== null) this.#claimUrl(url.href, `the plugin ${quoted(use)}`);
    }
  }

  /**
   * Adds a file. Throws ConfigError if it is to be written and is in use, or is in use to be written.
   * @param place where it is named, such as `$.devices[0].network.write` or `--trace-protocol`
   */
  claim({ use, path, identity }: Omit<FileClaim, "key">, place: string): void {
    if (identity === null) return;
    const before = this.#claimed.get(identity) ?? [];
    const other = before.find(({ claim }) => use === "write" || claim.use === "write");
    if (other !== undefined) {
      const does = other.claim.use === "write" ? "written" : "read";
      const name = other.claim.path === path ? "" : ` as ${quoted(printable(other.claim.path))}`;
      throw new ConfigError([{
        path: place,
        value: path,
        problem: `cannot be ${
          use === "write" ? "written" : "read"
        }: the file is ${does}${name} by ${other.place}`,
        remedy: "choose another file",
      }]);
    }
    this.#claimed.set(identity, [...before, { claim: { use, path }, place }]);
  }

  #claimUrl(url: string, place: string): void {
    if (!url.startsWith("file:")) return;
    let path: string;
    try {
      path = fileURLToPath(url);
    } catch {
      return;
    }
    this.claim({ use: "read", path, identity: identityOfPath(path) }, place);
  }
}

/** Everything in a configuration that names a module. @param places the keys under which plugins are named */
function specifiersOf(value: unknown, places: ReadonlySet<string>): string[] {
  if (Array.isArray(value)) return value.flatMap((item) => specifiersOf(item, places));
  if (typeof value === "string") return PluginRegistry.isSpecifier(value) ? [value] : [];
  if (!isPlainObject(value)) return [];
  return Object.entries(value).flatMap(([key, part]) => places.has(key) ? specifiersOf(part, places) : []);
}
