//! Who waits for whom, and what follows for their priorities.
//!
//! A task waits for at most one mutex, a mutex is held by at most one task, so from every waiting task there leads one
//! **chain**: task, mutex, its owner, the mutex that this one waits for, and so on to a task that waits for none. Each
//! task on the chain must be as urgent as the most urgent of those behind it.
//!
//! 1. A mutex *donates* to its owner the greatest priority in its line. A task *inherits* the greatest of what the mutexes
//!    that it holds donate. Both are kept: the donation with the mutex, the sum of them with the task.
//! 2. Whatever changes one of these numbers, a task that joins or leaves a line or whose own priority changes, walks the
//!    chain from there to its end, and at each mutex takes both numbers anew from those that they follow from.
//! 3. A step holds the lock of one mutex's line, then that of its owner's record, finds there the next mutex, and takes
//!    that one's lock before it lets go of the two. So nothing on the way can end or change hands behind the walker's back.
//! 4. The order of locks is line before record. The next line would be the wrong way round, and is only *tried*; if
//!    somebody has it, the walker lets go of everything and begins again. Whoever has it is further along, so that some
//!    walker always gets on.
//!
//! Walks may overlap in any way: who changes a number always visits what follows from it *afterwards*, so the last one
//! to come by has taken all into account.
//!
//! # Invariants
//! While nobody holds the line's lock of a mutex:
//! * **I1**: a task's `waits_for` names the mutex exactly if the task is in its line.
//! * **I2**: the mutex is in its owner's list `held` exactly if its line is not empty, and in nobody else's ever.
//! * **I3**: `WAITERS` is set in its word exactly if its line is not empty, and then it has an owner, who lets go under
//!   the line's lock only.

use core::panic::Location;
use core::ptr::{self, NonNull};

use hal::Platform;
use hal::platform::{Priority, Report, Severity, TaskId};

use super::raw::{LineGuard, Raw};
use crate::Task;
use crate::faults::{Fault, is_planted};
use crate::list::{Link, List, Owner};
use crate::primitives::{AtomicU32, Ordering, const_fn};
use crate::spin::SpinLock;

/// A chain that is longer is not followed to its end: it must be a circle, in which everybody waits for ever.
const LONGEST_CHAIN: usize = 1024;

/// What one task inherits, and from whom. The structure of each task contains one, to which [`Platform::inheritance`]
/// points.
///
/// It is dropped when the task has ended. A task that ends with a [`PiMutex`](super::PiMutex) held, because its guard was
/// leaked, stops the machine with a report: others would give their priorities to a task that is no more.
///
/// ```
/// use hal::{Native, platform::Priority};
/// use sync::pi::Inheritance;
///
/// struct TaskStructure {
///     inheritance: Inheritance<Native>,
/// }
/// let task = TaskStructure { inheritance: Inheritance::new() };
/// assert_eq!(task.inheritance.inherited(), Priority::LEAST);
/// ```
pub struct Inheritance<P: Platform> {
    /// The greatest that the mutexes in `held` donate. Changes under the lock.
    inherited: AtomicU32,
    /// How many mutexes the task holds, with or without a line. The task's own.
    holds: AtomicU32,
    links: SpinLock<Links<P>, Task<P>>,
}

struct Links<P: Platform> {
    /// The mutexes that the task holds and others wait for.
    held: List<OnMutex<P>, InHeld<P>>,
    /// The mutex that the task waits for.
    waits_for: Option<NonNull<Raw<P>>>,
}

// SAFETY: by I1 and I2 what the pointers lead to stays while it is named here; it may be used from every CPU.
unsafe impl<P: Platform> Send for Links<P> {}

/// A mutex, in its owner's list.
struct OnMutex<P: Platform>(NonNull<Raw<P>>);

// SAFETY: a mutex in the list has somebody in line (I2), who borrows it, so that it neither moves nor ends. The address
// is the pointer itself. One task at a time adds it: whoever holds its line's lock.
unsafe impl<P: Platform> Owner for OnMutex<P> {
    type Object = Raw<P>;
    const SHARED: bool = false;

    fn into_raw(self) -> NonNull<Raw<P>> {
        self.0
    }

    unsafe fn from_raw(object: NonNull<Raw<P>>) -> OnMutex<P> {
        OnMutex(object)
    }
}

crate::link_field! {
    struct InHeld<P: Platform> = Raw<P> => link: Link<P>;
}

