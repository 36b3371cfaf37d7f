import { assert, assertEquals, assertFalse, assertMatch, assertStringIncludes } from "@std/assert";
import type { ReplaySummary } from "../../cli/replay/summary.ts";
import { udp } from "../../testing/mod.ts";
import { QEMU_RULES } from "../../offloads/rsc_chain/verdicts.ts";
import { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { CaptureWriter } from "../../transports/pcap/capture_writer.ts";
import { command, longestLine, projectPath, withFolder } from "./support/command.ts";

const GUEST = "52:54:00:00:00:01";

function capture(name: string): string {
  return projectPath(`tests/captures/${name}`);
}

async function summary(...args: string[]): Promise<ReplaySummary> {
  const { code, out, err } = await command(["replay", ...args, "--json"]);
  assertEquals([code, err], [0, ""]);
  return JSON.parse(out);
}

function frames({ reasons }: ReplaySummary, verdict: string): number {
  return reasons.filter((reason) => reason.verdict === verdict).reduce((sum, { count }) => sum + count, 0);
}

Deno.test("replay coalesces a real download by more than ten, and no byte is lost", async () => {
  const { input, output, coalescingFactor, guest, leftOut, dropped, guestErrors, failure } = await summary(
    capture("bulk_v4_timestamps.pcapng"),
  );
  assertEquals(guest, {
    mac: GUEST,
    chosen: "automatically",
    payloadBytes: 262_144,
    ofPayloadBytes: 262_149,
  });
  assertEquals(input.dataSegments, 182);
  assertEquals([input.payloadBytes, output.payloadBytes], [262_144, 262_144]);
  assert(coalescingFactor! > 10, String(coalescingFactor));
  assertEquals(coalescingFactor, input.dataSegments / output.dataPackets);
  assert(output.interrupts <= output.packets);
  assertEquals(input.frames + leftOut.notForGuest, 334);
  assertEquals([dropped, guestErrors, failure], [{}, [], null]);
  const segments = Object.entries(output.packetsBySegments);
  assertEquals(segments.reduce((sum, [each, packets]) => sum + Number(each) * packets, 0), 182);
  assertEquals(segments.reduce((sum, [, packets]) => sum + packets, 0), output.dataPackets);
});

Deno.test("replay gives every capture's payload to its guest, under either rule book, as often as you like", async () => {
  for await (const { name } of Deno.readDir(capture(""))) {
    if (!/\.pcap(ng)?$/.test(name)) continue;
    for (const rules of ["strict", "qemu"]) {
      const first = await summary(capture(name), "--rules", rules);
      assertEquals(first.output.payloadBytes, first.input.payloadBytes, `${name}, ${rules}`);
      assertEquals([first.dropped, first.guestErrors], [{}, []], `${name}, ${rules}`);
      assertEquals(first, await summary(capture(name), "--rules", rules));
    }
  }
});

Deno.test("replay under the reference's rules merges no segment with timestamps, and says by which rule", async () => {
  const stamped = await summary(capture("bulk_v4_timestamps.pcapng"), "--rules", "qemu");
  assertEquals(stamped.coalescingFactor, 1);
  const reason = stamped.reasons.find(({ verdict }) => verdict === "tcp_all_opt")!;
  assertEquals([reason.stage, reason.rule], ["rsc-v4", "Q8"]);
  assertEquals(reason.meaning, QEMU_RULES.tcp_all_opt.text);
  assert(reason.count >= 182);
  const plain = await summary(capture("bulk_v4_plain.pcap"), "--rules", "qemu");
  assert(plain.coalescingFactor! > 10);
});

Deno.test("replay --interval-us 0 merges only what arrives together, --pace fast lets all arrive together", async () => {
  const path = capture("request_response_v4.pcapng");
  const none = await summary(path, "--interval-us", "0");
  assertEquals([none.coalescingFactor, none.output.coalesced], [1, 0]);
  const some = await summary(path, "--interval-us", "1000");
  const all = await summary(path, "--interval-us", "0", "--pace", "fast");
  assert(some.coalescingFactor! > 1);
  assert(all.coalescingFactor! > some.coalescingFactor!);
  assertEquals(all.output.payloadBytes, none.output.payloadBytes);
});

Deno.test("replay --guest chooses the other side, or none", async () => {
  const other = await summary(capture("bulk_v4_timestamps.pcapng"), "--guest", "52:54:00:00:00:02");
  assertEquals(other.guest.chosen, "by --guest");
  assertEquals([other.input.dataSegments, other.input.payloadBytes], [1, 5]);
  const noGuest = await summary(
    capture("bulk_v4_timestamps.pcapng"),
    "--guest",
    "52-54-00-00-00-77".replaceAll("-", ":"),
  );
  assertEquals(noGuest.coalescingFactor, null);
  assertEquals(noGuest.output.dataPackets, 0);
  const { out } = await command([
    "replay",
    capture("bulk_v4_timestamps.pcapng"),
    "--guest",
    "52:54:00:00:00:77",
  ]);
  assertStringIncludes(out, "No TCP data came in");
});

Deno.test("replay prints a report within the terminal's width, in blocks or in ASCII, without escape codes in a pipe", async () => {
  const path = capture("loss_v6_plain.pcapng");
  for (const columns of [50, 80, 120]) {
    for (const unicode of [true, false]) {
      const { code, out, err } = await command(["replay", path], { columns, unicode });
      assertEquals([code, err], [0, ""]);
      for (
        const part of [
          "Guest 52:54:00:00:00:01",
          "came in",
          "guest got",
          "Coalescing factor ",
          "S7.2",
          "Left out",
        ]
      ) {
        assertStringIncludes(out, part);
      }
      assertEquals(out.includes("█"), unicode);
      assertEquals(out.includes("####"), !unicode);
      assertFalse(out.includes("\x1b"));
      const prose = out.split("\n").slice(1).join("\n");
      assert(longestLine(prose).length <= columns, `${columns}: ${longestLine(prose)}`);
    }
  }
  assertStringIncludes(
    (await command(["replay", path], { color: true })).out,
    "\x1b[1mWhy, by rule",
  );
});

Deno.test("replay --explain has a line for every packet of the capture, in order, with verdict, rule and opener", async () => {
  const path = capture("loss_v4_timestamps.pcap");
  const { code, out } = await command(["replay", path, "--explain", "--json"]);
  assertEquals(code, 0);
  const lines = out.trim().split("\n").map((line) => JSON.parse(line));
  const last = lines.pop();
  assertEquals(last.event, "summary");
  assertEquals(
    lines.map(({ frame }) => frame),
    Array.from({ length: last.capture.packets }, (_, i) => i + 1),
  );
  const leftOut = lines.filter(({ verdict }) => verdict === "left out: not for the guest");
  assertEquals(leftOut.length, last.leftOut.notForGuest);
  for (const verdict of ["held", "merged", "out_of_order", "syn", "fin"]) {
    const seen = lines.filter((line) => line.verdict === verdict);
    assertEquals(seen.length, frames(last, verdict), verdict);
    assert(seen.length > 0, verdict);
  }
  // A merged frame belongs to what an earlier one opened.
  const opened = new Set(
    lines.filter(({ verdict, frame, openedBy }) => verdict === "held" && openedBy === frame).map((
      { frame },
    ) => frame),
  );
  const merged = lines.filter(({ verdict }) => verdict === "merged");
  for (const { frame, openedBy } of merged) {
    assert(openedBy < frame && (opened.has(openedBy) || openedBy > 0), `${frame} in ${openedBy}`);
  }
  using reader = CaptureReader.open(path);
  for (const { timeNs } of lines) {
    assert(reader.next());
    assertEquals(timeNs, reader.packet.timeNs);
  }
});

Deno.test("replay --explain prints columns for people", async () => {
  const { out } = await command(["replay", capture("bulk_v4_timestamps.pcapng"), "--explain"]);
  const lines = out.split("\n");
  assertMatch(lines[0], /^ +frame +time, us +stage +verdict +rule +opened by$/);
  assertMatch(lines[1], /^ +1 +0\.0 +- +left out: not for the guest$/);
  assertMatch(out, /\n +\d+ +\d+\.\d +rsc-v4 +merged +S7\.2 +\d+\n/);
  assertStringIncludes(out, "\n\n" + capture("bulk_v4_timestamps.pcapng"));
});

Deno.test("replay --explain keeps frames in order when many arrive at once, of both families", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/both.pcapng`;
    const writer = CaptureWriter.open(path);
    using four = CaptureReader.open(capture("bulk_v4_plain.pcap"));
    using six = CaptureReader.open(capture("bulk_v6_plain.pcapng"));
    let packets = 0;
    for (const reader of [four, six]) assert(reader.next());
    // Two of one family, two of the other, and so on: what one stage judges lies before and behind the
    // other's.
    while (packets < 400) {
      for (const reader of [four, four, six, six]) {
        assert(writer.writeBytes(reader.packet.toBytes(), 1, packets++ * 1000));
        assert(reader.next());
      }
    }
    await writer.close();
    const { out } = await command(["replay", path, "--explain", "--json", "--pace", "fast"]);
    const lines = out.trim().split("\n").map((line) => JSON.parse(line)).filter(({ event }) =>
      event === "frame"
    );
    assertEquals(lines.map(({ frame }) => frame), Array.from({ length: packets }, (_, i) => i + 1));
    assert(lines.some(({ stage }) => stage === "rsc-v4") && lines.some(({ stage }) => stage === "rsc-v6"));
  });
});

Deno.test("replay --out writes what the guest got, at the times it got it, with the segments in a comment", async () => {
  await withFolder(async (folder) => {
    const target = `${folder}/delivered.pcapng`;
    const source = capture("bulk_v4_timestamps.pcapng");
    const { code, out } = await command(["replay", source, "--out", target]);
    assertEquals(code, 0);
    assertStringIncludes(out, `Wrote ${target}\n`);
    const { output, capture: head } = await summary(source);
    using reader = CaptureReader.open(target);
    let [packets, bytes, largest, lastNs] = [0, 0, 0, 0];
    while (reader.next()) {
      const { length, timeNs } = reader.packet;
      packets++;
      bytes += length;
      largest = Math.max(largest, length);
      assert(timeNs >= lastNs);
      lastNs = timeNs;
    }
    assertEquals([packets, bytes, largest], [output.packets, output.bytes, output.largestBytes]);
    // The first delivery is at the first frame for the guest or later, never before the capture begins.
    assert(reader.startUnixNs >= BigInt(head.startUnixNs));
    assert(reader.startUnixNs < BigInt(head.startUnixNs) + BigInt(head.durationNs));
    const text = new TextDecoder("latin1").decode(await Deno.readFile(target));
    const comments = [
      ...text.matchAll(/(\d+) segments?(?:, gso_size (\d+), RSC_INFO, checksum left to the guest)?/g),
    ];
    assertEquals(comments.length, packets);
    const coalesced = comments.filter(([, , gsoSize]) => gsoSize === "1448").map(([, segments]) =>
      Number(segments)
    );
    assertEquals(coalesced.reduce((sum, segments) => sum + segments, 0), 182);
  });
});

Deno.test("replay refuses to write over its capture, and to write where it cannot", async () => {
  await withFolder(async (folder) => {
    const source = `${folder}/a.pcap`;
    await Deno.copyFile(capture("bulk_v4_plain.pcap"), source);
    await Deno.symlink(source, `${folder}/b.pcap`);
    const before = await Deno.readFile(source);
    for (const target of [source, `${folder}/b.pcap`]) {
      const { code, out, err } = await command(["replay", source, "--out", target]);
      assertEquals([code, out], [1, ""]);
      assertStringIncludes(err, "while reading it; choose another file");
    }
    assertEquals(await Deno.readFile(source), before);
    const nowhere = await command(["replay", source, "--out", `${folder}/no/such.pcapng`]);
    assertEquals([nowhere.code, nowhere.out], [1, ""]);
    assertStringIncludes(nowhere.err, `Cannot write "${folder}/no/such.pcapng"`);
    const full = await command(["replay", source, "--out", "/dev/full"]);
    assertEquals(full.code, 1);
    assertStringIncludes(full.err, 'Cannot write capture "/dev/full"');
    assertStringIncludes(full.out, "Coalescing factor");
    assertFalse(full.out.includes("Wrote"));
  });
});

Deno.test("replay delivers a damaged capture up to the damage, reports, and fails", async () => {
  await withFolder(async (folder) => {
    const whole = await Deno.readFile(capture("bulk_v4_plain.pcap"));
    const path = `${folder}/cut.pcap`;
    await Deno.writeFile(path, whole.subarray(0, 100_000));
    const { code, out, err } = await command(["replay", path, "--json"]);
    assertEquals(code, 1);
    const { failure, input, capture: head, remarks } = JSON.parse(out) as ReplaySummary;
    assertEquals(remarks[0], `The capture ends early, behind packet ${head.packets}: ${failure}.`);
    assertStringIncludes(failure!, "a packet is cut off");
    assertStringIncludes(err, failure!);
    assert(input.frames > 10 && input.frames < head.packets);
    const explained = await command(["replay", path, "--explain", "--json"]);
    assertEquals(explained.code, 1);
    assertEquals(explained.out.trim().split("\n").length, head.packets + 1);
  });
});

Deno.test("replay tells a capture that is cut off, packed or not, from one that is damaged", async () => {
  await withFolder(async (folder) => {
    const whole = await Deno.readFile(capture("bulk_v4_plain.pcap"));
    const stream = new Blob([whole]).stream().pipeThrough(new CompressionStream("gzip"));
    const packed = new Uint8Array(await new Response(stream).arrayBuffer());
    const damaged = whole.slice(0, 100_000);
    // The record in which the piece ends claims more than any may have.
    const view = new DataView(damaged.buffer);
    let last = 24;
    for (let at = 24; at < damaged.length; at += 16 + view.getUint32(at + 8, true)) last = at;
    view.setUint32(last + 8, 0x7000_0000, true);
    for (
      const [bytes, cutOff, first] of [
        [whole.subarray(0, 100_000), 1, /^The capture ends early, behind packet \d+: .*a packet is cut off/],
        [
          whole.subarray(0, last + 7),
          1,
          /^The capture ends early, behind packet \d+: .*header is cut off: 7 of 16/,
        ],
        [packed.subarray(0, packed.length - 30), 1, /^The capture ends early, .*the gzip stream is cut off/],
        [damaged, 0, /^The capture is damaged behind packet \d+, and read no further: .*exceeds 262144/],
      ] as const
    ) {
      await Deno.writeFile(`${folder}/in.pcap`, bytes);
      const { code, out } = await command(["replay", `${folder}/in.pcap`, "--json"]);
      const { leftOut, remarks, input } = JSON.parse(out) as ReplaySummary;
      assertMatch(remarks[0], first);
      assertEquals([code, leftOut.cutOff], [1, cutOff]);
      assert(input.frames > 10);
      const text = await command(["replay", `${folder}/in.pcap`]);
      assertEquals(text.out.includes("1  cut off by the end of the file"), cutOff === 1);
    }
  });
});

Deno.test("replay names what is no capture, an empty one, and one without a station", async () => {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/text.pcap`, "no capture at all");
    await Deno.writeFile(
      `${folder}/empty.pcap`,
      (await Deno.readFile(capture("bulk_v4_plain.pcap"))).subarray(0, 24),
    );
    const text = await command(["replay", `${folder}/text.pcap`]);
    assertEquals([text.code, text.out], [1, ""]);
    assertStringIncludes(text.err, "neither pcap nor pcapng");
    const empty = await command(["replay", `${folder}/empty.pcap`]);
    assertEquals([empty.code, empty.out], [1, ""]);
    assertStringIncludes(empty.err, "Cannot find a guest in");
    assertStringIncludes(empty.err, "name the guest by --guest");
    const named = await summary(`${folder}/empty.pcap`, "--guest", GUEST);
    assertEquals([named.capture.packets, named.input.frames, named.output.packets], [0, 0, 0]);
  });
});

