//! A platform whose every step is written down: threads as CPUs, no real interrupts.
//!
//! Each thread is a CPU with a preempt word, an interrupt depth, a flag "reschedule due" and a journal. What a
//! scheduler would do is an entry in the journal, so that a test can say what happened in which order and how often.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use hal::context::{Context, NO_RESCHED_NEEDED, PREEMPT_MASK, PREEMPT_UNIT};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};

/// The platform.
#[derive(Debug)]
pub(crate) enum Journaling {}

/// What happened on this thread's CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    PreemptOff,
    PreemptOn,
    IrqOff,
    IrqOn,
    /// The scheduler replaced the task; what the lock that the test watches said at that moment.
    Scheduled {
        watched_lock_is_held: bool,
    },
}

static NEXT_CPU: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static CPU: CpuId = CpuId::new(NEXT_CPU.fetch_add(1, Ordering::Relaxed)).expect("few threads");
    static WORD: Cell<u32> = const { Cell::new(NO_RESCHED_NEEDED) };
    static IRQ_DEPTH: Cell<u32> = const { Cell::new(0) };
    static JOURNAL: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
    static WATCHED: RefCell<Option<Box<dyn Fn() -> bool>>> = const { RefCell::new(None) };
}

/// Asks for a reschedule on this CPU, as an interrupt would.
pub(crate) fn reschedule_comes_due() {
    WORD.set(WORD.get() & !NO_RESCHED_NEEDED);
}

/// Takes this CPU's journal.
pub(crate) fn journal() -> Vec<Event> {
    JOURNAL.take()
}

/// How often this CPU's journal says "scheduled" since it was taken last.
pub(crate) fn times_scheduled() -> usize {
    JOURNAL.with_borrow(|j| j.iter().filter(|e| matches!(e, Event::Scheduled { .. })).count())
}

/// Whether this CPU is as a test starts: preemption and interrupts on.
pub(crate) fn is_at_rest() -> bool {
    WORD.get() & !NO_RESCHED_NEEDED == 0 && IRQ_DEPTH.get() == 0
}

/// Has the journal note, at each reschedule, what `is_held` says.
pub(crate) fn watch(is_held: impl Fn() -> bool + 'static) {
    WATCHED.replace(Some(Box::new(is_held)));
}

fn note(event: Event) {
    JOURNAL.with_borrow_mut(|j| j.push(event));
}

// SAFETY: a thread is a CPU and never becomes another one; it has no interrupts; numbers, records and task ids are one
// a thread; both fences are full fences.
unsafe impl Platform for Journaling {
    fn cpu() -> CpuId {
        CPU.with(|cpu| *cpu)
    }

    fn cpu_count() -> u32 {
        hal::MAX_CPUS as u32
    }

    fn is_online(_: CpuId) -> bool {
        true
    }

    fn kick(_: CpuId) {}

    fn context() -> Context {
        Context::from_word(WORD.get())
    }

    fn preempt_add(units: u32) {
        WORD.set(WORD.get() + units);
        note(Event::PreemptOff);
    }

    fn preempt_sub(units: u32) {
        assert!(WORD.get() & PREEMPT_MASK >= units & PREEMPT_MASK, "preempt depth below zero");
        WORD.set(WORD.get() - units);
        note(Event::PreemptOn);
    }

    fn preempt_enable() {
        Journaling::preempt_sub(PREEMPT_UNIT);
        Journaling::check_resched();
    }

    fn set_need_resched(cpu: CpuId) {
        assert_eq!(cpu, Journaling::cpu());
        reschedule_comes_due();
    }

    fn clear_need_resched() {
        WORD.set(WORD.get() | NO_RESCHED_NEEDED);
    }

    fn irq_disable() {
        IRQ_DEPTH.set(IRQ_DEPTH.get() + 1);
        note(Event::IrqOff);
    }

    fn irq_enable() -> bool {
        let depth = IRQ_DEPTH.get().checked_sub(1).expect("interrupts are on already");
        IRQ_DEPTH.set(depth);
        if depth == 0 {
            note(Event::IrqOn);
        }
        depth == 0
    }

    fn irq_depth() -> u32 {
        IRQ_DEPTH.get()
    }

    fn relax() {
        // More threads than cores is the normal case in a test.
        std::thread::yield_now();
    }

    fn chaos_point() {}

    fn now_ns() -> u64 {
        0
    }

    fn fence_light() {
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    fn fence_heavy() {
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    fn record() -> NonNull<CpuRecord> {
        Journaling::record_of(Journaling::cpu())
    }

    fn record_of(cpu: CpuId) -> NonNull<CpuRecord> {
        static RECORDS: [CpuRecord; hal::MAX_CPUS] = [const { CpuRecord::new() }; hal::MAX_CPUS];
        NonNull::from(&RECORDS[cpu.index()])
    }

    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new((Journaling::cpu().index() + 1) * TaskId::ALIGN).expect("is positive"))
    }

    fn check_resched() {
        if WORD.get() == 0 && IRQ_DEPTH.get() == 0 {
            Journaling::clear_need_resched();
            let watched_lock_is_held = WATCHED.with_borrow(|watched| watched.as_ref().is_some_and(|f| f()));
            note(Event::Scheduled { watched_lock_is_held });
        }
    }

    fn block(_: Option<u64>) -> Wakeup {
        unreachable!("nothing here blocks");
    }

    unsafe fn wake(_: TaskId) -> bool {
        unreachable!("nothing here blocks");
    }

    fn raise_softirq(_: u32) {}

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}
