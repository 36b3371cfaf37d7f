/**
 * QEMU's test socket (qtest): ports and memory of a guest from outside, so that a program can be the guest's
 * driver.
 *
 * One command a line, one answer a line, in turn. The guest's processor is not needed: it halts for ever.
 * @module
 */
import { connectSoon } from "../../../rigs/connect_soon.ts";
import { TextLineStream } from "@std/streams";

/** Sizes of an access, in bytes, and the letters by which commands are told apart. */
const LETTERS = { 1: "b", 2: "w", 4: "l" } as const;

/** Bytes of one access. */
export type AccessBytes = keyof typeof LETTERS;

/** The test socket of a running QEMU. */
export class Qtest implements Disposable {
  readonly #connection: Deno.UnixConn;
  readonly #lines: ReadableStreamDefaultReader<string>;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    this.#lines = connection.readable.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  /** Connects as soon as the socket is there. Throws Error if that takes longer than `limitMs`. */
  static async connect(path: string, limitMs: number): Promise<Qtest> {
    return new Qtest(await connectSoon(path, limitMs));
  }

  /** Reads an I/O port. */
  async in(size: AccessBytes, port: number): Promise<number> {
    return Number(await this.#run(`in${LETTERS[size]} ${hex(port)}`));
  }

  /** Writes an I/O port. */
  async out(size: AccessBytes, port: number, value: number): Promise<void> {
    await this.#run(`out${LETTERS[size]} ${hex(port)} ${hex(value)}`);
  }

  /** Reads a register, or memory, at a guest physical address. */
  async read(size: AccessBytes, address: number): Promise<number> {
    return Number(await this.#run(`read${LETTERS[size]} ${hex(address)}`));
  }

  /** Writes a register, or memory, at a guest physical address. */
  async write(size: AccessBytes, address: number, value: number): Promise<void> {
    await this.#run(`write${LETTERS[size]} ${hex(address)} ${hex(value)}`);
  }

  /** Copies memory out of the guest. @param lengthBytes 1 or more */
  async readBytes(address: number, lengthBytes: number): Promise<Uint8Array<ArrayBuffer>> {
    return Uint8Array.fromBase64(await this.#run(`b64read ${hex(address)} ${hex(lengthBytes)}`));
  }

  /** Copies memory into the guest. @param bytes one or more */
  async writeBytes(address: number, bytes: Uint8Array): Promise<void> {
    await this.#run(`b64write ${hex(address)} ${hex(bytes.length)} ${bytes.toBase64()}`);
  }

  /** Closes the connection; QEMU goes on. */
  [Symbol.dispose](): void {
    // The stream owns the connection, and closes it.
    this.#lines.cancel().catch(() => {});
  }

  /** Carries a command out and returns what follows `OK`. Throws Error if it is refused, or QEMU has gone. */
  async #run(command: string): Promise<string> {
    const bytes = new TextEncoder().encode(`${command}\n`);
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
    const { value, done } = await this.#lines.read();
    const what = command.slice(0, 60);
    if (done) throw new Error(`QEMU has gone before it answered "${what}"`);
    const [word, result = ""] = value.split(" ");
    if (word !== "OK") throw new Error(`QEMU answers "${value}" to "${what}"`);
    return result;
  }
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
