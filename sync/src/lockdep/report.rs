//! What the checker found, and how it says so.
//!
//! The first line is the headline, the same words as in Linux. Then: what is being taken, what is held, and for each
//! order on the way where it was first seen. The platform adds the caller's line to the headline.

use core::fmt;
use core::panic::Location;

use hal::CpuId;

use super::class::Label;
use super::held::{Entry, Held};
use super::map::Mode;
use super::search::{Path, Step};
use super::usage::{Irq, Mark};

/// Something that is wrong.
pub(super) enum Finding {
    /// `taking` is waited for under `held`, and `back` leads from it to that again.
    Circular { taking: Entry, held: Entry, back: Path },
    /// A lock of a class that is held is waited for.
    Recursive { taking: Entry, held: Entry },
    /// A handler waits for the class, and it is held where the handler can come.
    Inconsistent { class: Label, irq: Irq, handler: Mark, exposed: Mark },
    /// A handler waits for `safe`, from which `path` leads to `exposed`, which is held where the handler can come.
    Inversion { irq: Irq, safe: (Label, Mark), exposed: (Label, Mark), path: Path },
    /// `taking` must not be waited for here.
    WaitContext { taking: Entry, why: Wrong },
    /// A lock is released that is not held.
    BadUnlock { label: Label },
    /// The memory of a lock that is held is given back.
    Freed { entry: Entry },
    /// A table is full.
    Full(&'static str),
}

/// Why a lock must not be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrong {
    /// It sleeps, and this, which spins, is held.
    SleepsUnder(Label, &'static Location<'static>),
    /// It sleeps, in a handler.
    SleepsInInterrupt,
    /// It sleeps, with preemption or bottom halves off.
    SleepsWithPreemptionOff,
    /// It sleeps, with interrupts off.
    SleepsWithInterruptsOff,
    /// Its flavour keeps hardware interrupts away from it no better than this: it belongs to tasks.
    TaskLockInInterrupt,
    /// It belongs to tasks and softirqs.
    SoftirqLockInHardirq,
    /// Any lock, in an NMI.
    InNmi,
}

impl PartialEq for Label {
    fn eq(&self, other: &Label) -> bool {
        self.identity.same(&other.identity) && self.subclass == other.subclass
    }
}
impl Eq for Label {}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::SleepsUnder(label, at) => {
                write!(f, "who waits for it sleeps, under the spinning lock {label}, taken at {at}")
            }
            Wrong::SleepsInInterrupt => f.write_str("who waits for it sleeps, in an interrupt"),
            Wrong::SleepsWithPreemptionOff => f.write_str("who waits for it sleeps, with preemption off"),
            Wrong::SleepsWithInterruptsOff => f.write_str("who waits for it sleeps, with interrupts off"),
            Wrong::TaskLockInInterrupt => {
                f.write_str("it is shared between tasks, and waited for in an interrupt")
            }
            Wrong::SoftirqLockInHardirq => {
                f.write_str("it is shared with softirqs at most, and waited for in a hardirq")
            }
            Wrong::InNmi => f.write_str("nothing may be waited for in an NMI"),
        }
    }
}

impl Entry {
    fn how(&self) -> &'static str {
        match self.mode {
            Mode::Write => "",
            Mode::Read => " for reading",
            Mode::RecursiveRead => " for recursive reading",
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}, at {}", self.label, self.how(), self.at)
    }
}

/// A finding as text, with what else is known at that moment.
pub(super) struct Text<'a> {
    pub(super) finding: &'a Finding,
    pub(super) held: Option<&'a Held>,
    pub(super) cpu: CpuId,
    /// Tells what an edge's number means.
    pub(super) step: &'a dyn Fn(u16) -> Option<Step>,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.finding {
            Finding::Circular { taking, held, back } => {
                write!(f, "possible circular locking dependency detected")?;
                write!(f, "\n  taking  {taking}")?;
                write!(f, "\n  under   {held}")?;
                write!(f, "\n  which closes a circle with the orders seen before:")?;
                self.write_path(f, back)?;
            }
            Finding::Recursive { taking, held } => {
                write!(f, "possible recursive locking detected")?;
                write!(f, "\n  taking  {taking}")?;
                write!(f, "\n  under   {held}")?;
                let which = if taking.address == held.address {
                    "the same lock"
                } else {
                    "another lock of the class"
                };
                write!(f, "\n  which is {which}")?;
            }
            Finding::Inconsistent { class, irq, handler, exposed } => {
                write!(f, "inconsistent lock state")?;
                write!(f, "\n  {class}")?;
                write!(f, "\n  a {} waits for it: {handler}", irq.handler())?;
                write!(f, "\n  it is held with {}: {exposed}", irq.enabled())?;
            }
            Finding::Inversion { irq, safe: (safe, handler), exposed: (exposed, mark), path } => {
                write!(f, "{0}-safe -> {0}-unsafe lock order detected", irq.order())?;
                write!(f, "\n  {safe}")?;
                write!(f, "\n    a {} waits for it: {handler}", irq.handler())?;
                write!(f, "\n  {exposed}")?;
                write!(f, "\n    it is held with {}: {mark}", irq.enabled())?;
                write!(f, "\n  the orders that lead from the first to the second:")?;
                self.write_path(f, path)?;
            }
            Finding::WaitContext { taking, why } => {
                write!(f, "invalid wait context")?;
                write!(f, "\n  taking  {taking}")?;
                write!(f, "\n  {why}")?;
            }
            Finding::BadUnlock { label } => {
                write!(f, "bad unlock balance detected")?;
                write!(f, "\n  releasing {label}, which is not held")?;
            }
            Finding::Freed { entry } => {
                write!(f, "held lock freed")?;
                write!(f, "\n  taken   {entry}")?;
            }
            Finding::Full(what) => {
                return write!(f, "the table of {what} is full; lock dependencies are no longer checked");
            }
        }
        if let Some(held) = self.held {
            write!(f, "\n  held on CPU {}, the newest last:", self.cpu)?;
            if held.depth() == 0 {
                write!(f, "\n    nothing")?;
            }
            for entry in held.entries() {
                write!(f, "\n    {entry}")?;
            }
        }
        Ok(())
    }
}

impl Text<'_> {
    fn write_path(&self, f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
        for step in path.edges().iter().filter_map(|edge| (self.step)(*edge)) {
            let Step { from, to, held_at, waited_at } = step;
            write!(f, "\n    {from} -> {to}")?;
            write!(f, "\n      first seen: the former at {held_at}, the latter at {waited_at}")?;
        }
        if path.cut {
            write!(f, "\n    and more")?;
        }
        Ok(())
    }
}
