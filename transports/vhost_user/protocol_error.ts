/**
 * What a front-end says against the rules of the vhost-user protocol.
 * @module
 */

/** Which rule a message broke: the key under which it is counted. */
export type ProtocolFault =
  | "header-invalid"
  | "payload-too-long"
  | "payload-size-invalid"
  | "descriptors-invalid"
  | "address-too-large"
  | "value-invalid"
  | "ring-index-invalid"
  | "not-negotiated"
  | "message-unknown"
  | "memory-table-invalid"
  | "log-invalid"
  | "state-transfer-invalid"
  | "connection-cut-short";

/**
 * A message that breaks a rule. It is counted by its fault and refused; the connection goes on unless it is `fatal`.
 */
export class ProtocolError extends Error {
  /** `ProtocolError`. */
  override readonly name = "ProtocolError";
  /** Which rule was broken. */
  readonly fault: ProtocolFault;
  /** Nothing that follows can be understood: the connection must be closed. */
  readonly fatal: boolean;

  /** Says what is wrong. @param fault the rule; @param message what was found, with the values; @param fatal close the connection */
  constructor(fault: ProtocolFault, message: string, fatal = false) {
    super(`${fault}: ${message}`);
    this.fault = fault;
    this.fatal = fatal;
  }
}
