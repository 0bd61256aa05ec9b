//! Having a function run on another CPU, in a hardware interrupt.
//!
//! [`sync::call`] is how it works and says what each function here promises; this is the machine's one instance, on the
//! interrupt vector for calls. A CPU takes calls from when it has gone on-line until it goes off-line.
//!
//! | you want | use |
//! |---|---|
//! | a function run on one CPU, and its result | [`single`] |
//! | on several, on all others, on all | [`many`], [`others`], [`all`] |
//! | not to wait | a static [`CallData`] and [`queue`] |
//! | to leave an NMI handler, or a place that must not wake tasks | a static [`CallData`] and [`irq_work`], [`irq_work_lazy`] |
//! | all CPUs to stand still | [`stop_machine`](crate::stop_machine) |

use core::marker::PhantomData;

use hal::cpumask::CpuMask;
use hal::percpu::{IrqsOff, Pinned};
use hal::x86_64::{apic, vectors};
use hal::{CpuId, Native, Platform};
use sync::call::Calls;
pub use sync::call::{CallData, CallError};

use crate::tick;

static CALLS: Calls = Calls::new(interrupt);

/// Sends the interrupt to the executing CPU: a form that needs fewer accesses to the APIC, each of which leaves a guest.
#[inline(always)]
fn interrupt_here() {
    apic::send_ipi_self(vectors::CALL);
}

/// Sends the interrupt.
fn interrupt(cpu: CpuId) {
    // Off, so that "oneself" stays true until it is sent. Any context may do this.
    Native::irq_disable();
    if cpu == Native::cpu() {
        interrupt_here();
    } else {
        apic::send_ipi_to_cpu(cpu, vectors::CALL);
    }
    Native::irq_enable();
}

/// Runs `function` on `cpu` and returns its result. See [`Calls::single`].
///
/// Linux: `smp_call_function_single`. Contexts: task or softirq, with interrupts on.
///
/// # Errors
/// [`CallError::Offline`], [`CallError::InNmi`].
#[track_caller]
pub fn single<R: Send>(cpu: CpuId, function: impl FnOnce() -> R + Send) -> Result<R, CallError> {
    CALLS.single(cpu, function)
}

/// Runs `function` on all of `cpus` at the same time, and returns when all are done. See [`Calls::many`].
///
/// Linux: `smp_call_function_many`, `on_each_cpu_mask`. Contexts: as for [`single`].
///
/// # Errors
/// [`CallError::Offline`] names the first CPU that was not called; all others were.
#[track_caller]
pub fn many(cpus: &CpuMask, function: impl Fn(CpuId) + Sync) -> Result<(), CallError> {
    CALLS.many(cpus, function)
}

/// Runs `function` on every other CPU and returns how many that were. See [`Calls::others`].
///
/// Linux: `smp_call_function`. Contexts: as for [`single`].
///
/// # Errors
/// [`CallError::InNmi`].
#[track_caller]
pub fn others(function: impl Fn(CpuId) + Sync) -> Result<u32, CallError> {
    CALLS.others(function)
}

/// Runs `function` on every CPU, the executing one included, and returns how many they are. See [`Calls::all`].
///
/// Linux: `on_each_cpu`. Contexts: as for [`single`].
///
/// # Errors
/// [`CallError::InNmi`].
#[track_caller]
pub fn all(function: impl Fn(CpuId) + Sync) -> Result<u32, CallError> {
    CALLS.all(function)
}

/// Has `cpu` run the descriptor's function, and does not wait. See [`Calls::queue`].
///
/// Linux: `smp_call_function_single_async`, `irq_work_queue_on`. Contexts: any, NMI included.
///
/// # Errors
/// [`CallError::Pending`], [`CallError::Offline`].
pub fn queue<F: Fn() + Sync + 'static>(cpu: CpuId, data: &'static CallData<F>) -> Result<(), CallError> {
    CALLS.queue(cpu, data)
}

/// Has this CPU run the descriptor's function in hardirq context as soon as it takes interrupts. Says whether it was not
/// pending already; either way a run follows that sees what the caller did before.
///
/// Linux: `irq_work_queue`. Contexts: any, NMI included.
#[inline]
pub fn irq_work<F: Fn() + Sync + 'static>(data: &'static CallData<F>) -> bool {
    // Only a CPU that is on its way out refuses, and that runs nothing but its last steps.
    CALLS.queue_here(data, interrupt_here).is_ok()
}

/// The same at this CPU's next tick, without an interrupt of its own while the tick does not rest.
///
/// Linux: `irq_work_queue` with `IRQ_WORK_LAZY`. Contexts: any, NMI included.
pub fn irq_work_lazy<F: Fn() + Sync + 'static>(data: &'static CallData<F>) -> bool {
    // Off, so that the tick is that of the CPU on which the work waits.
    Native::irq_disable();
    let queued = CALLS.queue_lazy(data).is_ok();
    // After the work is queued: see R3 in `tick::rest`.
    if tick::rests_here() {
        interrupt_here();
    }
    Native::irq_enable();
    queued
}

/// Whether something waits for this CPU's next tick.
pub(crate) fn has_lazy() -> bool {
    CALLS.has_lazy()
}

/// Waits until the descriptor is neither pending nor running. See [`Calls::wait_for`].
///
/// Linux: `irq_work_sync`. Contexts: as for [`single`].
///
/// # Errors
/// [`CallError::InNmi`].
#[track_caller]
pub fn wait_for<F>(data: &CallData<F>) -> Result<(), CallError> {
    CALLS.wait_for(data)
}

/// Functions that `cpu` has been called with.
pub fn served(cpu: CpuId) -> u64 {
    CALLS.served(cpu)
}

/// Sets after which time a CPU that does not answer is reported, and returns what it was, in nanoseconds.
pub fn set_patience_ns(ns: u64) -> u64 {
    let before = CALLS.patience_ns();
    CALLS.set_patience_ns(ns);
    before
}

/// The executing CPU takes calls from here on.
pub(crate) fn open_here(_quiet: &impl IrqsOff) {
    CALLS.open(Native::cpu());
}

/// The executing CPU takes no more calls. What was sent to it runs here and now.
pub(crate) fn close_here(quiet: &impl IrqsOff) {
    CALLS.close(quiet);
}

/// In an interrupt's handler, which runs with interrupts off from its beginning to its end.
///
/// # Invariants
/// That is where the value is.
struct Handling(PhantomData<*mut ()>);

// SAFETY: an interrupt's handler stays on its CPU. Neither `Send` nor `Sync`.
unsafe impl Pinned for Handling {}
// SAFETY: by the invariant; the entry has counted it.
unsafe impl IrqsOff for Handling {}

/// For the vector of calls.
#[inline(always)]
pub(crate) fn on_interrupt() {
    // INVARIANT: this is the handler.
    let quiet = Handling(PhantomData);
    CALLS.serve(&quiet);
    if tick::rests_here() {
        CALLS.serve_lazy(&quiet);
    }
    crate::testing::irq::on_call();
}

/// For the tick.
pub(crate) fn on_tick(quiet: &impl IrqsOff) {
    CALLS.serve_lazy(quiet);
}
