/**
 * Says what happens to the devices of a running machine: lines for people or for systemd's journal, or facts
 * for JSON.
 *
 * Theory of operation. How often something happens is for guests to decide, so that each kind of event of
 * each device has an allowance (BURST at once, PER_SECOND in the long run). What exceeds it is counted, and
 * the count is told as soon as the allowance has recovered. So a guest that breaks rules all day hides
 * neither the other guests nor its own end.
 *
 * @module
 */
import { printable } from "../../config/errors.ts";
import type { DeviceEvent } from "../../core/device.ts";
import { featureName } from "../../core/features.ts";

/** Events of one kind of one device: at once, and in the long run. */
const BURST = 64;
const PER_SECOND = 1;
/** How long after the last of them suppressed events are told, in ms. */
const SUPPRESSED_MS = 2000;

/** Where events go. */
export interface EventLogTargets {
  /** Takes a line of text; null if JSON is wanted. */
  readonly text: ((line: string) => void) | null;
  /** Takes the facts of an event. */
  readonly json: (event: string, facts: object) => void;
  /** The names of the feature bits of a device. */
  readonly featureNames: (device: string) => ReadonlyMap<number, string>;
  /** Do the lines go to systemd's journal, which knows the time and reads priorities? */
  readonly isJournal: boolean;
}

interface Allowance {
  left: number;
  atMs: number;
  suppressed: number;
}

/** Priorities of syslog. */
const ERROR = 3;
const WARNING = 4;
const INFO = 6;

/** Tells events, as many as are good. */
export class EventLog implements Disposable {
  readonly #targets: EventLogTargets;
  readonly #allowances = new Map<string, Allowance>();
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** @param targets where events go */
  constructor(targets: EventLogTargets) {
    this.#targets = targets;
  }

  /** Something has happened to a device. */
  note(device: string, event: DeviceEvent): void {
    const nowMs = performance.now();
    const key = `${device} ${event.event}`;
    let allowance = this.#allowances.get(key);
    if (allowance === undefined) {
      allowance = { left: BURST, atMs: nowMs, suppressed: 0 };
      this.#allowances.set(key, allowance);
    }
    const gained = (nowMs - allowance.atMs) / 1000 * PER_SECOND;
    allowance.left = Math.min(BURST, allowance.left + gained);
    allowance.atMs = nowMs;
    if (allowance.left < 1) {
      allowance.suppressed++;
      this.#timer ??= setTimeout(() => this.#tellSuppressed(), SUPPRESSED_MS);
      return;
    }
    allowance.left--;
    this.#tell(device, event);
  }

  /** Tells what is still to be told. */
  [Symbol.dispose](): void {
    if (this.#timer !== null) this.#tellSuppressed();
  }

  #tell(device: string, event: DeviceEvent): void {
    const { text, json } = this.#targets;
    if (text === null) {
      const { event: name, ...facts } = event;
      const features = event.event === "features" ? { features: this.#namesOf(device, event) } : {};
      json(name, { device, ...facts, ...features });
    } else if (event.event === "features") {
      const names = this.#namesOf(device, event).join(", ") || "none";
      text(this.#line(device, `features agreed: ${names}`, INFO));
    } else text(this.#line(device, textOf(event), priorityOf(event)));
  }

  #namesOf(device: string, { features }: Extract<DeviceEvent, { event: "features" }>): string[] {
    const names = this.#targets.featureNames(device);
    return Array.from(features, (bit) => featureName(bit, names));
  }

  #tellSuppressed(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const { text, json } = this.#targets;
    for (const [key, allowance] of this.#allowances) {
      const { suppressed } = allowance;
      if (suppressed === 0) continue;
      allowance.suppressed = 0;
      const [device, kind] = key.split(" ");
      if (text === null) json("suppressed", { device, kind, count: suppressed });
      else {text(
          this.#line(device, `${suppressed} more events of the kind "${kind}", not told one by one`, WARNING),
        );}
    }
  }

  #line(device: string, what: string, priority: number): string {
    const said = `${device}: ${printable(what)}\n`;
    return this.#targets.isJournal ? `<${priority}>${said}` : `${wallClock()} ${said}`;
  }
}

/** The time of day here, as ISO 8601 writes it, to the millisecond. */
export function wallClock(date: Date = new Date()): string {
  const offsetMinutes = -date.getTimezoneOffset();
  const local = new Date(date.getTime() + offsetMinutes * 60_000).toISOString().slice(0, -1);
  const two = (value: number) => String(value).padStart(2, "0");
  const ahead = Math.abs(offsetMinutes);
  return `${local}${offsetMinutes < 0 ? "-" : "+"}${two(Math.floor(ahead / 60))}:${two(ahead % 60)}`;
}

function textOf(event: Exclude<DeviceEvent, { event: "features" }>): string {
  switch (event.event) {
    case "connected":
      return "front-end connected";
    case "memory-at-risk":
      return `memory at risk: ${event.message}`;
    case "memory-out-of-reach":
      return `memory out of reach of kernels: ${event.message}`;
    case "ready":
      return "driver ready";
    case "queue-started":
      return `queue ${event.queue} started`;
    case "queue-stopped":
      return `queue ${event.queue} stopped`;
    case "fault":
      return `fault of the guest, ${event.fault}: ${event.message}`;
    case "refused":
      return `message refused, ${event.fault}: ${event.message}`;
    case "reset":
      return "device reset";
    case "disconnected":
      return `front-end gone: ${event.reason}`;
    case "failed":
      return `the device has failed and is stopped: ${event.message}`;
    case "recording-failed":
      return `cannot write "${event.path}": ${event.message}; the device goes on, what is lost is counted`;
    case "recording-resumed":
      return `"${event.path}" is written again; ${event.lost} packets are missing`;
  }
}

function priorityOf({ event }: DeviceEvent): number {
  if (event === "failed" || event === "recording-failed") return ERROR;
  return event === "fault" || event === "refused" || event === "memory-at-risk" ? WARNING : INFO;
}
