/**
 * What a buffer costs in a virtqueue: pop, push and publish, in bursts of 64 one-element chains. Each iteration is one
 * burst, so a chain costs a sixty-fourth of the figure. The driver's part (making the same buffers available again) is
 * in the figure too, and measured alone in the first group.
 *
 *     deno bench bench/virtqueue_bench.ts
 *
 * The second group is the copy of `length` bytes through a chain, by which the bound for copying byte by byte was set.
 */
import { DescriptorChain } from "../core/descriptor_chain.ts";
import { GuestMemory } from "../core/memory.ts";
import { PackedVirtqueue } from "../core/packed_virtqueue.ts";
import { SplitVirtqueue } from "../core/split_virtqueue.ts";
import type { Virtqueue } from "../core/virtqueue.ts";

const SIZE = 256;
const BURST = 64;
const TABLE = 0x8000;
const BUFFERS = 0x10000;

/** A driver that makes the same 64 buffers available over and over, and its queue. */
interface Rig {
  readonly queue: Virtqueue;
  refill(): void;
}

function writeDescriptor(
  memory: GuestMemory,
  at: number,
  address: number,
  length: number,
  word: number,
): void {
  memory.writeU32(at, address);
  memory.writeU32(at + 4, 0);
  memory.writeU32(at + 8, length);
  memory.writeU32(at + 12, word);
}

function guest(): { memory: GuestMemory; buffer: ArrayBuffer } {
  const buffer = new ArrayBuffer(0x80000);
  return { memory: new GuestMemory([{ guestAddress: 0, size: 0x80000, buffer, bufferOffset: 0 }]), buffer };
}

function splitRig(indirect: boolean): Rig {
  const { memory, buffer } = guest();
  const setup = { size: SIZE, descriptors: 0, driver: 0x2000, device: 0x4000, eventIndex: true, indirect };
  for (let i = 0; i < SIZE; i++) {
    const address = BUFFERS + i * 1024;
    if (indirect) {
      writeDescriptor(memory, TABLE + 16 * i, address, 1024, 2);
      writeDescriptor(memory, 16 * i, TABLE + 16 * i, 16, 4);
    } else writeDescriptor(memory, 16 * i, address, 1024, 2);
  }
  const available = new Uint16Array(buffer, 0x2000, SIZE + 3);
  for (let i = 0; i < SIZE; i++) available[2 + i] = i;
  return {
    queue: new SplitVirtqueue(memory, setup),
    refill: () => {
      available[1] += BURST;
    },
  };
}

function packedRig(indirect: boolean): Rig {
  const { memory, buffer } = guest();
  const setup = { size: SIZE, descriptors: 0, driver: 0x2000, device: 0x4000, eventIndex: true, indirect };
  for (let i = 0; i < SIZE; i++) writeDescriptor(memory, TABLE + 16 * i, BUFFERS + i * 1024, 1024, 2 << 16);
  const ring = new Uint32Array(buffer, 0, SIZE * 4);
  let slot = 0;
  let mark = 0x0080;
  return {
    queue: new PackedVirtqueue(memory, setup),
    refill: () => {
      for (let i = 0; i < BURST; i++) {
        const at = slot * 4;
        ring[at] = indirect ? TABLE + 16 * slot : BUFFERS + slot * 1024;
        ring[at + 2] = indirect ? 16 : 1024;
        ring[at + 3] = ((indirect ? 4 : 2) | mark) << 16 | slot;
        if (++slot === SIZE) {
          slot = 0;
          mark ^= 0x8080;
        }
      }
    },
  };
}

const chain = new DescriptorChain();

function burst(rig: Rig): void {
  rig.refill();
  const queue = rig.queue;
  for (let i = 0; i < BURST; i++) {
    if (!queue.pop(chain)) throw new Error("The driver has made too little available");
    queue.push(chain.head, chain.writableBytes);
  }
  queue.publish();
}

const rigs: [string, Rig][] = [
  ["split, direct", splitRig(false)],
  ["split, indirect", splitRig(true)],
  ["packed, direct", packedRig(false)],
  ["packed, indirect", packedRig(true)],
];
// All layouts run before any is measured: a program that mixes them is the slower, and the honest, case.
for (let i = 0; i < 2000; i++) for (const [, rig] of rigs) burst(rig);

for (const [name, rig] of rigs) {
  Deno.bench(`64 x pop, push, publish: ${name}`, { group: "queue" }, () => burst(rig));
}

const idle = packedRig(false);
Deno.bench("64 x the driver's part alone: packed", { group: "queue" }, () => idle.refill());

const data = new Uint8Array(2048);
const { memory } = guest();
for (const length of [2, 8, 12, 16, 17, 64, 1514]) {
  const copied = new DescriptorChain();
  copied.begin();
  copied.add(memory, BUFFERS, 2048, true);
  copied.finish(0, 1);
  Deno.bench(`64 x write of ${length} bytes into a chain`, { group: "copy" }, () => {
    for (let i = 0; i < 64; i++) {
      copied.rewind();
      copied.write(data, 0, length);
    }
  });
}
