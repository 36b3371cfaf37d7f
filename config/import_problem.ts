/**
 * Why a module could not be imported, in words and with a remedy.
 * @module
 */
import { type ConfigIssue, messageOf } from "./errors.ts";
import { quoted } from "./paths.ts";

const NO_ACCESS = /Requires (read|import|net|env|sys|ffi|run|write) access to "?([^",]+)"?/;
/** Of a name that no import map has, in a folder with a deno.json or without. */
const BARE = /Import "([^"]+)" not a dependency|Relative import path "([^"]+)" not prefixed/;
const NOT_FOUND = /Module not found "([^"]+)"/;

/**
 * Puts what import() threw into words.
 * @param thrown what it threw: an error of the runtime, or whatever the module threw while it was evaluated
 * @param use the specifier as written
 * @param url the specifier as resolved
 * @returns problem and remedy
 */
export function importProblem(thrown: unknown, use: string, url: string): Omit<ConfigIssue, "path"> {
  const message = messageOf(thrown);
  const module = `module ${quoted(use)}`;
  const access = NO_ACCESS.exec(message);
  if (access !== null) {
    const [, right, target] = access;
    const problem = `${module} may not be loaded: ${right} access to ${quoted(target!)} is missing`;
    // A name with a comma or a blank would fall apart on the command line.
    const scope = /^[\w./:@+-]+$/.test(target!) ? `=${target}` : "";
    return { problem, remedy: `run with --allow-${right}${scope}` };
  }
  const missing = NOT_FOUND.exec(message);
  if (missing !== null) {
    if (missing[1] === url) {
      return { problem: `${module} does not exist`, remedy: `it was looked for at ${url}` };
    }
    return { problem: `${module} imports ${quoted(missing[1]!)}, which does not exist` };
  }
  if (isRuntimeError(thrown)) {
    const bare = BARE.exec(message);
    if (bare !== null) {
      const problem = `${module} imports ${
        quoted(bare[1] ?? bare[2])
      }, which no deno.json of its folder names`;
      return {
        problem,
        remedy: 'add it to "imports" there; the framework is "@deno-virtio/deno-virtio" in a project of init',
      };
    }
    if (message.includes("SyntaxError")) return { problem: `${module} cannot be parsed: ${message}` };
    return { problem: `${module} cannot be loaded: ${message}`, remedy: `it was looked for at ${url}` };
  }
  if (thrown instanceof SyntaxError) return { problem: `${module} does not fit together: ${message}` };
  return { problem: `${module} failed while it was loaded: ${message}` };
}

/** Thrown by the loader, not by the module's own code. */
function isRuntimeError(thrown: unknown): boolean {
  return thrown instanceof TypeError && "code" in thrown && typeof thrown.code === "string" &&
    thrown.code.startsWith("ERR_");
}
