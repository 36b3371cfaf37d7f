/**
 * The monitor of a QEMU (QMP): commands in JSON over a Unix socket, one at a time.
 * @module
 */
import { connectSoon } from "./connect_soon.ts";
import { TextLineStream } from "@std/streams";

/** The monitor of a running QEMU. */
export class Qmp implements Disposable {
  readonly #connection: Deno.UnixConn;
  readonly #lines: ReadableStreamDefaultReader<string>;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    this.#lines = connection.readable.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
  }

  /** Connects as soon as the socket is there. Throws Error if that takes longer than `limitMs`. */
  static async connect(path: string, limitMs: number): Promise<Qmp> {
    const qmp = new Qmp(await connectSoon(path, limitMs));
    await qmp.run("qmp_capabilities");
    return qmp;
  }

  /**
   * Runs a command and returns its result; events that come meanwhile are passed over. Throws Error if it is
   * refused.
   */
  async run(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const text = JSON.stringify({ execute: command, arguments: args });
    const bytes = new TextEncoder().encode(`${text}\n`);
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
    while (true) {
      const { value, done } = await this.#lines.read();
      if (done) throw new Error(`QEMU has gone before it answered ${text}`);
      const answer = JSON.parse(value);
      if (answer.error !== undefined) throw new Error(`QEMU refuses ${text}: ${answer.error.desc}`);
      if ("return" in answer) return answer.return;
    }
  }

  /** Closes the connection; QEMU goes on. */
  [Symbol.dispose](): void {
    // The stream owns the connection, and closes it.
    this.#lines.cancel().catch(() => {});
  }
}
