//! What models run on: a platform whose CPUs are loom's threads, and a queue that is as small as a queue can be, every
//! access to which is tracked.

use std::cell::Cell;
use std::ptr::NonNull;

use hal::context::{Context, NO_RESCHED_NEEDED};
use hal::platform::{CpuRecord, Report, TaskId, Wakeup};
use hal::{CpuId, Platform};
use loom::cell::UnsafeCell;

use crate::primitives::{AtomicU32, AtomicU64, Ordering};
use crate::queue::{Entry, Queue, Unit};

/// The platform. A thread says which CPU it is with [`become_cpu`].
#[derive(Debug)]
pub(crate) enum Modelled {}

loom::thread_local! {
    static CPU: Cell<u32> = Cell::new(0);
}

/// The executing thread is CPU `number` from here on; it is 0 unless it says so.
pub(crate) fn become_cpu(number: u32) {
    CPU.with(|cpu| cpu.set(number));
}

// SAFETY: each CPU is one thread of the model, which nothing interrupts or preempts between two operations that the model
// sees; the models use no records.
unsafe impl Platform for Modelled {
    fn cpu() -> CpuId {
        CpuId::new(CPU.with(Cell::get)).expect("models have few")
    }

    fn cpu_count() -> u32 {
        4
    }

    fn is_online(_: CpuId) -> bool {
        true
    }

    fn kick(_: CpuId) {}

    fn context() -> Context {
        Context::from_word(NO_RESCHED_NEEDED)
    }

    fn preempt_add(_: u32) {}

    fn preempt_sub(_: u32) {}

    fn preempt_enable() {}

    fn set_need_resched(_: CpuId) {}

    fn clear_need_resched() {}

    fn irq_disable() {}

    fn irq_enable() -> bool {
        true
    }

    fn irq_depth() -> u32 {
        0
    }

    fn relax() {
        loom::thread::yield_now();
    }

    fn chaos_point() {}

    fn now_ns() -> u64 {
        0
    }

    fn fence_light() {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }

    fn fence_heavy() {
        loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
    }

    fn record() -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }

    fn record_of(_: CpuId) -> NonNull<CpuRecord> {
        unreachable!("the models need no record");
    }

    fn current_task() -> TaskId {
        TaskId(std::num::NonZeroUsize::new(TaskId::ALIGN).expect("is not 0"))
    }

    fn check_resched() {}

    fn block(_: Option<u64>) -> Wakeup {
        unreachable!("nobody sleeps in these models");
    }

    unsafe fn wake(_: TaskId) -> bool {
        false
    }

    fn raise_softirq(_: u32) {}

    fn serve_softirqs() {}

    fn report(report: &Report<'_>) {
        panic!("{report}");
    }
}

/// Entries in no order.
pub(crate) struct MiniQueue(UnsafeCell<Vec<NonNull<MiniEntry>>>);

/// `memory` stands for all that is freed with the timer: each access to an entry looks at it.
pub(crate) struct MiniEntry {
    expires: AtomicU64,
    linked: AtomicU32,
    memory: UnsafeCell<bool>,
}

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for MiniQueue {}

impl MiniQueue {
    pub(crate) fn new() -> MiniQueue {
        MiniQueue(UnsafeCell::new(Vec::new()))
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Vec<NonNull<MiniEntry>>) -> R) -> R {
        // SAFETY: the model checker reports accesses that are not ordered.
        self.0.with_mut(|entries| f(unsafe { &mut *entries }))
    }

    fn take(entries: &mut Vec<NonNull<MiniEntry>>, at: usize) -> NonNull<MiniEntry> {
        let entry = entries.swap_remove(at);
        // SAFETY: in the queue until now.
        unsafe { entry.as_ref() }.linked.store(0, Ordering::Relaxed);
        entry
    }
}

impl MiniEntry {
    pub(crate) fn new() -> MiniEntry {
        MiniEntry { expires: AtomicU64::new(0), linked: AtomicU32::new(0), memory: UnsafeCell::new(true) }
    }

    /// What giving its memory back is to the model.
    pub(crate) fn free(&self) {
        // SAFETY: the model checker reports accesses that are not ordered.
        self.memory.with_mut(|memory| unsafe { *memory = false });
    }

    fn look(&self) {
        // SAFETY: as above.
        self.memory.with(|memory| assert!(unsafe { *memory }, "freed memory was read"));
    }
}

// SAFETY: entries are given up as they were put in.
unsafe impl Queue for MiniQueue {
    type Entry = MiniEntry;

    unsafe fn insert(&mut self, entry: NonNull<MiniEntry>, _now: u64) -> bool {
        let before = self.next();
        // SAFETY: by the contract.
        let timer = unsafe { entry.as_ref() };
        timer.look();
        assert_eq!(timer.linked.load(Ordering::Relaxed), 0, "it is in a queue already");
        timer.linked.store(1, Ordering::Relaxed);
        self.with(|entries| entries.push(entry));
        timer.expires() < before
    }

    unsafe fn remove(&mut self, entry: NonNull<MiniEntry>) {
        self.with(|entries| {
            let at = entries.iter().position(|other| *other == entry).expect("it is in this queue");
            MiniQueue::take(entries, at);
        });
    }

    fn next(&mut self) -> u64 {
        // SAFETY: what is in the queue is valid.
        self.with(|entries| {
            entries.iter().map(|entry| unsafe { entry.as_ref() }.expires()).min().unwrap_or(u64::MAX)
        })
    }

    fn pop_due(&mut self, now: u64) -> Option<NonNull<MiniEntry>> {
        self.with(|entries| {
            // SAFETY: as above.
            let at = entries.iter().position(|entry| unsafe { entry.as_ref() }.expires() <= now)?;
            Some(MiniQueue::take(entries, at))
        })
    }

    fn pop_any(&mut self) -> Option<NonNull<MiniEntry>> {
        self.with(|entries| (!entries.is_empty()).then(|| MiniQueue::take(entries, 0)))
    }

    fn may_stay(_: &MiniEntry, from: u64, to: u64) -> bool {
        from <= to
    }
}

impl Unit for MiniQueue {
    type Time = u64;
}

impl Entry for MiniEntry {
    fn expires(&self) -> u64 {
        self.look();
        self.expires.load(Ordering::Relaxed)
    }

    fn set_expires(&self, expires: u64) {
        self.look();
        self.expires.store(expires, Ordering::Relaxed);
    }

    fn set_slack(&self, _: u64) {}

    fn is_linked(&self) -> bool {
        self.look();
        self.linked.load(Ordering::Relaxed) != 0
    }

    fn expires_word(&self) -> Option<&AtomicU64> {
        self.look();
        Some(&self.expires)
    }
}
