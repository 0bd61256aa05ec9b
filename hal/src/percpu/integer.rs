//! One-instruction operations on per-CPU integers.

use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

use super::PerCpu;

/// An atomic integer that one instruction can update.
///
/// # Safety
/// The type must have the size and representation of `Value`, be valid for every bit pattern, and `Value` must be 1, 2,
/// 4 or 8 bytes.
pub unsafe trait PerCpuInteger: Sync + 'static {
    /// The plain integer.
    type Value: Copy;
    /// Widens for transport in a register, with zeros.
    fn to_bits(value: Self::Value) -> u64;
    /// Undoes [`to_bits`](Self::to_bits), dropping the upper bits.
    fn from_bits(bits: u64) -> Self::Value;
}

macro_rules! integers {
    ($($atomic:ty => $value:ty as $unsigned:ty),*) => {$(
        // SAFETY: std documents that the atomic has the size and bit validity of the plain integer.
        unsafe impl PerCpuInteger for $atomic {
            type Value = $value;
            #[inline(always)]
            fn to_bits(value: $value) -> u64 {
                // By way of the unsigned type of the same size: a sign must not reach the upper bits.
                value as $unsigned as u64
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> $value {
                bits as $value
            }
        }
    )*};
}

integers!(AtomicU8 => u8 as u8, AtomicU16 => u16 as u16, AtomicU32 => u32 as u32, AtomicU64 => u64 as u64,
          AtomicUsize => usize as usize, AtomicI32 => i32 as u32, AtomicI64 => i64 as u64);

/// The machine's access to one variable by its link-time name, written by [`percpu!`](crate::percpu!).
///
/// # Safety
/// Each function acts on the executing CPU's copy of one variable of 1, 2, 4 or 8 bytes, in a single step as far as
/// that CPU's interrupts can tell. Arguments and results use as many low bits as the variable has.
#[doc(hidden)]
#[allow(clippy::missing_safety_doc, missing_docs)]
pub unsafe trait Symbol {
    unsafe fn read() -> u64;
    unsafe fn write(value: u64);
    unsafe fn add(value: u64);
    unsafe fn inc();
    unsafe fn dec();
    unsafe fn or(value: u64);
    unsafe fn and(value: u64);
    unsafe fn dec_is_zero() -> bool;
    unsafe fn exchange(value: u64) -> u64;
    unsafe fn compare_exchange(old: u64, new: u64) -> u64;
}

impl<T: PerCpuInteger, S: Symbol> PerCpu<T, S> {
    /// This CPU's value. Linux: `this_cpu_read`.
    ///
    /// This and the operations below: allowed in every context, NMI included; each is one instruction, which neither
    /// an interrupt nor a move to another CPU can split.
    #[inline(always)]
    pub fn read(&'static self) -> T::Value {
        // SAFETY: `T` is an integer of a size that `S` handles, here and in the methods below.
        T::from_bits(unsafe { S::read() })
    }

    /// Sets this CPU's value. Linux: `this_cpu_write`.
    #[inline(always)]
    pub fn write(&'static self, value: T::Value) {
        // SAFETY: as in `read`.
        unsafe { S::write(T::to_bits(value)) }
    }

    /// Adds, wrapping around. Linux: `this_cpu_add`.
    #[inline(always)]
    pub fn add(&'static self, value: T::Value) {
        // SAFETY: as in `read`.
        unsafe { S::add(T::to_bits(value)) }
    }

    /// Subtracts, wrapping around. Linux: `this_cpu_sub`.
    #[inline(always)]
    pub fn sub(&'static self, value: T::Value) {
        // SAFETY: as in `read`. Adding the two's complement is subtracting.
        unsafe { S::add(T::to_bits(value).wrapping_neg()) }
    }

    /// Adds one, wrapping around. Linux: `this_cpu_inc`.
    #[inline(always)]
    pub fn inc(&'static self) {
        // SAFETY: as in `read`.
        unsafe { S::inc() }
    }

    /// Subtracts one, wrapping around. Linux: `this_cpu_dec`.
    #[inline(always)]
    pub fn dec(&'static self) {
        // SAFETY: as in `read`.
        unsafe { S::dec() }
    }

    /// Sets the bits that are set in `value`. Linux: `this_cpu_or`.
    #[inline(always)]
    pub fn or(&'static self, value: T::Value) {
        // SAFETY: as in `read`.
        unsafe { S::or(T::to_bits(value)) }
    }

    /// Clears the bits that are clear in `value`. Linux: `this_cpu_and`.
    #[inline(always)]
    pub fn and(&'static self, value: T::Value) {
        // SAFETY: as in `read`.
        unsafe { S::and(T::to_bits(value)) }
    }

    /// Subtracts one and says whether the result is 0. Linux: `this_cpu_dec_return(..) == 0`.
    #[inline(always)]
    pub fn dec_is_zero(&'static self) -> bool {
        // SAFETY: as in `read`.
        unsafe { S::dec_is_zero() }
    }

    /// Sets the value and returns the former one. Linux: `this_cpu_xchg`. (On x86_64 an exchange with memory is locked,
    /// and costs as much as an atomic.)
    #[inline(always)]
    pub fn exchange(&'static self, value: T::Value) -> T::Value {
        // SAFETY: as in `read`.
        T::from_bits(unsafe { S::exchange(T::to_bits(value)) })
    }

    /// Sets the value to `new` if it is `old`; returns what it was, as the error if it was something else.
    /// Linux: `this_cpu_cmpxchg`.
    #[inline(always)]
    pub fn compare_exchange(&'static self, old: T::Value, new: T::Value) -> Result<T::Value, T::Value>
    where
        T::Value: PartialEq,
    {
        // SAFETY: as in `read`.
        let was = T::from_bits(unsafe { S::compare_exchange(T::to_bits(old), T::to_bits(new)) });
        if was == old { Ok(was) } else { Err(was) }
    }
}

/// Implements [`Symbol`] for a variable: instructions with a GS prefix. (`{s}` is the variable, or what it is a
/// part of, `{o}` bytes behind the beginning; `{v}` the value.)
#[cfg(target_os = "none")]
#[doc(hidden)]
#[macro_export]
macro_rules! __percpu_symbol {
    ($NAME:ident, $T:ty) => {
        $crate::__percpu_symbol!($NAME, $T, $NAME, 0, $NAME);
    };
    ($Marker:ident, $T:ty, $WHOLE:ident, $offset:expr, $part:expr) => {
        // SAFETY: each function is one instruction on the variable's own symbol through GS, of the variable's size.
        // For types that are no integers nothing calls them.
        unsafe impl $crate::percpu::Symbol for $Marker {
            #[inline(always)]
            unsafe fn read() -> u64 {
                let value: u64;
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["movzx {v:e}, byte ptr gs:[rip + {s} + {o}]", "movzx {v:e}, word ptr gs:[rip + {s} + {o}]",
                     "mov {v:e}, gs:[rip + {s} + {o}]", "mov {v}, gs:[rip + {s} + {o}]"], v = out(reg) value);
                value
            }
            #[inline(always)]
            unsafe fn write(value: u64) {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["mov gs:[rip + {s} + {o}], {v:l}", "mov gs:[rip + {s} + {o}], {v:x}",
                     "mov gs:[rip + {s} + {o}], {v:e}", "mov gs:[rip + {s} + {o}], {v}"], v = in(reg) value);
            }
            #[inline(always)]
            unsafe fn add(value: u64) {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["add gs:[rip + {s} + {o}], {v:l}", "add gs:[rip + {s} + {o}], {v:x}",
                     "add gs:[rip + {s} + {o}], {v:e}", "add gs:[rip + {s} + {o}], {v}"], v = in(reg) value);
            }
            #[inline(always)]
            unsafe fn or(value: u64) {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["or gs:[rip + {s} + {o}], {v:l}", "or gs:[rip + {s} + {o}], {v:x}",
                     "or gs:[rip + {s} + {o}], {v:e}", "or gs:[rip + {s} + {o}], {v}"], v = in(reg) value);
            }
            #[inline(always)]
            unsafe fn and(value: u64) {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["and gs:[rip + {s} + {o}], {v:l}", "and gs:[rip + {s} + {o}], {v:x}",
                     "and gs:[rip + {s} + {o}], {v:e}", "and gs:[rip + {s} + {o}], {v}"], v = in(reg) value);
            }
            #[inline(always)]
            unsafe fn inc() {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["inc byte ptr gs:[rip + {s} + {o}]", "inc word ptr gs:[rip + {s} + {o}]",
                     "inc dword ptr gs:[rip + {s} + {o}]", "inc qword ptr gs:[rip + {s} + {o}]"],);
            }
            #[inline(always)]
            unsafe fn dec() {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["dec byte ptr gs:[rip + {s} + {o}]", "dec word ptr gs:[rip + {s} + {o}]",
                     "dec dword ptr gs:[rip + {s} + {o}]", "dec qword ptr gs:[rip + {s} + {o}]"],);
            }
            #[inline(always)]
            unsafe fn dec_is_zero() -> bool {
                let zero: u8;
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["dec byte ptr gs:[rip + {s} + {o}]\nsetz {z}", "dec word ptr gs:[rip + {s} + {o}]\nsetz {z}",
                     "dec dword ptr gs:[rip + {s} + {o}]\nsetz {z}", "dec qword ptr gs:[rip + {s} + {o}]\nsetz {z}"],
                    z = out(reg_byte) zero);
                zero != 0
            }
            #[inline(always)]
            unsafe fn exchange(mut value: u64) -> u64 {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["xchg gs:[rip + {s} + {o}], {v:l}", "xchg gs:[rip + {s} + {o}], {v:x}",
                     "xchg gs:[rip + {s} + {o}], {v:e}", "xchg gs:[rip + {s} + {o}], {v}"], v = inout(reg) value);
                value
            }
            #[inline(always)]
            unsafe fn compare_exchange(mut old: u64, new: u64) -> u64 {
                $crate::__percpu_sized!($T, $WHOLE, $offset,
                    ["cmpxchg gs:[rip + {s} + {o}], {v:l}", "cmpxchg gs:[rip + {s} + {o}], {v:x}",
                     "cmpxchg gs:[rip + {s} + {o}], {v:e}", "cmpxchg gs:[rip + {s} + {o}], {v}"],
                    v = in(reg) new, inout("rax") old);
                old
            }
        }
    };
}

