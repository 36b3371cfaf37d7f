/**
 * Measures guests in turn, kind by kind and round by round, so that the machine's noise meets all of them
 * alike.
 * @module
 */
import { GuestImage } from "../../rigs/guest_image.ts";
import type { QemuProgram } from "../../rigs/qemu_program.ts";
import { GuestPeer, type OurDevice, type Wire } from "./guest_peer.ts";
import { assertWire, datagrams, PING_INTERVAL_MS, pings, roundTrips, transfer } from "./guest_measures.ts";
import { median, percentile } from "./statistics.ts";
import type { SuiteOptions } from "./suite.ts";
import type { WakeProbe } from "./wake_probe.ts";
import type { MemcpyBaseline } from "./memcpy_baseline.ts";

/** A figure that is measured. */
export type Figure =
  | "intoMtu"
  | "intoLarge"
  | "out"
  | "framesPerPacket"
  | "pingUs"
  | "ping99Us"
  | "roundTripUs"
  | "roundTrip99Us"
  | "udpIntoSent"
  | "udpIntoLost"
  | "udpOutSent"
  | "udpOutLost";

/** One value a round, by figure. */
export type Figures = Readonly<Partial<Record<Figure, readonly number[]>>>;

/** Who takes part. */
export interface Entry {
  /** Names its files. */
  readonly id: string;
  /** What it is called. */
  readonly name: string;
  /** Our device, or null for QEMU's own. */
  readonly device: OurDevice | null;
  /** Only what depends on how long coalescing holds segments. */
  readonly intervalOnly?: boolean;
}

/** One kind of measurement. */
interface Kind {
  readonly wire: Wire;
  /** Does it depend on how long coalescing holds segments? */
  readonly byInterval: boolean;
  measure(peer: GuestPeer, quick: boolean): Promise<Partial<Record<Figure, number>>>;
}

const KINDS: readonly Kind[] = [
  {
    wire: "mtu",
    byInterval: true,
    measure: async (peer, quick) => {
      const found = await transfer(peer, "into", transferSeconds(quick));
      assertWire(found, "mtu");
      return { intoMtu: found.megabitsPerSecond, framesPerPacket: found.framesPerPacket };
    },
  },
  {
    wire: "large",
    byInterval: false,
    measure: async (peer, quick) => {
      const found = await transfer(peer, "into", transferSeconds(quick));
      assertWire(found, "large");
      return { intoLarge: found.megabitsPerSecond };
    },
  },
  {
    wire: "large",
    byInterval: false,
    measure: async (peer, quick) => ({
      out: (await transfer(peer, "out", transferSeconds(quick))).megabitsPerSecond,
    }),
  },
  {
    wire: "large",
    byInterval: false,
    measure: async (peer, quick) => {
      const timesUs = await pings(peer, quick ? 50 : 200);
      return { pingUs: median(timesUs), ping99Us: percentile(timesUs, 99) };
    },
  },
  {
    wire: "mtu",
    byInterval: true,
    measure: async (peer, quick) => {
      const timesUs = await roundTrips(peer, quick ? 0.5 : 2);
      return { roundTripUs: median(timesUs), roundTrip99Us: percentile(timesUs, 99) };
    },
  },
  {
    wire: "large",
    byInterval: false,
    measure: async (peer, quick) => {
      const seconds = quick ? 1 : 2;
      const into = await datagrams(peer, "into", seconds);
      const out = await datagrams(peer, "out", seconds);
      return {
        udpIntoSent: into.sent,
        udpIntoLost: into.lost,
        udpOutSent: out.sent,
        udpOutLost: out.lost,
      };
    },
  },
];

/**
 * Starts all, measures all in turn, and ends all. Throws Error if anybody fails. Returns figures in the order
 * of `entries`.
 */
export async function measureGuests(
  entries: readonly Entry[],
  qemu: QemuProgram,
  { quick, runs, progress }: SuiteOptions,
  baseline: MemcpyBaseline,
  wakes: WakeProbe | null,
): Promise<Figures[]> {
  using image = new GuestImage(["iperf3", "perl"]);
  await using owned = new AsyncDisposableStack();
  const guests: GuestPeer[] = [];
  for (const { id, name, device } of entries) {
    progress(`starts the guest of "${name}"`);
    guests.push(owned.use(await GuestPeer.start(image, qemu, id, name, device)));
  }
  const figures = entries.map(() => ({}) as Partial<Record<Figure, number[]>>);
  for (let run = 0; run < runs; run++) {
    await wakes?.sample(PING_INTERVAL_MS);
    for (const { wire, byInterval, measure } of KINDS) {
      baseline.sample();
      for (let turn = 0; turn < guests.length; turn++) {
        // Another one begins in each round: who follows whom makes no difference in the end.
        const index = (turn + run) % guests.length;
        if (entries[index].intervalOnly === true && !byInterval) continue;
        const found = await guests[index].turn(wire, () => measure(guests[index], quick));
        for (const [figure, value] of Object.entries(found) as [Figure, number][]) {
          (figures[index][figure] ??= []).push(value);
        }
        const words = Object.entries(found).map(([figure, value]) => `${figure} ${value.toFixed(1)}`);
        progress(`round ${run + 1} of ${runs}, ${entries[index].name}: ${words.join(", ")}`);
      }
    }
  }
  for (const guest of guests) await guest.end();
  return figures;
}

function transferSeconds(quick: boolean): number {
  return quick ? 1 : 3;
}
