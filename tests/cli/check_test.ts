import { assert, assertEquals, assertFalse, assertRejects, assertStringIncludes } from "@std/assert";
import type { ConfigDescription } from "../../cli/check/description.ts";
import { command, longestLine, projectPath, withFolder } from "./support/command.ts";

async function described(path: string): Promise<ConfigDescription> {
  const { code, out, err } = await command(["check", path, "--json"]);
  assertEquals([code, err], [0, ""]);
  return JSON.parse(out);
}

async function write(folder: string, config: unknown): Promise<string> {
  const path = `${folder}/config.json`;
  await Deno.writeTextFile(path, JSON.stringify(config));
  return path;
}

const CAPTURE = projectPath("tests/captures/bulk_v4_plain.pcap");

Deno.test("check shows devices, transports, stages in order, options, features and queues", async () => {
  const { name, clock, frameMemoryBytes, devices } = await described(
    projectPath("examples/replay_capture.jsonc"),
  );
  assertEquals([name, clock, frameMemoryBytes, devices.length], ["replay-capture", "virtual", 128 << 20, 1]);
  const [net] = devices;
  assertEquals([net.name, net.use, net.type, net.networkClosed], ["net0", "net", 1, false]);
  assertEquals([net.options.mac, net.options.duplex, net.options.rules], [
    "52:54:00:00:00:01",
    "unknown",
    "strict",
  ]);
  assertEquals([net.driver.use, net.driver.options.ring, net.driver.options.eventIndex], [
    "loopback",
    "packed",
    true,
  ]);
  assertEquals(net.network!.use, "pcap");
  assertEquals(net.network!.options, {
    pace: "recorded",
    take: "guest",
    read: "../tests/captures/bulk_v4_timestamps.pcapng",
  });
  assertEquals(net.stages.toGuest.map(({ use }) => use), ["checksum", "rsc-v4", "rsc-v6"]);
  assertEquals(net.stages.fromGuest.map(({ use }) => use), ["checksum"]);
  assertEquals(net.stages.toGuest[1].options.intervalUs, 300);
  assertEquals(net.queueSizes, [1024, 1024, 64]);
  for (const feature of ["CSUM", "GUEST_CSUM", "GUEST_TSO4", "MRG_RXBUF", "VERSION_1", "RSC_EXT"]) {
    assert(net.features.includes(feature), feature);
  }
});

Deno.test("check prints the same for people, within the width", async () => {
  const path = projectPath("examples/replay_capture.jsonc");
  const { code, out } = await command(["check", path]);
  assertEquals(code, 0);
  assertStringIncludes(out, `Good: ${path}\nreplay-capture: 1 device, in virtual time, 128 MiB for frames\n`);
  assertStringIncludes(
    out,
    "  to guest    1. checksum: verify false\n              2. rsc-v4: intervalUs 300,",
  );
  assertStringIncludes(out, "  queues      2 of 1024, 1 of 64 descriptors\n");
  assertStringIncludes(out, "RSC_EXT\n\nRun it with\n  deno run --allow-read=");
  const body = out.split("\n").slice(1, out.split("\n").indexOf("Run it with")).join("\n");
  assert(longestLine(body).length <= 80, longestLine(body));
});

Deno.test("check offers what the configuration leaves: no RSC without its stages, nothing that is withheld", async () => {
  await withFolder(async (folder) => {
    const device = { use: "net", driver: "loopback", network: "loopback" };
    const plain = (await described(await write(folder, { devices: [device] }))).devices[0];
    assertFalse(plain.features.includes("RSC_EXT"));
    assert(plain.features.includes("MRG_RXBUF"));
    const offloads = [{ use: "rsc-v4", enabled: false }, "rsc-v6"];
    const changed = { ...device, withhold: ["MRG_RXBUF"], queuePairs: 2, offloads };
    const { features, queueSizes, stages } =
      (await described(await write(folder, { devices: [changed] }))).devices[0];
    assertFalse(features.includes("MRG_RXBUF"));
    assert(features.includes("MQ") && features.includes("RSC_EXT"));
    assertEquals(queueSizes.length, 5);
    assertEquals(stages.toGuest.map(({ use }) => use), ["rsc-v6"]);
  });
});

Deno.test("check writes nothing, and tells what running would write", async () => {
  await withFolder(async (folder) => {
    const network = {
      use: "pcap",
      write: "out/all.pcapng",
      inner: { use: "pcap", read: CAPTURE, write: "sent, or so.pcap" },
    };
    const path = await write(folder, { devices: [{ use: "net", driver: "loopback", network }] });
    const { permissions, devices } = await described(path);
    assertEquals(permissions.flags, [
      `--allow-read=${path},${CAPTURE}`,
      `'--allow-write=${folder}/out/all.pcapng,${folder}/sent,, or so.pcap'`,
    ]);
    assertEquals(devices[0].networkClosed, false);
    for (const file of ["out", "out/all.pcapng", "sent, or so.pcap"]) {
      await assertRejects(() => Deno.stat(`${folder}/${file}`), Deno.errors.NotFound);
    }
  });
});

Deno.test("check loads modules and says that their needs are not known; it opens no network of theirs", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/network.ts`,
      `import { defineNetwork } from "${projectPath("mod.ts")}";
       import { z } from "zod";
       export default defineNetwork({
         name: "loud", options: z.strictObject({ level: z.int().default(3) }),
         create() { throw new Error("must not be opened"); },
       });`,
    );
    await Deno.writeTextFile(
      `${folder}/stage.ts`,
      `import { defineOffload, perFrame } from "${projectPath("mod.ts")}";
       import { z } from "zod";
       export default defineOffload({
         name: "pass", direction: "toGuest", options: z.strictObject({}),
         create: () => perFrame((frame, output) => output.push(frame)),
       });`,
    );
    const path = await write(folder, {
      devices: [{ use: "net", driver: "loopback", network: "./network.ts", offloads: ["./stage.ts"] }],
    });
    const { permissions, devices } = await described(path);
    assertEquals(permissions.modules, ["./network.ts", "./stage.ts"]);
    assertEquals(permissions.flags, [`--allow-read=${path},${folder}/network.ts,${folder}/stage.ts`]);
    const [net] = devices;
    assertEquals(net.networkClosed, true);
    assertEquals(net.network, { use: "loud", options: { level: 3 } });
    assertEquals(net.stages.toGuest, [{ use: "pass", options: {} }]);
    const { out } = await command(["check", path]);
    assertStringIncludes(
      out.replace(/\s+/g, " "),
      "if the network takes unfinished frames (it was not opened)",
    );
    assertStringIncludes(out, "Modules may need more than these permissions");
    const ran = await command(["run", path]);
    assertEquals(ran.code, 1);
    assertStringIncludes(ran.err, "must not be opened");
  });
});

Deno.test("check finds what contradicts itself across objects, and a capture that is not there", async () => {
  await withFolder(async (folder) => {
    const net = { use: "net", mac: "52:54:00:00:00:01", driver: "loopback", network: "loopback" };
    const twice = await command(["check", await write(folder, { devices: [net, net] })]);
    assertEquals([twice.code, twice.out], [2, ""]);
    assertStringIncludes(twice.err, "$.devices[1].mac: 52:54:00:00:00:01 is the address of net0 as well");
    const gone = { ...net, network: { use: "pcap", read: "gone.pcap" } };
    const { code, out, err } = await command(["check", await write(folder, { devices: [gone] })]);
    assertEquals([code, out], [1, ""]);
    assertStringIncludes(err, "gone.pcap");
  });
});
