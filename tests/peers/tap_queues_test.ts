/**
 * Queues of a TAP come and go with the pairs that the guest uses: the kernel gives nothing to one that is not
 * read.
 */
import { assertEquals } from "@std/assert";
import { arp } from "../../testing/mod.ts";
import { addressed, isUdp, OUR_MAC, OURS } from "../../rigs/kernel.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { hostTest, network } from "../../rigs/require.ts";
import { after, BareTap, TapMachine, until } from "./support/tap_rig.ts";

/** How many queues the kernel has attached and detached. */
function queues(namespace: Namespace): [attached: number, detached: number] {
  const [{ linkinfo: { info_data } }] = JSON.parse(namespace.ip("-j", "-d", "link", "show", "dv0"));
  return [info_data.numqueues, info_data.numdisabled];
}

/** Has the kernel send datagrams of so many flows. */
function sendFlows(namespace: Namespace, count: number): void {
  namespace.command(
    "bash",
    "-c",
    `for p in $(seq ${count}); do printf x >/dev/udp/${OURS}/$((2000+p)); done`,
  );
}

hostTest("frames of all flows come on the queues that are used", network, async () => {
  using namespace = new Namespace();
  using tap = new BareTap(namespace, { interface: "dv0" }, 4);
  addressed(namespace, "dv0");
  const counted = async (queue: number, expected: number) => {
    let count = 0;
    for (let tries = 0; tries < 20 && count < expected; tries++) {
      count += tap.receive(queue).filter(({ bytes }) => isUdp(bytes)).length;
      await after(5);
    }
    return count;
  };
  assertEquals(queues(namespace), [4, 0]);
  for (const used of [1, 3, 2, 4, 1]) {
    for (let queue = 0; queue < 4; queue++) tap.receive(queue);
    tap.transport.useQueuePairs(used);
    assertEquals(queues(namespace), [used, 4 - used]);
    sendFlows(namespace, 40);
    let sum = 0;
    for (let queue = 0; queue < used; queue++) sum += await counted(queue, 40 - sum);
    assertEquals(sum, 40, `of 40 frames ${sum} came on ${used} queues`);
    for (let queue = used; queue < 4; queue++) assertEquals(tap.receive(queue), []);
    // Told twice is told once.
    tap.transport.useQueuePairs(used);
  }
  assertEquals(Object.keys(tap.counters).filter((name) => name.startsWith("queue_")), []);
});

hostTest(
  "a frame can be sent by a queue that is detached, and a TAP of one queue has none to detach",
  network,
  () => {
    using namespace = new Namespace();
    using tap = new BareTap(namespace, { interface: "dv0" }, 2);
    tap.transport.useQueuePairs(1);
    assertEquals(tap.send([arp({ sourceMac: OUR_MAC, source: OURS, target: OURS })], 1), 1);
    assertEquals([tap.counters.written, tap.counters.again], [1, 0]);
    using single = new BareTap(namespace, { interface: "dv1" });
    single.transport.useQueuePairs(1);
    assertEquals(Object.keys(single.counters).filter((name) => name.startsWith("queue_")), []);
  },
);

hostTest("a device in one loop has as many queues attached as its guest uses pairs", network, async () => {
  using namespace = new Namespace();
  await using machine = await TapMachine.start([namespace, {
    network: { interface: "dv0" },
    device: { queuePairs: 4 },
    guest: { queuePairs: 3 },
  }]);
  await until("three pairs are used", () => queues(namespace)[0] === 3);
  machine.guest(0).setQueuePairs(1);
  machine.machine.parts.reactor.wake();
  await until("one pair is used", () => queues(namespace)[0] === 1);
  assertEquals(queues(namespace), [1, 3]);
  machine.guest(0).setQueuePairs(2);
  machine.machine.parts.reactor.wake();
  await until("two pairs are used", () => queues(namespace)[0] === 2);
  assertEquals(machine.counters("net0.control").commands > 2, true);
});
