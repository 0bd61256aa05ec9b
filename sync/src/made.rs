//! Where a guard was made, and on which CPU: remembered in debug builds, to be checked when the guard is dropped.
//! Of no size and no cost in others.
//!
//! Types keep guards from being sent to another CPU or dropped twice. What is left are the mistakes of `unsafe` code,
//! of code that changes the counts without a guard, and of schedulers. They show at a guard's end: it finds itself on
//! the wrong CPU, or its count gone. The report names the line that made the guard, and the count is then not touched,
//! because it is not the guard's.

#[cfg(all(debug_assertions, not(any(loom, shuttle))))]
pub(crate) use remembered::{Made, check_serving};
#[cfg(not(all(debug_assertions, not(any(loom, shuttle)))))]
pub(crate) use unremembered::{Made, check_serving};

/// Which count a guard stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(
    not(all(debug_assertions, not(any(loom, shuttle)))),
    expect(dead_code, reason = "only debug builds look")
)]
pub(crate) enum Count {
    /// The preempt depth.
    Preempt,
    /// Disabled bottom halves.
    BottomHalves,
    /// The interrupt depth.
    Interrupts,
    /// The platform's, about pinned tasks.
    Migration,
    /// Whatever a lock's flavour counts.
    Flavor,
}

#[cfg(all(debug_assertions, not(any(loom, shuttle))))]
mod remembered {
    use core::marker::PhantomData;
    use core::panic::Location;

    use hal::context::{PREEMPT_MASK, PREEMPT_UNIT, SOFTIRQ_DISABLE_UNIT, SOFTIRQ_MASK};
    use hal::platform::{Report, Severity};
    use hal::{CpuId, Platform};

    use super::Count;
    use crate::Flavor;

    /// What is remembered.
    pub(crate) struct Made<P> {
        at: &'static Location<'static>,
        on: CpuId,
        platform: PhantomData<fn() -> P>,
    }

    impl<P: Platform> Made<P> {
        /// The caller's place and this CPU. Called when the CPU cannot change any more.
        #[track_caller]
        pub(crate) fn here() -> Made<P> {
            Made { at: Location::caller(), on: P::cpu(), platform: PhantomData }
        }

        /// Whether one more of `count` fits into its field. If not, the machine stops: it would carry over into the
        /// neighbouring field, and who looks at that one would act on it.
        #[track_caller]
        pub(crate) fn check_room(count: Count) {
            let word = P::context().count();
            let (name, depth, room) = match count {
                Count::Preempt => ("preempt", word & PREEMPT_MASK, PREEMPT_MASK - (word & PREEMPT_MASK)),
                Count::BottomHalves => {
                    let free = (SOFTIRQ_MASK - (word & SOFTIRQ_MASK)) / SOFTIRQ_DISABLE_UNIT;
                    ("bottom half", (word & SOFTIRQ_MASK) / SOFTIRQ_DISABLE_UNIT, free)
                }
                Count::Interrupts | Count::Migration | Count::Flavor => return,
            };
            if count == Count::BottomHalves && (P::context().in_hardirq() || P::context().in_nmi()) {
                P::report(&Report {
                    severity: Severity::Bug,
                    message: format_args!(
                        "bottom halves disabled in an interrupt handler, which none interrupts"
                    ),
                    location: Location::caller(),
                });
            }
            if room == 0 {
                P::report(&Report {
                    severity: Severity::Fatal,
                    message: format_args!(
                        "{name} count overflow: disabled {depth} times on CPU#{} and not enabled; a loop that leaks \
                         guards?",
                        P::cpu()
                    ),
                    location: Location::caller(),
                });
            }
        }

        /// The line that made the guard.
        pub(crate) fn place(&self) -> &'static Location<'static> {
            self.at
        }

        /// Whether the guard may undo what it did: it is on its CPU, and its count is not 0. Otherwise reports.
        pub(crate) fn may_undo(&self, count: Count) -> bool {
            let cpu = P::cpu();
            if cpu != self.on {
                self.report(format_args!(
                    "guard ({}) made on CPU#{} and dropped on CPU#{cpu}, whose counts stay as they are",
                    name(count),
                    self.on
                ));
                return false;
            }
            let word = P::context().count();
            let gone = match count {
                Count::Preempt => word & PREEMPT_MASK < PREEMPT_UNIT,
                Count::BottomHalves => word & SOFTIRQ_MASK < SOFTIRQ_DISABLE_UNIT,
                Count::Interrupts => P::irq_depth() == 0,
                Count::Migration | Count::Flavor => false,
            };
            if gone {
                self.report(format_args!(
                    "{} count underflow on CPU#{cpu}: enabled more often than disabled, before this guard was dropped",
                    name(count)
                ));
            }
            !gone
        }

        /// Whether the holder of a lock may leave its flavour: it is on its CPU. Otherwise reports.
        pub(crate) fn may_exit<F: Flavor>(&self) -> bool {
            let may_undo = self.may_undo(Count::Flavor);
            if may_undo {
                F::check_exit(self.at);
            }
            may_undo
        }

        /// Reports the end of a section without softirqs where serving them is not possible.
        pub(crate) fn check_serving(&self) {
            check_serving::<P>(self.at);
        }

        /// Reports `what` about the operation on a guard made here.
        fn report(&self, what: core::fmt::Arguments<'_>) {
            P::report(&Report { severity: Severity::Bug, message: what, location: self.at });
        }
    }

    /// See [`Made::check_serving`]. In hardirq it was reported when the section began.
    pub(crate) fn check_serving<P: Platform>(at: &'static Location<'static>) {
        let context = P::context();
        if P::irq_depth() != 0 && !context.in_hardirq() && !context.in_nmi() {
            P::report(&Report {
                severity: Severity::Bug,
                message: format_args!(
                    "bottom halves enabled with interrupts off on CPU#{}; what is pending waits for them to come on",
                    P::cpu()
                ),
                location: at,
            });
        }
    }

    fn name(count: Count) -> &'static str {
        match count {
            Count::Preempt => "preempt",
            Count::BottomHalves => "bottom half",
            Count::Interrupts => "interrupt",
            Count::Migration => "migration",
            Count::Flavor => "lock",
        }
    }
}

#[cfg(not(all(debug_assertions, not(any(loom, shuttle)))))]
mod unremembered {
    use core::marker::PhantomData;
    use core::panic::Location;

    use hal::Platform;

    use super::Count;
    use crate::Flavor;

    /// Nothing.
    pub(crate) struct Made<P>(PhantomData<fn() -> P>);

    impl<P: Platform> Made<P> {
        #[inline(always)]
        pub(crate) fn here() -> Made<P> {
            Made(PhantomData)
        }

        #[inline(always)]
        pub(crate) fn check_room(_: Count) {}

        #[inline(always)]
        pub(crate) fn may_undo(&self, _: Count) -> bool {
            true
        }

        #[inline(always)]
        pub(crate) fn may_exit<F: Flavor>(&self) -> bool {
            F::check_exit(self.place());
            true
        }

        /// This line, because the one that made the guard is not known.
        #[inline(always)]
        pub(crate) fn place(&self) -> &'static Location<'static> {
            Location::caller()
        }

        #[inline(always)]
        pub(crate) fn check_serving(&self) {}
    }

    #[inline(always)]
    pub(crate) fn check_serving<P: Platform>(_at: &'static Location<'static>) {}
}
