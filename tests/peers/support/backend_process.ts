/**
 * Our back-end as a process of its own, as users run it: it can be killed, and be asked to stop.
 * @module
 */
import { TextLineStream } from "@std/streams";
import type { Namespace } from "../../../rigs/namespace.ts";

const MAIN = new URL("../../../mod.ts", import.meta.url).href;
/** Time to start, to answer, or to stop. */
const PATIENCE_MS = 30_000;

/** Counters by group. */
export type Counters = Readonly<Record<string, Readonly<Record<string, number>>>>;

interface Event {
  readonly event: "started" | "counters" | "stopped";
  readonly counters: Counters;
}

/** A running back-end; killed with this object, unless it has ended. */
export class BackendProcess implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  readonly #complaints: Promise<string>;
  #seen: Event[] = [];
  #ended = false;
  #changed = Promise.withResolvers<void>();

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#reading = this.#read();
    this.#complaints = new Response(process.stderr).text();
  }

  /**
   * Starts it in a network, with the permissions that the manual asks for, and waits until its devices are
   * served. Throws Error with what it complains of.
   * @param file where to write the configuration
   */
  static async start(namespace: Namespace, file: string, config: unknown): Promise<BackendProcess> {
    Deno.writeTextFileSync(file, JSON.stringify(config));
    const args = ["run", "--no-prompt", "--allow-ffi", "--allow-read", MAIN, "run", file, "--json"]
      .concat("--stats-interval-s", "0.1");
    const options = { args, stdin: "null", stdout: "piped", stderr: "piped" } as const;
    const backend = new BackendProcess(
      namespace.run(() => new Deno.Command(Deno.execPath(), options).spawn()),
    );
    try {
      await backend.#next("started");
    } catch (error) {
      await backend.kill();
      throw error;
    }
    return backend;
  }

  /** Its open descriptors: number and what it stands for. */
  get descriptors(): string[] {
    const folder = `/proc/${this.#process.pid}/fd`;
    return [...Deno.readDirSync(folder)].map(({ name }) => `${name} ${linkIn(folder, name)}`).sort();
  }

  /** Mappings of files in memory, which is what guests are made of. */
  get guestMappings(): number {
    return this.#lineCount("maps", /\/memfd:/);
  }

  /** All its mappings. */
  get mappings(): number {
    return this.#lineCount("maps", /-/);
  }

  /** Memory in use, in bytes, without that of guests and files. */
  get anonymousBytes(): number {
    const status = Deno.readTextFileSync(`/proc/${this.#process.pid}/status`);
    return 1024 * Number(/^RssAnon:\s*(\d+) kB/m.exec(status)?.[1]);
  }

  /** Its counters, looked at after this was called. */
  async counters(): Promise<Counters> {
    this.#seen = [];
    return (await this.#next("counters")).counters;
  }

  /**
   * Waits until its counters are as wanted, and returns them. Throws Error with the last ones if that takes
   * ten seconds.
   */
  async until(what: string, isSo: (counters: Counters) => boolean): Promise<Counters> {
    const endMs = Date.now() + 10_000;
    while (true) {
      const counters = await this.counters();
      if (isSo(counters)) return counters;
      if (Date.now() > endMs) {
        throw new Error(`It did not come to this: ${what}: ${JSON.stringify(counters)}`);
      }
    }
  }

  /** Asks it to stop. Returns its exit code, its last counters, and what it complained of. */
  async stop(): Promise<{ code: number; counters: Counters; complaints: string }> {
    this.#process.kill("SIGTERM");
    const { counters } = await this.#next("stopped");
    const { code } = await this.#process.status;
    return { code, counters, complaints: await this.#complaints };
  }

  /** Kills it: it learns nothing of it. */
  async kill(): Promise<void> {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await Promise.all([this.#process.status, this.#reading, this.#complaints]);
  }

  /** As `kill`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.kill();
  }

  async #read(): Promise<void> {
    const lines = this.#process.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream());
    for await (const line of lines) {
      this.#seen.push(JSON.parse(line));
      this.#change();
    }
    this.#ended = true;
    this.#change();
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  /** Waits for an event, and forgets those before it. */
  async #next(wanted: Event["event"]): Promise<Event> {
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), PATIENCE_MS);
    try {
      while (true) {
        const at = this.#seen.findIndex(({ event }) => event === wanted);
        if (at >= 0) return this.#seen.splice(0, at + 1)[at];
        if (this.#ended) {
          throw new Error(`The back-end has ended before "${wanted}": ${await this.#complaints}`);
        }
        await this.#changed.promise;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  #lineCount(file: string, like: RegExp): number {
    return Deno.readTextFileSync(`/proc/${this.#process.pid}/${file}`).split("\n").filter((line) =>
      like.test(line)
    ).length;
  }
}

function linkIn(folder: string, name: string): string {
  try {
    // Sockets and pipes are told by number: another one of the same kind is as good.
    return Deno.readLinkSync(`${folder}/${name}`).replace(/\[\d+\]/, "");
  } catch {
    return "gone";
  }
}
