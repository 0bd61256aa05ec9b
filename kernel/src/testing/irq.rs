//! Hooks by which a test runs code in hardware interrupts: the timer's, and those that CPUs send each other for calls.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use hal::CpuId;
use hal::x86_64::{apic, vectors};
use sync::IrqSpinLock;

use crate::tick::{self, KeepTicks};

/// Which interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The APIC timer.
    Timer,
    /// The vector for calls, which [`send_call`] sends.
    Call,
}

/// The functions to run, or null.
static HOOKS: [AtomicPtr<fn()>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

/// While there is a hook in the timer's interrupt, that comes.
static TICKS: IrqSpinLock<Option<KeepTicks>> = IrqSpinLock::new(None);

/// From now on the interrupt, on every CPU, calls `hook`, in hardirq context; `None` stops it.
pub fn set_hook(source: Source, hook: Option<&'static fn()>) {
    let pointer = hook.map_or(ptr::null_mut(), |hook| ptr::from_ref(hook).cast_mut());
    // Release: pairs with the Acquire in `run`; the hook sees what the test prepared.
    HOOKS[source as usize].store(pointer, Ordering::Release);
    if source == Source::Timer {
        let kept = hook.map(|_| tick::keep_all());
        let before = core::mem::replace(&mut *TICKS.lock(), kept);
        drop(before);
    }
}

/// Both interrupts do nothing more from now on.
pub(super) fn remove_hooks() {
    set_hook(Source::Timer, None);
    set_hook(Source::Call, None);
}

/// Interrupts `cpu`, which may be the caller's, with the vector for calls.
pub fn send_call(cpu: CpuId) {
    apic::send_ipi_to_cpu(cpu, vectors::CALL);
}

/// For the timer's handler.
pub(crate) fn on_timer() {
    run(Source::Timer);
}

/// For the handler of the vector for calls.
pub(crate) fn on_call() {
    run(Source::Call);
}

fn run(source: Source) {
    // SAFETY: null, or a `'static` function that `set_hook` stored.
    if let Some(hook) = unsafe { HOOKS[source as usize].load(Ordering::Acquire).as_ref() } {
        hook();
    }
}
