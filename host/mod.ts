/**
 * The host room: everything that is done by foreign functions. Linux on x86-64 and AArch64, with `--allow-ffi`.
 * @module
 */
export * from "./blocking_waiter.ts";
export * from "./epoll.ts";
export * from "./epoll_waiter.ts";
export * from "./errno.ts";
export * from "./event_fd.ts";
export * from "./file_descriptor.ts";
export * from "./file_facts.ts";
export * from "./frame_address.ts";
export * from "./host_watcher.ts";
export * from "./io_vector.ts";
export * from "./libc.ts";
export * from "./memory_file.ts";
export * from "./memory_mapping.ts";
export * from "./memory_view.ts";
export * from "./rights.ts";
export * from "./socket_address.ts";
export * from "./timer_fd.ts";
export * from "./unix_listener.ts";
export * from "./unix_stream.ts";
