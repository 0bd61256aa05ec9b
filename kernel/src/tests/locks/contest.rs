//! A contest: one lock, wanted by tasks on all CPUs and by their interrupts, until all of them have come.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use hal::x86_64::apic;
use hal::{CpuId, Native, Platform};
use sync::bh;

use crate::softirq::{Handler, Vector};
use crate::testing::irq::{Source, send_call, set_hook};
use crate::testing::{Outcome, nmi};
use crate::{check, check_eq, cpus, services, softirq};

/// Who wants the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Party {
    Task,
    Softirq,
    Timer,
    Call,
    Nmi,
}

pub(super) const EVERYBODY: [Party; 5] = [Party::Task, Party::Softirq, Party::Timer, Party::Call, Party::Nmi];

/// What came of one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Visit {
    /// Was inside and changed the data.
    Changed,
    /// Was inside and found the data in order.
    Looked,
    /// Was inside and was not alone, or found the data changed by half.
    Disturbed,
    /// Did not wait, and did not get in.
    Refused,
}

/// One lock and those who want it.
pub(super) struct Contest {
    /// Who comes besides tasks.
    pub(super) joined_by: &'static [Party],
    /// One attempt, by whoever it is.
    pub(super) visit: fn(Party) -> Visit,
    /// How often the data was changed, by its own account.
    pub(super) changes: fn() -> u64,
    /// Whether it is a kind of lock that is waited for.
    pub(super) is_waited_for: bool,
    /// It is held on machines with no more CPUs than that.
    pub(super) most_cpus: usize,
}

/// The contest that runs, or null.
static CONTEST: AtomicPtr<Contest> = AtomicPtr::new(ptr::null_mut());
/// Attempts of each party, by what came of them.
static VISITS: [[AtomicU64; 4]; 5] = [const { [const { AtomicU64::new(0) }; 4] }; 5];
/// Attempts that had to wait.
pub(super) static WAITED: AtomicU64 = AtomicU64::new(0);
/// CPUs that have come to the contest.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// CPUs whose counts were not given back.
static UNBALANCED: AtomicU32 = AtomicU32::new(0);

/// The softirq vector that the contest uses.
const VECTOR: Vector = Vector::Complete;
/// Enough visits of all tasks together. Locks that serve in order of arrival take long for so many where CPUs outnumber
/// the host's, so that [`LONG_ENOUGH_NS`] is enough too.
const TASK_VISITS: u64 = 12_000;
const LONG_ENOUGH_NS: u64 = 500_000_000;
/// The least attempts of each other party, and the least waits of all.
const OTHER_VISITS: u64 = 24;
const WAITS: u64 = 4;
/// How long to wait until everybody has come.
const PATIENCE_NS: u64 = 30_000_000_000;

fn visits(party: Party, what: Visit) -> u64 {
    VISITS[party as usize][what as usize].load(Ordering::Relaxed)
}

fn attempts(party: Party) -> u64 {
    VISITS[party as usize].iter().map(|count| count.load(Ordering::Relaxed)).sum()
}

fn all_visits(what: Visit) -> u64 {
    EVERYBODY.into_iter().map(|party| visits(party, what)).sum()
}

/// One attempt of `party` in the contest that runs, if it takes part.
fn come(party: Party) {
    // SAFETY: null or a `'static` contest. Acquire: pairs with the Release in `hold`.
    let Some(contest) = (unsafe { CONTEST.load(Ordering::Acquire).as_ref() }) else { return };
    if party == Party::Task || contest.joined_by.contains(&party) {
        let what = (contest.visit)(party);
        VISITS[party as usize][what as usize].fetch_add(1, Ordering::Relaxed);
    }
}

static ON_TIMER: fn() = || {
    come(Party::Timer);
    softirq::raise(VECTOR);
};
static ON_CALL: fn() = || come(Party::Call);
static ON_SOFTIRQ: Handler = |_| come(Party::Softirq);

