//! In which contexts a class was taken and held.
//!
//! An interrupt handler that waits for a lock hangs if it interrupted the holder. So for each class two kinds of fact
//! matter: that a handler *waits* for it, and that it was *held* where that handler could come. Each comes in two
//! strengths: a recursive reader waits only for exclusive holders, and a shared holder keeps only the others waiting.

use core::fmt;
use core::panic::Location;

use super::map::Mode;

/// Which kind of handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Irq {
    Hard,
    Soft,
}

impl Irq {
    pub(super) const BOTH: [Irq; 2] = [Irq::Hard, Irq::Soft];

    /// The handler's name.
    pub(super) const fn handler(self) -> &'static str {
        match self {
            Irq::Hard => "hardirq",
            Irq::Soft => "softirq",
        }
    }

    /// The name that orders between such classes have.
    pub(super) const fn order(self) -> &'static str {
        match self {
            Irq::Hard => "irq",
            Irq::Soft => "softirq",
        }
    }

    /// What was on, where the handler could come.
    pub(super) const fn enabled(self) -> &'static str {
        match self {
            Irq::Hard => "interrupts on",
            Irq::Soft => "bottom halves on",
        }
    }
}

/// One fact about a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// A handler waited for it; `weak`: as a recursive reader.
    InHandler { irq: Irq, weak: bool },
    /// It was held where a handler could come; `weak`: shared.
    Exposed { irq: Irq, weak: bool },
}

impl Use {
    pub(super) const COUNT: usize = 8;

    /// That a handler waits for a lock in this mode.
    pub(super) const fn in_handler(irq: Irq, mode: Mode) -> Use {
        Use::InHandler { irq, weak: mode.is_recursive() }
    }

    /// That a lock is held in this mode where a handler can come.
    pub(super) const fn exposed(irq: Irq, mode: Mode) -> Use {
        Use::Exposed { irq, weak: mode.is_shared() }
    }

    /// Its place in a row of eight.
    pub(super) const fn index(self) -> usize {
        let (base, irq, weak) = match self {
            Use::InHandler { irq, weak } => (0, irq, weak),
            Use::Exposed { irq, weak } => (4, irq, weak),
        };
        base + (irq as usize) * 2 + weak as usize
    }

    /// Its bit in a [`Usage`].
    pub(super) const fn bit(self) -> u8 {
        1 << self.index()
    }
}

/// All that is known about a class in this respect: a set of `Use`s.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// drop(sync::SpinLock::<u32>::new(1).lock());
/// let (_, usage) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
/// assert_eq!(usage.to_string(), "OO", "held with everything on, taken by no handler");
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage(pub(super) u8);

impl Usage {
    pub(super) const fn has(self, what: Use) -> bool {
        self.0 & what.bit() != 0
    }

    /// Hardware interrupt handlers wait for it.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// let lock = sync::IrqSpinLock::<u32>::new(1);
    /// let quiet = sync::irq::disable();
    /// # let serving = unsafe { sync::context::enter_hardirq() };
    /// drop(lock.lock_with(&quiet)); // in a handler
    /// # drop(serving);
    /// let (_, usage) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
    /// assert!(usage.in_hardirq() && !usage.in_softirq());
    /// # drop(quiet);
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub const fn in_hardirq(self) -> bool {
        self.0 & 0b11 != 0
    }

    /// Softirqs wait for it.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// let lock = sync::BhSpinLock::<u32>::new(1);
    /// # let serving = unsafe { sync::context::enter_softirq() };
    /// drop(lock.lock_with(&serving)); // in a softirq
    /// # drop(serving);
    /// let (_, usage) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
    /// assert!(usage.in_softirq() && !usage.in_hardirq());
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub const fn in_softirq(self) -> bool {
        self.0 & 0b1100 != 0
    }

    /// It was held with interrupts on.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// drop(sync::SpinLock::<u32>::new(1).lock());
    /// drop(sync::IrqSpinLock::<u32>::new(2).lock());
    /// let usage = [1, 2].map(|number| lockdep::class::<Native>(&CHECKER, number).unwrap().1);
    /// assert!(usage[0].with_interrupts_on() && !usage[1].with_interrupts_on());
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub const fn with_interrupts_on(self) -> bool {
        self.0 & 0b11_0000 != 0
    }

    /// It was held with bottom halves on.
    ///
    /// ```
    /// # use hal::{Native, hosted};
    /// # use sync::lockdep;
    /// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
    /// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
    /// # if !lockdep::ENABLED { return; }
    /// # let _cpu = hosted::bind().unwrap();
    /// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
    /// drop(sync::SpinLock::<u32>::new(1).lock());
    /// drop(sync::BhSpinLock::<u32>::new(2).lock());
    /// let usage = [1, 2].map(|number| lockdep::class::<Native>(&CHECKER, number).unwrap().1);
    /// assert!(usage[0].with_bottom_halves_on() && !usage[1].with_bottom_halves_on());
    /// # unsafe { lockdep::uninstall::<Native>() };
    /// ```
    pub const fn with_bottom_halves_on(self) -> bool {
        self.0 & 0b1100_0000 != 0
    }
}

impl fmt::Display for Usage {
    /// Two letters, for hardirq and softirq: `-` in neither way, `H` a handler takes it, `O` held with handlers on, `!`
    /// both, which is wrong unless readers only are concerned.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |handler, exposed| match (handler, exposed) {
            (false, false) => "-",
            (true, false) => "H",
            (false, true) => "O",
            (true, true) => "!",
        };
        f.write_str(letter(self.in_hardirq(), self.with_interrupts_on()))?;
        f.write_str(letter(self.in_softirq(), self.with_bottom_halves_on()))
    }
}

/// Where a fact was first seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// Where the lock was taken.
    pub(super) taken: Option<&'static Location<'static>>,
    /// Where handlers were switched on while it was held, if that came later.
    pub(super) enabled: Option<&'static Location<'static>>,
}

impl Mark {
    pub(super) const NONE: Mark = Mark { taken: None, enabled: None };
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.taken {
            Some(taken) => write!(f, "taken at {taken}")?,
            None => f.write_str("taken somewhere")?,
        }
        match self.enabled {
            Some(enabled) => write!(f, ", and switched on at {enabled}"),
            None => Ok(()),
        }
    }
}
