//! Readers who say where they are in a word of their own, and the scan that waits for them.
//!
//! 1. Grace periods are numbered. A reader that begins a section copies the current number to its thread's *word*; the
//!    end of the section makes the word idle.
//! 2. A grace period raises the number, then looks at all words until each has been idle or at least at that number once.
//! 3. The reader's store to its word and its loads of protected pointers must not change places, which would take a full
//!    fence in each section. Instead the reader executes the platform's *light* fence, and the grace period, between the
//!    raise and the first look, one *heavy* one. On Linux the light one is free and the heavy one a system call.
//!
//! # Why a grace period waits for those that it must
//!
//! Let U be the update (the unlinking) before the grace period, W the reader's store to its word, and L its load of the
//! pointer. A look finds one of:
//! * **the word as before W**: then the heavy fence came before the reader's light one, and L sees U;
//! * **idle, after the section**: the end of the section releases, the look acquires; the section is over for all who
//!   come after the grace period;
//! * **an older number**: the scan goes on looking;
//! * **this number, or a later one**: the reader loaded it, by an acquiring load, after it was raised, which was after U;
//!   so L sees U. An earlier section of the same thread is over for the scan too, because W releases.
//!
//! Numbers wrap. A section that has begun keeps the number from being raised more than once, so that those which are
//! compared are neighbours.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;

use hal::Platform;

use super::callbacks::Queue;
use crate::primitives::{AtomicBool, AtomicPtr, AtomicU64, Ordering, const_fn};

/// The word of a thread in no section.
pub(super) const IDLE: u64 = 0;
/// The low bits of a word count nested sections; the others are the grace period's number.
const NEST: u64 = 0xffff;
/// From one grace period's number to the next.
const PERIOD: u64 = NEST + 1;
/// The word of the record that stands for no record: not idle, so that the fast path turns away from it.
const NOBODY: u64 = u64::MAX;

/// The parts of the protocol that must hold, as constants, so that models can break one and show that it matters.
pub(super) trait Rules: 'static {
    /// Whether readers execute the light fence.
    const LIGHT: bool = true;
    /// Whether grace periods execute the heavy fence.
    const HEAVY: bool = true;
    /// How the word becomes idle.
    const LEAVE: Ordering = Ordering::Release;
    /// Whether the scan waits for readers at all.
    const LOOKS: bool = true;
}

/// The protocol as described.
#[derive(Debug)]
pub(super) enum Sound {}

impl Rules for Sound {}

/// What the others see of one thread. Given back when the thread ends, and then used by another one; never freed.
#[repr(align(128))]
pub struct Record {
    /// [`IDLE`], or the number that the thread copied at the beginning of its outermost section, with the nesting depth.
    word: AtomicU64,
    /// A thread has it.
    in_use: AtomicBool,
    /// The one that was made before it. Written once, before the record is published.
    older: AtomicPtr<Record>,
    /// The callbacks that the thread queued.
    pub(super) queue: Queue,
    /// The thread, for reports.
    holder: Mutex<Option<Thread>>,
}

impl Record {
    const_fn! {
        /// The record of threads that have none.
        pub fn nobody() -> Record {
            Record::with_word(NOBODY)
        }

        fn with_word(word: u64) -> Record {
            Record {
                word: AtomicU64::new(word),
                in_use: AtomicBool::new(true),
                older: AtomicPtr::new(ptr::null_mut()),
                queue: Queue::new(),
                holder: Mutex::new(None),
            }
        }

        /// For a thread that is alive.
        pub(super) fn new() -> Record {
            Record::with_word(IDLE)
        }
    }

    /// Whether it stands for no record.
    pub(super) fn is_nobody(&self) -> bool {
        self.word.load(Ordering::Relaxed) == NOBODY
    }

    /// Whether its thread is in a section.
    pub(super) fn is_reading(&self) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        word != NOBODY && word & NEST != 0
    }

    /// Whether a live thread has it.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Another level of a section that has begun.
    ///
    /// # Panics
    /// At the 65,536th.
    pub(super) fn nest(&self) {
        let word = self.word.load(Ordering::Relaxed);
        assert!(word & NEST < NEST - 1, "rcu: 65,535 nested read sections; a loop that leaks guards?");
        self.word.store(word + 1, Ordering::Relaxed);
    }

    /// The executing thread has it.
    pub(super) fn name_holder(&self) {
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }

    /// For a thread that ends: another one may have the record.
    pub(super) fn give_back(&self) {
        // Release: pairs with the Acquire in `adopt`.
        self.in_use.store(false, Ordering::Release);
    }
}

/// The words of all threads, and the number that they copy.
pub(super) struct Readers<P, R = Sound> {
    /// What an outermost reader stores: the grace period's number, and one level.
    current: AtomicU64,
    /// The record that was made last.
    newest: AtomicPtr<Record>,
    marker: PhantomData<fn() -> (P, R)>,
}

