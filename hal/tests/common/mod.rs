//! What the test programs share. The guards are the least that the per-CPU contracts ask for.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::marker::PhantomData;

use std::thread;

use hal::percpu::{IrqsOff, Pinned};
use hal::{Native, Platform};

/// Preemption is off while this lives.
pub(crate) struct NoPreempt(PhantomData<*mut ()>);

impl NoPreempt {
    pub(crate) fn new() -> NoPreempt {
        Native::preempt_disable();
        NoPreempt(PhantomData)
    }
}

impl Drop for NoPreempt {
    fn drop(&mut self) {
        Native::preempt_enable();
    }
}

// SAFETY: preemption is off while a value lives, and it is neither `Send` nor `Sync`.
unsafe impl Pinned for NoPreempt {}

/// Interrupts are off while this lives.
pub(crate) struct NoIrqs(PhantomData<*mut ()>);

impl NoIrqs {
    pub(crate) fn new() -> NoIrqs {
        Native::irq_disable();
        NoIrqs(PhantomData)
    }
}

impl Drop for NoIrqs {
    fn drop(&mut self) {
        Native::irq_enable();
    }
}

// SAFETY: interrupts are off while a value lives, and it is neither `Send` nor `Sync`.
unsafe impl Pinned for NoIrqs {}
// SAFETY: likewise.
unsafe impl IrqsOff for NoIrqs {}

/// Runs `f` on a fresh thread, so that what it leaves behind is its own.
pub(crate) fn on_fresh_thread<R: Send>(f: impl FnOnce() -> R + Send) -> thread::Result<R> {
    thread::scope(|scope| scope.spawn(f).join())
}
