//! Atomics: the machine's, or those of the model checker.
//!
//! Under `--cfg loom` every atomic of the algorithms is loom's, which tries all the values that a load may legally
//! return. Loom's constructors are not `const`; `const_fn!` says it once for both. Under `--cfg shuttle` they are shuttle's,
//! which lets threads alternate at each of them, in sequentially consistent schedules.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Declares functions `const`, except where the model checker's atomics cannot be made in constants.
macro_rules! const_fn {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($args:tt)*) -> $Ret:ty $body:block)*) => {$(
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($args)*) -> $Ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($args)*) -> $Ret $body
    )*};
}
pub(crate) use const_fn;
