import { assert, assertEquals, assertFalse, assertMatch, assertStringIncludes } from "@std/assert";
import { command, longestLine, projectPath, withFolder } from "./support/command.ts";

const COMMANDS = ["run", "check", "replay", "vectors", "plugins", "schema", "init", "guest", "demo"];

async function golden(name: string): Promise<string> {
  return await Deno.readTextFile(new URL(`./golden/${name}.txt`, import.meta.url));
}

Deno.test("main() prints the golden help", async () => {
  const { code, out, err } = await command(["--help"]);
  assertEquals(code, 0);
  assertEquals(err, "");
  assertEquals(out, await golden("help"));
});

Deno.test("main() prints the golden help of replay, in four ways", async () => {
  const expected = await golden("help_replay");
  for (const args of [["replay", "--help"], ["replay", "-h"], ["help", "replay"], ["--help", "replay"]]) {
    const { code, out } = await command(args);
    assertEquals(code, 0);
    assertEquals(out, expected, args.join(" "));
  }
});

Deno.test("main() has a help within 80 columns for every command, with its options and examples", async () => {
  for (const name of COMMANDS) {
    const { code, out } = await command([name, "--help"]);
    assertEquals(code, 0, name);
    assertStringIncludes(out, `Usage: deno-virtio ${name} `);
    for (const part of ["Options:", "--json", "--no-color", "--debug", "Examples:"]) {
      assertStringIncludes(out, part);
    }
    assert(longestLine(out).length <= 80, longestLine(out));
    assertFalse(out.includes("\x1b"));
  }
});

Deno.test("main() names the version of deno.json", async () => {
  const { version } = JSON.parse(await Deno.readTextFile(projectPath("deno.json")));
  for (const option of ["--version", "-V"]) {
    const { code, out } = await command([option]);
    assertEquals(code, 0);
    assert(out.startsWith(`deno-virtio ${version} (deno ${Deno.version.deno}`), out);
  }
});

Deno.test("main() without a command prints the help as an error", async () => {
  const { code, out, err } = await command([]);
  assertEquals([code, out], [2, ""]);
  assertEquals(err, await golden("help"));
});

const MISTAKES: readonly (readonly [args: readonly string[], message: string])[] = [
  [["replya", "x"], 'Unknown command "replya", did you mean "replay"?'],
  [["xyzzy"], 'Unknown command "xyzzy"; there are run, check'],
  [["--josn"], "Unknown option --josn, did you mean --json?"],
  [["--wild"], "Unknown option --wild\n"],
  [["replay", "x", "--intervl-us=3"], "Unknown option --intervl-us, did you mean --interval-us?"],
  [["replay", "x", "-q"], "Unknown option -q"],
  [["replay"], 'CAPTURE is missing; write "replay CAPTURE [options]"'],
  [["replay", "x", "y"], '"y" is one word too many'],
  [["replay", "x", "--interval-us"], "--interval-us needs a value: write --interval-us N"],
  [["replay", "x", "--interval-us", "-1"], "Unknown option -1"],
  [["replay", "x", "--interval-us=-1"], '--interval-us is "-1"; write a number from 0 to 10000000'],
  [["replay", "x", "--interval-us", "1e9"], '--interval-us is "1e9"; write a number'],
  [["replay", "x", "--interval-us", "10000001"], "write a number from 0 to 10000000"],
  [["replay", "x", "--rules", "stict"], '--rules is "stict"; write strict or qemu'],
  [["replay", "x", "--pace", "slow"], '--pace is "slow"; write recorded or fast'],
  [["replay", "x", "--guest", "52:54"], '--guest is "52:54"; write the address of one station'],
  [["replay", "x", "--guest", "ff:ff:ff:ff:ff:ff"], "write the address of one station"],
  [["vectors"], "PATH... is missing"],
  [["vectors", "x", "--rules", "best"], '--rules is "best"; write qemu or strict'],
  [["run"], "CONFIG is missing"],
  [
    ["run", "x.json", "--stats-interval-s", "0"],
    '--stats-interval-s is "0"; write a number from 0.1 to 86400',
  ],
  [["plugins", "rscv4"], 'No built-in plugin is called "rscv4", did you mean "rsc-v4"?'],
  [["schema", "x"], '"x" is one word too many; write "schema [options]"'],
];

