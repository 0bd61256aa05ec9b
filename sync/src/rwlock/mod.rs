//! A spinning lock that many may hold for reading, or one for writing.
//!
//! It pays where sections that only read are long, a microsecond or more, and many CPUs are in them at once. For short
//! ones it is dearer than a [`SpinLock`](crate::SpinLock): each reader writes the lock word when it comes and when it
//! goes, so the cache line travels as for a lock that excludes. Small data that is copied out is read without any store
//! through a [`SeqLock`](crate::SeqLock); structures with pointers, by RCU.
//!
//! What is promised to whom, and why:
//!
//! 1. Neither readers nor writers starve. Waiters compete, and who was out of luck for long has the right of way, in
//!    order of arrival and whatever it wants; `raw.rs` states the bound.
//! 2. A reader in an interrupt handler, softirq or NMI passes those who wait, and waits only for a writer that is
//!    inside. It may have interrupted a reader, and then whoever waits for that one waits for the handler.
//! 3. A task that reads must not read again while it does: a writer may have queued in between, behind the first and in
//!    front of the second. The dependency checker reports it.
//!
//! Read in this order: this file, `line.rs`, `raw.rs`, `guard.rs`.

mod guard;
mod line;
mod raw;

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

use hal::Platform;

pub use guard::{RwLockReadGuard, RwLockReadWithGuard, RwLockWriteGuard, RwLockWriteWithGuard};

use crate::contention::Contended;
use crate::flavor::{Entered, Flavor, Irq, Proves, Task};
use crate::lockdep::{Acquire, Map, Mode, Subclass, WaitType};
use crate::primitives::const_fn;
use guard::{Reading, Writing};
pub(crate) use raw::RawRw;

/// Data that tasks and interrupt handlers on all CPUs read and write; interrupts are off on this CPU while it is held.
///
/// Where handlers only read, tasks need not turn interrupts off to read: [`RwLock::read_irqs_on`].
///
/// ```
/// use sync::IrqRwLock;
///
/// static ROUTES: IrqRwLock<[u8; 4]> = IrqRwLock::new([0; 4]);
///
/// ROUTES.write()[2] = 7;
/// assert_eq!(ROUTES.read()[2], 7);
/// ```
pub type IrqRwLock<T> = RwLock<T, Irq>;

/// A `T` that many may read at once, or one may change; who has to wait spins.
///
/// The flavour `F` says what is switched off on this CPU while the lock is held, as for
/// [`SpinLock`](crate::SpinLock).
///
/// Linux: `rwlock_t`, with the data inside. Size: 8 bytes, the data, and what the dependency checker adds.
///
/// ```
/// use sync::RwLock;
///
/// let table: RwLock<Vec<u32>> = RwLock::new(vec![1, 2]);
/// {
///     let (one, other) = (table.read(), table.try_read().expect("readers share"));
///     assert_eq!(one.len() + other.len(), 4);
///     assert!(table.try_write().is_none());
/// }
/// table.write().push(3);
/// assert_eq!(table.into_inner(), [1, 2, 3]);
/// ```
pub struct RwLock<T: ?Sized, F: Flavor = Task> {
    raw: RawRw,
    map: Map,
    flavor: PhantomData<fn() -> F>,
    data: UnsafeCell<T>,
}

// SAFETY: `&RwLock` gives out `&mut T` to one CPU at a time, which amounts to sending the `T` there, and `&T` to many.
unsafe impl<T: ?Sized + Send + Sync, F: Flavor> Sync for RwLock<T, F> {}

impl<T, F: Flavor> RwLock<T, F> {
    const_fn! {
        /// A lock around `value` that nobody holds.
        ///
        /// ```
        /// static LIMIT: sync::RwLock<u32> = sync::RwLock::new(5);
        /// assert!(!LIMIT.is_locked());
        /// assert_eq!(*LIMIT.read(), 5);
        /// ```
        #[track_caller]
        pub fn new(value: T) -> RwLock<T, F> {
            RwLock {
                raw: RawRw::new(),
                map: Map::new(WaitType::Spin, F::LEVEL),
                flavor: PhantomData,
                data: UnsafeCell::new(value),
            }
        }
    }

    /// The data, of a lock that nobody can hold any more.
    ///
    /// ```
    /// assert_eq!(sync::RwLock::<u32>::new(5).into_inner(), 5);
    /// ```
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized, F: Flavor> RwLock<T, F> {
    /// Switches off what the flavour says, then waits until no writer is inside (and, in a task, those with the right
    /// of way have been) and enters. Left by dropping the guard.
    ///
    /// Linux: `read_lock`, `read_lock_bh`, `read_lock_irqsave` by flavour. Contexts: task, softirq and hardirq as the
    /// flavour allows; not NMI, where [`try_read`](Self::try_read) is allowed. Not while the same task holds the lock
    /// in any way. Cost: uncontended one atomic addition, and one to leave.
    ///
    /// ```
    /// let lock = sync::RwLock::<u32>::new(1);
    /// let reading = lock.read();
    /// assert!(*reading == 1 && lock.try_write().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T, F> {
        self.read_nested(Subclass::OUTER)
    }

