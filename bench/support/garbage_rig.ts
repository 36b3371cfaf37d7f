/**
 * A whole machine as a configuration describes it, with a vhost-user device behind a real socket and a guest
 * in this process that works its rings in shared memory. The machine is turned round by round: nothing else
 * runs meanwhile.
 * @module
 */
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { UnixStream } from "../../host/unix_socket.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import { usualFeatures } from "../../rigs/vhost_user/front_end.ts";
import { GUEST_BASE } from "../../rigs/vhost_user/guest.ts";
import { pair } from "../../rigs/vhost_user/payload.ts";
import { SocketFrontEnd } from "../../rigs/vhost_user/socket_front_end.ts";
import { Request } from "../../transports/vhost_user/messages.ts";
import { GENERATOR_MAC, TrafficGenerator } from "./traffic_generator.ts";
import { packedRing, type Ring, splitRing } from "./recycling_driver.ts";

const NET_HEADER_BYTES = 12;
const RING_PACKED = 34;
/** Entries of a ring: as many as fit where the rig's guest has room for one. */
const RING_SIZE = 64;
const VIRTQ_DESC_F_WRITE = 2;
/** Behind the rings of the guest. */
const BUFFERS_AT = GUEST_BASE + 0x40000;
/** Of mergeable receive buffers; a ring of them takes some of the largest packets. */
const BUFFER_BYTES = 4096;

/** What the machine is like. */
export interface GarbageSetup {
  /** Packed rings? Else split ones. */
  readonly packed: boolean;
  /** Which way frames go. */
  readonly toGuest: boolean;
  /** Is TCP coalesced on its way to the guest? */
  readonly coalesce: boolean;
  /** Payload of the segments to the guest, if they are not full ones. */
  readonly payloadBytes?: number;
}

/** A machine, its guest and its network. */
export class GarbageRig implements AsyncDisposable {
  readonly #machine: Machine;
  readonly #folder: string;
  readonly #network: TrafficGenerator;
  readonly #front: SocketFrontEnd;
  readonly #driver: Ring;
  readonly #setup: GarbageSetup;

  private constructor(machine: Machine, folder: string, network: TrafficGenerator, setup: GarbageSetup) {
    this.#machine = machine;
    this.#folder = folder;
    this.#network = network;
    this.#setup = setup;
    machine.start();
    const { reactor } = machine.parts;
    this.#front = new SocketFrontEnd(
      UnixStream.connect(`${folder}/net0.sock`),
      { packed: setup.packed },
      () => reactor.settle(),
    );
    this.#driver = this.#connect();
  }

  /** Builds and starts it. */
  static async start(setup: GarbageSetup): Promise<GarbageRig> {
    const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-bench-" });
    const network = new TrafficGenerator(setup.payloadBytes);
    const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, network.plugin]));
    const written = {
      devices: [{
        use: "net",
        mac: GENERATOR_MAC,
        driver: { use: "vhost-user", socket: "net0.sock" },
        network: "generator",
        offloads: setup.coalesce ? ["rsc-v4"] : [],
      }],
    };
    const config = await parseConfig(JSON.stringify(written), `file://${folder}/config.json`, registry);
    return new GarbageRig(buildMachine(config), folder, network, setup);
  }

  /** Moves `frames` frames, to the guest or from it. Throws if one did not come through. */
  run(frames: number): void {
    const { reactor } = this.#machine.parts;
    const kick = this.#front.kicks[this.#setup.toGuest ? 0 : 1];
    const before = this.#moved();
    const turns = Math.ceil(frames / RING_SIZE);
    for (let turn = 0; turn < turns; turn++) {
      this.#driver.refill();
      kick.signal();
      if (this.#setup.toGuest) this.#network.ready = RING_SIZE;
      reactor.turn();
    }
    const moved = this.#moved() - before;
    if (moved < frames) throw new Error(`Only ${moved} of ${frames} frames came through`);
  }

  /** Stops everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#front[Symbol.dispose]();
    await this.#machine.close();
    Deno.removeSync(this.#folder, { recursive: true });
  }

  #connect(): Ring {
    const { packed, toGuest } = this.#setup;
    const { front, guest } = this.#front;
    front.setProtocolFeatures(front.protocolFeatures());
    front.setFeatures(usualFeatures(front.features(), ...packed ? [RING_PACKED] : []));
    front.addMemory();
    for (const ring of [0, 1]) {
      front.describe(ring);
      front.say(Request.SET_VRING_NUM, pair(ring, RING_SIZE));
    }
    for (const ring of [0, 1]) front.enable(ring, true);
    if (toGuest) {
      return this.#drive(0, BUFFER_BYTES, VIRTQ_DESC_F_WRITE);
    }
    const { frame } = this.#network;
    const bytes = NET_HEADER_BYTES + frame.length;
    for (let i = 0; i < RING_SIZE; i++) {
      guest.memory.copyIn(BUFFERS_AT + i * bytes + NET_HEADER_BYTES, frame, 0, frame.length);
    }
    return this.#drive(1, bytes, 0);
  }

  /** Drives a queue whose buffers of `bytes` bytes lie in a row. */
  #drive(queue: number, bytes: number, flags: number): Ring {
    const { guest } = this.#front;
    const { descriptors, driver, device } = guest.place(queue);
    return (this.#setup.packed ? packedRing : splitRing)({
      buffer: guest.memory.regions[0].buffer,
      at: descriptors - GUEST_BASE,
      driverAt: driver - GUEST_BASE,
      deviceAt: device - GUEST_BASE,
      addresses: Array.from({ length: RING_SIZE }, (_, i) => BUFFERS_AT + i * bytes),
      bytes,
      flags,
      each: "returned",
    });
  }

  /** Frames that came through; of those that go to the guest in packets, the segments that were held. */
  #moved(): number {
    if (!this.#setup.toGuest) return this.#network.sent;
    const { counters } = this.#machine;
    return this.#setup.coalesce ? counters["net0.rsc-v4"].segments : counters["net0.toGuest"].packets;
  }
}
