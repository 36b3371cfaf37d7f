import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { UnixStream } from "../../host/unix_socket.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { FLAGS, NET, RNG, stop, withoutEvents, write } from "./support/back_end.ts";
import { command, withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";
import { remoteFrontEnd } from "./support/remote_front_end.ts";

/**
 * `run --trace-protocol`: what it writes of real dialogues.
 */

hostTest(
  "run --trace-protocol writes a real dialogue as text, to standard error or a file",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      const config = await write(folder, NET);
      const file = `${folder}/trace.txt`;
      for (const target of ["-", file]) {
        const flags = target === "-" ? FLAGS : [...FLAGS, `--allow-write=${file}`];
        const child = new CommandProcess(flags, ["run", config, "--trace-protocol", target]);
        await child.lineWith("Running machine");
        {
          using front = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
          front.start();
          front.front.base(0);
        }
        // The next front-end is served when the first has gone.
        using next = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
        assert(next.front.features() > 0n);
        const err = withoutEvents(await stop(child));
        const lines = (target === "-" ? err : await Deno.readTextFile(target)).trimEnd().split("\n");
        assertEquals(target === "-" ? "" : err, "");
        for (const line of lines) assertMatch(line, /^\d+\.\d{3} ms lan [-><!] /);
        const said = lines.map((line) => line.replace(/^\S+ ms lan /, ""));
        assertEquals(said[0], "- connected");
        assertEquals(said[1], "> GET_PROTOCOL_FEATURES");
        assertMatch(said[2], /^< GET_PROTOCOL_FEATURES value=0x[0-9a-f]+ names=\[MQ,/);
        assert(said.includes("> SET_VRING_NUM index=0 num=16"), said.join("\n"));
        assertMatch(
          said.find((line) => line.startsWith("< GET_VRING_BASE"))!,
          /^< GET_VRING_BASE index=0 num=\d+$/,
        );
        assertEquals(said.filter((line) => line === "- connected").length, 2);
        assertEquals(said.at(-1), "- disconnected: the back-end stops");
      }
    });
  },
);

hostTest("run --trace-protocol writes a file .jsonl as JSON lines", [linux], async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/trace.jsonl`;
    const flags = [...FLAGS, `--allow-write=${file}`];
    const child = new CommandProcess(flags, ["run", await write(folder, NET, RNG), "--trace-protocol", file]);
    await child.lineWith("Running machine");
    using lan = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
    lan.front.setFeatures(1n << 32n & lan.front.features());
    using dice = remoteFrontEnd(UnixStream.connect(`${folder}/dice.sock`));
    dice.front.features();
    await stop(child);
    const events = (await Deno.readTextFile(file)).trimEnd().split("\n").map((line) => JSON.parse(line));
    assertEquals(new Set(events.map(({ device }) => device)), new Set(["lan", "dice"]));
    const times = events.map(({ timeNs }) => timeNs);
    assertEquals(times, times.toSorted((a, b) => a - b));
    const agreed = events.find(({ event, name }) => event === "request" && name === "SET_FEATURES");
    assertEquals([agreed.device, agreed.names], ["lan", ["VERSION_1"]]);
  });
});

hostTest("run goes on when the file of a trace cannot take more", [linux], async () => {
  await withFolder(async (folder) => {
    // Opens, and takes nothing.
    const child = new CommandProcess(["--allow-all"], [
      "run",
      await write(folder, NET),
      "--trace-protocol",
      "/dev/full",
    ]);
    await child.lineWith("Running machine");
    using front = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
    for (let i = 0; i < 3; i++) assert(front.front.features() > 0n);
    const err = withoutEvents(await stop(child));
    // It is tried again with each line, for a disk may have room later.
    assertMatch(
      err,
      /^warning: the trace in \/dev\/full has a gap from here on, it cannot be written: .*\nwarning: \d+ lines of the trace in \/dev\/full are lost\n$/,
    );
  });
});

hostTest("run refuses a trace over a file that the machine needs, by whatever name", [linux], async () => {
  await withFolder(async (folder) => {
    const recorded = { ...NET, network: { use: "pcap", write: "out.pcapng", inner: "loopback" } };
    const config = await write(folder, recorded);
    const text = await Deno.readTextFile(config);
    await Deno.link(config, `${folder}/hard`);
    await Deno.symlink(config, `${folder}/soft`);
    await Deno.writeTextFile(`${folder}/out.pcapng`, "the recording of yesterday");
    for (const target of ["config.json", "hard", "soft", "out.pcapng"]) {
      const { code, err } = await command(["run", config, "--trace-protocol", `${folder}/${target}`]);
      assertEquals(code, 2, err);
      assertStringIncludes(err, "--trace-protocol: ");
      assertStringIncludes(err, "choose another file");
      assertEquals(await Deno.readTextFile(config), text);
      assertEquals(await Deno.readTextFile(`${folder}/out.pcapng`), "the recording of yesterday");
    }
  });
});

hostTest("run refuses a trace into a FIFO that nothing reads, at once", [linux], async () => {
  await withFolder(async (folder) => {
    const config = await write(folder, NET);
    await new Deno.Command("mkfifo", { args: [`${folder}/fifo`] }).output();
    const { code, err } = await command(["run", config, "--trace-protocol", `${folder}/fifo`]);
    assertEquals(code, 1);
    assertStringIncludes(err, "nothing reads this FIFO");
  });
});

Deno.test("run fails clearly when the file of a trace cannot be opened", async () => {
  await withFolder(async (folder) => {
    const config = await write(folder, NET);
    const { code, out, err } = await command(["run", config, "--trace-protocol", `${folder}/no/such.txt`]);
    assertEquals([code, out], [1, ""]);
    assertStringIncludes(err, "such.txt");
  });
});