    /// Enters for reading while others of the lock's class are held, in an order that the program guarantees: tells the
    /// dependency checker which one this is. Otherwise the same as [`read`](Self::read).
    ///
    /// Linux: `read_lock` has no such form. [`write_nested`](Self::write_nested) has an example.
    ///
    /// ```
    /// use sync::{RwLock, lockdep::Subclass};
    /// let [parent, child] = [1, 2].map(|n| RwLock::<u32>::new(n));
    /// let above = parent.write();
    /// assert_eq!(*above + *child.read_nested(Subclass::NESTED), 3);
    /// ```
    #[inline]
    #[track_caller]
    pub fn read_nested(&self, subclass: Subclass) -> RwLockReadGuard<'_, T, F> {
        let entered = Entered::new();
        RwLockReadGuard::new(self.enter_read(subclass, Location::caller()), entered)
    }

    /// Enters for reading if that is possible at once: no writer is inside, and (in a task) nobody has the right of way.
    ///
    /// Linux: `read_trylock`. Contexts: any; in NMI the guard must not be taken as proof that interrupts are off.
    ///
    /// ```
    /// use sync::RwLock;
    /// let lock: RwLock<u32> = RwLock::new(5);
    /// let reading = lock.read();
    /// assert_eq!(lock.try_read().as_deref(), Some(&5));
    /// drop(reading);
    /// let writing = lock.write();
    /// assert!(lock.try_read().is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T, F>> {
        let entered = Entered::new();
        if !self.raw.try_read(passes_line::<F>) {
            return None;
        }
        self.note_reader(Acquire { is_try: true, ..Acquire::READ }, Location::caller());
        // SAFETY: entered just now.
        Some(RwLockReadGuard::new(unsafe { Reading::new(self) }, entered))
    }

    /// As [`read`](Self::read), where what the flavour switches off is off already.
    ///
    /// ```
    /// use sync::{IrqRwLock, irq};
    /// let (a, b) = (IrqRwLock::new(1), IrqRwLock::new(2));
    /// let quiet = irq::disable();
    /// assert_eq!(*a.read_with(&quiet) + *b.read_with(&quiet), 3);
    /// ```
    #[inline]
    #[track_caller]
    pub fn read_with<'a>(&'a self, _proof: &'a (impl Proves<F> + ?Sized)) -> RwLockReadWithGuard<'a, T, F> {
        RwLockReadWithGuard::new(self.enter_read(Subclass::OUTER, Location::caller()))
    }

    /// Switches off what the flavour says, then waits until nobody is inside and it is this writer's turn, and enters.
    /// Left by dropping the guard.
    ///
    /// Linux: `write_lock`, `write_lock_bh`, `write_lock_irqsave` by flavour. Contexts and recursion: as
    /// [`read`](Self::read). Cost: uncontended one compare-and-swap, and one atomic subtraction to leave.
    ///
    /// ```
    /// let lock = sync::RwLock::<u32>::new(1);
    /// *lock.write() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// ```
    #[inline]
    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T, F> {
        self.write_nested(Subclass::OUTER)
    }

    /// Enters for writing while others of the lock's class are held, in an order that the program guarantees (a parent's
    /// before its child's): tells the dependency checker which one this is. Otherwise the same as
    /// [`write`](Self::write).
    ///
    /// Linux: `write_lock_nested`.
    ///
    /// ```
    /// use sync::{RwLock, lockdep::Subclass};
    /// let [parent, child] = [1, 2].map(|n| RwLock::<u32>::new(n));
    /// let above = parent.read();
    /// *child.write_nested(Subclass::NESTED) += *above;
    /// assert_eq!(*child.read_nested(Subclass::NESTED), 3);
    /// ```
    #[inline]
    #[track_caller]
    pub fn write_nested(&self, subclass: Subclass) -> RwLockWriteGuard<'_, T, F> {
        let entered = Entered::new();
        RwLockWriteGuard::new(self.enter_write(subclass, Location::caller()), entered)
    }

    /// Enters for writing if that is possible at once: nobody is inside and nobody has the right of way. May also fail
    /// while a reader finds out that it cannot enter.
    ///
    /// Linux: `write_trylock`. Contexts: as [`try_read`](Self::try_read).
    ///
    /// ```
    /// let lock = sync::RwLock::<u32>::new(1);
    /// let reading = lock.read();
    /// assert!(lock.try_write().is_none());
    /// drop(reading);
    /// assert!(lock.try_write().is_some());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T, F>> {
        let entered = Entered::new();
        if !self.raw.try_write() {
            return None;
        }
        self.map.acquire::<F::Platform>(Acquire::TRY_WRITE, Location::caller());
        // SAFETY: entered just now.
        Some(RwLockWriteGuard::new(unsafe { Writing::new(self) }, entered))
    }

    /// As [`write`](Self::write), where what the flavour switches off is off already.
    ///
    /// ```
    /// let (a, b) = (sync::IrqRwLock::new(1), sync::IrqRwLock::new(2));
    /// let quiet = sync::irq::disable();
    /// core::mem::swap(&mut *a.write_with(&quiet), &mut *b.write_with(&quiet));
    /// drop(quiet);
    /// assert_eq!((a.into_inner(), b.into_inner()), (2, 1));
    /// ```
    #[inline]
    #[track_caller]
    pub fn write_with<'a>(&'a self, _proof: &'a (impl Proves<F> + ?Sized)) -> RwLockWriteWithGuard<'a, T, F> {
        RwLockWriteWithGuard::new(self.enter_write(Subclass::OUTER, Location::caller()))
    }

    /// Whether somebody is inside; out of date at once, so good for assertions and statistics only. Contexts: any.
    ///
    /// ```
    /// let lock = sync::RwLock::<u32>::new(1);
    /// let reading = lock.read();
    /// assert!(lock.is_locked());
    /// drop(reading);
    /// assert!(!lock.is_locked());
    /// ```
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    /// Whether a writer is inside; out of date at once. Contexts: any.
    ///
    /// ```
    /// let lock = sync::RwLock::<u32>::new(1);
    /// let reading = lock.read();
    /// assert!(!lock.is_write_locked());
    /// drop(reading);
    /// let _writing = lock.write();
    /// assert!(lock.is_write_locked());
    /// ```
    #[inline]
    pub fn is_write_locked(&self) -> bool {
        self.raw.is_write_locked()
    }

    /// The data. The exclusive borrow shows that nobody else has the lock.
    ///
    /// ```
    /// let mut lock = sync::RwLock::<u32>::new(1);
    /// *lock.get_mut() += 1;
    /// assert_eq!(lock.into_inner(), 2);
    /// ```
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    #[inline]
    fn enter_read(&self, subclass: Subclass, at: &'static Location<'static>) -> Reading<'_, T, F> {
        self.note_reader(Acquire { subclass, ..Acquire::READ }, at);
        self.raw.read_noting::<F::Platform, _>(passes_line::<F>, || {
            Contended::<F::Platform>::begin(self, &self.map)
        });
        // SAFETY: entered just now.
        unsafe { Reading::new(self) }
    }

    #[inline]
    fn enter_write(&self, subclass: Subclass, at: &'static Location<'static>) -> Writing<'_, T, F> {
        self.map.acquire::<F::Platform>(Acquire { subclass, ..Acquire::WRITE }, at);
        if !self.raw.try_write() {
            self.wait_write();
        }
        // SAFETY: entered just now.
        unsafe { Writing::new(self) }
    }

    #[cold]
    fn wait_write(&self) {
        let _waiting = Contended::<F::Platform>::begin(self, &self.map);
        self.raw.write::<F::Platform>();
    }

    /// Tells the dependency checker of a reader, which queues or does not.
    #[inline(always)]
    fn note_reader(&self, how: Acquire, at: &'static Location<'static>) {
        // Without a checker its map has no size, and nobody wants to know.
        let is_recursive = size_of::<Map>() != 0 && passes_line::<F>();
        let mode = if is_recursive { Mode::RecursiveRead } else { Mode::Read };
        self.map.acquire::<F::Platform>(Acquire { mode, ..how }, at);
    }
}

