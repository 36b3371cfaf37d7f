/**
 * Runs all tests and closes with a line that says how it went: `N passed, N failed`, and `, N skipped` if any were.
 * @module
 */

const report = await Deno.makeTempFile({ prefix: "deno-virtio-", suffix: ".xml" });
try {
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--allow-all",
      // Types are the matter of a test of their own; a thread that is started in a test would have to wait for its check.
      "--no-check",
      `--junit-path=${report}`,
      ...(Deno.args.length > 0 ? Deno.args : ["tests/", "examples/"]),
    ],
    cwd: new URL("../", import.meta.url),
    stdout: "inherit",
    stderr: "inherit",
  }).output();
  const text = await Deno.readTextFile(report);
  const totals = /<testsuites [^>]*?tests="(\d+)" failures="(\d+)" errors="(\d+)"/.exec(text);
  const skipped = text.match(/<skipped\b/g)?.length ?? 0;
  const all = Number(totals?.[1] ?? 0);
  // A module that does not even load has no test to fail: the exit code alone tells.
  const failed = Math.max(Number(totals?.[2] ?? 0) + Number(totals?.[3] ?? 0), code === 0 ? 0 : 1);
  const passed = Math.max(0, all - failed - skipped);
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
  if (code !== 0 || all === 0) Deno.exitCode = 1;
} finally {
  await Deno.remove(report);
}
