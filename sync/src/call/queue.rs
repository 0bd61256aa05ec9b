//! One CPU's queue of calls: everybody fills it, its own CPU empties it, and it can be closed.
//!
//! 1. The head is one word. It points to what was pushed last, is null when there is nothing, and has the value
//!    [`CLOSED`] while the CPU takes no calls. A push is one compare-and-exchange, so it needs no lock and works in an NMI,
//!    and it finds out in the same step whether the CPU still takes calls.
//! 2. Emptying exchanges the head for null and turns the chain round. What was taken and has not run yet stays in the
//!    queue's own `taken`, so that a function which (against the rules) waits and serves in the middle of another one goes
//!    on where that one was, and the order is kept.
//! 3. Closing exchanges the head for [`CLOSED`]. What was pushed before is given out still; nothing can come behind it.
//!    So there is no moment in which a call is accepted by a CPU that will not run it, and nobody who sends has to hold
//!    hotplug off.
//!
//! # Invariants
//! * **Q1**: an entry that is pushed was claimed by its pusher. From then on it belongs to the queue, and from
//!   [`pop`](CallQueue::pop) on to the consumer.
//! * **Q2**: `next` of an entry is written before it is pushed, and after that by the consumer alone.
//! * **Q3**: one execution at a time is the consumer: the queue's CPU, with its interrupts off.

use core::marker::PhantomPinned;
use core::ptr::{self, NonNull};

use hal::Platform;

use crate::primitives::{AtomicPtr, Ordering, const_fn};

/// How the queue works. A parameter only for the models, which show that none of the rules can be left out.
pub(super) trait Rules {
    /// Of the exchange that publishes an entry.
    const PUSH: Ordering = Ordering::Release;
    /// Of the exchange that takes all.
    const TAKE: Ordering = Ordering::Acquire;
    /// Whether a push looks for the mark of a closed queue in the step that pushes.
    const ONE_STEP: bool = true;
}

/// The rules of the product.
#[derive(Debug)]
pub(super) enum Sound {}
impl Rules for Sound {}

/// Something that a CPU is to run: the first field of whatever knows what that is.
#[repr(C)]
#[derive(Debug)]
pub(super) struct Entry {
    next: AtomicPtr<Entry>,
    /// Runs what the entry is a part of. The entry is the callee's again; nothing here is read after the call began.
    pub(super) run: unsafe fn(NonNull<Entry>),
    // Others write here while somebody has a `&mut` to what the entry is in.
    _pinned: PhantomPinned,
}

impl Entry {
    const_fn! {
        pub(super) fn new(run: unsafe fn(NonNull<Entry>)) -> Entry {
            Entry { next: AtomicPtr::new(ptr::null_mut()), run, _pinned: PhantomPinned }
        }
    }
}

/// The head of a queue that takes nothing. Odd, hence no entry's address.
const CLOSED: usize = 1;

#[inline(always)]
const fn closed() -> *mut Entry {
    ptr::without_provenance_mut(CLOSED)
}

/// The CPU takes no calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Closed;

#[derive(Debug)]
pub(super) struct CallQueue<R: Rules = Sound> {
    head: AtomicPtr<Entry>,
    /// What was taken from the head and not given out yet, oldest first. The consumer's (Q3).
    taken: AtomicPtr<Entry>,
    _rules: core::marker::PhantomData<fn() -> R>,
}

impl<R: Rules> CallQueue<R> {
    const_fn! {
        /// A closed queue.
        pub(super) fn new() -> CallQueue<R> {
            CallQueue {
                head: AtomicPtr::new(closed()),
                taken: AtomicPtr::new(ptr::null_mut()),
                _rules: core::marker::PhantomData,
            }
        }
    }