/// Holds a contest and judges it.
pub(super) fn hold(contest: &'static Contest) -> Outcome {
    if cpus::online_count() > contest.most_cpus {
        crate::skip!("strict order of arrival comes to a stop where CPUs outnumber the host's by that much");
    }
    VISITS.iter().flatten().for_each(|count| count.store(0, Ordering::Relaxed));
    WAITED.store(0, Ordering::Relaxed);
    ARRIVED.store(0, Ordering::Relaxed);
    UNBALANCED.store(0, Ordering::Relaxed);
    let before = (contest.changes)();
    softirq::set_handler(VECTOR, Some(&ON_SOFTIRQ));
    set_hook(Source::Timer, Some(&ON_TIMER));
    set_hook(Source::Call, Some(&ON_CALL));
    nmi::set_hook(Some(|_| come(Party::Nmi)));
    // Release: pairs with the Acquire in `come`.
    CONTEST.store(ptr::from_ref(contest).cast_mut(), Ordering::Release);
    services::run_on_all(&|cpu| take_part(cpu, contest));
    CONTEST.store(ptr::null_mut(), Ordering::Release);
    nmi::set_hook(None);
    set_hook(Source::Call, None);
    set_hook(Source::Timer, None);
    // Whoever was in an interrupt when the hooks went is out of it when its task runs. Enabling bottom halves serves
    // what was raised last.
    services::run_on_all(&|_| drop(bh::disable()));
    softirq::set_handler(VECTOR, None);

    check_eq!(all_visits(Visit::Disturbed), 0);
    check_eq!((contest.changes)() - before, all_visits(Visit::Changed));
    check_eq!(UNBALANCED.load(Ordering::Relaxed), 0);
    for party in contest.joined_by {
        check!(attempts(*party) >= OTHER_VISITS, "{party:?} came {} times", attempts(*party));
    }
    check!(enough_waits(contest), "{} attempts had to wait", WAITED.load(Ordering::Relaxed));
    Ok(())
}

fn enough_waits(contest: &Contest) -> bool {
    !contest.is_waited_for || cpus::online_count() == 1 || WAITED.load(Ordering::Relaxed) >= WAITS
}

/// A CPU's task: visits, and sees to it that the others come.
fn take_part(cpu: CpuId, contest: &Contest) {
    let counts = || (Native::context().count(), Native::irq_depth());
    let before = counts();
    let online = cpus::online_count() as u64;
    let neighbour = cpus::online().find(|other| *other > cpu).unwrap_or(CpuId::BOOT);
    // All begin together: who comes first has the lock for itself.
    ARRIVED.fetch_add(1, Ordering::Relaxed);
    while ARRIVED.load(Ordering::Relaxed) < online {
        Native::relax();
    }
    let begun = Native::now_ns();
    let everybody_came = || contest.joined_by.iter().all(|party| attempts(*party) >= OTHER_VISITS);
    for time in 1.. {
        come(Party::Task);
        match time % 16 {
            0 => send_call(neighbour),
            4 => softirq::raise(VECTOR),
            // One NMI at a time is remembered; another that comes meanwhile is lost, which is no harm here.
            8 if contest.joined_by.contains(&Party::Nmi) => apic::send_nmi_to_cpu(neighbour),
            _ => {}
        }
        let took = Native::now_ns() - begun;
        let enough = time >= TASK_VISITS / online || took >= LONG_ENOUGH_NS;
        let has_failed = took >= PATIENCE_NS || all_visits(Visit::Disturbed) > 0;
        if (enough && everybody_came() && enough_waits(contest)) || has_failed {
            break;
        }
    }
    if counts() != before {
        UNBALANCED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts a wait, and goes on to wait.
pub(super) fn wait<T>(wait: impl FnOnce() -> T) -> T {
    WAITED.fetch_add(1, Ordering::Relaxed);
    wait()
}
