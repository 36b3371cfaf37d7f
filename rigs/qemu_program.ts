/**
 * The QEMUs that guests of tests run in: that of Debian, and a newer one from its backports, unpacked by
 * `.ci/install`.
 * @module
 */
import type { Need } from "./require.ts";

/** A QEMU that can be started. */
export interface QemuProgram {
  /** What to call it in names of tests. */
  readonly name: string;
  /** Program and arguments that say where its files are. */
  readonly command: readonly string[];
  /** Variables that it needs. */
  readonly env: Readonly<Record<string, string>>;
  /** Can a vhost-user device have MSI-X without KVM? QEMU 7.2 crashes when the guest starts it. */
  readonly takesMsix: boolean;
}

const UNPACKED = "/var/cache/deno-virtio/qemu";

/** Debian 12's own. */
export const QEMU_7: QemuProgram = {
  name: "QEMU 7.2",
  command: ["qemu-system-x86_64"],
  env: {},
  takesMsix: false,
};

/** The one of Debian 12's backports. */
export const QEMU_10: QemuProgram = {
  name: "QEMU 10",
  command: [
    `${UNPACKED}/usr/bin/qemu-system-x86_64`,
    "-L",
    `${UNPACKED}/usr/share/qemu`,
    "-L",
    `${UNPACKED}/usr/share/seabios`,
  ],
  env: { QEMU_MODULE_DIR: `${UNPACKED}/usr/lib/x86_64-linux-gnu/qemu` },
  takesMsix: true,
};

/** Has QEMU 10 been unpacked? */
export const qemu10: Need = () => {
  try {
    Deno.statSync(QEMU_10.command[0]);
    return null;
  } catch {
    return "QEMU 10 is missing: run .ci/install";
  }
};
