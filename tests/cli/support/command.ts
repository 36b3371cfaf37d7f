import { main } from "../../../cli.ts";
import { type Io, OutputClosed } from "../../../cli/console/io.ts";

/** What a command line printed, and its exit code. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** What the other side of the output is. */
export interface Terminal {
  readonly isTerminal?: boolean;
  readonly columns?: number;
  readonly color?: boolean;
  readonly unicode?: boolean;
  /** After so many characters the output is not read any more. */
  readonly closesAfter?: number;
}

/** Runs a command line in this process, as in a pipe unless told otherwise. */
export async function command(args: readonly string[], terminal: Terminal = {}): Promise<Outcome> {
  let out = "";
  let err = "";
  const io: Io = {
    out: (text) => {
      out += text;
      if (out.length > (terminal.closesAfter ?? Infinity)) throw new OutputClosed("closed");
    },
    err: (text) => {
      err += text;
    },
    isTerminal: terminal.isTerminal ?? false,
    columns: terminal.columns ?? 80,
    color: terminal.color ?? false,
    unicode: terminal.unicode ?? true,
  };
  const code = await main(args, io);
  return { code, out, err };
}

/** The root of the project. */
export const ROOT: URL = new URL("../../../", import.meta.url);

/** The path of a file of the project. */
export function projectPath(path: string): string {
  return new URL(path, ROOT).pathname;
}

/** Runs with a folder that is removed afterwards. */
export async function withFolder(action: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "deno-virtio-" });
  try {
    await action(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The longest line, in characters. */
export function longestLine(text: string): string {
  return text.split("\n").reduce((longest, line) => line.length > longest.length ? line : longest, "");
}
