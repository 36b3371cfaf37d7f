/**
 * What `check --json` prints of a configuration whose devices are network devices.
 */
import type {
  ConfigDescription as AnyConfig,
  DeviceDescription as AnyDevice,
  PartDescription,
} from "../../../cli/check/describe.ts";

export interface DeviceDescription extends AnyDevice {
  readonly network: PartDescription | null;
  readonly networkClosed: boolean;
  readonly stages: Readonly<Record<"toGuest" | "fromGuest", readonly PartDescription[]>>;
  readonly kernelFeatures: readonly string[];
}

export interface ConfigDescription extends AnyConfig {
  readonly devices: readonly DeviceDescription[];
}
