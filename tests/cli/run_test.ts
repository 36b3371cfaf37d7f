import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { command, projectPath, withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";

const ECHO = "examples/loopback_echo.jsonc";
const CAPTURE = projectPath("tests/captures/bulk_v4_plain.pcap");
const READ = ["--allow-read"];

async function write(folder: string, config: unknown): Promise<string> {
  const path = `${folder}/config.json`;
  await Deno.writeTextFile(path, JSON.stringify(config));
  return path;
}

Deno.test("run ends by itself at the end of a capture, and shows the counters", async () => {
  const { code, out, err } = await command(["run", projectPath("examples/replay_capture.jsonc")]);
  assertEquals([code, err], [0, ""]);
  assertMatch(
    out,
    /^Running replay-capture: net0 \(guest by loopback - checksum - rsc-v4 - rsc-v6 -\nnetwork by pcap\)\n/,
  );
  assertMatch(out, /\nStopped after \d+ ms, nothing is left to do\n {2}net0\.network\n {4}read +334\n/);
  assertMatch(out, /\n {2}net0\.rsc-v4\n[^]*packets_coalesced +5\n/);
});

Deno.test("run --json prints lines: started and stopped, with every counter", async () => {
  const { code, out } = await command(["run", projectPath("examples/replay_capture.jsonc"), "--json"]);
  assertEquals(code, 0);
  const [started, stopped, ...rest] = out.trim().split("\n").map((line) => JSON.parse(line));
  assertEquals(rest, []);
  assertEquals(started, {
    event: "started",
    timeNs: 0,
    name: "replay-capture",
    clock: "virtual",
    devices: [{
      name: "net0",
      use: "net",
      driver: "loopback",
      network: "pcap",
      offloads: ["checksum", "rsc-v4", "rsc-v6"],
    }],
  });
  assertEquals([stopped.event, stopped.reason], ["stopped", "end"]);
  assertEquals(stopped.counters["net0.network"].taken, 188);
  assertEquals(stopped.counters["net0.rsc-v4"].segments_coalesced, 182);
});

Deno.test("run tells the counters and the error when a capture is damaged", async () => {
  await withFolder(async (folder) => {
    await Deno.writeFile(`${folder}/cut.pcap`, (await Deno.readFile(CAPTURE)).subarray(0, 100_000));
    const network = { use: "pcap", read: "cut.pcap" };
    const device = { use: "net", mac: "52:54:00:00:00:01", driver: "loopback", network };
    const path = await write(folder, { clock: "virtual", devices: [device] });
    const { code, out, err } = await command(["run", path]);
    assertEquals(code, 1);
    assertStringIncludes(err, "a packet is cut off");
    assertMatch(out, /\nStopped after [\d.]+ ms, something failed\n/);
    assertMatch(out, /damaged +1\n/);
  });
});

Deno.test("run names the plugin that throws, the hook, and the lines of configuration and plugin", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/stage.ts`,
      `import { defineOffload, perFrame } from "${projectPath("plugin.ts")}";
       import { z } from "zod";
       export default defineOffload({
         name: "bomb", direction: "toGuest", options: z.strictObject({}),
         create: () => perFrame(() => { throw new Error("as it likes"); }),
       });`,
    );
    const network = { use: "pcap", read: CAPTURE };
    const device = {
      use: "net",
      mac: "52:54:00:00:00:01",
      driver: "loopback",
      network,
      offloads: ["./stage.ts"],
    };
    const path = await write(folder, { clock: "virtual", devices: [device] });
    const { code, out, err } = await command(["run", path]);
    assertEquals(code, 1);
    const column = (await Deno.readTextFile(path)).indexOf('"./stage.ts"') + 1;
    assertEquals(
      err,
      `error: ${path}:1:${column}: $.devices[0].offloads[0]: plugin "bomb" failed in process: as it likes ` +
        `(file://${folder}/stage.ts:5:47)\n`,
    );
    assertStringIncludes(out, "something failed");
  });
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`run stops cleanly at ${signal}: what was sent is delivered, files are complete, exit code 0`, async () => {
    await withFolder(async (folder) => {
      const send = { count: 0, frameBytes: 100, intervalUs: 2000, destination: "52:54:00:00:00:02" };
      const driver = { use: "loopback", behaviour: { send } };
      const network = { use: "pcap", write: "all.pcapng", inner: "loopback" };
      const path = await write(folder, {
        devices: [
          { use: "net", name: "one", mac: "52:54:00:00:00:01", driver, network },
          { use: "net", name: "two", mac: "52:54:00:00:00:02", driver: "loopback", network: "loopback" },
        ],
      });
      const child = new CommandProcess([...READ, `--allow-write=${folder}`], [
        "run",
        path,
        "--stats-interval-s",
        "0.1",
      ]);
      await child.lineWith("Running machine");
      await child.lineWith("two  to guest");
      await child.lineWith("two  to guest");
      child.signal(signal);
      const { code, rest, err } = await child.end();
      const text = rest.join("\n");
      assertEquals([code, err], [0, ""]);
      assertStringIncludes(text, `${signal}: stopping`);
      assertMatch(text, /Stopped after \S+ (ms|s), as asked/);
      const sent = Number(/one\.driver\n +sent +([\d,]+)/.exec(text)![1].replaceAll(",", ""));
      const received = Number(/two\.driver\n +received +([\d,]+)/.exec(text)![1].replaceAll(",", ""));
      assert(sent > 5);
      assertEquals(received, sent);
      using reader = CaptureReader.open(`${folder}/all.pcapng`);
      let recorded = 0;
      while (reader.next()) recorded++;
      assertEquals(recorded, sent);
    });
  });
}

