/**
 * How a front-end attaches to the devices of a machine: what to type at the other end; and the back-end
 * program conventions of the vhost-user specification, which management programs rely on: `--socket-path`,
 * `--fd`, `--print-capabilities`.
 * @module
 */
import { resolve } from "node:path";
import { BUILT_IN_PLUGINS, newRegistry } from "../../config/builtins.ts";
import { loadConfig } from "../../config/load.ts";
import type { ResolvedConfig, ResolvedDevice } from "../../config/types.ts";
import { kindOf, refuse, refusePromise, shapeFault } from "../../plugins/contract.ts";
import type { DevicePlugin, FrontEndSite, FrontEndWords } from "../../plugins/plugin.ts";
import type { Machine } from "../../machine/machine.ts";
import { absolutePath } from "../../machine/paths.ts";
import { guarded, located, toldList, toldTexts } from "../../machine/plugin_guards.ts";
import {
  capabilities,
  type FrontEndFacts,
  frontEndsOf,
  isListening,
  libvirtXml,
  qemuOptions,
  umlArguments,
  type VhostUserOptions,
  vhostUserOptionsOf,
} from "../../transports/vhost_user/mod.ts";
import { shellQuoted } from "../console/io.ts";
import type { ParsedArgs } from "../console/usage.ts";

/** What to type at the other end. */
export interface Attachment {
  /** QEMU and its options, less the guest's own disk; null if another front-end is expected. */
  readonly qemu: readonly string[] | null;
  /** The same for people: a command line, an option to a line. */
  readonly qemuText: string | null;
  /** The parts of a libvirt domain; null as for QEMU. */
  readonly libvirt: string | null;
  /**
   * User-mode Linux and its arguments, less the guest's own file system; null if another front-end is
   * expected or this processor cannot run it.
   */
  readonly uml: readonly string[] | null;
  /** The same for people. */
  readonly umlText: string | null;
}

const MEMORY_MIB = 1024;
const UML_MEMORY_MIB = 256;

/** A device of a configuration with a vhost-user driver. */
export interface VhostUserEnd {
  /** The device. */
  readonly device: ResolvedDevice;
  /** Number of the device in the configuration. */
  readonly index: number;
  /** The driver's options. */
  readonly options: VhostUserOptions;
  /** Absolute path of the socket; null if a descriptor is given. */
  readonly socket: string | null;
}

/** The devices with vhost-user drivers, in order. */
export function vhostUserEnds(config: ResolvedConfig): VhostUserEnd[] {
  return config.devices.flatMap((device, index) => {
    const options = vhostUserOptionsOf(device.driver);
    if (options === null) return [];
    const { socket } = options;
    return [{
      device,
      index,
      options,
      socket: socket === null ? null : absolutePath(socket, config.baseUrl) ?? socket,
    }];
  });
}

/** How QEMU and User-mode Linux attach to the devices with a socket; null if neither is expected. */
export function attachment(config: ResolvedConfig, machine: Machine): Attachment | null {
  const ends = vhostUserEnds(config);
  const qemu = located(config, () => qemuAttachment(ends, machine));
  const uml = umlAttachment(ends, machine);
  return qemu === null && uml === null ? null : { ...qemu ?? NO_QEMU, ...uml ?? NO_UML };
}

const NO_QEMU = { qemu: null, qemuText: null, libvirt: null } as const;
const NO_UML = { uml: null, umlText: null } as const;

function umlAttachment(
  ends: readonly VhostUserEnd[],
  machine: Machine,
): Pick<Attachment, "uml" | "umlText"> | null {
  if (Deno.build.arch !== "x86_64") return null;
  // It waits at no socket itself.
  const devices = umlArguments(
    ends.flatMap(({ device: { plugin }, index, socket, options: { mode, profile } }) => {
      const { device } = machine.devices[index];
      const isExpected = mode === "server" && frontEndsOf(plugin.frontEnd, profile).includes("uml");
      return socket !== null && isExpected ? { socket, type: device.type } : [];
    }),
  );
  if (devices.length === 0) return null;
  const uml = ["linux.uml", `mem=${UML_MEMORY_MIB}M`, ...devices];
  return { uml, umlText: uml.map(shellQuoted).join(" \\\n  ") };
}

function qemuAttachment(
  ends: readonly VhostUserEnd[],
  machine: Machine,
): Pick<Attachment, "qemu" | "qemuText" | "libvirt"> | null {
  const facts = ends.flatMap((end) => factsOf(end, machine) ?? []);
  if (facts.length === 0) return null;
  const arm = Deno.build.arch === "aarch64";
  const program = `qemu-system-${arm ? "aarch64" : "x86_64"}`;
  const options = [
    // The first that there is: without help of the processor a guest runs as well, slowly.
    ["-accel", "kvm"],
    ["-accel", "tcg"],
    ...qemuOptions(facts, { memoryMiB: MEMORY_MIB, machine: arm ? "virt" : "q35" }),
  ];
  return {
    qemu: [program, ...options.flat()],
    qemuText: [program, ...options.map((option) => `  ${option.map(shellQuoted).join(" ")}`)].join(" \\\n"),
    libvirt: libvirtXml(facts),
  };
}

