/**
 * Every recorded vector through the whole device, over every way to drive the rings: bit for bit under the
 * reference's rules, and with nothing lost, reordered or made up under strict ones.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { strictViolations } from "../../testing/vectors/conservation.ts";
import { parseVector, type Vector, writeVector } from "../../testing/vectors/format.ts";
import { differences, type RingChoice, runVector } from "../../testing/vectors/run_vector.ts";

const FOLDER = new URL("./rsc/", import.meta.url);
const VECTORS = [...Deno.readDirSync(FOLDER)].map(({ name }) => name).filter((name) =>
  name.endsWith(".jsonl")
).sort();

const RINGS: readonly RingChoice[] = (["split", "packed"] as const).flatMap((ring) =>
  ([false, "always"] as const).flatMap((indirect) =>
    [true, false].map((eventIndex): RingChoice => ({ ring, indirect, eventIndex }))
  )
);

function read(name: string): Vector {
  return parseVector(Deno.readTextFileSync(new URL(name, FOLDER)), name);
}

function describe({ ring, indirect, eventIndex }: RingChoice): string {
  return `${ring}, ${indirect ? "indirect" : "direct"}, event index ${eventIndex ? "on" : "off"}`;
}

/**
 * Without MRG_RXBUF where it was recorded with, and the other way round: the packets are the same, if buffers
 * are large.
 */
function otherBuffers(vector: Vector): Vector {
  const { rx_buf_len: _, ...config } = vector.head.config;
  return { ...vector, head: { ...vector.head, config: { ...config, mrg_rxbuf: !config.mrg_rxbuf } } };
}

Deno.test("there are 100 recorded vectors", () => {
  assertEquals(VECTORS.length, 100);
});

for (const rings of RINGS) {
  Deno.test(`qemu rules deliver every recorded vector bit for bit (${describe(rings)})`, async () => {
    for (const name of VECTORS) {
      const vector = read(name);
      assertEquals(differences(vector, await runVector(vector, { rules: "qemu", rings })), [], name);
    }
  });

  Deno.test(`strict rules keep every invariant on every recorded vector (${describe(rings)})`, async () => {
    for (const name of VECTORS) {
      const vector = read(name);
      assertEquals(strictViolations(vector, await runVector(vector, { rules: "strict", rings })), [], name);
    }
  });
}

Deno.test("qemu rules deliver the same packets with mergeable buffers as without", async () => {
  for (const name of VECTORS) {
    const vector = read(name);
    // With few buffers, or buffers too small for the largest packet, the two differ by nature.
    if (vector.head.config.rx_posted !== undefined) continue;
    const frames = vector.packets.map(({ t_ns, frame, hdr }) => ({
      t_ns,
      frame,
      flags: hdr.flags,
      gso: hdr.gso_type,
    }));
    const run = await runVector(otherBuffers(vector), { rules: "qemu" });
    const got = run.packets.map(({ t_ns, frame, hdr }) => ({
      t_ns,
      frame,
      flags: hdr.flags,
      gso: hdr.gso_type,
    }));
    assertEquals(got, frames, name);
    assertEquals(run.framesLeft, 0, name);
  }
});

Deno.test("differences() names a changed byte, field, time, count and answer", async () => {
  const vector = read("inorder_3_v4.jsonl");
  const run = await runVector(vector, { rules: "qemu" });
  const [packet] = run.packets;
  const damaged = (changed: Partial<typeof packet>) => ({
    ...run,
    packets: [{ ...packet, ...changed }, ...run.packets.slice(1)],
  });
  const flipped = packet.frame.slice(0, 40) + (packet.frame[40] === "0" ? "1" : "0") + packet.frame.slice(41);
  assertEquals(differences(vector, run), []);
  assert(differences(vector, damaged({ frame: flipped }))[0].includes("frame, byte 20"));
  assert(differences(vector, damaged({ t_ns: packet.t_ns + 1 }))[0].includes("t_ns"));
  assert(
    differences(vector, damaged({ hdr: { ...packet.hdr, gso_size: 7 } }))[0].includes(
      "gso_size: wanted 0, got 7",
    ),
  );
  assert(differences(vector, { ...run, packets: [] })[0].includes("not delivered"));
  assert(differences(vector, { ...run, framesLeft: 2 })[0].includes("2 frames are not back"));
  assert(differences(vector, { ...run, acks: [{ t_ns: 0, ctrl_ack: 1 }] })[0].includes("control answer 1"));
});

Deno.test("writeVector() writes what parseVector() read, 64-bit masks included", () => {
  for (const name of VECTORS) {
    const vector = read(name);
    assertEquals(parseVector(writeVector(vector), name), vector, name);
  }
});