Deno.test("run prints all counters at SIGUSR2, as a line of JSON, and goes on", async () => {
  const child = new CommandProcess(READ, ["run", ECHO]);
  await child.lineWith("Running loopback-echo");
  const seen: number[] = [];
  for (let i = 0; i < 2; i++) {
    await new Promise((resolve) => setTimeout(resolve, 150));
    child.signal("SIGUSR2");
    const { event, counters, timeNs } = JSON.parse(await child.lineWith('"counters"'));
    assertEquals(event, "counters");
    assert(timeNs > 0);
    seen.push(counters["echo.driver"].echoed);
  }
  assert(seen[0] > 0 && seen[1] > seen[0], String(seen));
  child.signal("SIGINT");
  const { code } = await child.end();
  assertEquals(code, 0);
});

Deno.test("run --json --stats-interval-s prints counters as JSON lines until it is stopped", async () => {
  const child = new CommandProcess(READ, [ECHO, "--json", "--stats-interval-s", "0.1"]);
  assertEquals(JSON.parse((await child.line())!).event, "started");
  const first = JSON.parse((await child.line())!);
  const second = JSON.parse((await child.line())!);
  assertEquals([first.event, second.event], ["counters", "counters"]);
  assert(second.timeNs > first.timeNs);
  child.signal("SIGTERM");
  const { code, rest } = await child.end();
  const last = JSON.parse(rest.at(-1)!);
  assertEquals([code, last.event, last.reason], [0, "stopped", "signal"]);
});

Deno.test("run goes on when its output is not read any more, until it is told to stop", async () => {
  const script =
    `timeout -s TERM 4 "${Deno.execPath()}" run -R mod.ts ${ECHO} --stats-interval-s 0.1 | head -n 3; echo ended by \${PIPESTATUS[0]}`;
  const { code, stdout, stderr } = await new Deno.Command("bash", {
    args: ["-c", script],
    cwd: projectPath(""),
    env: { NO_COLOR: "1" },
  }).output();
  const lines = new TextDecoder().decode(stdout).trimEnd().split("\n");
  // 124: it ran until the signal came.
  assertEquals([code, lines.length, lines.at(-1)], [0, 4, "ended by 124"]);
  assertMatch(
    new TextDecoder().decode(stderr),
    /^warning: standard output takes no more: .*; what it does not take is counted\n$/,
  );
});

