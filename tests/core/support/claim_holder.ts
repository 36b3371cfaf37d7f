/** A thread that holds a claim until another waits for it, and a little longer. @module */
import { FlowClaims } from "../../../pipeline/flow_claims.ts";

interface Start {
  readonly memory: SharedArrayBuffer;
  readonly steps: SharedArrayBuffer;
  readonly key: Int32Array;
}

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Start>) => void;
  postMessage(message: null): void;
};

scope.onmessage = ({ data }) => {
  const steps = new Int32Array(data.steps);
  const claims = new FlowClaims(data.memory, 1);
  const slot = claims.claim(data.key, 3, 0);
  Atomics.store(steps, 0, 1);
  Atomics.notify(steps, 0);
  while (!claims.takeWanted());
  claims.release(slot);
  Atomics.wait(steps, 0, 1, 3);
  Atomics.store(steps, 1, 1);
  claims.settle();
  scope.postMessage(null);
};
