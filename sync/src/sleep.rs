//! Sleeping for a time.
//!
//! A task that sleeps lets others run, where one that [delays](crate::delay) keeps its CPU. It sleeps no shorter than it
//! asked for, and longer by the time that its CPU takes to notice and to come to it. A wake-up meanwhile does not end the
//! sleep: what may be woken for a reason [blocks](TaskCx::block) with a deadline, or waits for an event.
//!
//! | Linux | here |
//! |---|---|
//! | `msleep`, `ssleep`, `fsleep` | [`TaskCx::sleep_ns`] |
//! | `msleep_interruptible` | [`TaskCx::sleep_cancellable_ns`] |
//! | `usleep_range` | [`TaskCx::sleep_between_ns`] |
//! | `schedule_hrtimeout` with an absolute time, `clock_nanosleep` | [`TaskCx::sleep_until`] |

use hal::Platform;

use crate::TaskCx;
use crate::wait::WaitError;

impl<P: Platform> TaskCx<P> {
    /// Sleeps until the clock of [`Platform::now_ns`] shows `deadline_ns`; not at all if it does already.
    ///
    /// For a beat that does not drift: sleep until a time that is computed from the last one, and not from the present.
    ///
    /// Contexts: task. Cost: arming a timer, and two switches.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use hal::{Native, Platform};
    /// let mut next = Native::now_ns();
    /// for _ in 0..3 {
    ///     next += 1_000_000;
    ///     cx.sleep_until(next);
    ///     assert!(Native::now_ns() >= next);
    /// }
    /// ```
    #[track_caller]
    pub fn sleep_until(&mut self, deadline_ns: u64) {
        self.might_sleep();
        while P::now_ns() < deadline_ns {
            self.block(Some(deadline_ns));
        }
    }

    /// Sleeps for `ns` nanoseconds at least. See [`sleep_until`](TaskCx::sleep_until).
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use hal::{Native, Platform};
    /// let begun = Native::now_ns();
    /// cx.sleep_ns(2_000_000);
    /// assert!(Native::now_ns() - begun >= 2_000_000);
    /// ```
    #[track_caller]
    pub fn sleep_ns(&mut self, ns: u64) {
        self.sleep_until(P::now_ns().saturating_add(ns));
    }

    /// Sleeps for at least `least_ns` and, as far as the sleeper itself decides, at most `most_ns` nanoseconds: tasks whose
    /// ranges overlap wake at the same moments, and their CPU once for all of them.
    ///
    /// The moment is the one in the range that is a multiple of the greatest power of two; so it is the same for all whose
    /// ranges contain it and nothing rounder.
    ///
    /// Linux: `usleep_range`. See [`sleep_until`](TaskCx::sleep_until).
    ///
    /// # Panics
    /// If `most_ns` is less than `least_ns`.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// use hal::{Native, Platform};
    /// let begun = Native::now_ns();
    /// cx.sleep_between_ns(100_000, 200_000);
    /// assert!(Native::now_ns() - begun >= 100_000);
    /// ```
    #[track_caller]
    pub fn sleep_between_ns(&mut self, least_ns: u64, most_ns: u64) {
        assert!(least_ns <= most_ns, "a sleep cannot take at least {least_ns} and at most {most_ns} ns");
        let now = P::now_ns();
        self.sleep_until(roundest(now.saturating_add(least_ns), now.saturating_add(most_ns)));
    }

    /// Sleeps for `ns` nanoseconds at least, unless the task is asked to end before or meanwhile.
    ///
    /// Linux: `msleep_interruptible`. See [`sleep_until`](TaskCx::sleep_until).
    ///
    /// # Errors
    /// [`WaitError::Cancelled`]: the task was asked to end.
    ///
    /// ```
    /// # let mut cx = unsafe { sync::TaskCx::new() };
    /// assert_eq!(cx.sleep_cancellable_ns(1_000), Ok(())); // nobody asks this task to end
    /// ```
    #[track_caller]
    pub fn sleep_cancellable_ns(&mut self, ns: u64) -> Result<(), WaitError> {
        self.might_sleep();
        let deadline_ns = P::now_ns().saturating_add(ns);
        loop {
            if P::is_cancelled() {
                return Err(WaitError::Cancelled);
            }
            if P::now_ns() >= deadline_ns {
                return Ok(());
            }
            self.block(Some(deadline_ns));
        }
    }
}

/// The number from `least` to `most` that is a multiple of the greatest power of two.
const fn roundest(least: u64, most: u64) -> u64 {
    if least == 0 {
        return 0;
    }
    // Below the highest bit in which `least - 1` and `most` differ everything can be 0.
    let differing = (least - 1) ^ most;
    most & (u64::MAX << (63 - differing.leading_zeros()))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn roundness(number: u64) -> u32 {
        number.trailing_zeros()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn the_roundest_number_is_in_the_range_and_none_is_rounder(least in 0..1_000_u64, more in 0..300_u64) {
            let most = least + more;
            let found = roundest(least, most);
            prop_assert!((least..=most).contains(&found));
            prop_assert!((least..=most).all(|other| roundness(other) <= roundness(found)));
        }

        #[test]
        fn large_numbers_too(least: u64, more: u64) {
            let most = least.saturating_add(more);
            prop_assert!((least..=most).contains(&roundest(least, most)));
        }
    }

    #[test]
    fn a_wake_up_does_not_end_a_sleep() {
        use hal::{Native, hosted};
        let _cpu = hosted::bind().expect("a virtual CPU");
        // SAFETY: this thread is a task, and this its only token.
        let mut cx = unsafe { TaskCx::new() };
        // SAFETY: it is this task, which has not ended. The wake-up is there before the sleep begins.
        unsafe { Native::wake(cx.task()) };
        let begun = Native::now_ns();
        cx.sleep_ns(3_000_000);
        assert!(Native::now_ns() - begun >= 3_000_000);
    }
}
