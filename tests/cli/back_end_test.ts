import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { FileDescriptor } from "../../host/descriptors.ts";
import { libc } from "../../host/libc.ts";
import { UnixListener, UnixStream } from "../../host/unix_socket.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { eventsIn, FLAGS, NET, RNG, stop, withoutEvents, write } from "./support/back_end.ts";
import { command, projectPath, withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";
import { remoteFrontEnd } from "./support/remote_front_end.ts";

/**
 * `run` as the program behind a vhost-user socket: what management programs expect of it.
 */

const F_SETFD = 2;

hostTest(
  "run makes the socket, serves a front-end, and at SIGTERM ends with 0 and leaves no socket behind",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      const child = new CommandProcess(FLAGS, ["run", await write(folder, NET)]);
      await child.lineWith("Running machine");
      using front = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
      front.start();
      assert(front.front.features() > 0n);
      const err = await stop(child);
      assertEquals(withoutEvents(err), "");
      const [connected, features, ...rest] = eventsIn(err);
      assertEquals(connected, "lan: front-end connected");
      assertMatch(features, /^lan: features agreed: .*MRG_RXBUF, .*VERSION_1$/);
      assertEquals(rest, [
        "lan: driver ready",
        "lan: queue 0 started",
        "lan: queue 1 started",
        "lan: device reset",
        "lan: queue 0 stopped",
        "lan: queue 1 stopped",
        "lan: front-end gone: the back-end stops",
      ]);
      await assertRejects(() => Deno.lstat(`${folder}/lan.sock`), Deno.errors.NotFound);
    });
  },
);

hostTest("run takes two SIGTERMs at once for one, as timeout sends them", [linux], async () => {
  await withFolder(async (folder) => {
    const child = new CommandProcess(FLAGS, ["run", await write(folder, NET)]);
    await child.lineWith("Running machine");
    child.signal("SIGTERM");
    await stop(child);
    await assertRejects(() => Deno.lstat(`${folder}/lan.sock`), Deno.errors.NotFound);
  });
});

hostTest("run --socket-path takes the place of the configured socket", [linux], async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/other.sock`;
    const child = new CommandProcess(FLAGS, ["run", await write(folder, NET), "--socket-path", path]);
    assertStringIncludes(await child.lineWith("-chardev"), `path=${path} \\`);
    using front = remoteFrontEnd(UnixStream.connect(path));
    assert(front.front.features() > 0n);
    await assertRejects(() => Deno.lstat(`${folder}/lan.sock`), Deno.errors.NotFound);
    await stop(child);
    await assertRejects(() => Deno.lstat(path), Deno.errors.NotFound);
  });
});

/** Lets a descriptor pass into programs that are started, for the time of a function. */
function passing<T>(fd: FileDescriptor, start: () => T): T {
  assertEquals(libc().fcntl(fd.number, F_SETFD, 0), 0);
  return start();
}

hostTest("run --fd takes a socket that listens", [linux], async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/passed.sock`;
    const config = await write(folder, NET);
    using listener = UnixListener.listen(path);
    const child = passing(
      listener.fd,
      () => new CommandProcess(FLAGS, ["run", config, "--fd", String(listener.fd.number)]),
    );
    await child.lineWith("Running machine");
    for (let connections = 0; connections < 2; connections++) {
      using front = remoteFrontEnd(UnixStream.connect(path));
      assert(front.front.features() > 0n);
    }
    await stop(child);
  });
});

hostTest("run --fd takes a socket that is connected", [linux], async () => {
  await withFolder(async (folder) => {
    const config = await write(folder, RNG);
    const [here, there] = UnixStream.pair();
    const child = passing(
      there.fd,
      () => new CommandProcess(FLAGS, ["run", config, "--fd", String(there.fd.number)]),
    );
    there[Symbol.dispose]();
    await child.lineWith("Running machine");
    using front = remoteFrontEnd(here);
    assert(front.front.features() > 0n);
    await stop(child);
  });
});

