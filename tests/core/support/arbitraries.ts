/**
 * Random traffic and random garbage for the property tests of both ring layouts.
 * @module
 */
import { assert } from "@std/assert";
import fc from "fast-check";
import { DescriptorChain } from "../../../rings/descriptor_chain.ts";
import { GuestError } from "../../../rings/guest_error.ts";
import type { Virtqueue } from "../../../rings/virtqueue.ts";
import { TestGuest } from "./guest.ts";
import type { Round } from "./traffic.ts";

const post = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 5 }).chain((lengths) =>
  fc.record({
    lengths: fc.constant(lengths),
    readable: fc.integer({ min: 0, max: lengths.length }),
    table: fc.boolean(),
    direct: fc.integer({ min: 0, max: 4 }),
  })
);

/** Rounds of traffic. With `splitTables`, direct elements may come before a table. */
export function rounds(splitTables: boolean): fc.Arbitrary<Round[]> {
  return fc.array(
    fc.record({
      posts: fc.array(post.map((p) => splitTables ? p : { ...p, direct: 0 }), { maxLength: 12, size: "max" }),
      pops: fc.nat(12),
      unpops: fc.nat(4),
      pushes: fc.nat(12),
      reverse: fc.boolean(),
    }),
    { minLength: 1, maxLength: 60, size: "max" },
  );
}

/** What a hostile driver and a busy device do in turns. */
export type Act =
  | { readonly kind: "scribble"; readonly at: number; readonly value: number }
  | { readonly kind: "pop" | "push" | "publish" | "enable" | "disable" | "unpop" };

/** A descriptor, as its four fields, that may well be good. */
export type Fields = readonly [address: number, length: number, first: number, second: number];

/** What a hostile driver starts with, and what happens then. */
export interface Garbage {
  /** Lie everywhere in memory, over and over, so that every pointer meets some: in rings and in tables. */
  readonly descriptors: readonly Fields[];
  /** Small numbers, for a split ring's available index and entries. */
  readonly index: number;
  readonly entries: readonly number[];
  readonly acts: readonly Act[];
}

/**
 * Garbage that is likely to get somewhere: small lengths, near addresses, flags that mean something. `flags`
 * and `links` are what is likely in the two last fields of a descriptor.
 */
export function garbage(fields: "split" | "packed"): fc.Arbitrary<Garbage> {
  const flags = fields === "split"
    ? fc.constantFrom(0, 0, 0, 1, 2, 2, 3, 4, 5, 6)
    : fc.constantFrom(0x80, 0x80, 0x80, 0x81, 0x82, 0x82, 0x83, 0x84, 0x85, 0x8000, 0x8080, 0);
  const link = fc.oneof({ weight: 9, arbitrary: fc.nat(17) }, { weight: 1, arbitrary: fc.nat(0xffff) });
  const descriptor = fc.tuple(
    fc.oneof({ weight: 9, arbitrary: fc.nat(0x7f0) }, {
      weight: 1,
      arbitrary: fc.constantFrom(0x7ff, 0x800, 2 ** 53),
    }),
    fc.oneof({ weight: 9, arbitrary: fc.constantFrom(1, 2, 16, 32, 48) }, {
      weight: 1,
      arbitrary: fc.nat(0xffffffff),
    }),
    flags,
    link,
  ).map(([address, length, flag, next]): Fields =>
    fields === "split" ? [address, length, flag, next] : [address, length, next, flag]
  );
  return fc.record({
    descriptors: fc.array(descriptor, { minLength: 1, maxLength: 40 }),
    index: fc.nat(17),
    entries: fc.array(fc.nat(17), { minLength: 1, maxLength: 16 }),
    acts: fc.array(
      fc.oneof(
        fc.record({
          kind: fc.constant("scribble" as const),
          at: fc.nat(0x3ff),
          value: fc.constantFrom(0, 1, 2, 3, 4, 8, 0x10, 0x7f, 0x80, 0xff),
        }),
        fc.record({
          kind: fc.constantFrom("pop" as const, "push" as const, "publish" as const),
        }),
        fc.record({ kind: fc.constantFrom("enable" as const, "disable" as const, "unpop" as const) }),
      ),
      { maxLength: 60, size: "max" },
    ),
  });
}

/** Where the garbage lies, and the queue in it. Address 0, so that small numbers are good addresses. */
export const GARBAGE_LAYOUT: readonly (readonly [number, number])[] = [[0, 0x400], [0x400, 0x400]];

/**
 * Works a queue whose memory is garbage that keeps changing. Fails on any error that is not a GuestError, and
 * on a chain that cannot be. Returns how many chains were popped, for the tests to know that they test
 * something.
 */
export function workGarbage(input: Garbage, make: (guest: TestGuest) => Virtqueue): number {
  const guest = new TestGuest(GARBAGE_LAYOUT);
  for (let i = 0; i < 0x80; i++) {
    guest.setDescriptor(16 * i, ...input.descriptors[i % input.descriptors.length]);
  }
  let pops = 0;
  try {
    const queue = make(guest);
    const chain = new DescriptorChain();
    const held: number[] = [];
    let sincePush = 0;
    const scratch = new Uint8Array(0x1000);
    for (const act of input.acts) {
      if (act.kind === "scribble") guest.set(act.at, act.value);
      else if (act.kind === "pop") {
        // A device that drains the ring: it must come to an end by itself.
        while (queue.pop(chain)) {
          pops++;
          sincePush++;
          held.push(chain.head);
          assert(held.length <= queue.size, "more chains are out than the ring has slots");
          assert(chain.descriptors >= 1 && chain.descriptors <= queue.size);
          assert(chain.readableBytes + chain.writableBytes >= 1);
          assert(chain.read(scratch, 0, 0x1000) <= chain.readableBytes);
          assert(chain.write(scratch, 0, 0x1000) <= chain.writableBytes);
        }
      } else if (act.kind === "push") {
        const head = held.shift();
        if (head !== undefined) queue.push(head, 1);
        sincePush = 0;
      } else if (act.kind === "unpop" && sincePush > 0) {
        queue.unpop(1);
        held.pop();
        sincePush--;
      } else if (act.kind === "publish") queue.publish();
      else if (act.kind === "enable") queue.enableKicks();
      else if (act.kind === "disable") queue.disableKicks();
    }
  } catch (error) {
    if (!(error instanceof GuestError)) throw error;
  }
  return pops;
}
