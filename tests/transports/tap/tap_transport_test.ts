import { assertEquals, assertThrows } from "@std/assert";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { HostError } from "../../../core/errors.ts";
import { FileDescriptor } from "../../../host/descriptors.ts";
import { libc } from "../../../host/libc.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import { newTapCounters, TapTransport } from "../../../transports/tap/mod.ts";
import { pattern, Rig } from "./support/rig.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;

Deno.test("a disposed transport does nothing any more", async () => {
  const rig = new Rig();
  rig.arrive(pattern(60));
  await rig.transport.close();
  rig.transport[Symbol.dispose]();
  assertEquals(rig.receive(), []);
  assertEquals(rig.send(rig.frame(pattern(60))), 0);
  rig.transport.guestCapabilities(OffloadCapabilities.all);
  rig[Symbol.dispose]();
});

Deno.test("guestCapabilities() counts what the kernel does not take, by the error's name", () => {
  using rig = new Rig();
  rig.transport.guestCapabilities(OffloadCapabilities.all);
  const [[name, count]] = Object.entries(rig.counters).filter(([key]) => key.startsWith("offload_"));
  assertEquals([name, count], ["offload_ENOTTY", 1]);
});

Deno.test("a transport that cannot be watched closes its queues", () => {
  const numbers = new Int32Array(2);
  libc().socketpair(AF_UNIX, SOCK_DGRAM, 0, new Uint8Array(numbers.buffer));
  const before = FileDescriptor.live;
  const queues = [...numbers].map((number) => new FileDescriptor(number));
  const ended: number[] = [];
  assertThrows(
    () =>
      new TapTransport({ name: "tap7", queues, headerBytes: 12, mtu: 1500, largeUdp: true }, {
        pool: new FramePool(),
        counters: newTapCounters(),
        offloads: true,
        watch: (number) => {
          if (number === numbers[1]) throw new HostError("too many watches");
          return { [Symbol.dispose]: () => void ended.push(number) };
        },
      }),
    HostError,
    "too many watches",
  );
  assertEquals([FileDescriptor.live, ended], [before, [numbers[0]]]);
});
