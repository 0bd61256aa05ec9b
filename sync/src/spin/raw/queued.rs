//! The queued lock: four bytes, order of arrival, and each waiter watches a cache line of its own.
//!
//! 1. The word is a flag `locked` and the name of the last waiter, `tail`. A free lock without waiters is taken by one
//!    compare-and-swap of the flag. Giving it up is one store, waiters or not.
//! 2. Who has to wait takes a **node** of its CPU and puts its name into `tail`; the former name says whom it stands
//!    behind. That one's node gets a pointer to the new node, which then watches itself.
//! 3. The **head** of the queue watches the flag. When it has grabbed it, it takes its name out of `tail`, or else tells
//!    the node behind that it is head now, and gives its own node back, before it enters its critical section.
//!
//! A CPU waits for one lock at a time, and so does each level of what may interrupt that: softirq, hardirq, NMI. So four
//! nodes a CPU are enough, in the platform's [`CpuRecord`](hal::platform::CpuRecord), and a node is in use only while
//! its owner waits, not while it holds. A nested hardirq may find its level's node in use; it then tries for the flag
//! without a place in the queue. It must not wait for the queue to empty, in which the context that it interrupted may
//! stand.
//!
//! **Fairness**: the queue is strict. A waiter in it is passed by at most one acquisition of each CPU, one that had
//! looked at `tail` before anybody was in the queue; and by those that found no node.
//!
//! The flag and `tail` are atomics of their own. The usual trick, to set both with one 32-bit access, mixes accesses of
//! different sizes to the same bytes, which Rust's memory model does not define.

use core::marker::PhantomData;

use hal::Platform;

use super::{RawSpin, declare_unlocked};
use crate::primitives::{AtomicBool, AtomicU16, Ordering};

mod nodes;

use nodes::{Name, Nodes, OfPlatform};

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
pub(super) trait Rules: Send + Sync + 'static {
    /// How `locked` is cleared.
    const UNLOCK: Ordering = Ordering::Release;
    /// Whether who leaves waits for one behind it that has a place but has not announced itself yet.
    const AWAIT_SUCCESSOR: bool = true;
    /// Whether the queue is looked at before the flag is grabbed.
    const HONOUR_QUEUE: bool = true;
}

/// The protocol as described.
#[derive(Debug)]
pub enum Sound {}

impl Rules for Sound {}

/// A lock word with a queue of waiters, each of which watches a cache line of its own. Through a flavour:
/// [`Queued`](crate::Queued).
///
/// **Fairness**: order of arrival, except that each CPU may pass the queue once, with an acquisition that it was making
/// when the queue formed. Strict order does badly when virtual CPUs outnumber the host's cores; see [the module](super).
///
/// Linux: `struct qspinlock`. There the first waiter spins on the word without a node (`pending`); here it takes one.
/// Cost: uncontended one compare-and-swap, and one store to give up.
///
/// ```
/// use sync::spin::raw::{QueuedLock, RawSpin};
/// let raw = QueuedLock::UNLOCKED;
/// assert!(raw.try_lock() && !raw.try_lock());
/// // SAFETY: taken just now.
/// unsafe { raw.unlock() };
/// assert!(raw.try_lock());
/// ```
pub type QueuedLock = Word<Sound>;

/// The word itself; its rules are a parameter for the sake of models.
///
/// # Invariants
/// * `locked` is set by whoever finds it clear, who then holds the lock, and is cleared by the holder only.
/// * `tail` names the node of the last waiter in the queue, or nobody. A node that is named there, or that a node in
///   the queue points to, is in use by a waiter of this lock, which does not give it back before neither is so.
#[derive(Debug)]
#[expect(private_bounds, reason = "models break the rules, users cannot")]
pub struct Word<R: Rules> {
    locked: AtomicBool,
    tail: AtomicU16,
    rules: PhantomData<fn() -> R>,
}

// SAFETY: by the first invariant the lock is held by who set `locked` with a compare-and-swap, which one can at a time,
// and which is an Acquire operation; it is cleared by a Release store.
unsafe impl<R: Rules> RawSpin for Word<R> {
    declare_unlocked!(Word {
        locked: AtomicBool::new(false),
        tail: AtomicU16::new(Name::NOBODY.0),
        rules: PhantomData,
    });

    #[inline]
    fn lock<P: Platform>(&self, pause: impl FnMut(u32)) {
        if !self.try_lock() {
            self.wait::<OfPlatform<P>>(pause);
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        (!R::HONOUR_QUEUE || self.tail.load(Ordering::Relaxed) == Name::NOBODY.0) && self.grab()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // Release: pairs with the Acquire in `grab`; what this holder did happens before what later ones do.
        self.locked.store(false, R::UNLOCK);
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }
}

#[expect(private_bounds, reason = "models break the rules, users cannot")]
impl<R: Rules> Word<R> {
    /// Grabs the lock if it is free.
    #[inline]
    fn grab(&self) -> bool {
        // Acquire: pairs with the Release in `unlock`; what earlier holders did happened before what this one does.
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn wait<N: Nodes>(&self, mut pause: impl FnMut(u32)) {
        let mut looks = 0_u32;
        let mut pause = || {
            N::chaos_point();
            pause(looks);
            looks = looks.wrapping_add(1);
        };
        match N::take() {
            Some(name) => self.wait_in_queue::<N>(name, &mut pause),
            None => {
                while self.is_locked() || !self.grab() {
                    pause();
                }
            }
        }
    }

    /// Waits with a node that was taken for it, and gives it back.
    fn wait_in_queue<N: Nodes>(&self, name: Name, pause: &mut impl FnMut()) {
        N::chaos_point();
        // Release: who swaps this name out finds the node as `take` left it. Acquire: pairs with the Release of who
        // swapped the former name in, whose node is written to next.
        let before = Name(self.tail.swap(name.0, Ordering::AcqRel));
        N::chaos_point();
        if before != Name::NOBODY {
            // Before is in the queue, and by the invariant stays until it has seen this.
            N::announce(before, name);
            while !N::is_head(name) {
                pause();
            }
        }
        while self.is_locked() || !self.grab() {
            pause();
        }
        N::chaos_point();
        // Relaxed: nobody was found behind, so that there is nobody to tell anything. And `tail` cannot have come to this
        // name in another way, because the node has not been given back.
        let alone =
            self.tail.compare_exchange(name.0, Name::NOBODY.0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        N::chaos_point();
        if !alone {
            let mut behind = N::behind(name);
            while R::AWAIT_SUCCESSOR && behind.is_none() {
                pause();
                behind = N::behind(name);
            }
            if let Some(behind) = behind {
                N::make_head(behind);
            }
        }
        N::give_back(name);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "queued_tests.rs"]
mod tests;

#[cfg(all(test, any(loom, shuttle)))]
#[path = "queued_models.rs"]
mod models;
