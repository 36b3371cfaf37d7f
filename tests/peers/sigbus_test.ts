import { assert, assertEquals } from "@std/assert";
import { FileDescriptor, O_RDWR } from "../../host/descriptors.ts";
import { cString } from "../../host/libc.ts";
import { UnixStream } from "../../host/unix_socket.ts";
import { streamBytes } from "../../testing/mod.ts";
import { Request } from "../../transports/vhost_user/messages.ts";
import { GUEST_BYTES } from "../../rigs/vhost_user/guest.ts";
import { concat, region, u64 } from "../../rigs/vhost_user/payload.ts";
import { SocketFrontEnd } from "../../rigs/vhost_user/socket_front_end.ts";
import { connectSoon } from "../../rigs/connect_soon.ts";
import { GuestRig, sha256 } from "./support/guest_rig.ts";
import { HOST } from "../../rigs/kernel.ts";
import { QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { after } from "./support/tap_rig.ts";

/**
 * Memory that ends the back-end when it is touched: told beforehand, refused where that is wanted, and
 * survived by a guest whose back-end is started again.
 */

const MAIN = new URL("../../mod.ts", import.meta.url).href;
const MEBIBYTE = 1 << 20;
/** Starts a program again whenever it ends, and writes down how it ended; and then its number. */
const SUPERVISE =
  'trap \'kill $p; exit 0\' TERM; while :; do "$@" 2>>"$0.errors" >>"$0.events" & p=$!; echo $p >"$0.pid"; ' +
  'wait $p; echo $? >>"$0.ends"; sleep 0.1; done';

/** A back-end under a supervisor; both end with this object. */
class Supervised implements AsyncDisposable {
  readonly #file: string;
  readonly #process: Deno.ChildProcess;

  /** @param start spawns in the right network */
  constructor(file: string, config: unknown, start: (spawn: () => Deno.ChildProcess) => Deno.ChildProcess) {
    this.#file = file;
    Deno.writeTextFileSync(`${file}.json`, JSON.stringify(config));
    const program = [Deno.execPath(), "run", "--no-prompt", "--allow-ffi", "--allow-read", MAIN];
    const args = [
      "-c",
      SUPERVISE,
      file,
      ...program,
      "run",
      `${file}.json`,
      "--json",
      "--stats-interval-s",
      "0.1",
    ];
    const options = { args, stdin: "null", stdout: "null", stderr: "null" } as const;
    this.#process = start(() => new Deno.Command("sh", options).spawn());
  }

  /** How often it was started. */
  get starts(): number {
    return this.events("started").length;
  }

  /** How it has ended so far, each time. */
  get ends(): number[] {
    return this.#lines("ends").map(Number);
  }

  /** A counter, as it was told last; 0 if it was not told since the last start. */
  counter(group: string, name: string): number {
    const told = this.events("counters").at(-1)?.counters as
      | Record<string, Record<string, number>>
      | undefined;
    return told?.[group]?.[name] ?? 0;
  }

  /** What it has told, of one kind. */
  events(kind: string): Record<string, unknown>[] {
    const all = this.#lines("events").map((line) => JSON.parse(line));
    // Counters begin anew with each start.
    const from = kind === "counters" ? all.findLastIndex(({ event }) => event === "started") : 0;
    return all.slice(from).filter(({ event }) => event === kind);
  }

  /**
   * Has it die as by memory that is not there. The engine's handler lets the first signal pass that was only
   * sent.
   */
  async die(): Promise<void> {
    const number = Number(this.#lines("pid")[0]);
    const { length } = this.ends;
    while (this.ends.length === length) {
      try {
        Deno.kill(number, "SIGBUS");
      } catch {
        // It has ended, and that is not written down yet.
      }
      await after(10);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill("SIGTERM");
    await this.#process.status;
  }

  #lines(kind: string): string[] {
    try {
      // The last line may still be written to.
      return Deno.readTextFileSync(`${this.#file}.${kind}`).split("\n").slice(0, -1);
    } catch {
      return [];
    }
  }
}

async function until(what: string, isSo: () => boolean | Promise<boolean>, limitMs = 60_000): Promise<void> {
  const endMs = Date.now() + limitMs;
  while (!await isSo()) {
    if (Date.now() > endMs) throw new Error(`It did not come to this: ${what}`);
    await after(5);
  }
}

/** Where the front-end has further memory. */
const MORE = 2 ** 32;
const SIGBUS_END = 128 + 7;

for (const memory of ["local", "sealed"] as const) {
  hostTest(
    memory === "local"
      ? "memory that is cut ends the back-end, which has said so; started again it serves the next front-end"
      : "memory that can be cut is refused where it is to be sealed, and the back-end lives",
    [linux],
    async () => {
      const folder = Deno.makeTempDirSync({ prefix: "sigbus-" });
      const path = Deno.makeTempFileSync({ dir: "/dev/shm" });
      Deno.truncateSync(path, GUEST_BYTES);
      const socket = `${folder}/net0.sock`;
      const connect = () => new SocketFrontEnd(UnixStream.connect(socket), {}, () => pause(10));
      try {
        const config = {
          devices: [{
            use: "net",
            mac: "52:54:00:00:00:01",
            driver: { use: "vhost-user", socket, memory },
            network: "loopback",
          }],
        };
        await using backend = new Supervised(`${folder}/backend`, config, (spawn) => spawn());
        (await connectSoon(socket, 60_000)).close();
        {
          using front = connect();
          front.start();
          using file = FileDescriptor.open(cString(path), O_RDWR, "open it");
          const more = concat(
            u64(0),
            region({ guestAddress: MORE, size: GUEST_BYTES, userAddress: 2 ** 40 }),
          );
          const taken = front.front.succeeds(Request.ADD_MEM_REG, more, [file.number]);
          assertEquals(taken, memory === "local");
          if (taken) {
            Deno.truncateSync(path, 0);
            front.guest.send(1, new Uint8Array(60));
            const { descriptors } = front.guest.place(1);
            front.guest.memory.writeU32(descriptors, MORE % 2 ** 32);
            front.guest.memory.writeU32(descriptors + 4, MORE / 2 ** 32);
            front.kicks[1].signal();
            await until("it has ended and was started again", () => backend.starts === 2);
            assertEquals(backend.ends, [SIGBUS_END]);
          }
        }
        // The next front-end, where the old socket still lies if it was killed.
        await until("a program listens", () => canConnect(socket));
        using next = connect();
        next.start();
        assertEquals(next.front.succeeds(Request.SET_VRING_CALL, u64(0x100)), true);
        assertEquals(backend.ends.length, memory === "local" ? 1 : 0);
      } finally {
        Deno.removeSync(path);
        Deno.removeSync(folder, { recursive: true });
      }
    },
  );
}

hostTest(
  "a guest of QEMU goes on when its back-end has died of SIGBUS and a supervisor has started it again",
  qemuGuest,
  async () => {
    using rig = new GuestRig();
    const config = {
      devices: [{
        use: "net",
        driver: { use: "vhost-user", socket: rig.socket },
        network: { use: "tap", interface: "dv0", persistent: true, offloads: "off" },
        offloads: ["rsc-v4"],
        // Where a packed ring stands is not known any more.
        packedRing: false,
      }],
    };
    await using backend = new Supervised(
      `${rig.image.folder}/backend`,
      config,
      (spawn) => rig.namespace.run(spawn),
    );
    (await connectSoon(rig.socket, 60_000)).close();
    rig.namespace.address("dv0", `${HOST}/24`);
    await using guest = await QemuGuest.start(rig.image, rig.socket, { chardev: "reconnect=1" });
    const bytes = streamBytes(0, 4 * MEBIBYTE);
    const sum = await sha256(bytes);
    assertEquals(await rig.send(guest, bytes), sum);
    for (let death = 1; death <= 2; death++) {
      // In the midst of a transfer, of which nothing is lost.
      const sending = rig.send(guest, bytes);
      sending.catch(() => {});
      await after(50);
      await backend.die();
      await until("it is started again", () => backend.starts === death + 1);
      await until("the guest is back", () => backend.counter("net0", "activations") > 0);
      assertEquals(await sending, sum, `after death ${death}`);
      assertEquals(backend.ends, new Array(death).fill(SIGBUS_END));
    }
    assert(backend.starts === 3);
  },
);

async function canConnect(socket: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path: socket })).close();
    return true;
  } catch {
    return false;
  }
}

/** Waits in this thread: the other side is another process. */
function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
