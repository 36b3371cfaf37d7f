/**
 * A back-end with testpmd's virtio-user in front, which drives it as fast as it can: ours, or DPDK's own in
 * another testpmd.
 *
 * Both are measured in the same place, by what the front-end counts: its queues are short, so that what it
 * has given or got is what the back-end has taken or given.
 * @module
 */
import { startDpdkBackend } from "./dpdk_backend.ts";
import { TestpmdProgram } from "./dpdk_testpmd.ts";

/** Which way frames go; `exchange`: the front-end sends back all that it gets. */
export type Traffic = "toGuest" | "fromGuest" | "exchange";

/** What is to be done. */
export interface Task {
  /** Which way. */
  readonly traffic: Traffic;
  /** Bytes of every frame. */
  readonly frameBytes: number;
  /** Packed rings, or split ones. */
  readonly packed: boolean;
  /** Queue pairs. */
  readonly pairs: number;
  /** Processors of the front-end: a forwarding thread on each. */
  readonly frontCores: readonly number[];
  /** Processors of the back-end. */
  readonly backCores: readonly number[];
  /** Are there huge pages? */
  readonly hugePages: boolean;
}

/** What does it: one or two programs. */
export interface DpdkPeer extends AsyncDisposable {
  /**
   * Works for some time and returns the frames per second of the time after it has warmed up; each way, if
   * there are two.
   */
  measure(spanMs: number): Promise<number>;
  /** Ends it in good order. Throws Error if the sums of both ends do not agree. */
  end(): Promise<void>;
}

const MAC = "52:54:00:12:34:56";
const RING = 256;
/**
 * A forwarder only sends back what it gets, so it starts with frames: as many bursts of 32 as fill a ring.
 */
const START_WITH_FRAMES = `start tx_first ${RING / 32}`;
/** Time that one way needs to come to its pace. */
const WARM_MS = 300;

