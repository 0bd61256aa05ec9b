//! The line of tasks that wait for something, and the one way to stand in it.
//!
//! 1. The line lives in the data of a spin lock, together with what is waited for. A waiter is a node on its task's
//!    stack; joining and leaving the line allocates nothing and cannot fail.
//! 2. Who changes what is waited for does so under the lock, takes a waiter out of the line, marks it and wakes its
//!    task. Because a wake-up is a token that the task's next block consumes, none is lost however the two meet.
//! 3. **A wait ends under the lock**, in every case: signalled, timed out or cancelled. So the signalling side is through
//!    with the node, the task and the lock's memory when the waiter goes on, and the waiter may end, or free what it
//!    waited for, at once. The price is one uncontended lock for each wait that really slept.
//!
//! # Invariants
//! * **W1**: a node in the line belongs to a task that is inside of [`sleep`] or [`Place`], and stays where it is until
//!   it is out of the line.
//! * **W2**: the fields of a node in the line are accessed under the line's lock only.

use core::cmp::Reverse;
use core::pin::pin;
use core::ptr::NonNull;

use hal::platform::{TaskId, Wakeup};
use hal::{Native, Platform};

use super::{Limits, WaitError};
use crate::list::{Link, List, Owner};
use crate::primitives::Cell;
use crate::spin::{SpinLock, SpinLockGuard};
use crate::{Flavor, TaskCx};

/// One task's place in a line.
pub(crate) struct Waiter<P: Platform = Native> {
    link: Link<P>,
    task: TaskId,
    kind: Cell<u8>,
    slot: *mut (),
    signalled: Cell<bool>,
}

/// What a task waits for.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    /// Tells waiters apart where a line has several kinds.
    pub(crate) kind: u8,
    /// Where what is handed over lies, or is put; valid while the waiter is in line.
    pub(crate) slot: *mut (),
}

impl Request {
    /// Nothing but to be signalled.
    pub(crate) const SIGNAL: Request = Request::of_kind(0);

    pub(crate) const fn of_kind(kind: u8) -> Request {
        Request { kind, slot: core::ptr::null_mut() }
    }
}

/// A pointer to a waiter on some task's stack, by W1 valid while it is in the line.
pub(crate) struct OnStack<P: Platform>(NonNull<Waiter<P>>);

// SAFETY: what the pointer leads to is accessed under the line's lock only (W2), by whoever has it.
unsafe impl<P: Platform> Send for OnStack<P> {}

// SAFETY: the object neither moves nor ends while it is in the line (W1); the address is the pointer itself; each waiter
// is made by one task, which adds it to one line.
unsafe impl<P: Platform> Owner for OnStack<P> {
    type Object = Waiter<P>;
    const SHARED: bool = false;

    fn into_raw(self) -> NonNull<Waiter<P>> {
        self.0
    }

    unsafe fn from_raw(object: NonNull<Waiter<P>>) -> OnStack<P> {
        OnStack(object)
    }
}

crate::link_field! {
    struct InLine<P: Platform> = Waiter<P> => link: Link<P>;
}

/// A line of waiting tasks, in order of arrival. It lives in the data of the lock that protects it.
pub(crate) struct Waiters<P: Platform = Native> {
    line: List<OnStack<P>, InLine<P>>,
}

