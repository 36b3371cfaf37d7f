/**
 * A virtio device on PCI, reached through the test socket of a QEMU (virtio 1.2, section 4.1).
 *
 * No firmware has run: what it would do is done here. The device is looked for on bus 0, its memory is put
 * where the machine has a hole for it, and its capabilities say where in that memory the four parts of its
 * interface are.
 * @module
 */
import { FeatureSet } from "../../../core/features.ts";
import type { AccessBytes, Qtest } from "./qtest.ts";

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;

const PCI_ID = 0x00;
const PCI_COMMAND = 0x04;
const PCI_COMMAND_MEMORY_AND_MASTER = 6;
const PCI_BARS = 0x10;
const PCI_CAPABILITIES = 0x34;
const CAPABILITY_VENDOR = 0x09;

/** A virtio network device without legacy interface: vendor in the low half, device id in the high one. */
const MODERN_NET_ID = 0x1041_1af4;
/** Where its memory is put: between the guest's memory and what the chipset has for itself. */
const BARS_AT = 0xe000_0000;

/** The parts of the interface, as the capabilities number them. */
const PARTS = { 1: "common", 2: "notify", 3: "isr", 4: "device" } as const;
type Part = (typeof PARTS)[keyof typeof PARTS];

/** Fields of the common configuration: their offsets. */
const COMMON = {
  deviceFeatureSelect: 0,
  deviceFeature: 4,
  driverFeatureSelect: 8,
  driverFeature: 12,
  queueCount: 18,
  deviceStatus: 20,
  queueSelect: 22,
  queueSize: 24,
  queueEnable: 28,
  queueNotifyOff: 30,
  queueDescriptors: 32,
  queueDriver: 40,
  queueDevice: 48,
} as const;

/** Where a ring lies: guest physical addresses below 4 GiB. */
export interface RingAddresses {
  /** The descriptor table. */
  readonly descriptors: number;
  /** The available ring. */
  readonly driver: number;
  /** The used ring. */
  readonly device: number;
}

/** A virtio network device. */
export class QtestPci {
  readonly #qtest: Qtest;
  readonly #parts: ReadonlyMap<Part, number>;
  readonly #notifyStep: number;
  readonly #notifyAt: number[] = [];

  private constructor(qtest: Qtest, parts: ReadonlyMap<Part, number>, notifyStep: number) {
    this.#qtest = qtest;
    this.#parts = parts;
    this.#notifyStep = notifyStep;
  }

  /** Finds the network device and switches its memory on. Throws Error if there is none. */
  static async find(qtest: Qtest): Promise<QtestPci> {
    const config = new PciConfig(qtest);
    while (await config.read(PCI_ID) !== MODERN_NET_ID) config.next();
    const bars = await placeBars(config);
    await config.write(PCI_COMMAND, PCI_COMMAND_MEMORY_AND_MASTER);
    const parts = new Map<Part, number>();
    let notifyStep = 0;
    for (let at = await config.read(PCI_CAPABILITIES) & 0xff; at !== 0;) {
      const head = await config.read(at);
      const part = PARTS[head >>> 24 as keyof typeof PARTS];
      if ((head & 0xff) === CAPABILITY_VENDOR && part !== undefined) {
        const bar = await config.read(at + 4) & 0xff;
        parts.set(part, bars[bar] + await config.read(at + 8));
        if (part === "notify") notifyStep = await config.read(at + 16);
      }
      at = head >>> 8 & 0xff;
    }
    return new QtestPci(qtest, parts, notifyStep);
  }

