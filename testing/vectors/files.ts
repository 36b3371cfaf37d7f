/**
 * Finds and reads vector files.
 * @module
 */
import { LimitedBytesTransformStream, toText } from "@std/streams";
import { messageOf } from "../../config/errors.ts";
import { HostError } from "../../core/errors.ts";
import { parseVector, type Vector, VectorError } from "./format.ts";

/** The most bytes of a vector; the recorded ones have less than a hundredth. */
export const MOST_VECTOR_BYTES: number = 64 * 1024 * 1024;
/** The path that stands for standard input. */
const STANDARD_INPUT = "-";
/** Folders within folders, at most. */
const MOST_DEPTH = 8;
/** What a vector's file name ends in. */
const SUFFIX = ".jsonl";

/**
 * The vector files that are meant by `paths`: files as they are, folders for all `.jsonl` files in them and below, in
 * order of their names; `-` is standard input. No file twice. Throws HostError for a path that there is not, and for a folder without a vector.
 */
export function findVectors(paths: readonly string[]): string[] {
  const found = new Set<string>();
  for (const path of paths) {
    if (path === STANDARD_INPUT || !isFolder(path)) found.add(path);
    else if (addFolder(path, found, 0) === 0) {
      throw new HostError(`Cannot find a vector in "${path}": no file in it ends in ${SUFFIX}`);
    }
  }
  return [...found];
}

/** Reads a vector. Throws VectorError if it is none, HostError if it cannot be read or is too long. */
export async function readVector(path: string): Promise<Vector> {
  let text: string;
  try {
    const input = path === STANDARD_INPUT ? Deno.stdin : await Deno.open(path);
    text = await toText(
      input.readable
        .pipeThrough(new LimitedBytesTransformStream(MOST_VECTOR_BYTES, { error: true }))
        .pipeThrough(new TextDecoderStream("utf-8", { fatal: true })),
    );
  } catch (cause) {
    if (cause instanceof RangeError) {
      throw new HostError(`Cannot read "${path}": it is longer than ${MOST_VECTOR_BYTES} bytes`, { cause });
    }
    if (cause instanceof TypeError) throw new VectorError(`${path}: is not UTF-8 text`, { cause });
    throw new HostError(`Cannot read "${path}": ${messageOf(cause)}`, { cause });
  }
  return parseVector(text, path);
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (cause) {
    throw new HostError(`Cannot find "${path}": ${messageOf(cause)}`, { cause });
  }
}

/** Adds the files of a folder and returns how many there are. Links to folders are not followed: they may go in circles. */
function addFolder(folder: string, found: Set<string>, depth: number): number {
  let files = 0;
  const entries = [...Deno.readDirSync(folder)].sort((a, b) => a.name < b.name ? -1 : 1);
  for (const { name, isDirectory } of entries) {
    const path = `${folder.replace(/[/\\]+$/, "")}/${name}`;
    if (isDirectory && depth < MOST_DEPTH) files += addFolder(path, found, depth + 1);
    else if (!isDirectory && name.endsWith(SUFFIX)) {
      found.add(path);
      files++;
    }
  }
  return files;
}
