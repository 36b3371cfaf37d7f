/**
 * A software guest on a fake device, the turns they take, and the matrix of ring forms in which everything
 * must work.
 * @module
 */
import { FeatureSet } from "../../../../../core/features.ts";
import {
  type GuestOptionsInput,
  NetGuest,
  type NetGuestHooks,
  type ReceivedPacket,
} from "../../../../../devices/net/driver/mod.ts";
import { FakeNetDevice } from "./fake_net_device.ts";

/** Everything that the fake device can be asked to offer, but the hash report, which changes the header. */
export const OFFERED: FeatureSet = FeatureSet.of(
  ...[0, 1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23],
  ...[28, 29, 32, 34, 54, 55, 56, 59, 61],
);

/** A guest, its device, and what the guest has received. */
export interface Rig {
  readonly guest: NetGuest;
  readonly device: FakeNetDevice;
  readonly packets: ReceivedPacket[];
  /** Takes turns until neither has anything to do; returns the number of turns. */
  run(nowNs?: number): number;
}

/** Makes a guest and a device that are not yet attached. */
export function makeRig(
  options: GuestOptionsInput,
  device: FakeNetDevice = new FakeNetDevice(OFFERED),
  hooks: NetGuestHooks = {},
): Rig {
  const packets: ReceivedPacket[] = [];
  const guest = new NetGuest(options, {
    ...hooks,
    onPacket(packet) {
      packets.push(packet);
      hooks.onPacket?.(packet);
    },
  });
  return {
    guest,
    device,
    packets,
    run(nowNs = 0) {
      for (let turn = 1; turn < 10_000; turn++) {
        const device = guest.session.poll(nowNs);
        const worked = guest.poll(nowNs);
        if (!device && !worked) return turn;
      }
      throw new Error("guest and device do not come to rest");
    },
  };
}

/** A frame of `length` bytes that is different for every seed. */
export function frameOf(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(length);
  for (let i = 0; i < length; i++) frame[i] = (i * 7 + seed * 31 + (i >>> 8)) & 0xff;
  return frame;
}

/** One cell of the matrix: a name for the test, and the options. */
export interface Cell {
  readonly name: string;
  readonly options: GuestOptionsInput;
}

/** Both layouts, each way of using indirect tables, event index on and off, mergeable buffers on and off. */
export function matrix(): Cell[] {
  const cells: Cell[] = [];
  for (const ring of ["split", "packed"] as const) {
    for (const indirect of [false, true, "always"] as const) {
      for (const eventIndex of [false, true]) {
        for (const mergeable of [false, true]) {
          const name = `${ring}, indirect ${indirect}, event index ${eventIndex}, mergeable ${mergeable}`;
          cells.push({ name, options: { ring, indirect, eventIndex, mergeable } });
        }
      }
    }
  }
  return cells;
}
