//! Atomics: the machine's, or those of a model checker. The constructors of loom's are not `const`.

#[cfg(not(any(loom, shuttle)))]
#[allow(unused_imports, reason = "not every build has a user for each")]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(loom)]
#[allow(unused_imports, reason = "not every build has a user for each")]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(shuttle)]
#[allow(unused_imports, reason = "not every build has a user for each")]
pub(crate) use shuttle::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(not(loom))]
pub(crate) use core::cell::Cell;

/// Loom's notices accesses that nothing orders.
#[cfg(loom)]
pub(crate) use loom::cell::Cell;

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