impl<P: Platform> Waiters<P> {
    crate::primitives::const_fn! {
        /// Nobody waits.
        pub(crate) fn new() -> Waiters<P> {
            Waiters { line: List::new() }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// What the first waiter waits for.
    pub(crate) fn front_kind(&self) -> Option<u8> {
        self.line.front().map(|waiter| waiter.kind.get())
    }

    /// The first waiter's task.
    pub(crate) fn front_task(&self) -> Option<TaskId> {
        self.line.front().map(|waiter| waiter.task)
    }

    /// Wakes the first waiter and leaves it in line: it shall look again for itself.
    pub(crate) fn wake_front(&self) {
        if let Some(waiter) = self.line.front() {
            // SAFETY: its task cannot end before it has left the line (W1).
            unsafe { P::wake(waiter.task) };
        }
    }

    /// Takes the first waiter out of the line and wakes it. Returns whether there was one.
    #[inline(always)]
    pub(crate) fn signal_front(&mut self) -> bool {
        !self.is_empty() && self.signal_first()
    }

    #[inline(never)]
    fn signal_first(&mut self) -> bool {
        self.serve_front(|_| ()).is_some()
    }

    /// Takes the waiter out of the line that came last, and wakes it. Returns whether there was one.
    #[inline]
    pub(crate) fn signal_back(&mut self) -> bool {
        let Some(waiter) = self.line.pop_back() else { return false };
        waiter.signal();
        true
    }

    /// Takes the first waiter out of the line. The caller is to signal it, under the same hold of the lock.
    pub(crate) fn take_front(&mut self) -> Option<OnStack<P>> {
        self.line.pop_front()
    }

    /// Takes the first waiter out of the line, has `hand_over` see to its slot, and wakes it.
    pub(crate) fn serve_front<R>(&mut self, hand_over: impl FnOnce(*mut ()) -> R) -> Option<R> {
        let waiter = self.take_front()?;
        // SAFETY: its task goes on only under the line's lock, which the caller holds.
        let result = hand_over(unsafe { waiter.0.as_ref() }.slot);
        waiter.signal();
        Some(result)
    }

    /// The greatest `rank` of those in line. Cost: O(waiters).
    pub(crate) fn greatest<R: Ord>(&self, rank: impl Fn(TaskId) -> R) -> Option<R> {
        self.line.iter().map(|waiter| rank(waiter.task)).max()
    }

    /// Takes out of the line the first of those with the greatest `rank`. The caller is to signal it, under the same hold
    /// of the lock. Cost: O(waiters).
    pub(crate) fn take_greatest<R: Ord>(&mut self, rank: impl Fn(TaskId) -> R) -> Option<OnStack<P>> {
        // Each is asked once: the answer may change meanwhile. `min_by_key` and reversed, because of equals it takes the
        // first and `max_by_key` the last.
        let ranked = self.line.iter().map(|waiter| Reverse(rank(waiter.task))).enumerate();
        let (chosen, _) = ranked.min_by(|(_, a), (_, b)| a.cmp(b))?;
        let mut place = 0..;
        self.line.extract_if(|_| place.next() == Some(chosen)).next()
    }

    /// Signals, from the front, every waiter for which `choose` says so of its kind. Returns how many.
    pub(crate) fn signal_where(&mut self, mut choose: impl FnMut(u8) -> bool) -> usize {
        self.line.extract_if(|waiter| choose(waiter.kind.get())).map(|waiter| waiter.signal()).count()
    }
}

impl<P: Platform> OnStack<P> {
    /// Whose it is.
    pub(crate) fn task(&self) -> TaskId {
        // SAFETY: taken out of the line under the lock, which the caller still holds.
        unsafe { self.0.as_ref() }.task
    }

    /// Tells a waiter that was taken out of the line. The caller holds the line's lock, and with it the waiter in place.
    pub(crate) fn signal(self) {
        // SAFETY: its task goes on only under the line's lock, which the caller holds.
        let waiter = unsafe { self.0.as_ref() };
        waiter.signalled.set(true);
        // SAFETY: as above, so the task has not ended.
        unsafe { P::wake(waiter.task) };
    }
}

/// A waiter that is put into the line and taken out of it, by its task.
///
/// Dropping it leaves the line, also when the task unwinds.
pub(crate) struct Place<'a, T, F: Flavor> {
    lock: &'a SpinLock<T, F>,
    line: fn(&mut T) -> &mut Waiters<F::Platform>,
    waiter: NonNull<Waiter<F::Platform>>,
}

impl<'a, T, F: Flavor> Place<'a, T, F> {
    /// # Safety
    /// `waiter` is pinned, outlives the value, and is used by nothing else.
    unsafe fn new(
        lock: &'a SpinLock<T, F>,
        line: fn(&mut T) -> &mut Waiters<F::Platform>,
        waiter: NonNull<Waiter<F::Platform>>,
    ) -> Place<'a, T, F> {
        Place { lock, line, waiter }
    }

    /// Joins the line at its end, if the waiter is not in it.
    pub(crate) fn join(&self, guarded: &mut T) {
        // SAFETY: valid by `new`'s contract; the line's lock is held, as `guarded` shows (W2).
        let waiter = unsafe { self.waiter.as_ref() };
        if !waiter.link.is_linked() {
            waiter.signalled.set(false);
            (self.line)(guarded).line.push_back(OnStack(self.waiter));
        }
    }

    /// Whether somebody has taken the waiter out of the line and signalled it. Under the lock.
    pub(crate) fn is_signalled(&self, _guarded: &mut T) -> bool {
        // SAFETY: as in `join`.
        unsafe { self.waiter.as_ref() }.signalled.get()
    }

    /// Changes what the waiter waits for. Under the lock.
    pub(crate) fn set_kind(&self, kind: u8, _guarded: &mut T) {
        // SAFETY: as in `join`.
        unsafe { self.waiter.as_ref() }.kind.set(kind);
    }

