//! The hosted machine's clock: the host's monotonic clock, or one that a test moves by hand.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::vcpu::Vcpu;
use crate::{CpuId, MAX_CPUS};

/// The time that a test has set, or `BY_HOST`, or `STOPPING` while a test is stopping the clock.
static BY_HAND: AtomicU64 = AtomicU64::new(BY_HOST);
const BY_HOST: u64 = u64::MAX;
const STOPPING: u64 = u64::MAX - 1;

/// How far time was moved beyond the host's by test clocks, so that it does not go back when they are gone.
static AHEAD: AtomicU64 = AtomicU64::new(0);

/// Held by the test that has the clock.
static OWNER: Mutex<()> = Mutex::new(());

fn host_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // 2^64 ns are 584 years.
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + AHEAD.load(Ordering::Relaxed)
}

pub(super) fn now_ns() -> u64 {
    loop {
        // Acquire: pairs with the Releases of `TestClock`, so that who sees a time sees what was done before it was set.
        match BY_HAND.load(Ordering::Acquire) {
            BY_HOST => {
                let ns = host_ns();
                // Pairs with the fence in `install`: either the clock was read before it was stopped, or the change is
                // seen here. A later time than the one at which it stands is so never returned.
                fence(Ordering::SeqCst);
                if BY_HAND.load(Ordering::Relaxed) == BY_HOST {
                    return ns;
                }
            }
            STOPPING => std::thread::yield_now(),
            ns => return ns,
        }
    }
}

/// How long until a deadline.
pub(super) enum Until {
    /// It has come.
    Passed,
    /// So many nanoseconds.
    In(u64),
    /// Until a test moves the clock.
    ByHand,
}

pub(super) fn until(deadline_ns: u64) -> Until {
    match deadline_ns.checked_sub(now_ns()) {
        None | Some(0) => Until::Passed,
        Some(_) if BY_HAND.load(Ordering::Relaxed) != BY_HOST => Until::ByHand,
        Some(ns) => Until::In(ns),
    }
}

/// Stops the process's clock and moves it by hand, while it lives. There is one at a time: `install` waits for the
/// other test. When it is dropped the clock runs on from where it was left.
///
/// Tests that measure real time must not run beside one.
///
/// ```
/// use hal::{Native, Platform, hosted::TestClock};
/// let clock = TestClock::install();
/// let start = Native::now_ns();
/// clock.advance(1_000);
/// assert_eq!(Native::now_ns(), start + 1_000);
/// ```
#[must_use = "the clock runs again when this is dropped"]
pub struct TestClock {
    _owner: MutexGuard<'static, ()>,
}

impl TestClock {
    /// Stops the clock where it is.
    pub fn install() -> TestClock {
        let owner = OWNER.lock().unwrap_or_else(PoisonError::into_inner);
        BY_HAND.store(STOPPING, Ordering::Relaxed);
        // Pairs with the fence in `now_ns`.
        fence(Ordering::SeqCst);
        // Release: pairs with the Acquire in `now_ns`.
        BY_HAND.store(host_ns(), Ordering::Release);
        wake_sleepers();
        TestClock { _owner: owner }
    }

    /// Moves the clock on. Tasks whose deadline comes are woken.
    pub fn advance(&self, ns: u64) {
        // Release: pairs with the Acquire in `now_ns`.
        BY_HAND.fetch_add(ns, Ordering::Release);
        wake_sleepers();
    }
}

impl Drop for TestClock {
    fn drop(&mut self) {
        let left_at = BY_HAND.load(Ordering::Relaxed);
        AHEAD.fetch_add(left_at.saturating_sub(host_ns()), Ordering::Relaxed);
        // Release: pairs with the Acquire in `now_ns`, which so sees `AHEAD`.
        BY_HAND.store(BY_HOST, Ordering::Release);
        wake_sleepers();
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClock").field("now_ns", &now_ns()).finish()
    }
}

fn wake_sleepers() {
    for cpu in (0..MAX_CPUS as u32).filter_map(CpuId::new) {
        let vcpu = Vcpu::of(cpu);
        if vcpu.is_online() {
            vcpu.notice_time();
        }
    }
}
