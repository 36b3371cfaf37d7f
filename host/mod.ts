/**
 * The host room: everything that is done by foreign functions. Linux on x86-64 and AArch64, with `--allow-ffi`.
 * @module
 */
export * from "./waiters.ts";
export * from "./epoll.ts";
export * from "./libc.ts";
export * from "./event_fd.ts";
export * from "./descriptors.ts";
export * from "./memory_mapping.ts";
export * from "./unix_socket.ts";
