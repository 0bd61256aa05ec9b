//! Reading without a store: sequence counts, sequence locks, and a latch for NMI.
//!
//! A lock that readers take is a word that every reader writes, so that readers on many CPUs take its cache line from
//! each other although none of them changes anything. Here readers only look, and find out afterwards whether they
//! were disturbed:
//!
//! 1. A number is even while the data is at rest. A writer makes it odd, changes the data, and makes it even again, one
//!    round higher.
//! 2. A reader notes the number (and waits while it is odd), copies the data, and looks at the number again. If it is
//!    the same, no writer was there in between and the copy is one state of the data. Otherwise the reader starts over.
//! 3. Reader and writer do touch the data at the same time. So the data is copied by relaxed atomic words: what a
//!    disturbed reader gets is a mixture, but a defined one, and it is thrown away before it becomes a `T`.
//!
//! This is for small data that is read far more often than it is written: a clock's parameters, a pair of counters, a
//! configuration. The data holds no pointers that a writer frees (a disturbed reader may follow one before it learns
//! that it was disturbed); that is what RCU is for. Writers exclude each other by a spin lock, and are not preempted.
//!
//! | | who may read while a write is going on | the reader |
//! |---|---|---|
//! | [`SeqLock`] | nobody, for the few nanoseconds in which the new value is copied in | waits, then starts over |
//! | [`Latch`] | everybody, the NMI that interrupted the writer too | never waits for a writer |
//! | [`SeqCount`] | as `SeqLock`; the data is somewhere else | as the caller writes it |
//!
//! What the number's orderings carry is argued in `protocol.rs`; how a `T` is copied by words in `words.rs`.

mod count;
mod guard;
mod latch;
mod lock;
mod protocol;
mod words;
mod writer;

/// For the derive's attribute; see [`NoUninit`](trait@NoUninit).
pub use bytemuck;
/// The trait of data that a [`SeqLock`] or [`Latch`] can hold: `Copy`, and without padding, whose bytes nobody may
/// read. Integers, floats, `bool`, fieldless enums and arrays have it.
///
/// A struct gets it by a derive (feature `derive`, on by default):
///
/// ```
/// use sync::seq::NoUninit;
///
/// #[derive(Clone, Copy, NoUninit)]
/// #[bytemuck(crate = "sync::seq::bytemuck")]
/// #[repr(C)]
/// struct Clock {
///     base_ns: u64,
///     mult: u32,
///     shift: u32, // without it the struct has no padding either; with a `u16` here the derive refuses it
/// }
/// ```
pub use bytemuck::NoUninit;
pub use count::{Begun, SeqCount, SeqCountGuard};
pub use guard::{Target, WriteGuard};
pub use latch::{Latch, LatchGuard, LatchWithGuard};
pub use lock::{IrqSeqLock, SeqLock, SeqLockGuard, SeqLockWithGuard};
