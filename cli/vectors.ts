/**
 * The command `vectors`: recorded runs of another implementation against ours, which can be recorded too.
 * @module
 */
import { ConfigError, messageOf } from "../config/errors.ts";
import { HostError } from "../core/errors.ts";
import { identityOfPath } from "../host/file_identity.ts";
import { OutputFile } from "../host/output_file.ts";
import type { RuleBook } from "../pipeline/qemu_compat.ts";
import { strictViolations } from "../testing/vectors/conservation.ts";
import { type Vector, VectorError, writeVector } from "../testing/vectors/format.ts";
import {
  differences,
  findVectors,
  readVector,
  runVector,
  type VectorRun,
} from "../testing/vectors/run_vector.ts";
import { EXIT_FAILED, EXIT_OK } from "./console/failure.ts";
import { type Io, styleFor, VERSION } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";

/** How `vectors` is used. */
export const VECTORS: CommandUsage = {
  name: "vectors",
  operands: "PATH... [options]",
  least: 1,
  most: Infinity,
  summary: "Run recorded vectors and compare, bit for bit.",
  about: [
    "Runs each vector (a .jsonl file, all such files in a folder, or - for standard input) through a whole device: rings, control queue, " +
    'clock. Under the rule book "qemu" every packet must be what was recorded, at the same time, bit for bit; each ' +
    'difference is printed. Under "strict" the same frames must come out right: nothing lost, reordered or made up, ' +
    "checksums right, nothing held too long.",
  ],
  options: [
    { name: "rules", value: "BOOK", help: "qemu (the default) or strict." },
    {
      name: "record",
      value: "DIR",
      help: "Also write what our device delivered, as vectors, into this folder.",
    },
  ],
  examples: ["vectors tests/vectors/rsc", "vectors tests/vectors/rsc --rules strict --record out"],
};

interface Verdict {
  readonly file: string;
  readonly name: string;
  readonly problems: readonly string[];
}

/** Runs vectors. 1 if one of them failed. */
export async function runVectors(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(VECTORS, args, io);
  if (parsed === null) return EXIT_OK;
  const rules = parsed.choice("rules", ["qemu", "strict"]);
  const files = findVectors(parsed.operands);
  const folder = parsed.value("record");
  const recorder = folder === undefined ? null : new VectorRecorder(folder, rules, files);
  const verdicts: Verdict[] = [];
  for (const file of files) {
    const verdict = await judge(file, rules, recorder);
    verdicts.push(verdict);
    if (!parsed.json) io.out(verdictText(verdict, io));
  }
  const failed = verdicts.filter(({ problems }) => problems.length > 0).length;
  const passed = verdicts.length - failed;
  if (parsed.json) io.out(`${JSON.stringify({ rules, passed, failed, vectors: verdicts }, null, 2)}\n`);
  else {
    const { red, green } = styleFor(io);
    io.out((failed === 0 ? green : red)(`${passed} passed, ${failed} failed`) + "\n");
  }
  return failed === 0 ? EXIT_OK : EXIT_FAILED;
}

async function judge(file: string, rules: RuleBook, recorder: VectorRecorder | null): Promise<Verdict> {
  let name = "";
  try {
    const vector = await readVector(file);
    name = vector.head.name;
    const run = await runVector(vector, { rules });
    recorder?.write(file, vector, run);
    const problems = rules === "strict" ? strictViolations(vector, run) : differences(vector, run);
    return { file, name, problems };
  } catch (error) {
    // A vector that cannot be run has failed; the others are run all the same.
    if (!(error instanceof VectorError || error instanceof ConfigError)) throw error;
    return { file, name, problems: [error.message] };
  }
}

/** Nothing for a vector that passed: a hundred good ones would hide the bad one. */
function verdictText({ file, name, problems }: Verdict, io: Io): string {
  if (problems.length === 0) return "";
  const { red } = styleFor(io);
  return `${red("failed")} ${name === "" ? file : `${name} (${file})`}\n${
    problems.map((problem) => `  ${problem}\n`).join("")
  }`;
}

/**
 * Writes what our device delivered in the format of the recorded vectors, so that two runs can be compared by
 * any tool: into a folder, one for each vector, under the name of the vector's file.
 */
class VectorRecorder {
  readonly #folder: string;
  readonly #rules: RuleBook;
  readonly #sources = new Map<string, string>();

  /**
   * Makes the folder if there is none, and gives every vector its place in it. Throws HostError if the folder
   * cannot be made, if two vectors would get the same place, or if a recording would overwrite the vector it
   * is made from.
   */
  constructor(folder: string, rules: RuleBook, files: readonly string[]) {
    this.#folder = folder.replace(/[/\\]+$/, "");
    this.#rules = rules;
    try {
      Deno.mkdirSync(folder, { recursive: true });
    } catch (cause) {
      throw new HostError(`Cannot make the folder "${folder}": ${messageOf(cause)}`, { cause });
    }
    const vectors = new Set(files.map(identityOfPath));
    vectors.delete(null);
    for (const file of files) {
      const target = this.#targetOf(file);
      const identity = identityOfPath(target);
      const key = identity ?? target;
      const other = this.#sources.get(key);
      if (other !== undefined) {
        throw new HostError(
          `Cannot record "${file}": "${other}" is to be written to ${target} too; run them apart`,
        );
      }
      this.#sources.set(key, file);
      if (vectors.has(identity)) {
        throw new HostError(
          `Cannot record into "${folder}": ${target} is a vector to be run; choose another folder`,
        );
      }
    }
  }

  /** Writes a run of the vector in `file`. Throws HostError if that fails. */
  write(file: string, vector: Vector, run: VectorRun): void {
    const target = this.#targetOf(file);
    const head = { ...vector.head, oracle: `deno-virtio ${VERSION}, rules ${this.#rules}`, observed: [] };
    const text = writeVector({ head, events: vector.events, packets: run.packets, acks: run.acks });
    try {
      using output = OutputFile.open(target, "vector", true);
      output.writeWhole(new TextEncoder().encode(text));
    } catch (cause) {
      throw new HostError(`Cannot write "${target}": ${messageOf(cause)}`, { cause });
    }
  }

  #targetOf(file: string): string {
    return `${this.#folder}/${file.split(/[/\\]/).at(-1)}`;
  }
}
