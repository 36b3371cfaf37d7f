import { assert, assertEquals } from "@std/assert";
import { FakeNetDevice } from "./support/fake_net_device.ts";
import { frameOf, makeRig, matrix, OFFERED, type Rig } from "./support/rig.ts";

/** Frames both ways, in bursts of changing size, checked byte by byte. Returns how many went each way. */
function traffic(rig: Rig, bursts: number, lengths: (i: number) => number): number {
  const { guest, device, packets, run } = rig;
  let number = 0;
  for (let burst = 0; burst < bursts; burst++) {
    const firstIn = packets.length;
    const firstOut = device.sent.length;
    const count = 1 + burst % 5;
    const frames = Array.from({ length: count }, () => frameOf(lengths(number), number++));
    let waiting = 0;
    for (const frame of frames) {
      device.deliver(frame);
      while (!guest.send(frame)) {
        assert(waiting++ < 100, "the transmit ring never drains");
        run();
      }
    }
    run();
    assertEquals(packets.slice(firstIn).map((packet) => packet.bytes), frames);
    assertEquals(device.sent.slice(firstOut).map((sent) => sent.bytes), frames);
  }
  return number;
}

for (const { name, options } of matrix()) {
  const mergeable = options.mergeable!;
  // A ring that is no power of two wherever the layout allows it: the wrap comes at another place each time.
  const queueSize = options.ring === "packed" ? 13 : 16;

  Deno.test(`NetGuest moves frames both ways (${name})`, () => {
    const rig = makeRig({
      ...options,
      queueSize,
      descriptorsPerBuffer: 3,
      memoryRegions: 4,
      receiveBufferBytes: mergeable ? 512 : 4096,
      transmitBufferBytes: 512,
    });
    rig.guest.attach(rig.device);
    const longest = options.indirect === false ? 1500 : 2500;
    const count = traffic(rig, 120, (i) => 14 + (i * 97) % longest);
    const { counters, errors } = rig.guest;
    assertEquals(errors, []);
    assertEquals(counters.malformed, 0);
    assertEquals(counters.received, count);
    assertEquals(counters.sent, count);
    assertEquals(counters.transmitted, count);
    assertEquals(counters.receivedBytes, counters.sentBytes);
    assertEquals(counters.unwantedInterrupts, 0);
    assertEquals(rig.packets.some((packet) => packet.buffers > 1), mergeable);
    assert(rig.packets.every((packet) => packet.numBuffersWritten && packet.numBuffers === packet.buffers));
    assertEquals(rig.device.wakes, counters.kicks);
    assertEquals(rig.guest.session.faults, {});
  });

  Deno.test(`NetGuest with one descriptor a buffer fills its whole ring (${name})`, () => {
    const rig = makeRig({ ...options, queueSize, receiveBufferBytes: 256, transmitBufferBytes: 128 });
    rig.guest.attach(rig.device);
    rig.device.pausesTransmit = true;
    for (let i = 0; i < queueSize; i++) {
      rig.device.deliver(frameOf(60, i));
      assert(rig.guest.send(frameOf(60, i)));
    }
    assert(!rig.guest.send(frameOf(60, 99)));
    rig.run();
    assertEquals(rig.packets.length, queueSize);
    assertEquals(rig.guest.counters.transmitted, 0);
    rig.device.pausesTransmit = false;
    rig.device.wake();
    rig.run();
    assertEquals(rig.guest.counters.transmitted, queueSize);
    assertEquals(rig.device.sent.map((sent) => sent.bytes[0]), rig.packets.map((packet) => packet.bytes[0]));
    assert(rig.guest.send(frameOf(60, 99)));
    assertEquals(rig.guest.errors, []);
  });

  Deno.test(`NetGuest needs no kick from a device that polls, nor an interrupt if it polls (${name})`, () => {
    const rig = makeRig({ ...options, queueSize, receiveBufferBytes: 4096, polling: true });
    rig.device.pollsRings = true;
    rig.guest.attach(rig.device);
    const count = traffic(rig, 60, (i) => 60 + i);
    assertEquals(rig.guest.counters.received, count);
    assertEquals(rig.guest.counters.transmitted, count);
    assertEquals(rig.guest.counters.interrupts, 0);
    // With an event index a split ring cannot refuse kicks, only let the event lie in the past.
    if (options.ring === "packed" || !options.eventIndex) assertEquals(rig.guest.counters.kicks, 0);
    assertEquals(rig.guest.errors, []);
  });

  Deno.test(`NetGuest gets one interrupt for a burst and one kick for many buffers (${name})`, () => {
    const rig = makeRig({ ...options, queueSize: 8, receiveBufferBytes: 512 });
    rig.guest.attach(rig.device);
    assertEquals(rig.guest.counters.kicks, 1);
    rig.run();
    for (let i = 0; i < 6; i++) rig.device.deliver(frameOf(100, i));
    rig.run();
    assertEquals(rig.packets.length, 6);
    assertEquals(rig.guest.counters.interrupts, 1);
    const before = rig.guest.counters.kicks;
    for (let i = 0; i < 6; i++) assert(rig.guest.enqueue(frameOf(100, i)));
    rig.guest.flush();
    assertEquals(rig.guest.counters.kicks, before + 1);
    rig.run();
    assertEquals(rig.device.sent.length, 6);
    assertEquals(rig.guest.counters.interrupts, 2);
  });

  Deno.test(`NetGuest sends commands in ${options.indirect ? 1 : 3} ring entries (${name})`, () => {
    const rig = makeRig({ ...options, queueSize: 8 });
    rig.guest.attach(rig.device);
    const commands = [
      rig.guest.setReceiveMode("promisc", true),
      rig.guest.control(9, 8, Uint8Array.of(1, 2, 3)),
    ];
    assertEquals(commands.map((command) => command.ack), [null, null]);
    rig.run();
    assertEquals(commands.map((command) => command.ack), [0, 0]);
    rig.device.ack = 1;
    commands.push(rig.guest.announceAck());
    rig.run();
    assertEquals(commands[2].ack, 1);
    const slots = options.indirect ? 1 : 3;
    assertEquals(rig.device.commands, [
      { commandClass: 0, command: 0, data: Uint8Array.of(1), descriptors: slots },
      { commandClass: 9, command: 8, data: Uint8Array.of(1, 2, 3), descriptors: slots },
      { commandClass: 3, command: 0, data: new Uint8Array(0), descriptors: options.indirect ? 1 : 2 },
    ]);
    assertEquals(rig.guest.errors, []);
  });
}

