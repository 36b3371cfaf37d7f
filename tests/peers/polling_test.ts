import { assert, assertEquals } from "@std/assert";
import { UnixStream } from "../../host/unix_socket.ts";
import { processorTicks, quietestSecond } from "../../rigs/kernel.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { FLAGS, NET, stop } from "../cli/support/back_end.ts";
import { withFolder } from "../cli/support/command.ts";
import { CommandProcess } from "../cli/support/process.ts";
import { remoteFrontEnd } from "../cli/support/remote_front_end.ts";
import { after, until } from "./support/tap_rig.ts";
import { assertReceives, numbered, ThreadsRig, write } from "./support/threads_rig.ts";

/**
 * Machines that poll before they sleep (`pollMaxUs`).
 */

const nothing = new Int32Array(new SharedArrayBuffer(4));

hostTest(
  "a machine with pollMaxUs serves and polls under traffic, sleeps when it ends, and stops at SIGTERM while it polls",
  [linux],
  async () => {
    await withFolder(async (folder) => {
      const path = `${folder}/config.json`;
      await Deno.writeTextFile(path, JSON.stringify({ pollMaxUs: 100_000, devices: [NET] }));
      const child = new CommandProcess(FLAGS, ["run", path]);
      await child.lineWith("Running machine");
      using front = remoteFrontEnd(UnixStream.connect(`${folder}/lan.sock`));
      front.start();
      let sent = 0;
      let returned = 0;
      let kicks = 0;
      const send = () => {
        if (sent - returned < 4 && front.guest.send(1, numbered(sent++))) {
          front.kicks[1].signal();
          kicks++;
        }
      };
      const take = () => returned += front.guest.returned(1);
      const traffic = async (frames: number) => {
        for (let i = 0; i < frames; i++, take()) {
          send();
          await after(3);
        }
      };
      // A frame every 3 ms is hardly any work: what is spent beyond that is polling. Other programs may keep
      // the machine from it for a while.
      let most = 0;
      for (let tries = 0; tries < 20 && most < 20; tries++) {
        const before = processorTicks(child.pid);
        await traffic(200);
        most = Math.max(most, processorTicks(child.pid) - before);
      }
      assert(most >= 20, `only ${most} ticks of 10 ms in 200 frames: it does not poll`);
      // A machine that looks at the ring by itself asks for no kicks, as long as it polls.
      let leastKicked = Infinity;
      for (let tries = 0; tries < 100 && leastKicked > 0.5; tries++) {
        const [sentBefore, kicksBefore] = [sent, kicks];
        for (let i = 0; i < 100; i++, take()) {
          send();
          Atomics.wait(nothing, 0, 0, 0.2);
        }
        if (sent > sentBefore + 50) {
          leastKicked = Math.min(leastKicked, (kicks - kicksBefore) / (sent - sentBefore));
        }
        await after(1);
      }
      assert(leastKicked <= 0.5, `${leastKicked} kicks for each frame: it does not look at the ring`);
      await until("all frames are given back", () => (returned += front.guest.returned(1)) === sent);
      const least = await quietestSecond(child.pid);
      assert(least <= 1, `${least} ticks of 10 ms in a second without traffic`);
      await traffic(100);
      await stop(child);
    });
  },
);

hostTest(
  "threads with pollMaxUs serve and poll under traffic, sleep when it ends, and end",
  [linux],
  async () => {
    await using rig = await ThreadsRig.start({ whole: { pollMaxUs: 100_000 } });
    using front = rig.connect();
    front.start();
    let most = 0;
    let number = 0;
    for (let tries = 0; tries < 10 && most < 20; tries++) {
      const before = processorTicks();
      for (let i = 0; i < 100; i++) {
        write(rig.ends[0], number);
        await assertReceives(front, 0, [number++]);
      }
      most = Math.max(most, processorTicks() - before);
    }
    assert(most >= 20, `only ${most} ticks of 10 ms in 100 frames: it does not poll`);
    const least = await quietestSecond();
    assert(least <= 1, `${least} ticks of 10 ms in a second without traffic`);
    write(rig.ends[0], number);
    await assertReceives(front, 0, [number]);
    rig.assertNoFault();
    assertEquals(rig.counters("net0.toGuest").packets, number + 1);
  },
);