Deno.test("main() answers mistakes with exit code 2, the reason, the remedy, and no stack", async () => {
  for (const [args, message] of MISTAKES) {
    const { code, out, err } = await command(args);
    assertEquals(code, 2, args.join(" "));
    assertEquals(out, "", args.join(" "));
    assertStringIncludes(err, message);
    assertMatch(err, /^error: /);
    assertMatch(err, /Try "deno-virtio (\w+ )?--help"\.\n$/);
    assertFalse(err.includes("    at "), err);
  }
});

Deno.test("main() answers a configuration that cannot be used with exit code 2 and every problem", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/wrong.json`;
    await Deno.writeTextFile(
      path,
      `{"devices":[{"use":"net","mac":"zz","driver":"loopback","network":"lopback","offloads":[{"use":"rsc-v4","intervall":3}]}]}`,
    );
    for (const args of [["check", path], ["run", path], [path]]) {
      const { code, out, err } = await command(args);
      assertEquals([code, out], [2, ""]);
      assertStringIncludes(err, "error: the configuration cannot be used\n");
      assertStringIncludes(
        err,
        `  ${path}:1:57: $.devices[0].network: unknown network "lopback", did you mean "loopback"?`,
      );
      assertStringIncludes(err, 'did you mean "intervalUs"?');
      assertFalse(err.includes("    at "), err);
    }
    const debug = await command(["check", path, "--debug"]);
    assertEquals(debug.code, 2);
    assertMatch(debug.err, /\n {4}at /);
  });
});

Deno.test("main() answers what this host cannot do with exit code 1", async () => {
  for (
    const args of [["replay", "/nowhere/x.pcap"], ["vectors", "/nowhere"], ["schema", "--out", "/nowhere/x"]]
  ) {
    const { code, out, err } = await command(args);
    assertEquals([code, out], [1, ""], args.join(" "));
    assertStringIncludes(err, "/nowhere");
    assertFalse(err.includes("    at "), err);
    assertFalse(err.includes("fault of the program"), err);
  }
});

Deno.test("main() takes options before the command, and a configuration without one", async () => {
  const config = projectPath("examples/replay_capture.jsonc");
  const checked = await command(["--json", "check", config]);
  assertEquals(checked.code, 0);
  assertEquals(JSON.parse(checked.out).name, "replay-capture");
  const ran = await command(["--json", config]);
  assertEquals(ran.code, 0);
  assertEquals(JSON.parse(ran.out.trim().split("\n").at(-1)!).event, "stopped");
});

Deno.test("main() uses colours only where it may", async () => {
  const coloured = await command(["--help"], { color: true, isTerminal: true });
  assertStringIncludes(coloured.out, "\x1b[1mUsage:\x1b[22m");
  const plain = await command(["--help", "--no-color"], { color: true, isTerminal: true });
  assertEquals(plain.out, await golden("help"));
});

Deno.test("main() ends quietly when its output is not read any more", async () => {
  const capture = projectPath("tests/captures/bulk_v4_plain.pcap");
  const { code, err } = await command(["replay", capture, "--explain"], { closesAfter: 1000 });
  assertEquals([code, err], [0, ""]);
});

Deno.test("main() behind head in a real pipe ends quietly", async () => {
  const replay = `"${Deno.execPath()}" run -R mod.ts replay tests/captures/bulk_v4_plain.pcap --explain`;
  const { code, stdout, stderr } = await new Deno.Command("bash", {
    args: ["-o", "pipefail", "-c", `${replay} | head -n 1`],
    cwd: projectPath(""),
    env: { NO_COLOR: "1" },
  }).output();
  assertEquals(new TextDecoder().decode(stderr), "");
  assertEquals(code, 0);
  assertMatch(new TextDecoder().decode(stdout), /^ +frame +time, us +stage +verdict +rule +opened by\n$/);
});