for (const size of [1, 2, 3, 7, 256, 32768]) {
  Deno.test(`NetGuest drives a packed ring of ${size} entries round and round`, () => {
    const rig = makeRig(
      { ring: "packed", queueSize: size, receiveBufferBytes: 256, transmitBufferBytes: 128, indirect: false },
      new FakeNetDevice(OFFERED, size),
    );
    rig.guest.attach(rig.device);
    const rounds = size > 300 ? 2 : Math.ceil(600 / size);
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < size; i++) {
        rig.device.deliver(frameOf(60, i));
        assert(rig.guest.enqueue(frameOf(60, i)));
      }
      rig.guest.flush();
      rig.run();
    }
    assertEquals(rig.guest.counters.received, rounds * size);
    assertEquals(rig.guest.counters.transmitted, rounds * size);
    assertEquals(rig.guest.errors, []);
  });
}

Deno.test("NetGuest goes on where the 16-bit indices of a split ring wrap", () => {
  for (const eventIndex of [false, true]) {
    const rig = makeRig({ queueSize: 256, receiveBufferBytes: 128, transmitBufferBytes: 128, eventIndex });
    rig.guest.attach(rig.device);
    const frame = frameOf(60, 1);
    let sent = 0;
    while (sent < 70_000) {
      while (rig.guest.enqueue(frame)) sent++;
      rig.guest.flush();
      rig.run();
      rig.device.sent.length = 0;
    }
    assertEquals(rig.guest.counters.transmitted, sent);
    assertEquals(rig.guest.errors, []);
  }
});