Deno.test("replay reports packets of which the capture has not all bytes", async () => {
  await withFolder(async (folder) => {
    const bytes = await Deno.readFile(capture("bulk_v4_plain.pcap"));
    const view = new DataView(bytes.buffer);
    const little = view.getUint32(0, true) === 0xa1b23c4d;
    // Every packet claims to have been one byte longer on the wire.
    for (let at = 24, n = 0; at < bytes.length; n++) {
      const length = view.getUint32(at + 8, little);
      if (n % 2 === 1) view.setUint32(at + 12, length + 1, little);
      at += 16 + length;
    }
    const path = `${folder}/snapped.pcap`;
    await Deno.writeFile(path, bytes);
    const { leftOut, snappedNumbers, capture: head } = await summary(path);
    assertEquals(leftOut.snapped, Math.floor(head.packets / 2));
    assertEquals(snappedNumbers.slice(0, 3), [2, 4, 6]);
    const { out } = await command(["replay", path]);
    assertStringIncludes(
      out.replace(/\s+/g, " "),
      "not wholly in the capture (number 2, 4, 6, 8, 10, 12, 14, 16 and more)",
    );
    const explained = await command(["replay", path, "--explain"]);
    assertMatch(explained.out, /\n +2 +[\d.]+ +- +left out: snapped\n/);
  });
});