hostTest("run --fd ends by itself when the front-end of a connected socket has gone", [linux], async () => {
  await withFolder(async (folder) => {
    for (const device of [RNG, NET]) {
      const config = await write(folder, device);
      const [here, there] = UnixStream.pair();
      const child = passing(
        there.fd,
        () => new CommandProcess(FLAGS, ["run", config, "--fd", String(there.fd.number)]),
      );
      there[Symbol.dispose]();
      await child.lineWith("Running machine");
      here[Symbol.dispose]();
      const { code, rest, err } = await child.end();
      assertEquals(code, 0, err);
      assertMatch(rest.join("\n"), /Stopped after .*, nothing is left to do/);
    }
  });
});

hostTest("run --fd refuses a descriptor that is no socket, or none at all", [linux], async () => {
  await withFolder(async (folder) => {
    const config = await write(folder, NET);
    using file = Deno.openSync(config);
    const memory = FileDescriptor.live;
    const other = await command(["run", config, "--fd", "999999"]);
    assertEquals([other.code, other.out], [1, ""]);
    assertStringIncludes(other.err, "999999");
    const [first] = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => Number(name))
      .filter((number) => number > 2 && isFile(number, config));
    const { code, err } = await command(["run", config, "--fd", String(first)]);
    assertEquals(code, 1);
    assertStringIncludes(
      err,
      `Cannot use file descriptor ${first} as a vhost-user socket: it is something else`,
    );
    assertEquals(FileDescriptor.live, memory);
    assertEquals((await file.stat()).isFile, true);
  });
});

