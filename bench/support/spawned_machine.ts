/**
 * A machine in a process of its own, as users run it: `run` and a configuration with one vhost-user device.
 * @module
 */
import { UnixStream } from "../../host/unix_socket.ts";

const MAIN = new URL("../../mod.ts", import.meta.url).pathname;
/** Time to start. */
const PATIENCE_MS = 30_000;

/** What a process has used of a processor, and has in memory. */
export interface ProcessUse {
  /** Time of processors in clock ticks (10 ms as a rule), as `top` counts. */
  readonly ticks: number;
  /** The same in ms, exactly. */
  readonly cpuMs: number;
  /** Resident memory in bytes. */
  readonly residentBytes: number;
}

/** A running machine; killed with this object. */
export class SpawnedMachine implements AsyncDisposable {
  /** From the start of the process to the moment that its socket took a connection, in ms. */
  readonly startMs: number;
  readonly #child: Deno.ChildProcess;
  readonly #folder: string;
  readonly #front: UnixStream;

  private constructor(child: Deno.ChildProcess, folder: string, front: UnixStream, startMs: number) {
    this.#child = child;
    this.#folder = folder;
    this.#front = front;
    this.startMs = startMs;
  }

  /** Starts one and connects to it. Throws with what it complains of. */
  static async start(): Promise<SpawnedMachine> {
    const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-bench-" });
    const written = {
      devices: [{
        use: "net",
        driver: { use: "vhost-user", socket: "net0.sock" },
        network: "loopback",
        offloads: ["rsc-v4", "rsc-v6"],
      }],
    };
    Deno.writeTextFileSync(`${folder}/config.json`, JSON.stringify(written));
    const args = ["run", "--no-prompt", "--allow-ffi", "--allow-read", MAIN, "run", `${folder}/config.json`];
    const startedMs = performance.now();
    const child = new Deno.Command(Deno.execPath(), {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).spawn();
    try {
      const front = connect(`${folder}/net0.sock`);
      return new SpawnedMachine(child, folder, front, performance.now() - startedMs);
    } catch (cause) {
      kill(child);
      const complaint = await new Response(child.stderr).text();
      Deno.removeSync(folder, { recursive: true });
      throw new Error(`The machine did not start: ${complaint}`, { cause });
    }
  }

  /** What it has used so far. */
  use(): ProcessUse {
    return useOf(this.#child.pid);
  }

  /** Kills it, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#front[Symbol.dispose]();
    kill(this.#child);
    await Promise.all([this.#child.status, this.#child.stderr.cancel()]);
    Deno.removeSync(this.#folder, { recursive: true });
  }
}

/**
 * Tries again and again, half a millisecond apart, with the whole thread: timers of the runtime are coarse.
 */
function connect(path: string): UnixStream {
  const nothing = new Int32Array(new SharedArrayBuffer(4));
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return UnixStream.connect(path);
    } catch (error) {
      if (performance.now() > end) throw error;
      Atomics.wait(nothing, 0, 0, 0.5);
    }
  }
}

/** What the system says of a process. Ticks are those of user and system, of all threads. */
function useOf(pid: number): ProcessUse {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  // Behind the name, which may have spaces in it; the state is the third field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  let cpuNs = 0;
  for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
    cpuNs += Number(Deno.readTextFileSync(`/proc/${pid}/task/${name}/schedstat`).split(" ")[0]);
  }
  const resident = /^Rss:\s*(\d+) kB$/m.exec(Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`))![1];
  return {
    ticks: Number(fields[11]) + Number(fields[12]),
    cpuMs: cpuNs / 1e6,
    residentBytes: Number(resident) * 1024,
  };
}

function kill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch {
    // It has ended already.
  }
}
