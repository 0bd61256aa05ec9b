//! [`Native`] on bare metal: the contract in terms of this machine.

use core::arch::asm;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};

use spin::Once;

use super::upcalls::upcalls;
use super::{apic, clock, softirq, vectors};
use crate::context::{
    COUNTS, Context, Counts, IRQ_DEPTH, IRQ_DEPTH_OFFSET, NO_RESCHED_NEEDED, PREEMPT_UNIT, PREEMPT_WORD,
    SOFTIRQ_DISABLE_UNIT, SOFTIRQ_UNIT,
};
use crate::platform::{CpuRecord, Native, Platform, Priority, Report, ReschedPoint, TaskId, Wakeup};
use crate::{CpuId, percpu, percpu_init};

percpu! {
    static RECORD: CpuRecord = CpuRecord::new();
    /// Set by other CPUs that want this one to reschedule; the kick's handler moves it into the preempt word, which
    /// only its own CPU writes.
    static RESCHED_REQUESTED: AtomicU32 = AtomicU32::new(0);
    /// The name of the task that runs on this CPU.
    static CURRENT_TASK: AtomicUsize = AtomicUsize::new(0);
    /// How many parties keep the running task on this CPU. It belongs to the task, and goes and comes with it.
    static MIGRATION_DISABLED: AtomicU32 = AtomicU32::new(0);
    /// How far behind a task's name its part for inherited priorities is; 0: there are no tasks here yet.
    static INHERITANCE: AtomicUsize = AtomicUsize::new(0);
    /// The CPU halts, or is about to: it notices a request by an interrupt only.
    static HALTED: AtomicU32 = AtomicU32::new(0);
}

percpu_init!(name_first_task);

/// What runs on a CPU before the kernel makes tasks is called by the address of the CPU's record: not 0, aligned, and
/// nobody else's.
fn name_first_task(cpu: CpuId) {
    CURRENT_TASK.on(cpu).store(core::ptr::from_ref(RECORD.on(cpu)) as usize, Ordering::Relaxed);
}

/// Tells the machine which task runs on the executing CPU from now on, and how many parties keep it there. Returns how
/// many kept the task that ran until now. For the scheduler, with interrupts off, where it switches.
#[inline(always)]
pub fn set_current_task(task: TaskId, migration_disabled: u32) -> u32 {
    CURRENT_TASK.write(task.0.get());
    let before = MIGRATION_DISABLED.read();
    MIGRATION_DISABLED.write(migration_disabled);
    before
}

/// From here on what this CPU executes are tasks, whose names are addresses; `offset` bytes behind each, and not at 0, is its
/// [`Platform::inheritance`]. For the scheduler, on each CPU, when the first task runs there.
///
/// # Safety
/// That.
pub unsafe fn set_inheritance(offset: NonZeroUsize) {
    INHERITANCE.write(offset.get());
}

/// Adds a number that the instruction holds.
#[inline(always)]
fn add_to_word<const UNITS: i32>() {
    // SAFETY: one instruction on this CPU's preempt word. Memory is clobbered, which makes it a compiler barrier.
    unsafe {
        asm!(
            "add dword ptr gs:[rip + {word}], {units}",
            word = sym COUNTS,
            units = const UNITS,
            options(nostack),
        );
    }
}

/// Whether the kernel wants to know of locks that are waited for.
static CONTENTION_NOTED: AtomicBool = AtomicBool::new(false);

/// Has the kernel told of each lock that is waited for ([`Platform::lock_contended`]), or no longer: a load and a branch
/// at each wait while it is off. At the start it is off.
pub fn set_contention_noted(on: bool) {
    CONTENTION_NOTED.store(on, Ordering::Relaxed);
}

static CPU_COUNT: Once<u32> = Once::new();

/// Fixes the number of CPUs that can exist. Once, at boot.
pub fn set_cpu_count(count: u32) {
    CPU_COUNT.call_once(|| count);
}

/// How many parties keep the running task on the executing CPU.
#[inline(always)]
pub fn migration_disabled() -> u32 {
    MIGRATION_DISABLED.read()
}

