//! Which thread plays which CPU.
//!
//! A CPU's number is taken from the pool, lowest first, by the binding and goes back when the last [`Binding`] of its
//! thread is dropped *and* the CPU's state is as it was when it booted. A CPU that is left in a bad state (a leaked
//! guard, a held lock) is reported and its number is never used again, because the next thread would inherit the state.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use std::alloc::Layout;

use super::machine::{RECORD, SOFTIRQS};
use super::vcpu::Vcpu;
use crate::context::{IRQ_DEPTH, NO_RESCHED_NEEDED, PREEMPT_WORD};
use crate::cpumask::AtomicCpuMask;
use crate::percpu::{AREA_ALIGN, area_size, base_of, install, set_host_base};
use crate::{CpuId, MAX_CPUS, Native, Platform};

/// CPUs that a thread has, or had and left in a bad state.
static TAKEN: AtomicCpuMask = AtomicCpuMask::new();

/// All virtual CPUs are bound to live threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoCpuLeft;

impl fmt::Display for NoCpuLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "all {MAX_CPUS} virtual CPUs are bound; let a thread that has one end or drop its Binding, \
             or build with a larger QUIESCE_MAX_CPUS"
        )
    }
}

impl std::error::Error for NoCpuLeft {}

/// Keeps the executing thread bound to a virtual CPU. Returned by [`bind`].
///
/// # Panics
/// Dropping the thread's last binding panics if the CPU is left in a bad state: preemption, bottom halves or interrupts
/// off, or a lock held. (If the thread is panicking already, or ends without having dropped it, a message is printed
/// instead.)
#[must_use = "the thread is unbound when the binding is dropped"]
#[derive(Debug)]
pub struct Binding {
    cpu: CpuId,
    thread_bound: PhantomData<*mut ()>,
}

impl Binding {
    /// The CPU that this thread plays.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        match BINDINGS.get() {
            // The thread is ending and has been unbound before this was dropped.
            0 => (),
            1 => match unbind() {
                Err(bad) if !std::thread::panicking() => panic!("{bad}"),
                Err(bad) => std::eprintln!("{bad}"),
                Ok(()) => (),
            },
            more => BINDINGS.set(more - 1),
        }
    }
}

std::thread_local! {
    /// How many bindings the thread has. The base in `percpu` is set exactly while this is not 0.
    static BINDINGS: Cell<usize> = const { Cell::new(0) };
    /// Unbinds the thread when it ends, if it still is bound: from its first use, or because a `Binding` was leaked.
    static AT_EXIT: AtExit = const { AtExit };
}

struct AtExit;

impl Drop for AtExit {
    fn drop(&mut self) {
        if is_bound() {
            // A panic that leaves a thread-local's destructor would end the process, so none does. One of a handler has
            // been printed by its hook; the CPU stays taken.
            if let Ok(Err(bad)) = std::panic::catch_unwind(unbind) {
                std::eprintln!("{bad}");
            }
        }
    }
}

/// Binds the executing thread to a virtual CPU of its own until the returned guard is dropped. A thread that is bound
/// already stays on its CPU and gets a further guard for it.
///
/// The per-CPU area is made when a number is first used and kept for the life of the process: per-CPU variables of a
/// number that is used again hold what they last held. Interrupts are on, and nothing is pending.
///
/// # Errors
/// [`NoCpuLeft`] if [`MAX_CPUS`] threads are bound.
///
/// ```
/// use hal::{Native, Platform, hosted};
/// let binding = hosted::bind()?;
/// assert_eq!(Native::cpu(), binding.cpu());
/// assert_eq!(Native::irq_depth(), 0);
/// # Ok::<(), hosted::NoCpuLeft>(())
/// ```
pub fn bind() -> Result<Binding, NoCpuLeft> {
    if !is_bound() {
        boot(take().ok_or(NoCpuLeft)?);
        // Fails if the thread is ending and `AT_EXIT` is gone. Then the number may be lost, which is better than handing
        // it to another thread while this one still uses it.
        let _ = AT_EXIT.try_with(|_| ());
    }
    BINDINGS.set(BINDINGS.get() + 1);
    Ok(Binding { cpu: Native::cpu(), thread_bound: PhantomData })
}

