import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { pathToFileURL } from "node:url";
import { newRegistry } from "../../config/builtins.ts";
import { ConfigError } from "../../config/errors.ts";
import { loadConfig, parseConfig } from "../../config/load.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import { command, projectPath, withFolder } from "../cli/support/command.ts";

/**
 * Files of a machine are compared by device and inode, and nothing is emptied before all of them were.
 */

const CAPTURE = projectPath("tests/captures/request_response_v4.pcapng");

function device(network: unknown, offloads: unknown[] = []): Record<string, unknown> {
  return { use: "net", driver: "loopback", network, offloads };
}

async function build(folder: string, ...devices: unknown[]): Promise<Machine> {
  const path = `${folder}/config.json`;
  await Deno.writeTextFile(path, JSON.stringify({ clock: "virtual", devices }));
  return buildMachine(await loadConfig(path, newRegistry()));
}

/** What a folder holds, by name: the sums of files. */
async function contents(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { name, isFile } of Deno.readDir(folder)) {
    if (isFile) {
      found[name] = createHash("sha256").update(await Deno.readFile(`${folder}/${name}`)).digest("hex");
    }
  }
  return found;
}

/** Each way of naming one file twice: what is made in the folder, and the networks of two devices. */
const TWICE: Record<string, (folder: string) => [first: unknown, second: unknown]> = {
  "write over read by a symbolic link": (folder) => {
    Deno.symlinkSync(`${folder}/in.pcapng`, `${folder}/link.pcapng`);
    return ["loopback", { use: "pcap", read: "in.pcapng", write: "link.pcapng" }];
  },
  "write over read by a hard link": (folder) => {
    Deno.linkSync(`${folder}/in.pcapng`, `${folder}/link.pcapng`);
    return ["loopback", { use: "pcap", read: "in.pcapng", write: "link.pcapng" }];
  },
  "write over what a later device reads": (folder) => {
    Deno.linkSync(`${folder}/in.pcapng`, `${folder}/link.pcapng`);
    return [{ use: "pcap", write: "link.pcapng" }, { use: "pcap", read: "in.pcapng" }];
  },
  "two devices write one file that is there": () => [
    { use: "pcap", write: "old.pcapng" },
    { use: "pcap", write: "./old.pcapng" },
  ],
  "two devices write one new file by a folder that is a link": (folder) => {
    Deno.mkdirSync(`${folder}/real`);
    Deno.symlinkSync("real", `${folder}/alias`);
    return [{ use: "pcap", write: "real/new.pcapng" }, { use: "pcap", write: "alias/new.pcapng" }];
  },
  "two devices write one new file by a link that leads nowhere yet": (folder) => {
    Deno.symlinkSync("new.pcapng", `${folder}/dangling.pcapng`);
    return [{ use: "pcap", write: "dangling.pcapng" }, { use: "pcap", write: "new.pcapng" }];
  },
  "a recorder writes over what its inner network reads": (folder) => {
    Deno.symlinkSync("in.pcapng", `${folder}/link.pcapng`);
    return ["loopback", { use: "pcap", write: "link.pcapng", inner: { use: "pcap", read: "in.pcapng" } }];
  },
  "a recorder and its inner network write one file": () => [
    "loopback",
    { use: "pcap", write: "old.pcapng", inner: { use: "pcap", write: "old.pcapng" } },
  ],
  "write over the configuration": (folder) => {
    Deno.symlinkSync("config.json", `${folder}/link.pcapng`);
    return ["loopback", { use: "pcap", write: "link.pcapng" }];
  },
  "write over read by the folder above that to which a symbolic link leads": (folder) => {
    Deno.mkdirSync(`${folder}/a/b`, { recursive: true });
    Deno.symlinkSync("a/b", `${folder}/link`);
    return [
      { use: "pcap", read: `${folder}/link/../../in.pcapng` },
      { use: "pcap", write: "./link/../../in.pcapng" },
    ];
  },
  "two devices write one new file by a link through the folder above another link": (folder) => {
    Deno.mkdirSync(`${folder}/a/b`, { recursive: true });
    Deno.symlinkSync("a/b", `${folder}/link`);
    Deno.symlinkSync("link/../../new.pcapng", `${folder}/dangling.pcapng`);
    return [{ use: "pcap", write: "dangling.pcapng" }, { use: "pcap", write: "new.pcapng" }];
  },
  "write over a descriptor's file": (folder) => [
    { use: "pcap", read: `${folder}/in.pcapng` },
    { use: "pcap", write: `/proc/self/cwd/${relativeTo(Deno.cwd(), `${folder}/in.pcapng`)}` },
  ],
};

function relativeTo(from: string, to: string): string {
  return from.split("/").slice(1).map(() => "..").join("/") + to;
}