function isFile(number: number, path: string): boolean {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${number}`) === path;
  } catch {
    return false;
  }
}

Deno.test("run says clearly why --socket-path, --fd and --trace-protocol have no place", async () => {
  await withFolder(async (folder) => {
    const one = await write(folder, NET);
    const cases: [args: string[], message: string][] = [
      [["--socket-path", "a", "--fd", "3"], "--socket-path and --fd exclude each other"],
      [["--fd", "2"], '--fd is "2"; write the number of a descriptor, 3 or more'],
      [["--fd", "x"], '--fd is "x"; write the number'],
      [["--socket-path"], "--socket-path needs a value: write --socket-path PATH"],
      [["--trace-protocol"], "--trace-protocol needs a value: write --trace-protocol FILE"],
    ];
    for (const [args, message] of cases) {
      const { code, out, err } = await command(["run", one, ...args]);
      assertEquals([code, out], [2, ""], message);
      assertStringIncludes(err, message);
    }
    const two = await write(folder, NET, RNG);
    const several = await command(["run", two, "--socket-path", "a"]);
    assertEquals(several.code, 2);
    assertStringIncludes(
      several.err,
      "--socket-path is for the only vhost-user device, and the configuration has 2: lan, dice",
    );
    const none = await write(folder, { ...NET, driver: "loopback" });
    for (const [option, value] of [["--fd", "7"], ["--socket-path", "a"], ["--trace-protocol", "-"]]) {
      const { code, err } = await command(["run", none, option, value]);
      assertEquals(code, 2);
      assertMatch(err, new RegExp(`^error: ${option} .*(has none|needs a device with a vhost-user driver)`));
    }
  });
});

Deno.test("run --print-capabilities prints the type as JSON and does nothing else", async () => {
  await withFolder(async (folder) => {
    const print = async (...args: string[]) => {
      const { code, out, err } = await command(["run", "--print-capabilities", ...args]);
      assertEquals([code, err], [0, ""]);
      return JSON.parse(out);
    };
    assertEquals(await print(), { type: "net" });
    assertEquals(await print(await write(folder, RNG)), { type: "rng" });
    assertEquals(await print(await write(folder, NET), "--socket-path", "/x", "--json"), { type: "net" });
    assertEquals(await print(await write(folder, { ...RNG, driver: "loopback" })), { type: "rng" });
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["config.json"]);
    const mixed = await command(["run", "--print-capabilities", await write(folder, NET, RNG)]);
    assertEquals([mixed.code, mixed.out], [2, ""]);
    assertStringIncludes(mixed.err, "the vhost-user devices lan, dice are of several");
  });
});

hostTest(
  "run prints one command line of QEMU for all devices, or XML for libvirt, or both as JSON",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      const config = await write(folder, NET, RNG, {
        ...NET,
        name: "x",
        mac: "52:54:00:00:00:08",
        driver: "loopback",
      });
      const text = async (...args: string[]) => {
        const child = new CommandProcess(FLAGS, ["run", config, ...args]);
        const lines = [await child.line()];
        // The socket is there before anything is told.
        assert(Deno.lstatSync(`${folder}/dice.sock`).isSocket);
        child.signal("SIGTERM");
        const { code, rest, err } = await child.end();
        assertEquals([code, err], [0, ""]);
        return [...lines, ...rest].join("\n");
      };
      const shown = await text();
      assertStringIncludes(
        shown,
        "QEMU attaches by this, with a disk for the guest added\n  qemu-system-",
      );
      const start = shown.indexOf("  qemu-system-");
      const umlStart = shown.indexOf(
        "\nUser-mode Linux attaches by this, with a file system for the guest added\n",
      );
      const pasted = shown.slice(start, umlStart).replaceAll(" \\\n", " ").replace(
        /\s+/g,
        " ",
      ).trim();
      for (
        const part of [
          `-chardev socket,id=vhost0,path=${folder}/lan.sock -netdev vhost-user,id=net0,chardev=vhost0`,
          "-device virtio-net-pci,netdev=net0,mac=52:54:00:00:00:07,",
          `-chardev socket,id=vhost1,path=${folder}/dice.sock -device vhost-user-rng-pci,chardev=vhost1`,
        ]
      ) assertStringIncludes(pasted, part);
      assert(!pasted.includes("vhost2"));
      // Its kernel has no driver for entropy.
      const uml = ["linux.uml", "mem=256M", `virtio_uml.device=${folder}/lan.sock:1`];
      assertStringIncludes(shown.slice(umlStart), `\n  ${uml.join(" \\\n    ")}\n`);

      const xml = await text("--libvirt");
      assertStringIncludes(xml, `<source type='unix' path='${folder}/lan.sock' mode='client'>`);
      assert(!xml.includes("qemu-system-"));

      const [started] = (await text("--json")).split("\n").map((line) => JSON.parse(line));
      assertEquals(started.event, "started");
      assertEquals(started.attach.qemu.join(" "), pasted);
      assertStringIncludes(started.attach.libvirt, "<interface type='vhostuser'>");
      assertEquals(started.attach.uml, uml);
    });
  },
);

hostTest(
  "run tells how User-mode Linux attaches, and nothing of QEMU, if that is what is expected",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      const config = await write(folder, { ...NET, driver: { ...NET.driver, profile: "uml" } });
      const child = new CommandProcess(FLAGS, ["run", config, "--json"]);
      const { attach } = JSON.parse((await child.line())!);
      const uml = ["linux.uml", "mem=256M", `virtio_uml.device=${folder}/lan.sock:1`];
      assertEquals(attach, { qemu: null, libvirt: null, uml });
      child.signal("SIGTERM");
      assertEquals((await child.end()).code, 0);
    });
  },
);

hostTest(
  "run tells nothing of QEMU where another front-end is expected",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      for (const profile of ["crosvm", "virtio-user", "cloud-hypervisor", "sim"]) {
        const config = await write(folder, { ...NET, driver: { ...NET.driver, profile } });
        const child = new CommandProcess(FLAGS, ["run", config, "--json"]);
        const started = JSON.parse((await child.line())!);
        assertEquals([started.event, started.attach], ["started", undefined]);
        child.signal("SIGTERM");
        assertEquals((await child.end()).code, 0);
      }
    });
  },
);

hostTest(
  "a device that is not built in tells by its frontEnd what run and check print",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      await Deno.writeTextFile(
        `${folder}/dice.ts`,
        `import { entropy } from "${projectPath("devices/entropy/mod.ts")}";
      export default { ...entropy, name: "own-dice", frontEnd: {
        type: "gpu",
        qemu: ({ queueSize }, { chardev, index }) =>
          [["-device", \`own-pci,id=own\${index},chardev=\${chardev},size=\${queueSize}\`]],
        libvirt: (_options, { source, alias }) =>
          ({ lines: ["<own>", ...source, \`<alias name='\${alias}'/>\`, "</own>"], properties: ["far"] }),
      } };`,
      );
      const config = await write(folder, { ...RNG, use: "./dice.ts" });
      const printed = await command(["run", "--print-capabilities", config]);
      assertEquals([printed.code, printed.out], [0, '{"type":"gpu"}\n']);
      const checked = await command(["check", config, "--json"]);
      const { devices: [{ frontEnds }] } = JSON.parse(checked.out);
      assertEquals(frontEnds.map(({ name }: { name: string }) => name), ["qemu", "uml"]);
      const child = new CommandProcess(FLAGS, ["run", config, "--json"]);
      const { attach } = JSON.parse((await child.line())!);
      child.signal("SIGTERM");
      assertEquals((await child.end()).code, 0);
      assertEquals(attach.qemu.slice(-4), [
        "-chardev",
        `socket,id=vhost0,path=${folder}/dice.sock`,
        "-device",
        "own-pci,id=own0,chardev=vhost0,size=256",
      ]);
      for (
        const part of [
          `<source type='unix' path='${folder}/dice.sock' mode='client'>`,
          "<alias name='ua-gpu0'/>",
          "<qemu:device alias='ua-gpu0'>",
          "<qemu:property name='far' type='bool' value='true'/>",
        ]
      ) assertStringIncludes(attach.libvirt, part);
    });
  },
);

