/**
 * "Did you mean": the known word nearest to one that is unknown.
 * @module
 */
import { quoted, quotedList } from "./paths.ts";

/** Longer words are no typing errors, and comparing them would cost time that a hostile file could multiply. */
const LONGEST_WORD = 48;

/**
 * How many single mistakes lie between two words: a letter too many, missing, wrong, or two neighbours exchanged
 * (the restricted Damerau-Levenshtein distance).
 * @returns 0 for equal words, at most the length of the longer one
 */
export function editDistance(a: string, b: string): number {
  // Three rows of the table are enough: an exchange looks two rows back.
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, before[j - 2]! + 1);
      }
      row.push(best);
    }
    before = previous;
    previous = row;
  }
  return previous[b.length]!;
}

/** Spelling without what people vary freely: case, hyphens, underscores. */
function folded(word: string): string {
  return word.toLowerCase().replace(/[-_ ]/g, "");
}

/**
 * The known word that was most likely meant. A third of the letters may be wrong; a word that is the beginning of a
 * known one (a forgotten unit, as in `interval` for `intervalUs`) also counts. Of equally near words the first in
 * alphabetical order is taken, so the answer does not depend on the order of `known`.
 * @param word what was written
 * @param known what could have been written
 * @returns the nearest word, or null if none is near
 */
export function suggest(word: string, known: Iterable<string>): string | null {
  const written = folded(word);
  if (written === "" || word.length > LONGEST_WORD) return null;
  let best: string | null = null;
  let least = Infinity;
  for (const candidate of [...known].sort()) {
    if (candidate.length > LONGEST_WORD || candidate === word) continue;
    const wanted = folded(candidate);
    let distance = editDistance(written, wanted);
    const longer = Math.max(written.length, wanted.length);
    const shorter = Math.min(written.length, wanted.length);
    const isBeginning = shorter >= 3 && (wanted.startsWith(written) || written.startsWith(wanted));
    const allowed = Math.max(1, Math.floor(longer / 3));
    // Where one word begins the other, the rest is one mistake at most and a little worse than a plain slip.
    if (isBeginning) distance = Math.min(distance, 1.5);
    else if (distance > allowed || distance >= shorter) continue;
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

/**
 * The problem of a key that nobody knows: `unknown key, did you mean "nth"?`.
 * @param key the key as written
 * @param known the keys that the object may have, or null if that cannot be found out
 * @param alsoKnown keys that it may have besides
 */
export function unknownKey(
  key: string,
  known: readonly string[] | null,
  alsoKnown: readonly string[] = [],
): { problem: string; remedy?: string } {
  const all = [...known ?? [], ...alsoKnown];
  const nearest = suggest(key, all);
  if (nearest !== null) return { problem: `unknown key, did you mean ${quoted(nearest)}?` };
  if (known === null) return { problem: "unknown key" };
  return {
    problem: "unknown key",
    remedy: all.length === 0 ? "there are no options here" : `known are ${quotedList(all)}`,
  };
}
