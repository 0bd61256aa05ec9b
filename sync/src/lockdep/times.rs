//! How long the locks of each class are waited for and held.
//!
//! 1. A wait is counted when it is over. That costs nothing where nobody waits.
//! 2. A hold is measured from the acquisition (the end of the wait, if there was one) to the release: two readings of the
//!    clock. So it is measured only while somebody wants to know: for the figures ([`set_timing`](super::set_timing)), or to
//!    be told of long ones ([`tell_long`](super::tell_long)).
//! 3. The longest ones are kept with the places that acquired.

use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::Relaxed};

use super::class::Label;
use super::graph::{CLASSES, ClassId};

/// What lasted longer than somebody wants.
#[derive(Clone, Copy, Debug)]
pub enum Lasted {
    /// A lock of this class was held, which spins: or another thing that one waits for by spinning lasted, such as a
    /// tasklet's function.
    Lock(Label),
    /// Interrupts were off.
    InterruptsOff,
    /// Bottom halves were off.
    BottomHalvesOff,
}

impl fmt::Display for Lasted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lasted::Lock(label) => write!(f, "{label} held"),
            Lasted::InterruptsOff => f.write_str("interrupts off"),
            Lasted::BottomHalvesOff => f.write_str("bottom halves off"),
        }
    }
}

/// Something that lasted long, for [`tell_long`](super::tell_long).
#[derive(Clone, Copy, Debug)]
pub struct Long {
    /// What.
    pub what: Lasted,
    /// How long, in nanoseconds.
    pub ns: u64,
    /// Who acquired the lock, or switched off.
    pub at: &'static Location<'static>,
    /// Who released it; for what was switched off the place that the guard which went last was made at, as far as it is
    /// known.
    pub until: &'static Location<'static>,
}

/// What is called with each [`Long`].
pub type OnLong = fn(&Long);

/// How long the locks of one class were waited for and held. Times are nanoseconds.
///
/// ```
/// let nothing = sync::lockdep::LockTimes::default();
/// assert_eq!((nothing.contended, nothing.longest_hold_at), (0, None));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LockTimes {
    /// How often a lock of the class was found taken, so that it was waited for (or the wait given up).
    pub contended: u64,
    /// How long all waits took together.
    pub waited_ns: u64,
    /// How long the longest took.
    pub longest_wait_ns: u64,
    /// Who waited so long.
    pub longest_wait_at: Option<&'static Location<'static>>,
    /// How many holds were measured. A wait that was given up counts as one of no length.
    pub holds: u64,
    /// How long they took together.
    pub held_ns: u64,
    /// How long the longest took.
    pub longest_hold_ns: u64,
    /// Who acquired it then.
    pub longest_hold_at: Option<&'static Location<'static>>,
}

/// The longest of something, and its place.
///
/// # Invariants
/// The two are stored together by who has the graph's lock.
pub(super) struct Longest {
    ns: AtomicU64,
    at: AtomicPtr<Location<'static>>,
}

