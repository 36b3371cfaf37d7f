/**
 * A TCP connection to a guest that stays open as long as a test likes: random bytes go in, and in the end
 * both sides say what the sum of them was.
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { OURS } from "../../../rigs/kernel.ts";
import type { Namespace } from "../../../rigs/namespace.ts";
import type { SerialShell } from "../../../rigs/serial.ts";

/** Bytes written at a time. */
const CHUNK_BYTES = 65_536;
/** Time for the guest to have everything, once everything was written. */
const ARRIVAL_MS = 60_000;

/** Sends bytes to a guest, which keeps them in a file. */
export class Upload implements Disposable {
  readonly #connection: Deno.TcpConn;
  readonly #port: number;
  readonly #sum: Hash = createHash("sha256");
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  /** Bytes written so far. */
  sentBytes = 0;

  private constructor(connection: Deno.TcpConn, port: number) {
    this.#connection = connection;
    this.#port = port;
  }

  /** Has the guest listen, and connects. @param port one that this guest has not used for another */
  static async start(namespace: Namespace, shell: SerialShell, port: number): Promise<Upload> {
    const file = `/tmp/upload-${port}`;
    await shell.run(
      `(nc -l -p ${port} >${file} & echo $! >${file}.pid; wait; sha256sum <${file} >${file}.sum) >/dev/null 2>&1 & true`,
    );
    for (let tries = 0;; tries++) {
      try {
        const connecting = namespace.run(() => Deno.connect({ hostname: OURS, port }));
        return new Upload(await connecting, port);
      } catch (error) {
        if (tries === 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** Writes up to `count` further bytes, until the connection has taken them, or until `signal` aborts. */
  async send(count: number, signal?: AbortSignal): Promise<void> {
    const end = this.sentBytes + count;
    while (this.sentBytes < end && signal?.aborted !== true) {
      const chunk = this.#chunk.subarray(0, Math.min(CHUNK_BYTES, end - this.sentBytes));
      crypto.getRandomValues(chunk);
      for (let at = 0; at < chunk.length;) at += await this.#connection.write(chunk.subarray(at));
      this.#sum.update(chunk);
      this.sentBytes += chunk.length;
    }
  }

  /** Bytes that have come to the guest's file. */
  async arrivedBytes(shell: SerialShell): Promise<number> {
    return Number(await shell.run(`stat -c %s /tmp/upload-${this.#port}`));
  }

  /** The guest's side reads no more: what comes stays where the network driver has put it. */
  async pauseReader(shell: SerialShell): Promise<void> {
    await shell.run(`kill -STOP $(cat /tmp/upload-${this.#port}.pid)`);
  }

  /** It reads again. */
  async resumeReader(shell: SerialShell): Promise<void> {
    await shell.run(`kill -CONT $(cat /tmp/upload-${this.#port}.pid)`);
  }

  /** Ends the connection. Returns the sums of what was sent and of what the guest has in its file. */
  async finish(shell: SerialShell): Promise<{ sent: string; arrived: string }> {
    await this.#connection.closeWrite();
    const sum = `/tmp/upload-${this.#port}.sum`;
    const printed = await shell.run(`until [ -s ${sum} ]; do usleep 20000; done; cat ${sum}`, ARRIVAL_MS);
    return { sent: this.#sum.digest("hex"), arrived: printed.slice(0, 64) };
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#connection.close();
  }
}
