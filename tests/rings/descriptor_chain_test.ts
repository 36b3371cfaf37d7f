import { assertEquals, assertThrows } from "@std/assert";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import { GuestError, type GuestFault } from "../../rings/guest_error.ts";
import { GuestMemory } from "../../rings/memory.ts";
import { TestGuest } from "../core/support/guest.ts";

function fault(action: () => unknown): GuestFault {
  return assertThrows(action, GuestError).fault;
}

function chainOf(
  guest: TestGuest,
  ...elements: [address: number, length: number, writable: boolean][]
): DescriptorChain {
  const chain = new DescriptorChain();
  chain.begin();
  for (const [address, length, writable] of elements) chain.add(guest.memory, address, length, writable);
  chain.finish(7, elements.length);
  return chain;
}

Deno.test("DescriptorChain.read() gathers the readable part, whatever its framing", () => {
  const guest = new TestGuest();
  const sent = Uint8Array.from({ length: 106 }, (_, i) => i + 1);
  guest.setBytes(0x10001, sent.subarray(0, 1));
  guest.setBytes(0x13ff0, sent.subarray(1, 101));
  guest.setBytes(0x1_0000_0000, sent.subarray(101));
  const chain = chainOf(guest, [0x10001, 1, false], [0x13ff0, 100, false], [0x1_0000_0000, 5, false], [
    0x10100,
    9,
    true,
  ]);
  assertEquals([chain.head, chain.descriptors, chain.readableBytes, chain.writableBytes], [7, 4, 106, 9]);
  for (const step of [1, 3, 16, 17, 50, 106, 200]) {
    chain.rewind();
    const read = new Uint8Array(300);
    let at = 0;
    for (let got = 1; got > 0; at += got) got = chain.read(read, at, Math.min(step, 300 - at));
    assertEquals(at, 106);
    assertEquals(read.subarray(0, 106), sent);
    assertEquals(read.subarray(106), new Uint8Array(194));
  }
});

Deno.test("DescriptorChain.write() scatters over the writable part and writes nothing else", () => {
  for (const step of [1, 5, 16, 30, 64, 110]) {
    const guest = new TestGuest();
    const chain = chainOf(guest, [0x10000, 4, false], [0x13fff, 2, true], [0x1_0000_0010, 60, true], [
      0x10020,
      3,
      true,
    ]);
    const source = Uint8Array.from({ length: 110 }, (_, i) => 255 - i);
    let at = 0;
    for (let done = 1; done > 0; at += done) done = chain.write(source, at, Math.min(step, 110 - at));
    assertEquals(at, 65);
    assertEquals(guest.bytes(0x13fff, 2), source.slice(0, 2));
    assertEquals(guest.bytes(0x1_0000_0010, 60), source.slice(2, 62));
    assertEquals(guest.bytes(0x10020, 3), source.slice(62, 65));
    for (
      const untouched of [0x10000, 0x10003, 0x13ffe, 0x14001, 0x1_0000_000f, 0x1_0000_004c, 0x1001f, 0x10023]
    ) {
      assertEquals(guest.get(untouched), 0);
    }
  }
});

Deno.test("DescriptorChain.rewind() starts both parts again", () => {
  const guest = new TestGuest();
  guest.setBytes(0x10000, Uint8Array.of(1, 2, 3));
  const chain = chainOf(guest, [0x10000, 3, false], [0x10010, 3, true]);
  const read = new Uint8Array(3);
  assertEquals(chain.read(read, 0, 2), 2);
  assertEquals(chain.write(Uint8Array.of(7, 8), 0, 2), 2);
  chain.rewind();
  assertEquals(chain.read(read, 0, 3), 3);
  assertEquals(read, Uint8Array.of(1, 2, 3));
  assertEquals(chain.write(Uint8Array.of(4, 5, 6), 0, 3), 3);
  assertEquals(guest.bytes(0x10010, 3), Uint8Array.of(4, 5, 6));
});

Deno.test("DescriptorChain.read() and write() give nothing where there is nothing", () => {
  const guest = new TestGuest();
  const readable = chainOf(guest, [0x10000, 3, false]);
  assertEquals(readable.write(new Uint8Array(1), 0, 1), 0);
  const writable = chainOf(guest, [0x10000, 3, true]);
  assertEquals(writable.read(new Uint8Array(1), 0, 1), 0);
  assertEquals(writable.write(new Uint8Array(1), 0, 0), 0);
});

Deno.test("DescriptorChain.read() and write() refuse a range outside the device's own buffer", () => {
  const chain = chainOf(new TestGuest(), [0x10000, 30, false], [0x10100, 30, true]);
  const small = new Uint8Array(8);
  for (const [at, length] of [[0, 9], [8, 1], [-1, 2], [0, -1], [NaN, 1], [0, NaN]]) {
    assertThrows(() => chain.read(small, at, length), RangeError);
    assertThrows(() => chain.write(small, at, length), RangeError);
  }
});

Deno.test("DescriptorChain.add() refuses what no chain may hold", () => {
  const guest = new TestGuest();
  assertEquals(fault(() => chainOf(guest, [0x10000, 0, false])), "descriptor-zero-length");
  assertEquals(fault(() => chainOf(guest, [0x20000, 4, false])), "address-out-of-range");
  assertEquals(fault(() => chainOf(guest, [0x17ffd, 4, true])), "address-out-of-range");
  assertEquals(fault(() => chainOf(guest, [0x17ffd, 0xffffffff, true])), "address-out-of-range");
  assertEquals(
    fault(() => chainOf(guest, [0x10000, 4, true], [0x10000, 4, false])),
    "descriptor-readable-after-writable",
  );
});

