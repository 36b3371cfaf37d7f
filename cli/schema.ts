/**
 * The command `schema`: the JSON Schema of configuration files.
 * @module
 */
import { newRegistry } from "../config/builtins.ts";
import { messageOf } from "../config/errors.ts";
import { configJsonSchemaText } from "../config/json_schema.ts";
import { HostError } from "../core/errors.ts";
import { OutputFile } from "../host/output_file.ts";
import { EXIT_OK } from "./console/failure.ts";
import type { Io } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";

/** How `schema` is used. */
export const SCHEMA: CommandUsage = {
  name: "schema",
  operands: "[options]",
  least: 0,
  most: 0,
  summary: "Print the JSON Schema of configuration files, for editors.",
  about: [
    "Prints the JSON Schema of configuration files. Name it in a configuration as " +
    '"$schema": "./config.schema.json", and an editor completes and checks while you type.',
  ],
  options: [{ name: "out", value: "FILE", help: "Write it to this file instead." }],
  examples: ["schema --out config.schema.json"],
};

/** Prints or writes the JSON Schema. */
// deno-lint-ignore require-await -- a refusal must reject, not throw
export async function runSchema(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(SCHEMA, args, io);
  if (parsed === null) return EXIT_OK;
  const text = configJsonSchemaText(newRegistry());
  const path = parsed.value("out");
  if (path === undefined) {
    io.out(text);
    return EXIT_OK;
  }
  refuseOverwriting(path);
  using file = OutputFile.open(path, "schema", true);
  try {
    file.writeWhole(new TextEncoder().encode(text));
  } catch (cause) {
    throw new HostError(`Cannot write "${path}": ${messageOf(cause)}`, { cause });
  }
  if (parsed.json) io.out(`${JSON.stringify({ written: path })}\n`);
  else io.out(`Wrote ${path}\n`);
  return EXIT_OK;
}

/** Only another schema is replaced: a configuration is easily named here by mistake. Throws HostError. */
function refuseOverwriting(path: string): void {
  let text: string;
  try {
    if (!Deno.statSync(path).isFile) return;
    text = Deno.readTextFileSync(path);
  } catch {
    // It is not there, or may not be looked at.
    return;
  }
  if (text.trim() === "" || /^\s*\{\s*"\$schema":\s*"https?:\/\/json-schema\.org\//.test(text)) return;
  throw new HostError(
    `Cannot write "${path}": it holds something else than a JSON Schema; choose another file`,
  );
}