hostTest(
  "what a plugin's frontEnd does wrong is told by its name and place; no frontEnd is no type",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      const config = await write(folder, { ...RNG, use: "./own.ts" });
      const own = (frontEnd: string) =>
        Deno.writeTextFile(
          `${folder}/own.ts`,
          `import { entropy } from "${projectPath("devices/entropy/mod.ts")}";
        export default { ...entropy, name: "own", frontEnd: ${frontEnd} };`,
        );
      const texts = [
        ["qemu: () => { throw new Error('no words'); }", "frontEnd.qemu: no words"],
        ["qemu: async () => []", "frontEnd.qemu: it returned a promise"],
        ["qemu: () => [['-device']]", "frontEnd.qemu: it returned a list; a list of options"],
        [
          "qemu: () => [], libvirt: () => ({ lines: [7] })",
          "frontEnd.libvirt: it returned an element whose lines",
        ],
      ];
      for (const [words, told] of texts) {
        await own(`{ type: "gpu", ${words} }`);
        const child = new CommandProcess(FLAGS, ["run", config]);
        const { code, err } = await child.end();
        assertEquals(code === 0, false);
        assertStringIncludes(err, `$.devices[0]: plugin "own" failed in ${told}`);
      }
      await own("undefined");
      const child = new CommandProcess(FLAGS, ["run", "--print-capabilities", config]);
      const { code, rest, err } = await child.end();
      assertEquals([code, rest], [2, []]);
      assertStringIncludes(err, "has none; give it a frontEnd with one");
    });
  },
);

Deno.test("permissions that a plugin tells wrongly are its error, by name and place", async () => {
  await withFolder(async (folder) => {
    const config = await write(folder, { ...RNG, use: "./own.ts" });
    const texts = [
      ["async () => ({})", "it returned a promise, not the permissions"],
      ['() => ({ read: "/etc" })', 'it returned permissions with the files "/etc"'],
      ["() => ({ write: [5] })", "it returned permissions with the files a list"],
    ];
    for (const [i, [permissions, told]] of texts.entries()) {
      const own = `own${i}.ts`;
      await Deno.writeTextFile(
        `${folder}/${own}`,
        `import { entropy } from "${projectPath("devices/entropy/mod.ts")}";
        export default { ...entropy, name: "own", permissions: ${permissions} };`,
      );
      const text = await Deno.readTextFile(config);
      await Deno.writeTextFile(config, text.replace(/own\d*\.ts/, own));
      const { code, err } = await command(["check", config]);
      assertEquals(code === 0, false);
      assertStringIncludes(err, `$.devices[0]: plugin "own" failed in permissions: ${told}`);
    }
  });
});