/** Our back-end. @param mode who works its queues */
export async function ourPeer(task: Task, mode: "loop" | "threads"): Promise<DpdkPeer> {
  const { traffic, frameBytes, packed, pairs } = task;
  await using made = new AsyncDisposableStack();
  const folder = temporaryFolder(made);
  const socket = `${folder}/net0.sock`;
  const backend = made.use(
    await startDpdkBackend({
      socket,
      file: `${folder}/config.json`,
      packed,
      pairs,
      mode,
      frameBytes: traffic === "fromGuest" ? null : frameBytes,
      cores: task.backCores,
    }),
  );
  const front = made.use(await frontEnd(task, socket));
  const owned = made.move();
  return {
    measure: (spanMs) => measureFront(front, 0, task, spanMs),
    end: async () => {
      const totals = await front.totals(0);
      await front[Symbol.asyncDispose]();
      const counters = await backend.stop();
      assertNoFault(counters["net0.driver"]);
      const gave = counters["net0.toGuest"].packets;
      const took = counters["net0.fromGuest"];
      // What lies in the rings when the front-end goes is no frame lost.
      if (gave < totals.received || gave > totals.received + pairs * RING) {
        throw new Error(`Our back-end has sent ${gave} frames, of which ${totals.received} have come`);
      }
      if (
        took.packets > totals.sent || took.packets < totals.sent - pairs * RING ||
        took.bytes !== took.packets * frameBytes || took.sent !== took.packets
      ) {
        throw new Error(`Our back-end has got ${JSON.stringify(took)} of ${JSON.stringify(totals)}`);
      }
      if (totals.receivedBytes !== totals.received * frameBytes) {
        throw new Error(`Frames of other than ${frameBytes} bytes have come: ${JSON.stringify(totals)}`);
      }
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** DPDK's back-end in a testpmd of its own. */
export async function dpdkPeer(task: Task): Promise<DpdkPeer> {
  const { traffic, frameBytes, pairs, backCores, frontCores, hugePages } = task;
  await using made = new AsyncDisposableStack();
  const socket = `${temporaryFolder(made)}/net0.sock`;
  const ports = [`net_vhost0,iface=${socket},queues=${pairs}`];
  const idleCores = [...backCores, ...frontCores];
  const back = made.use(
    await TestpmdProgram.start({ ports, pairs, cores: backCores, idleCores, hugePages }),
  );
  const mode = { toGuest: "txonly", fromGuest: "rxonly", exchange: "io" }[traffic];
  await back.run(`set fwd ${mode}`, `set txpkts ${frameBytes}`);
  const front = made.use(await frontEnd(task, socket));
  const owned = made.move();
  return {
    measure: async (spanMs) => {
      await back.run(traffic === "exchange" ? START_WITH_FRAMES : "start");
      try {
        return await measureFront(front, 0, task, spanMs);
      } finally {
        await back.run("stop");
      }
    },
    end: async () => assertSize(await front.totals(0), frameBytes),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/**
 * DPDK's back-end and front-end as two ports of one testpmd, between which frames go round on a single
 * processor.
 */
export async function dpdkInOne(task: Task): Promise<DpdkPeer> {
  const { frameBytes, pairs, backCores, hugePages } = task;
  await using made = new AsyncDisposableStack();
  const socket = `${temporaryFolder(made)}/net0.sock`;
  const ports = [`net_vhost0,iface=${socket},queues=${pairs}`];
  const both = made.use(
    await TestpmdProgram.start({ ports, pairs, cores: backCores, idleCores: backCores, hugePages }),
  );
  // The front-end wants to find its back-end when it comes: it must come later.
  await both.run(`port attach ${frontPort(task, socket)}`, "port start 1", "set portlist 0,1");
  const owned = made.move();
  return {
    measure: (spanMs) => measureFront(both, 1, task, spanMs),
    end: async () => assertSize(await both.totals(1), frameBytes),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** A testpmd in front of the back-end that listens there. */
function frontEnd(task: Task, socket: string): Promise<TestpmdProgram> {
  const { pairs, frontCores, backCores, hugePages } = task;
  const ports = [frontPort(task, socket)];
  const idleCores = [...frontCores, ...backCores];
  return TestpmdProgram.start({ ports, pairs, cores: frontCores, idleCores, hugePages });
}

function frontPort({ packed, pairs }: Task, socket: string): string {
  return `net_virtio_user0,path=${socket},mac=${MAC},queues=${pairs},queue_size=${RING},` +
    `packed_vq=${Number(packed)},mrg_rxbuf=1${pairs > 1 ? ",cq=1" : ""}`;
}

async function measureFront(
  front: TestpmdProgram,
  port: number,
  { traffic, frameBytes }: Task,
  spanMs: number,
): Promise<number> {
  const mode = { toGuest: "rxonly", fromGuest: "txonly", exchange: "io" }[traffic];
  const start = port === 0 ? "start" : START_WITH_FRAMES;
  await front.run(`set fwd ${mode}`, `set txpkts ${frameBytes}`, start);
  await after(WARM_MS);
  await front.rates(port);
  await after(spanMs);
  const { received, sent } = await front.rates(port);
  await front.run("stop");
  const found = { toGuest: received, fromGuest: sent, exchange: Math.min(received, sent) }[traffic];
  if (!(found > 0)) throw new Error(`No frame has passed in ${spanMs} ms`);
  return found;
}

function assertSize(totals: { received: number; receivedBytes: number }, frameBytes: number): void {
  if (totals.receivedBytes === totals.received * frameBytes) return;
  throw new Error(`Frames of other than ${frameBytes} bytes have come: ${JSON.stringify(totals)}`);
}

function assertNoFault(driver: Readonly<Record<string, number>>): void {
  const faults = Object.keys(driver).filter((name) => name.startsWith("fault_"));
  if (faults.length > 0 || driver.refused > 0) {
    throw new Error(`Our back-end has counted faults: ${JSON.stringify(driver)}`);
  }
}

function temporaryFolder(owner: AsyncDisposableStack): string {
  const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-bench-" });
  owner.defer(() => Deno.removeSync(folder, { recursive: true }));
  return folder;
}

function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
