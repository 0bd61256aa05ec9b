//! Atomic accesses of a build that watches for data races: the compiler calls these instead of making them.
//!
//! Each is looked up and sampled as a marked access, and then made, by one instruction that is at least as strong as the
//! order asks for. On x86 that is an easy choice: loads acquire, stores release, and a locked instruction is a full
//! barrier. Only a sequentially consistent store has to be told from others; it is an exchange.

use core::arch::asm;

use super::thread::{MARKED, WRITE, access};

/// Memory orders as the compiler numbers them: this is the strongest.
const SEQ_CST: u32 = 5;

macro_rules! atomics {
    ($($ty:ty, $size:literal, $word:literal, $class:ident, $modifier:literal, $a:tt:
        $load:ident $store:ident $exchange:ident $add:ident $sub:ident $and:ident $or:ident $xor:ident $nand:ident
        $compare:ident;)*) => {$(
        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $load(address: u64, _order: u32) -> $ty {
            access(address, $size, MARKED);
            let value: $ty;
            // SAFETY: the caller's access, an aligned one: a single load.
            unsafe {
                asm!(concat!("mov {0", $modifier, "}, ", $word, " ptr [{1}]"), out($class) value, in(reg) address,
                    options(nostack, preserves_flags));
            }
            value
        }

        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $store(address: u64, value: $ty, order: u32) {
            access(address, $size, MARKED | WRITE);
            // SAFETY: the caller's access, an aligned one.
            unsafe {
                if order == SEQ_CST {
                    asm!(concat!("xchg ", $word, " ptr [{1}], {0", $modifier, "}"), inout($class) value => _,
                        in(reg) address, options(nostack, preserves_flags));
                } else {
                    asm!(concat!("mov ", $word, " ptr [{1}], {0", $modifier, "}"), in($class) value,
                        in(reg) address, options(nostack, preserves_flags));
                }
            }
        }

        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $exchange(address: u64, mut value: $ty, _order: u32) -> $ty {
            access(address, $size, MARKED | WRITE);
            // SAFETY: the caller's access; `xchg` with memory is locked.
            unsafe {
                asm!(concat!("xchg ", $word, " ptr [{1}], {0", $modifier, "}"), inout($class) value,
                    in(reg) address, options(nostack, preserves_flags));
            }
            value
        }

        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $add(address: u64, mut value: $ty, _order: u32) -> $ty {
            access(address, $size, MARKED | WRITE);
            // SAFETY: the caller's access.
            unsafe {
                asm!(concat!("lock xadd ", $word, " ptr [{1}], {0", $modifier, "}"), inout($class) value,
                    in(reg) address, options(nostack));
            }
            value
        }

        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $sub(address: u64, value: $ty, _order: u32) -> $ty {
            access(address, $size, MARKED | WRITE);
            let mut value = value.wrapping_neg();
            // SAFETY: the caller's access.
            unsafe {
                asm!(concat!("lock xadd ", $word, " ptr [{1}], {0", $modifier, "}"), inout($class) value,
                    in(reg) address, options(nostack));
            }
            value
        }

        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $compare(address: u64, old: $ty, new: $ty, _order: u32, _failed: u32) -> $ty {
            // One that fails does not write, but who may write has to expect that it does.
            access(address, $size, MARKED | WRITE);
            exchange_if!($ty, $word, $class, $modifier, $a, address, old, new)
        }

        atomics!(@loop $and($ty, $size, $word, $class, $modifier, $a) |there, value| there & value);
        atomics!(@loop $or($ty, $size, $word, $class, $modifier, $a) |there, value| there | value);
        atomics!(@loop $xor($ty, $size, $word, $class, $modifier, $a) |there, value| there ^ value);
        atomics!(@loop $nand($ty, $size, $word, $class, $modifier, $a) |there, value| !(there & value));
    )*};
    (@loop $name:ident($ty:ty, $size:literal, $word:literal, $class:ident, $modifier:literal, $a:tt)
        |$there:ident, $value:ident| $new:expr) => {
        #[unsafe(no_mangle)]
        #[sanitize(thread = "off")]
        extern "C" fn $name(address: u64, $value: $ty, _order: u32) -> $ty {
            access(address, $size, MARKED | WRITE);
            // A guess at first, which the first round corrects.
            let mut $there: $ty = 0;
            loop {
                let seen = exchange_if!($ty, $word, $class, $modifier, $a, address, $there, $new);
                if seen == $there {
                    return seen;
                }
                $there = seen;
            }
        }
    };
}

/// `lock cmpxchg`: what was there.
macro_rules! exchange_if {
    ($ty:ty, $word:literal, $class:ident, $modifier:literal, $a:tt, $address:expr, $old:expr, $new:expr) => {{
        let there: $ty;
        // SAFETY: the caller's access.
        unsafe {
            asm!(concat!("lock cmpxchg ", $word, " ptr [{1}], {0", $modifier, "}"), in($class) $new, in(reg) $address,
                inout($a) $old => there, options(nostack));
        }
        there
    }};
}

atomics! {
    u8, 1, "byte", reg_byte, "", "al":
        __tsan_atomic8_load __tsan_atomic8_store __tsan_atomic8_exchange __tsan_atomic8_fetch_add
        __tsan_atomic8_fetch_sub __tsan_atomic8_fetch_and __tsan_atomic8_fetch_or __tsan_atomic8_fetch_xor
        __tsan_atomic8_fetch_nand __tsan_atomic8_compare_exchange_val;
    u16, 2, "word", reg, ":x", "ax":
        __tsan_atomic16_load __tsan_atomic16_store __tsan_atomic16_exchange __tsan_atomic16_fetch_add
        __tsan_atomic16_fetch_sub __tsan_atomic16_fetch_and __tsan_atomic16_fetch_or __tsan_atomic16_fetch_xor
        __tsan_atomic16_fetch_nand __tsan_atomic16_compare_exchange_val;
    u32, 4, "dword", reg, ":e", "eax":
        __tsan_atomic32_load __tsan_atomic32_store __tsan_atomic32_exchange __tsan_atomic32_fetch_add
        __tsan_atomic32_fetch_sub __tsan_atomic32_fetch_and __tsan_atomic32_fetch_or __tsan_atomic32_fetch_xor
        __tsan_atomic32_fetch_nand __tsan_atomic32_compare_exchange_val;
    u64, 8, "qword", reg, "", "rax":
        __tsan_atomic64_load __tsan_atomic64_store __tsan_atomic64_exchange __tsan_atomic64_fetch_add
        __tsan_atomic64_fetch_sub __tsan_atomic64_fetch_and __tsan_atomic64_fetch_or __tsan_atomic64_fetch_xor
        __tsan_atomic64_fetch_nand __tsan_atomic64_compare_exchange_val;
}

#[unsafe(no_mangle)]
#[sanitize(thread = "off")]
extern "C" fn __tsan_atomic_thread_fence(order: u32) {
    if order == SEQ_CST {
        // SAFETY: a full barrier. For weaker ones the call is enough: the processor keeps that order by itself.
        unsafe { asm!("mfence", options(nostack, preserves_flags)) };
    }
}

/// Keeps the compiler's order, which a call does by itself.
#[unsafe(no_mangle)]
extern "C" fn __tsan_atomic_signal_fence(_order: u32) {}
