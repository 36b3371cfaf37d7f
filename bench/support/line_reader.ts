/**
 * Lines out of a stream.
 * @module
 */

/** Reads a stream of bytes line by line. */
export class LineReader {
  readonly #reader: ReadableStreamDefaultReader<string>;
  #unread = "";

  /** Takes the stream over. */
  constructor(stream: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** The next line without its end; null at the end of the stream. */
  async read(): Promise<string | null> {
    let end = this.#unread.indexOf("\n");
    while (end < 0) {
      const { value, done } = await this.#reader.read();
      if (done) return null;
      this.#unread += value;
      end = this.#unread.indexOf("\n");
    }
    const line = this.#unread.slice(0, end);
    this.#unread = this.#unread.slice(end + 1);
    return line;
  }

  /** Reads no more. */
  async cancel(): Promise<void> {
    await this.#reader.cancel().catch(() => {});
  }
}
