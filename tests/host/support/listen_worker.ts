/**
 * Listens at a path whenever it is told to, at the same moment as its rivals.
 * @module
 */
import { HostError } from "../../../core/errors.ts";
import { UnixListener } from "../../../host/unix_socket.ts";

/** What a worker begins with. */
export interface ListenStart {
  /** [round, answers given, then one result for each worker]; a round below 0 ends it. */
  readonly shared: SharedArrayBuffer;
  readonly path: string;
  readonly index: number;
}

/** Results. */
export const LISTENS = 1;
export const REFUSED = 2;
export const FAILED = 3;

const scope = globalThis as unknown as { onmessage: (event: MessageEvent<ListenStart>) => void };

scope.onmessage = ({ data: { shared, path, index } }) => {
  const state = new Int32Array(shared);
  let listener: UnixListener | null = null;
  for (let round = 0;;) {
    // Awake, so that all begin at the same moment.
    while (Atomics.load(state, 0) === round);
    round = Atomics.load(state, 0);
    if (round < 0) break;
    let result = LISTENS;
    if (listener !== null) listener[Symbol.dispose]();
    listener = null;
    try {
      listener = UnixListener.listen(path);
    } catch (error) {
      const refused = error instanceof HostError && error.message.includes("another program does so already");
      if (!refused) console.error(error);
      result = refused ? REFUSED : FAILED;
    }
    Atomics.store(state, 2 + index, result);
    Atomics.add(state, 1, 1);
    Atomics.notify(state, 1);
  }
  listener?.[Symbol.dispose]();
  Atomics.add(state, 1, 1);
  Atomics.notify(state, 1);
};
