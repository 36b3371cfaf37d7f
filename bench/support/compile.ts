/**
 * Builds the C programs of `bench/peers`, and knows how DPDK wants to be started.
 * @module
 */

/** What a peer is built from. */
export interface PeerSource {
  /** File in `bench/peers` without its suffix. */
  readonly name: string;
  /** A library that pkg-config knows, if one is needed, and the Debian package that has it. */
  readonly library?: { readonly name: string; readonly debian: string };
}

/**
 * Builds a program in `folder` and returns its path. Throws with what is missing, or what the compiler said.
 */
export async function compilePeer(source: PeerSource, folder: string): Promise<string> {
  const flags: string[][] = [[], []];
  if (source.library !== undefined) {
    const { name, debian } = source.library;
    const remedy = `install ${debian} and pkg-config`;
    flags[0] = words(await output("pkg-config", ["--cflags", name], remedy));
    flags[1] = words(await output("pkg-config", ["--libs", name], remedy));
  }
  const program = `${folder}/${source.name}`;
  const file = new URL(`../peers/${source.name}.c`, import.meta.url).pathname;
  await output("cc", ["-O2", ...flags[0], file, "-o", program, ...flags[1]], "install gcc and libc6-dev");
  return program;
}

/** A built program in C that is run to its end each time. Its file goes with this object. */
export class BuiltPeer implements Disposable {
  readonly #folder: string;
  readonly #program: string;

  private constructor(folder: string, program: string) {
    this.#folder = folder;
    this.#program = program;
  }

  /** Builds it. Throws Error with what is missing, or what the compiler said. */
  static async build(source: PeerSource): Promise<BuiltPeer> {
    const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-bench-" });
    try {
      return new BuiltPeer(folder, await compilePeer(source, folder));
    } catch (error) {
      Deno.removeSync(folder, { recursive: true });
      throw error;
    }
  }

  /** Runs it and returns the numbers that it printed. Throws Error if it fails. */
  async run(...args: number[]): Promise<number[]> {
    const { success, stdout } = await new Deno.Command(this.#program, {
      args: args.map(String),
      stderr: "inherit",
    }).output();
    if (!success) throw new Error(`${this.#program} ${args.join(" ")} has failed`);
    return words(new TextDecoder().decode(stdout)).map(Number);
  }

  /** Takes away what was built. */
  [Symbol.dispose](): void {
    Deno.removeSync(this.#folder, { recursive: true });
  }
}

/**
 * What DPDK needs to be told to run anywhere: no huge pages, no devices, one thread on any processor that is
 * ours.
 */
export function dpdkArguments(): string[] {
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))?.[1] ??
    "0";
  const memory = ["--no-huge", "-m", "512", "--no-shconf"];
  return [...memory, "--no-pci", "--no-telemetry", "--log-level", "4", "--lcores", `0@(${allowed})`];
}

async function output(program: string, args: readonly string[], remedy: string): Promise<string> {
  let result: Deno.CommandOutput;
  try {
    result = await new Deno.Command(program, { args: [...args] }).output();
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new Error(`${program} is missing: ${remedy}`, { cause });
  }
  if (!result.success) {
    throw new Error(`${program} has failed: ${remedy}. ${new TextDecoder().decode(result.stderr).trim()}`);
  }
  return new TextDecoder().decode(result.stdout);
}

function words(text: string): string[] {
  return text.trim().split(/\s+/).filter((word) => word !== "");
}
