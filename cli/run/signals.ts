/**
 * What reaches the process from outside of the reactor: signals, and errors that nothing catches.
 * @module
 */

import type { Machine } from "../../machine/machine.ts";

/** What to do at a signal. */
export interface SignalActions {
  /** SIGINT, SIGTERM or SIGHUP. A second one, half a second later, ends the process at once. */
  stop(signal: Deno.Signal): void;
  /** SIGUSR2. At SIGUSR1 the runtime opens a debugger to all users of this host, listener or not. */
  show(): void;
}

const EXIT_INTERRUPTED = 130;
/** A signal so soon after the first is the same one: `timeout` tells its child, and then the whole group. */
const SAME_MS = 500;

/**
 * Hears of errors that came out of no hook, until disposed of: they end their device, and the process only where it is not
 * known whose they are.
 */
export function onStrayErrors(machine: Machine): Disposable {
  const onError = (event: ErrorEvent) => {
    if (machine.blame(event.error, "a callback")) event.preventDefault();
  };
  const onRejection = (event: PromiseRejectionEvent) => {
    if (machine.blame(event.reason, "a promise")) event.preventDefault();
  };
  addEventListener("error", onError);
  addEventListener("unhandledrejection", onRejection);
  return {
    [Symbol.dispose]: () => {
      removeEventListener("error", onError);
      removeEventListener("unhandledrejection", onRejection);
    },
  };
}

/** Listens until disposed of. */
export function onSignals(actions: SignalActions): Disposable {
  let firstMs: number | null = null;
  const stop = (signal: Deno.Signal) => () => {
    const nowMs = performance.now();
    if (firstMs === null) {
      firstMs = nowMs;
      actions.stop(signal);
      // Whoever asks twice does not want to wait for what hangs.
    } else if (nowMs - firstMs > SAME_MS) Deno.exit(EXIT_INTERRUPTED);
  };
  const listeners: [Deno.Signal, () => void][] = [["SIGINT", stop("SIGINT")]];
  if (Deno.build.os !== "windows") {
    listeners.push(
      ["SIGTERM", stop("SIGTERM")],
      // The terminal has gone, or a supervisor says goodbye this way.
      ["SIGHUP", stop("SIGHUP")],
      ["SIGUSR2", () => actions.show()],
    );
  }
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  return {
    [Symbol.dispose]: () => {
      for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    },
  };
}
