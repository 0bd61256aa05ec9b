//! What is said of readers that stay for long, or for ever.

use core::fmt;
use core::sync::atomic::Ordering;

use hal::Platform;
use hal::platform::{Report, Severity};

use super::{Driver, Srcu};

/// The most CPUs that are named.
const MOST_NAMED: usize = 16;

/// A grace period has waited for its readers for long. Returns.
#[cold]
pub(super) fn report<P: Platform, D: Driver>(srcu: &Srcu<P, D>, waited_ns: u64) {
    let rank = srcu.core.machine.awaited();
    let readers = Readers { srcu, pairs: &[(rank.begun(), rank.ended())] };
    P::report(&Report {
        severity: Severity::Warning,
        message: format_args!(
            "srcu: {} stalls: grace period {} has waited {} ms for readers that began before it\n{readers}",
            srcu.name,
            srcu.grace_periods() + 1,
            waited_ns / 1_000_000,
        ),
        location: srcu.made,
    });
}

/// A domain was dropped with sections or callbacks.
#[cold]
pub(super) fn report_dropped<P: Platform, D: Driver>(srcu: &Srcu<P, D>) {
    let readers = Readers { srcu, pairs: &[(0, 2), (1, 3)] };
    P::report(&Report {
        severity: Severity::Bug,
        message: format_args!(
            "srcu: {} was dropped with {} readers, whose guards were leaked, and {} callbacks, which are never called\n\
             {readers}",
            srcu.name,
            srcu.readers(),
            srcu.callbacks(),
        ),
        location: srcu.made,
    });
}

/// Where sections began and ended.
struct Readers<'a, P: Platform, D: Driver> {
    srcu: &'a Srcu<P, D>,
    /// The counters of beginnings and ends that count.
    pairs: &'a [(usize, usize)],
}

impl<P: Platform, D: Driver> fmt::Display for Readers<'_, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut named = 0;
        f.write_str("begun and ended on")?;
        for (cpu, counters) in self.srcu.counters.by_cpu() {
            let sum = |counter: fn(&(usize, usize)) -> usize| {
                let of = |pair| counters[counter(pair)].load(Ordering::Relaxed);
                self.pairs.iter().map(of).fold(0, usize::wrapping_add)
            };
            let (begun, ended) = (sum(|pair| pair.0), sum(|pair| pair.1));
            if begun != ended {
                named += 1;
                if named <= MOST_NAMED {
                    write!(f, " CPU {cpu}: {begun}, {ended};")?;
                }
            }
        }
        match named {
            0 => f.write_str(" no CPU differently: they have just left"),
            1..=MOST_NAMED => f.write_str(" a section may end on another CPU than it began on"),
            _ => write!(f, " and {} more CPUs", named - MOST_NAMED),
        }
    }
}
