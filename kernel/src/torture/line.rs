//! A lock word that looks whether its line is kept.
//!
//! 1. What a strict word promises: who has its place in line is passed by no CPU more than once. One acquisition of each other CPU
//!    may have been under way before it, and the next one stands behind it.
//! 2. A word tells that a place was taken by its first call of `pause`. At that moment a waiter notes how often each CPU has had the
//!    lock, and looks again when it has the lock itself. Between the two a CPU has had it once, or not at all.
//! 3. It takes no clock for that. A waiter that the host stops for a second between its place and its note has only been passed
//!    by fewer than it knows of.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use hal::{Native, Platform};
use sync::lockdep::Level;
use sync::spin::raw::{QueuedLock, RawSpin, TicketLock};
use sync::{Flavor, Task};

use super::control::{bump, error};

/// CPUs with a higher number are not noted.
const NOTED: usize = 32;

/// Waits that were judged.
pub(super) static WAITS: AtomicU64 = AtomicU64::new(0);
/// For a twin: who waits has no place in line.
pub(super) static UNFAIR: AtomicBool = AtomicBool::new(false);

/// A lock word that is handed on in order of arrival.
pub(super) trait Strict: RawSpin {
    const NAME: &str;
}

impl Strict for TicketLock {
    const NAME: &str = "SpinLock, Ticketed";
}

impl Strict for QueuedLock {
    const NAME: &str = "SpinLock, Queued";
}

/// The word, and how often each CPU has had it.
pub(super) struct Watched<R> {
    word: R,
    had: [AtomicU32; NOTED],
}

impl<R: Strict> Watched<R> {
    /// This CPU has the lock.
    fn note(&self) {
        if let Some(had) = self.had.get(Native::cpu().index()) {
            had.fetch_add(1, Ordering::Relaxed);
        }
        // Pairs with the fence in `look`: who does not see this there stood in line before this CPU comes again.
        fence(Ordering::SeqCst);
    }

    /// How often each has had it. This CPU stands in line.
    fn look(&self) -> [u32; NOTED] {
        // Pairs with the fence in `note`.
        fence(Ordering::SeqCst);
        self.had.each_ref().map(|had| had.load(Ordering::Relaxed))
    }

    /// This CPU has waited since that look, and has the lock.
    fn judge(&self, before: &[u32; NOTED]) {
        bump(&WAITS);
        for (index, (had, before)) in self.had.iter().zip(before).enumerate() {
            let passed = had.load(Ordering::Relaxed).wrapping_sub(*before);
            if passed > 1 {
                let name = R::NAME;
                error(super::locks::NAME, format_args!("CPU {index} passed a waiter {passed} times: {name}"));
            }
        }
    }
}

// SAFETY: each function has the same effect on `word` as the one of its name there, which keeps the promises. A `lock` of the twin is a
// `lock_while` that does not give up.
unsafe impl<R: Strict> RawSpin for Watched<R> {
    const UNLOCKED: Self = Watched { word: R::UNLOCKED, had: [const { AtomicU32::new(0) }; NOTED] };

    fn lock<P: Platform>(&self, mut pause: impl FnMut(u32)) {
        let mut before = None;
        let wait = |turns| {
            before.get_or_insert_with(|| self.look());
            pause(turns);
        };
        if UNFAIR.load(Ordering::Relaxed) {
            lock_without_a_place::<P>(&self.word, wait);
        } else {
            self.word.lock::<P>(wait);
        }
        if let Some(before) = before {
            self.judge(&before);
        }
        self.note();
    }

    fn try_lock(&self) -> bool {
        let taken = self.word.try_lock();
        if taken {
            self.note();
        }
        taken
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.word.unlock() }
    }

    fn is_locked(&self) -> bool {
        self.word.is_locked()
    }
}

/// Takes the lock whenever it happens to be free.
fn lock_without_a_place<P: Platform>(word: &impl RawSpin, mut wait: impl FnMut(u32)) {
    word.lock_while::<P>(|turns| {
        wait(turns);
        true
    });
}

/// The flavour `Task` with that word.
pub(super) struct InLine<R>(PhantomData<fn() -> R>);

// SAFETY: enters and exits what `Task` does, which keeps the promises.
unsafe impl<R: Strict> Flavor for InLine<R> {
    type Platform = Native;
    type Raw = Watched<R>;

    const LEVEL: Level = Task::<Native>::LEVEL;

    #[track_caller]
    fn enter() {
        Task::<Native>::enter();
    }

    unsafe fn exit() {
        // SAFETY: the caller's promise is the same.
        unsafe { Task::<Native>::exit() }
    }
}
