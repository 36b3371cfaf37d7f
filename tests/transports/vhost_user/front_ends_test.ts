import { assert, assertEquals } from "@std/assert";
import type { Device } from "../../../core/device.ts";
import { FeatureSet, VIRTIO_F_VERSION_1 } from "../../../core/features.ts";
import type { FeaturePassage as Passage, FrontEndWords } from "../../../plugins/plugin.ts";
import { FRONT_ENDS, frontEndsOf, offerFor, outlooks, PROFILES } from "../../../transports/vhost_user/mod.ts";
import { entropy } from "../../../devices/entropy/mod.ts";
import { net } from "../../../devices/net/mod.ts";
import { featureBit, featureName } from "../../../wire/net_features.ts";
import { newNetRig } from "./support/fake_network.ts";

/**
 * What of an offer reaches the driver through each front-end.
 */

function device(): Device {
  return newNetRig().device;
}

function fates(name: string): (Passage | undefined)[] {
  return outlooks(device(), net.frontEnd, "auto").map(({ features }) => features.get(featureBit(name)!));
}

Deno.test("outlooks() says of every feature that is offered what becomes of it", () => {
  const all = outlooks(device(), net.frontEnd, "auto");
  assertEquals(all.map(({ name }) => name), [...FRONT_ENDS]);
  for (const { name, features } of all) assertEquals([...features.keys()], [...device().features], name);
});

Deno.test("outlooks() knows that all front-ends agree on the plain offloads", () => {
  for (const name of ["CSUM", "GUEST_CSUM", "GUEST_TSO4", "MRG_RXBUF", "VERSION_1"]) {
    if (!device().features.has(featureBit(name)!)) continue;
    assertEquals(new Set(fates(name)), new Set<Passage | undefined>(["agreed"]), name);
  }
});

Deno.test("outlooks() knows who keeps the control queue, and who strips what", () => {
  assertEquals(fates("CTRL_VQ"), ["own", "own", "own", "agreed", "agreed"]);
  assertEquals(fates("EVENT_IDX"), ["agreed", "lost", "agreed", "agreed", "agreed"]);
  assertEquals(fates("INDIRECT_DESC"), ["agreed", "agreed", "newer", "lost", "agreed"]);
});

Deno.test("outlooks() agrees on nothing that the profile does not offer", () => {
  for (const profile of PROFILES) {
    for (const { name, features } of outlooks(device(), net.frontEnd, profile)) {
      const offered = offerFor(device(), profile).features;
      for (const [bit, passage] of features) {
        const reaches = passage === "agreed" || passage === "newer";
        assert(!reaches || offered.has(bit), `${profile} ${name} ${featureName(bit)}`);
      }
    }
  }
});

Deno.test("outlooks() judges the bits of a device type by its own filters, and has it all without", () => {
  const features = FeatureSet.of(6, 23, VIRTIO_F_VERSION_1, 60);
  const sector = { ...device(), net: undefined, features } as Device;
  const told = (words: FrontEndWords) =>
    outlooks(sector, words, "auto").map(({ name, features }) => [name, ...features.values()]);
  assertEquals(told({ type: "block" }), [
    ["qemu", "agreed", "agreed", "agreed", "agreed"],
    ["uml", "agreed", "agreed", "agreed", "agreed"],
  ]);
  assertEquals(told({ type: "block", filters: { qemu: { agreed: [60], own: [6], newer: [32] } } })[0], [
    "qemu",
    "own",
    "lost",
    "agreed",
    "agreed",
  ]);
});

Deno.test("frontEndsOf() expects the front-end of the profile, or all that the device names", () => {
  assertEquals(frontEndsOf(net.frontEnd, "auto"), [
    "qemu",
    "virtio-user",
    "cloud-hypervisor",
    "crosvm",
    "uml",
  ]);
  assertEquals(frontEndsOf(net.frontEnd, "crosvm"), ["crosvm"]);
  assertEquals(frontEndsOf(net.frontEnd, "uml"), ["uml"]);
  assertEquals(frontEndsOf(undefined, "auto"), ["qemu", "uml"]);
  assertEquals(frontEndsOf(net.frontEnd, "sim"), []);
  assertEquals(frontEndsOf(entropy.frontEnd, "auto"), ["qemu"]);
  assertEquals(frontEndsOf(entropy.frontEnd, "crosvm"), []);
});
