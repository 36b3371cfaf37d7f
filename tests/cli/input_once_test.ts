import { assert, assertEquals, assertFalse, assertMatch, assertStringIncludes } from "@std/assert";
import { CaptureInput } from "../../cli/replay/capture_input.ts";
import type { ReplaySummary } from "../../cli/replay/summary.ts";
import { tcp } from "../../testing/mod.ts";
import { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { CaptureWriter } from "../../transports/pcap/capture_writer.ts";
import { described, enhanced, join, section } from "../transports/pcap/build.ts";
import { command, projectPath, ROOT, withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";

/**
 * Inputs that can be read only once: pipes, FIFOs, standard input, what a shell writes for `<(...)`. And what
 * `replay` says of captures that are not what one may think.
 */

const CAPTURE = projectPath("tests/captures/bulk_v4_plain.pcap");
const GUEST = "52:54:00:00:00:01";

/** Runs a line of bash in which $V is the program. */
async function shell(
  line: string,
  flags = "--allow-read",
): Promise<{ code: number; out: string; err: string }> {
  const { code, stdout, stderr } = await new Deno.Command("bash", {
    args: [
      "-c",
      `V="timeout 60 ${Deno.execPath()} run --no-prompt ${flags} mod.ts"; set -o pipefail; ${line}`,
    ],
    cwd: ROOT,
    env: { NO_COLOR: "1", C: CAPTURE },
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

async function summary(path: string, ...options: string[]): Promise<ReplaySummary> {
  const { code, out, err } = await command(["replay", path, "--json", ...options]);
  assertEquals([code, err], [0, ""]);
  return JSON.parse(out);
}

async function capture(path: string, ...packets: Uint8Array[]): Promise<string> {
  const writer = CaptureWriter.open(path);
  packets.forEach((bytes, i) => assert(writer.writeBytes(bytes, 1, i * 10_000)));
  await writer.close();
  return path;
}

Deno.test("replay gives the same result from a file, a pipe, a FIFO and <(...), packed or not", async () => {
  const expected = await summary(CAPTURE);
  await withFolder(async (folder) => {
    for (
      const line of [
        `$V replay --json - < "$C"`,
        `cat "$C" | $V replay - --json`,
        `cat "$C" | $V replay /dev/stdin --json`,
        `$V replay --json <(cat "$C")`,
        `$V replay --json <(gzip -c "$C")`,
        `gzip -c "$C" > ${folder}/packed && $V replay --json ${folder}/packed`,
        `mkfifo ${folder}/fifo && { cat "$C" > ${folder}/fifo & } && $V replay --json ${folder}/fifo`,
      ]
    ) {
      const { code, out, err } = await shell(line);
      assertEquals([code, err], [0, ""], line);
      const { capture: head, ...result } = JSON.parse(out) as ReplaySummary;
      const { capture: { file: _, ...expectedHead }, ...expectedResult } = expected;
      const { file, ...shown } = head;
      assertEquals([shown, result], [expectedHead, expectedResult], line);
      assertEquals(file === "standard input", / - |stdin/.test(line));
    }
    const explained = await shell(`cat "$C" | $V replay - --explain --json`);
    assertEquals(explained.out.trim().split("\n").length, expected.capture.packets + 1);
  });
});

Deno.test("replay says of a pipe what is wrong with it, and reads no endless input that is no capture", async () => {
  const text = await shell(`echo no capture at all | $V replay -`);
  assertEquals([text.code, text.out], [1, ""]);
  assertStringIncludes(text.err, 'Cannot read capture "standard input" at byte 0');
  const nothing = await shell(`: | $V replay -`);
  assertStringIncludes(nothing.err, "it has 0 bytes");
  const endless = await shell(`yes | $V replay -`);
  assertStringIncludes(endless.err, "neither pcap nor pcapng");
  const cut = await shell(`head -c 100000 "$C" | $V replay -`);
  assertEquals(cut.code, 1);
  assertStringIncludes(cut.err, "a packet is cut off");
  assertStringIncludes(cut.out, "Coalescing factor");
});

Deno.test("a long pipe goes into a temporary file without a name, which several read at once", async () => {
  await withFolder(async (folder) => {
    const fifo = `${folder}/fifo`;
    assert((await new Deno.Command("mkfifo", { args: [fifo] }).output()).success);
    const child = new Deno.Command("bash", { args: ["-c", `cat "$0" > "$1"`, CAPTURE, fifo] }).spawn();
    using input = CaptureInput.open(fifo, 1000);
    assert((await child.status).success);
    using first = input.reader();
    using second = input.reader();
    using expected = CaptureReader.open(CAPTURE);
    let packets = 0;
    while (expected.next()) {
      for (const reader of [first, second]) {
        assert(reader.next());
        assertEquals(reader.packet.toBytes(), expected.packet.toBytes());
      }
      packets++;
    }
    assert(packets > 100 && !first.next() && !second.next());
  });
});

const CONFIG =
  `{ "devices": [{ "use": "net", "network": { "use": "pcap", "read": "tests/captures/bulk_v4_plain.pcap", ` +
  `"pace": "fast", "take": "all" }, "driver": "loopback" }] }`;

Deno.test("check and run take a configuration from a pipe and from standard input, with paths from the current directory", async () => {
  const config = `CONFIG='${CONFIG}';`;
  for (const verb of ["check", "run"]) {
    for (const line of [`echo "$CONFIG" | $V ${verb} -`, `$V ${verb} <(echo "$CONFIG")`]) {
      const { code, out, err } = await shell(`${config} ${line}`);
      assertEquals([code, err], [0, ""], line);
      assert(out.length > 100);
      if (verb !== "check") continue;
      assertMatch(out, /--allow-read=tests\/captures\/bulk_v4_plain\.pcap/);
      // A descriptor of the shell is gone when the line is pasted.
      const again = line.includes("<(")
        ? /Save it as a file, and run it with\n {2}deno run --allow-read=\S+,FILE mod\.ts FILE\n/
        : /Run it with\n {2}deno run \S+ mod\.ts -\n/;
      assertMatch(out, again);
      assertFalse(out.slice(out.indexOf("un it with")).includes("/dev/fd/"));
    }
  }
  const wrong = await shell(`echo '{ "devices": [{ "use": "nett" }] }' | $V check -`);
  assertEquals(wrong.code, 2);
  assertStringIncludes(wrong.err, "-:1:");
});

Deno.test("run takes a capture from a FIFO and from standard input, and ends when it does", async () => {
  await withFolder(async (folder) => {
    const fifo = `${folder}/fifo`;
    const configured = (read: string) => CONFIG.replace("tests/captures/bulk_v4_plain.pcap", read);
    await Deno.writeTextFile(`${folder}/fifo.json`, configured(fifo));
    await Deno.writeTextFile(`${folder}/input.json`, configured("-"));
    assert((await new Deno.Command("mkfifo", { args: [fifo] }).output()).success);
    // What check reads of a pipe would be missing when the configuration runs.
    const checked = await shell(`$V check ${folder}/fifo.json && $V check ${folder}/input.json </dev/null`);
    assertEquals([checked.code, checked.err], [0, ""]);
    for (
      const line of [
        `{ sleep 0.5; gzip -c "$C" > ${fifo}; } & $V run --json ${folder}/fifo.json`,
        `{ head -c 5000 "$C"; sleep 0.3; tail -c +5001 "$C"; } | $V run --json ${folder}/input.json`,
      ]
    ) {
      const { code, out, err } = await shell(line);
      assertEquals([code, err], [0, ""], line);
      const stopped = out.trim().split("\n").map((text) => JSON.parse(text)).at(-1);
      assertEquals(stopped.event, "stopped");
      assertStringIncludes(JSON.stringify(stopped), '"damaged":0');
      using reader = CaptureReader.open(CAPTURE);
      let packets = 0;
      while (reader.next()) packets++;
      assertStringIncludes(JSON.stringify(stopped), `"taken":${packets}`);
    }
  });
});

Deno.test("SIGTERM ends run and replay while their pipe gives nothing, and run delivers what is there", async () => {
  const bytes = await Deno.readFile(projectPath("tests/captures/bulk_v4_plain.pcap"));
  await withFolder(async (folder) => {
    const fifo = `${folder}/fifo`;
    assert((await new Deno.Command("mkfifo", { args: [fifo] }).output()).success);
    await Deno.writeTextFile(
      `${folder}/config.json`,
      CONFIG.replace("tests/captures/bulk_v4_plain.pcap", fifo),
    );
    for (const args of [["run", "--json", `${folder}/config.json`], ["replay", fifo]]) {
      for (const signal of ["SIGTERM", "SIGINT"] as const) {
        const process = new CommandProcess(["-A", "--no-check"], args);
        using file = await Deno.open(fifo, { write: true });
        await file.write(bytes.subarray(0, 40_000));
        if (args[0] === "run") await process.lineWith('"event":"started"');
        await new Promise((resolve) => setTimeout(resolve, 300));
        const startedMs = performance.now();
        process.signal(signal);
        const { code, rest, err } = await process.end();
        const tookMs = performance.now() - startedMs;
        assert(tookMs < 2000, `${args[0]} took ${tookMs} ms`);
        if (args[0] === "replay") continue;
        assertEquals([code, err], [0, ""]);
        const stopped = JSON.parse(rest.at(-1)!);
        assertEquals(stopped.reason, "signal", rest.at(-1));
        assert(stopped.counters["net0.toGuest"].packets > 0, rest.at(-1));
      }
    }
  });
});

Deno.test("in threads mode a FIFO is refused as any capture is, and not waited for", async () => {
  await withFolder(async (folder) => {
    assert((await new Deno.Command("mkfifo", { args: [`${folder}/fifo`] }).output()).success);
    const driver = { use: "vhost-user", socket: `${folder}/socket` };
    const network = { use: "pcap", read: `${folder}/fifo` };
    const text = JSON.stringify({ devices: [{ use: "net", mode: "threads", driver, network }] });
    await Deno.writeTextFile(`${folder}/config.json`, text);
    for (const verb of ["check", "run"]) {
      const { code, err } = await shell(`$V ${verb} ${folder}/config.json`);
      assertEquals(code, 2);
      assertStringIncludes(err, '"pcap" cannot give its queues to threads; use "tap"');
    }
  });
});

Deno.test("vectors takes one from standard input", async () => {
  const [first] = [...Deno.readDirSync(projectPath("tests/vectors/rsc"))].filter(({ name }) =>
    name.endsWith(".jsonl")
  );
  const { code, out } = await shell(`cat tests/vectors/rsc/${first.name} | $V vectors -`);
  assertEquals([code, out], [0, "1 passed, 0 failed\n"]);
});

/** A frame of so many bytes of another EtherType, to the guest. */
function other(type: number): Uint8Array {
  const bytes = new Uint8Array(60);
  bytes.set([0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, type >> 8, type & 255]);
  return bytes;
}

function tagged(bytes: Uint8Array, id: number): Uint8Array {
  return Uint8Array.from([...bytes.subarray(0, 12), 0x81, 0, id >> 8, id & 255, ...bytes.subarray(12)]);
}

Deno.test("replay --explain names what every frame is, also where no stage looks", async () => {
  await withFolder(async (folder) => {
    const kinds: [number, string][] = [[0x806, "ARP"], [0x88cc, "LLDP"], [0x88b5, "EtherType 0x88b5"], [
      60,
      "IEEE 802.3",
    ], [0x8864, "PPPoE"]];
    const path = await capture(
      `${folder}/kinds.pcapng`,
      ...kinds.map(([type]) => other(type)),
      tagged(other(0x806), 5),
      tcp({ payload: 100 }),
    );
    const { out } = await command(["replay", path, "--guest", GUEST, "--explain", "--json"]);
    const lines = out.trim().split("\n").map((line) => JSON.parse(line));
    const last = lines.pop() as ReplaySummary;
    const verdicts = lines.map(({ verdict }) => verdict);
    assertEquals(verdicts.slice(0, 6), [
      ...kinds.map(([, kind]) => `passed: ${kind}`),
      "passed: ARP in a VLAN",
    ]);
    assertEquals(verdicts.length, 7);
    assert(lines.every(({ verdict }) => verdict !== ""));
    const reasons = Object.fromEntries(last.reasons.map(({ verdict, count }) => [verdict, count]));
    assertEquals([reasons["passed: ARP"], reasons["passed: LLDP"]], [1, 1]);
    assertStringIncludes((await command(["replay", path, "--guest", GUEST])).out, "passed: EtherType 0x88b5");
  });
});

Deno.test("replay says first why nothing came, or nothing was merged", async () => {
  await withFolder(async (folder) => {
    const noGuest = await command(["replay", CAPTURE, "--guest", "52:54:00:00:00:77"]);
    assertMatch(
      noGuest.out,
      /^No frame of the capture is sent to 52:54:00:00:00:77\. Name another guest by\s+--guest: /,
    );
    assertStringIncludes(noGuest.out.replace(/\s+/g, " "), `${GUEST} (`);

    // A small snap length: the first 96 bytes of every packet.
    const bytes = await Deno.readFile(CAPTURE);
    const view = new DataView(bytes.buffer);
    const parts = [...bytes.subarray(0, 24)];
    for (let at = 24; at < bytes.length;) {
      const length = view.getUint32(at + 8, true);
      const kept = Math.min(length, 96);
      view.setUint32(at + 8, kept, true);
      parts.push(...bytes.subarray(at, at + 16 + kept));
      at += 16 + length;
    }
    await Deno.writeFile(`${folder}/snapped.pcap`, Uint8Array.from(parts));
    const snapped = await summary(`${folder}/snapped.pcap`);
    assertMatch(snapped.remarks[0], /^\d+ of \d+ packets are cut by the snap length, of 96 bytes or so/);
    assertEquals([snapped.guest.mac, snapped.guest.payloadBytes], [GUEST, 262_144]);

    const chain = Array.from({ length: 4 }, (_, i) => {
      const plain = tcp({ source: "fd00::1", seq: 1 + i * 100, payload: 100 });
      const hopByHop = [6, 0, 1, 4, 0, 0, 0, 0];
      const ext = Uint8Array.from([...plain.subarray(0, 54), ...hopByHop, ...plain.subarray(54)]);
      ext[20] = 0;
      new DataView(ext.buffer).setUint16(18, 128);
      return ext;
    });
    const extended = await summary(
      await capture(`${folder}/extended.pcapng`, ...chain),
      "--guest",
      macOf(chain[0]),
    );
    assertEquals([extended.input.dataSegments, extended.guest.payloadBytes], [4, 400]);
    assertMatch(extended.remarks[0], /^No segment was merged; most often "rsc-v6 extension_header" \(4\): /);

    const fine = await command(["replay", CAPTURE]);
    assert(fine.out.startsWith(CAPTURE));
    assertFalse(fine.out.includes("Odd in the capture"));
  });
});

Deno.test("replay takes a capture of the loopback interface, and chooses no station without an address", async () => {
  await withFolder(async (folder) => {
    const lo = [0, 1, 2, 3].map((i) =>
      tcp({ source: "127.0.0.1", destination: "127.0.0.1", seq: 1 + i * 100, payload: 100 }).fill(0, 0, 12)
    );
    const path = await capture(`${folder}/lo.pcapng`, ...lo);
    const result = await summary(path);
    assertEquals([result.guest.mac, result.guest.payloadBytes, result.coalescingFactor], [
      "02:00:7f:00:00:01",
      400,
      4,
    ]);
    const config = `${folder}/lo.json`;
    await Deno.writeTextFile(
      config,
      `{ "devices": [{ "use": "net", "driver": "loopback", "network": { "use": "pcap", "read": "lo.pcapng" } }] }`,
    );
    assertStringIncludes(
      (await command(["check", config])).out.replace(/\s+/g, " "),
      '"guestMac": "02:00:7f:00:00:01"',
    );
    const toNone = other(0x806).fill(0, 0, 6);
    const none = await command(["replay", await capture(`${folder}/none.pcapng`, toNone)]);
    assertEquals(none.code, 1);
    assertStringIncludes(none.err, "no Ethernet frame is sent to a single station");
    const zero = await command(["replay", path, "--guest", "00:00:00:00:00:00"]);
    assertEquals(zero.code, 2);
    assertStringIncludes(zero.err, "--guest is");
  });
});

Deno.test("replay says which link type it can do nothing with, and that a capture is empty", async () => {
  await withFolder(async (folder) => {
    const wireless = join(section(true), described(true, [], 105), enhanced(true, 0, 0n, new Uint8Array(60)));
    await Deno.writeFile(`${folder}/wireless.pcapng`, wireless);
    const { code, err } = await command(["replay", `${folder}/wireless.pcapng`]);
    assertEquals(code, 1);
    assertMatch(
      err.replace(/\s+/g, " "),
      /link type 105 \(IEEE 802\.11\), of which no Ethernet frame can be made; capture on/,
    );
    const both = join(wireless, described(true), enhanced(true, 1, 0n, tcp({ payload: 100 })));
    await Deno.writeFile(`${folder}/both.pcapng`, both);
    const { remarks } = await summary(`${folder}/both.pcapng`);
    assertMatch(remarks[0], /^1 packet of link type 105 \(IEEE 802\.11\), of which/);
    await Deno.writeFile(`${folder}/empty.pcapng`, join(section(true), described(true)));
    assertStringIncludes((await command(["replay", `${folder}/empty.pcapng`])).err, "it holds no packet");
  });
});

Deno.test("replay makes the host that captured its guest where packets have no addresses", async () => {
  await withFolder(async (folder) => {
    const source = await Deno.readFile(CAPTURE);
    const view = new DataView(source.buffer);
    const cooked = [...source.subarray(0, 20), 113, 0, 0, 0];
    const raw = [...source.subarray(0, 20), 101, 0, 0, 0];
    for (let at = 24; at < source.length;) {
      const length = view.getUint32(at + 8, true);
      const frame = source.subarray(at + 16, at + 16 + length);
      const head = (bytes: number) => {
        const header = source.slice(at, at + 16);
        const headerView = new DataView(header.buffer);
        headerView.setUint32(8, bytes, true);
        headerView.setUint32(12, bytes, true);
        return header;
      };
      const isIn = frame[5] === 1;
      const sll = [0, isIn ? 0 : 4, 0, 1, 0, 6, ...frame.subarray(6, 12), 0, 0, ...frame.subarray(12, 14)];
      cooked.push(...head(length + 2), ...sll, ...frame.subarray(14));
      if (frame[12] === 8 && frame[13] === 0) raw.push(...head(length - 14), ...frame.subarray(14));
      at += 16 + length;
    }
    const expected = await summary(CAPTURE);
    for (const [name, bytes] of [["cooked", cooked], ["raw", raw]] as const) {
      await Deno.writeFile(`${folder}/${name}.pcap`, Uint8Array.from(bytes));
      const result = await summary(`${folder}/${name}.pcap`);
      assertMatch(result.guest.mac, name === "cooked" ? /^02:00:00:00:00:01$/ : /^02:00:/);
      assertEquals(
        [result.coalescingFactor, result.input.payloadBytes, result.output.payloadBytes],
        [expected.coalescingFactor, 262_144, 262_144],
        name,
      );
    }
    const config = `${folder}/cooked.json`;
    await Deno.writeTextFile(
      config,
      `{ "devices": [{ "use": "net", "driver": "loopback", "network": { "use": "pcap", "read": "cooked.pcap" } }] }`,
    );
    const checked = await command(["check", config]);
    assertEquals(checked.code, 0);
    assertFalse(checked.out.includes("no packet"), checked.out);
  });
});

function macOf(bytes: Uint8Array): string {
  return [...bytes.subarray(0, 6)].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
