/**
 * A machine that runs by a configuration file, as a user would write it.
 * @module
 */
import { assertEquals } from "@std/assert";
import { newRegistry } from "../../../config/builtins.ts";
import { loadConfig } from "../../../config/load.ts";
import type { PluginRegistry } from "../../../config/registry.ts";
import { buildMachine } from "../../../machine/build.ts";
import type { Machine } from "../../../machine/machine.ts";
import type { VhostUserTransport } from "../../../transports/vhost_user/mod.ts";
import { framePool } from "../../../pipeline/kinds.ts";

/** A running machine in a folder of its own; stopped with this object, and then the folder is gone. */
export class FileMachine implements AsyncDisposable {
  readonly machine: Machine;
  /** Where the file is, and where paths in it start from. */
  readonly folder: string;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  private constructor(machine: Machine, folder: string) {
    this.machine = machine;
    this.folder = folder;
    machine.start();
    this.#running = machine.run(this.#stop.signal);
    // The failure is told when it is stopped.
    this.#running.catch(() => {});
  }

  /**
   * Writes a file with these devices, and runs what it describes.
   * @param registry where plugins come from; the built-in ones if left out
   */
  static async start(
    devices: readonly unknown[],
    registry: PluginRegistry = newRegistry(),
  ): Promise<FileMachine> {
    const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-machine-" });
    try {
      const path = `${folder}/config.json`;
      Deno.writeTextFileSync(path, JSON.stringify({ devices }, null, 2));
      return new FileMachine(buildMachine(await loadConfig(path, registry)), folder);
    } catch (error) {
      Deno.removeSync(folder, { recursive: true });
      throw error;
    }
  }

  /** The driver of a device: it must be a vhost-user one. */
  driver(index: number): VhostUserTransport {
    return this.machine.devices[index].driver as VhostUserTransport;
  }

  /** A group of counters, live. */
  counters(group: string): Readonly<Record<string, number>> {
    return this.machine.counters[group];
  }

  /** The machine's time, in ns. */
  nowNs(): number {
    return this.machine.parts.reactor.clock.nowNs();
  }

  /**
   * What went against the rules of protocol and rings, by group and name; messages that were refused are
   * among it.
   */
  faults(): Record<string, number> {
    const found: Record<string, number> = {};
    for (const [group, counters] of Object.entries(this.machine.counters)) {
      for (const [name, value] of Object.entries(counters)) {
        if (/^(fault_|refused$)/.test(name) && value > 0) found[`${group}.${name}`] = value;
      }
    }
    return found;
  }

  /** Stops it. Every frame must be back. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    try {
      await this.#running;
      await this.machine.close();
      assertEquals(framePool(this.machine.parts.scope).inUse, 0);
    } finally {
      Deno.removeSync(this.folder, { recursive: true });
    }
  }
}
