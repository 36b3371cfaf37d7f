/**
 * A guest of User-mode Linux that runs commands for tests and benches, at vhost-user sockets or with devices
 * of its own.
 * @module
 */
import { findUml, UmlGuest } from "../cli/guest/uml.ts";
import { umlArguments, type UmlFacts } from "../transports/vhost_user/mod.ts";
import type { Need } from "./require.ts";
import { type Line, SerialShell } from "./serial.ts";

/** Time to boot. It takes 2 to 3 s where little else runs. */
const BOOT_MS = 150_000;

/** User-mode Linux with its modules, and a busybox for it. */
export const umlKernel: Need = () => {
  try {
    return findUml().modules === null ? "the modules of user-mode-linux are missing: run .ci/install" : null;
  } catch (error) {
    return `${(error as Error).message}; or run .ci/install`;
  }
};

/** Runs each line in a shell of its own, and neither prompts nor echoes. */
const SCRIPT = `stty raw -echo
echo READY
while read -r line; do sh -c "$line" </dev/null 2>&1; done
`;

/** A guest with a shell; it ends with this object. */
export class UmlRig implements AsyncDisposable {
  /** Runs commands. */
  readonly shell: SerialShell;
  readonly #guest: UmlGuest;

  private constructor(guest: UmlGuest) {
    this.#guest = guest;
    this.shell = new SerialShell(lineOf(guest));
  }

  /**
   * Boots it, with the modules that its devices ask for.
   * @param folder a folder of its own
   * @param devices what waits at sockets; @param more further arguments for the kernel
   */
  static async start(
    folder: string,
    devices: readonly UmlFacts[],
    { memoryMiB = 128, more = [] }: { memoryMiB?: number; more?: readonly string[] } = {},
  ): Promise<UmlRig> {
    const args = [...umlArguments(devices), ...more];
    const guest = await UmlGuest.start(findUml(), { folder, args, memoryMiB, script: SCRIPT });
    try {
      await guest.ready(BOOT_MS);
      const rig = new UmlRig(guest);
      await rig.shell.ready(BOOT_MS);
      return rig;
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.shell[Symbol.dispose]();
    await this.#guest[Symbol.asyncDispose]();
  }
}

function lineOf(guest: UmlGuest): Line {
  let ahead: Uint8Array = new Uint8Array(0);
  return {
    async read(buffer) {
      while (ahead.length === 0) {
        const bytes = await guest.read();
        if (bytes === null) return null;
        ahead = bytes;
      }
      const length = Math.min(ahead.length, buffer.length);
      buffer.set(ahead.subarray(0, length));
      ahead = ahead.subarray(length);
      return length;
    },
    async write(bytes) {
      await guest.write(bytes);
      return bytes.length;
    },
    close: () => guest.kill(),
  };
}
