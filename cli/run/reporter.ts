/**
 * Tells what a running machine does: JSON lines for programs, text for people, and a line that is drawn over
 * on a terminal. Its counters are read while it runs, and signals and errors that nothing catches reach it
 * from outside of the reactor.
 * @module
 */
import type { ResolvedConfig } from "../../config/types.ts";
import { partsOfKind } from "../../plugins/plugin.ts";
import type { DeviceEvent } from "../../core/device.ts";
import type { Machine } from "../../machine/machine.ts";
import {
  count,
  duration,
  type Io,
  type Live,
  numberTable,
  OutputClosed,
  styleFor,
  wrap,
} from "../console/io.ts";
import type { Attachment } from "./attach.ts";
import { EventLog, wallClock } from "./event_log.ts";

/** How often the progress line is drawn, in ms. */
const PROGRESS_MS = 250;
const EXIT_INTERRUPTED = 130;
/** A signal so soon after the first is the same one: `timeout` tells its child, and then the whole group. */
const SAME_MS = 500;
const CLEAR_LINE = "\r\x1b[K";

/**
 * Why a run ended: every network is at its end and nothing is held, a signal asked for it, or something
 * failed.
 */
export type RunEnd = "end" | "signal" | "failure";

const END_TEXTS: Readonly<Record<RunEnd, string>> = {
  end: "nothing is left to do",
  signal: "as asked",
  failure: "something failed",
};

/** Reports a run. */
export class RunReporter {
  readonly #view: CounterView;
  readonly #io: Io;
  readonly #json: boolean;
  readonly #live: Live | null;
  readonly #events: EventLog;
  readonly #lostTraceLines: () => number;
  #progress = false;
  #last: DeviceMoves[] = [];
  #lastMs = performance.now();