Deno.test("replay takes a file name with every odd character", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/a #b?c%20 'd',é.pcap`;
    await Deno.copyFile(capture("bulk_v4_plain.pcap"), path);
    const { input } = await summary(path);
    assertEquals(input.payloadBytes, 262_144);
  });
});

Deno.test("replay says in its first line that a capture was taken with offloads on, and counts its segments", async () => {
  const path = capture("offloads_v4_timestamps.pcap");
  for (const columns of [50, 80, 120]) {
    const { code, out } = await command(["replay", path], { columns });
    assertEquals(code, 0);
    assertStringIncludes(out.split("\n")[0], "Captured with TSO or GRO and checksum");
    assertMatch(
      out.replace(/\s+/g, " "),
      /on: --undo-offloads undoes it\. To the guest: 9 large frames of 182 segments/,
    );
    assertMatch(out.replace(/\s+/g, " "), /9 frames with data in 9 packets, which held 182 segments already/);
    assert(longestLine(out.slice(0, out.indexOf("\n\n"))).length <= columns);
  }
  const { input, offloads, coalescingFactor } = await summary(path);
  assertEquals(offloads, {
    partialChecksums: 13,
    largeFrames: 9,
    segments: 182,
    longUdpFrames: 0,
    undone: false,
  });
  assertEquals([input.dataFrames, input.dataSegments, coalescingFactor], [9, 182, 1]);
  const { out } = await command(["replay", capture("bulk_v4_timestamps.pcapng")]);
  assertFalse(out.includes("Captured with"));
});

