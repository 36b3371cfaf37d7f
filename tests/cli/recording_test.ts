/**
 * Recordings are on disk while they are made, and no file decides the fate of a machine.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";

const LATEST_MS = 1000;

/** A guest that sends 100 frames a second; the second device of the cable is there to get them. */
async function hundredASecond(folder: string, network: unknown): Promise<string> {
  const path = `${folder}/config.json`;
  const send = { count: 0, frameBytes: 100, intervalUs: 10_000, destination: "52:54:00:00:00:02" };
  const driver = { use: "loopback", behaviour: { send } };
  const devices = [
    { use: "net", name: "one", mac: "52:54:00:00:00:01", driver, network },
    { use: "net", name: "two", mac: "52:54:00:00:00:02", driver: "loopback", network: "loopback" },
  ];
  await Deno.writeTextFile(path, JSON.stringify({ devices }));
  return path;
}

/** The packets of a capture that may end anywhere. */
function packetsIn(path: string): number {
  using reader = CaptureReader.open(path);
  let packets = 0;
  while (reader.next()) packets++;
  return packets;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const RECORDERS: Record<string, unknown> = {
  "a recorder": { use: "pcap", write: "out.pcapng", inner: "loopback" },
  "a network that is written": { use: "pcap", write: "out.pcap" },
};

for (const [name, network] of Object.entries(RECORDERS)) {
  Deno.test(`${name} has its header on disk at once, and a second later its packets, also after SIGKILL`, async () => {
    await withFolder(async (folder) => {
      const file = `${folder}/${(network as { write: string }).write}`;
      const config = await hundredASecond(folder, network);
      const child = new CommandProcess(["--allow-read", `--allow-write=${folder}`], ["run", config]);
      await child.lineWith("Running machine");
      // The header, long before there is a second's worth of packets.
      for (let i = 0; i < 20 && Deno.statSync(file).size === 0; i++) await sleep(10);
      assert(Deno.statSync(file).size >= 24);
      await sleep(2 * LATEST_MS);
      child.signal("SIGKILL");
      await child.end();
      const packets = packetsIn(file);
      // A busy host delays guest and file alike.
      assert(packets >= 50, `${packets} packets`);
    });
  });
}

Deno.test("a full disk is told, counted, and stops no device", async () => {
  await withFolder(async (folder) => {
    const config = await hundredASecond(folder, { use: "pcap", write: "/dev/full", inner: "loopback" });
    const child = new CommandProcess(["--allow-all"], ["run", config]);
    await child.lineWith("Running machine");
    await sleep(1000);
    child.signal("SIGTERM");
    const { code, rest, err } = await child.end();
    const text = rest.join("\n");
    const counted = (name: string) => new RegExp(`${name} +([\\d,]+)`).exec(text)?.[1];
    // The guest went on, and the end says that the file is not what it should be.
    assertEquals(code, 1);
    assertEquals(counted("received"), counted("sent"));
    assertEquals(counted("writeDropped"), counted("sent"));
    assertMatch(
      err,
      / one: cannot write "\/dev\/full": No space left on device.*; it is tried again every second/,
    );
    assertStringIncludes(err, 'error: Cannot write capture "/dev/full": No space left on device');
  });
});

Deno.test("run ends cleanly at SIGHUP: files are complete, exit code 0", async () => {
  await withFolder(async (folder) => {
    const config = await hundredASecond(folder, RECORDERS["a recorder"]);
    const child = new CommandProcess(["--allow-read", `--allow-write=${folder}`], ["run", config]);
    await child.lineWith("Running machine");
    await sleep(300);
    child.signal("SIGHUP");
    const { code, rest } = await child.end();
    const text = rest.join("\n");
    assertEquals(code, 0, text);
    const sent = Number(/one\.driver\n +sent +([\d,]+)/.exec(text)![1].replaceAll(",", ""));
    assertEquals(packetsIn(`${folder}/out.pcapng`), sent);
  });
});