impl<P: Platform> Inheritance<P> {
    const_fn! {
        /// For a task that waits for nothing and holds nothing.
        ///
        /// ```
        /// let record = sync::pi::Inheritance::<hal::Native>::new();
        /// assert_eq!(record.inherited(), hal::platform::Priority::default());
        /// ```
        #[track_caller]
        pub fn new() -> Inheritance<P> {
            Inheritance {
                inherited: AtomicU32::new(0),
                holds: AtomicU32::new(0),
                links: SpinLock::new(Links { held: List::new(), waits_for: None }),
            }
        }
    }
}

impl<P: Platform> Inheritance<P> {
    /// What the task inherits: the priority of the most urgent task that waits, directly or through others, for a mutex
    /// that it holds. Out of date at once. Contexts: any. [The type](Inheritance) has an example.
    ///
    /// ```
    /// use hal::platform::Priority;
    /// let record = sync::pi::Inheritance::<hal::Native>::new();
    /// assert_eq!(record.inherited(), Priority::default(), "nobody waits for what it holds");
    /// ```
    pub fn inherited(&self) -> Priority {
        // Relaxed: who needs the newest value holds a lock that the last change was made under, or comes by again.
        Priority(self.inherited.load(Ordering::Relaxed))
    }

    /// The task, which executes this, holds one mutex more.
    #[inline(always)]
    pub(super) fn add_hold(&self) {
        // The task's own, so that a load and a store are enough.
        self.holds.store(self.holds.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The task, which executes this, holds one mutex less.
    #[inline(always)]
    pub(super) fn remove_hold(&self) {
        self.holds.store(self.holds.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }

    /// With the lock of `mutex`'s line: the task, `me`, waits for it from here on.
    pub(super) fn begin_wait(&self, mutex: &Raw<P>) {
        self.links.lock().waits_for = Some(NonNull::from(mutex));
    }

    /// With the lock of the line that it has left: the task waits for no mutex any more.
    pub(super) fn end_wait(&self) {
        self.links.lock().waits_for = None;
    }

    /// With the lock of `mutex`'s line: the task `me` is about to let go of it.
    pub(super) fn let_go(&self, mutex: &Raw<P>, me: TaskId) {
        let mut links = self.links.lock();
        // SAFETY: in this list if in any (I2).
        unsafe { links.held.remove(mutex) };
        if !is_planted(Fault::KeepInherited) {
            self.inherit_anew(&links, me);
        }
    }

    /// With the lock of `mutex`'s line: the task `next`, which waited for it, has it now.
    pub(super) fn has_got(&self, mutex: &Raw<P>, next: TaskId, line: &mut LineGuard<'_, P>) {
        let mut links = self.links.lock();
        links.waits_for = None;
        self.donate_anew(&mut links, mutex, line);
        self.inherit_anew(&links, next);
    }

    /// What `mutex`, which the task holds, donates.
    fn donate_anew(&self, links: &mut Links<P>, mutex: &Raw<P>, line: &mut LineGuard<'_, P>) {
        match line.greatest(urgency::<P>) {
            Some(priority) => {
                mutex.donated.set(priority);
                if !mutex.link.is_linked() {
                    links.held.push_back(OnMutex(NonNull::from(mutex)));
                }
            }
            None => {
                // SAFETY: in this list if in any (I2).
                unsafe { links.held.remove(mutex) };
                // After that, because from then on the owner lets go without looking.
                mutex.note_empty();
            }
        }
    }

    /// What the task inherits.
    fn inherit_anew(&self, links: &Links<P>, task: TaskId) {
        let inherited = links.held.iter().map(|mutex| mutex.donated.get()).max().unwrap_or(Priority::LEAST);
        if inherited != self.inherited() {
            self.inherited.store(inherited.0, Ordering::Relaxed);
            // SAFETY: the task holds a mutex, or waits, or executes this.
            unsafe { P::set_inherited_priority(task, inherited) };
        }
    }
}

impl<P: Platform> Default for Inheritance<P> {
    #[track_caller]
    fn default() -> Inheritance<P> {
        Inheritance::new()
    }
}

impl<P: Platform> Drop for Inheritance<P> {
    fn drop(&mut self) {
        if self.holds.load(Ordering::Relaxed) != 0 {
            P::report(&Report {
                severity: Severity::Fatal,
                message: format_args!("a task ends while it holds a PiMutex, whose guard was leaked"),
                location: Location::caller(),
            });
        }
    }
}

impl<P: Platform> core::fmt::Debug for Inheritance<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Inheritance").field("inherited", &self.inherited()).finish_non_exhaustive()
    }
}

/// The record of `task`.
///
/// # Safety
/// The task has not ended, and does not while the result is used.
pub(super) unsafe fn record<'a, P: Platform>(task: TaskId) -> Option<&'a Inheritance<P>> {
    // SAFETY: by the contract; and `Platform` says what it points to.
    unsafe { P::inheritance(task).map(|record| record.cast().as_ref()) }
}

/// How urgent a waiting task is, with what it inherits.
pub(super) fn urgency<P: Platform>(task: TaskId) -> Priority {
    // SAFETY: it is in line and so has not ended, and leaves under the lock that the caller holds.
    let (own, record) = unsafe { (P::priority_of(task), record::<P>(task)) };
    record.map_or(own, |record| own.max(record.inherited()))
}

/// A chain that leads back to where it began, or does not end.
#[derive(Debug)]
pub(super) struct Circle;

/// Walks the chain from a mutex in whose line something has changed, to its end.
///
/// `start` names the mutex and locks its line; it is called again for each attempt, and may find that there is nothing to
/// do any more. `waiting` is the task that has just begun to wait, if that is the change.
pub(super) fn pass_on<'r, P: Platform>(
    mut start: impl FnMut() -> Option<(&'r Raw<P>, LineGuard<'r, P>)>,
    waiting: Option<TaskId>,
) -> Result<(), Circle> {
    'again: loop {
        let Some((mut mutex, mut line)) = start() else { return Ok(()) };
        for step in 0..LONGEST_CHAIN {
            // None: the mutex has come free meanwhile, and nobody is in line (I3).
            let Some(owner) = mutex.owner() else { return Ok(()) };
            // SAFETY: it cannot let go of the mutex while we have the line's lock (I3), nor end while it holds one.
            let Some(record) = (unsafe { record::<P>(owner) }) else {
                if line.is_empty() {
                    mutex.note_empty();
                }
                return Ok(());
            };
            let mut links = record.links.lock();
            record.donate_anew(&mut links, mutex, &mut line);
            record.inherit_anew(&links, owner);
            if step > 0 && waiting == Some(owner) {
                return Err(Circle);
            }
            let Some(next) = links.waits_for else { return Ok(()) };
            if is_planted(Fault::StopAtOwner) {
                return Ok(());
            }
            // SAFETY: the owner is in its line (I1), or about to leave it and then waits for the record's lock, which we
            // have. So it borrows the mutex; and later, when we have the line's lock, it cannot leave without that.
            let next: &'r Raw<P> = unsafe { next.as_ref() };
            if ptr::eq(next, mutex) {
                return Err(Circle);
            }
            P::chaos_point();
            let Some(next_line) = next.line.try_lock() else {
                drop(links);
                drop(line);
                if is_planted(Fault::EndTheWalk) {
                    return Ok(());
                }
                P::relax();
                continue 'again;
            };
            drop(links);
            // The lock of the line that we come from is let go here.
            (mutex, line) = (next, next_line);
        }
        return Err(Circle);
    }
}

