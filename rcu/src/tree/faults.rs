//! Deliberate mistakes, each of which a test must notice. In a build that is no test there are none.

/// One step of the protocol, left out or done wrong.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// A CPU reports although the task that it interrupted is in a reader.
    ReportInReader,
    /// A tick is taken for a quiescent state, whatever it interrupted.
    TickIsQuiescent,
    /// Nothing orders the leaving of idleness before the first reader.
    NoIdleFence,
    /// A callback is called one grace period too early.
    CalledOnePeriodEarly,
    /// CPU 0 is not waited for.
    SkippedCpu,
    /// A preempted reader does not hold up the running grace period.
    ForgottenReader,
    /// A preempted reader that was preempted again is forgotten.
    ForgottenNestedReader,
    /// A CPU that goes down does not report.
    SilentDeath,
    /// Callbacks move from one CPU to another while a barrier looks at both, one after the other.
    BarrierMissesMoved,
    /// A barrier does not see callbacks that have been taken out to be called.
    BarrierMissesInFlight,
    /// A request that comes while a grace period runs is forgotten at its end.
    LostRequest,
    /// A CPU does not look after its callbacks if a grace period ends while it is about to report.
    EndGoesUnnoticed,
    /// An expedited grace period does not wait for preempted readers.
    ExpeditedForgetsReaders,
}

/// The mistake of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    #[cfg(test)]
    which: Option<Fault>,
}

impl Faults {
    /// No mistake.
    pub(super) const NONE: Faults = Faults {
        #[cfg(test)]
        which: None,
    };

    #[cfg(test)]
    pub(super) fn only(fault: Fault) -> Faults {
        Faults { which: Some(fault) }
    }

    #[cfg(test)]
    pub(super) fn has(self, fault: Fault) -> bool {
        self.which == Some(fault)
    }
}

/// Whether a tree makes this mistake: `false`, except in tests.
macro_rules! faulty {
    ($tree:expr, $Fault:ident) => {{
        #[cfg(test)]
        let faulty = $tree.faults.has($crate::tree::faults::Fault::$Fault);
        #[cfg(not(test))]
        let faulty = {
            let _ = &$tree.faults;
            false
        };
        faulty
    }};
}
pub(super) use faulty;
