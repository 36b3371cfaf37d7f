/**
 * A host in memory: descriptors that know whether they are open, memory, events, sockets, pipes.
 * @module
 */
import { assert } from "@std/assert";
import { HostError } from "../../../../core/errors.ts";
import type {
  Channel,
  Descriptor,
  EventHandle,
  Host,
  Mapping,
  SharedFile,
  Transfer,
} from "../../../../transports/vhost_user/host.ts";

/** What descriptors stand for. */
export type FakeFile =
  | { readonly kind: "memory"; readonly buffer: ArrayBuffer }
  | FakeEvent
  | FakeSocket
  | FakePipe;

/** An event: how often each side has told something. */
export class FakeEvent {
  readonly kind = "event";
  /** Not yet taken by the back-end. */
  pending = 0;
  /** Signals of the back-end. */
  signals = 0;
  /** Is the reactor woken by it? */
  watched = false;

  kick(): void {
    this.pending++;
  }
}

/** The front-end's end of the socket for requests of the back-end. */
export class FakeSocket {
  readonly kind = "socket";
  readonly received: Uint8Array[] = [];
  /** Takes nothing while this is set. */
  full = false;
  discards = 0;
}

/** A pipe, both ways at once. */
export class FakePipe {
  readonly kind = "pipe";
  readonly parts: Uint8Array[] = [];
  closed = false;
  capacity = 65_536;

  get text(): string {
    return this.parts.map((part) => new TextDecoder().decode(part)).join("");
  }
}

/** A descriptor of a fake file. */
export class FakeDescriptor implements Disposable {
  readonly file: FakeFile;
  open = true;
  readonly #host: FakeHost;

  constructor(host: FakeHost, file: FakeFile) {
    this.#host = host;
    this.file = file;
    host.openDescriptors++;
  }

  [Symbol.dispose](): void {
    if (!this.open) return;
    this.open = false;
    this.#host.openDescriptors--;
  }
}

/** A host in memory. */
export class FakeHost implements Host {
  /** Descriptors that the back-end has not closed. */
  openDescriptors = 0;
  /** Mappings that it has not unmapped. */
  mappings = 0;
  /** Mappings are refused while this is set. */
  refuseMaps = false;

  /** A descriptor to be sent. */
  descriptor(file: FakeFile): FakeDescriptor {
    return new FakeDescriptor(this, file);
  }

  map(descriptor: Descriptor, lengthBytes: number, offsetBytes: number): Mapping {
    using owned = this.#owned(descriptor);
    const { file } = owned;
    if (file.kind !== "memory") throw new HostError("Cannot map: it is not memory");
    if (this.refuseMaps || offsetBytes + lengthBytes > file.buffer.byteLength) {
      throw new HostError(`Cannot map ${lengthBytes} bytes at ${offsetBytes}: the file is too short`);
    }
    this.mappings++;
    let mapped = true;
    return {
      buffer: file.buffer,
      bufferOffset: offsetBytes,
      address: 0n,
      [Symbol.dispose]: () => {
        if (mapped) this.mappings--;
        mapped = false;
      },
    };
  }

  event(descriptor: Descriptor, watched: boolean): EventHandle {
    const owned = this.#owned(descriptor);
    const { file } = owned;
    if (file.kind !== "event") {
      owned[Symbol.dispose]();
      throw new HostError("Cannot signal: it is not an event");
    }
    file.watched = watched;
    return {
      number: -1,
      handOver: () => {
        file.watched = false;
        return -1;
      },
      takeBack: () => {
        file.watched = watched;
      },
      signal: () => {
        assert(owned.open, "signalled after it was closed");
        file.signals++;
      },
      take: () => {
        assert(owned.open, "taken after it was closed");
        const taken = file.pending > 0;
        file.pending = 0;
        return taken;
      },
      [Symbol.dispose]: () => {
        file.watched = false;
        owned[Symbol.dispose]();
      },
    };
  }

  /** Files that were made here, by their number. */
  readonly files = new Map<number, FakeDescriptor>();

  newMemory(lengthBytes: number): SharedFile {
    const file = this.descriptor({ kind: "memory", buffer: new ArrayBuffer(lengthBytes) });
    const number = this.files.size + 1;
    this.files.set(number, file);
    return { number, [Symbol.dispose]: () => file[Symbol.dispose]() };
  }

  channel(descriptor: Descriptor): Channel {
    const owned = this.#owned(descriptor);
    const { file } = owned;
    if (file.kind !== "socket") {
      owned[Symbol.dispose]();
      throw new HostError("Cannot send: it is not a socket");
    }
    return {
      send: (message) => {
        assert(owned.open, "sent after it was closed");
        if (file.full) return false;
        file.received.push(message.slice());
        return true;
      },
      discardReplies: () => {
        file.discards++;
        return false;
      },
      [Symbol.dispose]: () => owned[Symbol.dispose](),
    };
  }

  transfer(descriptor: Descriptor): Transfer {
    const owned = this.#owned(descriptor);
    const { file } = owned;
    if (file.kind !== "pipe") {
      owned[Symbol.dispose]();
      throw new HostError("Cannot transfer: it is not a pipe");
    }
    return {
      write: (bytes) => {
        file.parts.push(bytes.slice(0, file.capacity));
        return bytes.length <= file.capacity;
      },
      read: () => file.parts.shift() ?? (file.closed ? new Uint8Array(0) : null),
      [Symbol.dispose]: () => owned[Symbol.dispose](),
    };
  }

  #owned(descriptor: Descriptor): FakeDescriptor {
    assert(descriptor instanceof FakeDescriptor && descriptor.open, "used after it was closed");
    return descriptor;
  }
}
