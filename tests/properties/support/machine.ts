/**
 * The JSON configuration of a machine choice.
 * @module
 */
import { ACCEPTED, type MachineChoice } from "./scenario.ts";

/** What the guest's driver is told. */
export function guestOptionsOf(choice: MachineChoice): object {
  return {
    ring: choice.ring,
    queueSize: choice.queueSize,
    queuePairs: choice.pairs,
    receiveBufferBytes: choice.bufferBytes,
    receiveBuffers: choice.posted === 0 ? "all" : choice.posted,
    descriptorsPerBuffer: choice.pieces,
    mergeable: choice.mergeable,
    indirect: choice.indirect,
    eventIndex: choice.eventIndex,
    accept: acceptedBy(choice),
    legacy: choice.legacy,
    memoryRegions: choice.regions,
    polling: choice.polling,
  };
}

function acceptedBy({ accepted, pairs }: MachineChoice): string | readonly string[] {
  const names: string | readonly string[] = ACCEPTED[accepted];
  // A device of one pair does not offer MQ, and a guest must not accept what is not offered.
  return typeof names === "string" || pairs > 1 ? names : names.filter((name) => name !== "MQ");
}

/** The whole configuration; `rules` is the device's rule book. */
export function configOf(choice: MachineChoice, rules: "strict" | "qemu" = "strict"): object {
  const rsc = {
    intervalUs: choice.intervalUs,
    maxFlows: choice.maxFlows,
    maxSegments: choice.maxSegments,
    flushOnPush: choice.flushOnPush,
    ...rules === "qemu" ? {} : { flushOnIdle: choice.flushOnIdle },
    timestamps: choice.timestamps,
  };
  const offloads = [{ use: "rsc-v4", ...rsc }, { use: "rsc-v6", ...rsc }];
  return {
    clock: "virtual",
    frameMemoryMiB: choice.memoryMiB,
    devices: [{
      use: "net",
      name: "net0",
      rules,
      queuePairs: choice.pairs,
      queueSize: 4096,
      rss: choice.rss,
      driver: { use: "loopback", ...guestOptionsOf(choice) },
      network: { use: "loopback", queueFrames: 4096 },
      offloads: choice.v6First ? offloads.reverse() : offloads,
    }],
  };
}

/** VIRTIO_NET_CTRL_MQ_RSS_CONFIG: TCP and IP hashes over both families, all pairs in turn. */
export function rssCommand(pairs: number): Uint8Array {
  const data = new DataView(new ArrayBuffer(8 + 2 * 8 + 3 + 40));
  data.setUint32(0, 0x1b, true);
  data.setUint16(4, 7, true);
  for (let i = 0; i < 8; i++) data.setUint16(8 + 2 * i, i % pairs, true);
  data.setUint16(24, pairs, true);
  data.setUint8(26, 40);
  for (let i = 27; i < 67; i++) data.setUint8(i, Math.imul(i, 0x6d) & 0xff);
  return new Uint8Array(data.buffer);
}