/// Takes over a reschedule that another CPU asked for; for the kick's handler.
#[inline]
pub fn accept_resched_request() {
    // Acquire: pairs with the Release in `request_resched`; who reschedules sees why it was asked to.
    if RESCHED_REQUESTED.read() != 0 && RESCHED_REQUESTED.exchange(0) != 0 {
        fence(Ordering::Acquire);
        PREEMPT_WORD.and(!NO_RESCHED_NEEDED);
    }
}

// SAFETY: areas differ per CPU, and so do numbers and records; nothing moves an execution between CPUs but the
// scheduler, which runs only at preemption points, and `cli` keeps everything but NMIs out.
unsafe impl Platform for Native {
    #[inline(always)]
    fn cpu() -> CpuId {
        // SAFETY: areas are numbered with ids, and the template with 0.
        unsafe { CpuId::new_unchecked(percpu::current_cpu_number()) }
    }

    fn cpu_count() -> u32 {
        CPU_COUNT.get().copied().unwrap_or(1)
    }

    fn is_online(cpu: CpuId) -> bool {
        (upcalls().is_online)(cpu)
    }

    fn kick(cpu: CpuId) {
        if Self::is_online(cpu) {
            apic::send_ipi_to_cpu(cpu, vectors::KICK);
        }
    }

    #[inline(always)]
    fn context() -> Context {
        Context::from_word(PREEMPT_WORD.read())
    }

    #[inline(always)]
    fn counts() -> Counts {
        let bits: u64;
        // SAFETY: reads this CPU's counts, which nobody else writes, in one load.
        unsafe {
            asm!(
                "mov {bits}, gs:[rip + {counts}]",
                counts = sym COUNTS,
                bits = out(reg) bits,
                options(nostack, preserves_flags, readonly),
            );
        }
        Counts::from_bits(bits)
    }

    #[inline(always)]
    fn counts_are(counts: Counts) -> bool {
        // SAFETY: compares this CPU's counts, which nobody else writes, in one load.
        unsafe {
            asm!(
                "cmp gs:[rip + {counts}], {bits}",
                "jne {other}",
                counts = sym COUNTS,
                bits = in(reg) counts.bits(),
                other = label { return false },
                options(nostack, readonly),
            );
        }
        true
    }

    #[inline(always)]
    fn preempt_add(units: u32) {
        // Callers know which when they are compiled, so that one of these is left: without a register for the number.
        match units {
            SOFTIRQ_UNIT => add_to_word::<{ SOFTIRQ_UNIT as i32 }>(),
            SOFTIRQ_DISABLE_UNIT => add_to_word::<{ SOFTIRQ_DISABLE_UNIT as i32 }>(),
            _ => PREEMPT_WORD.add(units),
        }
    }

    #[inline(always)]
    fn preempt_sub(units: u32) {
        const TO_PREEMPTION_OFF: u32 = SOFTIRQ_DISABLE_UNIT - PREEMPT_UNIT;
        match units {
            SOFTIRQ_UNIT => add_to_word::<{ -(SOFTIRQ_UNIT as i32) }>(),
            TO_PREEMPTION_OFF => add_to_word::<{ -(TO_PREEMPTION_OFF as i32) }>(),
            _ => PREEMPT_WORD.sub(units),
        }
    }

    #[inline(always)]
    fn preempt_disable() {
        PREEMPT_WORD.inc();
    }

    #[inline(always)]
    fn preempt_enable() {
        // SAFETY: one decrement of this CPU's preempt word, which the caller incremented; the branch is taken when
        // nothing forbids a reschedule and one is due. Memory is clobbered, which makes it a compiler barrier.
        unsafe {
            asm!(
                "dec dword ptr gs:[rip + {word}]",
                "jz {due}",
                word = sym COUNTS,
                due = label { reschedule_from_enable() },
                options(nostack),
            );
        }
    }

    fn set_need_resched(cpu: CpuId) {
        if cpu == Self::cpu() {
            PREEMPT_WORD.and(!NO_RESCHED_NEEDED);
        } else {
            request_resched(cpu);
            Self::kick(cpu);
        }
    }

