/**
 * The functions of the C library that this project calls, with their types as Deno's foreign function interface wants
 * them. Addresses are `u64` and passed as bigint: a number there costs fifteen times as much. Sizes that are `size_t` in
 * C are bigint as well, and results that fit are `i32`. Functions that take different third arguments stand here twice.
 * @module
 */

/** Name, parameters and result of every function used. */
export const LIBC_SYMBOLS = {
  // Files.
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "u64", "u64"], result: "i32" },
  write: { parameters: ["i32", "u64", "u64"], result: "i32" },
  readv: { parameters: ["i32", "u64", "i32"], result: "i32" },
  writev: { parameters: ["i32", "u64", "i32"], result: "i32" },
  preadv2: { parameters: ["i32", "u64", "i32", "i64", "i32"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  splice: { parameters: ["i32", "u64", "i32", "u64", "u64", "u32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctlValue: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  readlink: { parameters: ["buffer", "buffer", "u64"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  unlink: { parameters: ["buffer"], result: "i32" },
  chmod: { parameters: ["buffer", "u32"], result: "i32" },
  fchmod: { parameters: ["i32", "u32"], result: "i32" },
  faccessat: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  lchown: { parameters: ["buffer", "u32", "u32"], result: "i32" },
  // Memory.
  mmap: { parameters: ["u64", "u64", "i32", "i32", "i32", "i64"], result: "pointer" },
  memcpy: { parameters: ["u64", "u64", "u64"], result: "void" },
  madvise: { parameters: ["u64", "u64", "i32"], result: "i32" },
  munmap: { parameters: ["u64", "u64"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  // Sockets.
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  accept4: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  sendmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  // Waiting.
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  eventfd_write: { parameters: ["i32", "u64"], result: "i32" },
  eventfd_read: { parameters: ["i32", "buffer"], result: "i32" },
  timerfd_create: { parameters: ["i32", "i32"], result: "i32" },
  timerfd_settime: { parameters: ["i32", "i32", "u64", "u64"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "u64", "i32", "i32"], result: "i32" },
  epollWaitAwaited: {
    name: "epoll_wait",
    parameters: ["i32", "u64", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  // Asynchronous requests, for which the C library has no functions: the first parameter is the call's number.
  io_setup: { name: "syscall", parameters: ["u64", "u64", "buffer"], result: "i32" },
  io_destroy: { name: "syscall", parameters: ["u64", "u64"], result: "i32" },
  io_submit: { name: "syscall", parameters: ["u64", "u64", "u64", "u64"], result: "i32" },
  io_getevents: { name: "syscall", parameters: ["u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  // Threads of the C library, since glibc 2.34 in libc.so.6.
  dlsym: { parameters: ["u64", "buffer"], result: "u64", optional: true },
  pthread_create: { parameters: ["buffer", "buffer", "u64", "u64"], result: "i32", optional: true },
  pthread_attr_init: { parameters: ["buffer"], result: "i32" },
  pthread_attr_setdetachstate: { parameters: ["buffer", "i32"], result: "i32" },
  pthread_attr_setstacksize: { parameters: ["buffer", "u64"], result: "i32", optional: true },
  // The rest.
  // Since glibc 2.30.
  gettid: { parameters: [], result: "i32", optional: true },
  capget: { parameters: ["buffer", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions, ready to be called. */
export type LibcSymbols = Deno.StaticForeignLibraryInterface<typeof LIBC_SYMBOLS>;
