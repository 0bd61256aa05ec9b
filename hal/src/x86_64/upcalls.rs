//! The one way from the machine up to the kernel.
//!
//! The machine layer knows no scheduler, no console and no TLB protocol. The kernel installs one table of functions at
//! boot; only slow paths go through it.

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::traps::{Cause, TrapFrame};
use crate::CpuId;
use crate::platform::{Priority, Report, ReschedPoint, TaskId, Wakeup};

/// What the kernel does for the machine. Functions marked *irq* are called in hardirq context with interrupts off; those
/// of C's calling convention by the entries themselves.
pub struct Upcalls {
    /// An exception that no probe expected. If it returns, the interrupted code goes on with the frame as it then is.
    pub exception: fn(&mut TrapFrame, Cause),
    /// *irq*: the local APIC timer.
    pub timer: fn(&TrapFrame),
    /// *irq*: another CPU (or this one) called [`Platform::kick`](crate::Platform::kick).
    pub kick: extern "C" fn(),
    /// *irq*: the vector for function calls.
    pub call: extern "C" fn(),
    /// *irq*: the vector for changed translations.
    pub tlb: extern "C" fn(),
    /// *irq*: this CPU interrupted itself so that the end of the interrupt serves softirqs.
    pub softirq_raised: extern "C" fn(),
    /// *irq*: any other vector.
    pub device: fn(u8, &TrapFrame),
    /// NMI context.
    pub nmi: fn(&TrapFrame),
    /// The way out of an outermost interrupt that hit preemptible code, if a reschedule is due: on the interrupted stack,
    /// interrupts off.
    pub interrupt_exit: fn(),
    /// [`Platform::check_resched`](crate::Platform::check_resched), after the machine found that a reschedule is due
    /// and allowed. An interrupt may have served it in between: look again with interrupts off.
    pub reschedule: fn(ReschedPoint),
    /// [`Platform::is_cancelled`](crate::Platform::is_cancelled).
    pub is_cancelled: fn() -> bool,
    /// [`Platform::priority_of`](crate::Platform::priority_of), whose conditions the caller has met.
    pub priority_of: unsafe fn(TaskId) -> Priority,
    /// [`Platform::set_inherited_priority`](crate::Platform::set_inherited_priority), likewise.
    pub set_inherited_priority: unsafe fn(TaskId, Priority),
    /// [`Platform::block`](crate::Platform::block).
    pub block: fn(Option<u64>) -> Wakeup,
    /// [`Platform::block_idle`](crate::Platform::block_idle).
    pub block_idle: fn() -> Wakeup,
    /// [`Platform::lock_contended`](crate::Platform::lock_contended), while
    /// [`set_contention_noted`](super::native::set_contention_noted) is on. Any context in which locks are waited for.
    pub lock_contended: fn(usize) -> u64,
    /// [`Platform::lock_waited`](crate::Platform::lock_waited), for a wait that the former has noted.
    pub lock_waited: fn(usize, u64),
    /// [`Platform::wake`](crate::Platform::wake), whose conditions the caller has met.
    pub wake: unsafe fn(TaskId) -> bool,
    /// Serve this CPU's pending softirqs. Interrupts are off and counted once, before and after; the handlers run with
    /// interrupts on, and meanwhile the preempt word has one softirq unit more.
    pub softirq: fn(),
    /// The same from a task that has just enabled bottom halves: interrupts are on, before and after, and bottom halves too.
    pub softirq_in_task: fn(),
    /// [`Platform::report`](crate::Platform::report).
    pub report: fn(&Report<'_>),
    /// Whether a CPU is online.
    pub is_online: fn(CpuId) -> bool,
    /// This CPU spins for a while already, for a lock perhaps, in whatever context, with interrupts on or off: does what others
    /// wait for it to do and may be done anywhere. Called now and then, and returns soon.
    pub spun_long: fn(),
    /// Returns after every other online CPU has executed a full fence in an interrupt.
    pub fence_all: fn(),
}

/// The table in use. It always points to one, so that a call through it is two loads and no look.
///
/// # Invariants
/// It was made from a `&'static Upcalls`.
pub(super) static TABLE: AtomicPtr<Upcalls> = AtomicPtr::new(ptr::from_ref(&NONE).cast_mut());

/// What is called before there is a kernel to call.
static NONE: Upcalls = Upcalls {
    exception: |_, _| none(),
    timer: |_| none(),
    kick: none_yet,
    call: none_yet,
    tlb: none_yet,
    softirq_raised: none_yet,
    device: |_, _| none(),
    nmi: |_| none(),
    interrupt_exit: || none(),
    reschedule: |_| none(),
    is_cancelled: || none(),
    priority_of: |_| none(),
    set_inherited_priority: |_, _| none(),
    block: |_| none(),
    block_idle: || none(),
    // A lock that is waited for so early is nobody's news.
    lock_contended: |_| 0,
    lock_waited: |_, _| {},
    wake: |_| none(),
    softirq: || none(),
    softirq_in_task: || none(),
    report: |_| none(),
    is_online: |_| none(),
    // So early nobody waits for anybody.
    spun_long: || {},
    fence_all: || none(),
};

extern "C" fn none_yet() {
    none()
}

#[cold]
fn none() -> ! {
    panic!("a trap before the kernel installed its table")
}

/// Installs the kernel's table. Once, on the boot CPU, before interrupts are first enabled; a later call changes nothing.
pub fn install(table: &'static Upcalls) {
    let (before, after) = (ptr::from_ref(&NONE).cast_mut(), ptr::from_ref(table).cast_mut());
    // Release: pairs with the Acquire in `upcalls`.
    let _ = TABLE.compare_exchange(before, after, Ordering::Release, Ordering::Relaxed);
}

/// The kernel's table. Before there is one, its functions panic: that is a trap before the kernel is ready for one.
#[inline(always)]
pub(crate) fn upcalls() -> &'static Upcalls {
    // SAFETY: by the invariant. Acquire: pairs with the Release in `install`.
    unsafe { &*TABLE.load(Ordering::Acquire) }
}