    fn clear_need_resched() {
        PREEMPT_WORD.or(NO_RESCHED_NEEDED);
    }

    #[inline(always)]
    fn irq_disable() {
        x86_64::instructions::interrupts::disable();
        IRQ_DEPTH.inc();
    }

    #[inline(always)]
    fn irq_enable() -> bool {
        // SAFETY: one decrement of this CPU's interrupt depth, which the caller incremented; the branch is taken when
        // others still want interrupts off. Memory is clobbered, which makes it a compiler barrier.
        unsafe {
            asm!(
                "dec dword ptr gs:[rip + {counts} + {depth}]",
                "jnz {others}",
                counts = sym COUNTS,
                depth = const IRQ_DEPTH_OFFSET,
                others = label { return false },
                options(nostack),
            );
        }
        x86_64::instructions::interrupts::enable();
        true
    }

    #[inline(always)]
    fn irq_depth() -> u32 {
        IRQ_DEPTH.read()
    }

    #[inline(always)]
    fn relax() {
        core::hint::spin_loop();
    }

    /// There is no asking the host: QEMU's emulator gives each virtual CPU a thread, and a halt would wait for an interrupt.
    /// But who has waited for so long may be waited for.
    #[cold]
    fn yield_to_host() {
        (upcalls().spun_long)();
        core::hint::spin_loop();
    }

    #[inline(always)]
    fn chaos_point() {
        #[cfg(feature = "chaos")]
        crate::chaos::point::<Native>();
    }

    fn now_ns() -> u64 {
        clock::now_ns()
    }

    #[inline(always)]
    fn fence_light() {
        // The compiler keeps the order here; `fence_heavy` makes this CPU execute a full fence in between.
        compiler_fence(Ordering::SeqCst);
    }

