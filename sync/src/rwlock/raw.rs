//! The two words of a reader-writer lock, without data.
//!
//! 1. The **state** counts readers, and its highest bit says that a writer is inside. A reader adds one and looks at
//!    what was there; if a writer was, it takes its one back and waits. A writer swaps 0 for its bit.
//! 2. Waiters watch the state and enter when it lets them; who runs, wins. A stream of readers would so keep a writer
//!    out for ever, and a stream of writers a reader. So who was out of luck for long joins the **line** (`line.rs`).
//!    While there is a line, readers and writers alike enter in its order only.
//! 3. A reader in an interrupt handler does not look at the line. The handler may have interrupted a reader for which
//!    the writer at the front waits: standing behind that writer, it would wait for the reader below itself. It waits
//!    for a writer that is inside, which is on another CPU. It leaves its one in the state meanwhile, so that it waits
//!    for no second writer.
//!
//! **Fairness.** A waiter that runs (in the sense of `spin/raw/adaptive.rs`: it looks at least once while another one
//! looks [`ABSENT_AFTER`](super::line::ABSENT_AFTER) times) joins the line at its [`PATIENCE`]-th look. From then on it
//! is passed by those who are ahead of it in line, once each, by at most one entry of each CPU that had looked at the
//! line before, and by readers in interrupt handlers. That holds for readers and writers alike.

use core::marker::PhantomData;

use hal::Platform;

use super::line::{Line, PATIENCE, Step, Waiter};
use crate::primitives::{AtomicU32, Ordering, const_fn};
use crate::spin::raw::pause;

/// A writer is inside.
const WRITER: u32 = 1 << 31;
/// One reader is inside, or about to find out that it is not.
const READER: u32 = 1;

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
pub(crate) trait Rules {
    /// How a writer leaves.
    const UNLOCK_WRITE: Ordering = Ordering::Release;
    /// How a reader leaves.
    const UNLOCK_READ: Ordering = Ordering::Release;
    /// Whether those who come look at the line first.
    const HONOUR_LINE: bool = true;
    /// Whether readers in interrupt handlers pass the line.
    const INTERRUPTS_PASS: bool = true;
    /// See [`PATIENCE`].
    const PATIENCE: u32 = PATIENCE;
}

/// The protocol as described.
pub(crate) enum Sound {}

impl Rules for Sound {}

/// A lock without data. The caller sees to it that its CPU is not taken away, and that nothing that interrupts it there
/// wants the lock: except for reading, if it reads itself.
///
/// # Invariants
/// * `WRITER` is set by who finds the whole state 0, and cleared by that writer when it leaves.
/// * The rest of the state is at least the number of readers inside. A reader that did not find `WRITER` when it added
///   itself, or has seen it cleared since, is inside until it subtracts itself.
/// * Exclusion depends on the state alone; any value in `line` would be safe.
pub(crate) struct RawRw<R: Rules = Sound> {
    state: AtomicU32,
    line: AtomicU32,
    rules: PhantomData<fn() -> R>,
}

impl<R: Rules> RawRw<R> {
    const_fn! {
        /// A lock that nobody holds.
        pub(crate) fn new() -> RawRw<R> {
            RawRw { state: AtomicU32::new(0), line: AtomicU32::new(Line::EMPTY.0), rules: PhantomData }
        }
    }

