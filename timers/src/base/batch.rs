//! Timers that were taken out of the queue together, and are called one after the other without the lock.
//!
//! 1. Whoever runs a base takes up to [`SLOTS`] due timers out of the queue under the lock, and puts the address of each into
//!    a **slot** of the base. They are still armed.
//! 2. It goes through the slots without the lock. It **claims** one by an atomic step that makes a timer's address that of a
//!    *claimed* timer, calls that, and marks the slot as *over*.
//! 3. Whoever deletes such a timer holds the base's lock, as ever, and **takes** the address out of the slot by an atomic
//!    exchange. One of the two wins, and both know which.
//!
//! So a call costs no lock, and a timer that has become due together with others can be deleted as long as its own
//! turn has not come. Of the memory of a timer that it has not claimed the runner reads nothing: who takes it may free it.
//!
//! # Invariants
//! * **S1**: slots are filled under the base's lock by its runner, when all of them are over or empty. A timer that is called
//!   alone is put into the last one, *claimed* already.
//! * **S2**: a slot goes from a timer's address to *empty* by who holds the lock, or to *claimed* by the runner. From
//!   *claimed* it goes to *over* by the runner, when the call has returned.
//! * **S3**: the entry of a timer that is waiting in a slot has that slot's number. It keeps it while the timer is running,
//!   unless that is armed again, and comes to the queue, which uses the place for itself; then the base has the number
//!   ([`requeued`](Inner::requeued)): there is one such timer at a time.

use core::ptr::{self, NonNull};
// Not for models to see: it is the runner's.
use core::sync::atomic::AtomicU64;

use hal::Platform;

use super::parts::exposed;
use super::{Base, Core, Inner, Kinds, settled_expires};
use crate::faults::{Fault, is_planted};
use crate::primitives::{AtomicUsize, Ordering};
use crate::queue::{Entry, Queue, Taker};

/// How many timers are taken out at once: as many as make the lock and the round about it cheap, which are some 150
/// instructions. While it is held, interrupts are off: for 15 instructions a timer.
#[cfg(not(any(loom, shuttle)))]
pub(super) const SLOTS: usize = 192;
/// Models have timers for more than one batch.
#[cfg(any(loom, shuttle))]
pub(super) const SLOTS: usize = 2;

/// The time at which those are due of which nothing is known: whatever is due at it is due now.
const LONG_AGO: u64 = 0;

/// No timer: it was taken.
const EMPTY: usize = 0;
/// Is added to an address when it is claimed, and to *empty* when the runner passes that.
const CLAIMED: usize = 1;
/// What was here was called.
const OVER: usize = 1;

/// The slots of one base, numbered from 1 on, as queues number what they give out; the first one is nobody's.
pub(super) struct Slots {
    slots: [Slot; SLOTS + 1],
    /// When the timer that was put into each was due, if not all were at one time. The runner's own.
    expired: [AtomicU64; SLOTS + 1],
}

/// One of them.
pub(super) struct Slot(AtomicUsize);

/// What the runner knows of those that it has put into the slots.
pub(super) struct Batch {
    /// They are in the slots from this one on.
    first: usize,
    /// When they were due, unless `mixed`. Of an empty one nothing, but not in the future.
    pub(super) due: u64,
    /// They were not all due at one time.
    pub(super) mixed: bool,
    /// What calling them takes, all together.
    pub(super) kinds: Kinds,
}

impl Batch {
    pub(super) const fn new() -> Batch {
        Batch { first: SLOTS + 1, due: LONG_AGO, mixed: false, kinds: Kinds::PLAIN }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots were filled.
    pub(super) fn len(&self) -> u32 {
        (SLOTS + 1 - self.first) as u32
    }
}

/// Where a timer is that is in no queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    /// In a slot, and its turn has not come.
    Waiting,
    /// It is being called.
    Running,
}

impl Slots {
    const_fn! {
        pub(super) fn new() -> Slots {
            Slots { slots: empty!(), expired: [const { AtomicU64::new(0) }; SLOTS + 1] }
        }
    }

    /// The slot that has the number in the entry (S3).
    #[inline(always)]
    fn of<Q: Queue, P: Platform>(&self, core: &Core<Q, P>) -> &AtomicUsize {
        &self.slots[index_of(core)].0
    }

    /// The slots that were filled, from the last one down to the first, which is the order in which that was done. For the
    /// runner.
    #[inline(always)]
    pub(super) fn filled(&self, batch: &Batch) -> &[Slot] {
        &self.slots[batch.first..]
    }

    /// The same, and when each timer was due.
    pub(super) fn filled_when(&self, batch: &Batch) -> impl Iterator<Item = (&Slot, u64)> {
        let due = (!batch.mixed).then_some(batch.due);
        let expired = self.expired[batch.first..].iter().rev();
        let expired = expired.map(move |expired| due.unwrap_or_else(|| expired.load(Ordering::Relaxed)));
        self.filled(batch).iter().rev().zip(expired)
    }

