/**
 * The ring kernels, in AssemblyScript: what moves bytes between frames and the chains of a virtqueue, a burst
 * at a time.
 *
 * JavaScript decides, kernels move. A kernel does what is usual: direct, chained and indirect descriptors,
 * split and packed rings, buffers that are merged. It stops in front of everything else (a broken ring, a
 * buffer across two regions, very many pieces, no room) and has done nothing of it then: the plain code in
 * `rings/split_virtqueue.ts` and `rings/packed_virtqueue.ts` goes on from there, and is the one that judges
 * and says what is wrong.
 *
 * The guest changes its memory while we look. Each field is read once, by an atomic load that a compiler must
 * not repeat, and the local is judged and used. Every range of guest memory goes through `place`, which knows
 * this guest's regions only.
 *
 * `enqueue` writes items into chains that the device writes. An item is a list of (offset, length) in the low
 * part of the arena; the last has `LAST_PIECE` set in its length. `dequeue` copies chains that the device
 * reads into items (offset, room), and stores how long each is. Both return how many items are done.
 */
import {
  AVAILABLE, AVAILABLE_MARK, BUDGET, CHAIN_ROWS, CHAINS, COUNT_AT, DESCRIPTORS, FIRST, FIRST_FLAGS, FLAGS, FREE, INDIRECT,
  ITEM_COUNT, ITEMS, LAST_PIECE, MAX_ELEMENTS, MAX_PIECES, MIN_BYTES, NEEDED, NEXT, PACKED, PIECES, PUBLISHED, READS_TABLES,
  REGION_COUNT, REGIONS, SEEN, SIZE, SLOTS, STOP_AT, USED, USED_MARK, USED_NEXT,
} from "./layout";

const DESC_F_NEXT: u32 = 1;
const DESC_F_WRITE: u32 = 2;
const DESC_F_INDIRECT: u32 = 4;
const DESC_FLAGS: u32 = 7;
/** The AVAIL and USED flags of a packed descriptor. */
const TURN: u32 = 0x8080;
/** What a piece counts beside its bytes: `PIECE_UNITS` of `rings/descriptor_chain.ts`. */
const PIECE_UNITS: f64 = 1024;
const MAX_CHAIN_BYTES: u64 = 0x100000000;

// What a call is about, from its block.
let block: usize = 0;
let descriptors: usize = 0;
let available: usize = 0;
let used: usize = 0;
let size: u32 = 0;
let flags: u32 = 0;
let maxElements: u32 = 0;
let regions: usize = 0;
let regionsEnd: usize = 0;
let next: u32 = 0;
let seen: u32 = 0;
let published: u32 = 0;
let availableMark: u32 = 0;
let usedNext: u32 = 0;
let usedMark: u32 = 0;
let first: i32 = 0;
let firstFlags: u32 = 0;
let free: u32 = 0;
let slotsUsed: u32 = 0;

// The region that was found last.
let regionStart: u64 = 0;
let regionBytes: u64 = 0;
let regionPlace: usize = 0;

// The chain that was taken last, and the pieces of the item so far.
let chainId: u32 = 0;
let chainSlots: u32 = 0;
let chainBytes: u64 = 0;
let pieces: u32 = 0;

function load_(at: u32): void {
  block = <usize> at;
  descriptors = <usize> load<f64>(block, DESCRIPTORS);
  available = <usize> load<f64>(block, AVAILABLE);
  used = <usize> load<f64>(block, USED);
  size = load<u32>(block, SIZE);
  flags = load<u32>(block, FLAGS);
  maxElements = load<u32>(block, MAX_ELEMENTS);
  regions = <usize> load<u32>(block, REGIONS);
  regionsEnd = regions + 24 * <usize> load<u32>(block, REGION_COUNT);
  next = load<u32>(block, NEXT);
  seen = load<u32>(block, SEEN);
  published = load<u32>(block, PUBLISHED);
  availableMark = load<u32>(block, AVAILABLE_MARK);
  usedNext = load<u32>(block, USED_NEXT);
  usedMark = load<u32>(block, USED_MARK);
  first = load<i32>(block, FIRST);
  firstFlags = load<u32>(block, FIRST_FLAGS);
  free = load<u32>(block, FREE);
  slotsUsed = 0;
  regionBytes = 0;
}

