import { assertEquals } from "@std/assert";
import type { FrameTransport, GuestAccepts } from "../../../pipeline/frame_transport.ts";
import { FeatureSet, MachineBench } from "../../../testing/mod.ts";
import { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6 } from "../../../wire/net_features.ts";

function booleans({ checksum, tso4, tso6, ecn, uso }: GuestAccepts): boolean[] {
  return [checksum, tso4, tso6, ecn, uso];
}

Deno.test("NetDevice tells its network what the guest accepts: when it changes, when it is gone, when it is back", async () => {
  await using bench = await MachineBench.start();
  const [{ device, network }] = bench.machine.devices;
  const told: boolean[][] = [];
  Object.assign(network as FrameTransport, {
    guestAccepts: (accepts: GuestAccepts) => told.push(booleans(accepts)),
  });
  bench.guest.setGuestOffloads(FeatureSet.of(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6));
  bench.settle();
  bench.guest.setGuestOffloads(FeatureSet.none);
  bench.settle();
  bench.guest.detach();
  bench.guest.attach(device);
  assertEquals(told.map((all) => all.map(Number).join("")), ["10100", "00000", "00000", "11110"]);
});
