//! What a mutex does when it is not free, or has a line: standing in it, watching the owner, handing over.

use core::panic::Location;

use hal::platform::{Report, Severity, TaskId};
use hal::{CpuId, Platform};

use super::Mutex;
use crate::contention::Contended;
use crate::faults::{Fault, is_planted};
use crate::primitives::{Ordering, fence};
use crate::wait::{Limits, Place, Request, WaitError, Waiters, Woken, itself, sleep_once, with_place};
use crate::{Task, TaskCx};

/// Somebody is in line. In the bits that a task's name leaves free.
const WAITERS: usize = 1;
/// The first in line is impatient: the owner hands over.
const ONWARD: usize = 2;
/// The first in line was woken and has yet to look: it need not be woken again.
const WOKEN: usize = 4;
const FLAGS: usize = TaskId::ALIGN - 1;

/// For how long those that watch may pass a line, from when its first became the first: 250 us. Long beside a wake-up and
/// its inter-processor interrupt, which take a few microseconds, and short beside a tick.
pub(super) const PATIENCE_NS: u64 = 250_000;
/// Turns of a spin loop between two looks of the one that watches. Every look takes the word's cache line from the owner's
/// CPU, and costs it more than a short section: with one turn between looks two CPUs got a third as much done.
/// A turn is up to 140 cycles long; sixteen of them are less than a wake-up.
const WATCH_EVERY: u32 = 16;
/// The same, of those that wait for their turn to watch. Nobody waits for them.
const TURN_EVERY: u32 = 64;
/// How often a task looks whether it is its turn to watch, before it stands in line. Some milliseconds' worth: looks rather
/// than time, because a hypervisor that takes the CPU away for as long is no reason to sleep. In models all looks are alike:
/// one, and none after it.
const LOOKS_FOR_A_TURN: u32 = if cfg!(any(loom, shuttle)) { 0 } else { (1 << 16) / TURN_EVERY };
/// Times of the line are kept in 32 bits, which count this many ns and wrap after more than an hour.
pub(super) const TIME_UNIT_NS: u64 = 1024;

/// A waiter that has not competed yet.
const PATIENT: u8 = 0;
/// One that has, and lost: the next owner hands over to it.
const IMPATIENT: u8 = 1;

