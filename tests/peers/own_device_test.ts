import { assert, assertEquals } from "@std/assert";
import type { DeviceEvent } from "../../core/device.ts";
import { buildMachine, type Machine, newRegistry, parseConfig } from "../../mod.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { umlKernel, UmlRig } from "../../rigs/uml.ts";

/**
 * A device from outside the tree, with a slot of a kind of its own and requests in flight
 * (`examples/async_disk.ts`), in front of the block driver of a real Linux: in the main thread, and served by
 * a queue worker.
 */

const ROOT = new URL("../../", import.meta.url);
const COMMAND_MS = 60_000;
/** When a command that takes less than a second counts as one that stands still. */
const STALL_MS = 50_000;
const BLOCK = 2;
const SECTORS = 2048;

/** Copies the example into a folder of its own, as an author would have it. */
async function copyExample(folder: string): Promise<void> {
  for (const name of ["async_disk.ts", "async_disk_ram.ts"]) {
    const text = await Deno.readTextFile(new URL(`examples/${name}`, ROOT));
    await Deno.writeTextFile(
      `${folder}/${name}`,
      text.replaceAll("../plugin.ts", new URL("plugin.ts", ROOT).href)
        .replaceAll('"zod"', JSON.stringify(import.meta.resolve("zod"))),
    );
  }
}

/**
 * Tells who has missed what when a command stands still: asking for counters wakes a worker, which then looks
 * at its ring. If reads go on after that, it had missed a kick or a completion; if they do not, all that was
 * asked for was answered, and the guest has missed an interrupt, or waits for something else.
 */
async function stall(machine: Machine, command: string): Promise<object> {
  const { ...before } = machine.counters["async-disk0"];
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { ...after } = machine.counters["async-disk0"];
  return { command, before, after };
}

/** What the disk holds at first: see `async_disk_ram.ts`. */
const CONTENT = Uint8Array.from({ length: SECTORS * 512 }, (_, i) => i * 7 + (i >>> 9));

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

for (const mode of ["loop", "threads"]) {
  hostTest(
    `User-mode Linux reads and writes a disk of a device from outside the tree, whose requests are in flight (${mode})`,
    [linux, umlKernel],
    async () => {
      const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-own-" });
      try {
        await copyExample(folder);
        const socket = `${folder}/disk.sock`;
        const written = {
          devices: [{
            use: "./async_disk.ts",
            mode,
            driver: { use: "vhost-user", socket, profile: "uml" },
            disk: { use: "./async_disk_ram.ts", sectors: SECTORS, delayMs: 1 },
          }],
        };
        const base = new URL(`file://${folder}/config.json`);
        const events: DeviceEvent[] = [];
        await using machine = buildMachine(await parseConfig(JSON.stringify(written), base, newRegistry()), {
          events: (_device, event) => void events.push(event),
        });
        machine.start();
        const stop = new AbortController();
        const running = machine.run(stop.signal);
        const stalls: Promise<object>[] = [];
        {
          await using guest = await UmlRig.start(folder, [{ socket, type: BLOCK }]);
          const run = async (command: string) => {
            const answer = guest.shell.run(command, COMMAND_MS);
            const late = setTimeout(() => stalls.push(stall(machine, command)), STALL_MS);
            try {
              const printed = await answer;
              // Asking may have got it going again: that does not make it good.
              assertEquals(stalls.length, 0, `"${command}" stood still`);
              return printed.trim();
            } catch (cause) {
              const facts = JSON.stringify({ stalls: await Promise.all(stalls), events });
              throw new Error(`${(cause as Error).message}; ${facts}`, { cause });
            } finally {
              clearTimeout(late);
            }
          };
          assertEquals(await run("cat /sys/block/vda/size"), String(SECTORS));
          assertEquals((await run("sha256sum /dev/vda")).split(" ")[0], await sha256(CONTENT));
          await run("dd if=/dev/zero of=/dev/vda bs=4096 seek=3 count=5 oflag=direct; sync");
          await run("echo 3 > /proc/sys/vm/drop_caches");
          const changed = CONTENT.slice().fill(0, 3 * 4096, 8 * 4096);
          assertEquals((await run("sha256sum /dev/vda")).split(" ")[0], await sha256(changed));
        }
        const { reads, writes, errors } = machine.counters["async-disk0"];
        assert(reads > 8 && writes > 0 && errors === 0, JSON.stringify({ reads, writes, errors }));
        stop.abort();
        await running;
      } finally {
        Deno.removeSync(folder, { recursive: true });
      }
    },
  );
}
