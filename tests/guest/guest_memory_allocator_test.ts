import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { HostError } from "../../core/errors.ts";
import { GuestMemoryAllocator, MAX_GUEST_BYTES } from "../../guest/guest_queues.ts";

const wish = fc.record({
  size: fc.integer({ min: 1, max: 20_000 }),
  alignment: fc.constantFrom(1, 2, 4, 16, 4096),
  contiguous: fc.boolean(),
});

Deno.test("GuestMemoryAllocator.build() gives every reservation aligned memory of its own that exists", () => {
  fc.assert(
    fc.property(fc.array(wish, { maxLength: 30 }), fc.integer({ min: 1, max: 8 }), (wishes, regions) => {
      const allocator = new GuestMemoryAllocator(regions);
      const made = wishes.map((w) => allocator.reserve(w.size, w.alignment, w.contiguous));
      const memory = allocator.build();
      assertEquals(memory.regions.length, regions);
      let end = 0;
      for (const { address, size, alignment, contiguous } of made) {
        assertEquals(address % alignment, 0);
        assert(address >= end, "reservations must not overlap");
        end = address + size;
        if (contiguous) assertEquals(memory.window(address, size, 1).u8.length, size);
        else memory.copyOut(address, new Uint8Array(size), 0, size);
      }
    }),
  );
});

Deno.test("GuestMemoryAllocator.build() lets a buffer lie across two regions that touch", () => {
  const many = new GuestMemoryAllocator(4);
  const buffers = Array.from({ length: 40 }, () => many.reserve(1000, 1, false));
  const { regions } = many.build();
  const crossing = buffers.filter((piece) =>
    regions.some(({ guestAddress }) =>
      piece.address < guestAddress && piece.address + piece.size > guestAddress
    )
  );
  assert(crossing.length >= 1, "at least one seam is crossed");
  assert(regions.some(({ guestAddress }) => guestAddress > 2 ** 32), "some addresses need more than 32 bits");
});

Deno.test("GuestMemoryAllocator.build() refuses more memory than a guest may have", () => {
  const allocator = new GuestMemoryAllocator(1);
  allocator.reserve(MAX_GUEST_BYTES, 16, false);
  assertThrows(() => allocator.build(), HostError, "lower queueSize, queuePairs or receiveBufferBytes");
});
