//! A platform on which nothing costs anything: what is left of a lock is its word.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, MAX_CPUS, Platform};

/// Threads that nobody interrupts or preempts, as far as they know.
#[derive(Debug)]
pub enum Bare {}

static NEXT: AtomicU32 = AtomicU32::new(0);
static RECORDS: [CpuRecord; MAX_CPUS] = [const { CpuRecord::new() }; MAX_CPUS];

thread_local! {
    static NUMBER: Cell<Option<CpuId>> = const { Cell::new(None) };
}

fn number() -> CpuId {
    NUMBER.get().unwrap_or_else(|| {
        // Threads come and go; those that measure together are few and have numbers in a row.
        let number =
            CpuId::new(NEXT.fetch_add(1, Ordering::Relaxed) % MAX_CPUS as u32).expect("is below the limit");
        NUMBER.set(Some(number));
        number
    })
}

// SAFETY: a thread stays itself, has no interrupts, and its number and record are its own while fewer than `MAX_CPUS`
// threads live. Both fences are full fences.
unsafe impl Platform for Bare {
    fn cpu() -> CpuId {
        number()
    }
    fn cpu_count() -> u32 {
        MAX_CPUS as u32
    }
    fn is_online(_: CpuId) -> bool {
        true
    }
    fn kick(_: CpuId) {}
    fn context() -> Context {
        Context::from_word(NO_RESCHED_NEEDED)
    }
    #[inline(always)]
    fn preempt_add(_: u32) {}
    #[inline(always)]
    fn preempt_sub(_: u32) {}
    #[inline(always)]
    fn preempt_enable() {}
    fn set_need_resched(_: CpuId) {}
    fn clear_need_resched() {}
    #[inline(always)]
    fn irq_disable() {}
    #[inline(always)]
    fn irq_enable() -> bool {
        true
    }
    fn irq_depth() -> u32 {
        0
    }
    #[inline(always)]
    fn relax() {
        std::hint::spin_loop();
    }
    fn chaos_point() {}
    fn now_ns() -> u64 {
        0
    }
    fn fence_light() {
        fence(Ordering::SeqCst);
    }
    fn fence_heavy() {
        fence(Ordering::SeqCst);
    }
    fn record() -> NonNull<CpuRecord> {
        Bare::record_of(number())
    }
    fn record_of(cpu: CpuId) -> NonNull<CpuRecord> {
        NonNull::from(&RECORDS[cpu.index()])
    }
    fn current_task() -> TaskId {
        TaskId(NonZeroUsize::new((number().index() + 1) * TaskId::ALIGN).expect("is positive"))
    }
    #[inline(always)]
    fn check_resched() {}
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
