//! What models run on: a platform whose CPUs are the checker's threads, and a queue that is as small as a queue can be, every
//! access to which is tracked.

use std::cell::Cell;
use std::ptr::NonNull;

use hal::CpuId;
#[cfg(loom)]
use loom::{cell::UnsafeCell, thread_local};
#[cfg(shuttle)]
use shuttle::thread_local;
use test_support::model::{self, Model};

use crate::primitives::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::queue::{DueNow, Entry, Queue, Unit};

/// The platform. A thread says which CPU it is with [`become_cpu`].
pub(crate) type Modelled = model::Modelled<Cpus>;

thread_local! {
    static CPU: Cell<u32> = Cell::new(0);
}

/// The executing thread is CPU `number` from here on; it is 0 unless it says so.
pub(crate) fn become_cpu(number: u32) {
    CPU.with(|cpu| cpu.set(number));
}

/// Each thread is a CPU.
#[derive(Debug)]
pub(crate) enum Cpus {}

// SAFETY: a thread says which CPU it is before it acts as one, and no two are the same at a time.
unsafe impl Model for Cpus {
    fn cpu() -> CpuId {
        CpuId::new(CPU.with(Cell::get)).expect("models have few")
    }

    fn cpu_count() -> u32 {
        8
    }
}

/// Shuttle tracks no accesses: what it finds, schedules show by what they do.
#[cfg(shuttle)]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(shuttle)]
impl<T> UnsafeCell<T> {
    const fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Entries in no order.
pub(crate) struct MiniQueue {
    entries: UnsafeCell<Vec<NonNull<MiniEntry>>>,
    /// It has a way for what is due alone.
    singles: bool,
}

/// `memory` stands for all that is freed with the timer: each access to an entry looks at it.
pub(crate) struct MiniEntry {
    expires: AtomicU64,
    linked: AtomicU32,
    slot: AtomicUsize,
    memory: UnsafeCell<bool>,
}

// SAFETY: the model checker reports accesses that are not ordered.
unsafe impl Send for MiniQueue {}

impl MiniQueue {
    pub(crate) fn new() -> MiniQueue {
        MiniQueue { entries: UnsafeCell::new(Vec::new()), singles: false }
    }

    pub(crate) fn of_singles() -> MiniQueue {
        MiniQueue { singles: true, ..MiniQueue::new() }
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Vec<NonNull<MiniEntry>>) -> R) -> R {
        // SAFETY: the model checker reports accesses that are not ordered.
        self.entries.with_mut(|entries| f(unsafe { &mut *entries }))
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
        MiniEntry {
            expires: AtomicU64::new(0),
            linked: AtomicU32::new(0),
            slot: AtomicUsize::new(0),
            memory: UnsafeCell::new(true),
        }
    }

    /// What giving its memory back is to the model.
    #[cfg(loom)]
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
        // As real ones do, which need the place for something else.
        timer.slot.store(7, Ordering::Relaxed);
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

    fn pop_single(&mut self, now: u64) -> DueNow<MiniEntry> {
        if !self.singles {
            return DueNow::Perhaps;
        }
        // SAFETY: as above.
        let is_due = |entry: &&NonNull<MiniEntry>| unsafe { entry.as_ref() }.expires() <= now;
        match self.with(|entries| entries.iter().filter(is_due).count()) {
            0 => DueNow::Nothing,
            1 => self.pop_due(now).map_or(DueNow::Nothing, DueNow::Single),
            _ => DueNow::Perhaps,
        }
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

    fn set_slot(&self, slot: usize) {
        self.look();
        self.slot.store(slot, Ordering::Relaxed);
    }

    fn slot(&self) -> usize {
        self.look();
        self.slot.load(Ordering::Relaxed)
    }

    fn expires_word(&self) -> Option<&AtomicU64> {
        self.look();
        Some(&self.expires)
    }
}
