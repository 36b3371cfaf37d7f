/**
 * A device that answers late behind a back-end, and a front-end that need not wait for its answers: messages
 * go through a connection, whose other end is in memory.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { FaultLog } from "../../../../core/session.ts";
import { Backend } from "../../../../transports/vhost_user/backend.ts";
import { Connection, type MessageSocket } from "../../../../transports/vhost_user/connection.ts";
import { FLAG_NEED_REPLY, HEADER_BYTES, Request } from "../../../../transports/vhost_user/messages.ts";
import {
  BufferList,
  type DriverRing,
  NOTHING_USED,
  PackedDriverRing,
  SplitDriverRing,
} from "../../../../guest/driver_ring.ts";
import { GuestMemory } from "../../../../rings/memory.ts";
import { LateDevice } from "../../../core/support/late_device.ts";
import { type FakeDescriptor, FakeEvent, FakeHost } from "./fake_host.ts";
import { GUEST_BASE, GUEST_BYTES, USER_OFFSET } from "../../../../rigs/vhost_user/guest.ts";
import { concat, message, pair, region, table, u64, words } from "../../../../rigs/vhost_user/payload.ts";

/** Entries of the ring. */
export const SIZE = 16;
const BUFFERS = GUEST_BASE + 0x10000;
const BUFFER_BYTES = 256;

/** One queue, padded as QEMU does. */
const IN_FLIGHT_REQUEST = concat(u64(0), u64(0), words(1 | SIZE << 16, 0));

/** The front-end's end. */
class Wire implements MessageSocket<FakeDescriptor> {
  readonly toBackend: { bytes: Uint8Array; descriptors: FakeDescriptor[] }[] = [];
  readonly answers: { bytes: Uint8Array; descriptors: readonly unknown[] }[] = [];
  closed = false;

  receive(target: Uint8Array, at: number, lengthBytes: number, descriptors: FakeDescriptor[]): number {
    const portion = this.toBackend[0];
    if (portion === undefined) return this.closed ? -1 : 0;
    const count = Math.min(lengthBytes, portion.bytes.length);
    target.set(portion.bytes.subarray(0, count), at);
    descriptors.push(...portion.descriptors.splice(0));
    portion.bytes = portion.bytes.subarray(count);
    if (portion.bytes.length === 0) this.toBackend.shift();
    return count;
  }

  send(source: Uint8Array, from: number, lengthBytes: number, descriptors: readonly unknown[] = []): number {
    if (this.closed) return -1;
    this.answers.push({ bytes: source.slice(from, from + lengthBytes), descriptors });
    return lengthBytes;
  }

  [Symbol.dispose](): void {
    this.closed = true;
  }
}

/** The guest: one ring, and memory that outlives back-ends. */
export class LateGuest {
  readonly buffer = new ArrayBuffer(GUEST_BYTES);
  readonly memory = new GuestMemory([
    { guestAddress: GUEST_BASE, size: GUEST_BYTES, buffer: this.buffer, bufferOffset: 0 },
  ]);
  readonly packed: boolean;
  ring!: DriverRing;
  readonly #list = new BufferList(2);

  constructor(packed: boolean) {
    this.packed = packed;
    this.start();
  }

  /** A new driver: the ring as it is at first. */
  start(): void {
    new Uint8Array(this.buffer).fill(0);
    const place = {
      descriptors: GUEST_BASE,
      driver: GUEST_BASE + 0x400,
      device: GUEST_BASE + 0x800,
      size: SIZE,
      eventIndex: false,
      indirect: false,
      tables: 0,
      tableEntries: 1,
      indirectUse: "never" as const,
    };
    this.ring = this.packed
      ? new PackedDriverRing(this.memory, place)
      : new SplitDriverRing(this.memory, place);
  }