function store_(budget: f64, chains: u32): void {
  store<f64>(block, budget, BUDGET);
  store<u32>(block, next, NEXT);
  store<u32>(block, seen, SEEN);
  store<u32>(block, availableMark, AVAILABLE_MARK);
  store<u32>(block, usedNext, USED_NEXT);
  store<u32>(block, usedMark, USED_MARK);
  store<i32>(block, first, FIRST);
  store<u32>(block, firstFlags, FIRST_FLAGS);
  store<u32>(block, slotsUsed, SLOTS);
  store<u32>(block, chains, CHAINS);
}

/** Where `length` bytes at a guest address lie in the arena; 0 unless all are in one region of this guest. */
@inline
function place(address: u64, length: u64): usize {
  const offset = address - regionStart;
  if (offset < regionBytes && length <= regionBytes - offset) return regionPlace + <usize> offset;
  return search(address, length);
}

function search(address: u64, length: u64): usize {
  for (let row = regions; row < regionsEnd; row += 24) {
    const start = <u64> load<f64>(row);
    const bytes = <u64> load<f64>(row, 8);
    const offset = address - start;
    if (offset >= bytes) continue;
    if (length > bytes - offset) return 0;
    regionStart = start;
    regionBytes = bytes;
    regionPlace = <usize> load<f64>(row, 16);
    return regionPlace + <usize> offset;
  }
  return 0;
}

/** Adds a piece of a chain. False if it is none that a kernel takes. */
@inline
function add(address: u64, length: u32): bool {
  if (length == 0 || pieces == MAX_PIECES) return false;
  const at = place(address, <u64> length);
  if (at == 0) return false;
  const row = block + PIECES + (<usize> pieces << 4);
  store<usize>(row, at);
  store<u64>(row, <u64> length, 8);
  chainBytes += <u64> length;
  pieces++;
  return true;
}

/** Where an indirect table lies; 0 if it is none that a kernel reads. */
function table(address: u64, length: u32): usize {
  if (length == 0 || (length & 15) != 0 || (flags & INDIRECT) == 0) return 0;
  const at = place(address, <u64> length);
  return (at & 7) == 0 ? at : 0;
}

/**
 * Takes the next chain of a split ring, all of whose elements have this direction. False, and nothing taken,
 * otherwise.
 */
function takeSplit(direction: u32): bool {
  if (next == seen) {
    const index = <u32> atomic.load<u16>(available, 2);
    const out = (index - published) & 0xffff;
    if (out > size || out < ((seen - published) & 0xffff)) return false;
    seen = index;
    if (next == seen) return false;
  }
  const head = <u32> atomic.load<u16>(available + (<usize> (next & (size - 1)) << 1), 4);
  let at = descriptors;
  let entries = size;
  let limit = size;
  let index = head;
  let count: u32 = 0;
  let inTable = false;
  for (;;) {
    if (index >= entries || ++count > limit) return false;
    const descriptor = at + (<usize> index << 4);
    const word = atomic.load<u64>(descriptor, 8);
    const address = atomic.load<u64>(descriptor);
    const length = <u32> word;
    const bits = <u32> (word >> 32) & 0xffff;
    if ((bits & DESC_F_INDIRECT) != 0) {
      if (inTable || (bits & DESC_F_NEXT) != 0) return false;
      at = table(address, length);
      if (at == 0) return false;
      entries = length >> 4;
      limit = min(entries, maxElements - count + 1);
      inTable = true;
      index = 0;
      count = 0;
      continue;
    }
    if ((bits & DESC_F_WRITE) != direction || !add(address, length)) return false;
    if ((bits & DESC_F_NEXT) == 0) break;
    index = <u32> (word >> 48);
  }
  if (chainBytes > MAX_CHAIN_BYTES) return false;
  chainId = head;
  chainSlots = 1;
  next = (next + 1) & 0xffff;
  return true;
}

