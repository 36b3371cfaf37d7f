/**
 * Tables of what was measured of guests. QEMU's own device is the first of all entries, and what we are
 * compared with.
 * @module
 */
import type { Entry, Figure, Figures } from "./guest_rounds.ts";
import { median } from "./statistics.ts";
import { ratioRow, type Row, type Table } from "./suite.ts";
import type { WakeProbe } from "./wake_probe.ts";

/** All tables. @param figures those of `entries`, in their order */
export function guestTables(
  entries: readonly Entry[],
  figures: readonly Figures[],
  wakes: WakeProbe | null,
): Table[] {
  const all = entries.map((entry, index) => ({ entry, figures: figures[index] }));
  const main = all.filter(({ entry }) => entry.intervalOnly !== true);
  const rows = (...wanted: Figure[]) =>
    main.map(({ entry, figures }) => ({
      name: entry.name,
      values: wanted.map((name) => middle(figures, name)),
    }));
  const tcp = rows("intoMtu", "intoLarge", "out");
  const ping = rows("pingUs", "ping99Us");
  return [
    {
      id: "tcp",
      title: "TCP between host and guest; more is better",
      unit: "Mb/s",
      across: "direction",
      columns: ["into, MTU frames", "into, large frames", "out"],
      rows: [...tcp, ...tcp.slice(1).map((row) => ratioRow(`${row.name} / ${tcp[0].name}`, row, tcp[0]))],
    },
    {
      id: "coalescing",
      title: "Frames from the host for each packet that the guest receives, by TCP into the guest",
      unit: "frames",
      across: "direction",
      columns: ["into, MTU frames"],
      rows: rows("framesPerPacket"),
    },
    {
      id: "ping",
      title: "Ping from the host, every 10 ms; less is better",
      unit: "µs",
      across: "percentile",
      columns: ["50", "99"],
      rows: [
        ...ping,
        ...ping.slice(1).map((row) => differenceRow(row, ping[0])),
        ...wakes === null ? [] : [{ name: "a wake of another processor, in C", values: wakes.wakeUs }],
      ],
    },
    {
      id: "udp",
      title: "Datagrams of 64 bytes, 10,000 a second, of all rounds",
      unit: "datagrams",
      across: "direction and fate",
      columns: ["into, sent", "into, lost", "out, sent", "out, lost"],
      rows: main.map(({ entry, figures }) => ({
        name: entry.name,
        values: (["udpIntoSent", "udpIntoLost", "udpOutSent", "udpOutLost"] as const)
          .map((name) => sum(figures, name)),
      })),
    },
    intervals(all.filter(isUsual)),
    latency(all.filter(isUsual)),
  ];
}

/** One who took part, and what was measured of it. */
interface Measured {
  readonly entry: Entry;
  readonly figures: Figures;
}

/** Is it QEMU's own, or ours in the main thread that sleeps? */
function isUsual({ entry: { device } }: Measured): boolean {
  return device?.mode !== "threads" && device?.pollMaxUs === undefined;
}

/** What holding adds to the way there and back, by interval, beside devices that hold nothing. */
function latency(all: readonly Measured[]): Table {
  const held = all.filter(({ entry }) => entry.device?.flushOnIdle === false)
    .toSorted((a, b) => a.entry.device!.intervalUs! - b.entry.device!.intervalUs!);
  const row = (name: string, figure: Figure): Row => ({
    name,
    values: held.map(({ figures }) => middle(figures, figure)),
  });
  const level = (name: string, is: (entry: Entry) => boolean): Row => {
    const found = all.find(({ entry }) => is(entry));
    return {
      name,
      values: held.map(() => found === undefined ? null : middle(found.figures, "roundTripUs")),
    };
  };
  return {
    id: "latency",
    title: "There and back by TCP, 64 bytes, by how long segments are held",
    unit: "µs",
    across: "interval in µs",
    columns: held.map(({ entry }) => String(entry.device!.intervalUs)),
    rows: [
      row("held, 99 of 100", "roundTrip99Us"),
      row("held, median", "roundTripUs"),
      level(
        "flushed on idle, median",
        ({ device }) => typeof device?.intervalUs === "number" && device.flushOnIdle !== false,
      ),
      level("not held, median", ({ device }) => device?.intervalUs === null),
      level("QEMU's own, median", ({ device }) => device === null),
    ],
    isPlotted: true,
  };
}

/** What it costs and what it brings to hold segments longer. */
function intervals(all: readonly Measured[]): Table {
  const interval = ({ device }: Entry) => device?.intervalUs ?? (device === null ? -1 : 0);
  const sorted = all.toSorted((a, b) => interval(a.entry) - interval(b.entry));
  const row = (name: string, figure: Figure, unit: string): Row => ({
    name,
    unit,
    values: sorted.map(({ figures }) => middle(figures, figure)),
  });
  return {
    id: "interval",
    title: "By interval of coalescing: 64 bytes to the guest and back by TCP, and TCP into the guest",
    unit: "µs",
    across: "interval",
    columns: sorted.map(({ entry: { name, device } }) =>
      device === null
        ? name
        : device.intervalUs === null
        ? "off"
        : `${device.intervalUs} µs${device.flushOnIdle === false ? "" : " or idle"}`
    ),
    rows: [
      row("there and back, median", "roundTripUs", "µs"),
      row("there and back, 99 of 100", "roundTrip99Us", "µs"),
      row("into, MTU frames", "intoMtu", "Mb/s"),
      row("frames for each packet", "framesPerPacket", "frames"),
    ],
  };
}

function differenceRow(ours: Row, theirs: Row): Row {
  const values = ours.values.map((value, column) => {
    const other = theirs.values[column];
    return value === null || other === null ? null : value - other;
  });
  return { name: `${ours.name} − ${theirs.name}`, values };
}

function middle(figures: Figures, name: Figure): number | null {
  const values = figures[name];
  return values === undefined ? null : median(values);
}

function sum(figures: Figures, name: Figure): number {
  return (figures[name] ?? []).reduce((total, value) => total + value, 0);
}