impl<T: ?Sized, P: Platform> RwLock<T, Irq<P>> {
    /// Enters for reading with interrupts left on: only preemption is off while the guard lives.
    ///
    /// For locks that interrupt handlers read and do not write. A handler that comes in between and reads passes the
    /// writers that wait; a handler that comes in between and *writes* waits for the reader that it interrupted, for
    /// ever. The types do not see that; the dependency checker reports it.
    ///
    /// Linux: `read_lock` of a lock whose writers use `write_lock_irq`. Contexts, waiting and cost: as
    /// [`read`](Self::read).
    ///
    /// ```
    /// use sync::IrqRwLock;
    /// use hal::{Native, Platform};
    ///
    /// static HANDLERS: IrqRwLock<[u32; 2]> = IrqRwLock::new([1, 2]);
    /// let reading = HANDLERS.read_irqs_on();
    /// assert_eq!((reading[0], Native::irq_depth()), (1, 0));
    /// ```
    #[inline]
    #[track_caller]
    pub fn read_irqs_on(&self) -> RwLockReadGuard<'_, T, Irq<P>, Task<P>> {
        let entered = Entered::new();
        RwLockReadGuard::new(self.enter_read(Subclass::OUTER, Location::caller()), entered)
    }
}

/// Whether this CPU serves an interrupt of some kind, so that a reader does not queue.
fn passes_line<F: Flavor>() -> bool {
    !F::Platform::context().in_task()
}

impl<T: Default, F: Flavor> Default for RwLock<T, F> {
    fn default() -> RwLock<T, F> {
        RwLock::new(T::default())
    }
}

impl<T, F: Flavor> From<T> for RwLock<T, F> {
    fn from(value: T) -> RwLock<T, F> {
        RwLock::new(value)
    }
}

impl<T: ?Sized + fmt::Debug, F: Flavor> fmt::Debug for RwLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut s = f.debug_struct("RwLock");
        match self.try_read() {
            Some(guard) => s.field("data", &&*guard),
            None => s.field("data", &format_args!("<locked>")),
        };
        s.finish()
    }
}