Deno.test("run leaves out what a plugin has published in place of a number", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/odd.ts`,
      `import { defineOffload, perFrame } from "${projectPath("plugin.ts")}";
      import { z } from "zod";
      export default defineOffload({
        name: "odd", direction: "fromGuest", options: z.strictObject({}),
        create: (context) => {
          context.publish({ big: 7n, none: undefined, two: 2 });
          return perFrame((frame, output) => output.push(frame));
        },
      });`,
    );
    const device = { use: "net", driver: "loopback", network: "loopback", offloads: ["./odd.ts"] };
    const path = await write(folder, { clock: "virtual", devices: [device] });
    const { code, out } = await command(["run", path, "--json"]);
    assertEquals(code, 0);
    assertEquals(JSON.parse(out.trim().split("\n").at(-1)!).counters["net0.odd"], { two: 2 });
  });
});

for (
  const [hook, body] of [
    ["process", 'throw new Error("as it likes");'],
    ["a promise", 'Promise.reject(new Error("as it likes"));'],
    // Without a stack: it is the only device that has a plugin of a module.
    ["a promise", 'Promise.reject("as it likes");'],
    ["a callback", 'setTimeout(() => { throw new Error("as it likes"); });'],
  ]
) {
  Deno.test(`run goes on with the other devices when a plugin fails, tells it at once, and exits 1 in the end: ${body}`, async () => {
    await withFolder(async (folder) => {
      await Deno.writeTextFile(
        `${folder}/bomb.ts`,
        `import { defineOffload } from "${projectPath("plugin.ts")}";
      import { z } from "zod";
      export default defineOffload({
        name: "bomb", direction: "fromGuest", options: z.strictObject({}),
        create: () => ({ process(input) { input.releaseAll(); ${body} } }),
      });`,
      );
      const driver = { use: "loopback", behaviour: { send: { count: 50_000, intervalUs: 100 } } };
      const path = await write(folder, {
        clock: "virtual",
        devices: [
          { use: "net", driver, network: "loopback", offloads: [{ use: "./bomb.ts" }] },
          { use: "net", driver, network: { use: "loopback", cable: "b" } },
        ],
      });
      const { code, out, err } = await command(["run", path]);
      assertEquals(code, 1);
      const message = `$.devices[0].offloads[0]: plugin "bomb" failed in ${hook}: as it likes`;
      const [event, last, ...more] = err.trimEnd().split("\n");
      // Where it is in the configuration, and in the module if the error has a stack.
      const told = last.replace("error: ", "");
      assertEquals(
        told.replace(/ \(file:.*\/bomb\.ts:5:\d+\)$/, ""),
        `${folder}/config.json:1:159: ${message}`,
      );
      assertEquals(told.endsWith(")"), body.includes("new Error"), told);
      assert(event.endsWith(`net0: the device has failed and is stopped: ${told}`), err);
      assertEquals(more, []);
      assertMatch(out, /net1\.network\n {4}sent +50,?000\n/);
    });
  });
}

Deno.test("a promise that a plugin has had rejected at the very end is told, and run exits 1", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/bomb.ts`,
      `import { defineOffload, perFrame } from "${projectPath("plugin.ts")}";
      import { z } from "zod";
      export default defineOffload({
        name: "bomb", direction: "fromGuest", options: z.strictObject({}),
        create: () => perFrame((frame, output) => {
          output.push(frame);
          Promise.reject(new Error("too late"));
        }),
      });`,
    );
    const driver = { use: "loopback", behaviour: { send: { count: 3 } } };
    const device = { use: "net", driver, network: "loopback", offloads: ["./bomb.ts"] };
    const path = await write(folder, { clock: "virtual", devices: [device] });
    const { code, err } = await command(["run", path]);
    assertEquals(code, 1, err);
    assertStringIncludes(err, 'plugin "bomb" failed in a promise: too late');
  });
});

Deno.test("run says where in the configuration stands what the host refuses, as check does", async () => {
  await withFolder(async (folder) => {
    const driver = { use: "loopback", queuePairs: 4 };
    const device = { use: "net", queuePairs: 2, driver, network: "loopback" };
    const path = await write(folder, { clock: "virtual", devices: [device] });
    const [checked, ran] = [await command(["check", path]), await command(["run", path])];
    assertEquals([ran.code, ran.err], [checked.code, checked.err]);
    assertMatch(ran.err, /config\.json:1:\d+: \$\.devices\[0\]\.driver: Cannot use 4 queue pairs/);
  });
});

Deno.test("run draws a progress line on a terminal only, and clears it", async () => {
  await withFolder(async (folder) => {
    const driver = { use: "loopback", behaviour: { send: { count: 0, intervalUs: 1000 } } };
    const path = await write(folder, { devices: [{ use: "net", name: "one", driver, network: "loopback" }] });
    // `script` gives the command a terminal, and its shell says which process it becomes.
    const child = new Deno.Command("script", {
      args: ["-qefc", `echo $$; exec timeout 60 "${Deno.execPath()}" run -R mod.ts "${path}"`, "/dev/null"],
      cwd: projectPath(""),
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
    }).spawn();
    let text = "";
    let progress: string[] = [];
    let stopped = false;
    // Until it has drawn twice, however long a busy host takes to start it.
    for await (const part of child.stdout.pipeThrough(new TextDecoderStream())) {
      text += part;
      progress = text.split("\r\x1b[K").filter((drawn) =>
        /^[\d.]+ (ms|s) {2}one to guest 0, from guest [\d,]+$/.test(drawn)
      );
      if (stopped || progress.length < 2) continue;
      stopped = true;
      Deno.kill(Number(/\d+/.exec(text)![0]), "SIGINT");
    }
    await child.status;
    const drawn = text.split("\r\x1b[K");
    assert(progress.length >= 2, drawn.join("|"));
    assert(drawn.at(-1)!.startsWith("SIGINT: stopping"), drawn.join("|"));
  });
});
