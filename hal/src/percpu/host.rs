//! Integer operations of the hosted machine, on a pointer into the executing thread's area.
//!
//! The accesses are atomic, because threads that play other CPUs read them; the read-modify-writes are not, as on the
//! machine that they play.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Loads a 1, 2, 4 or 8 byte integer.
pub fn load<T>(ptr: *const T) -> u64 {
    // SAFETY: `ptr` is a per-CPU integer of this size in a live area (the contract of `Symbol`), shared as an atomic.
    unsafe {
        match size_of::<T>() {
            1 => (*ptr.cast::<AtomicU8>()).load(Relaxed).into(),
            2 => (*ptr.cast::<AtomicU16>()).load(Relaxed).into(),
            4 => (*ptr.cast::<AtomicU32>()).load(Relaxed).into(),
            8 => (*ptr.cast::<AtomicU64>()).load(Relaxed),
            size => unreachable!("no integer has {size} bytes"),
        }
    }
}

/// Stores the low bytes of `value`.
pub fn store<T>(ptr: *const T, value: u64) {
    // SAFETY: as in `load`.
    unsafe {
        match size_of::<T>() {
            1 => (*ptr.cast::<AtomicU8>()).store(value as u8, Relaxed),
            2 => (*ptr.cast::<AtomicU16>()).store(value as u16, Relaxed),
            4 => (*ptr.cast::<AtomicU32>()).store(value as u32, Relaxed),
            8 => (*ptr.cast::<AtomicU64>()).store(value, Relaxed),
            size => unreachable!("no integer has {size} bytes"),
        }
    }
}

/// Replaces the value by a function of it; returns the old and the new one, cut to size.
pub fn update<T>(ptr: *const T, f: impl FnOnce(u64) -> u64) -> (u64, u64) {
    let old = load(ptr);
    store(ptr, f(old));
    (old, load(ptr))
}
