/**
 * What keeps this host from running a configuration that is right: folders, files and rights that are missing.
 *
 * Deno shows with `--allow-read` what is there. What this user may do with it only the C library tells, which needs
 * `--allow-ffi`, the right that such a configuration needs anyway when it runs.
 * @module
 */
import { dirname } from "node:path";
import { absolutePath } from "../../machine/transport_builder.ts";
import type { ConfigIssue } from "../../config/errors.ts";
import type { ResolvedConfig } from "../../config/types.ts";
import { mayAccess, mayAdministerNetwork } from "../../host/rights.ts";
import { pcap, type PcapOptions } from "../../transports/pcap/mod.ts";
import { TUN_FILE } from "../../transports/tap/remedies.ts";
import { networksOf, tapEnds, vhostUserEnds } from "./ends.ts";

const TUN_PATH = "/dev/net/tun";
const RIGHTS_UNSEEN = `${TUN_PATH} and what this user may do: run check with --allow-ffi as well`;

/** What this host lacks. */
export interface HostFindings {
  /** What keeps it from running the configuration. */
  readonly problems: readonly ConfigIssue[];
  /** What could not be looked at, and how to have it looked at. */
  readonly unseen: readonly string[];
}

/** Looks for what the configuration needs of this host. Opens and changes nothing. */
export function hostFindings(config: ResolvedConfig): HostFindings {
  const finder = new Finder(config);
  for (const { device, socket, options } of vhostUserEnds(config)) {
    if (socket === null) continue;
    const path = `${device.driver.path}.socket`;
    // In client mode the front-end makes the socket, and may still do so; its folder must be there all the same.
    finder.folder(dirname(socket), path, options.mode === "server" ? "w" : "x");
    finder.socket(socket, path);
  }
  const taps = tapEnds(config).filter(({ options }) => options.interface !== undefined);
  if (taps.length > 0) finder.tun(taps.map(({ path }) => path));
  for (const device of config.devices) {
    for (const { plugin, options, path } of networksOf(config, device)) {
      const { write } = plugin === pcap ? options as PcapOptions : { write: undefined };
      if (write !== undefined) finder.written(absolutePath(write, config.baseUrl) ?? write, `${path}.write`);
    }
  }
  return finder.findings();
}

class Finder {
  readonly #config: ResolvedConfig;
  readonly #problems: ConfigIssue[] = [];
  readonly #unseen = new Set<string>();
  /** Sockets, and where they are named. */
  readonly #sockets = new Map<string, string>();
  readonly #seesRights: boolean;

  constructor(config: ResolvedConfig) {
    this.#config = config;
    this.#seesRights = Deno.build.os === "linux" &&
      Deno.permissions.querySync({ name: "ffi" }).state === "granted";
  }

  /** The folder must be there, and this user must be able to make files in it (`w`) or to pass through it (`x`). */
  folder(folder: string, path: string, right: "w" | "x"): void {
    const problem = (problem: string, remedy: string) =>
      this.#problems.push({ path, value: folder, problem, remedy });
    try {
      if (!Deno.statSync(folder).isDirectory) return void problem("is no folder", "write a path in a folder");
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) {
        return void problem("is a folder that is not there", `make it: mkdir -p ${folder}`);
      }
      if (error instanceof Deno.errors.NotCapable) {
        return void this.#unseen.add(`whether ${folder} is there: allow --allow-read=${folder}`);
      }
      return void problem(
        `cannot be looked at (${(error as Error).message})`,
        "write a path in a folder of yours",
      );
    }
    if (!this.#seesRights) this.#unseen.add(RIGHTS_UNSEEN);
    else if (!mayAccess(folder, right === "w" ? "wx" : "x")) {
      problem(
        "is a folder in which this user may not make files",
        "run as a user who may, or write another folder",
      );
    }
  }

  /** What lies where a socket is to be must be one: anything else is left alone. */
  socket(socket: string, path: string): void {
    this.#sockets.set(socket, path);
    const facts = factsOf(socket, Deno.lstatSync);
    if (facts === null || facts.isSocket) return;
    this.#problems.push({
      path,
      value: socket,
      problem: "is there already, and is no socket",
      remedy: "remove it, or write another path",
    });
  }

  /** A file that is there must be one that this user may write, or else its folder one in which files may be made. */
  written(file: string, path: string): void {
    const problem = (problem: string, remedy: string) =>
      this.#problems.push({ path, value: file, problem, remedy });
    const socketOf = this.#sockets.get(file);
    if (socketOf !== undefined) problem(`is the socket of ${socketOf}`, "write another path");
    const facts = factsOf(file, Deno.statSync);
    if (facts === null) this.folder(dirname(file), path, "w");
    else if (facts.isDirectory) problem("is a folder", "write the path of a file in it");
    else if (facts.isSocket) problem("is a socket", "write another path");
    else if (!this.#seesRights) this.#unseen.add(RIGHTS_UNSEEN);
    else if (!mayAccess(file, "w")) {
      problem("is a file that this user may not write", "run as a user who may, or write another file");
    }
  }

  /** The file of which interfaces are made must be there and usable; making one needs CAP_NET_ADMIN. */
  tun(paths: readonly string[]): void {
    if (!this.#seesRights) {
      this.#unseen.add(RIGHTS_UNSEEN);
      return;
    }
    const [path] = paths;
    if (!mayAccess(TUN_PATH, "")) {
      this.#problems.push({ path, value: TUN_PATH, problem: "is not there", remedy: TUN_FILE.ENOENT });
    } else if (!mayAccess(TUN_PATH, "rw")) {
      this.#problems.push({ path, value: TUN_PATH, problem: "may not be opened", remedy: TUN_FILE.EACCES });
    } else if (!mayAdministerNetwork()) {
      this.#unseen.add(
        `whether the interface of ${path} was prepared for this user, who lacks CAP_NET_ADMIN and cannot make it: run as ` +
          'root, or prepare it ("ip tuntap add dev NAME mode tap user USER vnet_hdr", "ip link set NAME up")',
      );
    }
  }

  findings(): HostFindings {
    const { source } = this.#config;
    return {
      problems: source === undefined ? this.#problems : source.located(this.#problems),
      unseen: [...this.#unseen],
    };
  }
}

/** What lies at a path; null if nothing does, or if it cannot be looked at. */
function factsOf(path: string, look: (path: string) => Deno.FileInfo): Deno.FileInfo | null {
  try {
    return look(path);
  } catch {
    return null;
  }
}
