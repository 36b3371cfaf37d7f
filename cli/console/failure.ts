/**
 * From an error to what is printed, and the exit code.
 * @module
 */
import { ConfigError } from "../../config/errors.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { HostError } from "../../core/errors.ts";
import { PluginError } from "../../plugins/contract.ts";
import { VectorError } from "../../testing/vectors/format.ts";
import { type Io, OutputClosed, styleFor } from "./io.ts";
import { UsageError } from "./usage.ts";

/** All is well. */
export const EXIT_OK = 0;
/** Something failed. */
export const EXIT_FAILED = 1;
/** The command line or the configuration cannot be used. */
export const EXIT_USAGE = 2;

/** Prints an error, as a message without a stack unless `debug`, and returns the exit code. */
export function reportFailure(error: unknown, io: Io, debug: boolean): number {
  if (error instanceof OutputClosed) return EXIT_OK;
  const { red } = styleFor(io);
  const print = (text: string) => io.err(`${red("error:")} ${text}\n`);
  if (error instanceof UsageError) {
    print(error.message);
    const command = error.command === "" ? "" : `${error.command} `;
    io.err(`Try "deno-virtio ${command}--help".\n`);
  } else if (error instanceof ConfigError) {
    const { issues } = error;
    print(
      issues.length === 1 ? error.message : `the configuration cannot be used\n${indented(error.message)}`,
    );
  } else if (isExpected(error)) {
    print(error.message);
  } else if (isPermission(error)) {
    print(`Deno may not do this: ${error.message}`);
  } else {
    print(error instanceof Error ? `${error.name}: ${error.message}` : String(error));
    if (!debug) io.err("This is a fault of the program: --debug shows where it happened.\n");
  }
  if (debug) io.err(stackOf(error));
  return error instanceof UsageError || error instanceof ConfigError ? EXIT_USAGE : EXIT_FAILED;
}

function isExpected(error: unknown): error is Error {
  return [HostError, PluginError, GuestError, VectorError].some((kind) => error instanceof kind);
}

function isPermission(error: unknown): error is Error {
  return error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.PermissionDenied;
}

function indented(text: string): string {
  return text.replace(/^/gm, "  ");
}

/** The stacks of an error and of what caused it. */
function stackOf(error: unknown): string {
  let text = "";
  let current = error;
  for (let depth = 0; current instanceof Error && depth < 8; depth++) {
    text += `${depth === 0 ? "" : "Caused by: "}${current.stack ?? current.message}\n`;
    current = current.cause;
  }
  return text;
}
