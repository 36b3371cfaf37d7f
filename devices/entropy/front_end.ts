/**
 * How front-ends of vhost-user are told of an entropy device.
 * @module
 */
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import type { FrontEndWords } from "../../plugins/plugin.ts";

/** The words for an entropy device. Debian's kernel for User-mode Linux has no driver for it. */
export const entropyFrontEnd: FrontEndWords = {
  type: "rng",
  frontEnds: ["qemu"],
  qemu: (_options, { features, chardev }) => {
    const packed = features.has(VIRTIO_F_RING_PACKED) ? ",packed=on" : "";
    return [["-device", `vhost-user-rng-pci,chardev=${chardev}${packed}`]];
  },
};
