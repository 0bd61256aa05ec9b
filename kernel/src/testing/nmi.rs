//! A hook by which a test runs code in an NMI.

use core::sync::atomic::{AtomicPtr, Ordering};

use hal::x86_64::traps::TrapFrame;

/// The function to run in NMIs, or null.
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// From now on every NMI, on any CPU, calls `hook`; `None` stops it.
pub fn set_hook(hook: Option<fn(&TrapFrame)>) {
    let pointer = hook.map_or(core::ptr::null_mut(), |hook| hook as *mut ());
    // Release: pairs with the Acquire in `on_nmi`; the hook sees what the test prepared.
    HOOK.store(pointer, Ordering::Release);
}

/// For the NMI handler.
pub(crate) fn on_nmi(frame: &TrapFrame) {
    let pointer = HOOK.load(Ordering::Acquire);
    if !pointer.is_null() {
        // SAFETY: only `set_hook` stores here, and it stores functions of this type.
        let hook: fn(&TrapFrame) = unsafe { core::mem::transmute(pointer) };
        hook(frame);
    }
}
