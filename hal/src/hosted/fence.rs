//! Asymmetric fences.
//!
//! Linux's `membarrier` makes every running thread of the process execute a full fence. With it the light side is a
//! compiler barrier. Where the call does not exist both sides are full fences.

use core::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};
use std::sync::OnceLock;

/// Whether heavy fences reach all threads, so that light ones need not be fences.
///
/// Light fences go by it from the moment it is set, and heavy ones settle it before they do anything else: a light fence
/// that was not one is always met by a heavy one that uses `membarrier`.
static EXPEDITED: AtomicBool = AtomicBool::new(false);

#[inline]
pub(super) fn light() {
    // Relaxed: whichever value is read, the argument above holds; a full fence is never wrong.
    if EXPEDITED.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        // Pairs with the fence in `heavy`.
        fence(Ordering::SeqCst);
    }
}

pub(super) fn heavy() {
    static SETTLED: OnceLock<bool> = OnceLock::new();
    let expedited = *SETTLED.get_or_init(|| {
        let registered = membarrier::register();
        EXPEDITED.store(registered, Ordering::Relaxed);
        registered
    });
    // Pairs with the fence, or the compiler fence that `membarrier` promotes, in `light`.
    fence(Ordering::SeqCst);
    if expedited {
        membarrier::all_threads();
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod membarrier {
    use rustix::thread::{MembarrierCommand, membarrier};

    pub(super) fn register() -> bool {
        membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
    }

    pub(super) fn all_threads() {
        // Registered, and without flags, the call has no way to fail.
        membarrier(MembarrierCommand::PrivateExpedited).expect("membarrier failed after it was registered");
    }
}

#[cfg(any(not(target_os = "linux"), miri))]
mod membarrier {
    pub(super) fn register() -> bool {
        false
    }

    pub(super) fn all_threads() {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }
}