/// Tells the inheritance that [`Platform::priority_of`] answers something else for `task` than it did: whoever holds what
/// the task waits for inherits anew. For schedulers, when somebody changes a task's priority.
///
/// Linux: `rt_mutex_adjust_pi`. Contexts: task. Cost: nothing much if the task waits for no mutex, otherwise O(tasks in
/// the lines along its chain).
///
/// ```
/// use hal::{Native, Platform};
/// # let _cpu = hal::hosted::bind()?;
/// let task = Native::current_task();
/// // .. after the scheduler has noted the task's new priority:
/// // SAFETY: the task executes this.
/// unsafe { sync::pi::priority_changed::<Native>(task) };
/// # Ok::<(), hal::hosted::NoCpuLeft>(())
/// ```
///
/// # Safety
/// The task has not ended, and does not meanwhile.
pub unsafe fn priority_changed<P: Platform>(task: TaskId) {
    // SAFETY: by the contract.
    let Some(record) = (unsafe { record::<P>(task) }) else { return };
    let start = || {
        loop {
            let links = record.links.lock();
            // SAFETY: as in `pass_on`, for this task instead of the owner.
            let mutex = unsafe { links.waits_for?.as_ref() };
            if let Some(line) = mutex.line.try_lock() {
                return Some((mutex, line));
            }
            drop(links);
            P::relax();
        }
    };
    // A circle was reported by the task that closed it.
    let _ = pass_on(start, None);
}