for (const [name, prepare] of Object.entries(TWICE)) {
  Deno.test(`a machine is refused, and nothing is touched: ${name}`, async () => {
    await withFolder(async (folder) => {
      await Deno.copyFile(CAPTURE, `${folder}/in.pcapng`);
      await Deno.writeTextFile(`${folder}/old.pcapng`, "the recording of yesterday");
      const [first, second] = prepare(folder);
      const devices = [device(first), device(second)];
      await Deno.writeTextFile(
        `${folder}/config.json`,
        JSON.stringify({ clock: "virtual", devices }),
      );
      const before = await contents(folder);
      const error = await assertRejects(() => build(folder, ...devices), ConfigError);
      assertStringIncludes(error.message, "choose another file");
      assertEquals(error.issues[0].path.startsWith("$.devices["), true, error.message);
      assertEquals(await contents(folder), before);
    });
  });
}

Deno.test("a machine is refused that would write over the module of its own plugin", async () => {
  await withFolder(async (folder) => {
    const module = `import { defineOffload, perFrame } from "${projectPath("plugin.ts")}";
      import { z } from "zod";
      export default defineOffload({
        name: "own", direction: "toGuest", options: z.strictObject({}), create: () => perFrame((frame, output) => output.push(frame)),
      });`;
    await Deno.writeTextFile(`${folder}/own.ts`, module);
    await Deno.link(`${folder}/own.ts`, `${folder}/out.pcapng`);
    for (const offload of ["./own.ts", { use: "./own.ts" }]) {
      const error = await assertRejects(
        () => build(folder, device({ use: "pcap", write: "out.pcapng" }, [offload])),
        ConfigError,
      );
      assertStringIncludes(error.message, 'by the plugin "./own.ts"');
      assertEquals(await Deno.readTextFile(`${folder}/own.ts`), module);
    }
  });
});

Deno.test("a file is emptied and begun when its machine starts, and not before", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/old.pcapng`, "the recording of yesterday");
    {
      await using _ = await build(
        folder,
        device({ use: "pcap", write: "old.pcapng" }),
        device({ use: "pcap", write: "new.pcapng" }),
      );
      await new Promise((resolve) => setTimeout(resolve, 20));
      assertEquals(Deno.statSync(`${folder}/new.pcapng`).size, 0);
    }
    assertEquals(await Deno.readTextFile(`${folder}/old.pcapng`), "the recording of yesterday");
    assertThrows(() => Deno.statSync(`${folder}/new.pcapng`), Deno.errors.NotFound);
    await using machine = await build(folder, device({ use: "pcap", write: "old.pcapng" }));
    machine.start();
    await new Promise((resolve) => setTimeout(resolve, 20));
    assertEquals((await Deno.readFile(`${folder}/old.pcapng`)).subarray(0, 4), Uint8Array.of(10, 13, 13, 10));
  });
});

Deno.test("devices may read one capture, share /dev/null, and follow each other in one file", async () => {
  await withFolder(async (folder) => {
    const read = { use: "pcap", read: CAPTURE, write: "/dev/null" };
    for (let run = 0; run < 2; run++) {
      await using machine = await build(
        folder,
        device(read),
        device(read),
        device({ use: "pcap", write: "x.pcapng" }),
      );
      machine.start();
      await machine.run(new AbortController().signal);
    }
    assert(Deno.statSync(`${folder}/x.pcapng`).size > 0);
  });
});

Deno.test("a FIFO that nothing reads is refused at once", async () => {
  await withFolder(async (folder) => {
    await new Deno.Command("mkfifo", { args: [`${folder}/fifo`] }).output();
    const error = await assertRejects(() => build(folder, device({ use: "pcap", write: "fifo" })), Error);
    assertStringIncludes(error.message, "nothing reads this FIFO");
  });
});

Deno.test("a library that is given a configuration as text is protected as well", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/program.ts`, "// This program.");
    const text = JSON.stringify({ devices: [device({ use: "pcap", write: `${folder}/program.ts` })] });
    const config = await parseConfig(text, pathToFileURL(`${folder}/program.ts`), newRegistry());
    assertStringIncludes(assertThrows(() => buildMachine(config), ConfigError).message, "the configuration");
    assertEquals(await Deno.readTextFile(`${folder}/program.ts`), "// This program.");
  });
});

Deno.test("check finds the same, and touches nothing", async () => {
  for (const prepare of Object.values(TWICE)) {
    await withFolder(async (folder) => {
      await Deno.copyFile(CAPTURE, `${folder}/in.pcapng`);
      await Deno.writeTextFile(`${folder}/old.pcapng`, "the recording of yesterday");
      const [first, second] = prepare(folder);
      await Deno.writeTextFile(
        `${folder}/config.json`,
        JSON.stringify({ clock: "virtual", devices: [device(first), device(second)] }),
      );
      const before = await contents(folder);
      const { code, err } = await command(["check", `${folder}/config.json`]);
      assertEquals(code, 2, err);
      assertStringIncludes(err, "choose another file");
      assertEquals(await contents(folder), before);
    });
  }
});
