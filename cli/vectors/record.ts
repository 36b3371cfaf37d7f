/**
 * Writes what our device delivered in the format of the recorded vectors, so that two runs can be compared by
 * any tool.
 * @module
 */
import { messageOf } from "../../config/errors.ts";
import { HostError } from "../../core/errors.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import { type Vector, writeVector } from "../../testing/vectors/format.ts";
import type { VectorRun } from "../../testing/vectors/run_vector.ts";
import { identityOfPath } from "../../host/file_identity.ts";
import { OutputFile } from "../../host/output_file.ts";
import { VERSION } from "../console/io.ts";

/** Writes recordings into a folder, one for each vector, under the name of the vector's file. */
export class VectorRecorder {
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