Deno.test("replay --undo-offloads gives of a transfer what it gives of the same transfer without offloads", async () => {
  const path = capture("offloads_v4_timestamps.pcap");
  const undone = await summary(path, "--undo-offloads");
  const without = await summary(capture("bulk_v4_timestamps.pcapng"));
  assertEquals(undone.offloads, {
    partialChecksums: 13,
    largeFrames: 9,
    segments: 182,
    longUdpFrames: 0,
    undone: true,
  });
  assertEquals(undone.input.frames, without.input.frames);
  assertEquals(undone.input.dataSegments, without.input.dataSegments);
  assertEquals(undone.output.payloadBytes, without.output.payloadBytes);
  assertEquals(undone.coalescingFactor, without.coalescingFactor);
  assert(undone.coalescingFactor! > 30);
  assertEquals([undone.dropped, undone.guestErrors, frames(undone, "bad_tcp_checksum")], [{}, [], 0]);
  const { out } = await command(["replay", path, "--undo-offloads"]);
  assertStringIncludes(
    out.split("\n")[0],
    "Captured with TSO or GRO and checksum offload on, which was undone.",
  );
  // It changes nothing where there is nothing to undo.
  const { offloads, ...rest } = await summary(capture("bulk_v4_timestamps.pcapng"), "--undo-offloads");
  assertEquals(offloads, { ...without.offloads, undone: true });
  assertEquals({ ...rest, offloads: without.offloads }, without);
});

