//! The ticket lock: numbers are drawn, and served in order.
//!
//! 1. Who wants the lock draws the next number with one read-modify-write, and watches for it to be served.
//! 2. Giving the lock up serves the next number.
//!
//! So the lock is taken strictly in the order of arrival: a waiter is passed by nobody who came later. All waiters
//! watch one word, so that each hand-over costs every one of them a cache miss. And if the next in line is a virtual CPU
//! that is not running, all wait until its host runs it.

use core::marker::PhantomData;

use hal::Platform;

use super::{RawSpin, declare_unlocked};
use crate::primitives::{AtomicU16, Ordering};

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
pub(super) trait Rules: Send + Sync + 'static {
    /// How a number is called out.
    const SERVE: Ordering = Ordering::Release;
    /// Whether a try draws only the number that is being served.
    const TRY_IN_TURN: bool = true;
}

/// The protocol as described.
#[derive(Debug)]
pub enum Sound {}

impl Rules for Sound {}

/// A lock word that is taken in the order of arrival. Through a flavour: [`Ticketed`](crate::Ticketed).
///
/// **Fairness**: a waiter is passed by nobody who drew a number later. Strict order does badly when virtual CPUs
/// outnumber the host's cores; see [the module](super).
///
/// Linux: the spin lock of 2.6.25 to 4.1. Cost: uncontended one read-modify-write, and a load and a store to give up.
///
/// ```
/// use sync::spin::raw::{RawSpin, TicketLock};
/// let raw = TicketLock::UNLOCKED;
/// assert!(raw.try_lock() && !raw.try_lock());
/// // SAFETY: taken just now.
/// unsafe { raw.unlock() };
/// assert!(raw.try_lock());
/// ```
pub type TicketLock = Word<Sound>;

/// The word itself; its rules are a parameter for the sake of models.
///
/// # Invariants
/// * Numbers `served..next` (they wrap) are drawn and not yet served to the end. The first of them is the holder's.
/// * `served` is written by the holder only.
/// * At most 65,535 numbers are out, because each belongs to a CPU, or to something that was interrupted on one.
#[derive(Debug)]
#[expect(private_bounds, reason = "models break the rules, users cannot")]
pub struct Word<R: Rules> {
    next: AtomicU16,
    served: AtomicU16,
    rules: PhantomData<fn() -> R>,
}

// SAFETY: by the invariants the lock is held by whose number is `served`, and numbers are unique among those that are
// out: `lock` draws with a read-modify-write, `try_lock` draws the number `served` only if that is the next. Both see
// `served` by an Acquire load, which pairs with the Release store of `unlock`.
unsafe impl<R: Rules> RawSpin for Word<R> {
    declare_unlocked!(Word { next: AtomicU16::new(0), served: AtomicU16::new(0), rules: PhantomData });

    #[inline]
    fn lock<P: Platform>(&self, pause: impl FnMut(u32)) {
        // Relaxed: each read-modify-write draws another number, and what former holders did comes with `served`.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Acquire: pairs with the Release in `unlock`.
        if self.served.load(Ordering::Acquire) != number {
            self.wait::<P>(number, pause);
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        // Acquire: pairs with the Release in `unlock`. If the exchange finds this number next, nobody has been served
        // since, and so this is the last `unlock`.
        let served = self.served.load(Ordering::Acquire);
        if !R::TRY_IN_TURN {
            self.next.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.next
            .compare_exchange(served, served.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // The holder alone writes `served`, so that a load and a store do.
        let number = self.served.load(Ordering::Relaxed);
        // Release: pairs with the Acquire loads of `lock`, `wait` and `try_lock`.
        self.served.store(number.wrapping_add(1), R::SERVE);
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.next.load(Ordering::Relaxed) != self.served.load(Ordering::Relaxed)
    }
}

#[expect(private_bounds, reason = "models break the rules, users cannot")]
impl<R: Rules> Word<R> {
    #[cold]
    fn wait<P: Platform>(&self, number: u16, mut pause: impl FnMut(u32)) {
        let mut looks = 0_u32;
        loop {
            P::chaos_point();
            pause(looks);
            looks = looks.wrapping_add(1);
            // Acquire: pairs with the Release in `unlock`.
            if self.served.load(Ordering::Acquire) == number {
                P::chaos_point();
                return;
            }
        }
    }
}

#[cfg(all(test, any(loom, shuttle)))]
#[path = "ticket_models.rs"]
mod models;