    /// The slot with this `number` is to have a timer that was due at another time than those before it, if there are any.
    /// Returns what they are all due at, and whether that is several times. Out of line, and by value: what fills slots has no
    /// register to spare.
    #[cold]
    #[inline(never)]
    fn note_time(&self, number: usize, expired: u64, due: u64, mixed: bool) -> (u64, bool) {
        if number == SLOTS {
            return (expired, false);
        }
        // Most batches have one time. From where there is a second one each has its own; but what was due long ago is not noted
        // when it comes.
        if !mixed {
            self.expired[number + 1..].iter().for_each(|before| before.store(due, Ordering::Relaxed));
            self.expired[..number].iter().for_each(|behind| behind.store(LONG_AGO, Ordering::Relaxed));
        }
        self.expired[number].store(expired, Ordering::Relaxed);
        (LONG_AGO, true)
    }

    /// A slot for one that is called alone: the last one, as it would be in a batch.
    #[inline(always)]
    pub(super) fn single(&self) -> &Slot {
        &self.slots[SLOTS]
    }

    /// Empties all slots and hands those that are waiting to `each`. Under the lock, for the runner.
    pub(super) fn clear<Q: Queue, P: Platform>(&self, mut each: impl FnMut(NonNull<Core<Q, P>>)) {
        for slot in &self.slots {
            let address = slot.0.swap(EMPTY, Ordering::AcqRel);
            if address & CLAIMED == 0
                && let Some(core) = NonNull::new(ptr::without_provenance_mut::<Core<Q, P>>(address))
            {
                each(exposed(core));
            }
        }
    }

    /// S1: nothing is waiting or running. Under the lock, for models.
    #[cfg(loom)]
    fn assert_done(&self) {
        let is_done = |slot: &Slot| matches!(slot.0.load(Ordering::Relaxed), EMPTY | OVER);
        assert!(self.slots.iter().all(is_done), "somebody else runs this base");
    }

    /// How many timers are waiting. Under the lock.
    pub(super) fn waiting(&self) -> usize {
        let is_waiting = |slot: &&Slot| {
            let slot = slot.0.load(Ordering::Relaxed);
            slot != EMPTY && slot & CLAIMED == 0
        };
        self.slots.iter().filter(is_waiting).count()
    }
}

/// The number of the slot that `core` is in, if it is in one. Otherwise any.
#[inline(always)]
fn index_of<Q: Queue, P: Platform>(core: &Core<Q, P>) -> usize {
    let number = core.entry.slot();
    if number <= SLOTS { number } else { 0 }
}

impl Slot {
    /// Claims what is here. `None` if that was taken. For the runner.
    #[inline(always)]
    pub(super) fn claim<Q: Queue, P: Platform>(&self) -> Option<NonNull<Core<Q, P>>> {
        let address = if is_planted(Fault::ClaimPlainly) {
            let address = self.0.load(Ordering::Relaxed);
            self.0.store(address + CLAIMED, Ordering::Relaxed);
            address
        } else {
            // AcqRel: pairs with the exchange in `take`.
            self.0.fetch_add(CLAIMED, Ordering::AcqRel)
        };
        let core = NonNull::new(ptr::without_provenance_mut::<Core<Q, P>>(address))?;
        // The pointer that it was armed by, which may reach the whole timer and, of an `Arc`, the counts beside it.
        Some(exposed(core))
    }

    /// Puts a timer here that was taken out of the queue just now and is being called from here on. Under the lock, for the
    /// runner, when all slots are over or empty (S1): whoever comes by finds it running.
    #[inline(always)]
    pub(super) fn begin<Q: Queue, P: Platform>(&self, core: &Core<Q, P>) {
        if is_planted(Fault::BeginUnnoted) {
            return;
        }
        core.entry.set_slot(SLOTS);
        self.0.store(ptr::from_ref(core).addr() + CLAIMED, Ordering::Relaxed);
    }

    /// The call is over. For the runner.
    #[inline(always)]
    pub(super) fn end(&self) {
        // Release: pairs with the Acquire in `place`.
        self.0.store(OVER, Ordering::Release);
    }
}

impl<Q: Queue, P: Platform> Base<Q, P> {
    /// Where `core` is, if in a slot. Under the lock; and then *waiting* may become *running* at any moment, and *running*
    /// over, but nothing else happens.
    #[inline(always)]
    pub(super) fn place(&self, inner: &Inner<Q, P>, core: &Core<Q, P>) -> Place {
        // If nobody runs the base, no slot has anything (S1).
        if inner.busy { self.place_in_slots(inner, core) } else { Place::Nowhere }
    }

