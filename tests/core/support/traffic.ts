/**
 * Random traffic through a queue, with every byte and every used element checked.
 * @module
 */
import { assertEquals } from "@std/assert";
import { DescriptorChain } from "../../../rings/descriptor_chain.ts";
import type { Virtqueue } from "../../../rings/virtqueue.ts";
import type { Element, TestDriver } from "./drivers.ts";
import type { TestGuest } from "./guest.ts";

/** One step of traffic: what is posted, and what the device does then. */
export interface Round {
  /**
   * Buffers: lengths of elements, how many of them are readable, whether by a table and with how many before
   * it.
   */
  readonly posts: readonly {
    readonly lengths: readonly number[];
    readonly readable: number;
    readonly table: boolean;
    readonly direct: number;
  }[];
  /** How many are popped at most. */
  readonly pops: number;
  /** How many of those are put back and popped again. */
  readonly unpops: number;
  /** How many of the popped are pushed, counted from the end if `reverse`. */
  readonly pushes: number;
  readonly reverse: boolean;
}

interface Posted {
  readonly elements: readonly Element[];
  readonly sent: Uint8Array;
  readonly places: readonly (readonly [number, number])[];
  /** What the device wrote, or null while it has not. */
  written: Uint8Array | null;
}

const CELL = 16;

/**
 * Hands out cells of an area of guest memory, next fit, so that buffers soon lie across every boundary in it.
 */
class Cells {
  readonly #base: number;
  readonly #busy: boolean[];
  #at = 0;

  constructor(base: number, bytes: number) {
    this.#base = base;
    this.#busy = new Array<boolean>(Math.floor(bytes / CELL)).fill(false);
  }

  take(bytes: number): number | null {
    const cells = Math.ceil(bytes / CELL);
    for (let tried = 0; tried < this.#busy.length; tried++) {
      const first = (this.#at + tried) % this.#busy.length;
      if (first + cells > this.#busy.length || this.#busy.slice(first, first + cells).includes(true)) {
        continue;
      }
      this.#busy.fill(true, first, first + cells);
      this.#at = first + cells;
      return this.#base + first * CELL;
    }
    return null;
  }

  free(address: number, bytes: number): void {
    const first = (address - this.#base) / CELL;
    this.#busy.fill(false, first, first + Math.ceil(bytes / CELL));
  }
}

/** Runs the rounds and then returns all that is out. Returns how many buffers went through. */
export function runTraffic(
  guest: TestGuest,
  driver: TestDriver,
  queue: Virtqueue,
  area: readonly [number, number],
  rounds: readonly Round[],
): number {
  const cells = new Cells(area[0], area[1]);
  const out = new Map<number, Posted>();
  const expected: number[] = [];
  const held: { head: number; bytes: number }[] = [];
  const chain = new DescriptorChain();
  let stamp = 1;
  let done = 0;

  const fill = (length: number): Uint8Array<ArrayBuffer> => {
    stamp = (stamp * 1103515245 + 12345) % 0x80000000;
    return Uint8Array.from({ length }, (_, i) => (stamp >> 8) + i * 7 & 0xff);
  };

  const post = (request: Round["posts"][number]): void => {
    const places: [number, number][] = [];
    const place = (bytes: number): number | null => {
      const address = cells.take(bytes);
      if (address !== null) places.push([address, bytes]);
      return address;
    };
    const addresses = request.lengths.map((length) => place(length + 1));
    const direct = Math.min(request.direct, request.lengths.length - 1);
    const table = request.table ? place(16 * (request.lengths.length - direct)) : null;
    const giveUp = () => places.forEach(([address, bytes]) => cells.free(address, bytes));
    if (addresses.includes(null) || (request.table && table === null)) return giveUp();
    // Odd addresses on purpose.
    const elements = request.lengths.map((length, i) => (
      { address: addresses[i]! + i % 2, length, writable: i >= request.readable }
    ));
    const id = driver.post({ elements, table, direct });
    if (id === null) return giveUp();
    const readable = elements.filter((element) => !element.writable);
    const sent = fill(readable.reduce((sum, element) => sum + element.length, 0));
    let at = 0;
    for (const { address, length } of readable) {
      guest.setBytes(address, sent.subarray(at, at + length));
      at += length;
    }
    out.set(id, { elements, sent, places, written: null });
    expected.push(id);
  };

  const popOne = (): boolean => {
    if (!queue.pop(chain)) return false;
    const id = expected.shift();
    assertEquals(chain.head, id, "chains come in the order in which they were posted");
    const posted = out.get(chain.head)!;
    const writable = posted.elements.filter((element) => element.writable);
    assertEquals(chain.readableBytes, posted.sent.length);
    assertEquals(chain.writableBytes, writable.reduce((sum, element) => sum + element.length, 0));
    const read = new Uint8Array(chain.readableBytes);
    // In two goes, to use the cursor, and once more behind the end.
    const half = read.length >> 1;
    assertEquals(chain.read(read, 0, half), half);
    assertEquals(chain.read(read, half, read.length - half), read.length - half);
    assertEquals(chain.read(new Uint8Array(1), 0, 1), 0);
    assertEquals(read, posted.sent);
    const reply = fill(chain.writableBytes);
    const part = Math.floor(reply.length / 3);
    assertEquals(chain.write(reply, 0, part), part);
    assertEquals(chain.write(reply, part, reply.length - part), reply.length - part);
    assertEquals(chain.write(new Uint8Array(1), 0, 1), 0);
    posted.written = reply;
    held.push({ head: chain.head, bytes: reply.length });
    return true;
  };

  const collect = (due: readonly { head: number; bytes: number }[]): void => {
    const used = driver.collect();
    assertEquals(used, due.map(({ head, bytes }) => ({ id: head, length: bytes })));
    for (const { id } of used) {
      const posted = out.get(id)!;
      let at = 0;
      for (const { address, length, writable } of posted.elements) {
        if (!writable) continue;
        assertEquals(guest.bytes(address, length), posted.written!.subarray(at, at + length));
        at += length;
      }
      out.delete(id);
      posted.places.forEach(([address, bytes]) => cells.free(address, bytes));
      done++;
    }
  };

  const push = (count: number, reverse: boolean): void => {
    const due = reverse ? held.splice(Math.max(0, held.length - count)).reverse() : held.splice(0, count);
    for (const { head, bytes } of due) queue.push(head, bytes);
    assertEquals(driver.collect(), [], "nothing is seen before it is published");
    queue.publish();
    collect(due);
  };

  for (const round of rounds) {
    round.posts.forEach(post);
    const before = expected.length;
    // Nothing may be visible before the driver exposes it, unless it was exposed in an earlier round.
    driver.expose();
    let popped = 0;
    while (popped < round.pops && popOne()) popped++;
    assertEquals(popped, Math.min(before, round.pops));
    const back = Math.min(round.unpops, popped);
    if (back > 0) {
      queue.unpop(back);
      expected.unshift(...held.splice(held.length - back).map(({ head }) => head));
      for (let i = 0; i < back; i++) assertEquals(popOne(), true);
    }
    push(round.pushes, round.reverse);
  }
  while (popOne());
  assertEquals(expected, []);
  push(held.length, false);
  assertEquals(out.size, 0);
  return done;
}
