import { assertEquals } from "@std/assert";
import type { Session } from "../../../core/device.ts";
import { FeatureSet } from "../../../core/features.ts";
import type { GuestMemory } from "../../../rings/memory.ts";
import type { Virtqueue } from "../../../rings/virtqueue.ts";
import { NotificationSuppression } from "../../../core/queue_service.ts";
import { NetQueueInterest } from "../../../devices/net/device.ts";
import { MACS, numbered, range, Rig, RINGS } from "./support/rig.ts";

/** Queues that note who asks them for kicks, and a device whose frames wait where it is told. */
class Bench {
  readonly log: string[] = [];
  /** Indices of queues that have something when they are asked. */
  readonly ready = new Set<number>();
  /** Queue pairs whose frames wait for buffers. */
  readonly starved = new Set<number>();
  readonly session: Session;
  readonly notifications: NotificationSuppression;
  readonly #toNetwork = { isBlocked: false };

  constructor(queues: number, controlIndex: number, missing: readonly number[] = []) {
    const { starved } = this;
    this.session = {
      memory: null as unknown as GuestMemory,
      queues: Array.from({ length: queues }, (_, i) => missing.includes(i) ? null : this.#queue(i)),
      features: FeatureSet.none,
      interrupt() {},
      configChanged() {},
    };
    const toGuest = {
      get isBlocked() {
        return starved.size > 0;
      },
      isBlockedAt: (pair: number) => starved.has(pair),
    };
    const interest = new NetQueueInterest(toGuest, this.#toNetwork);
    interest.controlIndex = controlIndex;
    this.notifications = new NotificationSuppression(interest);
    this.notifications.begin(this.session.queues);
  }

  /** A round, and what it said to the queues. */
  after(did: boolean, congested = false): [again: boolean, said: string] {
    this.log.length = 0;
    this.#toNetwork.isBlocked = congested;
    const again = this.notifications.after(did, this.session.queues);
    return [again, this.log.join(" ")];
  }

  look(): boolean {
    return this.notifications.look(this.session.queues);
  }

  #queue(index: number): Virtqueue {
    return {
      size: 8,
      pop: () => false,
      unpop() {},
      push() {},
      publish: () => false,
      enableKicks: () => {
        this.log.push(`+${index}`);
        return this.ready.delete(index);
      },
      disableKicks: () => void this.log.push(`-${index}`),
      peek: () => {
        this.log.push(`?${index}`);
        return this.ready.has(index);
      },
    };
  }
}

Deno.test("a network device asks for no notifications of receive buffers at first", () => {
  assertEquals(new Bench(5, 4).log, ["-0", "-2"]);
  assertEquals(new Bench(3, 2).log, ["-0"]);
});

Deno.test("it asks transmit and control queues for notifications at the first idle round, once", () => {
  const bench = new Bench(5, 4);
  assertEquals(bench.after(true), [true, ""]);
  assertEquals(bench.after(false), [false, "+1 +3 +4"]);
  assertEquals(bench.after(false), [false, ""]);
  assertEquals(bench.after(true), [true, "-0 -1 -2 -3 -4"]);
  assertEquals(bench.after(true), [true, ""]);
  assertEquals(bench.after(false), [false, "+1 +3 +4"]);
});

Deno.test("it looks again if something came while notifications were off", () => {
  const bench = new Bench(3, 2);
  bench.ready.add(1);
  assertEquals(bench.after(false), [true, "+1 +2"]);
  assertEquals(bench.after(false), [false, ""]);
});

Deno.test("it asks receive queues for which frames wait, and no others, in every idle round", () => {
  const bench = new Bench(7, 6);
  bench.starved.add(1);
  bench.ready.add(0);
  assertEquals(bench.after(false), [false, "+1 +3 +5 +6 +2"]);
  assertEquals(bench.after(false), [false, "+2"]);
  bench.ready.add(2);
  assertEquals(bench.after(false), [true, "+2"]);
  assertEquals(bench.after(false), [false, "+2"]);
  bench.starved.clear();
  assertEquals(bench.after(true)[0], true);
  assertEquals(bench.after(false), [false, "+1 +3 +5 +6"]);
});

Deno.test("it leaves transmit queues alone while frames wait for the network, but not the control queue", () => {
  const bench = new Bench(3, 2);
  assertEquals(bench.after(false, true), [false, "+2"]);
  assertEquals(bench.after(true, false), [true, "-0 -1 -2"]);
  assertEquals(bench.after(false, false), [false, "+1 +2"]);
});

Deno.test("it takes the control queue for one where a driver without MQ has it, between queues that are not there", () => {
  const bench = new Bench(9, 2, [3, 4, 5, 6, 7, 8]);
  assertEquals(bench.log, ["-0"]);
  assertEquals(bench.after(false), [false, "+1 +2"]);
});

for (const { name, guest } of RINGS) {
  Deno.test(`a device that works wants no kicks, and one that sleeps wants the next one (${name})`, async () => {
    await using rig = await Rig.start([{ guest: { ...guest, queueSize: 256, accept: [] } }]);
    const { one } = rig;
    const { reactor } = rig.machine.parts;
    assertEquals([reactor.turn(), reactor.deadlineNs()], [false, Infinity], "an idle device sleeps");
    const before = one.guest.counters.kicks;
    one.guest.send(numbered(1, 60, MACS[1]));
    assertEquals(one.guest.counters.kicks, before + 1, "it wakes for the first frame");
    one.guest.send(numbered(2, 60, MACS[1]));
    reactor.turn();
    const awake = one.guest.counters.kicks;
    for (let number = 3; number <= 30; number++) {
      one.guest.send(numbered(number, 60, MACS[1]));
      reactor.turn();
    }
    assertEquals(one.guest.counters.kicks, awake, "while it works there are no kicks");
    rig.settle();
    assertEquals([one.sent.length, reactor.turn()], [30, false]);
    one.guest.send(numbered(31, 60, MACS[1]));
    assertEquals(one.guest.counters.kicks, awake + 1, "and then it wants to be woken again");
    rig.settle();
    assertEquals(one.sent.length, 31);
  });

  Deno.test(`a device does not want to hear of receive buffers that it has no frames for (${name})`, async () => {
    await using rig = await Rig.start([{ guest: { ...guest, queueSize: 64, accept: [] } }]);
    const { one } = rig;
    const { kicks } = one.guest.counters;
    for (let number = 1; number <= 500; number++) {
      one.port.inject(numbered(number));
      if (number % 5 === 0) rig.settle();
    }
    rig.settle();
    assertEquals(one.numbers, range(1, 500));
    assertEquals(one.guest.counters.kicks, kicks);
    assertEquals(one.guest.counters.unwantedInterrupts, 0);
  });
}

Deno.test("a device with several queue pairs hears of commands, though the driver does without MQ", async () => {
  for (const ring of ["split", "packed"]) {
    const guest = { ring, accept: ["CTRL_VQ", "CTRL_RX"], queueSize: 16 };
    await using rig = await Rig.start([{ device: { queuePairs: 4 }, guest }]);
    const { one } = rig;
    for (let round = 0; round < 5; round++) {
      const { kicks } = one.guest.counters;
      const command = one.guest.setReceiveMode("promisc", round % 2 === 0);
      assertEquals(one.guest.counters.kicks, kicks + 1);
      rig.settle();
      assertEquals(command.ack, 0);
    }
  }
});

Deno.test("a device wakes its reactor when a driver takes it over, so that it sleeps with kicks asked for", async () => {
  await using rig = await Rig.start([{}]);
  let wakes = 0;
  const { one } = rig;
  one.guest.detach();
  one.device.wake = () => void wakes++;
  one.guest.attach(one.device);
  assertEquals(wakes > 0, true);
});

Deno.test("it looks at transmit and control queues while the reactor polls, and asks them again afterwards", () => {
  const bench = new Bench(5, 4);
  bench.after(false);
  bench.log.length = 0;
  assertEquals([bench.look(), bench.log.join(" ")], [false, "-1 -3 -4 ?1 ?3 ?4"]);
  bench.log.length = 0;
  bench.ready.add(3);
  assertEquals([bench.look(), bench.log.join(" ")], [true, "?1 ?3"]);
  assertEquals(bench.after(true), [true, ""]);
  assertEquals(bench.after(false), [true, "+1 +3 +4"]);
  assertEquals(bench.after(false), [false, ""]);
  // Frames wait for the network: only the control queue is work then.
  bench.after(true, true);
  bench.after(false, true);
  bench.log.length = 0;
  assertEquals([bench.look(), bench.log.join(" ")], [false, "-4 ?4"]);
});
