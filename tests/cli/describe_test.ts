import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { command, projectPath, withFolder } from "./support/command.ts";

/**
 * What `check` tells of plugins that are not built in: they say it themselves, by the hooks that the built-in
 * ones have.
 */

const DISK = `
import { definePart } from "${projectPath("plugin.ts")}";
import { z } from "zod";
export default definePart({
  kind: "disk",
  name: "image",
  options: z.strictObject({ file: z.string(), sectors: z.int().default(8) }),
  create() { throw new Error("must not be opened"); },
  preview: (_context, { sectors }) => ({ sectors }),
  hints: ({ sectors }, { path, built, agreed, frontEnds }) => sectors >= 8 ? [] : [{
    path,
    value: sectors,
    problem: \`sectors are few for \${built.name}; agreed \${agreed === null ? "nothing" : agreed}; \` +
      frontEnds.map(({ name, features }) => name + " " + features.get(32)).join(),
    remedy: "write more",
  }],
  describe: ({ file, sectors }, { path, absolutePath, made }) => ({
    lines: [["capacity", \`\${sectors * 512} bytes, \${made.disk.sectors} sectors\\x1b[2J\`]],
    offers: ["and FLUSH, if the file system can"],
    json: { bytes: sectors * 512, use: "lies" },
    needs: [{
      path: \`\${path}.file\`, file: absolutePath(file), use: "open",
      missing: "make it with truncate", unseen: () => "whether the disk is full: df",
    }],
  }),
});`;

const STORE = `
import { entropy } from "${projectPath("devices/entropy/mod.ts")}";
export default {
  ...entropy, name: "store", frontEnd: { type: "block" },
  slots: { disk: { kind: "disk", required: true }, mirrors: { kind: "disk", many: true } },
  describe: () => ({ lines: [["made of", "sectors"]], json: { sectorBytes: 512, name: "no", driver: 5 } }),
};`;

