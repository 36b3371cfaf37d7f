import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { HostError } from "../../../core/errors.ts";
import { MessageReader } from "../../../transports/vhost_user/connection.ts";
import { Connection, type MessageSocket } from "../../../transports/vhost_user/connection.ts";
import { ProtocolError, Request } from "../../../transports/vhost_user/messages.ts";
import { Bench } from "./support/bench.ts";
import { type FakeDescriptor, FakeEvent, FakeHost } from "./support/fake_host.ts";
import { concat, message, pair, region, table, u64 } from "../../../rigs/vhost_user/payload.ts";

/** A socket that gives bytes in the portions in which they were put. */
class FakeStream implements MessageSocket<FakeDescriptor> {
  readonly portions: { bytes: Uint8Array; descriptors: FakeDescriptor[] }[] = [];
  readonly sent: number[] = [];
  /** Bytes that it takes before it is full. */
  room = Infinity;
  closed = false;
  disposed = false;

  put(bytes: Uint8Array, descriptors: FakeDescriptor[] = []): void {
    this.portions.push({ bytes, descriptors });
  }

  receive(target: Uint8Array, at: number, lengthBytes: number, descriptors: FakeDescriptor[]): number {
    const portion = this.portions[0];
    if (portion === undefined) return this.closed ? -1 : 0;
    const count = Math.min(lengthBytes, portion.bytes.length);
    target.set(portion.bytes.subarray(0, count), at);
    descriptors.push(...portion.descriptors.splice(0));
    portion.bytes = portion.bytes.subarray(count);
    if (portion.bytes.length === 0) this.portions.shift();
    return count;
  }

  send(source: Uint8Array, from: number, lengthBytes: number): number {
    if (this.closed) return -1;
    const count = Math.min(lengthBytes, this.room);
    this.room -= count;
    this.sent.push(...source.subarray(from, from + count));
    return count;
  }

  [Symbol.dispose](): void {
    this.disposed = true;
  }
}

function connect(): { bench: Bench; stream: FakeStream; connection: Connection<FakeDescriptor> } {
  const bench = new Bench();
  const stream = new FakeStream();
  return { bench, stream, connection: new Connection(stream, bench.backend, { messages: 0 }) };
}

