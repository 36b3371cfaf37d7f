/**
 * What is measured of a guest and its device, each with a program that knows nothing of either.
 * @module
 */
import { OURS } from "../../rigs/kernel.ts";
import { ECHO_PORT, type GuestPeer } from "./guest_peer.ts";

/** Seconds at the start of a transfer that do not count: windows grow, code is compiled. */
const WARM_S = 1;
/**
 * What a client is told while the server has not done with the one before: for a moment it does not even
 * listen.
 */
const NOT_YET = /Connection refused|server is busy/;
/** How often a client asks for the server, and how long it waits in between. */
const SERVER_TRIES = 20;
const SERVER_PAUSE_MS = 250;
const UDP_PER_SECOND = 10_000;
const UDP_BYTES = 64;
/** From one ping to the next, in ms. */
export const PING_INTERVAL_MS = 10;
/** No MTU-sized frame is longer: 1500 bytes and the Ethernet header. */
const MTU_FRAME_BYTES = 1514;

/** A transfer by TCP. */
export interface Transfer {
  /** What arrived, in Mb/s. */
  readonly megabitsPerSecond: number;
  /** Frames from the host for each packet that the guest's driver received. */
  readonly framesPerPacket: number;
  /** Mean bytes of a frame from the host. */
  readonly frameBytes: number;
}

/** Sends by TCP as fast as it goes. @param way into the guest or out of it; @param seconds how long */
export async function transfer(
  peer: GuestPeer,
  way: "into" | "out",
  seconds: number,
): Promise<Transfer> {
  const before = await peer.traffic();
  const { sum_received } = await iperf3(peer, seconds + WARM_S, [
    "-t",
    `${seconds}`,
    "-O",
    `${WARM_S}`,
    ...way === "out" ? ["-R"] : [],
  ]);
  const after = await peer.traffic();
  const frames = after.frames - before.frames;
  return {
    megabitsPerSecond: sum_received.bits_per_second / 1e6,
    framesPerPacket: frames / (after.guestPackets - before.guestPackets),
    frameBytes: (after.bytes - before.bytes) / frames,
  };
}

/** Throws Error unless frames into the guest were of the size that was to be measured. */
export function assertWire({ frameBytes }: Transfer, wire: "mtu" | "large"): void {
  const isLarge = frameBytes > 2 * MTU_FRAME_BYTES;
  if (isLarge !== (wire === "large") || (!isLarge && frameBytes > MTU_FRAME_BYTES)) {
    throw new Error(`Frames to the guest had ${frameBytes.toFixed(0)} bytes, which is not "${wire}"`);
  }
}

/** Datagrams sent and lost. */
export interface Datagrams {
  /** How many were sent. */
  readonly sent: number;
  /** How many of them did not arrive. */
  readonly lost: number;
}

/** Sends datagrams of 64 bytes, 10,000 a second. */
export async function datagrams(
  peer: GuestPeer,
  way: "into" | "out",
  seconds: number,
): Promise<Datagrams> {
  const { sum } = await iperf3(peer, seconds, [
    "-t",
    `${seconds}`,
    "-u",
    "-l",
    `${UDP_BYTES}`,
    "-b",
    `${UDP_PER_SECOND * UDP_BYTES * 8}`,
    ...way === "out" ? ["-R"] : [],
  ]);
  return { sent: sum.packets, lost: sum.lost_packets };
}

/** Pings the guest every 10 ms. Returns the times in µs. Throws Error if one is lost. */
export async function pings(peer: GuestPeer, count: number): Promise<number[]> {
  const limitMs = 20_000 + count * PING_INTERVAL_MS;
  const text = await peer.onHost(
    limitMs,
    "busybox",
    "ping",
    "-c",
    `${count}`,
    "-i",
    `${PING_INTERVAL_MS / 1000}`,
    OURS,
  );
  const timesUs = Array.from(text.matchAll(/ time=([\d.]+) ms/g), ([, ms]) => Number(ms) * 1000);
  if (timesUs.length !== count) throw new Error(`${peer.name} lost pings: ${text.slice(-200)}`);
  return timesUs;
}

/**
 * Sends 64 bytes by TCP, waits until the guest has sent them back, and begins anew. Returns the times in µs.
 * It waits in the kernel, as nothing else in a program adds so little to what it measures.
 */
export async function roundTrips(peer: GuestPeer, seconds: number): Promise<number[]> {
  const limitMs = 20_000 + seconds * 1000;
  const program = "use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);" +
    `socket S,2,1,0; connect S,pack("SnC4x8",2,${ECHO_PORT},${OURS.replaceAll(".", ",")}) or die $!;` +
    'setsockopt S,6,1,pack("l",1); $d="x"x64; $start=clock_gettime(CLOCK_MONOTONIC);' +
    `do { $from=clock_gettime(CLOCK_MONOTONIC); syswrite S,$d; $n=0;` +
    '  while($n<64){ $got=sysread S,$b,64-$n or die "cut off"; $n+=$got }' +
    "  $to=clock_gettime(CLOCK_MONOTONIC); push @us,sprintf('%.1f',($to-$from)*1e6)" +
    ` } while($to<$start+${seconds}); print "@us"`;
  const timesUs = (await peer.onHost(limitMs, "perl", "-e", program)).split(" ").map(Number);
  // The first ones meet cold caches and a fresh connection.
  return timesUs.slice(Math.min(50, timesUs.length >> 1));
}

interface IperfEnd {
  readonly sum: { readonly packets: number; readonly lost_packets: number };
  readonly sum_received: { readonly bits_per_second: number };
}

/** Runs iperf3 on the host against the guest. Throws Error with what it says of a failure. */
async function iperf3(peer: GuestPeer, seconds: number, args: string[]): Promise<IperfEnd> {
  const limitMs = 30_000 + seconds * 1000;
  for (let tries = 1;; tries++) {
    const text = await peer.onHost(limitMs, "iperf3", "-J", "-c", OURS, ...args).catch(String);
    const result = parsed(text);
    if (result?.end?.sum !== undefined || result?.end?.sum_received !== undefined) return result.end;
    if (!NOT_YET.test(text) || tries === SERVER_TRIES) {
      throw new Error(`${peer.name}: iperf3 ${args.join(" ")}: ${result?.error ?? text}`);
    }
    await new Promise((resolve) => setTimeout(resolve, SERVER_PAUSE_MS));
  }
}

function parsed(text: string): { end?: IperfEnd; error?: string } | null {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
