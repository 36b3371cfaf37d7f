/**
 * A machine that stops while requests are in flight, and front-ends that come and go meanwhile: over real
 * sockets, with real shared memory.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { z } from "zod";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { PluginError } from "../../plugins/contract.ts";
import { GuestMemory } from "../../rings/memory.ts";
import { defineDevice } from "../../plugins/plugin.ts";
import type { FileDescriptor } from "../../host/descriptors.ts";
import { EventFd } from "../../host/event_fd.ts";
import { MemoryMapping, newMemoryFile } from "../../host/memory_mapping.ts";
import { UnixStream } from "../../host/unix_socket.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import type { RequestGuest } from "../../guest/request_guest.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { GUEST_BASE, GUEST_BYTES, USER_OFFSET } from "../../rigs/vhost_user/guest.ts";
import { concat, message, pair, region, table, u64, words } from "../../rigs/vhost_user/payload.ts";
import { BufferList, SplitDriverRing } from "../../guest/driver_ring.ts";
import { HEADER_BYTES, Request } from "../../transports/vhost_user/messages.ts";
import { LateDevice } from "../core/support/late_device.ts";

const SIZE = 16;
const BUFFERS = GUEST_BASE + 0x10000;

/** A machine with a device that answers when the test says so, and a guest whose front-ends come and go. */
class Rig implements AsyncDisposable {
  readonly folder: string;
  readonly device: LateDevice;
  readonly machine: Machine;
  readonly failures: string[] = [];
  readonly #file = newMemoryFile("guest", GUEST_BYTES);
  readonly #mapping = MemoryMapping.map(
    this.#file.number,
    { offsetBytes: 0, lengthBytes: GUEST_BYTES },
    "memory",
  );
  readonly memory = new GuestMemory([
    { guestAddress: GUEST_BASE, size: GUEST_BYTES, buffer: this.#mapping.buffer, bufferOffset: 0 },
  ]);
  readonly ring = new SplitDriverRing(this.memory, {
    descriptors: GUEST_BASE,
    driver: GUEST_BASE + 0x400,
    device: GUEST_BASE + 0x800,
    size: SIZE,
    eventIndex: false,
    indirect: false,
    tables: 0,
    tableEntries: 1,
    indirectUse: "never",
  });
  readonly #kick = EventFd.create();
  readonly #list = new BufferList(1);
  stream!: UnixStream;

  private constructor(folder: string, limitNs: number, machine: (plugin: LateDevice) => Machine) {
    this.folder = folder;
    this.device = new LateDevice({ queueSize: SIZE, limitNs });
    this.machine = machine(this.device);
  }

  static async start(limitNs: number): Promise<Rig> {
    const folder = Deno.makeTempDirSync({ prefix: "in-flight-" });
    let device: LateDevice | null = null;
    const late = defineDevice({ name: "late", options: z.strictObject({}), create: () => device! });
    const written = {
      devices: [{ use: "late", driver: { use: "vhost-user", socket: `${folder}/late.sock` } }],
    };
    const config = await parseConfig(
      JSON.stringify(written),
      new URL("file:///machine.jsonc"),
      new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, late])),
    );
    const rig = new Rig(folder, limitNs, (made) => {
      device = made;
      return buildMachine(config);
    });
    rig.machine.start();
    await Promise.resolve();
    return rig;
  }

  turn(): void {
    const { reactor } = this.machine.parts;
    for (let rounds = 0; rounds < 40; rounds++) reactor.turn();
  }

  say(id: number, payload: Uint8Array = new Uint8Array(0), descriptors: readonly number[] = []): void {
    const bytes = message(id, payload);
    assertEquals(this.stream.send(bytes, 0, bytes.length, descriptors), bytes.length);
    this.turn();
  }

  /** A front-end comes. @param base where the ring stood */
  connect(base: number, beforeRing: () => void = () => {}): void {
    this.stream = UnixStream.connect(`${this.folder}/late.sock`);
    this.say(Request.SET_PROTOCOL_FEATURES, u64(1n << 12n));
    this.say(Request.SET_FEATURES, u64(1n << 32n | 1n << 30n));
    this.say(Request.SET_MEM_TABLE, table(region()), [this.#file.number]);
    beforeRing();
    this.say(Request.SET_VRING_NUM, pair(0, SIZE));
    this.say(Request.SET_VRING_BASE, pair(0, base));
    const at = GUEST_BASE + USER_OFFSET;
    const place = concat(words(0, 0), u64(at), u64(at + 0x800), u64(at + 0x400), u64(0));
    this.say(Request.SET_VRING_ADDR, place);
    this.say(Request.SET_VRING_KICK, u64(0), [this.#kick.fd.number]);
    this.say(Request.SET_VRING_ENABLE, pair(0, 1));
  }

  disconnect(): void {
    this.stream[Symbol.dispose]();
    this.turn();
  }

  post(...names: number[]): void {
    for (const name of names) {
      this.#list.clear();
      this.#list.addWritable(BUFFERS + name * 64, 64);
      assert(this.ring.add(this.#list, name));
    }
    this.ring.publish();
    this.turn();
  }

  returned(): [number, number][] {
    const taken: [number, number][] = [];
    for (let name = this.ring.takeUsed(); name >= 0; name = this.ring.takeUsed()) {
      taken.push([name, this.memory.readU8(BUFFERS + name * 64)]);
    }
    return taken;
  }

  fill(): void {
    new Uint8Array(this.#mapping.buffer).fill(0xa5);
  }

  get isUntouched(): boolean {
    return new Uint8Array(this.#mapping.buffer).every((byte) => byte === 0xa5);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine.close().catch(() => {});
    this.stream[Symbol.dispose]();
    this.#kick[Symbol.dispose]();
    this.#mapping[Symbol.dispose]();
    this.#file[Symbol.dispose]();
    await Deno.remove(this.folder, { recursive: true });
  }
}

hostTest(
  "a machine that stops has requests in flight finished, and their guest gets the answers",
  [linux],
  async () => {
    await using rig = await Rig.start(5e9);
    rig.connect(0);
    rig.post(1, 2);
    assertEquals(rig.device.held.length, 2);
    const mappings = MemoryMapping.live;
    let isClosed = false;
    const closing = rig.machine.close().then(() => void (isClosed = true));
    await new Promise((resolve) => setTimeout(resolve, 30));
    assertEquals([isClosed, MemoryMapping.live, rig.device.resets], [false, mappings, 0]);
    const [one, two] = rig.device.held;
    rig.device.answer(two, 7);
    rig.device.answer(one, 8);
    await closing;
    assertEquals(rig.returned(), [[2, 7], [1, 8]]);
    assertEquals(MemoryMapping.live, mappings - 1);
  },
);

hostTest(
  "a machine that cannot have them finished says so, and leaves their memory mapped",
  [linux],
  async () => {
    await using rig = await Rig.start(20e6);
    rig.connect(0);
    rig.post(1, 2);
    const mappings = MemoryMapping.live;
    await assertRejects(() => rig.machine.close(), PluginError, "quiesce-timeout");
    assertEquals([rig.device.resets, MemoryMapping.live], [1, mappings]);
    rig.fill();
    for (const request of [...rig.device.held]) {
      assertEquals(rig.device.answer(request, 9), { written: 0, taken: false });
    }
    rig.machine.devices[0].driver[Symbol.dispose]();
    assertEquals([rig.isUntouched, MemoryMapping.live], [true, mappings - 1]);
  },
);

hostTest(
  "a front-end comes back with its in-flight memory, after the last one's requests are over",
  [linux],
  async () => {
    await using rig = await Rig.start(5e9);
    const answer = new Uint8Array(HEADER_BYTES + 24);
    const files: FileDescriptor[] = [];
    const describe = concat(u64(0), u64(0), words(1 | SIZE << 16, 0));
    rig.connect(0, () => {
      rig.say(Request.GET_INFLIGHT_FD, describe);
      assertEquals(rig.stream.receive(answer, 0, answer.length, files), answer.length);
      assertEquals(files.length, 1);
      rig.say(Request.SET_INFLIGHT_FD, answer.subarray(HEADER_BYTES), [files[0].number]);
    });
    rig.post(1, 2, 3);
    const [one, two, three] = rig.device.held;
    rig.device.answer(two, 22);
    rig.turn();
    assertEquals(rig.returned(), [[2, 22]]);
    const mappings = MemoryMapping.live;
    rig.disconnect();
    // The record is unmapped; the guest's memory is not.
    assertEquals(MemoryMapping.live, mappings - 1);
    rig.connect(1, () => rig.say(Request.SET_INFLIGHT_FD, answer.subarray(HEADER_BYTES), [files[0].number]));
    assertEquals(rig.device.held, [one, three], "no queue is served before they are over");
    assertEquals(rig.device.answer(three, 0x33), { written: 0, taken: false });
    assertEquals(rig.device.answer(one, 0x11), { written: 0, taken: false });
    rig.turn();
    assertEquals(rig.device.held.length, 2);
    assert(rig.device.held.every((request) => request.isLive));
    for (const request of [...rig.device.held].reverse()) rig.device.answer(request, 0x44);
    rig.turn();
    assertEquals(rig.returned(), [[3, 0x44], [1, 0x44]]);
    for (const file of files) file[Symbol.dispose]();
  },
);

Deno.test("a machine by a virtual clock does not end while requests are in flight, and its software guest gets the answers", async () => {
  const device = new LateDevice({ queueSize: SIZE, limitNs: 5e9 });
  const late = defineDevice({ name: "late", options: z.strictObject({}), create: () => device });
  const config = await parseConfig(
    JSON.stringify({ clock: "virtual", devices: [{ use: "late", driver: "loopback" }] }),
    new URL("file:///machine.jsonc"),
    new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, late])),
  );
  await using machine = buildMachine(config);
  machine.start();
  const { guest } = machine.devices[0].driver as LoopbackDriver<RequestGuest>;
  const returned: number[] = [];
  guest.hooks.onReturned = ({ written }) => void returned.push(written.length);
  assert(guest.post(0, [], 64) !== null && guest.post(0, [], 64) !== null);
  guest.kick(0);
  setTimeout(() => {
    for (const request of [...device.held].reverse()) device.answer(request, 1);
  }, 20);
  await machine.run(new AbortController().signal);
  assertEquals([returned, device.inflight.count, guest.errors], [[1, 1], 0, []]);
});