Deno.test("MessageReader.read() puts messages together however they are cut", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(50), fc.uint8Array({ maxLength: 60 }), fc.nat(3)), {
        minLength: 1,
        maxLength: 8,
      }),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 12 }),
      (messages, cuts) => {
        const host = new FakeHost();
        const stream = new FakeStream();
        let cut = 0;
        for (const [id, payload, count] of messages) {
          let rest: Uint8Array = message(id, payload);
          let descriptors = Array.from({ length: count }, () => host.descriptor(new FakeEvent()));
          // Whatever the cuts, a message's descriptors come with its first byte.
          while (rest.length > 0) {
            const size = cuts[cut++ % cuts.length];
            stream.put(rest.subarray(0, size), descriptors);
            descriptors = [];
            rest = rest.subarray(size);
          }
        }
        stream.closed = true;
        const reader = new MessageReader(stream);
        for (const [id, payload, count] of messages) {
          const read = reader.read();
          assert(read !== null && read !== "end");
          assertEquals([read.header.id, [...read.payload], read.descriptors.length], [
            id,
            [...payload],
            count,
          ]);
        }
        assertEquals(reader.read(), "end");
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("MessageReader.read() waits for the rest of a message", () => {
  const stream = new FakeStream();
  const reader = new MessageReader(stream);
  const bytes = message(Request.SET_FEATURES, u64(5));
  assertEquals(reader.read(), null);
  stream.put(bytes.subarray(0, 13));
  assertEquals(reader.read(), null);
  stream.put(bytes.subarray(13));
  const read = reader.read();
  assert(read !== null && read !== "end");
  assertEquals([...read.payload], [...u64(5)]);
});

Deno.test("MessageReader.read() refuses an end in the midst of a message, and too many descriptors", () => {
  const host = new FakeHost();
  const cut = new FakeStream();
  cut.put(message(Request.SET_FEATURES, u64(5)).subarray(0, 15));
  cut.closed = true;
  assertEquals(
    assertThrows(() => new MessageReader(cut).read(), ProtocolError).fault,
    "connection-cut-short",
  );

  const many = new FakeStream();
  const reader = new MessageReader(many);
  // Nine of them, spread over the bytes of one message.
  for (const byte of message(Request.GET_FEATURES).subarray(0, 9)) {
    many.put(Uint8Array.of(byte), [host.descriptor(new FakeEvent())]);
  }
  const error = assertThrows(() => reader.read(), ProtocolError);
  assertEquals([error.fault, error.fatal], ["descriptors-invalid", true]);
  assertEquals(host.openDescriptors, 9);
  reader[Symbol.dispose]();
  assertEquals(host.openDescriptors, 0);
});

Deno.test("Connection.poll() answers in order, and ends when the front-end does", () => {
  const { bench, stream, connection } = connect();
  stream.put(
    concat(message(Request.GET_QUEUE_NUM), message(Request.SET_OWNER), message(Request.GET_MAX_MEM_SLOTS)),
  );
  assertEquals(connection.poll(0), true);
  assertEquals([stream.sent[0], stream.sent[12], stream.sent[20]], [17, 3, 36]);
  assertEquals(connection.poll(0), false);
  stream.closed = true;
  assertEquals(connection.endedBecause, null);
  assertEquals(connection.poll(0), true);
  assertEquals(connection.endedBecause, "the front-end has closed it");
  connection[Symbol.dispose]();
  assertEquals([stream.disposed, bench.host.openDescriptors], [true, 0]);
});

Deno.test("Connection.poll() reads nothing more while an answer waits", () => {
  const { stream, connection } = connect();
  stream.room = 5;
  stream.put(concat(message(Request.GET_QUEUE_NUM), message(Request.GET_MAX_MEM_SLOTS)));
  connection.poll(0);
  assertEquals(stream.sent.length, 5);
  assertEquals(stream.portions.length, 1, "the second request is still in the socket");
  stream.room = Infinity;
  connection.poll(0);
  assertEquals(stream.sent.length, 40);
  assertEquals([stream.sent[0], stream.sent[20]], [17, 36]);
  connection[Symbol.dispose]();
});

Deno.test("Connection.poll() looks at the socket in every eighth round while the device has work", () => {
  const { bench, stream, connection } = connect();
  let looks = 0;
  const receive = stream.receive.bind(stream);
  stream.receive = (...wanted) => {
    looks++;
    return receive(...wanted);
  };
  bench.backend.poll = () => true;
  for (let round = 0; round < 80; round++) assertEquals(connection.poll(0), true);
  assertEquals(looks, 10);
  connection[Symbol.dispose]();
});

Deno.test("Connection.poll() carries out few messages a round, fewer with descriptors, and goes on in the next", () => {
  const bench = new Bench();
  const stream = new FakeStream();
  const counters = { messages: 0 };
  const connection = new Connection(stream, bench.backend, counters);
  const call = message(Request.SET_VRING_CALL, u64(0));
  const tables = message(Request.SET_MEM_TABLE, table(...Array.from({ length: 8 }, () => region())));
  // The device has work all the time: the rest of a burst does not wait for the next look.
  bench.backend.poll = () => true;
  for (
    const [bytes, descriptors, aRound] of [[message(Request.GET_QUEUE_NUM), 0, 8], [call, 1, 4], [
      tables,
      8,
      1,
    ]] as const
  ) {
    const total = 3 * aRound;
    for (let i = 0; i < total; i++) {
      stream.put(
        bytes.slice(),
        Array.from({ length: descriptors }, () => bench.host.descriptor(new FakeEvent())),
      );
    }
    counters.messages = 0;
    let rounds = 0;
    for (let before = 0; counters.messages < total; rounds++) {
      assert(rounds < 20, `${counters.messages} of ${total}`);
      before = counters.messages;
      connection.poll(0);
      assert(counters.messages - before <= aRound, `${counters.messages - before} at once`);
    }
    assert(rounds <= 3 + 8, `${rounds} rounds`);
  }
  connection[Symbol.dispose]();
  assertEquals(bench.host.openDescriptors, 0);
});

Deno.test("Connection.poll() looks at the socket before anybody may sleep", () => {
  for (let busyRounds = 1; busyRounds <= 9; busyRounds++) {
    const { bench, stream, connection } = connect();
    let left = busyRounds;
    bench.backend.poll = () => left-- > 0;
    for (let round = 0; round < busyRounds; round++) assertEquals(connection.poll(0), true);
    stream.put(message(Request.GET_QUEUE_NUM));
    let rounds = 0;
    while (connection.poll(0)) rounds++;
    assertEquals(stream.sent[0], 17, `after ${busyRounds} rounds`);
    assert(rounds <= 2, `${rounds}`);
    connection[Symbol.dispose]();
  }
});

Deno.test("Connection.poll() ends on what cannot be understood, and says why", () => {
  const cases: [(stream: FakeStream) => void, RegExp][] = [
    [(stream) => stream.put(new Uint8Array(12)), /^header-invalid: Version/],
    [
      (stream) => stream.put(message(Request.GET_VRING_BASE, pair(77, 0))),
      /GET_VRING_BASE waits for a value/,
    ],
    [(stream) =>
      stream.receive = () => {
        throw new HostError("Cannot receive");
      }, /^Cannot receive$/],
  ];
  for (const [prepare, reason] of cases) {
    const { bench, stream, connection } = connect();
    prepare(stream);
    assertEquals(connection.poll(0), true);
    assert(reason.test(connection.endedBecause ?? ""), connection.endedBecause ?? "it goes on");
    assertEquals(connection.poll(0), false);
    connection[Symbol.dispose]();
    assertEquals(bench.host.openDescriptors, 0);
  }
});

Deno.test("Connection.poll() lets errors of our own through", () => {
  const { bench, stream, connection } = connect();
  bench.rig.device.readConfig = () => {
    throw new TypeError("a mistake");
  };
  stream.put(message(Request.GET_CONFIG, concat(u64(4n << 32n), new Uint8Array(8))));
  assertThrows(() => connection.poll(0), TypeError, "a mistake");
  connection[Symbol.dispose]();
});

Deno.test("Connection.poll() gives up, after ten seconds, a front-end that keeps a message with descriptors or an answer", () => {
  const S = 1e9;
  {
    const { bench, stream, connection } = connect();
    const bytes = message(Request.SET_FEATURES, u64(5));
    // Without descriptors there is nothing to keep, and the end of the connection is seen.
    stream.put(bytes.subarray(0, 5));
    connection.poll(0);
    assertEquals(connection.deadlineNs(), Infinity);
    stream.put(bytes.subarray(5, 9), [bench.host.descriptor(new FakeEvent())]);
    connection.poll(1 * S);
    assertEquals([connection.endedBecause, connection.deadlineNs()], [null, 11 * S]);
    stream.put(bytes.subarray(9, 12));
    connection.poll(10.9 * S);
    assertEquals(connection.endedBecause, null);
    assertEquals(connection.poll(11 * S), true);
    assertEquals(connection.endedBecause, "the front-end has not sent the rest of a message for 10 s");
    connection[Symbol.dispose]();
    assertEquals(bench.host.openDescriptors, 0);
  }
  const { stream, connection } = connect();
  stream.room = 5;
  stream.put(message(Request.GET_QUEUE_NUM));
  connection.poll(0);
  assertEquals(connection.deadlineNs(), 10 * S);
  stream.room = 1;
  connection.poll(9 * S);
  assertEquals(connection.deadlineNs(), 19 * S, "it takes some of it");
  stream.room = Infinity;
  connection.poll(18 * S);
  assertEquals(connection.deadlineNs(), Infinity);
  stream.room = 0;
  stream.put(message(Request.GET_QUEUE_NUM));
  connection.poll(20 * S);
  assertEquals(connection.poll(30 * S), true);
  assertEquals(connection.endedBecause, "the front-end has not taken an answer for 10 s");
  connection[Symbol.dispose]();
});
