/**
 * Programs that start together at one path: one of them gets it, whatever lies there, and keeps it.
 * @module
 */
import { assertEquals } from "@std/assert";
import { libc } from "../../host/libc.ts";
import { unixAddress, UnixStream } from "../../host/unix_socket.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { FAILED, LISTENS, type ListenStart, REFUSED } from "./support/listen_worker.ts";

const ROUNDS = 300;
const RIVALS = 3;

/** A socket to which no program listens, as a program that was killed leaves it. */
function leaveStale(path: string): void {
  const number = libc().socket(1, 1, 0);
  const address = unixAddress(path);
  assertEquals(libc().bind(number, address, address.length), 0);
  libc().close(number);
}

hostTest(
  `of ${RIVALS} that listen at one path at the same time one does, in ${ROUNDS} rounds with and without a stale socket`,
  [linux],
  async () => {
    const folder = Deno.makeTempDirSync({ prefix: "dv-race-" });
    const path = `${folder}/s`;
    const shared = new SharedArrayBuffer(4 * (2 + RIVALS));
    const state = new Int32Array(shared);
    const answers = async (count: number) => {
      for (let given = 0; (given = Atomics.load(state, 1)) < count;) {
        const wait = Atomics.waitAsync(state, 1, given, 20_000);
        if (wait.async) assertEquals(await wait.value, "ok");
      }
      Atomics.store(state, 1, 0);
    };
    const workers = Array.from({ length: RIVALS }, (_, index) => {
      const worker = new Worker(new URL("./support/listen_worker.ts", import.meta.url), { type: "module" });
      worker.postMessage({ shared, path, index } satisfies ListenStart);
      return worker;
    });
    try {
      for (let round = 1; round <= ROUNDS; round++) {
        // The one that listens closes at the beginning of the next round, while the others begin. In every
        // other round its socket has gone, and one lies there that was left behind.
        if (round % 2 === 0) {
          Deno.removeSync(path);
          leaveStale(path);
        }
        Atomics.add(state, 0, 1);
        await answers(RIVALS);
        const results = [...state.subarray(2)];
        assertEquals(results.filter((result) => result === FAILED), [], `round ${round}`);
        assertEquals(results.sort(), [LISTENS, REFUSED, REFUSED], `round ${round}`);
        UnixStream.connect(path)[Symbol.dispose]();
      }
      Atomics.store(state, 0, -1);
      await answers(RIVALS);
      assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), [], "what was made was removed");
    } finally {
      for (const worker of workers) worker.terminate();
      Deno.removeSync(folder, { recursive: true });
    }
  },
);
