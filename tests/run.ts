/**
 * Runs all tests and closes with a line that says how it went: `N passed, N failed`, and `, N skipped` if any
 * were. With `--quick` it runs those that need neither a peer nor minutes; other arguments are handed to
 * `deno test`.
 * @module
 */

/**
 * What the quick run leaves out: real peers, long random streams, the project's gates, the pages' commands.
 */
const NOT_QUICK = [
  "tests/peers",
  "tests/properties",
  "tests/gates_test.ts",
  "tests/docs_test.ts",
  // A guest of QEMU; the gates, in a project that was made; hundreds of programs, one after the other.
  "tests/cli/attach_test.ts",
  "tests/cli/init_test.ts",
  "tests/cli/input_once_test.ts",
  "tests/cli/vectors_test.ts",
  // Every order of two threads' steps.
  "tests/machine/command_channel_test.ts",
];

/**
 * Tests of the process as a whole, which must be alone in it: its open descriptors and mappings are counted,
 * its limits are lowered, its idle time and the runtime's own epoll set are looked at, its descriptors are
 * inherited. And programs that are started, and must answer within seconds.
 */
const ALONE = [
  "tests/host",
  "tests/transports/vhost_user",
  "tests/cli",
];

/** Tests that are also run without an arena, where plain code does what kernels do elsewhere. */
const WITHOUT_ARENA = [
  "tests/devices/net",
  "tests/devices/entropy",
  "tests/guest",
  "tests/properties/hostile_test.ts",
  "tests/offloads/cases",
];
/** Of these the files but one, which is about memory that is given again within an arena. */
const FRONT_ENDS = "tests/transports/vhost_user";
const ABOUT_ARENA = `${FRONT_ENDS}/memory_given_again_test.ts`;

interface Outcome {
  readonly all: number;
  readonly failed: number;
  readonly skipped: number;
}

const ROOT = new URL("../", import.meta.url);

async function run(...args: string[]): Promise<Outcome> {
  const report = await Deno.makeTempFile({ prefix: "deno-virtio-", suffix: ".xml" });
  try {
    const { code } = await new Deno.Command(Deno.execPath(), {
      // Types are the matter of a test of their own; a thread that is started in a test would have to wait
      // for its check.
      args: ["test", "--allow-all", "--no-check", `--junit-path=${report}`, ...args],
      cwd: ROOT,
      stdout: "inherit",
      stderr: "inherit",
    }).output();
    const text = await Deno.readTextFile(report);
    const totals = /<testsuites [^>]*?tests="(\d+)" failures="(\d+)" errors="(\d+)"/.exec(text);
    const all = Number(totals?.[1] ?? 0);
    // A module that does not even load has no test to fail: the exit code alone tells. A run without a test
    // proves nothing.
    const failed = Math.max(
      Number(totals?.[2] ?? 0) + Number(totals?.[3] ?? 0),
      code === 0 && all > 0 ? 0 : 1,
    );
    return { all, failed, skipped: text.match(/<skipped\b/g)?.length ?? 0 };
  } finally {
    await Deno.remove(report);
  }
}

/**
 * Named one by one: `deno test` does not heed `--ignore` of several files beside a folder that it is given.
 */
function filesOf(folder: string): string[] {
  return Array.from(Deno.readDirSync(new URL(folder, ROOT)), ({ name }) => `${folder}/${name}`)
    .filter((file) => file.endsWith("_test.ts"));
}

const EVERYTHING = ["tests/", "examples/"];
const { args } = Deno;
const outcomes = args[0] === "--quick"
  ? [
    await run("--parallel", `--ignore=${[...NOT_QUICK, ...ALONE]}`, ...EVERYTHING),
    await run(...ALONE.flatMap(filesOf).filter((file) => !NOT_QUICK.includes(file))),
  ]
  : args.length > 0
  ? [await run(...args)]
  : [
    await run(...EVERYTHING),
    await run(
      "--preload=tests/support/without_arena.ts",
      ...WITHOUT_ARENA,
      ...filesOf(FRONT_ENDS).filter((file) => file !== ABOUT_ARENA),
    ),
  ];
const sum = (count: keyof Outcome) => outcomes.reduce((total, outcome) => total + outcome[count], 0);
const passed = Math.max(0, sum("all") - sum("failed") - sum("skipped"));
console.log(
  `${passed} passed, ${sum("failed")} failed${sum("skipped") > 0 ? `, ${sum("skipped")} skipped` : ""}`,
);
if (sum("failed") > 0) Deno.exitCode = 1;