  /**
   * @param view the counters; @param io where to print; @param json JSON lines instead of text
   * @param lostTraceLines how many lines the trace of the protocol has lost
   */
  constructor(view: CounterView, io: Io, json: boolean, lostTraceLines: () => number) {
    this.#lostTraceLines = lostTraceLines;
    this.#view = view;
    this.#io = io;
    this.#json = json;
    this.#live =
      io.goLive?.((lines) => json ? this.#line("lost", { lines }) : `${lines} lines are missing here\n`) ??
        null;
    this.#events = new EventLog({
      text: json ? null : (line) => {
        this.#clearProgress();
        io.err(line);
      },
      json: (event, facts) => this.#event(event, { time: wallClock(), ...facts }),
      featureNames: (device) => view.featureNames(device),
      isJournal: io.isJournal === true,
    });
  }

  /** Something has happened to a device. */
  event(device: string, event: DeviceEvent): void {
    this.#events.note(device, event);
  }

  /**
   * The machine runs.
   * @param attach what to type at the other end, for people as XML if `libvirt`; null for nothing
   */
  started(config: ResolvedConfig, attach: Attachment | null, libvirt: boolean): void {
    const devices = config.devices.map((device) => {
      const { name, plugin, driver } = device;
      return {
        name,
        use: plugin.name,
        driver: driver.plugin.name,
        network: partsOfKind(device, "network")[0]?.plugin.name ?? null,
        offloads: partsOfKind(device, "offload").map((offload) => offload.plugin.name),
      };
    });
    if (this.#json) {
      const { qemu, libvirt: xml, uml } = attach ?? {};
      const other = attach === null ? {} : { attach: { qemu, libvirt: xml, uml } };
      return this.#event("started", { name: config.name, clock: config.clock, devices, ...other });
    }
    const parts = devices.map(({ name, driver, network, offloads }) => {
      const ends = [`guest by ${driver}`, ...offloads, `network by ${network ?? "none"}`].join(" - ");
      return `${name} (${ends})`;
    });
    this.#print(wrap(`Running ${config.name}: ${parts.join(", ")}`, this.#io.columns).join("\n") + "\n");
    if (attach === null) return;
    const { bold, cyan } = styleFor(this.#io);
    const ways: [title: string, text: string | null][] = libvirt
      ? [["The domain of libvirt needs", attach.libvirt]]
      : [
        ["QEMU attaches by this, with a disk for the guest added", attach.qemuText],
        ["User-mode Linux attaches by this, with a file system for the guest added", attach.umlText],
      ];
    for (const [title, text] of ways) {
      if (text !== null) this.#print(`${bold(title)}\n${cyan(text.replace(/^/gm, "  "))}\n`);
    }
  }

  /** Asks for all counters. */
  counters(): void {
    this.#event("counters", { counters: this.#counters() });
  }

  /** A signal asks to stop. */
  stopping(signal: string): void {
    if (!this.#json) this.#print(`${signal}: stopping\n`);
  }

  /** The machine has stopped. */
  stopped(reason: RunEnd): void {
    this.#events[Symbol.dispose]();
    const counters = this.#counters();
    if (this.#json) return this.#event("stopped", { reason, counters });
    const { bold } = styleFor(this.#io);
    const time = duration(this.#view.nowNs);
    this.#print(`${bold("Stopped")} after ${time}, ${END_TEXTS[reason]}\n${countersText(counters)}`);
  }

  /**
   * Reports every `intervalS` seconds, if that is given, and draws progress on a terminal, until disposed of.
   */
  every(intervalS: number | undefined): Disposable {
    const timers: ReturnType<typeof setInterval>[] = [];
    if (intervalS !== undefined) timers.push(setInterval(() => this.#tick(), intervalS * 1000));
    if (this.#io.isTerminal && !this.#json) {
      timers.push(setInterval(() => this.#drawProgress(), PROGRESS_MS));
    }
    return {
      [Symbol.dispose]: () => {
        timers.forEach(clearInterval);
        this.#clearProgress();
      },
    };
  }

  #tick(): void {
    if (this.#json) return this.counters();
    const moves = this.#view.moves();
    const nowMs = performance.now();
    const seconds = (nowMs - this.#lastMs) / 1000;
    for (const [i, { name, toGuest, fromGuest }] of moves.entries()) {
      const before = this.#last[i];
      const to = rate(toGuest, before?.toGuest, seconds);
      this.#print(`${name}  to guest ${to}, from guest ${rate(fromGuest, before?.fromGuest, seconds)}\n`);
    }
    this.#last = moves;
    this.#lastMs = nowMs;
  }

  /** All counters, and among them what output was lost, if any was. */
  #counters(): CounterSnapshot {
    const counters = this.#view.snapshot();
    const output = {
      lost_lines: this.#live?.lostLines ?? 0,
      lost_error_lines: this.#live?.lostErrorLines ?? 0,
      lost_trace_lines: this.#lostTraceLines(),
    };
    return Object.values(output).some((lost) => lost > 0) ? { ...counters, output } : counters;
  }

  #drawProgress(): void {
    if (this.#live?.isBusy === true) return;
    const parts = this.#view.moves().map(({ name, toGuest, fromGuest }) =>
      `${name} to guest ${count(toGuest.packets)}, from guest ${count(fromGuest.packets)}`
    );
    const line = `${duration(this.#view.nowNs)}  ${parts.join("; ")}`;
    this.#write(CLEAR_LINE + line.slice(0, this.#io.columns - 1));
    this.#progress = true;
  }

  #clearProgress(): void {
    if (this.#progress) this.#write(CLEAR_LINE);
    this.#progress = false;
  }

  #print(text: string): void {
    this.#clearProgress();
    this.#write(text);
  }

  /** An output that is closed ends no device. */
  #write(text: string): void {
    try {
      this.#io.out(text);
    } catch (error) {
      if (!(error instanceof OutputClosed)) throw error;
    }
  }

  #event(event: string, facts: object): void {
    this.#print(this.#line(event, facts));
  }

  #line(event: string, facts: object): string {
    return `${JSON.stringify({ event, timeNs: this.#view.nowNs, ...facts })}\n`;
  }
}

/** Counters that are not 0, by group. */
function countersText(snapshot: CounterSnapshot): string {
  let text = "";
  for (const [group, counters] of Object.entries(snapshot)) {
    const rows = Object.entries(counters).filter(([, value]) => value !== 0)
      .map(([name, value]) => [name, count(value)]);
    if (rows.length > 0) text += `  ${group}\n${numberTable(rows, "    ")}`;
  }
  return text === "" ? "  nothing was counted\n" : text;
}

function rate(now: Moved, before: Moved | undefined, seconds: number): string {
  const packets = (now.packets - (before?.packets ?? 0)) / seconds;
  const megabits = (now.bytes - (before?.bytes ?? 0)) * 8e-6 / seconds;
  return `${count(packets)} packets/s (${megabits.toFixed(1)} Mbit/s)`;
}

/** What a device has moved one way. */
export interface Moved {
  /** Packets. */
  readonly packets: number;
  /** Their bytes. */
  readonly bytes: number;
}

/** What a device has moved. */
export interface DeviceMoves {
  /** The device. */
  readonly name: string;
  /** To its guest. */
  readonly toGuest: Moved;
  /** From its guest. */
  readonly fromGuest: Moved;
}

/** All counters at one moment. */
export type CounterSnapshot = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** Looks at the counters of a machine. */
export class CounterView {
  readonly #machine: Machine;

  /** @param machine whose counters to look at */
  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** The machine's own time, in ns from its start. */
  get nowNs(): number {
    return this.#machine.parts.reactor.clock.nowNs();
  }

  /** The names of the feature bits of the device of this name. */
  featureNames(device: string): ReadonlyMap<number, string> {
    return this.#machine.devices.find(({ name }) => name === device)?.device.featureNames ?? new Map();
  }

  /** A copy of all counters. What a plugin has published in place of a number is left out. */
  snapshot(): CounterSnapshot {
    return Object.fromEntries(
      Object.entries(this.#machine.counters).map(([group, counters]) => [
        group,
        Object.fromEntries(Object.entries(counters).filter(([, count]) => typeof count === "number")),
      ]),
    );
  }

  /** What each device has moved so far; zeros for a device that does not count packets. */
  moves(): DeviceMoves[] {
    const { counters } = this.#machine;
    const moved = (group: string): Moved => ({
      packets: counters[group]?.packets ?? 0,
      bytes: counters[group]?.bytes ?? 0,
    });
    return this.#machine.devices.map(({ name }) => ({
      name,
      toGuest: moved(`${name}.toGuest`),
      fromGuest: moved(`${name}.fromGuest`),
    }));
  }
}

