//! What a task holds.
//!
//! Handlers that interrupt a task push on top of what it holds, and have popped when they return. Locks of the handler
//! do not depend on those below (the task did not *decide* to take them in this order), so each entry remembers its
//! context, and orders are kept among neighbours of one context only: a *chain*.
//!
//! A chain has a key, a hash over what was taken in it and how, so that a chain which was examined before is recognised
//! by one look.

use core::cell::UnsafeCell;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::sync::atomic::{AtomicBool, Ordering};

use hal::context::{Context, HARDIRQ_MASK, SOFTIRQ_UNIT};

use super::class::Label;
use super::graph::ClassId;
use super::map::Mode;

/// How many locks a task, with the handlers that interrupt it, can hold.
pub const DEPTH: usize = 48;

/// The locks that one task holds, for the checker. Each task has one, and [`CpuRecord::held`] of a CPU points to that of
/// its running task; a kernel without tasks has one for each CPU.
///
/// Only its task touches it. 4 KiB; zeros at first.
///
/// [`CpuRecord::held`]: hal::platform::CpuRecord::held
///
/// ```
/// # use hal::{Native, hosted};
/// # if !sync::lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// use sync::lockdep::{self, Checker, HeldStack};
/// static CHECKER: Checker = Checker::new();
/// static HELD: HeldStack = HeldStack::new();
/// // SAFETY: this thread is the CPU's only task, and nobody else has `HELD`.
/// unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let lock = sync::SpinLock::<u32>::new(1);
/// let _guard = lock.lock();
/// let mut held = String::new();
/// lockdep::write_held::<Native>(&mut held).unwrap();
/// assert_eq!(held.lines().count(), 1);
/// # drop(_guard);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub struct HeldStack {
    /// The checker is at work for this task. Then it is not entered again: it reports, and the report takes locks.
    busy: AtomicBool,
    held: UnsafeCell<Held>,
}

// SAFETY: the cell is accessed through `enter` only, whose callers are the task itself.
unsafe impl Sync for HeldStack {}

impl HeldStack {
    /// Nothing is held.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # if !sync::lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// use sync::lockdep::{self, Checker, HeldStack};
    /// static CHECKER: Checker = Checker::new();
    /// static HELD: HeldStack = HeldStack::new();
    /// // SAFETY: this thread is the CPU's only task, and nobody else has `HELD`.
    /// unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// let mut held = String::new();
    /// lockdep::write_held::<Native>(&mut held).unwrap();
    /// assert_eq!(held, "");
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub const fn new() -> HeldStack {
        HeldStack { busy: AtomicBool::new(false), held: UnsafeCell::new(Held::new()) }
    }

    /// Access, unless somebody further out in the call stack has it.
    ///
    /// # Safety
    /// The caller is the task that the stack belongs to (or a handler that interrupted it), and is not interrupted by
    /// another caller of this until it has dropped what it got.
    pub(super) unsafe fn enter(&self) -> Option<Access<'_>> {
        // Relaxed, and no read-modify-write: by the contract nobody comes in between, and all callers are on one CPU or
        // ordered by the scheduler's switches.
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        Some(Access(self))
    }
}

impl Default for HeldStack {
    fn default() -> HeldStack {
        HeldStack::new()
    }
}

impl fmt::Debug for HeldStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldStack").finish_non_exhaustive()
    }
}

/// Exclusive access to a task's held locks.
///
/// # Invariants
/// The stack's `busy` was set for this value alone.
pub(super) struct Access<'a>(&'a HeldStack);

impl Drop for Access<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

impl Deref for Access<'_> {
    type Target = Held;

    fn deref(&self) -> &Held {
        // SAFETY: by the invariant there is no other `Access`, and by `enter`'s contract no other thread has the cell.
        unsafe { &*self.0.held.get() }
    }
}

impl DerefMut for Access<'_> {
    fn deref_mut(&mut self) -> &mut Held {
        // SAFETY: as above, and `&mut self` makes this the only reference.
        unsafe { &mut *self.0.held.get() }
    }
}

/// One lock that is held or being waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Names the lock: where its map is.
    pub(super) address: usize,
    pub(super) label: Label,
    /// `None` if the checker had no room for the class.
    pub(super) class: Option<ClassId>,
    pub(super) mode: Mode,
    pub(super) is_try: bool,
    pub(super) at: &'static Location<'static>,
    /// Which handler took it, see [`level_of`].
    pub(super) level: u32,
    /// The hash of the chain up to here.
    pub(super) key: u64,
    /// Since when it is held.
    pub(super) since: Since,
}

