import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import { copyWithin, GuestMemory } from "../../rings/memory.ts";

/**
 * Chains that are read and written by a kernel, and by plain code: the same bytes, results, errors and log.
 */

const BYTES = 0x40000;
const BUFFER_BYTES = 0x20000;
/** Two regions that touch in the guest's address space and not here. */
const REGIONS = [0x10000, 0x10000 + BYTES / 2];
const SEED = Number(Deno.env.get("KERNEL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = Number(Deno.env.get("KERNEL_RUNS") ?? 100);

function newRandom(seed: number): (below: number) => number {
  let state = seed | 0;
  return (below) => {
    state = Math.imul(state ^ state >>> 15, 0x2c1b3c6d) + 0x6d2b79f5 | 0;
    return (state >>> 3) % below;
  };
}

/** A guest and a device's buffer, both in an arena or neither. */
class World {
  readonly memory: GuestMemory;
  readonly buffer: Uint8Array<ArrayBuffer>;
  readonly guest: Uint8Array<ArrayBuffer>;
  readonly chain = new DescriptorChain();
  readonly log: [number, number][] = [];

  constructor(arena: Arena | null) {
    const start = arena?.takeRange(BYTES + 4096, 4096) ?? 0;
    const buffer = arena?.buffer ?? new ArrayBuffer(BYTES + 4096);
    this.guest = new Uint8Array(buffer, start, BYTES + 4096);
    this.memory = new GuestMemory(REGIONS.map((guestAddress, i) => ({
      guestAddress,
      size: BYTES / 2,
      buffer,
      bufferOffset: start + i * (BYTES / 2 + 4096),
    })));
    const at = arena?.allocate(BUFFER_BYTES);
    this.buffer = at === undefined
      ? new Uint8Array(BUFFER_BYTES)
      : arena!.bytes.subarray(at!, at! + BUFFER_BYTES);
  }
}

Deno.test("chains are read and written by kernels as by plain code (property)", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  const worlds = [new World(arena), new World(null)];
  for (let run = 0; run < RUNS; run++) {
    const seed = SEED + run;
    const random = newRandom(seed);
    const size = () => 1 + random([8, 40, 300, 3000, 70_000][random(5)]);
    const elements: [number, number, boolean][] = [];
    const readable = random(5);
    for (let i = 0; i < readable + random(5); i++) {
      const length = size();
      elements.push([REGIONS[0] + random(BYTES - length), length, i >= readable]);
    }
    const isLogged = random(3) === 0;
    const fill = new Uint8Array(4096 + random(10));
    for (let i = 0; i < fill.length; i++) fill[i] = random(256);
    const acts = Array.from({ length: 12 }, () => [random(8), random(BUFFER_BYTES), size(), random(20)]);
    const said = worlds.map(({ memory, buffer, guest, chain, log }) => {
      for (let at = 0; at < guest.length; at += fill.length) {
        guest.set(fill.subarray(0, guest.length - at), at);
      }
      buffer.fill(seed);
      log.length = 0;
      memory.dirtyLog = isLogged ? { mark: (address, length) => void log.push([address, length]) } : null;
      chain.begin();
      for (const [address, length, writable] of elements) chain.add(memory, address, length, writable);
      chain.finish(0, 1);
      return acts.map(([act, at, length, isOdd]) => {
        try {
          if (act === 0) return chain.rewind();
          const target = act === 1 ? buffer.subarray(at) : buffer;
          const from = act === 1 ? 0 : at;
          // Also more than the buffer holds.
          const count = isOdd === 0 ? BUFFER_BYTES : Math.min(length, BUFFER_BYTES - at);
          return act % 2 === 0 ? chain.read(target, from, count) : chain.write(target, from, count);
        } catch (error) {
          assert(error instanceof RangeError);
          return error.message;
        }
      });
    });
    const what = `KERNEL_SEED=${seed} KERNEL_RUNS=1`;
    assertEquals(said[0], said[1], what);
    assertEquals(worlds[0].log, worlds[1].log, what);
    for (const part of ["guest", "buffer"] as const) {
      const [quick, plain] = worlds.map((world) => world[part]);
      const at = quick.findIndex((byte, i) => byte !== plain[i]);
      assertEquals(at, -1, `${what}: ${part} differs at ${at}`);
    }
  }
  worlds[0].memory.revoke();
  const { chain, buffer, guest } = worlds[0];
  chain.begin();
  guest.fill(7);
  assertThrows(() => chain.add(worlds[0].memory, REGIONS[0], 64, true));
  assert(buffer.length > 0 && guest.every((byte) => byte === 7));
});

Deno.test("a copy within the arena is that of copyWithin, of any length and also where the two places overlap", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  const at = arena.allocate(4096)!;
  const plain = new Uint8Array(4096);
  const random = newRandom(SEED);
  const quick = arena.bytes.subarray(at, at + 4096);
  const check = (to: number, from: number, length: number) => {
    for (let i = 0; i < 4096; i++) quick[i] = plain[i] = random(256);
    copyWithin(arena.bytes, at + to, at + from, length);
    copyWithin(plain, to, from, length);
    assertEquals(
      quick.findIndex((byte, i) => byte !== plain[i]),
      -1,
      `${length} bytes from ${from} to ${to}`,
    );
  };
  for (let length = 0; length < 300; length++) check(2000 + random(16), random(16), length);
  for (let i = 0; i < 300; i++) check(1000 + random(64), 1000 + random(64), random(1500));
  // A view that does not begin with its buffer goes by its own places.
  const part = arena.bytes.subarray(at);
  quick.fill(1);
  part[0] = 9;
  copyWithin(part, 100, 0, 50);
  assertEquals([quick[100], quick[99], quick[101]], [9, 1, 1]);
});
