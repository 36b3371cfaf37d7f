/**
 * A queue service between its driver and its host: whatever comes in whatever order, it never sleeps over a
 * request that it could take, nor polls past one. The reactor is played: a round follows what did something,
 * a kick that the ring asks for, and a wake.
 */
import { assert } from "@std/assert";
import fc from "fast-check";
import { FeatureSet } from "../../core/features.ts";
import { GuestMemory } from "../../rings/memory.ts";
import { KEEP, type QueueRequest, QueueService } from "../../core/queue_service.ts";
import { buildQueue } from "../../core/session.ts";
import { BufferList, PackedDriverRing, SplitDriverRing } from "../../guest/driver_ring.ts";

const SIZE = 8;
const MAX_IN_FLIGHT = 2;
const PLACE = { size: SIZE, descriptors: 0x1000, driver: 0x1800, device: 0x1c00 };
const BUFFERS = 0x2000;

type Action =
  | "post"
  | "post late"
  | "round"
  | "settle"
  | "complete"
  | "collect"
  | "drain"
  | "pause"
  | "resume"
  | "put back"
  | "retry"
  | "poll"
  | "poll no more";
const USUAL: readonly Action[] = ["post", "settle", "complete"];
const RARE: readonly Action[] = [
  "post late",
  "round",
  "collect",
  "drain",
  "pause",
  "resume",
  "put back",
  "retry",
  "poll",
  "poll no more",
];
const ACTION = fc.constantFrom(...USUAL, ...USUAL, ...USUAL, ...RARE);

class Play {
  readonly #ring: PackedDriverRing | SplitDriverRing;
  readonly #list = new BufferList(1);
  readonly #service: QueueService;
  readonly #held: QueueRequest[] = [];
  #waiting = 0;
  #isAwake = true;
  #isPaused = false;
  #isLeftAlone = false;
  /** Does the reactor look at the rings instead of sleeping? */
  #isPolling = false;
  #putsBack = false;
  /** Comes a request between the last look at the ring and the question for a notification? */
  #postsLate = false;

  constructor(packed: boolean, eventIndex: boolean) {
    const region = { guestAddress: 0, size: 0x4000, buffer: new ArrayBuffer(0x4000), bufferOffset: 0 };
    const memory = new GuestMemory([region]);
    const place = {
      ...PLACE,
      eventIndex,
      indirect: false,
      tables: 0,
      tableEntries: 1,
      indirectUse: "never",
    } as const;
    this.#ring = packed ? new PackedDriverRing(memory, place) : new SplitDriverRing(memory, place);
    const features = FeatureSet.from([32, ...packed ? [34] : [], ...eventIndex ? [29] : []]);
    const queue = buildQueue(memory, PLACE, features);
    const ask = queue.enableKicks.bind(queue);
    queue.enableKicks = () => {
      if (this.#postsLate) this.do("post", 0);
      this.#postsLate = false;
      return ask();
    };
    this.#service = new QueueService({
      handlers: [(request) => this.#take(request)],
      wake: () => void (this.#isAwake = true),
      maxInFlight: MAX_IN_FLIGHT,
    });
    this.#service.activate({ memory, queues: [queue], features, interrupt() {}, configChanged() {} });
  }

  do(action: Action, which: number): void {
    switch (action) {
      case "post":
        this.#list.clear();
        this.#list.addWritable(BUFFERS, 64);
        if (!this.#ring.add(this.#list, 1)) return;
        this.#waiting++;
        if (this.#ring.publish()) this.#isAwake = true;
        return;
      case "post late":
        this.#postsLate = true;
        return;
      case "round":
        this.#round();
        return;
      case "settle":
        while (this.#isAwake) this.#round();
        return;
      case "complete":
        if (this.#held.length === 0) return;
        this.#service.complete(this.#held.splice(which % this.#held.length, 1)[0], 1);
        return;
      case "collect":
        while (this.#ring.takeUsed() >= 0);
        return;
      case "drain":
        this.#service.drain();
        this.#isAwake = true;
        return;
      case "pause":
        this.#isPaused = true;
        this.#service.pause();
        return;
      case "resume":
        this.#isPaused = false;
        this.#service.resume();
        this.#isAwake = true;
        return;
      case "put back":
        this.#putsBack = true;
        return;
      case "retry":
        this.#isLeftAlone = false;
        this.#service.retry(0);
        return;
      case "poll":
        this.#isPolling = true;
        return;
      case "poll no more":
        if (this.#isPolling) this.#isAwake = true;
        this.#isPolling = false;
    }
  }

  /** Does it sleep over a request that it could take, or over an answer that it has? */
  get oversleeps(): boolean {
    if (!this.#isAwake && this.#isPolling && this.#service.look()) this.#isAwake = true;
    if (this.#isAwake) return false;
    const mayTake = !this.#isPaused && !this.#isLeftAlone && this.#service.count < MAX_IN_FLIGHT;
    return mayTake && this.#waiting > 0 || this.#service.count > this.#held.length;
  }

  #round(): void {
    if (!this.#isAwake) return;
    this.#isAwake = false;
    if (this.#service.poll(0)) this.#isAwake = true;
  }

  #take(request: QueueRequest): number {
    if (this.#putsBack) {
      this.#putsBack = false;
      this.#isLeftAlone = true;
      return request.putBack();
    }
    this.#waiting--;
    this.#held.push(request);
    return KEEP;
  }
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";
  Deno.test(`QueueService never sleeps over a request that it could take, or an answer (property, ${layout})`, () => {
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.array(fc.tuple(ACTION, fc.nat(MAX_IN_FLIGHT)), { minLength: 40, maxLength: 60 }),
        (eventIndex, actions) => {
          const play = new Play(packed, eventIndex);
          for (const [i, [action, which]] of actions.entries()) {
            play.do(action, which);
            assert(!play.oversleeps, `it sleeps after ${i + 1} actions`);
          }
        },
      ),
      { numRuns: 3000 },
    );
  });
}
