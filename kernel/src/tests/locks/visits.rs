//! What the locks protect, and how each kind of lock is visited.

use core::cell::UnsafeCell;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, Ordering};

use hal::{Native, Platform};
use sync::{BitSpinLock, Flavor, Irq, Latch, RwLock, SeqLock, SpinLock, irq};

use super::contest::{Party, Visit, WAITED, wait};

/// What the locks protect. `a` and `b` are equal unless somebody is inside.
pub(super) struct Pair {
    busy: bool,
    pub(super) a: u64,
    b: u64,
}

impl Pair {
    pub(super) const fn new() -> Pair {
        Pair { busy: false, a: 0, b: 0 }
    }

    /// With the right to change. The compiler must believe that others look in the middle.
    fn change(&mut self) -> Visit {
        let alone = self.is_in_order();
        let pair = black_box(self);
        pair.busy = true;
        pair.a += 1;
        let pair = black_box(pair);
        linger(pair.a);
        pair.b += 1;
        black_box(pair).busy = false;
        if alone { Visit::Changed } else { Visit::Disturbed }
    }

    /// With the right to look.
    pub(super) fn look(&self) -> Visit {
        let first = black_box(self).is_in_order();
        linger(self.a);
        if first && black_box(self).is_in_order() { Visit::Looked } else { Visit::Disturbed }
    }

    fn is_in_order(&self) -> bool {
        !self.busy && self.a == self.b
    }
}

/// Stays now and then, so that others come by also where CPUs take turns on one core.
pub(super) fn linger(time: u64) {
    if time.is_multiple_of(32) {
        (0..4).for_each(|_| Native::relax());
    }
}

/// A visit to a spin lock of any flavour.
pub(super) fn change<F: Flavor>(lock: &SpinLock<Pair, F>, party: Party) -> Visit {
    match (lock.try_lock(), party) {
        (Some(mut pair), _) => pair.change(),
        (None, Party::Nmi) => Visit::Refused,
        (None, _) => wait(|| lock.lock()).change(),
    }
}

/// The same, by a party that shows that interrupts are off.
pub(super) fn change_with_proof(lock: &SpinLock<Pair, Irq>, party: Party) -> Visit {
    if party == Party::Nmi {
        return change(lock, party);
    }
    WAITED.fetch_add(u64::from(lock.is_locked()), Ordering::Relaxed);
    let quiet = irq::disable();
    lock.lock_with(&quiet).change()
}

/// Whether it is a writer's turn: one in four.
pub(super) fn is_writers_turn() -> bool {
    static TURN: AtomicU32 = AtomicU32::new(0);
    TURN.fetch_add(1, Ordering::Relaxed).is_multiple_of(4)
}

/// A visit to a reader-writer lock.
pub(super) fn share<F: Flavor>(lock: &RwLock<Pair, F>, party: Party, writes: bool) -> Visit {
    match (writes, party) {
        (false, Party::Nmi) => lock.try_read().map_or(Visit::Refused, |pair| pair.look()),
        (true, Party::Nmi) => lock.try_write().map_or(Visit::Refused, |mut pair| pair.change()),
        (false, _) => lock.try_read().unwrap_or_else(|| wait(|| lock.read())).look(),
        (true, _) => lock.try_write().unwrap_or_else(|| wait(|| lock.write())).change(),
    }
}

/// The data of sequence locks: all alike, and too many for one instruction.
pub(super) type Row = [u64; 16];

pub(super) fn look_at(row: Row) -> Visit {
    if row.iter().all(|value| *value == row[0]) { Visit::Looked } else { Visit::Disturbed }
}

/// With the right to write.
pub(super) fn change_row(row: &mut Row) -> Visit {
    let alone = look_at(*row) == Visit::Looked;
    linger(row[0]);
    row.iter_mut().for_each(|value| *value += 1);
    if alone { Visit::Changed } else { Visit::Disturbed }
}

/// A visit to a sequence lock.
pub(super) fn sequence<F: Flavor>(lock: &SeqLock<Row, F>, party: Party, writes: bool) -> Visit {
    match (writes, party) {
        // It may have hit the writer.
        (_, Party::Nmi) => lock.try_read().map_or(Visit::Refused, look_at),
        (false, _) => look_at(lock.read()),
        (true, _) => change_row(&mut lock.try_write().unwrap_or_else(|| wait(|| lock.write()))),
    }
}

/// A visit to a latch.
pub(super) fn latch<F: Flavor>(latch: &Latch<Row, F>, writes: bool) -> Visit {
    match writes {
        false => look_at(latch.read()),
        true => change_row(&mut latch.try_write().unwrap_or_else(|| wait(|| latch.write()))),
    }
}

/// Data that is protected by the highest bit of the word beside it.
pub(super) struct ByBit {
    word: AtomicU32,
    pair: UnsafeCell<Pair>,
}

// SAFETY: `pair` is used by who holds the bit only, in `change_by_bit`.
unsafe impl Sync for ByBit {}

impl ByBit {
    pub(super) const fn new() -> ByBit {
        ByBit { word: AtomicU32::new(5), pair: UnsafeCell::new(Pair::new()) }
    }

    pub(super) fn changes(&self) -> u64 {
        let _held = BitSpinLock::<_, Irq>::new(&self.word, 31).lock();
        // SAFETY: the bit is held.
        unsafe { (*self.pair.get()).a }
    }
}

/// A visit to a lock in a bit.
pub(super) fn change_by_bit<F: Flavor>(data: &ByBit, party: Party) -> Visit {
    let lock = BitSpinLock::<_, F>::new(&data.word, 31);
    let _held = match (lock.try_lock(), party) {
        (Some(held), _) => held,
        (None, Party::Nmi) => return Visit::Refused,
        (None, _) => wait(|| lock.lock()),
    };
    // SAFETY: the bit is held until the end of this function.
    unsafe { (*data.pair.get()).change() }
}