/// Binds the executing thread, which is not bound, until it ends; returns the base of its area.
#[cold]
pub(crate) fn bind_on_first_use() -> usize {
    match bind() {
        Ok(binding) => {
            let cpu = binding.cpu();
            // Stays bound until `AT_EXIT`.
            core::mem::forget(binding);
            base_of(cpu).expect("a bound CPU has an area")
        }
        Err(error) => panic!("a thread without a virtual CPU used per-CPU data: {error}"),
    }
}

/// Whether the executing thread is bound.
pub(super) fn is_bound() -> bool {
    BINDINGS.get() != 0
}

/// Takes the lowest number that is free.
fn take() -> Option<CpuId> {
    (0..MAX_CPUS as u32).filter_map(CpuId::new).find(|cpu| !TAKEN.test(*cpu) && TAKEN.set(*cpu))
}

/// Makes the executing thread play `cpu`, which it has just taken.
fn boot(cpu: CpuId) {
    let base = match base_of(cpu) {
        Some(base) => base,
        None => {
            let layout =
                Layout::from_size_align(area_size(), AREA_ALIGN).expect("AREA_ALIGN is a power of two");
            // SAFETY: an area has a size, because the template has its first entry.
            let memory = unsafe { std::alloc::alloc(layout) };
            let Some(memory) = NonNull::new(memory) else { std::alloc::handle_alloc_error(layout) };
            // SAFETY: the memory is fresh, of this size and never freed. We have taken the number, so nobody runs as
            // this CPU, and it is not `base_of`'s yet, so nothing is stored.
            unsafe { install(cpu, memory) }.expect("the memory is aligned and the CPU had no area")
        }
    };
    // SAFETY: the base is that of an area, and having taken the number we are alone with it.
    unsafe { set_host_base(Some(base)) };
    // As a CPU starts: interrupts off for one reason, which ends here. Also for a number that is used again, whose last
    // thread left the state clean except for these.
    PREEMPT_WORD.write(NO_RESCHED_NEEDED);
    IRQ_DEPTH.write(1);
    SOFTIRQS.write(0);
    Vcpu::of(cpu).set_online();
    Native::irq_enable();
}

/// Takes the executing thread off its CPU. The error says in what bad state it left it.
fn unbind() -> Result<(), std::string::String> {
    let cpu = Native::cpu();
    // Handlers that run meanwhile may use per-CPU data: the thread is bound until the CPU is off-line.
    Vcpu::of(cpu).go_offline();
    let complaint = complaint();
    BINDINGS.set(0);
    // SAFETY: no base.
    unsafe { set_host_base(None) };
    match complaint {
        None => {
            // The number can be taken from here on.
            TAKEN.clear(cpu);
            Ok(())
        }
        Some(complaint) => {
            Err(std::format!("CPU {cpu} is not used again, because its thread was unbound with {complaint}"))
        }
    }
}

/// What is wrong with the executing CPU's state, if it were to be used by another thread.
fn complaint() -> Option<std::string::String> {
    let context = Native::context();
    let record = RECORD.local_ptr();
    // SAFETY: this thread is still bound, and areas live for ever.
    let record = unsafe { &*record };
    if context.count() != 0 {
        Some(std::format!("a preempt count of {:#x}: a guard was leaked", context.count()))
    } else if Native::irq_depth() != 0 {
        Some(std::format!("interrupts disabled {} times: a guard was leaked", Native::irq_depth()))
    } else if !record.held.load(Ordering::Relaxed).is_null() {
        Some("a lock held".into())
    } else if record.nodes.iter().any(|node| node.busy.load(Ordering::Relaxed) != 0) {
        Some("a place in a lock's queue".into())
    } else {
        None
    }
}
