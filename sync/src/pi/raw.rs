//! The mutex without its data: the owner's name, and the line.

use core::panic::Location;

use hal::Platform;
use hal::platform::{Priority, Report, Severity, TaskId};

use super::inheritance::{Inheritance, pass_on, record, urgency};
use crate::list::Link;
use crate::primitives::{AtomicUsize, Cell, Ordering, const_fn};
use crate::spin::{SpinLock, SpinLockGuard};
use crate::wait::{Limits, Request, WaitError, Waiters, Woken, itself, sleep_once, with_place};
use crate::{Task, TaskCx};

/// Somebody is in line. In the bits that a task's name leaves free.
const WAITERS: usize = 1;
const FLAGS: usize = TaskId::ALIGN - 1;

/// The lock of a mutex's line is held.
pub(super) type LineGuard<'a, P> = SpinLockGuard<'a, Waiters<P>, Task<P>>;

/// What tasks wait for. [`super::inheritance`] states its invariants.
pub(super) struct Raw<P: Platform> {
    /// The owner's name, and `WAITERS`.
    word: AtomicUsize,
    pub(super) line: SpinLock<Waiters<P>, Task<P>>,
    /// Among those that its owner holds. The lock of the owner's record protects it.
    pub(super) link: Link<P>,
    /// The greatest priority in line. Written with the line's lock and that of the owner's record, read with either.
    pub(super) donated: Cell<Priority>,
}

// SAFETY: `link` and `donated` are accessed under the locks that their comments name.
unsafe impl<P: Platform> Sync for Raw<P> {}
// SAFETY: nobody is in line while it is moved, because waiters borrow it; then nothing points to it.
unsafe impl<P: Platform> Send for Raw<P> {}

impl<P: Platform> Raw<P> {
    const_fn! {
        #[track_caller]
        pub(super) fn new() -> Raw<P> {
            Raw {
                word: AtomicUsize::new(0),
                line: SpinLock::new(Waiters::new()),
                link: Link::new_in(),
                donated: Cell::new(Priority::LEAST),
            }
        }
    }

    #[inline]
    pub(super) fn owner(&self) -> Option<TaskId> {
        owner(self.word.load(Ordering::Relaxed))
    }

    /// Takes the mutex if it is free, for the executing task.
    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        let me = P::current_task();
        // Acquire: pairs with the Release in `unlock` and `hand_over`.
        let taken = self.word.compare_exchange(0, me.0.get(), Ordering::Acquire, Ordering::Relaxed).is_ok();
        if taken && let Some(record) = Self::mine(me) {
            record.add_hold();
        }
        taken
    }

    /// The executing task's record.
    #[inline]
    fn mine<'a>(me: TaskId) -> Option<&'a Inheritance<P>> {
        // SAFETY: it executes this.
        unsafe { record::<P>(me) }
    }

    /// Sleeps until it was handed over, or is found free after all, or a limit is reached.
    #[cold]
    pub(super) fn wait(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        at: &'static Location<'static>,
    ) -> Result<(), WaitError> {
        let me = P::current_task();
        let record = Self::mine(me);
        if self.owner() == Some(me) {
            report::<P>("pi mutex recursion: the task waits for a mutex that it holds", at);
        }
        with_place(&self.line, itself, Request::SIGNAL, |place| {
            let mut line = self.line.lock();
            // I3. Acquire: pairs with the Release in `unlock` and `hand_over`, in case it is free by now. From here on
            // it is not: everybody else wants to see 0.
            if owner(self.word.fetch_or(WAITERS, Ordering::Acquire)).is_none() {
                self.word.store(me.0.get(), Ordering::Relaxed);
                record.inspect(|record| record.add_hold());
                return Ok(());
            }
            place.join(&mut line);
            let waiting = Waiting::begin(record, self);
            if self.pass_on(line, Some(me)).is_err() {
                report::<P>(
                    "pi mutex deadlock: the owner waits, through others or itself, for this task",
                    at,
                );
            }
            loop {
                let (line, woken) = sleep_once(place, limits, cx);
                match woken {
                    Woken::Signalled => {
                        // Who handed over has noted that we do not wait any more.
                        core::mem::forget(waiting);
                        record.inspect(|record| record.add_hold());
                        return Ok(());
                    }
                    Woken::GaveUp(error) => {
                        drop(waiting);
                        // What we gave is taken back. A circle was reported by the task that closed it.
                        let _ = self.pass_on(line, None);
                        return Err(error);
                    }
                    Woken::Look => (),
                }
            }
        })
    }

    /// Walks the chain from here, with the line locked.
    fn pass_on(
        &self,
        line: LineGuard<'_, P>,
        waiting: Option<TaskId>,
    ) -> Result<(), super::inheritance::Circle> {
        let mut line = Some(line);
        pass_on(|| Some((self, line.take().unwrap_or_else(|| self.line.lock()))), waiting)
    }

    /// With the line's lock: nobody is in line any more.
    pub(super) fn note_empty(&self) {
        // Relaxed: nothing is passed on by the flag.
        self.word.fetch_and(!WAITERS, Ordering::Relaxed);
    }

    /// # Safety
    /// The caller holds the mutex, and with this call ends its claim to it.
    #[inline]
    pub(super) unsafe fn unlock(&self) {
        let me = P::current_task();
        if let Some(record) = Self::mine(me) {
            record.remove_hold();
        }
        // Release: pairs with the Acquire in `try_lock` and `wait`.
        if self.word.compare_exchange(me.0.get(), 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.hand_over(me);
        }
    }

    /// As the owner: makes the most urgent in line the next one, if there is a line.
    #[cold]
    fn hand_over(&self, me: TaskId) {
        let mut line = self.line.lock();
        if let Some(record) = Self::mine(me) {
            record.let_go(self, me);
        }
        P::chaos_point();
        let Some(waiter) = line.take_greatest(urgency::<P>) else {
            // The last one in line has given up meanwhile. Release: as in `unlock`.
            return self.word.store(0, Ordering::Release);
        };
        let next = waiter.task();
        let flags = if line.is_empty() { 0 } else { WAITERS };
        // Release: pairs with the Acquire of a later `try_lock`; the next owner itself synchronises by the line's lock.
        // A store and not a read-modify-write: with the line's lock and as the owner nobody else changes the word.
        self.word.store(next.0.get() | flags, Ordering::Release);
        // SAFETY: it goes on only under the line's lock, which we have.
        if let Some(record) = unsafe { record::<P>(next) } {
            record.has_got(self, next, &mut line);
        }
        waiter.signal();
    }
}

/// The executing task waits for a mutex. Dropping it ends that.
struct Waiting<'a, P: Platform>(Option<&'a Inheritance<P>>);

impl<'a, P: Platform> Waiting<'a, P> {
    /// With the lock of the line, in which the task is.
    fn begin(record: Option<&'a Inheritance<P>>, mutex: &Raw<P>) -> Waiting<'a, P> {
        record.inspect(|record| record.begin_wait(mutex));
        Waiting(record)
    }
}

impl<P: Platform> Drop for Waiting<'_, P> {
    fn drop(&mut self) {
        self.0.inspect(|record| record.end_wait());
    }
}

/// The task that a word names.
fn owner(word: usize) -> Option<TaskId> {
    core::num::NonZeroUsize::new(word & !FLAGS).map(TaskId)
}

#[cold]
fn report<P: Platform>(what: &str, at: &'static Location<'static>) {
    P::report(&Report { severity: Severity::Bug, message: format_args!("{what}"), location: at });
}
