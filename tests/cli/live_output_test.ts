import { assert, assertEquals, assertMatch } from "@std/assert";
import { LiveOutput } from "../../cli/console/live_output.ts";
import { EventLog, wallClock } from "../../cli/run/event_log.ts";
import { FeatureSet } from "../../core/features.ts";
import { UnixStream } from "../../host/unix_socket.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { eventsIn, FLAGS, NET, write } from "./support/back_end.ts";
import { ROOT, withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";
import { remoteFrontEnd } from "./support/remote_front_end.ts";

/**
 * What is printed decides nothing: neither a pipe that is not read, nor a full disk, nor a reader that has
 * gone.
 */

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A stream that takes what it is told to take. */
class FakeStream {
  text = "";
  /** Bytes of one write, at most. */
  most = Infinity;
  failure: Error | null = null;
  gate: Promise<void> = Promise.resolve();

  async write(bytes: Uint8Array): Promise<number> {
    await this.gate;
    if (this.failure !== null) throw this.failure;
    const taken = bytes.subarray(0, Math.min(bytes.length, this.most));
    this.text += new TextDecoder().decode(taken);
    return taken.length;
  }
}

function notice(lines: number): string {
  return `${lines} missing\n`;
}

Deno.test("LiveOutput writes everything in order, however little is taken at once", async () => {
  const stream = new FakeStream();
  stream.most = 7;
  const output = new LiveOutput(stream, notice);
  for (let i = 0; i < 100; i++) output.write(`line ${i}\n`);
  await output.settle(1000);
  assertEquals(stream.text, Array.from({ length: 100 }, (_, i) => `line ${i}\n`).join(""));
  assertEquals([output.lostLines, output.isBusy], [0, false]);
});

Deno.test("LiveOutput keeps a bounded number of lines, counts the others, and says where they are missing", async () => {
  const stream = new FakeStream();
  const gate = Promise.withResolvers<void>();
  stream.gate = gate.promise;
  const output = new LiveOutput(stream, notice);
  const line = `${"x".repeat(9_999)}\n`;
  for (let i = 0; i < 1000; i++) output.write(line);
  assert(output.isBusy);
  // The text that is under way, and a mebibyte that waits.
  assert(output.lostLines > 890 && output.lostLines < 900, String(output.lostLines));
  gate.resolve();
  await output.settle(1000);
  output.write("back\n");
  await output.settle(1000);
  assert(
    stream.text.endsWith(`x\n${output.lostLines} missing\nback\n`),
    stream.text.slice(-60),
  );
});

Deno.test("LiveOutput tries a full disk again with each text, and tells it once", async () => {
  const stream = new FakeStream();
  const why: string[] = [];
  const output = new LiveOutput(stream, notice, (reason) => why.push(reason));
  stream.most = 3;
  output.write("first\n");
  await output.settle(1000);
  stream.failure = new Error("disk full");
  for (let i = 0; i < 3; i++) {
    output.write("lost\n");
    await output.settle(1000);
  }
  stream.failure = null;
  output.write("last\n");
  await output.settle(1000);
  assertEquals([stream.text, output.lostLines, why], ["first\n3 missing\nlast\n", 3, ["disk full"]]);
});

Deno.test("LiveOutput waits for a pipe that others have made non-blocking, and gives a closed one up", async () => {
  const stream = new FakeStream();
  const output = new LiveOutput(stream, notice);
  stream.failure = new Deno.errors.WouldBlock("not now");
  output.write("patient\n");
  await sleep(20);
  stream.failure = null;
  await output.settle(1000);
  assertEquals([stream.text, output.lostLines], ["patient\n", 0]);
  stream.failure = new Deno.errors.BrokenPipe("gone");
  output.write("lost\n");
  await output.settle(1000);
  stream.failure = null;
  output.write("lost, too\n");
  await output.settle(1000);
  assertEquals([stream.text, output.lostLines], ["patient\n", 2]);
});

Deno.test("LiveOutput.settle() gives up when nothing is taken", async () => {
  const stream = new FakeStream();
  stream.gate = new Promise(() => {});
  const output = new LiveOutput(stream, notice);
  output.write("under way\n");
  output.write("waiting\n");
  const startMs = performance.now();
  await output.settle(50);
  assert(performance.now() - startMs < 1000);
});

/** A network device and another one, whose bits mean something else. */
const featureNames = (device: string) => new Map(device === "lan" ? [[15, "MRG_RXBUF"]] : [[15, "RO"]]);

Deno.test("EventLog tells as many events of a kind as are good, counts the others, and hides no other kind", () => {
  const lines: string[] = [];
  const log = new EventLog({
    text: (line) => lines.push(line),
    json: () => {},
    featureNames,
    isJournal: true,
  });
  for (let i = 0; i < 10_000; i++) {
    log.note("lan", { event: "fault", fault: "ring-broken", message: `number ${i}\n` });
  }
  log.note("wan", { event: "fault", fault: "ring-broken", message: "another device" });
  log.note("lan", { event: "disconnected", reason: "the front-end has closed it" });
  log[Symbol.dispose]();
  const told = lines.filter((line) => line.includes("number"));
  assert(told.length >= 64 && told.length < 70, String(told.length));
  assertEquals(told[0], "<4>lan: fault of the guest, ring-broken: number 0\\u000a\n");
  assertEquals(lines.slice(told.length), [
    "<4>wan: fault of the guest, ring-broken: another device\n",
    "<6>lan: front-end gone: the front-end has closed it\n",
    `<4>lan: ${10_000 - told.length} more events of the kind "fault", not told one by one\n`,
  ]);
});

Deno.test("EventLog gives facts for JSON, features by name", () => {
  const facts: unknown[] = [];
  const log = new EventLog({
    text: null,
    json: (event, more) => facts.push({ event, ...more }),
    featureNames,
    isJournal: false,
  });
  log.note("lan", { event: "features", features: FeatureSet.of(15, 32) });
  log.note("disk", { event: "features", features: FeatureSet.of(5, 15, 32) });
  log.note("lan", { event: "queue-started", queue: 1 });
  log[Symbol.dispose]();
  assertEquals(facts, [
    { event: "features", device: "lan", features: ["MRG_RXBUF", "VERSION_1"] },
    { event: "features", device: "disk", features: ["bit 5", "RO", "VERSION_1"] },
    { event: "queue-started", device: "lan", queue: 1 },
  ]);
});

Deno.test("wallClock() is the time of day here", () => {
  const date = new Date("2026-03-04T05:06:07.089Z");
  const text = wallClock(date);
  assertMatch(text, /^2026-03-0\dT\d\d:\d\d:07\.089[+-]\d\d:\d\d$/);
  assertEquals(new Date(text).getTime(), date.getTime());
});

/** A back-end whose output nothing reads, or that goes where bash sends it. */
async function backEnd(
  folder: string,
  redirect: string,
): Promise<{ child: Deno.ChildProcess; front: () => bigint }> {
  const config = await write(folder, NET);
  const run = `exec "${Deno.execPath()}" run --no-prompt ${
    FLAGS.join(" ")
  } mod.ts run ${config} --json --trace-protocol -`;
  const child = new Deno.Command("bash", {
    args: ["-c", `${run} ${redirect}`],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const path = `${folder}/lan.sock`;
  for (let i = 0; i < 200; i++) {
    try {
      Deno.lstatSync(path);
      break;
    } catch {
      await sleep(50);
    }
  }
  return {
    child,
    front: () => {
      using front = remoteFrontEnd(UnixStream.connect(path));
      return front.front.features();
    },
  };
}

/** Asks for counters until a pipe that nothing reads must be full, front-ends coming and going meanwhile. */
async function fill(child: Deno.ChildProcess, front: () => bigint): Promise<void> {
  for (let i = 0; i < 120; i++) {
    child.kill("SIGUSR2");
    assert(front() > 0n);
    await sleep(5);
  }
}

async function endsWithin(child: Deno.ChildProcess, ms: number): Promise<number> {
  const killer = setTimeout(() => child.kill("SIGKILL"), ms);
  const { code } = await child.status;
  clearTimeout(killer);
  return code;
}

for (
  const [name, redirect] of [
    ["nothing reads standard output and standard error", ""],
    ["standard output and standard error are on a full disk", ">/dev/full 2>/dev/full"],
    ["standard output and standard error are closed pipes", "> >(exec true) 2> >(exec true)"],
  ]
) {
  hostTest(`a device is served and stopped while ${name}`, [linux], async () => {
    await withFolder(async (folder) => {
      const { child, front } = await backEnd(folder, redirect);
      await fill(child, front);
      child.kill("SIGTERM");
      assertEquals(await endsWithin(child, 8000), 0);
      await child.stdout.cancel();
      await child.stderr.cancel();
    });
  });
}

hostTest("run --json tells events as lines, and run has no room for a flood of them", [linux], async () => {
  await withFolder(async (folder) => {
    const child = new CommandProcess(FLAGS, ["run", await write(folder, NET), "--json"]);
    await child.lineWith('"started"');
    const connections = 100;
    for (let i = 0; i < connections; i++) {
      using front = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
      front.front.features();
    }
    child.signal("SIGTERM");
    const { code, rest, err } = await child.end();
    assertEquals([code, err], [0, ""]);
    const events = rest.map((line) => JSON.parse(line));
    const of = (name: string) => events.filter(({ event }) => event === name);
    assertMatch(of("connected")[0].time, /^\d{4}-/);
    assertEquals(of("connected")[0].device, "lan");
    for (const kind of ["connected", "disconnected"]) {
      const suppressed = of("suppressed").filter((event) => event.kind === kind)
        .reduce((sum, { count }) => sum + count, 0);
      assertEquals(of(kind).length + suppressed, connections);
      assert(suppressed > 0);
    }
  });
});

hostTest("run tells a guest's fault by its name", [linux], async () => {
  await withFolder(async (folder) => {
    const child = new CommandProcess(FLAGS, ["run", await write(folder, NET)]);
    await child.lineWith("Running machine");
    {
      using front = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
      front.front.setFeatures(1n << 63n);
      front.front.features();
    }
    child.signal("SIGTERM");
    const { err } = await child.end();
    assert(eventsIn(err).some((line) => line.includes("features-unknown")), err);
  });
});