    fn place_in_slots(&self, inner: &Inner<Q, P>, core: &Core<Q, P>) -> Place {
        let address = ptr::from_ref(core).addr();
        // Acquire: pairs with the Release in `end`: what the call did has happened before.
        let own = self.slots.of(core).load(Ordering::Acquire);
        if own == address {
            return Place::Waiting;
        }
        // S3: it may have been in the queue since its call began.
        let requeued = self.slots.slots[inner.requeued].0.load(Ordering::Acquire);
        if own == address + CLAIMED || requeued == address + CLAIMED {
            Place::Running
        } else {
            Place::Nowhere
        }
    }

    /// Takes `core` out of its slot, if its turn has not come. Returns whether it was there. Under the lock.
    #[inline(always)]
    pub(super) fn take(&self, inner: &Inner<Q, P>, core: &Core<Q, P>) -> bool {
        inner.busy && self.take_from_slot(core)
    }

    fn take_from_slot(&self, core: &Core<Q, P>) -> bool {
        let address = ptr::from_ref(core).addr();
        // AcqRel, Acquire: pairs with the claim. Whoever comes second sees what the first did before.
        self.slots.of(core).compare_exchange(address, EMPTY, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// `core`, which is running, is about to be put into the queue, and loses its number (S3). Under the lock.
    pub(super) fn note_requeued(&self, inner: &mut Inner<Q, P>, core: &Core<Q, P>) {
        let address = ptr::from_ref(core).addr();
        if self.slots.of(core).load(Ordering::Relaxed) == address + CLAIMED {
            inner.requeued = index_of(core);
        }
    }

    /// Takes timers that are due at `now` out of the queue and puts them into the slots. For the runner (S1). Returns whether
    /// nothing that is due is left.
    ///
    /// A function of its own, so that what it counts is in registers.
    #[inline(never)]
    pub(super) fn fill(&'static self, inner: &mut Inner<Q, P>, now: u64, batch: &mut Batch) -> bool {
        #[cfg(loom)]
        self.slots.assert_done();
        inner.now = now.max(inner.now);
        let mut filling =
            Filling::<Q, P> { base: self, now, due: batch.due, mixed: false, kinds: Kinds::PLAIN };
        let popped = inner.queue.pop_batch(now, SLOTS, &mut filling);
        let Filling { due, mixed, kinds, .. } = filling;
        *batch = Batch { first: popped.room + 1, due, mixed, kinds };
        popped.all
    }
}

/// A batch that is being put into the slots of `base` at the time `now`. Until there is one in it, `due` is that of the batch
/// before, which most often goes on.
struct Filling<Q: Queue, P: Platform> {
    base: &'static Base<Q, P>,
    now: u64,
    due: u64,
    mixed: bool,
    kinds: Kinds,
}

impl<Q: Queue, P: Platform> Filling<Q, P> {
    /// When the timer with this entry is due.
    #[inline(always)]
    fn expires(entry: NonNull<Q::Entry>) -> u64 {
        // SAFETY: it was in the queue, so it is armed, and its reference keeps it alive (B2). A core begins with its entry.
        settled_expires(unsafe { entry.as_ref() })
    }

    #[inline(always)]
    fn slot(&self, number: usize) -> &'static Slot {
        // SAFETY: a queue numbers entries from `SLOTS` down to 1, as `Queue` requires.
        unsafe { self.base.slots.slots.get_unchecked(number) }
    }

    #[inline(always)]
    fn put(&mut self, entry: NonNull<Q::Entry>, number: usize) {
        // SAFETY: as in `expires`.
        self.kinds = self.kinds.and(unsafe { exposed::<Q, P>(entry.cast()).as_ref() }.kinds());
        self.slot(number).0.store(entry.addr().get(), Ordering::Relaxed);
    }
}

impl<Q: Queue, P: Platform> Taker<Q::Entry> for Filling<Q, P> {
    #[inline(always)]
    fn take_alike(&mut self, entry: NonNull<Q::Entry>, number: usize) -> bool {
        let alike = Self::expires(entry) == self.due;
        if alike {
            self.put(entry, number);
        }
        alike
    }

    #[inline]
    fn take_other(&mut self, entry: NonNull<Q::Entry>, number: usize) -> bool {
        let expired = Self::expires(entry);
        if expired > self.now {
            // It was moved to a later time while the queue gave it up.
            self.slot(number).0.store(EMPTY, Ordering::Relaxed);
            return false;
        }
        (self.due, self.mixed) = self.base.slots.note_time(number, expired, self.due, self.mixed);
        self.put(entry, number);
        true
    }
}

/// Slots that never held anything.
macro_rules! empty {
    () => {{
        #[cfg(not(loom))]
        {
            [const { Slot(AtomicUsize::new(EMPTY)) }; SLOTS + 1]
        }
        #[cfg(loom)]
        {
            core::array::from_fn(|_| Slot(AtomicUsize::new(EMPTY)))
        }
    }};
}
use crate::primitives::const_fn;
use empty;
