/**
 * The kernel that makes segments beside its twin in plain code: the same random large frames, the same bytes.
 */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import { Cutter, LargeFrame } from "../../offloads/segment/large_frame.ts";
import type { Frame } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";

const ROUNDS = 400;
const CANARY = 0xee;
const CANARY_BYTES = 80;

/** Numbers below `end`, the same in every run. */
function randomNumbers(seed: number): (end: number) => number {
  let state = seed;
  return (end) => {
    state = Math.imul(state, 1_664_525) + 1_013_904_223 | 0;
    return (state >>> 8) % end;
  };
}

interface Large {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly header: Partial<Frame["header"]>;
}

/** A large TCP frame, with all that may be in its headers. */
function randomLarge(random: (end: number) => number): Large {
  const isV4 = random(2) === 0;
  const tags = random(3);
  const ipOptions = isV4 ? 4 * random(11) : 0;
  const tcpOptions = 4 * random(11);
  const segmentBytes = 1 + random(random(4) === 0 ? 60 : 3000);
  const segments = 2 + random(20);
  const payload = Math.min(segmentBytes * (segments - 1) + 1 + random(segmentBytes), 60_000);
  const ip = 14 + 4 * tags;
  const tcp = ip + (isV4 ? 20 + ipOptions : 40);
  const headers = tcp + 20 + tcpOptions;
  const bytes = Uint8Array.from({ length: headers + payload }, () => random(256));
  if (random(8) === 0) bytes.fill(random(2) * 0xff, headers);
  const view = new DataView(bytes.buffer);
  for (let tag = 0; tag < tags; tag++) view.setUint16(12 + 4 * tag, 0x8100);
  view.setUint16(ip - 2, isV4 ? 0x0800 : 0x86dd);
  if (isV4) {
    view.setUint8(ip, 0x45 + ipOptions / 4);
    view.setUint16(ip + 2, bytes.length - ip);
    view.setUint16(ip + 6, 0x4000);
    view.setUint8(ip + 9, 6);
    // No option: a source route would be looked into.
    bytes.fill(1, ip + 20, tcp);
  } else {
    view.setUint8(ip, 0x60);
    view.setUint16(ip + 4, bytes.length - ip - 40);
    view.setUint8(ip + 6, 6);
  }
  // Neither SYN nor RST, which are refused.
  const flags = random(0x200) & ~0x006;
  view.setUint16(tcp + 12, (5 + tcpOptions / 4) << 12 | flags);
  return {
    bytes,
    header: {
      flags: 1,
      gsoType: isV4 ? 1 : 4,
      gsoSize: segmentBytes,
      hdrLen: headers,
      csumStart: tcp,
      csumOffset: 16,
    },
  };
}

/** What comes of it: the bytes and header of each segment, or why it is refused. */
function cut(pool: FramePool, { bytes, header }: Large, partial: boolean): unknown[] {
  const large = new LargeFrame();
  const cutter = new Cutter(large, pool);
  const frame = pool.takeCopy(bytes)!;
  Object.assign(frame.header, header);
  const fault = large.locate(frame, 65_535);
  if (fault !== null) {
    frame.release();
    return [fault];
  }
  const segments: Frame[] = [];
  cutter.begin();
  while (cutter.hasNext) {
    const segment = cutter.next(partial)!;
    segments.push(segment);
  }
  assertEquals(frame.toBytes(), bytes, "the large frame was changed");
  const found = segments.map((segment) => {
    const { flags, gsoType, gsoSize, hdrLen, csumStart, csumOffset } = segment.header;
    const end = segment.start + segment.length;
    const behind = segment.bytes.subarray(end, end + Math.min(CANARY_BYTES, segment.tailRoom));
    assert(behind.every((byte) => byte === CANARY), "written behind the segment's end");
    assertEquals(segment.bytes[segment.start - 1], CANARY, "written before the segment");
    return [segment.toBytes(), flags, gsoType, gsoSize, hdrLen, csumStart, csumOffset];
  });
  for (const segment of segments) segment.release();
  frame.release();
  return found;
}

/** Fills all that a pool will give for segments. */
function fillWithCanaries(pool: FramePool): void {
  for (const length of [2000, 9000, 60_000]) {
    const frames = Array.from({ length: 64 }, () => pool.take(length)!);
    for (const frame of frames) frame.bytes.fill(CANARY, frame.slot, frame.slot + frame.capacity);
    for (const frame of frames) frame.release();
  }
}

Deno.test("a kernel cuts large TCP frames as plain code does, byte by byte", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "there is no memory that kernels reach");
  const pools = [new FramePool({ arena, maxBytes: 16 * 1024 * 1024 }), new FramePool()];
  assert(pools[0].arena !== null && pools[1].arena === null);
  let kernelCalls = 0;
  const original = arena.kernels;
  Object.defineProperty(arena, "kernels", {
    value: {
      ...original,
      cut: (...args: Parameters<typeof original.cut>) => {
        kernelCalls++;
        original.cut(...args);
      },
    },
  });
  let segments = 0;
  let refused = 0;
  let urgent = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const large = randomLarge(randomNumbers(round));
    const partial = round % 3 === 0;
    const [byKernel, plainly] = pools.map((pool) => {
      fillWithCanaries(pool);
      return cut(pool, large, partial);
    });
    assertEquals(byKernel, plainly, `round ${round}`);
    if (typeof plainly[0] === "string") refused++;
    else if ((large.bytes[large.header.csumStart! + 13] & 0x20) !== 0) urgent++;
    else segments += plainly.length;
  }
  assertEquals(kernelCalls, segments);
  assert(segments > 1000 && urgent > 50 && refused < ROUNDS / 10, `${segments} ${urgent} ${refused}`);
  for (const pool of pools) assertEquals(pool.inUse, 0);
});
