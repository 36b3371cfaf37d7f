/**
 * A shell in a guest, at the other end of a serial port: works without a network, and survives a migration.
 *
 * The guest runs each line in a shell of its own, which neither prompts nor echoes. What a command prints is
 * all that comes up to a line that no command prints, with the exit code in it. One command runs at a time.
 * @module
 */
import { connectSoon } from "./connect_soon.ts";

/** Most characters of what a guest printed that an error repeats. */
const SHOWN = 2000;

/** What a shell is at the other end of: reads as a connection of the runtime does. */
export interface Line {
  read(buffer: Uint8Array): Promise<number | null>;
  write(bytes: Uint8Array): Promise<number>;
  close(): void;
}

/** The shell behind a Unix socket, or behind another line. */
export class SerialShell implements Disposable {
  readonly #connection: Line;
  readonly #decoder = new TextDecoder();
  #received = "";
  #commands = 0;
  #isOver = false;

  /** @param connection a line that is open, and closed with this object */
  constructor(connection: Line) {
    this.#connection = connection;
  }

  /** Connects as soon as the socket is there. Throws Error if that takes longer than `limitMs`. */
  static async connect(path: string, limitMs: number): Promise<SerialShell> {
    return new SerialShell(await connectSoon(path, limitMs));
  }

  /** Waits until the guest has started its shell. Throws Error if that takes longer than `limitMs`. */
  async ready(limitMs: number): Promise<void> {
    await this.#until(/^READY\n/m, limitMs, "the start of the shell");
  }

  /**
   * Runs a command and returns what it printed. Throws Error with that if it fails or takes longer than
   * `limitMs`.
   * @param command one line of the Bourne shell; it gets no input, and a shell of its own
   */
  async run(command: string, limitMs = 20_000): Promise<string> {
    const mark = `=== end of command ${++this.#commands}:`;
    const text = `{ ${command}; }; echo "${mark} $?"\n`;
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
    const [printed, code] = await this.#until(new RegExp(`${mark} (\\d+)\n`), limitMs, command);
    if (code !== "0") throw new Error(`In the guest, "${command}" ended with ${code}: ${printed}`);
    return printed;
  }

  /** What came before the end that is waited for, and the first group of it. */
  async #until(end: RegExp, limitMs: number, what: string): Promise<[string, string]> {
    const timer = setTimeout(() => this[Symbol.dispose](), limitMs);
    const buffer = new Uint8Array(4096);
    try {
      while (true) {
        const found = end.exec(this.#received);
        if (found !== null) {
          const before = this.#received.slice(0, found.index);
          this.#received = this.#received.slice(found.index + found[0].length);
          return [before, found[1] ?? ""];
        }
        const count = await this.#connection.read(buffer);
        if (count === null) throw new Error("the guest has closed the port");
        this.#received += this.#decoder.decode(buffer.subarray(0, count), { stream: true });
      }
    } catch (cause) {
      const why = this.#isOver ? `took longer than ${limitMs} ms` : `was cut short (${cause})`;
      throw new Error(`In the guest, "${what}" ${why}; it printed: ${this.#received.slice(-SHOWN)}`, {
        cause,
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes the connection; the guest goes on. */
  [Symbol.dispose](): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#connection.close();
  }
}
