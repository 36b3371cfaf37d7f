import { assertEquals } from "@std/assert";
import { runtimePoll } from "../../host/waiters.ts";
import { hostTest, linux } from "../../rigs/require.ts";

const PROGRAM = new URL("./support/runtime_poll_program.ts", import.meta.url).pathname;

hostTest(
  "runtimePoll() is readable when something waits for the event loop, and not otherwise",
  [linux],
  async () => {
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-check", "--allow-ffi", "--allow-run", PROGRAM],
    }).output();
    const text = new TextDecoder();
    assertEquals(text.decode(success ? stderr.subarray(0, 0) : stderr), "");
    assertEquals(JSON.parse(text.decode(stdout)), {
      childProcess: true,
      signal: true,
      nothing: false,
      othersInNaps: true,
      othersBetweenEvents: true,
      sameAgain: true,
    });
  },
);

hostTest("runtimePoll() knows nothing in a thread that is not the main one", [linux], () => {
  // Tests run in such a thread.
  assertEquals(runtimePoll(), null);
});
