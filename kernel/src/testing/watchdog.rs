//! The test's time limit, watched from the timer interrupts of all CPUs, and a hook into them for tests.

use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use hal::{Native, Platform};

use crate::tick;

/// When the running test has had its time, in nanoseconds of the monotonic clock; `NEVER` between tests.
static DEADLINE: AtomicU64 = AtomicU64::new(NEVER);
const NEVER: u64 = u64::MAX;

/// The running test's name; for the report.
static NAME: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static NAME_LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Starts the time of a test.
pub(crate) fn arm(name: &'static str, limit_ms: u64) {
    NAME.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
    NAME_LENGTH.store(name.len(), Ordering::Relaxed);
    // Release: pairs with the Acquire in `on_tick`, which reads the name.
    DEADLINE.store(Native::now_ns() + limit_ms * 1_000_000, Ordering::Release);
}

/// The test has ended in time.
pub(super) fn disarm() {
    DEADLINE.store(NEVER, Ordering::Relaxed);
}

/// The function to run in the next timer interrupt, or null.
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Runs `hook` once, in the next timer interrupt of whatever CPU.
pub fn in_next_tick(hook: fn()) {
    // Release: pairs with the Acquire in `on_tick`; the hook sees what the test prepared.
    HOOK.store(hook as *mut (), Ordering::Release);
    tick::wake_all();
}

/// For every CPU's timer interrupt: runs the hook if there is one, and stops the machine with a report when the test's time is over.
pub(crate) fn on_tick() {
    if !HOOK.load(Ordering::Relaxed).is_null() {
        // Acquire: pairs with the Release in `in_next_tick`.
        let pointer = HOOK.swap(core::ptr::null_mut(), Ordering::Acquire);
        if !pointer.is_null() {
            // SAFETY: only `in_next_tick` stores here, and it stores functions of this type.
            let hook: fn() = unsafe { core::mem::transmute(pointer) };
            hook();
        }
    }
    // Acquire: pairs with the Release in `arm`.
    let deadline = DEADLINE.load(Ordering::Acquire);
    if deadline == NEVER || Native::now_ns() < deadline {
        return;
    }
    // SAFETY: set together by `arm` from a `&'static str`; between tests the deadline is NEVER.
    let name = unsafe {
        let bytes =
            core::slice::from_raw_parts(NAME.load(Ordering::Relaxed), NAME_LENGTH.load(Ordering::Relaxed));
        core::str::from_utf8_unchecked(bytes)
    };
    crate::panic::stop(&|out| writeln!(out, "test {name} exceeded its time limit"), None);
}