    /// Whether the waiter is the first in line.
    pub(crate) fn is_first(&self, guarded: &mut T) -> bool {
        (self.line)(guarded).line.front().is_some_and(|first| core::ptr::eq(first, self.waiter.as_ptr()))
    }

    /// Leaves the line. Returns whether it was still in it.
    pub(crate) fn leave(&self, guarded: &mut T) -> bool {
        // SAFETY: as in `join`. The waiter is in no line but this one.
        unsafe { (self.line)(guarded).line.remove(self.waiter.as_ref()).is_some() }
    }
}

impl<T, F: Flavor> Drop for Place<'_, T, F> {
    fn drop(&mut self) {
        // SAFETY: valid by `new`'s contract. The flag is atomic, and only this task sets it.
        if unsafe { self.waiter.as_ref() }.link.is_linked() {
            self.leave(&mut self.lock.lock());
        }
    }
}

/// Makes a waiter for the current task on this stack frame, and hands it to `body` in a [`Place`].
pub(crate) fn with_place<'a, T, F: Flavor, R>(
    lock: &'a SpinLock<T, F>,
    line: fn(&mut T) -> &mut Waiters<F::Platform>,
    request: Request,
    body: impl FnOnce(&Place<'a, T, F>) -> R,
) -> R {
    let waiter = pin!(Waiter::<F::Platform> {
        link: Link::new_in(),
        task: F::Platform::current_task(),
        kind: Cell::new(request.kind),
        slot: request.slot,
        signalled: Cell::new(false),
    });
    // SAFETY: pinned above, and this function's own. `place` is dropped first.
    let place = unsafe { Place::new(lock, line, NonNull::from(waiter.as_ref().get_ref())) };
    body(&place)
}

/// The line of a lock whose data are nothing but the line.
pub(crate) fn itself<P: Platform>(line: &mut Waiters<P>) -> &mut Waiters<P> {
    line
}

/// Why a task that stood in line goes on.
pub(crate) enum Woken {
    /// It was signalled, and is out of the line.
    Signalled,
    /// It was woken to look for itself, and is still in line.
    Look,
    /// It gives up, and has left the line.
    GaveUp(WaitError),
}

/// Blocks once, then takes the line's lock. The caller stands in line and does not hold the lock.
pub(crate) fn sleep_once<'a, T, F: Flavor>(
    place: &Place<'a, T, F>,
    limits: Limits,
    cx: &mut TaskCx<F::Platform>,
) -> (SpinLockGuard<'a, T, F>, Woken) {
    let end = if limits.cancellable && F::Platform::is_cancelled() {
        Some(WaitError::Cancelled)
    } else {
        let wakeup = match limits.deadline_ns {
            None if limits.idle || limits.cancellable => cx.block_idle(),
            deadline_ns => cx.block(deadline_ns),
        };
        match wakeup {
            Wakeup::Woken => None,
            Wakeup::TimedOut => Some(WaitError::TimedOut),
        }
    };
    let mut guard = place.lock.lock();
    // A signal that came first counts, however late the task is.
    let woken = match end {
        _ if place.is_signalled(&mut guard) => Woken::Signalled,
        Some(error) => {
            place.leave(&mut guard);
            Woken::GaveUp(error)
        }
        None => Woken::Look,
    };
    (guard, woken)
}

/// Stands in line until signalled: for those things that are handed over to the waiter. `slot` is where the signalling
/// side finds or puts what is handed over; null if there is no such thing.
///
/// # Errors
/// [`WaitError`] if the limits ended the wait; then the waiter has left the line and was handed nothing. The lock is held
/// again, so that the caller can put in order what its leaving changed.
pub(crate) fn sleep<'a, T, F: Flavor>(
    lock: &'a SpinLock<T, F>,
    mut guard: SpinLockGuard<'a, T, F>,
    line: fn(&mut T) -> &mut Waiters<F::Platform>,
    request: Request,
    limits: Limits,
    cx: &mut TaskCx<F::Platform>,
) -> (SpinLockGuard<'a, T, F>, Result<(), WaitError>) {
    with_place(lock, line, request, move |place| {
        place.join(&mut guard);
        loop {
            drop(guard);
            let woken;
            (guard, woken) = sleep_once(place, limits, cx);
            match woken {
                Woken::Signalled => return (guard, Ok(())),
                Woken::GaveUp(error) => return (guard, Err(error)),
                Woken::Look => (),
            }
        }
    })
}
