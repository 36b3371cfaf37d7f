import { assert, assertEquals, assertThrows } from "@std/assert";
import { GuestError, type GuestFault } from "../../rings/guest_error.ts";
import { GuestMemory, type MemoryRegion } from "../../rings/memory.ts";
import { LAYOUT, TestGuest } from "../core/support/guest.ts";

function fault(action: () => unknown): GuestFault {
  return assertThrows(action, GuestError).fault;
}

function region(guestAddress: number, size: number, changes: Partial<MemoryRegion> = {}): MemoryRegion {
  return { guestAddress, size, buffer: new ArrayBuffer(Math.max(0, size)), bufferOffset: 0, ...changes };
}

Deno.test("GuestMemory refuses impossible regions", () => {
  const impossible: [string, MemoryRegion][] = [
    ["no bytes", region(0, 0)],
    ["negative size", region(0, -16)],
    ["fractional size", region(0, 16, { size: 15.5 })],
    ["size not a number", region(0, 16, { size: NaN })],
    ["negative address", region(-16, 16)],
    ["address of 2^53", region(2 ** 53, 16)],
    ["end beyond 2^53", region(2 ** 53 - 16, 32)],
    ["behind its buffer", region(0, 16, { bufferOffset: 16 })],
    ["larger than its buffer", region(0, 16, { size: 17 })],
    ["negative offset", region(0, 16, { bufferOffset: -16 })],
    ["offset that misaligns rings", region(8, 16, { buffer: new ArrayBuffer(64) })],
  ];
  for (const [what, bad] of impossible) {
    assertEquals(fault(() => new GuestMemory([bad])), "memory-map-invalid", what);
  }
});

Deno.test("GuestMemory refuses regions that overlap, in any order", () => {
  assertEquals(fault(() => new GuestMemory([region(0x1000, 32), region(0x1010, 32)])), "memory-map-invalid");
  assertEquals(fault(() => new GuestMemory([region(0x1010, 32), region(0x1000, 32)])), "memory-map-invalid");
  const touching = new GuestMemory([region(0x1020, 32), region(0x1000, 32)]);
  assertEquals(touching.regions.map((r) => r.guestAddress), [0x1000, 0x1020]);
});

Deno.test("GuestMemory of no regions has no address", () => {
  assertEquals(fault(() => new GuestMemory([]).readU8(0)), "address-out-of-range");
});

Deno.test("GuestMemory reads and writes little-endian numbers, across a boundary too", () => {
  const guest = new TestGuest();
  const { memory } = guest;
  for (const address of [0x10000, 0x10001, 0x13ffd, 0x13ffe, 0x13fff, 0x14000, 0x1_0000_0003]) {
    memory.writeU32(address, 0xfedcba98);
    assertEquals(guest.bytes(address, 4), Uint8Array.of(0x98, 0xba, 0xdc, 0xfe));
    assertEquals(memory.readU32(address), 0xfedcba98);
    assertEquals(memory.readU16(address), 0xba98);
    memory.writeU16(address + 1, 0x1234);
    assertEquals(guest.bytes(address, 4), Uint8Array.of(0x98, 0x34, 0x12, 0xfe));
    memory.writeU8(address, 0x7f);
    assertEquals(memory.readU8(address), 0x7f);
    assertEquals(guest.get(address), 0x7f);
  }
});

Deno.test("GuestMemory.readAddress() takes what is below 2^53 and refuses the rest", () => {
  const { memory } = new TestGuest();
  for (const at of [0x10000, 0x13ffb, 0x13ffe]) {
    memory.writeU32(at, 0xffffffff);
    memory.writeU32(at + 4, 0x1fffff);
    assertEquals(memory.readAddress(at), 2 ** 53 - 1);
    memory.writeU32(at + 4, 0x200000);
    assertEquals(fault(() => memory.readAddress(at)), "address-out-of-range");
    memory.writeU32(at + 4, 0xffffffff);
    assertEquals(fault(() => memory.readAddress(at)), "address-out-of-range");
  }
});

Deno.test("GuestMemory refuses every address outside its regions", () => {
  const { memory } = new TestGuest();
  for (const [start, size] of LAYOUT) assertEquals(memory.find(start + size - 1).guestAddress, start);
  for (const address of [0, 0xffff, 0x18000, 0xffff_ffff, 0x1_0000_4000, 2 ** 53, -1, NaN, Infinity]) {
    assertEquals(fault(() => memory.readU8(address)), "address-out-of-range", `${address}`);
    assertEquals(fault(() => memory.writeU32(address, 1)), "address-out-of-range", `${address}`);
  }
});