    #[inline(always)]
    fn line(&self) -> Line {
        // Relaxed: fairness depends on this value, exclusion does not.
        Line(self.line.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn has_line(&self) -> bool {
        R::HONOUR_LINE && !self.line().is_empty()
    }

    /// Adds a reader; whether it is inside. If not, it is still counted.
    #[inline(always)]
    fn add_reader(&self) -> bool {
        // Acquire: pairs with the Release of the writer that left last; what it wrote is seen by this reader.
        self.state.fetch_add(READER, Ordering::Acquire) & WRITER == 0
    }

    /// Takes back a reader that was never inside.
    #[inline(always)]
    fn retract_reader(&self) {
        // Relaxed: it has read nothing. As a read-modify-write it continues the release sequences of those before it.
        self.state.fetch_sub(READER, Ordering::Relaxed);
    }

    #[inline(always)]
    fn enter_writer(&self) -> bool {
        // Acquire: pairs with the Release of every reader and writer that left, which are one release sequence.
        self.state.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Enters as a reader. `passes_line`, asked if there is a reason to wait, says that the caller does not queue.
    #[cfg(any(test, feature = "lock_api"))]
    #[inline]
    pub(crate) fn read<P: Platform>(&self, passes_line: impl FnOnce() -> bool) {
        self.read_noting::<P, _>(passes_line, || ());
    }

    /// The same; `note` is called before a wait, and what it returns is dropped after it.
    #[inline]
    pub(crate) fn read_noting<P: Platform, G>(
        &self,
        passes_line: impl FnOnce() -> bool,
        note: impl FnOnce() -> G,
    ) {
        if self.has_line() {
            self.wait_read::<P, G>(false, R::INTERRUPTS_PASS && passes_line(), note);
        } else if !self.add_reader() {
            self.wait_read::<P, G>(true, R::INTERRUPTS_PASS && passes_line(), note);
        }
    }

    /// Enters as a reader if that is possible at once.
    #[inline]
    pub(crate) fn try_read(&self, passes_line: impl FnOnce() -> bool) -> bool {
        if self.has_line() && !(R::INTERRUPTS_PASS && passes_line()) {
            return false;
        }
        let is_inside = self.add_reader();
        if !is_inside {
            self.retract_reader();
        }
        is_inside
    }

    /// Enters as the writer.
    #[inline]
    pub(crate) fn write<P: Platform>(&self) {
        if !self.try_write() {
            self.wait::<P>(|state| state == 0, || self.enter_writer());
        }
    }

    /// Enters as the writer if that is possible at once.
    #[inline]
    pub(crate) fn try_write(&self) -> bool {
        !self.has_line() && self.enter_writer()
    }

    #[cold]
    fn wait_read<P: Platform, G>(&self, is_counted: bool, passes_line: bool, note: impl FnOnce() -> G) {
        let _noted = note();
        P::chaos_point();
        if passes_line {
            // Counted from here on, so that no writer enters after the one that is inside.
            let mut is_inside = !is_counted && self.add_reader();
            let mut looks = 0;
            while !is_inside {
                pause::<P>(looks);
                looks = looks.saturating_add(1);
                // Acquire: as in `add_reader`.
                is_inside = self.state.load(Ordering::Acquire) & WRITER == 0;
            }
            return;
        }
        if is_counted {
            self.retract_reader();
        }
        self.wait::<P>(
            |state| state & WRITER == 0,
            || {
                let is_inside = self.add_reader();
                if !is_inside {
                    self.retract_reader();
                }
                is_inside
            },
        );
    }

    /// Waits until the state lets the caller in, by the rules of the line, and enters.
    #[cold]
    fn wait<P: Platform>(&self, may_enter: impl Fn(u32) -> bool, enter: impl Fn() -> bool) {
        let mut waiter = Waiter::new(R::PATIENCE);
        loop {
            P::chaos_point();
            // Look before trying: a failed attempt takes the cache line away from those inside, a look shares it.
            let line = self.line();
            let state = self.state.load(Ordering::Relaxed);
            match waiter.look(line, may_enter(state), state == 0) {
                Step::Enter => {
                    if enter() {
                        P::chaos_point();
                        return self.leave_line(&waiter);
                    }
                }
                Step::ChangeLine(to, ticket) => {
                    if self.change_line(line, to) {
                        waiter.line_changed(ticket);
                    }
                    P::chaos_point();
                    continue;
                }
                Step::Wait => (),
            }
            pause::<P>(waiter.looks);
            waiter.looks = waiter.looks.saturating_add(1);
        }
    }

    /// Replaces the line if it still is as it was read.
    fn change_line(&self, from: Line, to: Line) -> bool {
        self.line.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// As one who is inside. The next in line now watches the state; if both read, it enters at once.
    fn leave_line(&self, waiter: &Waiter) {
        let Some(ticket) = waiter.ticket else { return };
        loop {
            let line = self.line();
            // Somebody may skip the ticket just now: then there is nothing to do.
            if !line.is_in_front(ticket) || self.change_line(line, line.advanced()) {
                return;
            }
        }
    }

    /// A reader leaves.
    ///
    /// # Safety
    /// The caller is inside as a reader.
    #[inline]
    pub(crate) unsafe fn unlock_read(&self) {
        // Release: pairs with the Acquire of the next writer; what this reader read, it read before that writes.
        self.state.fetch_sub(READER, R::UNLOCK_READ);
    }

    /// The writer leaves.
    ///
    /// # Safety
    /// The caller is inside as the writer.
    #[inline]
    pub(crate) unsafe fn unlock_write(&self) {
        // Release: pairs with the Acquire of whoever enters next. Not a store, because readers may be counted already.
        self.state.fetch_sub(WRITER, R::UNLOCK_WRITE);
    }

    /// The writer becomes a reader; no other writer comes between.
    ///
    /// # Safety
    /// The caller is inside as the writer; from now on it is as a reader.
    #[inline]
    pub(crate) unsafe fn downgrade(&self) {
        // Release: pairs with the Acquire of readers that enter next to the caller.
        self.state.fetch_sub(WRITER - READER, R::UNLOCK_WRITE);
    }

    /// Whether somebody is inside, at this moment.
    #[inline]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != 0
    }

    /// Whether a writer is inside, at this moment.
    #[inline]
    pub(crate) fn is_write_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) & WRITER != 0
    }
}

#[cfg(all(test, not(loom)))]
#[path = "raw_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "rwlock_models.rs"]
mod models;
