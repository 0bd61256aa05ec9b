//! Sets of CPUs.
//!
//! A [`CpuMask`] is a value: it belongs to one execution, grows with the highest CPU put into it, and does set algebra.
//! An [`AtomicCpuMask`] is a place: all CPUs change and read it at once, one bit at a time, and a
//! [`snapshot`](AtomicCpuMask::snapshot) turns it into a value. Only the value needs an allocator (feature `alloc`).
//!
//! Linux: `struct cpumask`, `cpumask_var_t` and the `cpumask_*` functions.

mod shared;
#[cfg(feature = "alloc")]
mod value;

pub use shared::AtomicCpuMask;
#[cfg(feature = "alloc")]
pub use value::{CpuMask, Iter, ParseMaskError};

use crate::{CpuId, MAX_CPUS};

const WORD_BITS: usize = u64::BITS as usize;
/// Words of a set of all CPUs that a build can have.
const MAX_WORDS: usize = MAX_CPUS.div_ceil(WORD_BITS);

/// The word and the bit of a CPU.
const fn place(cpu: CpuId) -> (usize, u64) {
    (cpu.index() / WORD_BITS, 1 << (cpu.index() % WORD_BITS))
}

#[cfg(all(test, feature = "alloc"))]
mod tests;
