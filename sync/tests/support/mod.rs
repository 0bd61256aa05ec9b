//! A platform whose every step is written down: threads as CPUs, no real interrupts.
//!
//! Each thread is a CPU with a preempt word, an interrupt depth, pending softirqs and a journal. What a scheduler or a
//! softirq would do is an entry in the journal, so that a test can say what happened in which order and how often.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use hal::context::{Context, NO_RESCHED_NEEDED, PREEMPT_UNIT, SOFTIRQ_UNIT};
use hal::platform::{CpuRecord, Report, Severity, TaskId, Wakeup};
use hal::{CpuId, Platform};

/// The platform.
#[derive(Debug)]
pub(crate) enum Journaling {}

/// What happened on this thread's CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    PreemptOff,
    PreemptOn,
    BottomHalvesOff,
    BottomHalvesOn,
    IrqOff,
    IrqOn,
    /// The pending softirqs, a bit each, were served; what the lock that the test watches said at that moment.
    Served {
        vectors: u32,
        watched_lock_is_held: bool,
    },
    /// The scheduler replaced the task; what the lock that the test watches said at that moment.
    Scheduled {
        watched_lock_is_held: bool,
    },
}

static NEXT_CPU: AtomicU32 = AtomicU32::new(0);

/// A function that a test has set.
type Hook<F> = RefCell<Option<Box<F>>>;

thread_local! {
    static CPU: CpuId = CpuId::new(NEXT_CPU.fetch_add(1, Ordering::Relaxed)).expect("few threads");
    static WORD: Cell<u32> = const { Cell::new(NO_RESCHED_NEEDED) };
    static IRQ_DEPTH: Cell<u32> = const { Cell::new(0) };
    static PENDING: Cell<u32> = const { Cell::new(0) };
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
    static KICKED: Cell<bool> = const { Cell::new(false) };
    static SOFTIRQ: Hook<dyn Fn(u32)> = const { RefCell::new(None) };
    static REPORTS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    static JOURNAL: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
    static WATCHED: Hook<dyn Fn() -> bool> = const { RefCell::new(None) };
}

/// Asks for a reschedule on this CPU, as an interrupt would.
pub(crate) fn reschedule_comes_due() {
    WORD.set(WORD.get() & !NO_RESCHED_NEEDED);
}

/// This CPU's clock goes on.
#[allow(dead_code, reason = "used by the library's own tests, and this file is in others too")]
pub(crate) fn time_passes(ns: u64) {
    NOW_NS.set(NOW_NS.get() + ns);
}

/// Takes this CPU's journal.
pub(crate) fn journal() -> Vec<Event> {
    JOURNAL.take()
}

/// How often this CPU's journal says "scheduled" since it was taken last.
pub(crate) fn times_scheduled() -> usize {
    JOURNAL.with_borrow(|j| j.iter().filter(|e| matches!(e, Event::Scheduled { .. })).count())
}

/// How often this CPU's journal says "served" since it was taken last.
pub(crate) fn times_served() -> usize {
    JOURNAL.with_borrow(|j| j.iter().filter(|e| matches!(e, Event::Served { .. })).count())
}

/// Has softirqs call `handler` with the vectors.
pub(crate) fn on_softirq(handler: impl Fn(u32) + 'static) {
    SOFTIRQ.replace(Some(Box::new(handler)));
}

/// From here on reports are collected, and not panics.
pub(crate) fn collect_reports() {
    REPORTS.replace(Some(Vec::new()));
}

/// Takes the collected reports.
pub(crate) fn reports() -> Vec<String> {
    REPORTS.with_borrow_mut(|reports| reports.as_mut().map(std::mem::take).unwrap_or_default())
}

/// Whether this CPU is as a test starts: preemption and interrupts on.
pub(crate) fn is_at_rest() -> bool {
    WORD.get() & !NO_RESCHED_NEEDED == 0 && IRQ_DEPTH.get() == 0
}

/// Has the journal note, at each reschedule, what `is_held` says.
pub(crate) fn watch(is_held: impl Fn() -> bool + 'static) {
    WATCHED.replace(Some(Box::new(is_held)));
}

fn watched_lock_is_held() -> bool {
    WATCHED.with_borrow(|watched| watched.as_ref().is_some_and(|f| f()))
}

/// What the end of an interrupt does.
fn end_of_interrupt() {
    <Journaling as Platform>::serve_softirqs();
    <Journaling as Platform>::check_resched();
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

    fn kick(cpu: CpuId) {
        if cpu != Journaling::cpu() {
        } else if IRQ_DEPTH.get() == 0 {
            end_of_interrupt();
        } else {
            KICKED.set(true);
        }
    }

    fn context() -> Context {
        Context::from_word(WORD.get())
    }

    fn preempt_add(units: u32) {
        let before = Journaling::context();
        WORD.set(WORD.get() + units);
        if Journaling::context().bottom_half_depth() > before.bottom_half_depth() {
            note(Event::BottomHalvesOff);
        } else {
            note(Event::PreemptOff);
        }
    }

    fn preempt_sub(units: u32) {
        let before = Journaling::context();
        assert!(before.count() >= units, "preempt count below zero");
        WORD.set(WORD.get() - units);
        if Journaling::context().bottom_half_depth() < before.bottom_half_depth() {
            note(Event::BottomHalvesOn);
        } else {
            note(Event::PreemptOn);
        }
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
            if KICKED.take() {
                end_of_interrupt();
            }
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
        NOW_NS.get()
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
            note(Event::Scheduled { watched_lock_is_held: watched_lock_is_held() });
        }
    }

    fn block(_: Option<u64>) -> Wakeup {
        unreachable!("nothing here blocks");
    }

    unsafe fn wake(_: TaskId) -> bool {
        unreachable!("nothing here blocks");
    }

    fn raise_softirq(vector: u32) {
        PENDING.set(PENDING.get() | 1 << vector);
        if !Journaling::context().in_interrupt() {
            Journaling::kick(Journaling::cpu());
        }
    }

    fn softirqs_pending() -> bool {
        PENDING.get() != 0
    }

    fn serve_softirqs() {
        while PENDING.get() != 0 && !Journaling::context().in_interrupt() && IRQ_DEPTH.get() == 0 {
            WORD.set(WORD.get() + SOFTIRQ_UNIT);
            let vectors = PENDING.take();
            note(Event::Served { vectors, watched_lock_is_held: watched_lock_is_held() });
            SOFTIRQ.with_borrow(|handler| handler.iter().for_each(|handler| handler(vectors)));
            WORD.set(WORD.get() - SOFTIRQ_UNIT);
        }
    }

    fn report(report: &Report<'_>) {
        REPORTS.with_borrow_mut(|reports| match reports {
            Some(reports) if report.severity != Severity::Fatal => reports.push(report.to_string()),
            _ => panic!("{report}"),
        });
    }
}
