//! The monotonic clock: counter to nanoseconds, in every context, without a lock.
//!
//! A [`Timebase`] never changes once it is published; another one replaces it as a whole, by one pointer. A reader
//! that interrupted the replacement (an NMI) uses the old or the new one, both of which are complete.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::extend::Extended;
use super::reference::Reference;
use super::scale::Scale;
use super::tsc;

/// What counts.
#[derive(Debug)]
pub(super) enum Counter {
    /// The TSCs of all CPUs, which agree.
    Tsc,
    /// The TSCs, which do not agree, and nothing better exists: the largest value that any CPU has returned is the least
    /// that any will.
    ClampedTsc(AtomicU64),
    /// A device that all CPUs share.
    Device(Reference, Extended),
}

impl Counter {
    /// A shared device from its present value on.
    pub(super) fn device(reference: Reference) -> Counter {
        let now = reference.read();
        Counter::Device(reference, Extended::new(reference.bits, now))
    }

    /// The present count.
    #[inline]
    pub(super) fn read(&self) -> u64 {
        match self {
            Counter::Tsc => tsc::read(),
            Counter::ClampedTsc(largest) => clamp(largest, tsc::read()),
            Counter::Device(reference, extended) => extended.read(|| reference.read()),
        }
    }
}

/// The larger of `now` and everything that was returned before, on any CPU.
fn clamp(largest: &AtomicU64, now: u64) -> u64 {
    // AcqRel: pairs with itself on other CPUs; who sees a value sees also what its reader did before.
    largest.fetch_max(now, Ordering::AcqRel).max(now)
}

/// A counter and how to read it as a time.
#[derive(Debug)]
pub(super) struct Timebase {
    counter: Counter,
    hz: u64,
    to_ns: Scale,
    /// The count at which the time was `base_ns`.
    origin: u64,
    base_ns: u64,
}

impl Timebase {
    /// Time that is `base_ns` when the counter, which runs at `hz`, shows `origin`.
    pub(super) fn new(counter: Counter, hz: u64, origin: u64, base_ns: u64) -> Timebase {
        Timebase { counter, hz, to_ns: Scale::new(hz, super::NS), origin, base_ns }
    }

    #[inline]
    fn now_ns(&self) -> u64 {
        // A CPU whose counter is behind the origin, which it should not be, gets the base and not a wrapped-around value.
        self.base_ns + self.to_ns.apply(self.counter.read().saturating_sub(self.origin))
    }

    pub(super) fn counter(&self) -> &Counter {
        &self.counter
    }

    pub(super) fn hz(&self) -> u64 {
        self.hz
    }
}

static CURRENT: AtomicPtr<Timebase> = AtomicPtr::new(core::ptr::null_mut());

/// The timebase in use, if the clock has started.
#[inline]
pub(super) fn current() -> Option<&'static Timebase> {
    // Acquire: pairs with the Release in `publish`; the timebase is complete.
    // SAFETY: the pointer is null or came from `publish`, which leaks what it points to.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
}

/// Replaces the timebase. Old ones are never freed, because a reader may be in one at any time; there are at most a few.
pub(super) fn publish(timebase: Box<Timebase>) {
    // Release: pairs with the Acquire in `current` and `now_ns`.
    CURRENT.store(Box::leak(timebase), Ordering::Release);
}

/// Nanoseconds since boot. Never goes back, neither on one CPU nor from one to another: a reading that happens after
/// another one is not smaller. 0 until the clock is started.
///
/// Any context, NMI included; no wait. Cost: the TSC's fence and read, one multiplication (about 20 ns; an emulator
/// takes longer). With a device as the counter, one access to it, about 1 us in a guest. Linux: `ktime_get_mono_fast_ns`.
#[inline]
pub fn now_ns() -> u64 {
    let mut timebase = CURRENT.load(Ordering::Acquire);
    loop {
        // SAFETY: as in `current`.
        let now = unsafe { timebase.as_ref() }.map_or(0, Timebase::now_ns);
        // A reader that was kept from running while the timebase was replaced has read a counter that is not to be believed
        // any more, long after others have read the new one. Again, then; once for each change, of which there are few.
        // Acquire, both: pair with the Release in `publish`; the timebase is complete.
        let newest = CURRENT.load(Ordering::Acquire);
        if newest == timebase {
            return now;
        }
        timebase = newest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clamped_counter_never_goes_back() {
        let largest = AtomicU64::new(100);
        assert_eq!(clamp(&largest, 90), 100);
        assert_eq!(clamp(&largest, 120), 120);
        assert_eq!(clamp(&largest, 119), 120);
    }

    #[test]
    fn time_starts_at_the_base_and_follows_the_counter() {
        let before = tsc::read();
        let base = Timebase::new(Counter::Tsc, 2_000_000_000, before, 1_000);
        let (a, b) = (base.now_ns(), base.now_ns());
        assert!(a >= 1_000 && b >= a);
        let behind = Timebase::new(Counter::Tsc, 2_000_000_000, u64::MAX, 1_000);
        assert_eq!(behind.now_ns(), 1_000);
    }
}
