/**
 * What to write at the other end: command lines and XML for front-ends, and what this back-end tells of itself.
 * @module
 */

/** What a front-end has to know of a device. */
export interface FrontEndFacts {
  /** Absolute path of the socket. */
  readonly socket: string;
  /** The back-end's own role: the front-end has the other one. */
  readonly mode: "server" | "client";
  /** The guest's MAC address, such as `52:54:00:00:00:01`. */
  readonly mac: string;
  /** Queue pairs. */
  readonly queuePairs: number;
  /** Most entries of a receive queue. */
  readonly queueSize: number;
  /** Offer the packed layout. */
  readonly packedRing: boolean;
  /** Offer coalesced segments. */
  readonly coalescing: boolean;
  /** The MTU to tell the guest; null for none. */
  readonly mtu: number | null;
  /** The guest's memory in MiB: all of it must be shared. */
  readonly memoryMiB: number;
}

/** Most entries of a queue that QEMU gives a device. */
const MOST_QEMU_ENTRIES = 1024;

/** What a program that follows the back-end conventions prints for `--print-capabilities`: one line of JSON. */
export function capabilities(features: readonly string[]): string {
  return JSON.stringify({ type: "net", features });
}

/** The options for QEMU that concern memory and this device, one after the other, quoted for a shell. */
export function qemuCommandLine(facts: FrontEndFacts): string {
  return qemuArguments(facts).map(quoted).join(" ");
}

/** The same as a list, for programs that start QEMU themselves. */
export function qemuArguments(facts: FrontEndFacts): string[] {
  const role = facts.mode === "server" ? "reconnect=1" : "server=on,wait=off";
  const multiple = facts.queuePairs > 1;
  const device = [
    "virtio-net-pci,netdev=net0",
    `mac=${facts.mac}`,
    `rx_queue_size=${qemuQueueSize(facts.queueSize)}`,
    // Two for each pair, one for the control queue, one for the configuration.
    ...(multiple ? ["mq=on", `vectors=${2 * facts.queuePairs + 2}`] : []),
    ...(facts.packedRing ? ["packed=on"] : []),
    ...(facts.coalescing ? ["guest_rsc_ext=on"] : []),
    ...(facts.mtu === null ? [] : [`host_mtu=${facts.mtu}`]),
  ];
  return [
    "-object",
    `memory-backend-memfd,id=mem0,size=${facts.memoryMiB}M,share=on`,
    "-machine",
    "memory-backend=mem0",
    "-chardev",
    // A comma ends an option's value unless it is doubled.
    `socket,id=char0,path=${facts.socket.replaceAll(",", ",,")},${role}`,
    "-netdev",
    `vhost-user,id=net0,chardev=char0${multiple ? `,queues=${facts.queuePairs}` : ""}`,
    "-device",
    device.join(","),
  ];
}

/** The parts of a libvirt domain that concern memory and this device. */
export function libvirtXml(facts: FrontEndFacts): string {
  const role = facts.mode === "server" ? "client" : "server";
  const driver = [
    facts.queuePairs > 1 ? ` queues='${facts.queuePairs}'` : "",
    ` rx_queue_size='${qemuQueueSize(facts.queueSize)}'`,
    facts.packedRing ? " packed='on'" : "",
  ].join("");
  const source = facts.mode === "server"
    ? `    <source type='unix' path='${escaped(facts.socket)}' mode='${role}'>\n` +
      "      <reconnect enabled='yes' timeout='1'/>\n    </source>"
    : `    <source type='unix' path='${escaped(facts.socket)}' mode='${role}'/>`;
  return [
    "<memoryBacking>",
    "  <source type='memfd'/>",
    "  <access mode='shared'/>",
    "</memoryBacking>",
    "<devices>",
    "  <interface type='vhostuser'>",
    `    <mac address='${escaped(facts.mac)}'/>`,
    source,
    "    <model type='virtio'/>",
    `    <driver${driver}/>`,
    ...(facts.mtu === null ? [] : [`    <mtu size='${facts.mtu}'/>`]),
    "  </interface>",
    "</devices>",
  ].join("\n");
}

function qemuQueueSize(queueSize: number): number {
  return Math.min(MOST_QEMU_ENTRIES, Math.max(256, queueSize));
}

function quoted(argument: string): string {
  return /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("'", "&apos;");
}
