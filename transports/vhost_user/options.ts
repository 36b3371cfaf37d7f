/**
 * The options of the vhost-user transport.
 * @module
 */
import { z } from "zod";
import type { SocketOptions } from "../../host/connection_source.ts";
import type { OptionsSchema } from "../../plugins/plugin.ts";
import { type ProfileName, PROFILES } from "./front_ends.ts";

/** How to meet the front-end, complete. */
export interface VhostUserOptions extends SocketOptions {
  /** Path of the socket, as written; null if a descriptor is given. */
  readonly socket: string | null;
  /** Which front-end is expected at the other end. */
  readonly profile: ProfileName;
  /** Which memory of a front-end is taken: see {@linkcode MappingTerms}. */
  readonly memory: "sealed" | "local" | "any";
  /** Is its memory allocated at once? */
  readonly populate: boolean;
}

/** What is written in the configuration, turned into {@linkcode VhostUserOptions}. */
export const vhostUserOptions: OptionsSchema<VhostUserOptions> = z.strictObject({
  socket: z.string().min(1).optional().describe(
    "Path of the Unix socket, relative to the configuration file.",
  ),
  fd: z.int().min(3).max(1_048_575).optional().describe(
    "Descriptor of a socket that this program was started with: bound for a server, connected for a client.",
  ),
  mode: z.enum(["server", "client"]).default("server").describe(
    '"server" makes the socket and waits for the front-end, "client" goes to the front-end\'s.',
  ),
  profile: z.enum(PROFILES).default("auto").describe(
    'Which front-end is expected: decides what is offered. "auto" suits all of them.',
  ),
  socketMode: z.string().regex(/^0?[0-7]{3}$/, { error: 'Write three octal digits, such as "660"' })
    .optional()
    .describe('Permissions of the socket, such as "660"; for a server.'),
  socketOwner: z.string().regex(/^\d{1,9}(:\d{1,9})?$/, {
    error: 'Write numbers of user and group, such as "64055:64055", or of the user alone',
  }).optional().describe('Owner of the socket by number, such as "64055:108"; for a server.'),
  memory: z.enum(["sealed", "local", "any"]).default("local").describe(
    'Which memory of a front-end is taken: "sealed" what no program can cut, which would end this program (a memfd); "local" also ' +
      'files of tmpfs, hugetlbfs and disks; "any" also what another program or host serves, and may never deliver.',
  ),
  populate: z.boolean().default(false).describe(
    "Have a guest's memory allocated when it is shared, and refuse it if there is no room: later that would end this " +
      "program. Takes about 0.3 s for each GiB, in which other devices wait.",
  ),
  reconnectMs: z.int().min(1).max(60_000).default(200).describe(
    "Milliseconds between the first two attempts to reach the front-end; for a client. The pause doubles up to a second. " +
      "There is no limit to the number of attempts.",
  ),
}).superRefine((written, context) => {
  if ((written.socket === undefined) === (written.fd === undefined)) {
    context.addIssue({ code: "custom", message: 'Write either "socket", such as "net0.sock", or "fd"' });
  }
  for (const key of ["socketMode", "socketOwner"] as const) {
    if (written[key] !== undefined && (written.mode === "client" || written.fd !== undefined)) {
      context.addIssue({
        code: "custom",
        path: [key],
        message: "Leave it out: only a server with a path makes a socket",
      });
    }
  }
}).transform((written): VhostUserOptions => {
  const [user, group] = written.socketOwner?.split(":").map(Number) ?? [];
  return {
    socket: written.socket ?? null,
    fd: written.fd ?? null,
    mode: written.mode,
    profile: written.profile,
    socketMode: written.socketMode === undefined ? null : parseInt(written.socketMode, 8),
    socketUser: user ?? null,
    socketGroup: group ?? null,
    memory: written.memory,
    populate: written.populate,
    reconnectMs: written.reconnectMs,
  };
});
