/** A disk for the slot of `async_disk.ts`: in memory, and late on purpose. @module */
import { z } from "zod";
import { definePart } from "../plugin.ts";
import type { Disk } from "./async_disk.ts";

function ram(sectors: number, delayMs: number): Disk & { giveToWorker(): object } {
  const all = Uint8Array.from({ length: sectors * 512 }, (_, i) => i * 7 + (i >>> 9));
  const later = () => new Promise<void>((resolve) => setTimeout(resolve, delayMs));
  return {
    sectors,
    read: (sector, bytes) =>
      later().then(() => bytes.set(all.subarray(sector * 512, sector * 512 + bytes.length))),
    write: (sector, bytes) => later().then(() => all.set(bytes, sector * 512)),
    giveToWorker: () => ({ sectors, delayMs }),
  };
}

export default definePart({
  kind: "disk",
  name: "ram",
  options: z.strictObject({ sectors: z.int().min(1).default(64), delayMs: z.number().min(0).default(1) }),
  create: (_context, { sectors, delayMs }) => ram(sectors, delayMs),
  createInWorker: (_context, { sectors, delayMs }) => ram(sectors, delayMs),
});