  /** Posts requests of two pieces: one byte to read, that names it, and room for an answer. */
  post(...names: number[]): void {
    for (const name of names) {
      const at = BUFFERS + name * BUFFER_BYTES;
      this.memory.writeU8(at, name);
      this.#list.clear();
      this.#list.addReadable(at, 1);
      this.#list.addWritable(at + 1, BUFFER_BYTES - 1);
      assert(this.ring.add(this.#list, name));
    }
    this.ring.publish();
  }

  /** Posts what breaks a rule. */
  postBroken(): void {
    this.#list.clear();
    this.#list.addWritable(BUFFERS, 0);
    this.ring.add(this.#list, 99);
    this.ring.publish();
  }

  /** Names of the requests that came back, with the byte that was written into each. */
  returned(): [name: number, value: number][] {
    const taken: [number, number][] = [];
    for (let name = this.ring.takeUsed(); name !== NOTHING_USED; name = this.ring.takeUsed()) {
      assert(name >= 0, this.ring.fault);
      taken.push([name, this.memory.readU8(BUFFERS + name * BUFFER_BYTES + 1)]);
    }
    return taken;
  }

  giveBack(): void {
    new Uint8Array(this.buffer).fill(0xa5);
  }

  get isUntouched(): boolean {
    return new Uint8Array(this.buffer).every((byte) => byte === 0xa5);
  }
}

/** One back-end and its connection. */
export class LateBench {
  readonly host: FakeHost;
  readonly guest: LateGuest;
  readonly device: LateDevice;
  readonly wire = new Wire();
  readonly faults = new FaultLog();
  readonly backend: Backend;
  readonly connection: Connection<FakeDescriptor>;
  readonly refused: string[] = [];
  readonly kick = new FakeEvent();
  nowNs = 0;

  constructor(
    guest: LateGuest,
    device: LateDevice = new LateDevice({ queueSize: SIZE }),
    host = new FakeHost(),
  ) {
    this.guest = guest;
    this.device = device;
    this.host = host;
    this.backend = new Backend(device, {
      host,
      profile: "auto",
      faults: this.faults,
      refused: (fault, text) => void this.refused.push(`${fault}: ${text}`),
      trace: null,
    });
    this.connection = new Connection(this.wire, this.backend, { messages: 0 });
  }

  /** Says something; the answer, if any, comes to `wire.answers`. */
  say(id: number, payload: Uint8Array = new Uint8Array(0), descriptors: FakeDescriptor[] = []): void {
    this.wire.toBackend.push({ bytes: message(id, payload, FLAG_NEED_REPLY), descriptors });
    this.poll();
  }

  /** Says something and returns the payload of the answer, which must be there at once. */
  ask(id: number, payload?: Uint8Array, descriptors?: FakeDescriptor[]): Uint8Array {
    const before = this.wire.answers.length;
    this.say(id, payload, descriptors);
    assertEquals(this.wire.answers.length, before + 1, `message ${id} was not answered at once`);
    return this.lastAnswer();
  }

  lastAnswer(): Uint8Array {
    return this.wire.answers.at(-1)!.bytes.subarray(HEADER_BYTES);
  }

  poll(rounds = 20): void {
    for (let i = 0; i < rounds; i++) this.connection.poll(this.nowNs);
  }

  memory(): FakeDescriptor {
    return this.host.descriptor({ kind: "memory", buffer: this.guest.buffer });
  }

  /** The whole dialogue up to a ring that runs. @param base null: the usual one of a new ring */
  start({ base = null as number | null, beforeRing = () => {} } = {}): void {
    const { packed } = this.guest;
    this.say(Request.SET_PROTOCOL_FEATURES, u64(1n << 3n | this.offered() & 1n << 12n));
    this.say(Request.SET_FEATURES, u64(1n << 32n | 1n << 30n | (packed ? 1n << 34n : 0n)));
    this.addMemory();
    beforeRing();
    this.describe(base ?? (packed ? 0x8000 : 0));
    this.say(Request.SET_VRING_ENABLE, pair(0, 1));
    assertEquals(this.refused, []);
  }

  offered(): bigint {
    const answer = this.ask(Request.GET_PROTOCOL_FEATURES);
    return new DataView(answer.buffer, answer.byteOffset).getBigUint64(0, true);
  }

  addMemory(): void {
    this.say(Request.SET_MEM_TABLE, table(region()), [this.memory()]);
  }

  describe(base: number): void {
    this.say(Request.SET_VRING_NUM, pair(0, SIZE));
    this.say(Request.SET_VRING_BASE, pair(0, base));
    const at = GUEST_BASE + USER_OFFSET;
    this.say(
      Request.SET_VRING_ADDR,
      concat(words(0, 0), u64(at), u64(at + 0x800), u64(at + 0x400), u64(0)),
    );
    this.say(Request.SET_VRING_KICK, u64(0), [this.host.descriptor(this.kick)]);
    this.say(Request.SET_VRING_CALL, u64(0), [this.host.descriptor(new FakeEvent())]);
  }

  /** Has the back-end make memory for requests in flight, and use it. Returns it. */
  makeRecord(): ArrayBuffer {
    const answer = this.ask(Request.GET_INFLIGHT_FD, IN_FLIGHT_REQUEST);
    assertEquals(answer.length, 24, "QEMU takes no other length");
    const [number] = this.wire.answers.at(-1)!.descriptors as number[];
    const { file } = this.host.files.get(number)!;
    assert(file.kind === "memory");
    this.useRecord(file.buffer);
    return file.buffer;
  }

  /** Gives the back-end memory for requests in flight. */
  useRecord(buffer: ArrayBuffer): void {
    const payload = concat(u64(buffer.byteLength), u64(0), words(1 | SIZE << 16, 0));
    this.say(Request.SET_INFLIGHT_FD, payload, [this.host.descriptor({ kind: "memory", buffer })]);
  }

  /** The names of requests that the device has, in order of arrival. */
  get held(): number[] {
    const name = new Uint8Array(1);
    return this.device.held.map((request) => {
      request.rewind();
      request.read(name, 0, 1);
      return name[0];
    });
  }

  /** The device answers the request of this name. */
  answer(name: number, value = name): { written: number; taken: boolean } {
    const request = this.device.held[this.held.indexOf(name)];
    return this.device.answer(request, value);
  }

  /** The front-end is gone. */
  disconnect(): void {
    this.wire.closed = true;
    this.poll();
    assert(this.connection.endedBecause !== null);
    this.connection[Symbol.dispose]();
  }
}