    /// Lets entries in. Nothing if the queue is open.
    pub(super) fn open(&self) {
        // Relaxed: nothing is in a closed queue, and what a pusher publishes it publishes by its own exchange.
        let _ = self.head.compare_exchange(closed(), ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.head.load(Ordering::Relaxed) != closed()
    }

    /// Whether there is an entry. Any context.
    #[inline]
    pub(super) fn has_some(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        (!head.is_null() && head != closed()) || !self.taken.load(Ordering::Relaxed).is_null()
    }

    /// Adds an entry, and says whether the consumer should be told: the queue was empty. Any context.
    ///
    /// # Safety
    /// The caller has claimed the entry, which stays valid and in place until its `run` has been called (Q1).
    #[inline]
    pub(super) unsafe fn push<P: Platform>(&self, entry: NonNull<Entry>) -> Result<bool, Closed> {
        let mut found = self.head.load(Ordering::Relaxed);
        if !R::ONE_STEP && found == closed() {
            return Err(Closed);
        }
        loop {
            if R::ONE_STEP && found == closed() {
                return Err(Closed);
            }
            // SAFETY: valid by the contract; nobody else looks at it before the exchange below has succeeded (Q1).
            unsafe { entry.as_ref() }.next.store(found, Ordering::Relaxed);
            P::chaos_point();
            // Release pairs with the acquire in `pop` and `close`, also across pushes in between: they continue the
            // release sequence, being read-modify-writes.
            match self.head.compare_exchange_weak(found, entry.as_ptr(), R::PUSH, Ordering::Relaxed) {
                Ok(_) => return Ok(found.is_null()),
                Err(now) => found = now,
            }
            P::relax();
        }
    }

    /// Gives out the oldest entry.
    ///
    /// # Safety
    /// The caller is the consumer (Q3), and calls the entry's `run`.
    #[inline]
    pub(super) unsafe fn pop<P: Platform>(&self) -> Option<NonNull<Entry>> {
        let mut first = self.taken.load(Ordering::Relaxed);
        if first.is_null() {
            let found = self.head.load(Ordering::Relaxed);
            if found.is_null() || found == closed() {
                return None;
            }
            P::chaos_point();
            // Acquire pairs with the release in `push`: the entries are as their pushers left them. The queue cannot have
            // been closed in between, because only the consumer does that.
            let chain = self.head.swap(ptr::null_mut(), R::TAKE);
            let only = NonNull::new(chain)?;
            // SAFETY: taken just now, hence valid (Q1), and the consumer's.
            if unsafe { only.as_ref() }.next.load(Ordering::Relaxed).is_null() {
                // One call at a time is what happens nearly always: nothing to turn round, and nothing is left.
                return Some(only);
            }
            // SAFETY: a chain that was taken just now.
            first = unsafe { reversed(chain) };
        }
        let first = NonNull::new(first)?;
        // SAFETY: in the chain, hence valid (Q1), and the consumer's.
        self.taken.store(unsafe { first.as_ref() }.next.load(Ordering::Relaxed), Ordering::Relaxed);
        Some(first)
    }

    /// Lets nothing in any more. What was pushed before is what [`pop`](Self::pop) still gives out.
    ///
    /// # Safety
    /// The caller is the consumer (Q3).
    pub(super) unsafe fn close(&self) {
        // Acquire: as in `pop`.
        let chain = self.head.swap(closed(), R::TAKE);
        let chain = if chain == closed() { ptr::null_mut() } else { chain };
        // SAFETY: a chain that was taken just now.
        let late = unsafe { reversed(chain) };
        let mut place = &self.taken;
        // SAFETY: entries that were taken and not given out are valid (Q1).
        while let Some(entry) = unsafe { place.load(Ordering::Relaxed).as_ref() } {
            place = &entry.next;
        }
        place.store(late, Ordering::Relaxed);
    }
}

/// Turns a chain round.
///
/// # Safety
/// All its entries are valid, and the caller's alone.
unsafe fn reversed(mut rest: *mut Entry) -> *mut Entry {
    let mut done = ptr::null_mut();
    // SAFETY: by the contract. Relaxed: nobody else looks.
    while let Some(entry) = unsafe { rest.as_ref() } {
        let next = entry.next.load(Ordering::Relaxed);
        entry.next.store(done, Ordering::Relaxed);
        (done, rest) = (rest, next);
    }
    done
}
