/**
 * A front-end at the other end of a real socket, with real memory and real events.
 * @module
 */
import { assert } from "@std/assert";
import type { FileDescriptor } from "../../host/descriptors.ts";
import { EventFd } from "../../host/event_fd.ts";
import { MemoryMapping, newMemoryFile } from "../../host/memory_mapping.ts";
import type { UnixStream } from "../../host/unix_socket.ts";
import { HEADER_BYTES } from "../../transports/vhost_user/messages.ts";
import { FrontEnd, usualFeatures, type Wire } from "./front_end.ts";
import { GUEST_BYTES, type GuestLayout, TestGuest } from "./guest.ts";

/** Owns everything that it has made. `turn` lets the other side work for a while. */
export class SocketFrontEnd implements Wire<number>, Disposable {
  readonly front: FrontEnd<number>;
  readonly kicks: EventFd[] = [];
  readonly calls: EventFd[] = [];
  readonly stream: UnixStream;
  readonly #memory: FileDescriptor;
  readonly #mapping: MemoryMapping;
  readonly errors: EventFd[] = [];
  readonly #turn: () => void;
  readonly #others: Disposable[] = [];

  constructor(stream: UnixStream, layout: GuestLayout, turn: () => void) {
    this.stream = stream;
    this.#turn = turn;
    this.#memory = newMemoryFile("guest", GUEST_BYTES);
    const range = { offsetBytes: 0, lengthBytes: GUEST_BYTES };
    this.#mapping = MemoryMapping.map(this.#memory.number, range, "guest memory");
    this.front = new FrontEnd(this, new TestGuest(this.#mapping.buffer, layout));
  }

  get guest(): TestGuest {
    return this.front.guest;
  }

  exchange(
    bytes: Uint8Array<ArrayBuffer>,
    descriptors: readonly number[],
    expectsReply: boolean,
  ): Uint8Array | null {
    assert(this.stream.send(bytes, 0, bytes.length, descriptors) === bytes.length, "the message was cut");
    if (!expectsReply) {
      this.#turn();
      return null;
    }
    const answer = new Uint8Array(HEADER_BYTES + 512);
    for (let received = 0, turns = 0; turns < 1000; turns++) {
      this.#turn();
      const count = this.stream.receive(answer, received, answer.length - received, []);
      assert(count >= 0, "the back-end has closed the connection");
      received += count;
      const wanted = received < HEADER_BYTES
        ? Infinity
        : HEADER_BYTES + new DataView(answer.buffer).getUint32(8, true);
      if (received === wanted) return answer.subarray(0, received);
    }
    throw new Error("there was no answer");
  }

  memory(): number {
    return this.#memory.number;
  }

  kick(ring: number): number {
    return this.#event(this.kicks, ring);
  }

  call(ring: number): number {
    return this.#event(this.calls, ring);
  }

  error(ring: number): number {
    return this.#event(this.errors, ring);
  }

  /** Keeps something until the end. */
  own<T extends Disposable>(thing: T): T {
    this.#others.push(thing);
    return thing;
  }

  /** A usual start, with receive buffers. */
  start(): void {
    const { front } = this;
    front.setProtocolFeatures(front.protocolFeatures());
    const layout = [...front.guest.layout.packed ? [34] : [], ...front.guest.layout.eventIndex ? [29] : []];
    front.setFeatures(usualFeatures(front.features(), ...layout));
    front.addMemory();
    for (const ring of [0, 1]) front.describe(ring);
    for (const ring of [0, 1]) front.enable(ring, true);
    this.guest.post(0, 8);
    this.#turn();
  }

  [Symbol.dispose](): void {
    this.stream[Symbol.dispose]();
    this.#mapping[Symbol.dispose]();
    this.#memory[Symbol.dispose]();
    for (const event of [...this.kicks, ...this.calls, ...this.errors, ...this.#others]) {
      event?.[Symbol.dispose]();
    }
  }

  #event(events: EventFd[], ring: number): number {
    events[ring]?.[Symbol.dispose]();
    events[ring] = EventFd.create();
    return events[ring].fd.number;
  }
}
