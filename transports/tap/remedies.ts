/**
 * What to do when a TAP cannot be opened, by name of the error.
 * @module
 */

/** Opening the file from which queues are made. */
export const TUN_FILE: Readonly<Record<string, string>> = {
  ENOENT:
    'load the kernel module ("modprobe tun"); in a container, pass the device in ("--device /dev/net/tun")',
  ENODEV: 'load the kernel module ("modprobe tun")',
  ENXIO: 'load the kernel module ("modprobe tun")',
  EACCES: "run as root, or give this user access to the file",
  EPERM: "in a container, allow the device (cgroup rule for character device 10:200)",
};

/** Making or changing an interface. */
export const HOST_RIGHTS: Readonly<Record<string, string>> = {
  EPERM: "this needs CAP_NET_ADMIN: run as root, or prepare the interface for this user " +
    '("ip tuntap add dev NAME mode tap user USER vnet_hdr", "ip link set NAME up")',
};

/** Attaching another queue. */
export const IN_USE: Readonly<Record<string, string>> = {
  EBUSY: "another program uses it: stop that program, or use another interface",
  E2BIG: "it has as many queues as it can have; use fewer queue pairs",
};

/** There is an interface of this name, but not one that can be attached to in this way. */
export const NOT_A_TAP = {
  /** With one queue. */
  single:
    'there is one of this name which is no TAP, or one with several queues: write "multiQueue": true for those',
  /** With several queues. */
  several:
    'there is one of this name which is no TAP, or one with a single queue: make it with multi_queue, or write "multiQueue": false',
} as const;