/** As `takeSplit`, of a packed ring. */
function takePacked(direction: u32): bool {
  let slot = next;
  let mark = availableMark;
  let count: u32 = 0;
  let id: u32 = 0;
  let bits: u32 = 0;
  do {
    if (++count > free) return false;
    const descriptor = descriptors + (<usize> slot << 4);
    // Flags, id and length in one load, to be of one moment; the address after them.
    const word = atomic.load<u64>(descriptor, 8);
    bits = <u32> (word >> 48);
    if ((bits & TURN) != mark) return false;
    const address = atomic.load<u64>(descriptor);
    const length = <u32> word;
    id = <u32> (word >> 32) & 0xffff;
    if ((bits & DESC_F_INDIRECT) != 0) {
      if (count != 1 || (bits & DESC_F_NEXT) != 0 || !addTable(address, length, direction)) return false;
    } else if ((bits & DESC_F_WRITE) != direction || !add(address, length)) return false;
    if (++slot == size) {
      slot = 0;
      mark ^= TURN;
    }
  } while ((bits & DESC_F_NEXT) != 0);
  if (chainBytes > MAX_CHAIN_BYTES) return false;
  chainId = id;
  chainSlots = count;
  next = slot;
  availableMark = mark;
  free -= count;
  return true;
}

/** All elements of a packed ring's table, in order. */
function addTable(address: u64, length: u32, direction: u32): bool {
  let at = table(address, length);
  if (at == 0 || (length >> 4) > maxElements) return false;
  const readsAll = direction == 0 && (flags & READS_TABLES) != 0;
  for (const end = at + <usize> length; at < end; at += 16) {
    const word = atomic.load<u64>(at, 8);
    const elementAddress = atomic.load<u64>(at);
    if (!readsAll && (<u32> (word >> 48) & DESC_F_WRITE) != direction) return false;
    if (!add(elementAddress, <u32> word)) return false;
  }
  return true;
}

@inline
function take(direction: u32): bool {
  chainBytes = 0;
  return (flags & PACKED) != 0 ? takePacked(direction) : takeSplit(direction);
}

/**
 * Takes the next chain if it is a single direct descriptor of this direction with `minBytes` to `maxBytes`,
 * which most are. Returns where its bytes lie; 0, and nothing taken, if it is anything else: `take` looks
 * closer.
 */
@inline
function takeOne(direction: u32, minBytes: u64, maxBytes: u64): usize {
  if ((flags & PACKED) != 0) {
    if (free == 0) return 0;
    const descriptor = descriptors + (<usize> next << 4);
    const word = atomic.load<u64>(descriptor, 8);
    const bits = <u32> (word >> 48);
    if ((bits & (TURN | DESC_FLAGS)) != (availableMark | direction)) return 0;
    const at = placeOne(atomic.load<u64>(descriptor), <u64> (<u32> word), minBytes, maxBytes);
    if (at == 0) return 0;
    chainId = <u32> (word >> 32) & 0xffff;
    chainSlots = 1;
    free--;
    if (++next == size) {
      next = 0;
      availableMark ^= TURN;
    }
    return at;
  }
  // What is not seen yet, `take` judges.
  if (next == seen) return 0;
  const head = <u32> atomic.load<u16>(available + (<usize> (next & (size - 1)) << 1), 4);
  if (head >= size) return 0;
  const descriptor = descriptors + (<usize> head << 4);
  const word = atomic.load<u64>(descriptor, 8);
  if ((<u32> (word >> 32) & DESC_FLAGS) != direction) return 0;
  const at = placeOne(atomic.load<u64>(descriptor), <u64> (<u32> word), minBytes, maxBytes);
  if (at == 0) return 0;
  chainId = head;
  chainSlots = 1;
  next = (next + 1) & 0xffff;
  return at;
}

@inline
function placeOne(address: u64, length: u64, minBytes: u64, maxBytes: u64): usize {
  if (length < minBytes || length > maxBytes || length == 0) return 0;
  chainBytes = length;
  return place(address, length);
}

