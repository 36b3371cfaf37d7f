import {
  assert,
  assertEquals,
  assertFalse,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import type { ConfigDescription } from "./support/description.ts";
import { hostTest, linux, root } from "../../rigs/require.ts";
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
  assertEquals(net.queueSizes, [1024, 1024, 256]);
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
  assertStringIncludes(out, "  queues      2 of 1024, 1 of 256 descriptors\n");
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
    await Deno.mkdir(`${folder}/out`);
    const { permissions, devices } = await described(path);
    assertEquals(permissions.flags, [
      `--allow-read=${path},${CAPTURE}`,
      `'--allow-write=${folder}/out/all.pcapng,${folder}/sent,, or so.pcap'`,
    ]);
    assertEquals(devices[0].networkClosed, false);
    for (const file of ["out/all.pcapng", "sent, or so.pcap"]) {
      await assertRejects(() => Deno.stat(`${folder}/${file}`), Deno.errors.NotFound);
    }
  });
});

Deno.test("check loads modules and says that their needs are not known; it opens no network of theirs", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/network.ts`,
      `import { defineNetwork } from "${projectPath("plugin.ts")}";
       import { z } from "zod";
       export default defineNetwork({
         name: "loud", options: z.strictObject({ level: z.int().default(3) }),
         create() { throw new Error("must not be opened"); },
       });`,
    );
    await Deno.writeTextFile(
      `${folder}/stage.ts`,
      `import { defineOffload, perFrame } from "${projectPath("plugin.ts")}";
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

/** What `check` says of one device in a file of its own, blanks folded; and its exit code. */
async function saidOf(folder: string, ...devices: unknown[]): Promise<{ code: number; text: string }> {
  const { code, out, err } = await command(["check", await write(folder, { devices })]);
  return { code, text: `${out}${err}`.replace(/\s+/g, " ").replaceAll(folder, "F") };
}

Deno.test("check negotiates with a software guest as it would, and tells what both agree on", async () => {
  await withFolder(async (folder) => {
    const net = { use: "net", network: { use: "pcap", read: CAPTURE, take: "all" } };
    const driver = { use: "loopback", accept: ["MAC", "GUEST_CSUM"], eventIndex: false };
    const [{ agreed }] = (await described(await write(folder, { devices: [{ ...net, driver }] }))).devices;
    assertEquals(agreed, ["GUEST_CSUM", "MAC", "MRG_RXBUF", "INDIRECT_DESC", "VERSION_1"]);
    const cases: [Record<string, unknown>, string][] = [
      [{ queuePairs: 4 }, "Cannot use 4 queue pairs without feature MQ"],
      [
        { accept: ["RSC_EXT"] },
        'Cannot accept RSC_EXT, which the device does not offer: take it out of "accept"',
      ],
      [{ accept: ["GUEST_TSO4"] }, "features-dependency-missing"],
    ];
    for (const [options, expected] of cases) {
      const { code, text } = await saidOf(folder, { ...net, driver: { use: "loopback", ...options } });
      assertEquals(code, 1, text);
      assertMatch(text, /error: F\/config\.json:1:\d+: \$\.devices\[0\]\.driver: Cannot /);
      assertStringIncludes(text, expected);
    }
    const more = { ...net, queuePairs: 2, driver: { use: "loopback", queuePairs: 3 } };
    const { code, text } = await saidOf(folder, more);
    assertEquals(code, 1);
    assertStringIncludes(text, "Cannot use 3 queue pairs, the device has 2: lower queuePairs");
  });
});

Deno.test("check finds offloads that can never merge", async () => {
  await withFolder(async (folder) => {
    const base = { use: "net", network: { use: "pcap", read: CAPTURE, take: "all" } };
    const deaf = { use: "loopback", accept: ["GUEST_CSUM", "GUEST_TSO4", "CTRL_VQ"] };
    const { code, text } = await saidOf(folder, { ...base, driver: deaf, offloads: ["rsc-v4", "rsc-v6"] });
    assertEquals(code, 0);
    assertMatch(
      text,
      /config\.json:1:\d+: \$\.devices\[0\]\.offloads\[1\]: "rsc-v6" never has anything to do: the driver does not accept GUEST_TSO6; let \$\.devices\[0\]\.driver accept GUEST_TSO6, or leave the offload out/,
    );
    assertFalse(text.includes('"rsc-v4" never'), text);
    const qemu = await saidOf(folder, { ...base, rules: "qemu", driver: deaf, offloads: ["rsc-v4"] });
    assertStringIncludes(qemu.text, '"rsc-v4" never has anything to do: the driver does not accept RSC_EXT');
    const good = await saidOf(folder, { ...base, driver: "loopback", offloads: ["rsc-v4", "rsc-v6"] });
    assertFalse(good.text.includes("never has anything"), good.text);
  });
});

Deno.test("check finds an address that a capture never addresses, and a cable with one end", async () => {
  await withFolder(async (folder) => {
    const pcap = { use: "pcap", read: CAPTURE };
    const wrong = { use: "net", mac: "52-54-00-99-99-99", driver: "loopback", network: pcap };
    const { code, text } = await saidOf(folder, wrong);
    assertEquals(code, 0);
    assertMatch(
      text,
      /\$\.devices\[0\]\.network: "52:54:00:99:99:99" is the guest's address, and no packet of the capture is sent to it; write "guestMac": "[0-9a-f:]{17}", to which most are sent, or "take": "all"/,
    );
    const named = { ...wrong, network: { ...pcap, guestMac: "52-54-00-99-99-98" } };
    assertStringIncludes((await saidOf(folder, named)).text, '.guestMac: "52:54:00:99:99:98" is the guest');
    const mac = /"guestMac": "([0-9a-f:]{17})"/.exec(text)![1];
    for (const right of [mac, mac.replaceAll(":", "-").toUpperCase()]) {
      const said = await saidOf(folder, { ...wrong, network: { ...pcap, guestMac: right } });
      assertFalse(said.text.includes("is the guest's address"), said.text);
    }
    const lone = { use: "net", driver: "loopback", network: { use: "loopback", cable: "attic" } };
    assertStringIncludes(
      (await saidOf(folder, lone)).text,
      '"attic" is a cable with no other device: nothing arrives',
    );
    const pair = { ...lone, mac: "52:54:00:00:00:02" };
    assertFalse((await saidOf(folder, lone, pair)).text.includes("no other device"));
  });
});

Deno.test("check finds folders that are not there, names the place and the remedy, and fails", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/file`, "");
    await Deno.mkdir(`${folder}/dir`);
    const network = "loopback";
    const socket = (path: string) => ({ use: "net", network, driver: { use: "vhost-user", socket: path } });
    const gone = await saidOf(folder, socket("run/net.sock"));
    assertEquals(gone.code, 1);
    assertMatch(
      gone.text,
      /^Not on this host: F\/config\.json .* lacks F\/config\.json:1:\d+: \$\.devices\[0\]\.driver\.socket: "F\/run" is a folder that is not there; make it: mkdir -p F\/run/,
    );
    assertStringIncludes((await saidOf(folder, socket("file/net.sock"))).text, '"F/file" is no folder');
    assertEquals((await saidOf(folder, socket("net.sock"))).code, 0);
    const write = { use: "pcap", write: "logs/a.pcapng", inner: "loopback" };
    const said = await saidOf(folder, { use: "net", driver: "loopback", network: write });
    assertEquals(said.code, 1);
    assertStringIncludes(said.text, '$.devices[0].network.write: "F/logs" is a folder that is not there');
    // What lies there already: run refuses these when it starts.
    const taken = await saidOf(folder, socket("file"));
    assertEquals(taken.code, 1);
    assertStringIncludes(
      taken.text,
      '$.devices[0].driver.socket: "F/file" is there already, and is no socket; remove it, or write another path',
    );
    const over = (path: string) => ({ ...write, write: path });
    const aFolder = await saidOf(folder, { use: "net", driver: "loopback", network: over("dir") });
    assertEquals(aFolder.code, 1);
    assertStringIncludes(
      aFolder.text,
      '$.devices[0].network.write: "F/dir" is a folder; write the path of a file in it',
    );
    const both = await saidOf(folder, { ...socket("net.sock"), network: over("net.sock") });
    assertEquals(both.code, 1);
    assertStringIncludes(
      both.text,
      '.network.write: "F/net.sock" is the socket of $.devices[0].driver.socket; write another path',
    );
    assertEquals((await saidOf(folder, { use: "net", driver: "loopback", network: over("file") })).code, 0);
  });
});

hostTest(
  "check sees with native calls what a user without capabilities may not do",
  [linux, root],
  async () => {
    await withFolder(async (folder) => {
      await Deno.mkdir(`${folder}/closed`, { mode: 0o555 });
      const path = await write(folder, {
        devices: [
          { use: "net", network: "loopback", driver: { use: "vhost-user", socket: "closed/a.sock" } },
          {
            use: "net",
            network: { use: "tap", interface: "dv-none" },
            driver: { use: "vhost-user", socket: "/tmp/b.sock" },
          },
        ],
      });
      const check = async (...flags: string[]) => {
        const args = ["run", "-R", ...flags, projectPath("mod.ts"), "check", path, "--json"];
        // Without capabilities root is a user like others, who owns the runtime's files.
        const drop = ["--bounding-set=-all", "--inh-caps=-all", Deno.execPath(), ...args];
        const { code, stdout, stderr } = await new Deno.Command("setpriv", { args: drop }).output();
        const text = new TextDecoder().decode(stdout);
        assert(text.startsWith("{"), text + new TextDecoder().decode(stderr));
        return { code, host: (JSON.parse(text) as ConfigDescription).host };
      };
      const seen = await check("--allow-ffi");
      assertEquals(seen.code, 1);
      assertEquals(seen.host.problems.map(({ path, problem }) => [path, problem])[0], [
        "$.devices[0].driver.socket",
        "is a folder in which this user may not make files",
      ]);
      assertMatch(JSON.stringify(seen.host), /CAP_NET_ADMIN|\/dev\/net\/tun/);
      const blind = await check();
      assertEquals([blind.code, blind.host.problems], [0, []]);
      assertStringIncludes(blind.host.unseen.join(), "run check with --allow-ffi as well");
    });
  },
);
