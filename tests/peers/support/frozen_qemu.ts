/**
 * A QEMU whose guest never runs: its devices meet their back-ends, and that is all.
 * @module
 */
import { QEMU_7, type QemuProgram } from "../../../rigs/qemu_program.ts";
import { Qmp } from "../../../rigs/qmp.ts";

/** A QEMU with a stopped processor; killed with this object if it has not ended. */
export class FrozenQemu implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #qmp: Qmp;

  private constructor(process: Deno.ChildProcess, qmp: Qmp) {
    this.#process = process;
    this.#qmp = qmp;
  }

  /**
   * Starts it, and waits until its devices are made.
   * @param folder where its monitor is, its own meanwhile
   */
  static async start(
    folder: string,
    args: readonly string[],
    { command, env }: QemuProgram = QEMU_7,
  ): Promise<FrozenQemu> {
    const monitor = `${folder}/frozen-qmp.sock`;
    const [program, ...own] = command;
    const process = new Deno.Command(program, {
      args: [
        ...own,
        ...["-S", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"],
        ...["-object", "memory-backend-memfd,id=mem,size=64M,share=on", "-m", "64M"],
        ...["-machine", "q35,memory-backend=mem", "-qmp", `unix:${monitor},server=on,wait=off`],
        ...args,
      ],
      env,
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    try {
      return new FrozenQemu(process, await Qmp.connect(monitor, 20_000));
    } catch (error) {
      process.kill("SIGKILL");
      await process.status;
      throw error;
    }
  }

  /** Lets it end by itself, as a user would. Throws Error if it ends with a code other than 0. */
  async quit(): Promise<void> {
    await this.#qmp.run("quit");
    const { code } = await this.#process.status;
    if (code !== 0) throw new Error(`QEMU has ended with ${code}`);
  }

  /** Kills it if it still runs. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#qmp[Symbol.dispose]();
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await this.#process.status;
  }
}
