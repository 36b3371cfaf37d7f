import { assertEquals } from "@std/assert";
import type { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { FeatureSet, MachineBench } from "../../../testing/mod.ts";
import { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6 } from "../../../wire/net_features.ts";

function booleans({ csum, tso4, tso6, ecn, uso4, uso6 }: OffloadCapabilities): boolean[] {
  return [csum, tso4, tso6, ecn, uso4, uso6];
}

Deno.test("NetDevice tells its network what the guest takes unfinished: when it changes, when it is gone, when it is back", async () => {
  await using bench = await MachineBench.start();
  const [{ device, parts: { network } }] = bench.machine.devices;
  const told: boolean[][] = [];
  Object.assign(network as FrameTransport, {
    guestCapabilities: (capabilities: OffloadCapabilities) => told.push(booleans(capabilities)),
  });
  bench.guest.setGuestOffloads(FeatureSet.of(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6));
  bench.settle();
  bench.guest.setGuestOffloads(FeatureSet.none);
  bench.settle();
  bench.guest.detach();
  bench.guest.attach(device);
  assertEquals(told.map((all) => all.map(Number).join("")), ["101000", "000000", "000000", "111100"]);
});
