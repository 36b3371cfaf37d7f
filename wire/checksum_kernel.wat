;; The sum of 16-bit little-endian words, by vectors of eight: what checksum.ts does in plain code, five times as fast.
;; Written out as bytes in checksum_kernel.ts by `deno task wasm`.
;;
;; Two words are multiplied by one and added to a 32-bit lane by a single instruction, i32x4.dot_i16x8_s, which takes signed
;; words. Hence every word loses 0x8000 first, and all of it is added again at once: 0x10000 for two words, so four bytes
;; are 1 << 16 and a multiple of 16 bytes n is n << 14. No lane overflows, and the whole sum of 131071 bytes is below
;; 2^32.
(module
  (import "host" "memory" (memory 1 65536))
  ;; $at: first byte. $length: 0 to 131071. The result is folded once, and so below 0x20000.
  (func (export "sum") (param $at i32) (param $length i32) (result i32)
    (local $a v128) (local $b v128) (local $end i32) (local $total i32) (local $ones v128) (local $bias v128)
    (local.set $ones (v128.const i16x8 1 1 1 1 1 1 1 1))
    (local.set $bias (v128.const i16x8 0x8000 0x8000 0x8000 0x8000 0x8000 0x8000 0x8000 0x8000))
    (local.set $total (i32.shl (i32.and (local.get $length) (i32.const 0x1fff0)) (i32.const 14)))
    (local.set $end (i32.add (local.get $at) (i32.and (local.get $length) (i32.const 0x1ffc0))))
    ;; 64 bytes at a time, in two lanes of four, so that one addition need not wait for the other.
    (if (i32.lt_u (local.get $at) (local.get $end))
      (then
        (loop $blocks
          (local.set $a (i32x4.add (local.get $a) (i32x4.dot_i16x8_s (local.get $ones)
            (v128.xor (local.get $bias) (v128.load align=1 (local.get $at))))))
          (local.set $b (i32x4.add (local.get $b) (i32x4.dot_i16x8_s (local.get $ones)
            (v128.xor (local.get $bias) (v128.load offset=16 align=1 (local.get $at))))))
          (local.set $a (i32x4.add (local.get $a) (i32x4.dot_i16x8_s (local.get $ones)
            (v128.xor (local.get $bias) (v128.load offset=32 align=1 (local.get $at))))))
          (local.set $b (i32x4.add (local.get $b) (i32x4.dot_i16x8_s (local.get $ones)
            (v128.xor (local.get $bias) (v128.load offset=48 align=1 (local.get $at))))))
          (br_if $blocks (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 64))) (local.get $end))))))
    ;; What is left: 32, 16, 8, 4, 2 and 1 bytes. From 8 on nothing is biased: the other words of the vector are zeros.
    (if (i32.and (local.get $length) (i32.const 32))
      (then
          (local.set $a (i32x4.add (local.get $a) (i32x4.dot_i16x8_s (local.get $ones)
            (v128.xor (local.get $bias) (v128.load align=1 (local.get $at))))))
          (local.set $b (i32x4.add (local.get $b) (i32x4.dot_i16x8_s (local.get $ones)
            (v128.xor (local.get $bias) (v128.load offset=16 align=1 (local.get $at))))))
          (local.set $at (i32.add (local.get $at) (i32.const 32)))))
    (if (i32.and (local.get $length) (i32.const 16))
      (then
          (local.set $a (i32x4.add (local.get $a) (i32x4.dot_i16x8_s (local.get $ones)
            (v128.xor (local.get $bias) (v128.load align=1 (local.get $at))))))
          (local.set $at (i32.add (local.get $at) (i32.const 16)))))
    (local.set $a (i32x4.add (local.get $a) (local.get $b)))
    (if (i32.and (local.get $length) (i32.const 8))
      (then
          (local.set $a (i32x4.add (local.get $a) (i32x4.extadd_pairwise_i16x8_u (v128.load64_zero align=1 (local.get $at)))))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))))
    (if (i32.and (local.get $length) (i32.const 4))
      (then
          (local.set $a (i32x4.add (local.get $a) (i32x4.extadd_pairwise_i16x8_u (v128.load32_zero align=1 (local.get $at)))))
          (local.set $at (i32.add (local.get $at) (i32.const 4)))))
    (if (i32.and (local.get $length) (i32.const 2))
      (then
          (local.set $total (i32.add (local.get $total) (i32.load16_u align=1 (local.get $at))))
          (local.set $at (i32.add (local.get $at) (i32.const 2)))))
    (if (i32.and (local.get $length) (i32.const 1))
      (then (local.set $total (i32.add (local.get $total) (i32.load8_u (local.get $at))))))
    (local.set $a (i32x4.add (local.get $a) (i8x16.shuffle 8 9 10 11 12 13 14 15 0 1 2 3 4 5 6 7 (local.get $a) (local.get $a))))
    (local.set $total (i32.add (local.get $total)
      (i32.add (i32x4.extract_lane 0 (local.get $a)) (i32x4.extract_lane 1 (local.get $a)))))
    (i32.add (i32.and (local.get $total) (i32.const 0xffff)) (i32.shr_u (local.get $total) (i32.const 16)))))