function factsOf(
  { device, index, options: { mode, profile }, socket }: VhostUserEnd,
  machine: Machine,
): FrontEndFacts | null {
  const { plugin: { frontEnd: words }, options } = device;
  if (socket === null || words?.qemu === undefined || !frontEndsOf(words, profile).includes("qemu")) {
    return null;
  }
  const { features } = machine.devices[index].device;
  return { words: guardedWords(device, words), options, features, socket, mode };
}

/** The words of a device's plugin. What it does wrong there is a PluginError. */
function guardedWords(device: ResolvedDevice, words: FrontEndWords): FrontEndWords {
  return {
    type: words.type,
    startsAlone: words.startsAlone === true,
    qemu: (options, site) =>
      guarded(device, "frontEnd.qemu", () => words.qemu!(options, site), (told: unknown) => {
        refusePromise(told);
        if (!Array.isArray(told) || !told.every((pair) => isTexts(pair) && pair.length === 2)) {
          refuse(`it returned ${kindOf(told)}; a list of options, each a text and its value, is needed`);
        }
        toldList(told).forEach((pair) => toldTexts(pair));
      }),
    ...(words.libvirt !== undefined && {
      libvirt: (options: unknown, site: FrontEndSite) =>
        guarded(device, "frontEnd.libvirt", () => words.libvirt!(options, site), (told) => {
          refuse(shapeFault(told, "an element", [], []));
          if (!isTexts(told.lines) || !isTexts(told.properties ?? [])) {
            refuse("it returned an element whose lines or properties are no lists of texts");
          }
          for (const texts of [told.lines, told.properties]) toldTexts(texts);
        }),
    }),
  };
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}

/**
 * The same configuration, with the socket that the command line names for its only vhost-user device. Throws
 * UsageError if there is none or several, HostError if the descriptor is no socket.
 */
export function withSocket(config: ResolvedConfig, parsed: ParsedArgs): ResolvedConfig {
  const path = parsed.value("socket-path");
  const fd = parsed.value("fd");
  if (path === undefined && fd === undefined) return config;
  if (path !== undefined && fd !== undefined) {
    throw parsed.usageError("--socket-path and --fd exclude each other; leave one out");
  }
  const option = path === undefined ? "--fd" : "--socket-path";
  const ends = vhostUserEnds(config);
  if (ends.length !== 1) {
    const there = ends.length === 0
      ? "has none"
      : `has ${ends.length}: ${namesOf(ends.map((end) => end.device))}`;
    throw parsed.usageError(
      `${option} is for the only vhost-user device, and the configuration ${there}; ` +
        "write the sockets into the configuration",
    );
  }
  const [{ index, options }] = ends;
  const socket = path === undefined ? passed(Number(number(parsed, fd!)), options) : named(path, options);
  const devices = config.devices.map((device, i) =>
    i === index ? { ...device, driver: { ...device.driver, options: socket } } : device
  );
  return { ...config, devices };
}

/**
 * The line for `--print-capabilities`: the type of the configuration's vhost-user devices, or of all its
 * devices if there are none; without a configuration, that of the first built-in device. Throws UsageError if
 * they are of several types or one has none, ConfigError for a wrong configuration.
 */
export async function capabilitiesOf(parsed: ParsedArgs): Promise<string> {
  const [file] = parsed.operands;
  if (file === undefined) {
    const [usual] = BUILT_IN_PLUGINS.flatMap((plugin) => (plugin as DevicePlugin).frontEnd ?? []);
    return capabilities(usual.type);
  }
  const config = await loadConfig(file, newRegistry());
  const ends = vhostUserEnds(config).map(({ device }) => device);
  const devices = ends.length > 0 ? ends : config.devices;
  const unnamed = devices.filter(({ plugin }) => plugin.frontEnd === undefined);
  if (unnamed.length > 0) {
    throw parsed.usageError(
      `--print-capabilities tells a type, and the plugin of ${
        namesOf(unnamed)
      } has none; give it a frontEnd with one`,
    );
  }
  const [type, ...others] = new Set(devices.map(({ plugin }) => plugin.frontEnd!.type));
  if (others.length > 0) {
    throw parsed.usageError(
      `--print-capabilities tells one type, and the ${ends.length > 0 ? "vhost-user devices" : "devices"} ${
        namesOf(devices)
      } are of several; ` +
        "give each type a configuration of its own",
    );
  }
  return capabilities(type);
}

function named(path: string, options: VhostUserOptions): VhostUserOptions {
  return { ...options, socket: resolve(path), fd: null };
}

/** Some programs pass a socket that listens, others one that is connected: it says itself which. */
function passed(fd: number, options: VhostUserOptions): VhostUserOptions {
  const mode = isListening(fd, "vhost-user socket") ? "server" as const : "client" as const;
  return { ...options, socket: null, fd, mode, socketMode: null, socketUser: null, socketGroup: null };
}

function number(parsed: ParsedArgs, fd: string): string {
  if (/^\d{1,6}$/.test(fd) && Number(fd) >= 3) return fd;
  throw parsed.usageError(`--fd is "${fd}"; write the number of a descriptor, 3 or more`);
}

function namesOf(devices: readonly ResolvedDevice[]): string {
  return devices.map(({ name }) => name).join(", ");
}
