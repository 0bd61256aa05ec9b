//! What a lock says about itself and about how it is taken.

/// How a task waits for a lock of this kind, which says what it must not wait under.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let reports = hosted::ReportCapture::new();
/// let (spins, sleeps) = (sync::SpinLock::<u32>::new(1), sync::Mutex::<u32>::new(2));
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let guard = spins.lock();
/// drop(sleeps.lock(&mut cx));
/// assert!(reports.take().iter().any(|report| report.message.contains("invalid wait context")));
/// # drop(guard);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WaitType {
    /// By looking again. May be taken wherever the flavour allows.
    Spin,
    /// By letting other tasks run. Not under a spinning lock, not in interrupts.
    Sleep,
}

/// The most urgent context that may take a lock, by its flavour.
///
/// ```
/// use sync::lockdep::Level;
/// assert!(Level::Task < Level::Softirq && Level::Softirq < Level::Hardirq);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Tasks only.
    Task,
    /// Softirqs too.
    Softirq,
    /// Hardware interrupt handlers too.
    Hardirq,
}

/// Tells apart locks of one class that are taken one inside the other in an order that the program guarantees: a
/// parent's before its child's, the lower address before the higher. Linux: the argument of `spin_lock_nested`.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let reports = hosted::ReportCapture::new();
/// let [parent, child] = [1, 2].map(|n| sync::SpinLock::<u32>::new(n));
/// let above = parent.lock();
/// drop(child.lock_nested(lockdep::Subclass::NESTED));
/// assert_eq!(reports.take(), []);
/// drop(child.lock());
/// assert!(reports.take()[0].message.contains("possible recursive locking detected"));
/// # drop(above);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Subclass(u8);

impl Subclass {
    /// What locks are taken as unless said otherwise.
    ///
    /// ```
    /// assert_eq!(sync::lockdep::Subclass::OUTER, sync::lockdep::Subclass::default());
    /// ```
    pub const OUTER: Subclass = Subclass(0);
    /// The usual one for the second of two. Linux: `SINGLE_DEPTH_NESTING`.
    ///
    /// ```
    /// use sync::lockdep::Subclass;
    /// assert_eq!(Subclass::NESTED, Subclass::new(1));
    /// ```
    pub const NESTED: Subclass = Subclass(1);
    /// How many there are.
    ///
    /// ```
    /// use sync::lockdep::Subclass;
    /// assert_eq!(Subclass::new(Subclass::COUNT as u8 - 1).index(), 7);
    /// ```
    pub const COUNT: usize = 8;

    /// Subclass `n`.
    ///
    /// # Panics
    /// If `n` is not below [`COUNT`](Subclass::COUNT); in a constant, when compiled.
    ///
    /// ```
    /// use sync::lockdep::Subclass;
    /// const GRANDCHILD: Subclass = Subclass::new(2);
    /// assert!(GRANDCHILD > Subclass::NESTED);
    /// ```
    pub const fn new(n: u8) -> Subclass {
        assert!((n as usize) < Subclass::COUNT, "there are 8 subclasses, 0 to 7");
        Subclass(n)
    }

    /// Its number.
    ///
    /// ```
    /// assert_eq!(sync::lockdep::Subclass::NESTED.index(), 1);
    /// ```
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who else may hold the lock at the same time, and whether a holder may take it again.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let reports = hosted::ReportCapture::new();
/// let lock = sync::RwLock::<u32>::new(1);
/// let reading = lock.read();
/// let _again = lock.read(); // a writer could stand between the two
/// assert!(reports.take()[0].message.contains("possible recursive locking detected"));
/// # drop((reading, _again));
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// Nobody else.
    Write,
    /// Other readers; a reader waits behind a waiting writer, so that taking it again can deadlock.
    Read,
    /// Other readers; a reader waits for a writer that holds it only, so that a holder may take it again.
    RecursiveRead,
}

impl Mode {
    /// Whether others may hold the lock too: who holds it so keeps recursive readers from nothing.
    pub(super) const fn is_shared(self) -> bool {
        !matches!(self, Mode::Write)
    }

    /// Whether it waits for exclusive holders only.
    pub(super) const fn is_recursive(self) -> bool {
        matches!(self, Mode::RecursiveRead)
    }
}

/// How a lock is being acquired.
///
/// ```
/// use sync::lockdep::{Acquire, Mode, Subclass};
/// let second = Acquire { subclass: Subclass::NESTED, ..Acquire::READ };
/// assert_eq!((second.mode, second.is_try), (Mode::Read, false));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acquire {
    /// Shared or not.
    pub mode: Mode,
    /// See [`Subclass`].
    pub subclass: Subclass,
    /// It was acquired without waiting: nothing can deadlock here, and only what is taken under it depends on it.
    pub is_try: bool,
}

impl Acquire {
    /// Exclusively, waiting if need be.
    ///
    /// ```
    /// use sync::lockdep::{Acquire, Mode};
    /// assert_eq!((Acquire::WRITE.mode, Acquire::WRITE.is_try), (Mode::Write, false));
    /// ```
    pub const WRITE: Acquire = Acquire { mode: Mode::Write, subclass: Subclass::OUTER, is_try: false };
    /// Exclusively, without waiting.
    ///
    /// ```
    /// use sync::lockdep::{Acquire, Mode};
    /// assert_eq!((Acquire::TRY_WRITE.mode, Acquire::TRY_WRITE.is_try), (Mode::Write, true));
    /// ```
    pub const TRY_WRITE: Acquire = Acquire { is_try: true, ..Acquire::WRITE };
    /// Shared, behind writers that wait.
    ///
    /// ```
    /// use sync::lockdep::{Acquire, Mode};
    /// assert_eq!((Acquire::READ.mode, Acquire::READ.is_try), (Mode::Read, false));
    /// ```
    pub const READ: Acquire = Acquire { mode: Mode::Read, ..Acquire::WRITE };
    /// Shared, waiting for a writer that holds it only.
    ///
    /// ```
    /// use sync::lockdep::{Acquire, Mode};
    /// assert_eq!(Acquire::RECURSIVE_READ.mode, Mode::RecursiveRead);
    /// ```
    pub const RECURSIVE_READ: Acquire = Acquire { mode: Mode::RecursiveRead, ..Acquire::WRITE };
}
