/**
 * Programs that coalesce, ours and others, asked line by line (see `bench/peers/peer.h`), so that they can
 * take turns.
 * @module
 */
import { BATCH_SEGMENTS } from "./coalescing.ts";
import { compilePeer, type PeerSource } from "./compile.ts";
import { LineReader } from "./line_reader.ts";

/** One measurement. */
export interface PeerOrder {
  /** 4 or 6. */
  readonly family: 4 | 6;
  /** How many flows take turns. */
  readonly flows: number;
  /** Segments of each flow between two purges. */
  readonly held: number;
  /** Bytes of data in each segment. */
  readonly payloadBytes: number;
  /** At least how many segments. */
  readonly segments: number;
  /** Is the copy of frames from the sender's buffers to be in the time? */
  readonly copy: boolean;
}

/** A running program. Dispose of it. */
export class Peer implements AsyncDisposable {
  /** What a copy of 1448 bytes cost the program after each measurement, in ns. Only ours tell. */
  readonly copiesNs: number[] = [];
  readonly #name: string;
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #reader: LineReader;
  readonly #cleanUp: () => Promise<void>;

  private constructor(name: string, program: string, args: readonly string[], cleanUp: () => Promise<void>) {
    this.#name = name;
    this.#cleanUp = cleanUp;
    this.#child = new Deno.Command(program, {
      args: [...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = new LineReader(this.#child.stdout);
  }

  /** Starts our coalescer under a rule book. */
  static ours(rules: "qemu" | "strict"): Peer {
    const script = new URL("./coalescer.ts", import.meta.url).pathname;
    return new Peer(rules, Deno.execPath(), ["run", "--allow-read", script, rules], () => Promise.resolve());
  }

  /** Builds and starts a program in C. Throws with what is missing, or what the compiler said. */
  static async inC(source: PeerSource, args: readonly string[]): Promise<Peer> {
    const folder = await Deno.makeTempDir({ prefix: "deno-virtio-bench-" });
    const cleanUp = (): Promise<void> => Deno.remove(folder, { recursive: true });
    try {
      return new Peer(source.name, await compilePeer(source, folder), args, cleanUp);
    } catch (error) {
      await cleanUp();
      throw error;
    }
  }

  /** ns per segment. Throws if the program died, or payload got lost in it. */
  async measure(order: PeerOrder): Promise<number> {
    const { family, flows, held, payloadBytes, segments, copy } = order;
    const words = [family, flows, held, payloadBytes, segments, copy ? 1 : 0];
    await this.#writer.write(new TextEncoder().encode(`${words.join(" ")}\n`));
    const line = await this.#reader.read();
    if (line === null) throw new Error(`${this.#name} has ended early: see what it said above`);
    const [ns, units, bytes, ...copiesNs] = line.split(" ").map(Number);
    this.copiesNs.push(...copiesNs);
    const due = Math.max(flows * held, BATCH_SEGMENTS);
    if (bytes !== due * payloadBytes || units > due / 4) {
      throw new Error(
        `${this.#name} made ${units} units with ${bytes} bytes from ${due} segments of ${payloadBytes} bytes`,
      );
    }
    return ns;
  }

  /** Ends it and takes away what was built. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#reader.cancel();
    await this.#child.status;
    await this.#cleanUp();
  }
}