impl Longest {
    const fn new() -> Longest {
        Longest { ns: AtomicU64::new(0), at: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// Whether this one is longer.
    fn is_beaten_by(&self, ns: u64) -> bool {
        self.ns.load(Relaxed) < ns
    }

    /// Keeps it if it is the longest. With the graph's lock.
    pub(super) fn offer(&self, ns: u64, at: &'static Location<'static>) {
        if self.is_beaten_by(ns) {
            self.ns.store(ns, Relaxed);
            self.at.store(core::ptr::from_ref(at).cast_mut(), Relaxed);
        }
    }

    /// With the graph's lock.
    fn read(&self) -> (u64, Option<&'static Location<'static>>) {
        // SAFETY: null, or what `offer` stored.
        (self.ns.load(Relaxed), unsafe { self.at.load(Relaxed).as_ref() })
    }

    fn reset(&self) {
        self.ns.store(0, Relaxed);
        self.at.store(core::ptr::null_mut(), Relaxed);
    }
}

/// The figures of one class. Sums are exact; while they change they may be of different moments.
pub(super) struct Row {
    waits: AtomicU64,
    waited_ns: AtomicU64,
    pub(super) longest_wait: Longest,
    holds: AtomicU64,
    held_ns: AtomicU64,
    pub(super) longest_hold: Longest,
}

impl Row {
    const fn new() -> Row {
        Row {
            waits: AtomicU64::new(0),
            waited_ns: AtomicU64::new(0),
            longest_wait: Longest::new(),
            holds: AtomicU64::new(0),
            held_ns: AtomicU64::new(0),
            longest_hold: Longest::new(),
        }
    }

    /// Counts a wait. `true`: it is to be offered as the longest.
    pub(super) fn add_wait(&self, ns: u64) -> bool {
        self.waits.fetch_add(1, Relaxed);
        self.waited_ns.fetch_add(ns, Relaxed);
        self.longest_wait.is_beaten_by(ns)
    }

    /// Counts a hold. `true`: it is to be offered as the longest.
    pub(super) fn add_hold(&self, ns: u64) -> bool {
        self.holds.fetch_add(1, Relaxed);
        self.held_ns.fetch_add(ns, Relaxed);
        self.longest_hold.is_beaten_by(ns)
    }

    /// With the graph's lock.
    pub(super) fn read(&self) -> LockTimes {
        let (longest_wait_ns, longest_wait_at) = self.longest_wait.read();
        let (longest_hold_ns, longest_hold_at) = self.longest_hold.read();
        LockTimes {
            contended: self.waits.load(Relaxed),
            waited_ns: self.waited_ns.load(Relaxed),
            longest_wait_ns,
            longest_wait_at,
            holds: self.holds.load(Relaxed),
            held_ns: self.held_ns.load(Relaxed),
            longest_hold_ns,
            longest_hold_at,
        }
    }

    fn reset(&self) {
        for number in [&self.waits, &self.waited_ns, &self.holds, &self.held_ns] {
            number.store(0, Relaxed);
        }
        self.longest_wait.reset();
        self.longest_hold.reset();
    }
}

/// All classes' figures, and who wants to be told.
pub(super) struct Times {
    rows: [Row; CLASSES],
    timing: AtomicBool,
    /// From which length on `on_long` is called. `u64::MAX` minus this, so that zeros mean never.
    patience: AtomicU64,
    /// An [`OnLong`], or null.
    on_long: AtomicPtr<()>,
}

impl Times {
    pub(super) const fn new() -> Times {
        Times {
            rows: [const { Row::new() }; CLASSES],
            timing: AtomicBool::new(false),
            patience: AtomicU64::new(0),
            on_long: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    pub(super) fn of(&self, class: ClassId) -> &Row {
        &self.rows[class.index()]
    }

    pub(super) fn set_timing(&self, on: bool) {
        self.timing.store(on, Relaxed);
    }

    pub(super) fn is_timing(&self) -> bool {
        self.timing.load(Relaxed)
    }

    pub(super) fn set_limit(&self, limit_ns: u64, on_long: OnLong) {
        // Whoever is called in between compares with the other limit; both are functions for this.
        self.on_long.store(on_long as *mut (), Relaxed);
        self.patience.store(u64::MAX - limit_ns, Relaxed);
    }

    /// Whether somebody wants to be told.
    #[inline]
    pub(super) fn has_limit(&self) -> bool {
        self.patience.load(Relaxed) != 0
    }

    /// Whether holds are measured.
    #[inline]
    pub(super) fn are_measured(&self) -> bool {
        self.is_timing() || self.has_limit()
    }

    /// Tells of what has lasted, if that was long.
    pub(super) fn tell(&self, long: &Long) {
        let patience = self.patience.load(Relaxed);
        let on_long = self.on_long.load(Relaxed);
        if patience == 0 || long.ns < u64::MAX - patience || on_long.is_null() {
            return;
        }
        // SAFETY: not null, so that it is what `set_limit` stored, a function of this type.
        let on_long = unsafe { core::mem::transmute::<*mut (), OnLong>(on_long) };
        on_long(long);
    }

    pub(super) fn reset(&self) {
        self.rows.iter().for_each(Row::reset);
    }
}