Deno.test("GuestMemory writes a number that does not fit not even in part", () => {
  const guest = new TestGuest();
  for (const end of [0x18000, 0x1_0000_4000]) {
    assertEquals(fault(() => guest.memory.writeU16(end - 1, 0xffff)), "address-out-of-range");
    for (const over of [1, 2, 3]) {
      assertEquals(fault(() => guest.memory.writeU32(end - over, 0xffffffff)), "address-out-of-range");
    }
    assertEquals(guest.bytes(end - 4, 4), new Uint8Array(4));
  }
});

Deno.test("GuestMemory.copyIn() and copyOut() copy any length across regions and nothing beside it", () => {
  for (const length of [0, 1, 15, 16, 23, 24, 25, 100, 5000]) {
    for (
      const address of [0x10003, 0x14000 - 1, 0x14000 - Math.min(length, 0x3000), 0x14000 - (length >> 1)]
    ) {
      const guest = new TestGuest();
      const source = Uint8Array.from({ length: length + 7 }, (_, i) => i * 31 + 1 & 0xff);
      guest.memory.copyIn(address, source.subarray(2), 3, length);
      assertEquals(guest.bytes(address, length), source.slice(5, 5 + length));
      assertEquals(guest.get(address - 1), 0);
      assertEquals(guest.get(address + length), 0);
      const target = new Uint8Array(length + 4);
      guest.memory.copyOut(address, target, 2, length);
      assertEquals(target.subarray(2, 2 + length), source.subarray(5, 5 + length));
      assertEquals([target[0], target[1], target[length + 2], target[length + 3]], [0, 0, 0, 0]);
    }
  }
});

Deno.test("GuestMemory.copyIn() and copyOut() copy all or nothing", () => {
  const guest = new TestGuest();
  const bytes = new Uint8Array(64).fill(9);
  assertEquals(fault(() => guest.memory.copyIn(0x18000 - 63, bytes, 0, 64)), "address-out-of-range");
  assertEquals(guest.bytes(0x18000 - 63, 63), new Uint8Array(63));
  const target = new Uint8Array(64);
  guest.memory.copyIn(0x18000 - 63, bytes, 0, 63);
  assertEquals(fault(() => guest.memory.copyOut(0x18000 - 63, target, 0, 64)), "address-out-of-range");
  assertEquals(target, new Uint8Array(64));
  assertThrows(() => guest.memory.copyIn(0x10000, bytes, 1, 64), RangeError);
  assertThrows(() => guest.memory.copyOut(0x10000, target, -1, 4), RangeError);
});

Deno.test("GuestMemory.window() gives views of exactly the range", () => {
  const guest = new TestGuest();
  guest.setNumber(0x10110, 4, 0x04030201);
  const window = guest.memory.window(0x10110, 10, 16);
  assertEquals([window.u8.length, window.u16.length, window.u32.length, window.view.byteLength], [
    10,
    5,
    2,
    10,
  ]);
  assertEquals([window.u8[0], window.u16[1], window.u32[0]], [1, 0x0403, 0x04030201]);
  window.u16[4] = 0xaabb;
  assertEquals(guest.number(0x10118, 2), 0xaabb);
  assertEquals(guest.memory.window(0x10112, 10, 2).u32.length, 0);
  assertEquals(guest.memory.window(0x10113, 10, 1).u16.length, 0);
  assertEquals(guest.memory.window(0x17ff0, 16, 16).u8.length, 16);
});

Deno.test("GuestMemory.window() refuses what is misaligned, outside, or in two regions", () => {
  const { memory } = new TestGuest();
  assertEquals(fault(() => memory.window(0x10008, 16, 16)), "ring-misaligned");
  assertEquals(fault(() => memory.window(0x10001, 4, 2)), "ring-misaligned");
  assertEquals(fault(() => memory.window(0x17ff0, 17, 16)), "address-out-of-range");
  assertEquals(fault(() => memory.window(0x13ff0, 32, 16)), "address-out-of-range");
  assertEquals(fault(() => memory.window(0x20000, 16, 16)), "address-out-of-range");
});

Deno.test("GuestError tells the address in hexadecimal", () => {
  const error = assertThrows(() => new TestGuest().memory.readU8(0xabcdef), GuestError);
  assert(error.message.includes("0xabcdef"), error.message);
});