  /** The features that it offers. */
  async features(): Promise<FeatureSet> {
    const words: number[] = [];
    for (const select of [0, 1]) {
      await this.#set(4, "deviceFeatureSelect", select);
      words.push(await this.#get(4, "deviceFeature"));
    }
    return FeatureSet.fromWords(...words);
  }

  /** Writes the features that the driver accepts. */
  async accept(features: FeatureSet): Promise<void> {
    for (const select of [0, 1]) {
      await this.#set(4, "driverFeatureSelect", select);
      await this.#set(4, "driverFeature", features.word(select));
    }
  }

  /** The device status field. */
  async status(): Promise<number> {
    return await this.#get(1, "deviceStatus");
  }

  /** Writes the device status field; 0 resets the device. */
  async setStatus(status: number): Promise<void> {
    await this.#set(1, "deviceStatus", status);
  }

  /** Virtqueues that it has. */
  async queueCount(): Promise<number> {
    return await this.#get(2, "queueCount");
  }

  /** Tells where a queue lies, and enables it. */
  async enableQueue(index: number, size: number, ring: RingAddresses): Promise<void> {
    await this.#set(2, "queueSelect", index);
    await this.#set(2, "queueSize", size);
    await this.#set64("queueDescriptors", ring.descriptors);
    await this.#set64("queueDriver", ring.driver);
    await this.#set64("queueDevice", ring.device);
    const off = await this.#get(2, "queueNotifyOff");
    this.#notifyAt[index] = this.#parts.get("notify")! + off * this.#notifyStep;
    await this.#set(2, "queueEnable", 1);
  }

  /** Kicks a queue. */
  async notify(index: number): Promise<void> {
    await this.#qtest.write(2, this.#notifyAt[index], index);
  }

  /** Has it interrupted for a queue since this was asked last? */
  async interrupted(): Promise<boolean> {
    return (await this.#qtest.read(1, this.#parts.get("isr")!) & 1) !== 0;
  }

  /** Bytes of its configuration space. */
  async config(offset: number, lengthBytes: number): Promise<number[]> {
    const bytes: number[] = [];
    for (let i = 0; i < lengthBytes; i++) {
      bytes.push(await this.#qtest.read(1, this.#parts.get("device")! + offset + i));
    }
    return bytes;
  }

  #get(size: AccessBytes, field: keyof typeof COMMON): Promise<number> {
    return this.#qtest.read(size, this.#parts.get("common")! + COMMON[field]);
  }

  #set(size: AccessBytes, field: keyof typeof COMMON, value: number): Promise<void> {
    return this.#qtest.write(size, this.#parts.get("common")! + COMMON[field], value);
  }

  async #set64(field: keyof typeof COMMON, value: number): Promise<void> {
    const at = this.#parts.get("common")! + COMMON[field];
    await this.#qtest.write(4, at, value);
    await this.#qtest.write(4, at + 4, 0);
  }
}

/** The configuration registers of one function on bus 0. */
class PciConfig {
  readonly #qtest: Qtest;
  #slot = 0;

  constructor(qtest: Qtest) {
    this.#qtest = qtest;
  }

  /** Goes on to the next slot. */
  next(): void {
    if (++this.#slot === 32) throw new Error("No virtio network device is on the PCI bus");
  }

  async read(register: number): Promise<number> {
    await this.#select(register);
    return await this.#qtest.in(4, CONFIG_DATA);
  }

  async write(register: number, value: number): Promise<void> {
    await this.#select(register);
    await this.#qtest.out(4, CONFIG_DATA, value);
  }

  #select(register: number): Promise<void> {
    return this.#qtest.out(4, CONFIG_ADDRESS, 2 ** 31 + this.#slot * 2048 + register);
  }
}

/** Gives each memory range of the function an address; ranges of I/O ports get none. */
async function placeBars(config: PciConfig): Promise<number[]> {
  const bars: number[] = [];
  let end = BARS_AT;
  for (let bar = 0; bar < 6; bar++) {
    const register = PCI_BARS + 4 * bar;
    await config.write(register, 0xffff_ffff);
    const answer = await config.read(register);
    if (answer === 0 || (answer & 1) === 1) continue;
    const lengthBytes = 2 ** 32 - (answer & ~0xf) >>> 0;
    bars[bar] = Math.ceil(end / lengthBytes) * lengthBytes;
    end = bars[bar] + lengthBytes;
    await config.write(register, bars[bar]);
    // The upper half of a 64-bit address is the next register.
    if ((answer & 4) !== 0) await config.write(PCI_BARS + 4 * ++bar, 0);
  }
  return bars;
}