    fn fence_heavy() {
        fence(Ordering::SeqCst);
        (upcalls().fence_all)();
        fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn record() -> NonNull<CpuRecord> {
        // SAFETY: an address inside this CPU's area is not null.
        unsafe { NonNull::new_unchecked(RECORD.local_ptr().cast_mut()) }
    }

    fn record_of(cpu: CpuId) -> NonNull<CpuRecord> {
        NonNull::from(RECORD.on(cpu))
    }

    #[inline(always)]
    fn current_task() -> TaskId {
        // SAFETY: set when the area was made, to an address, and later to names of tasks, which are not 0.
        TaskId(unsafe { NonZeroUsize::new_unchecked(CURRENT_TASK.read()) })
    }

    fn running_on(cpu: CpuId) -> Option<TaskId> {
        NonZeroUsize::new(CURRENT_TASK.on(cpu).load(Ordering::Relaxed)).map(TaskId)
    }

    fn is_cancelled() -> bool {
        (upcalls().is_cancelled)()
    }

    #[inline(always)]
    fn migrate_disable() {
        MIGRATION_DISABLED.inc();
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn migrate_enable() {
        compiler_fence(Ordering::SeqCst);
        MIGRATION_DISABLED.dec();
    }

    #[cold]
    fn voluntary_resched(point: ReschedPoint) {
        if Self::context().count() == 0 && IRQ_DEPTH.read() == 0 {
            (upcalls().reschedule)(point);
        }
    }

    #[inline(always)]
    fn check_resched() {
        // SAFETY: one look at this CPU's preempt word; the branch is taken when nothing forbids a reschedule and one is
        // due.
        unsafe {
            asm!(
                "cmp dword ptr gs:[rip + {word}], 0",
                "je {due}",
                word = sym COUNTS,
                due = label { reschedule_from_enable() },
                options(nostack),
            );
        }
    }

    fn block(deadline_ns: Option<u64>) -> Wakeup {
        (upcalls().block)(deadline_ns)
    }

    fn block_idle() -> Wakeup {
        (upcalls().block_idle)()
    }

    #[inline]
    fn lock_contended(lock: usize) -> u64 {
        if CONTENTION_NOTED.load(Ordering::Relaxed) { (upcalls().lock_contended)(lock) } else { 0 }
    }

    #[inline]
    fn lock_waited(lock: usize, begun: u64) {
        if begun != 0 {
            (upcalls().lock_waited)(lock, begun);
        }
    }

    unsafe fn wake(task: TaskId) -> bool {
        // SAFETY: the caller's promise is the table function's condition.
        unsafe { (upcalls().wake)(task) }
    }

    unsafe fn priority_of(task: TaskId) -> Priority {
        // SAFETY: the caller's promise is the table function's condition.
        unsafe { (upcalls().priority_of)(task) }
    }

    unsafe fn set_inherited_priority(task: TaskId, priority: Priority) {
        // SAFETY: as above.
        unsafe { (upcalls().set_inherited_priority)(task, priority) }
    }

    #[inline(always)]
    unsafe fn inheritance(task: TaskId) -> Option<NonNull<()>> {
        let offset = INHERITANCE.read();
        (offset != 0).then(|| {
            let part = core::ptr::with_exposed_provenance_mut(task.0.get() + offset);
            // SAFETY: by the promise of `set_inheritance` it lies in the task's structure.
            unsafe { NonNull::new_unchecked(part) }
        })
    }

    #[inline]
    #[track_caller]
    fn raise_softirq(vector: u32) {
        softirq::raise(vector);
    }

    #[inline(always)]
    fn softirqs_pending() -> bool {
        softirq::pending()
    }

    #[inline(always)]
    fn serve_softirqs() {
        softirq::serve();
    }

    #[inline(always)]
    fn serve_held_up_softirqs() {
        softirq::serve_held_up();
    }

    fn report(report: &Report<'_>) {
        (upcalls().report)(report);
    }
}

/// The word is zero: nothing in it forbids a reschedule, and one is due. Interrupts may still be off, which forbids it
/// too; whoever turns them on checks again.
#[cold]
fn reschedule_from_enable() {
    if IRQ_DEPTH.read() == 0 {
        (upcalls().reschedule)(ReschedPoint::Enable);
    }
}

/// Undoes the caller's `irq_disable`, which must be the only one, and halts until an interrupt (or NMI) comes. There is
/// no moment in between in which an interrupt could come and be followed by the halt: `sti` takes effect one instruction
/// later.
///
/// Task context. An interrupt that was pending ends the halt at once.
pub fn enable_and_wait() {
    debug_assert_eq!(IRQ_DEPTH.read(), 1, "halting would sleep through what the others wait for");
    IRQ_DEPTH.dec();
    x86_64::instructions::interrupts::enable_and_hlt();
}

/// Notes a request without interrupting the CPU for it.
fn request_resched(cpu: CpuId) {
    // Release: pairs with the Acquire in `accept_resched_request`.
    RESCHED_REQUESTED.on(cpu).store(1, Ordering::Release);
}

/// Asks `cpu`, another one that idles, to reschedule. It is interrupted only if it halts: one that is about to looks for
/// requests first. Returns whether it was interrupted.
///
/// Contexts: any. Cost: one full fence, and one IPI if the CPU halts.
pub fn rouse(cpu: CpuId) -> bool {
    request_resched(cpu);
    // Pairs with the fence in `halt_unless_roused`: either that sees the request, or this sees that it halts.
    fence(Ordering::SeqCst);
    let halted = HALTED.on(cpu).load(Ordering::Relaxed) != 0;
    if halted {
        Native::kick(cpu);
    }
    halted
}

/// Undoes the caller's `irq_disable`, which must be the only one, and halts until an interrupt or NMI comes, unless a
/// reschedule is due or was requested. For the idle task.
pub fn halt_unless_roused() {
    HALTED.write(1);
    // Pairs with the fence in `rouse`.
    fence(Ordering::SeqCst);
    if RESCHED_REQUESTED.read() != 0 || Native::context().resched_due() {
        HALTED.write(0);
        Native::irq_enable();
    } else {
        Native::chaos_point();
        enable_and_wait();
        HALTED.write(0);
    }
}
