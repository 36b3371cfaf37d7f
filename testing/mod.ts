/**
 * The test kit: what plugin authors test with, and what this project is tested with itself.
 *
 * A test of a stage takes a bench, feeds it packets, moves the time, and looks at what came out:
 *
 * ```ts ignore
 * import { StageBench, tcp } from "@deno-virtio/deno-virtio/testing";
 * import { assertEquals } from "@std/assert";
 * import dropEvery from "./drop_every.ts";
 *
 * Deno.test("drop-every drops every third frame and counts it", () => {
 *   using bench = new StageBench({ plugin: dropEvery, options: { nth: 3 } });
 *   for (let i = 0; i < 7; i++) bench.feed(tcp({ id: i }));
 *   assertEquals(bench.out.map(({ number }) => number), [1, 2, 4, 5, 7]);
 *   assertEquals(bench.counters["drop-every"].dropped, 2);
 * });
 * ```
 *
 * At the end of the block the bench drains the stage and asserts that every frame is back in the pool.
 *
 * - Packets: {@linkcode tcp}, {@linkcode udp}, {@linkcode arp}, {@linkcode ethernet}, {@linkcode TcpStream}.
 *   Everything in them can be set, also to what is wrong.
 * - Reading them back: {@linkcode parseTcp}, and {@linkcode assertTcp} with matchers that read as sentences.
 * - Benches: {@linkcode StageBench} for stages, {@linkcode DeviceBench} for a device of any type, {@linkcode
 *   TransportBench} for a network, {@linkcode MachineBench} for a whole network device with a guest and a
 *   cable.
 * - Explanations: {@linkcode VerdictList}. Ownership: {@linkcode assertPoolWhole}.
 *
 * @module
 */
export { macBytes, macText } from "./packets.ts";
export {
  assertPoolWhole,
  bytesOf,
  type Delivered,
  type FrameFacts,
  type FrameSource,
  type HeaderFields,
  headerFields,
} from "./matchers.ts";
export {
  arp,
  type ArpFields,
  ethernet,
  type EthernetFields,
  GUEST_MAC,
  type LinkFields,
  PEER_MAC,
  type VlanTag,
} from "./packets.ts";
export { internetChecksum, internetSum, pseudoHeaderSum } from "./packets.ts";
export type { IpFields } from "./packets.ts";
export type { BenchPart } from "./bench_parts.ts";
export { DeviceBench, type DeviceBenchSettings } from "./device_bench.ts";
export { TransportBench, type TransportBenchSettings } from "./transport_bench.ts";
export { MachineBench, type MachineBenchSettings } from "./machine_bench.ts";
export type { RuleBook } from "../pipeline/qemu_compat.ts";
export {
  assertTcp,
  hasAck,
  hasFlags,
  hasIpLength,
  hasPartialChecksum,
  hasPayload,
  hasRightChecksums,
  hasSeq,
  hasWindow,
  type TcpMatcher,
} from "./matchers.ts";
export { type ParsedTcp, parseTcp } from "./parse_tcp.ts";
export {
  BENCH_FEATURES,
  type BenchPlugin,
  type BenchStage,
  StageBench,
  type StageBenchSettings,
} from "./stage_bench.ts";
export {
  streamByte,
  streamBytes,
  tcp,
  TCP_FLAGS,
  type TcpFields,
  type TcpFlag,
  type TransportFields,
  udp,
} from "./packets.ts";
export { TcpStream } from "./packets.ts";
export { type Verdict, VerdictList } from "./matchers.ts";
export { type NetHeaderFields } from "../wire/virtio_net_header.ts";
export { ManualClock } from "../core/clock.ts";
export { FeatureSet } from "../core/features.ts";
export { FramePool } from "../pipeline/frame_pool.ts";
export {
  type CableEnd,
  CablePort,
  type CablePortCounters,
  type CablePortSettings,
  type CableTap,
  LoopbackCable,
} from "../transports/loopback.ts";
export {
  BufferList,
  type DriverRing,
  type GuestCounters,
  type GuestHooks,
  type GuestRequest,
  type RequestCounters,
  RequestGuest,
  type RequestHooks,
  SoftwareGuest,
  type SoftwareGuestOptions,
  type SoftwareGuestOptionsInput,
} from "../guest/mod.ts";
export {
  type ControlCommand,
  type GuestOptionsInput,
  NetControl,
  NetGuest,
  type NetGuestCounters,
  type NetGuestHooks,
  type PacketHash,
  ReceivedPacket,
  type ReceiveMode,
} from "../devices/net/driver/mod.ts";