impl<T: ?Sized, P: Platform> Mutex<T, P> {
    /// Takes a mutex that is free, with a line or without, unless it is promised to the first in it.
    pub(super) fn take_waited_for(&self, me: TaskId) -> bool {
        let word = self.word.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `unlock_slow`, `let_go`.
        word & !(WAITERS | WOKEN) == 0
            && self
                .word
                .compare_exchange(word, word | me.0.get(), Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    #[cold]
    pub(super) fn lock_slow(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        at: &'static Location<'static>,
    ) -> Result<(), WaitError> {
        let me = P::current_task();
        if self.take_waited_for(me) {
            return Ok(());
        }
        let _waiting = Contended::<P>::begin(self, &self.map);
        if self.owner() == Some(me) {
            P::report(&Report {
                severity: Severity::Bug,
                message: format_args!("mutex recursion: the task waits for a mutex that it holds"),
                location: at,
            });
        }
        if self.watch_owner(me, limits) {
            return Ok(());
        }
        with_place(&self.line, itself, Request::of_kind(PATIENT), |place| {
            let mut line = self.line.lock();
            if line.is_empty() {
                self.note_first();
            }
            place.join(&mut line);
            // M2. Relaxed: the word's own order is enough, an owner that lets go either sees the flag or is seen to have
            // let go by the look below.
            self.word.fetch_or(WAITERS, Ordering::Relaxed);
            if is_planted(Fault::AnnounceAndSleep) {
                drop(line);
                (line, _) = sleep_once(place, Limits::NONE, cx);
            }
            let mut kind = PATIENT;
            loop {
                if self.take_in_line(me, kind) {
                    self.leave(place, &mut line);
                    return Ok(());
                }
                drop(line);
                if kind == IMPATIENT && self.watch_as_first(me, limits) {
                    line = self.line.lock();
                    continue;
                }
                let woken;
                (line, woken) = sleep_once(place, limits, cx);
                match woken {
                    Woken::GaveUp(error) => return self.give_up(me, &mut line, error),
                    Woken::Signalled | Woken::Look => self.note_look(),
                }
                match kind {
                    // Woken as the first in line and passed over by somebody: that happens once.
                    PATIENT if self.owner().is_some_and(|owner| owner != me) && place.is_first(&mut line) => {
                        kind = IMPATIENT;
                        place.set_kind(kind, &mut line);
                        // M5. Relaxed: as for `WAITERS`.
                        self.word.fetch_or(ONWARD, Ordering::Relaxed);
                    }
                    _ => (),
                }
            }
        })
    }

    /// Takes the mutex as a waiter, if it was handed over, or is free and not promised to another one.
    fn take_in_line(&self, me: TaskId, kind: u8) -> bool {
        if self.was_handed_over(me) || self.take_waited_for(me) {
            return true;
        }
        let taken = me.0.get() | WAITERS;
        // Free and promised. Acquire: pairs with the Release in `let_go`.
        kind == IMPATIENT
            && self
                .word
                .compare_exchange(WAITERS | ONWARD, taken, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// As the owner, with the line's lock: leaves the line.
    fn leave(&self, place: &Place<'_, Waiters<P>, Task<P>>, line: &mut Waiters<P>) {
        if place.is_first(line) {
            self.note_first();
        }
        place.leave(line);
        self.note_left(line);
    }

    /// With the line's lock: somebody has left the line. One that gave up leaves its time to the next: that one is not
    /// passed for longer than it would have been.
    fn note_left(&self, line: &Waiters<P>) {
        let gone = match line.front_kind() {
            None => WAITERS | ONWARD | WOKEN,
            // Whoever left was not the first.
            Some(IMPATIENT) => 0,
            Some(_) if is_planted(Fault::StayWoken) => ONWARD,
            Some(_) => ONWARD | WOKEN,
        };
        // Relaxed: nothing is passed on by the flags.
        self.word.fetch_and(!gone, Ordering::Relaxed);
    }

    /// With the line's lock: somebody who was woken looks (M4). Whether it was the first does not matter: the flag is only ever
    /// missing too often.
    fn note_look(&self) {
        if !is_planted(Fault::StayWoken) {
            // Relaxed: an owner that lets go trusting the flag has done so before this, and is seen by the look that follows.
            self.word.fetch_and(!WOKEN, Ordering::Relaxed);
        }
    }

    /// With the line's lock: another one becomes the first in line.
    fn note_first(&self) {
        // Relaxed: whoever sees the former time passes the line once more, or does not.
        self.due.store(units(P::now_ns() + PATIENCE_NS), Ordering::Relaxed);
    }

    /// Whether the first in line has waited for long enough.
    fn is_line_due(&self) -> bool {
        let left = self.due.load(Ordering::Relaxed).wrapping_sub(units(P::now_ns()));
        self.word.load(Ordering::Relaxed) & WAITERS != 0 && left.cast_signed() <= 0
    }

    /// A limit was reached. The task has left the line, but may have been given the mutex, or the wake-up for it, before.
    fn give_up(&self, me: TaskId, line: &mut Waiters<P>, error: WaitError) -> Result<(), WaitError> {
        self.note_left(line);
        if self.was_handed_over(me) {
            self.note_first();
            return Ok(());
        }
        if self.owner().is_none() && !is_planted(Fault::GiveUpSilently) {
            line.wake_front();
        }
        Err(error)
    }

    /// Whether the last owner made `me`, which waits, the next.
    fn was_handed_over(&self, me: TaskId) -> bool {
        // Acquire: pairs with the Release in `unlock_slow`.
        owner(self.word.load(Ordering::Acquire)) == Some(me)
    }

    /// Watches the owner while it runs, to take the mutex as it comes free. Returns whether it was taken; if not, the
    /// caller joins the line (M3).
    fn watch_owner(&self, me: TaskId, limits: Limits) -> bool {
        let mut more = LOOKS_FOR_A_TURN;
        while self.begin_watch(limits, &mut more) {
            let taken = self.owners_end(limits, |word| match word {
                _ if self.take_waited_for(me) => Some(true),
                // Promised to another one, who would be passed.
                _ if word & ONWARD != 0 => Some(false),
                _ => None,
            });
            self.spinner.store(false, Ordering::Relaxed);
            // M3. Pairs with the fence in `look_after_watcher`.
            fence(Ordering::SeqCst);
            match taken {
                Some(true) => return true,
                // That one comes and goes.
                Some(false) if more > 0 => (),
                _ => return false,
            }
        }
        false
    }

    /// One at a time: more would fight for the word with the owner. The others wait for their turn, for some looks, as long
    /// as the owner runs and this CPU is not wanted: the mutex changes hands many times before one of them could be woken.
    ///
    /// Nobody begins to watch while the first in line is due, but whoever waits for a turn goes on waiting: one more in
    /// line is one more to be woken and waited for, and while it is waited for the next one comes. Such a line does not end.
    fn begin_watch(&self, limits: Limits, more: &mut u32) -> bool {
        let mut on = None;
        loop {
            // Relaxed: a hint. The flag is written by whoever gets it and by nobody else.
            if !self.is_line_due()
                && !self.spinner.load(Ordering::Relaxed)
                && self.spinner.compare_exchange(false, true, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                return true;
            }
            if let Some(owner) = self.owner() {
                on = runs_on::<P>(owner, on);
                if on.is_none() {
                    break;
                }
            }
            if *more == 0 || P::context().resched_due() || limits.are_reached::<P>() {
                break;
            }
            *more -= 1;
            relax_for::<P>(TURN_EVERY);
        }
        false
    }

    /// As the first in line: watches the owner while it runs, for the mutex to be handed over. Returns whether there is
    /// something to be taken.
    fn watch_as_first(&self, me: TaskId, limits: Limits) -> bool {
        self.owners_end(limits, |word| owner(word).is_none_or(|owner| owner == me).then_some(())).is_some()
    }

    /// Looks at the word until `look` has found something; for as long as the owner runs, this CPU is not wanted, and no
    /// limit is reached: an owner may run for long.
    fn owners_end<R>(&self, limits: Limits, look: impl Fn(usize) -> Option<R>) -> Option<R> {
        let mut on = None;
        loop {
            P::chaos_point();
            let word = self.word.load(Ordering::Relaxed);
            if let Some(found) = look(word) {
                return Some(found);
            }
            if let Some(owner) = owner(word) {
                on = runs_on::<P>(owner, on);
                // Whoever has been asked to make room should not burn its time here.
                if on.is_none() || P::context().resched_due() || limits.are_reached::<P>() {
                    return None;
                }
            }
            relax_for::<P>(WATCH_EVERY);
        }
    }

    /// There is a line.
    #[cold]
    pub(super) fn unlock_slow(&self) {
        // Relaxed: hints, each looked at again.
        if self.word.load(Ordering::Relaxed) & WOKEN != 0 && self.let_go(WAITERS | WOKEN) {
            return;
        }
        if self.spinner.load(Ordering::Relaxed) && self.let_go(WAITERS) {
            return self.look_after_watcher();
        }
        let line = self.line.lock();
        let next = match line.front_kind() {
            Some(IMPATIENT) => line.front_task().map_or(0, |task| task.0.get()) | WAITERS,
            Some(_) => WAITERS | WOKEN,
            None => 0,
        };
        P::chaos_point();
        // Release: pairs with the Acquire in `was_handed_over`, `take_waited_for`, `take_free`. A store, not a
        // read-modify-write: with the line's lock and as the owner nobody else changes the word.
        self.word.store(next, Ordering::Release);
        line.wake_front();
    }

    /// Lets go of a mutex with `flags` and no others, and lets the line sleep. Returns false if the flags are different: then
    /// nothing was done.
    fn let_go(&self, flags: usize) -> bool {
        let held = P::current_task().0.get() | flags;
        // Release: pairs with the Acquire in `take_waited_for`, `take_in_line`.
        self.word.compare_exchange(held, flags, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// The mutex was left to somebody who watched: is that one still there?
    fn look_after_watcher(&self) {
        // M3. Pairs with the fence in `watch_owner`.
        fence(Ordering::SeqCst);
        if self.spinner.load(Ordering::Relaxed) || is_planted(Fault::TrustTheWatcher) {
            return;
        }
        // It has the mutex, or gave up. Another one may have the mutex and have let go of it, too.
        let line = self.line.lock();
        if self.owner().is_none() {
            line.wake_front();
        }
    }
}

/// The task that a word names.
pub(super) fn owner(word: usize) -> Option<TaskId> {
    core::num::NonZeroUsize::new(word & !FLAGS).map(TaskId)
}

/// The CPU on which `task` runs at this moment; `hint` is where it was seen last.
pub(super) fn runs_on<P: Platform>(task: TaskId, hint: Option<CpuId>) -> Option<CpuId> {
    let runs = |cpu: &CpuId| P::running_on(*cpu) == Some(task);
    hint.filter(runs).or_else(|| (0..P::cpu_count()).filter_map(CpuId::new).find(runs))
}

/// So many turns of a spin loop; in models, where all are alike, one.
fn relax_for<P: Platform>(turns: u32) {
    for _ in 0..if cfg!(any(loom, shuttle)) { 1 } else { turns } {
        P::relax();
    }
}

/// A time, in the units of `due`.
fn units(time_ns: u64) -> u32 {
    (time_ns / TIME_UNIT_NS) as u32
}
