/**
 * What keeps this host from running a configuration that is right: folders, files and rights that are
 * missing.
 *
 * Plugins say what they need (`PluginDescription.needs`). Deno shows with `--allow-read` what is there. What
 * this user may do with it only the C library tells, which needs `--allow-ffi`, the right that such a
 * configuration needs anyway when it runs.
 * @module
 */
import { dirname } from "node:path";
import type { ConfigIssue } from "../../config/errors.ts";
import type { ResolvedConfig } from "../../config/types.ts";
import type { HostNeed } from "../../plugins/plugin.ts";
import { mayAccess } from "../../host/descriptors.ts";

/** What this host lacks. */
export interface HostFindings {
  /** What keeps it from running the configuration. */
  readonly problems: readonly ConfigIssue[];
  /** What could not be looked at, and how to have it looked at. */
  readonly unseen: readonly string[];
}

/** Looks for what the parts of a configuration need of this host. Opens and changes nothing. */
export function hostFindings({ source }: ResolvedConfig, needs: readonly HostNeed[]): HostFindings {
  const finder = new Finder();
  const of = (...uses: HostNeed["use"][]) => needs.filter(({ use }) => uses.includes(use));
  for (const { file, path, use } of of("listen", "connect")) {
    // The program at the other end makes the socket, and may still do so; its folder must be there all the
    // same.
    finder.folder(dirname(file), path, use === "listen" ? "w" : "x");
    finder.socket(file, path);
  }
  // What several parts open is told once.
  for (const need of new Map(of("open").reverse().map((need) => [need.file, need])).values()) {
    finder.opened(need);
  }
  for (const { file, path } of of("write")) finder.written(file, path);
  const { problems, unseen } = finder;
  return { problems: source === undefined ? problems : source.located(problems), unseen: [...unseen] };
}

const RIGHTS_UNSEEN = "what this user may do: run check with --allow-ffi as well";

class Finder {
  readonly problems: ConfigIssue[] = [];
  readonly unseen = new Set<string>();
  /** Sockets, and where they are named. */
  readonly #sockets = new Map<string, string>();
  readonly #seesRights = Deno.build.os === "linux" &&
    Deno.permissions.querySync({ name: "ffi" }).state === "granted";

  /**
   * The folder must be there, and this user must be able to make files in it (`w`) or to pass through it
   * (`x`).
   */
  folder(folder: string, path: string, right: "w" | "x"): void {
    const problem = (problem: string, remedy: string) =>
      this.problems.push({ path, value: folder, problem, remedy });
    try {
      if (!Deno.statSync(folder).isDirectory) return void problem("is no folder", "write a path in a folder");
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) {
        return void problem("is a folder that is not there", `make it: mkdir -p ${folder}`);
      }
      if (error instanceof Deno.errors.NotCapable) {
        return void this.unseen.add(`whether ${folder} is there: allow --allow-read=${folder}`);
      }
      return void problem(
        `cannot be looked at (${(error as Error).message})`,
        "write a path in a folder of yours",
      );
    }
    if (!this.#seesRights) this.unseen.add(RIGHTS_UNSEEN);
    else if (!mayAccess(folder, right === "w" ? "wx" : "x")) {
      problem(
        "is a folder in which this user may not make files",
        "run as a user who may, or write another folder",
      );
    }
  }

  /** What lies where a socket is to be must be one: anything else is left alone. */
  socket(socket: string, path: string): void {
    this.#sockets.set(socket, path);
    const facts = factsOf(socket, Deno.lstatSync);
    if (facts === null || facts.isSocket) return;
    this.problems.push({
      path,
      value: socket,
      problem: "is there already, and is no socket",
      remedy: "remove it, or write another path",
    });
  }

  /**
   * A file that is there must be one that this user may write, or else its folder one in which files may be
   * made.
   */
  written(file: string, path: string): void {
    const problem = (problem: string, remedy: string) =>
      this.problems.push({ path, value: file, problem, remedy });
    const socketOf = this.#sockets.get(file);
    if (socketOf !== undefined) problem(`is the socket of ${socketOf}`, "write another path");
    const facts = factsOf(file, Deno.statSync);
    if (facts === null) this.folder(dirname(file), path, "w");
    else if (facts.isDirectory) problem("is a folder", "write the path of a file in it");
    else if (facts.isSocket) problem("is a socket", "write another path");
    else if (!this.#seesRights) this.unseen.add(RIGHTS_UNSEEN);
    else if (!mayAccess(file, "w")) {
      problem("is a file that this user may not write", "run as a user who may, or write another file");
    }
  }

  /** A file must be there, and this user must be able to read and write it. */
  opened({ path, file, missing, refused, unseen }: HostNeed): void {
    const problem = (problem: string, remedy?: string) =>
      this.problems.push({ path, value: file, problem, ...(remedy !== undefined && { remedy }) });
    if (!this.#seesRights) this.unseen.add(`${file} and ${RIGHTS_UNSEEN}`);
    else if (!mayAccess(file, "")) problem("is not there", missing);
    else if (!mayAccess(file, "rw")) problem("may not be opened", refused);
    else {
      const further = unseen?.() ?? null;
      if (further !== null) this.unseen.add(further);
    }
  }
}

/** What lies at a path; null if nothing does, or if it cannot be looked at. */
function factsOf(path: string, look: (path: string) => Deno.FileInfo): Deno.FileInfo | null {
  try {
    return look(path);
  } catch {
    return null;
  }
}