/// Picks the instruction for the variable's size.
#[cfg(target_os = "none")]
#[doc(hidden)]
#[macro_export]
macro_rules! __percpu_sized {
    ($T:ty, $WHOLE:ident, $offset:expr, [$b:literal, $w:literal, $d:literal, $q:literal], $($operands:tt)*) => {
        // SAFETY: the caller, an implementation of `Symbol`, passes instructions that touch the variable at `$offset` in `$WHOLE` of
        // this CPU and the named operands only.
        unsafe {
            match const { size_of::<$T>() } {
                1 => ::core::arch::asm!($b, s = sym $WHOLE, o = const $offset, $($operands)*),
                2 => ::core::arch::asm!($w, s = sym $WHOLE, o = const $offset, $($operands)*),
                4 => ::core::arch::asm!($d, s = sym $WHOLE, o = const $offset, $($operands)*),
                8 => ::core::arch::asm!($q, s = sym $WHOLE, o = const $offset, $($operands)*),
                _ => ::core::unreachable!(),
            }
        }
    };
}

/// Implements [`Symbol`] for a variable: the same formula with a thread-local base. A virtual CPU is one thread and its
/// interrupts come only at delivery points, so a load and a store are as good as one instruction.
#[cfg(not(target_os = "none"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __percpu_symbol {
    ($NAME:ident, $T:ty) => {
        $crate::__percpu_symbol!($NAME, $T, $NAME, 0, $NAME);
    };
    ($Marker:ident, $T:ty, $WHOLE:ident, $offset:expr, $part:expr) => {
        // SAFETY: each function acts on the variable's copy in the executing thread's area, by its size.
        unsafe impl $crate::percpu::Symbol for $Marker {
            unsafe fn read() -> u64 {
                $crate::percpu::host::load($part.local_ptr())
            }
            unsafe fn write(value: u64) {
                $crate::percpu::host::store($part.local_ptr(), value)
            }
            unsafe fn add(value: u64) {
                $crate::percpu::host::update($part.local_ptr(), |old| old.wrapping_add(value));
            }
            unsafe fn or(value: u64) {
                $crate::percpu::host::update($part.local_ptr(), |old| old | value);
            }
            unsafe fn and(value: u64) {
                $crate::percpu::host::update($part.local_ptr(), |old| old & value);
            }
            unsafe fn inc() {
                $crate::percpu::host::update($part.local_ptr(), |old| old.wrapping_add(1));
            }
            unsafe fn dec() {
                $crate::percpu::host::update($part.local_ptr(), |old| old.wrapping_sub(1));
            }
            unsafe fn dec_is_zero() -> bool {
                $crate::percpu::host::update($part.local_ptr(), |old| old.wrapping_sub(1)).1 == 0
            }
            unsafe fn exchange(value: u64) -> u64 {
                $crate::percpu::host::update($part.local_ptr(), |_| value).0
            }
            unsafe fn compare_exchange(old: u64, new: u64) -> u64 {
                $crate::percpu::host::update($part.local_ptr(), |was| if was == old { new } else { was }).0
            }
        }
    };
}