/** Returns a chain; the driver sees it when JavaScript publishes. */
@inline
function push(id: u32, written: u32, slots: u32): void {
  if ((flags & PACKED) == 0) {
    const element = used + 4 + (<usize> (usedNext & (size - 1)) << 3);
    store<u32>(element, id);
    store<u32>(element, written, 4);
    usedNext = (usedNext + 1) & 0xffff;
    return;
  }
  const descriptor = descriptors + (<usize> usedNext << 4);
  const bits = written > 0 ? usedMark | DESC_F_WRITE : usedMark;
  store<u32>(descriptor, written, 8);
  if (first < 0) {
    store<u16>(descriptor, <u16> id, 12);
    first = <i32> usedNext;
    firstFlags = bits;
  } else store<u32>(descriptor, bits << 16 | id, 12);
  usedNext += slots;
  if (usedNext >= size) {
    usedNext -= size;
    usedMark ^= TURN;
  }
  free += slots;
  slotsUsed += slots;
}

/** Copies; quicker than a call of the engine's copy while it is short. */
@inline
function move(to: usize, from: usize, length: usize): void {
  if (length < 16 || length > 256) {
    memory.copy(to, from, length);
    return;
  }
  const last = length - 16;
  const tail = v128.load(from + last);
  for (let i: usize = 0; i < last; i += 16) v128.store(to + i, v128.load(from + i));
  v128.store(to + last, tail);
}

/** Copies within the arena, for plain code: `copyWithin` of a shared memory takes three times as long. */
export function copy(to: f64, from: f64, length: u32): void {
  const target = <usize> to;
  const source = <usize> from;
  if (target > source && target < source + <usize> length) {
    memory.copy(target, source, <usize> length);
    return;
  }
  if (length < 8 || length > 15) {
    move(target, source, <usize> length);
    return;
  }
  const last = <usize> length - 8;
  const tail = load<u64>(source + last);
  store<u64>(target, load<u64>(source));
  store<u64>(target + last, tail);
}

/** Copies the first `total` bytes of an item, at least one, into the pieces of its chains. */
function scatter(item: usize, total: u64): void {
  let row = block + PIECES;
  let to = load<usize>(row);
  let room = <u32> load<u64>(row, 8);
  let from = <usize> load<u32>(item);
  let length = load<u32>(item, 4) & ~LAST_PIECE;
  let left = total;
  for (;;) {
    const count = <u32> min(<u64> min(length, room), left);
    move(to, from, <usize> count);
    left -= <u64> count;
    if (left == 0) return;
    if (count == length) {
      item += 8;
      from = <usize> load<u32>(item);
      length = load<u32>(item, 4) & ~LAST_PIECE;
    } else {
      from += <usize> count;
      length -= count;
    }
    if (count == room) {
      row += 16;
      to = load<usize>(row);
      room = <u32> load<u64>(row, 8);
    } else {
      to += <usize> count;
      room -= count;
    }
  }
}

/** Does a chain of the item have the id of another one? */
function repeatsId(chains: u32): bool {
  const rows = block + CHAIN_ROWS;
  const id = load<u32>(rows + (<usize> (chains - 1) << 4));
  for (let i: u32 = 0; i + 1 < chains; i++) if (load<u32>(rows + (<usize> i << 4)) == id) return true;
  return false;
}