/** What to do at a signal. */
export interface SignalActions {
  /** SIGINT, SIGTERM or SIGHUP. A second one, half a second later, ends the process at once. */
  stop(signal: Deno.Signal): void;
  /** SIGUSR2. At SIGUSR1 the runtime opens a debugger to all users of this host, listener or not. */
  show(): void;
}

/**
 * Hears of errors that came out of no hook, until disposed of: they end their device, and the process only
 * where it is not known whose they are.
 */
export function onStrayErrors(machine: Machine): Disposable {
  const onError = (event: ErrorEvent) => {
    if (machine.blame(event.error, "a callback")) event.preventDefault();
  };
  const onRejection = (event: PromiseRejectionEvent) => {
    if (machine.blame(event.reason, "a promise")) event.preventDefault();
  };
  addEventListener("error", onError);
  addEventListener("unhandledrejection", onRejection);
  return {
    [Symbol.dispose]: () => {
      removeEventListener("error", onError);
      removeEventListener("unhandledrejection", onRejection);
    },
  };
}

/** Listens until disposed of. */
export function onSignals(actions: SignalActions): Disposable {
  let firstMs: number | null = null;
  const stop = (signal: Deno.Signal) => () => {
    const nowMs = performance.now();
    if (firstMs === null) {
      firstMs = nowMs;
      actions.stop(signal);
      // A second signal means: do not wait for what hangs.
    } else if (nowMs - firstMs > SAME_MS) Deno.exit(EXIT_INTERRUPTED);
  };
  const listeners: [Deno.Signal, () => void][] = [["SIGINT", stop("SIGINT")]];
  if (Deno.build.os !== "windows") {
    listeners.push(
      ["SIGTERM", stop("SIGTERM")],
      // The terminal has gone, or a supervisor says goodbye this way.
      ["SIGHUP", stop("SIGHUP")],
      ["SIGUSR2", () => actions.show()],
    );
  }
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  return {
    [Symbol.dispose]: () => {
      for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    },
  };
}
