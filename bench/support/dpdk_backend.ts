/**
 * Our back-end on given processors, with a flood behind it.
 * @module
 */
import { Backend, SPAWN_OPTIONS } from "./backend.ts";

const FLOOD = new URL("./flood.ts", import.meta.url).href;

/** How it is. */
export interface OurOptions {
  /** Where it listens. */
  readonly socket: string;
  /** Where to write its configuration. */
  readonly file: string;
  /** Does it offer packed rings? */
  readonly packed: boolean;
  /** Queue pairs. */
  readonly pairs: number;
  /** Who works them. */
  readonly mode: "loop" | "threads";
  /** Bytes of each frame that it has for the guest, or null if it has none. */
  readonly frameBytes: number | null;
  /** The processors that it may use. */
  readonly cores: readonly number[];
}

/** Starts it on its processors; see {@linkcode Backend.start}. */
export function startDpdkBackend({ file, cores, ...options }: OurOptions): Promise<Backend> {
  return Backend.start(file, configuration(options), (commandLine) => {
    const args = ["-c", cores.join(","), ...commandLine];
    return new Deno.Command("taskset", { args, ...SPAWN_OPTIONS }).spawn();
  });
}

function configuration({ socket, packed, pairs, mode, frameBytes }: Omit<OurOptions, "file" | "cores">) {
  return {
    devices: [{
      use: "net",
      mac: "52:54:00:12:34:56",
      queuePairs: pairs,
      queueSize: 256,
      packedRing: packed,
      mode,
      driver: { use: "vhost-user", socket },
      network: { use: FLOOD, frameBytes },
      offloads: [],
    }],
  };
}