/// A moment, or none: the low 48 bits of the platform's clock in nanoseconds, which fit where an entry has room to spare.
/// What lasts longer than three days is taken for shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Since([u8; 6]);

impl Since {
    /// Nobody wants to know.
    pub(super) const NEVER: Since = Since([0; 6]);

    pub(super) fn at(now_ns: u64) -> Since {
        let [bytes @ .., _, _] = now_ns.to_le_bytes();
        // The one moment that is spelt like none is a nanosecond later.
        Since(if bytes == [0; 6] { [1, 0, 0, 0, 0, 0] } else { bytes })
    }

    /// How long ago it was, in nanoseconds.
    pub(super) fn elapsed(self, now_ns: u64) -> Option<u64> {
        let [a, b, c, d, e, f] = self.0;
        let since = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        (self != Since::NEVER).then(|| now_ns.wrapping_sub(since) & ((1 << 48) - 1))
    }
}

/// What [`Held::remove`] found.
pub(super) enum Removed {
    /// The lock is not held.
    NotHeld,
    /// It was held, and there had been no room for an entry.
    Lost,
    /// Its entry.
    Was(Entry),
}

/// What tells handlers apart that interrupt each other: the handler fields of the preempt word.
pub(super) fn level_of(context: Context) -> u32 {
    context.count() & (HARDIRQ_MASK | SOFTIRQ_UNIT)
}

/// The stack itself.
///
/// # Invariants
/// The first `depth` slots are filled.
pub(super) struct Held {
    depth: usize,
    /// How many locks are held of which there is no entry, because there was no room.
    lost: usize,
    slots: [Option<Entry>; DEPTH],
}

impl Held {
    pub(super) const fn new() -> Held {
        Held { depth: 0, lost: 0, slots: [None; DEPTH] }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// All entries, the oldest first.
    pub(super) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.slots[..self.depth].iter().flatten()
    }

    /// What was taken in this context, the newest first.
    pub(super) fn chain(&self, level: u32) -> impl Iterator<Item = &Entry> {
        self.entries().rev().take_while(move |entry| entry.level == level)
    }

    /// The key of the chain that `next` will end.
    pub(super) fn key_with(&self, next: &Entry) -> u64 {
        let before = self.entries().next_back().filter(|top| top.level == next.level);
        chain_key(before.map_or(0, |top| top.key), next)
    }

    /// `false`: no room; the lock's release will be taken for granted.
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        match self.slots.get_mut(self.depth) {
            Some(slot) => {
                *slot = Some(entry);
                self.depth += 1;
                true
            }
            None => {
                self.lost += 1;
                false
            }
        }
    }

    /// The newest entry of the lock.
    pub(super) fn find(&self, address: usize) -> Option<&Entry> {
        self.entries().rev().find(|entry| entry.address == address)
    }

    /// The newest entry of the lock, to be changed.
    pub(super) fn find_mut(&mut self, address: usize) -> Option<&mut Entry> {
        self.slots[..self.depth].iter_mut().flatten().rev().find(|entry| entry.address == address)
    }

    /// Removes the newest entry of the lock.
    pub(super) fn remove(&mut self, address: usize) -> Removed {
        let is_it = |slot: &Option<Entry>| slot.is_some_and(|entry| entry.address == address);
        let Some(at) = self.slots[..self.depth].iter().rposition(is_it) else {
            let was_lost = self.lost > 0;
            self.lost = self.lost.saturating_sub(1);
            return if was_lost { Removed::Lost } else { Removed::NotHeld };
        };
        let removed = self.slots[at];
        self.slots.copy_within(at + 1..self.depth, at);
        self.depth -= 1;
        self.slots[self.depth] = None;
        // What was taken after it keeps its key, which names a chain with more in it. Whoever examined that one has seen
        // all orders of this one: what is below the removed lock leads to what is above through it.
        removed.map_or(Removed::NotHeld, Removed::Was)
    }
}

/// The key of a chain that goes on with `next`. Never 0.
fn chain_key(before: u64, next: &Entry) -> u64 {
    let class = next.class.map_or(0, |class| u64::from(class.0));
    let word = before ^ (class << 3 | (next.mode as u64) << 1 | u64::from(next.is_try));
    // The finaliser of splitmix64: a bijection that changes about half of the bits for each that differs.
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ word >> 31).max(1)
}