async function inStore(
  devices: readonly object[],
  look: (folder: string, config: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/disk.ts`, DISK);
    await Deno.writeTextFile(`${folder}/store.ts`, STORE);
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ devices }));
    await Deno.writeTextFile(`${folder}/there`, "");
    await look(folder, `${folder}/config.json`);
  });
}

const disk = { use: "./disk.ts", file: "there" };
const driver = { use: "vhost-user", socket: "/tmp/describe_test.sock", memory: "sealed" };

Deno.test("check tells what plugins of a third party say of themselves, to people and in JSON, and opens none", async () => {
  const mirrors = [{ ...disk, sectors: 2 }, disk];
  await inStore([{ use: "./store.ts", driver, disk, mirrors }], async (_folder, config) => {
    const { code, out } = await command(["check", config]);
    assertEquals(code, 0, out);
    for (
      const line of [
        "\n  made of     sectors\n",
        "\n  disk        image: sectors 8, file there\n  capacity    4096 bytes, 8 sectors\\u001b[2J\n  mirrors     1. image: sectors 2, file there\n              2. image: sectors 8, file there\n",
        "not seen    whether the disk is full: df",
      ]
    ) assertStringIncludes(out, line);
    const said = out.replace(/\s+/g, " ");
    assertStringIncludes(
      said,
      "2 sectors are few for store0; agreed nothing; qemu agreed,uml agreed; write more",
    );
    assertEquals(said.split("and FLUSH, if the file system can").length, 2);
    assert(!out.includes("network") && !out.includes("to guest"), out);
    const json = JSON.parse((await command(["check", config, "--json"])).out);
    const [device] = json.devices;
    assertEquals(device.disk, { bytes: 4096, use: "image", options: { sectors: 8, file: "there" } });
    assertEquals(device.mirrors.map(({ bytes }: { bytes: number }) => bytes), [1024, 4096]);
    assertEquals([device.sectorBytes, device.name, device.driver.use], [512, "store0", "vhost-user"]);
    assertEquals(Object.keys(device.options), ["queueSize", "packedRing"]);
  });
});

Deno.test("check fails where a plugin of a third party says that something is missing on this host", async () => {
  await inStore([{ use: "./store.ts", driver, disk: { ...disk, file: "gone" } }], async (folder, config) => {
    const { code, out } = await command(["check", config]);
    assertEquals(code, 1, out);
    const said = out.replace(/\s+/g, " ").replaceAll(folder, "F");
    assertStringIncludes(said, '$.devices[0].disk.file: "F/gone" is not there; make it with truncate');
  });
});

Deno.test("check negotiates for a third party's plugins, and has them told what was agreed", async () => {
  const device = { use: "./store.ts", driver: "loopback", disk: { ...disk, sectors: 1 } };
  await inStore([device], async (_folder, config) => {
    const { code, out, err } = await command(["check", config]);
    assertEquals([code, err], [0, ""]);
    const said = out.replace(/\s+/g, " ");
    assertStringIncludes(said, "1 sectors are few for store0; agreed ");
    assert(!said.includes("agreed nothing"), said);
  });
});

const NETWORK = `
import { defineNetwork, NetworkPreview, OffloadCapabilities } from "${projectPath("plugin.ts")}";
import { z } from "zod";
export default defineNetwork({
  name: "wire",
  options: z.strictObject({ looks: z.string() }),
  create() { throw new Error("must not be opened"); },
  preview({ queuePairs }, { looks }) {
    if (looks === "fails") throw new Error("no look");
    if (looks === "late") return Promise.resolve();
    return new NetworkPreview(queuePairs, OffloadCapabilities.of("csum"), {
      capabilities: OffloadCapabilities.of("csum", "tso4"), condition: "the wire is new",
    });
  },
});`;

Deno.test("check knows what a third party's network may do, by its preview, also behind a recorder", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/wire.ts`, NETWORK);
    const check = async (network: object) => {
      const devices = [{ use: "net", driver: "loopback", network }];
      await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ devices }));
      const { code, out, err } = await command(["check", `${folder}/config.json`]);
      return { code, said: `${out}${err}`.replace(/\s+/g, " ") };
    };
    const wire = { use: "./wire.ts", looks: "well" };
    for (const network of [wire, { use: "pcap", write: "a.pcap", inner: wire }]) {
      const { code, said } = await check(network);
      assertEquals(code, 0, said);
      assertStringIncludes(said, "; and HOST_TSO4, if the wire is new");
      assertStringIncludes(said, " offers CSUM, ");
      assert(!said.includes("it was not opened"), said);
    }
    for (const [looks, told] of [["fails", "no look"], ["late", "it returned a promise"]]) {
      const { code, said } = await check({ ...wire, looks });
      assertEquals(code, 1, said);
      assertStringIncludes(said, `$.devices[0].network: plugin "wire" failed in preview: ${told}`);
    }
  });
});

Deno.test("check tells an offload that its own words make idle, and an offload that cannot tell", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/stage.ts`,
      `import { defineOffload, perFrame } from "${projectPath("plugin.ts")}";
       import { z } from "zod";
       export default defineOffload({
         name: "idle", direction: "toGuest", options: z.strictObject({ bits: z.unknown() }),
         idleWithout: ({ bits }) => bits,
         create: () => perFrame((frame, output) => output.push(frame)),
       });`,
    );
    const check = async (bits: unknown) => {
      const driver = { use: "loopback", accept: ["MAC"] };
      const devices = [{ use: "net", driver, network: "loopback", offloads: [{ use: "./stage.ts", bits }] }];
      await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify({ devices }));
      const { out, err } = await command(["check", `${folder}/config.json`]);
      return `${out}${err}`.replace(/\s+/g, " ");
    };
    assertStringIncludes(
      await check([17]),
      '"idle" never has anything to do: the driver does not accept CTRL_VQ',
    );
    assert(!(await check([5])).includes("never has anything"));
    for (const bits of [5, [200], new Array(1000).fill(5)]) {
      assertStringIncludes(await check(bits), 'plugin "idle" failed in idleWithout: it returned ');
    }
  });
});
