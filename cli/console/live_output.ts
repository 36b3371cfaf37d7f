/**
 * Text for a stream whose other side may take its time, or never take it: the program goes on.
 *
 * Theory of operation. `write` keeps a text and returns at once; one write at a time is under way, in a
 * thread of the runtime's pool. What is kept is bounded: beyond that, texts are dropped whole and their lines
 * counted, as are those that the stream refuses (a full disk). As soon as the stream takes text again, a
 * notice stands where lines are missing. A stream whose other side is gone for good takes nothing more.
 * @module
 */

/** The part of a file or of standard output that is needed. */
export interface LiveStream {
  /** Writes the front of `bytes` and resolves to how many bytes that were. */
  write(bytes: Uint8Array): Promise<number>;
}

/** Characters that wait, at most; a longer text is taken when nothing waits. */
const MAX_WAITING_CHARACTERS = 1024 * 1024;
/** From one attempt at a stream that takes nothing now to the next, in ms: the first and the longest. */
const RETRY_MS = 5;
const MAX_RETRY_MS = 250;

/** A text, and how many lines are missing in front of it. */
interface Waiting {
  readonly text: string;
  missing: number;
}

/** Writes texts, and drops them rather than keep the program waiting. */
export class LiveOutput {
  /** Lines that were dropped. */
  lostLines = 0;
  readonly #stream: LiveStream;
  readonly #notice: (lines: number) => string;
  readonly #trouble: (why: string) => void;
  readonly #encoder = new TextEncoder();
  #waiting: Waiting[] = [];
  #waitingCharacters = 0;
  #pumping: Promise<void> | null = null;
  #isClosed = false;
  #isTroubled = false;
  /** Lines that were dropped behind what waits, and whether the one before them was cut. */
  #missing = 0;
  #isCut = false;
  /** Counts writes that succeeded. */
  #progress = 0;

  /**
   * Writes to a stream that is open.
   * @param notice what stands where so many lines are missing
   * @param trouble told why the stream refuses text, once each time it begins
   */
  constructor(
    stream: LiveStream,
    notice: (lines: number) => string,
    trouble: (why: string) => void = () => {},
  ) {
    this.#stream = stream;
    this.#notice = notice;
    this.#trouble = trouble;
  }

  /** Does text wait for the stream? What is only worth its moment is better left out then. */
  get isBusy(): boolean {
    return this.#pumping !== null;
  }

  /** Writes a text of whole lines, sooner or later or never. */
  write(text: string): void {
    const isTooMuch = this.#waitingCharacters > 0 &&
      this.#waitingCharacters + text.length > MAX_WAITING_CHARACTERS;
    if (this.#isClosed || isTooMuch) return this.#lose(text);
    this.#waiting.push({ text, missing: this.#missing });
    this.#missing = 0;
    this.#waitingCharacters += text.length;
    this.#pumping ??= this.#pump().finally(() => this.#pumping = null);
  }

  /** Waits until everything is written, but no longer than `patienceMs` for a stream that takes nothing. */
  async settle(patienceMs: number): Promise<void> {
    for (let seen = -1; this.#pumping !== null && seen !== this.#progress;) {
      seen = this.#progress;
      let timer;
      const late = new Promise<void>((resolve) => timer = setTimeout(resolve, patienceMs));
      await Promise.race([this.#pumping, late]);
      clearTimeout(timer);
    }
    if (this.#pumping === null) return;
    this.#isClosed = true;
    for (const { text } of this.#waiting.splice(0)) this.#lose(text);
  }

  async #pump(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      this.#waitingCharacters = 0;
      const parts = batch.map(({ text, missing }) => {
        const notice = missing === 0 ? "" : `${this.#isCut ? "\n" : ""}${this.#notice(missing)}`;
        this.#isCut = false;
        return this.#encoder.encode(notice + text);
      });
      const bytes = joined(parts);
      const written = await this.#writeAll(bytes);
      if (written === bytes.length) {
        this.#isTroubled = false;
        continue;
      }
      this.#isCut = written > 0 && bytes[written - 1] !== NEWLINE;
      this.#dropUnwritten(batch, parts, written);
    }
  }

  /** What a stream has refused is missing in front of what comes next. */
  #dropUnwritten(batch: readonly Waiting[], parts: readonly Uint8Array[], written: number): void {
    const behind = this.#missing;
    this.#missing = 0;
    let end = 0;
    for (const [i, { text, missing }] of batch.entries()) {
      end += parts[i].length;
      if (end <= written) continue;
      this.#missing += missing;
      this.#lose(text);
    }
    const [next] = this.#waiting;
    if (next === undefined) this.#missing += behind;
    else {
      next.missing += this.#missing;
      this.#missing = behind;
    }
  }

  /** Returns how much the stream took before it refused the rest. */
  async #writeAll(bytes: Uint8Array): Promise<number> {
    let at = 0;
    let waitMs = RETRY_MS;
    while (at < bytes.length && !this.#isClosed) {
      try {
        at += await this.#stream.write(bytes.subarray(at));
        this.#progress++;
        waitMs = RETRY_MS;
      } catch (cause) {
        // A pipe that others have made non-blocking, and that is full.
        if (cause instanceof Deno.errors.WouldBlock) {
          await new Promise((resolve) => setTimeout(resolve, waitMs));
          waitMs = Math.min(2 * waitMs, MAX_RETRY_MS);
          continue;
        }
        if (isGone(cause)) this.#isClosed = true;
        if (!this.#isTroubled) this.#trouble(cause instanceof Error ? cause.message : String(cause));
        this.#isTroubled = true;
        break;
      }
    }
    return at;
  }

  #lose(text: string): void {
    const lines = Math.max(text.split("\n").length - 1, 1);
    this.lostLines += lines;
    this.#missing += lines;
  }
}

const NEWLINE = 10;

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Is there no other side any more? */
function isGone(cause: unknown): boolean {
  return cause instanceof Deno.errors.BrokenPipe ||
    (cause instanceof Error && "code" in cause && cause.code === "EPIPE");
}