/** Writes items into chains. Returns how many are done. */
export function enqueue(at: u32): u32 {
  load_(at);
  const items = load<u32>(block, ITEM_COUNT);
  const minBytes = <u64> load<u32>(block, MIN_BYTES);
  const countAt = <usize> load<u32>(block, COUNT_AT);
  const rows = block + CHAIN_ROWS;
  let budget = load<f64>(block, BUDGET);
  let item = <usize> load<u32>(block, ITEMS);
  let done: u32 = 0;
  let chainsDone: u32 = 0;
  for (; done < items; done++) {
    let length = load<u32>(item, 4);
    if ((length & LAST_PIECE) != 0 && budget > 0) {
      length &= ~LAST_PIECE;
      const to = takeOne(DESC_F_WRITE, <u64> max(length, <u32> minBytes), <u64> u32.MAX_VALUE);
      if (to != 0) {
        move(to, <usize> load<u32>(item), <usize> length);
        push(chainId, length, 1);
        budget -= <f64> chainBytes + PIECE_UNITS;
        chainsDone++;
        item += 8;
        continue;
      }
    }
    let end = item;
    let total: u64 = 0;
    do {
      length = load<u32>(end, 4);
      total += <u64> (length & ~LAST_PIECE);
      end += 8;
    } while ((length & LAST_PIECE) == 0);
    const next0 = next;
    const mark0 = availableMark;
    const free0 = free;
    let budgetLeft = budget;
    let left = total;
    let chains: u32 = 0;
    pieces = 0;
    while (left > 0) {
      const pieces0 = pieces;
      if (budgetLeft <= 0 || !take(DESC_F_WRITE)) break;
      if (chains == 0 && chainBytes < minBytes) break;
      if (chainBytes < left && countAt == 0) break;
      budgetLeft -= <f64> chainBytes + PIECE_UNITS * <f64> (pieces - pieces0);
      const part = min(chainBytes, left);
      const row = rows + (<usize> chains << 4);
      store<u32>(row, chainId);
      store<u32>(row, <u32> part, 4);
      store<u32>(row, chainSlots, 8);
      chains++;
      if (chains > 1 && (flags & PACKED) != 0 && repeatsId(chains)) break;
      left -= part;
    }
    if (left > 0) {
      next = next0;
      availableMark = mark0;
      free = free0;
      break;
    }
    if (chains > 1) store<u16>(<usize> load<u32>(item) + countAt, <u16> chains);
    scatter(item, total);
    // As plain code does, which knows the number of chains last: buffers may overlap.
    if (chains > 1) scatter(item, minBytes);
    for (let i: u32 = 0; i < chains; i++) {
      const row = rows + (<usize> i << 4);
      push(load<u32>(row), load<u32>(row, 4), load<u32>(row, 8));
    }
    budget = budgetLeft;
    chainsDone += chains;
    item = end;
  }
  store_(budget, chainsDone);
  return done;
}

/** Copies chains into items. Returns how many are done. */
export function dequeue(at: u32): u32 {
  load_(at);
  const items = load<u32>(block, ITEM_COUNT);
  const minBytes = <u64> load<u32>(block, MIN_BYTES);
  const stopAt = <usize> load<u32>(block, STOP_AT);
  let budget = load<f64>(block, BUDGET);
  let item = <usize> load<u32>(block, ITEMS);
  let needed: u32 = 0;
  let done: u32 = 0;
  for (; done < items && budget > 0; done++) {
    const next0 = next;
    const mark0 = availableMark;
    const free0 = free;
    const from = takeOne(0, minBytes, <u64> load<u32>(item, 4));
    if (from != 0) {
      const to = <usize> load<u32>(item);
      move(to, from, <usize> chainBytes);
      store<u32>(item, <u32> chainBytes, 8);
      budget -= <f64> chainBytes + PIECE_UNITS;
      push(chainId, 0, 1);
      if (stopAt != 0 && load<u16>(to + stopAt) != 0) {
        done++;
        break;
      }
      item += 16;
      continue;
    }
    pieces = 0;
    if (!take(0)) break;
    const bytes = chainBytes;
    if (bytes < minBytes || bytes > <u64> load<u32>(item, 4)) {
      if (bytes >= minBytes) needed = <u32> min(bytes, <u64> 0xffffffff);
      next = next0;
      availableMark = mark0;
      free = free0;
      break;
    }
    let to = <usize> load<u32>(item);
    let row = block + PIECES;
    for (let i: u32 = 0; i < pieces; i++, row += 16) {
      const length = load<usize>(row, 8);
      move(to, load<usize>(row), length);
      to += length;
    }
    store<u32>(item, <u32> bytes, 8);
    budget -= <f64> bytes + PIECE_UNITS * <f64> pieces;
    push(chainId, 0, chainSlots);
    if (stopAt != 0 && load<u16>(<usize> load<u32>(item) + stopAt) != 0) {
      done++;
      break;
    }
    item += 16;
  }
  store<u32>(block, needed, NEEDED);
  store_(budget, done);
  return done;
}
