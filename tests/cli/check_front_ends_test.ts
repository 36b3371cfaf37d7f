import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { ConfigDescription, DeviceDescription } from "./support/description.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { hostTest, network } from "../../rigs/require.ts";
import { command, longestLine, projectPath, withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";

/**
 * What `check` says of configurations with real guests and real networks; nothing of the host is touched.
 */

const DRIVER = { use: "vhost-user", socket: "/tmp/check_test.sock" };
const DEVICE = { use: "net", driver: DRIVER, network: { use: "tap", interface: "check0" } };

async function check(
  config: unknown,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const outcome = { code: -1, out: "", err: "" };
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/config.json`, JSON.stringify(config));
    Object.assign(outcome, await command(["check", `${folder}/config.json`, ...args]));
  });
  return outcome;
}

async function described(device: unknown): Promise<DeviceDescription> {
  const { code, out, err } = await check({ devices: [device] }, "--json");
  assertEquals([code, err], [0, ""]);
  return (JSON.parse(out) as ConfigDescription).devices[0];
}

function problems({ notes }: DeviceDescription): string {
  return notes.map(({ path, problem }) => `${path}: ${problem}`).join("\n");
}

Deno.test("check knows what a TAP can do without opening it", async () => {
  const open = await described(DEVICE);
  assertEquals(open.networkClosed, false);
  for (const name of ["CSUM", "HOST_TSO4", "HOST_TSO6", "HOST_ECN"]) {
    assert(open.features.includes(name), name);
  }
  assertEquals(open.kernelFeatures, ["GUEST_USO4", "GUEST_USO6", "HOST_USO"]);
  const recorded = await described({
    ...DEVICE,
    network: { use: "pcap", write: "x.pcap", inner: DEVICE.network },
  });
  assertEquals([recorded.features, recorded.kernelFeatures], [open.features, open.kernelFeatures]);
  for (const closed of [{ offloads: "off" }, { vnetHeader: false }]) {
    const plain = await described({ ...DEVICE, network: { ...DEVICE.network, ...closed } });
    assert(!plain.features.includes("HOST_TSO4") && !plain.features.includes("CSUM"));
    assertEquals(plain.kernelFeatures, []);
  }
  const withheld = await described({ ...DEVICE, withhold: ["HOST_USO", "GUEST_CSUM"] });
  assertEquals(withheld.kernelFeatures, []);
});

Deno.test("check says which features are left with each front-end, as JSON", async () => {
  const { frontEnds, features } = await described({ ...DEVICE, offloads: ["rsc-v4"] });
  const names = frontEnds.map(({ name }) => name);
  assertEquals(names, ["qemu", "virtio-user", "cloud-hypervisor", "crosvm", "uml"]);
  const [qemu, virtioUser, cloudHypervisor, crosvm, uml] = frontEnds;
  assert(
    qemu.agreed.includes("RING_PACKED") && qemu.own.includes("CTRL_VQ") && qemu.newer.includes("RSC_EXT"),
  );
  assert(virtioUser.lost.includes("RSC_EXT") && virtioUser.lost.includes("EVENT_IDX"));
  assert(cloudHypervisor.lost.includes("RING_PACKED") && cloudHypervisor.lost.includes("RSC_EXT"));
  assert(crosvm.agreed.includes("RSC_EXT") && crosvm.agreed.includes("CTRL_VQ"));
  assert(crosvm.lost.includes("INDIRECT_DESC"));
  assertEquals([uml.own, uml.newer], [[], []]);
  assert(uml.agreed.includes("CTRL_VQ") && uml.agreed.includes("RING_PACKED"));
  for (const { agreed, newer, own, lost } of frontEnds) {
    const all = [...agreed, ...newer, ...own, ...lost];
    assertEquals(all.toSorted(), features.toSorted());
  }
});

Deno.test("check shows the front-ends in a table within 80 columns, those of the profile alone if there is one", async () => {
  const { code, out } = await check({ devices: [{ ...DEVICE, offloads: ["rsc-v4"] }] });
  assertEquals(code, 0);
  assertStringIncludes(
    out,
    "\n  qemu  virtio-user  cloud-hypervisor  crosvm  uml  features the driver gets\n",
  );
  assertStringIncludes(out, "\n  yes   yes          -                 -       yes  RING_PACKED\n");
  assertStringIncludes(out, "\n  new   -            -                 yes     yes  RSC_EXT\n");
  assertStringIncludes(out, "HOST_USO, if the kernel is Linux 6.2 or newer");
  const table = out.slice(out.indexOf("net0 (net"), out.indexOf("\nRun it with"));
  assert(longestLine(table).length <= 80, longestLine(table));
  const one = await check({ devices: [{ ...DEVICE, driver: { ...DRIVER, profile: "crosvm" } }] });
  assertStringIncludes(one.out, "\n  crosvm  features the driver gets\n");
  const none = await check({ devices: [{ ...DEVICE, driver: "loopback" }] });
  assert(!none.out.includes("features the driver gets"));
});

Deno.test("check expects QEMU alone at an entropy device", async () => {
  const driver = { ...DRIVER, memory: "sealed" };
  const { frontEnds, notes } = await described({ use: "entropy", driver });
  assertEquals(frontEnds.map(({ name }) => name), ["qemu"]);
  assertEquals(frontEnds[0].agreed, ["INDIRECT_DESC", "EVENT_IDX", "VERSION_1", "RING_PACKED"]);
  assertEquals(notes, []);
});

Deno.test("check says what works differently than expected", async () => {
  const tap = { use: "tap", interface: "check0", offloads: "off" };
  const cases: [device: unknown, part: string][] = [
    [{ ...DEVICE, offloads: ["rsc-v4"] }, "with virtio-user, cloud-hypervisor, coalesced packets reach"],
    [{ ...DEVICE, offloads: ["rsc-v4"] }, "what this host sends itself comes large already"],
    [{ ...DEVICE, offloads: ["rsc-v4"], withhold: ["MRG_RXBUF"] }, "without MRG_RXBUF a driver"],
    [DEVICE, "with cloud-hypervisor, crosvm, rings are split"],
    [DEVICE, "memory that is cut by a program that shares it, or whose file system has no room"],
    [
      { use: "entropy", driver: { ...DRIVER, populate: true } },
      "memory that is cut by a program that shares it, ends this program",
    ],
    [{ ...DEVICE, network: tap }, "the guest has to segment"],
    [{ ...DEVICE, mtu: 9000 }, "a new interface carries packets of 1500 bytes, and the guest is told 9000"],
    [{ ...DEVICE, rss: true }, "with qemu, virtio-user, cloud-hypervisor, crosvm, uml, there is no RSS"],
    [
      { ...DEVICE, hashReport: true, driver: { ...DRIVER, profile: "qemu" } },
      "with qemu, there is no HASH_REPORT",
    ],
    [
      { ...DEVICE, queuePairs: 4, network: { use: "tap", fds: [10, 11] } },
      "the TAP has 2 queues for 4 queue pairs",
    ],
  ];
  for (const [device, part] of cases) assertStringIncludes(problems(await described(device)), part);
  const driver = { ...DRIVER, memory: "sealed" };
  const crosvm = { ...DEVICE, rss: true, packedRing: false, driver: { ...driver, profile: "crosvm" } };
  assertEquals(problems(await described(crosvm)), "");
  const quiet = {
    ...DEVICE,
    driver,
    packedRing: false,
    mtu: 9000,
    queuePairs: 4,
    network: { ...tap, mtu: 9000 },
    offloads: ["segment"],
  };
  assertEquals(problems(await described(quiet)), "");
});

Deno.test("check refuses what cannot work, each with its place, its reason and the remedy", async () => {
  const second = { ...DEVICE, network: { use: "tap", interface: "check1" } };
  const long = `/tmp/${"x".repeat(100)}/a.sock`;
  const cases: [config: unknown, message: string][] = [
    [
      { devices: [DEVICE, second] },
      "$.devices[1].driver.socket: the socket /tmp/check_test.sock is that of $.devices[0].driver.socket already; " +
      "give each device a socket of its own",
    ],
    [
      {
        devices: [
          { ...DEVICE, driver: { use: "vhost-user", socket: "a.sock" } },
          { ...second, driver: { use: "vhost-user", socket: "../$FOLDER/a.sock", mode: "client" } },
        ],
      },
      "is that of $.devices[0].driver.socket already",
    ],
    [
      { devices: [DEVICE, { ...DEVICE, driver: { ...DRIVER, socket: "/b" } }] },
      "$.devices[1].network.interface: the interface check0 is that of $.devices[0].network.interface already",
    ],
    [
      { devices: [{ ...DEVICE, driver: { ...DRIVER, socket: long } }] },
      `$.devices[0].driver.socket: the path of the socket is ${long}, 112 bytes, and must have at most 107; ` +
      "use a shorter folder",
    ],
    [{ clock: "virtual", devices: [DEVICE] }, "$.clock: a virtual clock cannot wait for the host"],
    [
      {
        devices: [{ ...DEVICE, driver: { use: "vhost-user", fd: 7 }, network: { use: "tap", fds: [6, 7] } }],
      },
      "$.devices[0].network.fds[1]: descriptor 7 is that of $.devices[0].driver.fd already",
    ],
    [
      { devices: [{ ...DEVICE, mtu: 9000, network: { use: "tap", interface: "check0", mtu: 4000 } }] },
      "$.devices[0].mtu: the guest is told that packets may have 9000 bytes, and $.devices[0].network carries 4000",
    ],
  ];
  for (const [config, message] of cases) {
    await withFolder(async (folder) => {
      const name = folder.slice(folder.lastIndexOf("/") + 1);
      await Deno.writeTextFile(
        `${folder}/config.json`,
        JSON.stringify(config).replaceAll("$FOLDER", name),
      );
      for (const verb of ["check", "run"]) {
        const { code, out, err } = await command([verb, `${folder}/config.json`]);
        assertEquals([code, out], [2, ""], message);
        assertStringIncludes(err, message);
      }
    });
  }
});

Deno.test("check lets two interfaces be numbered by the kernel", async () => {
  const network = { use: "tap", interface: "tap%d" };
  const devices = [{ ...DEVICE, network }, { ...DEVICE, driver: { ...DRIVER, socket: "/b" }, network }];
  assertEquals((await check({ devices })).code, 0);
});

hostTest("check tells what threads may read: run with exactly that, they start", network, async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/config.json`;
    const driver = { ...DRIVER, socket: `${folder}/a.sock` };
    const device = { ...DEVICE, mode: "threads", queuePairs: 2, driver, offloads: ["rsc-v4"] };
    await Deno.writeTextFile(path, JSON.stringify({ devices: [device] }));
    const { permissions } = JSON.parse((await command(["check", path, "--json"])).out) as ConfigDescription;
    using home = new Namespace();
    const child = home.run(() =>
      new CommandProcess(permissions.flags, ["run", path, "--json", "--stats-interval-s", "0.5"])
    );
    await child.lineWith('"counters"');
    child.signal("SIGTERM");
    const { code, err } = await child.end();
    assertEquals([code, err], [0, ""]);
  });
});

Deno.test("check tells the permissions of the example with a real guest", async () => {
  const path = projectPath("examples/real_guest.jsonc");
  const { code, out } = await command(["check", path, "--json"]);
  assertEquals(code, 0);
  const { permissions, devices } = JSON.parse(out) as ConfigDescription;
  assertEquals(permissions.flags.at(-1), "--allow-ffi");
  assertEquals(permissions.flags.length, 2);
  for (const name of ["HOST_TSO4", "HOST_USO", "RSC_EXT"]) assert(devices[0].features.includes(name), name);
});
