/**
 * A device of your own: a block device (virtio 1.2, section 5.2) whose requests stay in flight, with a slot
 * of a kind of its own: `{ "use": "./async_disk.ts", "driver": …, "disk": "./async_disk_ram.ts" }`. In a
 * project of your own import from `@deno-virtio/deno-virtio/plugin` instead of `../plugin.ts`.
 * @module
 */
import { z } from "zod";
import { defineDevice, type Device, FeatureSet, GuestError, KEEP } from "../plugin.ts";
import { type QueueRequest, QueueService, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "../plugin.ts";

/** What stands in the slot: reads and writes sectors of 512 bytes, sooner or later. */
export interface Disk {
  /** How many sectors it has. */
  readonly sectors: number;
  /** Fills `bytes` from this sector on. */
  read(sector: number, bytes: Uint8Array): Promise<void>;
  /** Writes `bytes` from this sector on. */
  write(sector: number, bytes: Uint8Array): Promise<void>;
}

const [OK, IOERR, UNSUPPORTED] = [0, 1, 2];

export default defineDevice({
  name: "async-disk",
  slots: { disk: { kind: "disk", required: true } },
  worksInThreads: true,
  options: z.strictObject({ queueSize: z.int().min(1).max(1024).default(256) }),
  create({ name, parts, role, publish }, { queueSize }): Device {
    const disk = parts.disk as Disk;
    const counters = publish({ reads: 0, writes: 0, errors: 0, interrupts: 0 });
    const service = new QueueService({
      handlers: [take],
      wake: () => device.wake(),
      maxInFlight: 32,
      counters,
    });
    const device: Device = {
      type: 2,
      name,
      features: FeatureSet.of(VIRTIO_F_VERSION_1, VIRTIO_F_RING_PACKED),
      featureNames: new Map(),
      queueSizes: [queueSize],
      inflight: service,
      ...role === "control" && { workers: { queueSets: [[0]] } },
      wake: () => {},
      readConfig(offset, target) {
        const capacity = new Uint8Array(new BigUint64Array([BigInt(disk.sectors)]).buffer);
        target.forEach((_, i) => target[i] = capacity[offset + i] ?? 0);
      },
      writeConfig() {},
      acceptFeatures() {},
      activate: (session) => service.activate(session),
      queuesChanged: () => service.queuesChanged(),
      reset: () => service.reset(),
      drain: () => service.drain(),
      deadlineNs: () => service.deadlineNs(),
      poll: (nowNs) => service.poll(nowNs),
    };
    /** Header (type, reserved, sector), data, and one byte for the status, which comes last. */
    function take(request: QueueRequest): number {
      const header = new DataView(new ArrayBuffer(16));
      if (request.read(new Uint8Array(header.buffer), 0, 16) < 16 || request.writableBytes < 1) {
        throw new GuestError("buffer-too-small", "A request must have a 16-byte header and a status byte");
      }
      void serve(request, header.getUint32(0, true), Number(header.getBigUint64(8, true)));
      return KEEP;
    }
    async function serve(request: QueueRequest, type: number, sector: number): Promise<void> {
      const bytes = new Uint8Array(type === 0 ? request.writableBytes - 1 : request.readableBytes - 16);
      let status = OK;
      try {
        if (type > 1) status = UNSUPPORTED;
        else if (bytes.length % 512 !== 0 || sector + bytes.length / 512 > disk.sectors) status = IOERR;
        else if (type === 0) await disk.read(sector, bytes);
        else if (request.read(bytes, 0, bytes.length) === bytes.length) await disk.write(sector, bytes);
        counters[type === 0 ? "reads" : "writes"]++;
      } catch {
        status = IOERR;
      }
      if (status !== OK) counters.errors++;
      // After a reset these write nothing: the guest has its memory back.
      const dataBytes = type === 0 ? request.write(bytes, 0, bytes.length) : 0;
      service.complete(request, dataBytes + request.write(Uint8Array.of(status), 0, 1));
    }
    return device;
  },
});
