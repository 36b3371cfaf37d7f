import { assert, assertEquals } from "@std/assert";
import type { Device } from "../../../core/device.ts";
import {
  FRONT_ENDS,
  frontEndsOf,
  offerFor,
  type Passage,
  passagesTo,
  PROFILES,
} from "../../../transports/vhost_user/mod.ts";
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
  return FRONT_ENDS.map((frontEnd) => passagesTo(frontEnd, device(), "auto").get(featureBit(name)!));
}

Deno.test("passagesTo() says of every feature that is offered what becomes of it", () => {
  for (const frontEnd of FRONT_ENDS) {
    const passages = passagesTo(frontEnd, device(), "auto");
    assertEquals([...passages.keys()], [...device().features], frontEnd);
  }
});

Deno.test("passagesTo() knows that all front-ends agree on the plain offloads", () => {
  for (const name of ["CSUM", "GUEST_CSUM", "GUEST_TSO4", "MRG_RXBUF", "VERSION_1"]) {
    if (!device().features.has(featureBit(name)!)) continue;
    assertEquals(new Set(fates(name)), new Set<Passage | undefined>(["agreed"]), name);
  }
});

Deno.test("passagesTo() knows who keeps the control queue, and who strips what", () => {
  assertEquals(fates("CTRL_VQ"), ["own", "own", "own", "agreed", "agreed"]);
  assertEquals(fates("EVENT_IDX"), ["agreed", "lost", "agreed", "agreed", "agreed"]);
  assertEquals(fates("INDIRECT_DESC"), ["agreed", "agreed", "newer", "lost", "agreed"]);
});

Deno.test("passagesTo() agrees on nothing that the profile does not offer", () => {
  for (const profile of PROFILES) {
    for (const frontEnd of frontEndsOf(net.frontEnd, profile)) {
      const offered = offerFor(device(), profile).features;
      for (const [bit, passage] of passagesTo(frontEnd, device(), profile)) {
        const reaches = passage === "agreed" || passage === "newer";
        assert(!reaches || offered.has(bit), `${profile} ${frontEnd} ${featureName(bit)}`);
      }
    }
  }
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
