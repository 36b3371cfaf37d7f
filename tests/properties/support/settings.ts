/**
 * The seed and the number of streams, from the environment.
 * @module
 */

/** With nothing else said, the same streams every time: a test run must not fail by chance. */
const DEFAULT_SEED = 20_190_103;

/** FUZZ_SEED, or the seed of an ordinary run. */
export const SEED: number = number("FUZZ_SEED", DEFAULT_SEED);

/** FUZZ_TIMES, how many times as many streams as in an ordinary run; default 1. */
export const TIMES: number = number("FUZZ_TIMES", 1);

/** The number in this environment variable. Throws RangeError if there is something else in it. */
export function number(name: string, otherwise: number): number {
  if (Deno.permissions.querySync({ name: "env", variable: name }).state !== "granted") return otherwise;
  const text = Deno.env.get(name);
  if (text === undefined || text === "") return otherwise;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 0x7fff_ffff) {
    throw new RangeError(`Cannot use ${name}=${text}: write an integer from 0 to 2147483647`);
  }
  return value;
}
