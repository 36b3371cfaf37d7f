/**
 * Whole machines from JSON with a front-end at the other end; and a device that is no network device.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { newRegistry } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import { EntropyDevice } from "../../../devices/entropy/mod.ts";
import { UnixStream } from "../../../host/unix_socket.ts";
import { buildMachine } from "../../../machine/build.ts";
import type { CablePort } from "../../../transports/loopback.ts";
import { offerFor } from "../../../transports/vhost_user/front_ends.ts";
import type { VhostUserTransport } from "../../../transports/vhost_user/transport.ts";
import { hostTest, linux } from "../../../rigs/require.ts";
import { Bench } from "./support/bench.ts";
import { frame, numbersOf } from "./support/fake_network.ts";
import { SocketFrontEnd } from "../../../rigs/vhost_user/socket_front_end.ts";

async function until(what: string, is: () => boolean): Promise<void> {
  for (let i = 0; !is(); i++) {
    assert(i < 400, `${what} has not happened within two seconds`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

hostTest(
  "a machine with a vhost-user driver moves frames both ways while it runs by itself",
  [linux],
  async () => {
    const folder = await Deno.makeTempDir({ prefix: "vhost-user-" });
    const config = {
      devices: [{
        use: "net",
        mac: "52:54:00:00:00:01",
        driver: { use: "vhost-user", socket: "net0.sock", profile: "qemu", socketMode: "600" },
        network: "loopback",
        offloads: ["checksum", "rsc-v4"],
      }],
    };
    const resolved = await parseConfig(JSON.stringify(config), `file://${folder}/config.json`, newRegistry());
    const machine = buildMachine(resolved);
    const port = machine.devices[0].parts.network as CablePort;
    const transport = machine.devices[0].driver as VhostUserTransport;
    const sent: Uint8Array[] = [];
    port.tap((taken) => void sent.push(taken.toBytes()));
    machine.start();
    const stop = new AbortController();
    const running = machine.run(stop.signal);
    try {
      using front = new SocketFrontEnd(UnixStream.connect(`${folder}/net0.sock`), {}, () => {});
      const { front: says, guest } = front;
      says.setFeatures(1n << 32n);
      says.setMemoryTable();
      for (const ring of [0, 1]) says.describe(ring);
      guest.post(0, 4);
      front.kicks[0].signal();
      await until("the start", () => transport.backend?.features !== null && transport.connected);
      guest.send(1, frame(1));
      front.kicks[1].signal();
      await until("a frame from the guest", () => sent.length === 1);
      assertEquals(numbersOf(sent), [1]);
      assert(port.inject(frame(2)));
      machine.parts.reactor.wake();
      const received: Uint8Array[] = [];
      await until("a frame to the guest", () => received.push(...guest.received(0)) === 1);
      assertEquals(numbersOf(received), [2]);
      assert(front.calls[0].drain(), "the guest was not interrupted");
      assertEquals(machine.counters["net0.driver"].connections, 1);
    } finally {
      stop.abort();
      await running;
      await machine.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
);

Deno.test("Backend serves a device that is no network device, and offers nothing of one", () => {
  using bench = new Bench();
  const device = new EntropyDevice(
    { name: "rng0", publish: (counters) => counters },
    { queueSize: 64, packedRing: true, burstBytes: 65_536, rateLimitBytesPerS: undefined },
    (bytes) => void bytes.fill(0xa5),
  );
  const { protocol } = offerFor(device, "auto");
  assertEquals(
    [2, 4, 19].filter((bit) => protocol.has(bit)),
    [],
    "RARP, MTU and device state are not its own",
  );
  bench.backend[Symbol.dispose]();
  bench.backend = bench.newBackend(device);
  bench.front.setFeatures(1n << 32n | 1n << 30n);
  bench.front.setMemoryTable();
  bench.front.describe(0);
  bench.front.enable(0, true);
  bench.guest.post(0, 2);
  bench.settle();
  const filled = bench.guest.received(0);
  assertEquals(filled.length, 2);
  assert(filled.every((bytes) => bytes.length > 1000 && bytes.every((byte) => byte === 0xa5)));
});