impl<P: Platform, R: Rules> Readers<P, R> {
    const_fn! {
        /// No readers yet. The number begins shortly before it wraps, so that this happens in every program.
        pub(super) fn new() -> Readers<P, R> {
            Readers {
                current: AtomicU64::new(0_u64.wrapping_sub(64 * PERIOD) + 1),
                newest: AtomicPtr::new(ptr::null_mut()),
                marker: PhantomData,
            }
        }
    }

    /// Begins a section of the thread that has `record`, if it is in none. Otherwise returns `false`.
    #[inline(always)]
    pub(super) fn enter(&self, record: &Record) -> bool {
        if record.word.load(Ordering::Relaxed) != IDLE {
            return false;
        }
        // Acquire: pairs with the Release in `raise`: who has the new number sees what came before it. Release: pairs
        // with the Acquire in `all_passed`: whoever sees this section sees the end of those before.
        record.word.store(self.current.load(Ordering::Acquire), Ordering::Release);
        if R::LIGHT {
            // Pairs with the heavy fence in `raise`.
            P::fence_light();
        }
        true
    }

    /// Ends a section, the outermost or a nested one.
    #[inline(always)]
    pub(super) fn leave(&self, record: &Record) {
        let word = record.word.load(Ordering::Relaxed);
        if word & NEST == 1 {
            // Release: pairs with the Acquire in `all_passed`: the section's accesses are over.
            record.word.store(IDLE, R::LEAVE);
        } else {
            record.word.store(word - 1, Ordering::Relaxed);
        }
    }

    /// Raises the number: sections that begin after this see what the caller did before. One caller at a time, and none
    /// before the former number has [passed](Readers::all_passed).
    pub(super) fn raise(&self) {
        let number = self.current.load(Ordering::Relaxed).wrapping_add(PERIOD);
        // Release: pairs with the Acquire in `enter`.
        self.current.store(number, Ordering::Release);
        if R::HEAVY {
            // Pairs with the light fence in `enter`.
            P::fence_heavy();
        }
    }

    /// Whether all sections that began before the number was raised are over, as far as one look can tell.
    pub(super) fn all_passed(&self) -> bool {
        !R::LOOKS || self.awaited().next().is_none()
    }

    /// The records of those whose sections began before the number was raised.
    fn awaited(&self) -> impl Iterator<Item = &'static Record> {
        let current = self.current.load(Ordering::Relaxed);
        self.records().filter(move |record| {
            // Acquire: pairs with the Releases in `enter` and `leave`.
            let word = record.word.load(Ordering::Acquire);
            word & NEST != 0 && (current & !NEST).wrapping_sub(word & !NEST) as i64 > 0
        })
    }

    /// All records that there have been.
    pub(super) fn records(&self) -> impl Iterator<Item = &'static Record> {
        // Acquire: pairs with the Release in `publish`.
        let mut at = self.newest.load(Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: null, or a record, which lives for ever and was complete before it was published.
            let record: &'static Record = unsafe { at.as_ref() }?;
            at = record.older.load(Ordering::Relaxed);
            Some(record)
        })
    }

    /// A record whose thread has ended, for the executing thread.
    pub(super) fn adopt(&self) -> Option<&'static Record> {
        self.records().find(|record| {
            // Acquire: pairs with the Release in `give_back`.
            !record.is_in_use()
                && record.in_use.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })
    }

    /// Lets the scans see a new record.
    pub(super) fn publish(&self, record: &'static Record) {
        let this = ptr::from_ref(record).cast_mut();
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            record.older.store(newest, Ordering::Relaxed);
            // Release: pairs with the Acquire in `records`. A scan that does not see the record yet belongs to a grace
            // period whose heavy fence comes before the light one of the thread's first section.
            match self.newest.compare_exchange(newest, this, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(other) => newest = other,
            }
        }
    }
}

/// The threads that a grace period waits for, by name.
pub(super) struct Awaited<'a, P, R>(pub(super) &'a Readers<P, R>);

impl<P: Platform, R: Rules> fmt::Display for Awaited<'_, P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for record in self.0.awaited() {
            f.write_str(separator)?;
            separator = ", ";
            // Not waited for: its holder may be this very thread.
            match record.holder.try_lock().ok().as_deref() {
                Some(Some(thread)) => match thread.name() {
                    Some(name) => write!(f, "thread '{name}' ({:?})", thread.id())?,
                    None => write!(f, "a thread without a name ({:?})", thread.id())?,
                },
                _ => f.write_str("a thread")?,
            }
        }
        if separator.is_empty() {
            f.write_str("readers who have just left")?;
        }
        Ok(())
    }
}