Deno.test("replay tells of unfinished UDP frames longer than the MTU, which it leaves whole", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/udp.pcap`;
    const writer = CaptureWriter.open(path);
    for (const checksum of ["partial", "partial", "right"] as const) {
      assert(writer.writeBytes(udp({ payload: 4000, checksum }), 1, 0));
    }
    await writer.close();
    for (const options of [[], ["--undo-offloads"]]) {
      const { offloads, output } = await summary(path, ...options);
      assertEquals([offloads.longUdpFrames, offloads.partialChecksums, output.packets], [2, 2, 3]);
      const { out } = await command(["replay", path, ...options]);
      assertMatch(
        out.replace(/\s+/g, " "),
        /^Captured with checksum offload on.* 2 UDP frames longer than 1,500 bytes and left whole/,
      );
    }
  });
});

Deno.test("replay --undo-offloads loses no byte of any capture, under either rule book", async () => {
  for (const name of ["offloads_v4_timestamps.pcap", "offloads_v6_plain.pcap", "offloads_ask_v4.pcap"]) {
    for (const rules of ["strict", "qemu"]) {
      const { input, output, dropped, guestErrors } = await summary(
        capture(name),
        "--undo-offloads",
        "--rules",
        rules,
      );
      assertEquals(
        [output.payloadBytes, dropped, guestErrors],
        [input.payloadBytes, {}, []],
        `${name}, ${rules}`,
      );
    }
  }
});

Deno.test("replay --undo-offloads goes by the MSS that the guest has announced, though it does not get its own SYN", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/small.pcap`;
    const source = Deno.readFileSync(capture("offloads_v4_timestamps.pcap"));
    // The guest's SYN is the first TCP frame; its MSS option follows the fixed header.
    const at = source.findIndex((_, i) =>
      source[i] === 2 && source[i + 1] === 4 && source[i + 2] === 5 && source[i + 3] === 0xb4
    );
    source.set([548 >> 8, 548 & 255], at + 2);
    Deno.writeFileSync(path, source);
    const { offloads, output, input } = await summary(path, "--undo-offloads");
    // 536 bytes of payload beside a timestamp, and the last of each frame shorter.
    assertEquals(input.dataSegments, offloads.segments);
    assert(offloads.segments >= 262_144 / 536 && offloads.segments <= 262_144 / 536 + 10);
    assertEquals(output.payloadBytes, 262_144);
  });
});
