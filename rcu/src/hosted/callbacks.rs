//! What one thread has queued: three lists, by what they wait for.
//!
//! 1. New callbacks are appended to `new`.
//! 2. From time to time all of `new` becomes `waiting`, with the name of the grace period that it waits for, which is
//!    taken *after* the callbacks are in the list: a name from before could be that of a grace period that does not cover
//!    the last one.
//! 3. When that grace period has ended `waiting` becomes `ready`, and whoever takes ready callbacks out calls them.
//!
//! Mostly one thread uses a queue, its *owner*, but `barrier`, and the callbacks of threads that have ended, need others
//! to. So there is a lock that costs the owner no atomic operation: it says that it is inside, and looks whether somebody
//! else wants to be; the others say that they want to be, and look whether the owner is inside. That is Dekker's way,
//! which needs a fence between the saying and the looking on both sides; the owner's is the platform's light one.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use hal::Platform;

use crate::head::Head;
use crate::primitives::{AtomicBool, AtomicUsize, Ordering, const_fn};
use crate::seq::{Cookie, Sequence};

/// Heads, first in first out.
pub(super) struct Chain {
    first: Option<NonNull<Head>>,
    last: Option<NonNull<Head>>,
    len: usize,
}

impl Chain {
    pub(super) const fn new() -> Chain {
        Chain { first: None, last: None, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// # Safety
    /// `head` was prepared and is in no other queue.
    #[inline(always)]
    pub(super) unsafe fn push(&mut self, head: NonNull<Head>) {
        match self.last {
            // SAFETY: both are this chain's.
            Some(last) => unsafe { Head::set_next(last, Some(head)) },
            None => self.first = Some(head),
        }
        self.last = Some(head);
        self.len += 1;
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<NonNull<Head>> {
        let head = self.first?;
        // SAFETY: this chain's.
        self.first = unsafe { Head::next(head) };
        if self.first.is_none() {
            self.last = None;
        }
        self.len -= 1;
        Some(head)
    }

    /// Appends all of `other`.
    pub(super) fn append(&mut self, other: &mut Chain) {
        let Some(first) = other.first else { return };
        match self.last {
            // SAFETY: the last is this chain's, and `first` becomes so.
            Some(last) => unsafe { Head::set_next(last, Some(first)) },
            None => self.first = Some(first),
        }
        self.last = other.last;
        self.len += other.len;
        *other = Chain::new();
    }

    /// Takes the first `most` out.
    fn split(&mut self, most: usize) -> Chain {
        if self.len <= most {
            return core::mem::replace(self, Chain::new());
        }
        let mut taken = Chain::new();
        while taken.len < most
            && let Some(head) = self.pop()
        {
            // SAFETY: it is in no queue now.
            unsafe {
                Head::set_next(head, None);
                taken.push(head);
            }
        }
        taken
    }
}

/// The lists, for who is inside.
struct Lists {
    new: Chain,
    waiting: Chain,
    /// What `waiting` waits for, if it is not empty.
    until: Option<Cookie>,
    ready: Chain,
}

/// Who uses a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The thread that has the record.
    Owner,
    /// Any other thread. Not the owner: an interrupt handler that queues a callback would wait for what it interrupted.
    Another,
}

/// The callbacks that one thread has queued.
pub(super) struct Queue {
    /// The owner is inside.
    owner_inside: AtomicBool,
    /// Somebody else is inside, or waits for the owner to leave.
    other_inside: AtomicBool,
    lists: UnsafeCell<Lists>,
    /// Odd while the thread calls callbacks that it took out, of this queue or of another one.
    calling: AtomicUsize,
}

// SAFETY: `lists` is used by who is inside only, and heads may be invoked by any thread (`call`'s
// contract).
unsafe impl Sync for Queue {}
// SAFETY: as above.
unsafe impl Send for Queue {}

impl Queue {
    const_fn! {
        pub(super) fn new() -> Queue {
            Queue {
                owner_inside: AtomicBool::new(false),
                other_inside: AtomicBool::new(false),
                lists: UnsafeCell::new(Lists {
                    new: Chain::new(),
                    waiting: Chain::new(),
                    until: None,
                    ready: Chain::new(),
                }),
                calling: AtomicUsize::new(0),
            }
        }
    }

    #[inline(always)]
    fn with<P: Platform, T>(&self, by: By, f: impl FnOnce(&mut Lists) -> T) -> T {
        match by {
            By::Owner => self.owner_enters::<P>(),
            By::Another => self.other_enters::<P>(),
        }
        // SAFETY: nobody else is inside. Nothing that `f` does in this file takes interrupts or comes back here.
        let result = f(unsafe { &mut *self.lists.get() });
        match by {
            // Release: pairs with the Acquire in `other_enters`.
            By::Owner => self.owner_inside.store(false, Ordering::Release),
            // Release: pairs with the Acquires in `owner_enters` and `other_enters`.
            By::Another => self.other_inside.store(false, Ordering::Release),
        }
        result
    }

    #[inline(always)]
    fn owner_enters<P: Platform>(&self) {
        loop {
            self.owner_inside.store(true, Ordering::Relaxed);
            // Pairs with the heavy fence in `other_enters`: one of the two sees the other.
            P::fence_light();
            // Acquire: pairs with the Release of an other one who leaves.
            if !self.other_inside.load(Ordering::Acquire) {
                return;
            }
            self.owner_waits::<P>();
        }
    }

    /// Lets the other one go first.
    #[cold]
    fn owner_waits<P: Platform>(&self) {
        self.owner_inside.store(false, Ordering::Release);
        while self.other_inside.load(Ordering::Relaxed) {
            P::relax();
        }
    }

    #[cold]
    fn other_enters<P: Platform>(&self) {
        // Acquire: pairs with the Release of an other one who leaves.
        while self.other_inside.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            P::relax();
        }
        // Pairs with the light fence in `owner_enters`.
        P::fence_heavy();
        // Acquire: pairs with the Release of the owner who leaves.
        while self.owner_inside.load(Ordering::Acquire) {
            P::relax();
        }
    }

    /// Queues a callback; returns how many are new by now.
    ///
    /// # Safety
    /// `head` was prepared and is in no queue.
    #[inline(always)]
    pub(super) unsafe fn push<P: Platform>(&self, head: NonNull<Head>) -> usize {
        self.with::<P, _>(By::Owner, |lists| {
            // SAFETY: the contract.
            unsafe { lists.new.push(head) };
            lists.new.len()
        })
    }

    /// How many there are.
    pub(super) fn len<P: Platform>(&self, by: By) -> usize {
        self.with::<P, _>(by, |lists| lists.new.len() + lists.waiting.len() + lists.ready.len())
    }

    /// Moves callbacks on as far as the grace periods allow, and names the one that the newest wait for. Returns whether
    /// any wait.
    pub(super) fn advance<P: Platform>(&self, by: By, rounds: &Sequence) -> bool {
        self.with::<P, _>(by, |lists| {
            for _ in 0..2 {
                if lists.until.is_some_and(|until| rounds.done(until)) {
                    let mut passed = core::mem::replace(&mut lists.waiting, Chain::new());
                    lists.ready.append(&mut passed);
                    lists.until = None;
                }
                if lists.until.is_none() && !lists.new.is_empty() {
                    core::mem::swap(&mut lists.waiting, &mut lists.new);
                    lists.until = Some(rounds.snapshot());
                }
            }
            lists.until.is_some()
        })
    }

    /// Takes out up to `most` ready callbacks. The caller calls them, and has announced so by its own
    /// [`begin_calling`](Queue::begin_calling).
    pub(super) fn take_ready<P: Platform>(&self, by: By, most: usize) -> Chain {
        self.with::<P, _>(by, |lists| lists.ready.split(most))
    }

    /// Takes out everything, ready or not, for a caller that waits for a grace period itself before it calls them; the
    /// announcement is as for `take_ready`.
    pub(super) fn take_all<P: Platform>(&self, by: By) -> Chain {
        self.with::<P, _>(by, |lists| {
            let mut all = core::mem::replace(&mut lists.ready, Chain::new());
            all.append(&mut lists.waiting);
            all.append(&mut lists.new);
            lists.until = None;
            all
        })
    }

    /// Puts back what could not be called, as ready.
    pub(super) fn put_back<P: Platform>(&self, rest: &mut Chain) {
        self.with::<P, _>(By::Owner, |lists| lists.ready.append(rest));
    }

    /// The thread that has this queue is about to take callbacks out and to call them.
    pub(super) fn begin_calling(&self) {
        // What others learn from it they learn after the lock of a queue from which this thread has taken something.
        self.calling.store(self.calling.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// It has called them.
    pub(super) fn end_calling(&self) {
        // Release: pairs with the Acquire in `is_calling`.
        self.calling.store(self.calling.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// If the thread is calling callbacks, a number that changes when it has called them.
    pub(super) fn is_calling(&self) -> Option<usize> {
        // Acquire: pairs with the Release in `end_calling`.
        let calling = self.calling.load(Ordering::Acquire);
        (calling % 2 == 1).then_some(calling)
    }
}