Deno.test("DescriptorChain.turnReadable() has everything read and nothing written, before finish() and after", () => {
  const guest = new TestGuest();
  const chain = chainOf(guest, [0x10000, 3, false], [0x10100, 5, true]);
  assertEquals(chain.write(Uint8Array.of(1, 2), 0, 2), 2);
  chain.turnReadable();
  assertEquals([chain.readableBytes, chain.writableBytes], [8, 0]);
  assertEquals(chain.write(new Uint8Array(9), 0, 9), 0);
  const read = new Uint8Array(9);
  assertEquals(chain.read(read, 0, 9), 8);
  assertEquals(Array.from(read), [0, 0, 0, 1, 2, 0, 0, 0, 0]);
  chain.add(guest.memory, 0x10200, 7, false);
  chain.add(guest.memory, 0x10300, 9, true);
  chain.finish(0, 4);
  assertEquals([chain.readableBytes, chain.writableBytes], [15, 9]);
  assertEquals(chain.write(new Uint8Array(10).fill(1), 0, 10), 9);
  assertEquals(guest.bytes(0x10100, 5), Uint8Array.of(1, 2, 0, 0, 0));
  assertEquals(guest.bytes(0x10300, 9), new Uint8Array(9).fill(1));
  assertEquals(chain.read(new Uint8Array(20), 0, 20), 15);
});

Deno.test("DescriptorChain.finish() refuses more than 2^32 bytes", () => {
  const size = 2 ** 31;
  // Never touched, so that the system never has to provide it.
  const buffer = new ArrayBuffer(size);
  const memory = new GuestMemory([{ guestAddress: 0, size, buffer, bufferOffset: 0 }]);
  const chain = new DescriptorChain();
  chain.begin();
  chain.add(memory, 0, size, false);
  chain.add(memory, 0, size, true);
  chain.finish(0, 2);
  assertEquals(chain.readableBytes + chain.writableBytes, 2 ** 32);
  chain.add(memory, 0, 1, true);
  assertEquals(fault(() => chain.finish(0, 3)), "chain-too-long");
});

Deno.test("DescriptorChain holds 65536 pieces and refuses one more", () => {
  const guest = new TestGuest();
  const chain = new DescriptorChain();
  for (let round = 0; round < 2; round++) {
    chain.begin();
    for (let i = 0; i < 32768; i++) chain.add(guest.memory, 0x13fff, 2, true);
    chain.finish(0, 32768);
    assertEquals(chain.write(new Uint8Array(65536).fill(round + 1), 0, 65536), 65536);
    assertEquals(guest.bytes(0x13fff, 2), Uint8Array.of(round + 1, round + 1));
  }
  assertEquals(fault(() => chain.add(guest.memory, 0x10000, 1, true)), "chain-too-long");
});

Deno.test("DescriptorChain.begin() forgets the chain before", () => {
  const guest = new TestGuest();
  const chain = chainOf(guest, [0x10000, 4, false], [0x10010, 4, true]);
  chain.begin();
  chain.add(guest.memory, 0x10020, 2, false);
  chain.finish(1, 1);
  assertEquals([chain.readableBytes, chain.writableBytes, chain.descriptors], [2, 0, 1]);
  assertEquals(chain.write(new Uint8Array(4), 0, 4), 0);
  assertEquals(chain.read(new Uint8Array(4), 0, 4), 2);
});

Deno.test("DescriptorChain.locate() finds bytes in this process, piece by piece, and wroteInPlace() tells a migration", () => {
  const region = (guestAddress: number, size: number, hostAddress?: number) => ({
    guestAddress,
    size,
    buffer: new ArrayBuffer(size),
    bufferOffset: 0,
    ...(hostAddress === undefined ? {} : { hostAddress }),
  });
  // Two regions that touch, and one whose place is not known.
  const memory = new GuestMemory([
    region(0x1000, 0x1000, 0x7000_0000_0000),
    region(0x2000, 0x1000, 0x6000_0000_0000),
    region(0x8000, 0x1000),
  ]);
  const chain = new DescriptorChain();
  chain.begin();
  chain.add(memory, 0x1000, 16, false);
  chain.add(memory, 0x1100, 8, false);
  chain.add(memory, 0x1ff0, 32, true);
  chain.add(memory, 0x8000, 4, true);
  chain.finish(0, 4);
  const places = new Float64Array(8);
  const found = (
    part: "readable" | "writable",
    offset: number,
    length: number,
  ) => [...places.subarray(0, 2 * chain.locate(part, offset, length, places))];
  assertEquals(found("readable", 0, 24), [0x7000_0000_0000, 16, 0x7000_0000_0100, 8]);
  assertEquals(found("readable", 10, 7), [0x7000_0000_000a, 6, 0x7000_0000_0100, 1]);
  assertEquals(found("readable", 16, 8), [0x7000_0000_0100, 8]);
  assertEquals(found("readable", 17, 8), []);
  assertEquals(found("writable", 0, 32), [0x7000_0000_0ff0, 16, 0x6000_0000_0000, 16]);
  assertEquals(found("writable", 20, 5), [0x6000_0000_0004, 5]);
  assertEquals(found("writable", 30, 4), [], "what has no known address is copied");
  assertEquals(chain.locate("readable", 0, 24, new Float64Array(2)), 0, "more pieces than room");
  const marks: [number, number][] = [];
  memory.dirtyLog = { mark: (address, bytes) => void marks.push([address, bytes]) };
  chain.wroteInPlace(20);
  assertEquals(marks, [[0x1ff0, 16], [0x2000, 4]]);
});
