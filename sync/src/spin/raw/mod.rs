//! Lock words: who gets the lock next, in four bytes.
//!
//! Three answers, with one interface. All of them take a free lock with one read-modify-write and give it up with one
//! store; they differ in what happens to those who have to wait.
//!
//! | word | who is next | good for |
//! |---|---|---|
//! | [`AdaptiveLock`] | whoever runs; a waiter that was out of luck for long has the right of way, unless it is not running | the default: virtual CPUs, whose host runs them when it likes |
//! | [`QueuedLock`] | the one that came first, each waiting on a cache line of its own | machines of many real CPUs |
//! | [`TicketLock`] | the one that came first, all of them watching the word | a reference, and few real CPUs |
//!
//! The two strict ones come to a halt when a CPU that waits is not running: everybody behind it waits for the host to
//! run it again. `docs/locks.md` has the figures.
//!
//! A lock names its word through its flavour: [`Flavor::Raw`](crate::Flavor::Raw), and [`Queued<Irq>`](crate::Queued)
//! is the flavour `Irq` with another word.
//!
//! Read in this order: this file, `adaptive.rs`, `queued.rs`, `ticket.rs`.

mod adaptive;
mod queued;
mod ticket;

#[cfg(all(test, any(loom, shuttle)))]
mod models;

use hal::Platform;

pub use adaptive::AdaptiveLock;
pub use queued::QueuedLock;
pub use ticket::TicketLock;

/// A lock without data, and without thought for interrupts or preemption.
///
/// [`SpinLock`](crate::SpinLock) is built on it, adds what is missing, and takes every word that implements this. The
/// caller of these functions sees to it that its CPU is not taken away meanwhile and that nothing that interrupts it
/// wants the lock.
///
/// # Safety
/// Code above relies on these promises for memory safety:
/// * From the moment `lock` returns, or `try_lock` or `lock_while` returns `true`, to the matching `unlock`, no other of
///   these calls on the same lock does so.
/// * What is done before an `unlock` happens before what is done after the next success: the first is a `Release`, the
///   other an `Acquire` operation, or stronger.
///
/// # Examples
/// ```
/// use hal::{Native, Platform};
/// use sync::spin::raw::{RawSpin, TicketLock};
///
/// let lock = TicketLock::UNLOCKED;
/// lock.lock::<Native>(|_turn| Native::relax());
/// assert!(lock.is_locked() && !lock.try_lock());
/// // SAFETY: taken above.
/// unsafe { lock.unlock() };
/// assert!(!lock.is_locked());
/// ```
pub unsafe trait RawSpin: Sized + Send + Sync + 'static {
    /// A lock that nobody holds.
    #[cfg(not(loom))]
    const UNLOCKED: Self;

    /// A lock that nobody holds. The model checker's atomics cannot be made in constants.
    #[cfg(loom)]
    fn unlocked() -> Self;

    /// Takes the lock. Between two looks at it, and not at all if it is free, `pause` is called once or more, with the
    /// number of calls before this one in this wait. It must call `P::relax` or something that does as much.
    ///
    /// Contexts: task, softirq, hardirq; not NMI. Cost: one read-modify-write if the lock is free.
    ///
    /// ```
    /// use sync::spin::raw::{AdaptiveLock, RawSpin};
    /// let raw = AdaptiveLock::UNLOCKED;
    /// raw.lock::<hal::Native>(|_| panic!("it is free"));
    /// assert!(raw.is_locked());
    /// ```
    fn lock<P: Platform>(&self, pause: impl FnMut(u32));

    /// Takes the lock if that is possible at once. May fail although the lock is free: while others wait who have the
    /// right of way.
    ///
    /// Contexts: any.
    ///
    /// ```
    /// use sync::spin::raw::{AdaptiveLock, RawSpin};
    /// let raw = AdaptiveLock::UNLOCKED;
    /// assert!(raw.try_lock() && !raw.try_lock());
    /// ```
    fn try_lock(&self) -> bool;

    /// Takes the lock as [`lock`](RawSpin::lock) does, as long as `pause` returns `true`; returns whether it was taken.
    /// One who may give up has no place in a line, so that those who have pass it without bound.
    ///
    /// ```
    /// use sync::spin::raw::{AdaptiveLock, RawSpin};
    /// let raw = AdaptiveLock::UNLOCKED;
    /// assert!(raw.lock_while::<hal::Native>(|_| false), "it is free");
    /// assert!(!raw.lock_while::<hal::Native>(|turns| turns < 3), "three turns, and it is held");
    /// ```
    fn lock_while<P: Platform>(&self, mut pause: impl FnMut(u32) -> bool) -> bool {
        let mut turns = 0;
        while !self.try_lock() {
            if !pause(turns) {
                return false;
            }
            turns = turns.wrapping_add(1);
        }
        true
    }

    /// Gives the lock up.
    ///
    /// # Safety
    /// The lock is held, and by the caller's leave nobody else gives it up.
    unsafe fn unlock(&self);

    /// Whether somebody holds the lock, or is about to, at this moment.
    ///
    /// ```
    /// use sync::spin::raw::{AdaptiveLock, RawSpin};
    /// let raw = AdaptiveLock::UNLOCKED;
    /// assert!(!raw.is_locked() && raw.try_lock() && raw.is_locked());
    /// ```
    fn is_locked(&self) -> bool;
}

/// Makes a lock of type `$Raw` that nobody holds, in constants where there are such.
macro_rules! unlocked {
    ($Raw:ty) => {{
        #[cfg(not(loom))]
        let raw = <$Raw as $crate::spin::raw::RawSpin>::UNLOCKED;
        #[cfg(loom)]
        let raw = <$Raw as $crate::spin::raw::RawSpin>::unlocked();
        raw
    }};
}
pub(crate) use unlocked;

/// Declares `RawSpin::UNLOCKED`, or its counterpart for the model checker.
macro_rules! declare_unlocked {
    ($value:expr) => {
        #[cfg(not(loom))]
        const UNLOCKED: Self = $value;

        #[cfg(loom)]
        fn unlocked() -> Self {
            $value
        }
    };
}
use declare_unlocked;

/// What a waiter does between two looks: [`Platform::relax`], and now and then
/// [`Platform::yield_to_host`], because after so long a wait the lock's holder may be a virtual CPU that is not running.
/// `turns` is the number of calls before this one in the same wait.
///
/// ```
/// use hal::Native;
/// use sync::spin::raw::{RawSpin, TicketLock, pause};
/// let raw = TicketLock::UNLOCKED;
/// raw.lock::<Native>(pause::<Native>);
/// assert!(raw.is_locked());
/// ```
#[inline]
pub fn pause<P: Platform>(turns: u32) {
    if turns % TURNS_PER_YIELD == TURNS_PER_YIELD - 1 {
        P::yield_to_host();
    } else {
        P::relax();
    }
}

/// How many turns a waiter takes before it assumes that the host has to do something first. Longer than a critical
/// section should be (some tens of microseconds), far shorter than the host's time slice.
const TURNS_PER_YIELD: u32 = 1024;
