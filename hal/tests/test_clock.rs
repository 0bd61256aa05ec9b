//! The clock that a test moves. Alone in its process, whose only clock it is.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use hal::hosted::{TestClock, run_cpus};
use hal::platform::Wakeup;
use hal::{Native, Platform};

#[test]
fn tasks_time_out_when_the_test_says_so_and_time_never_goes_back() {
    let start = Native::now_ns();
    let deadline = OnceLock::new();
    let timed_out_at = AtomicU64::new(0);
    run_cpus(2, |me| {
        if me == 0 {
            let clock = TestClock::install();
            let now = Native::now_ns();
            assert!(now >= start);
            thread::sleep(Duration::from_millis(5));
            assert_eq!(Native::now_ns(), now, "it stands");

            // An hour, less a bit, and then the bit.
            const HOUR: u64 = 3_600_000_000_000;
            deadline.set(now + HOUR).unwrap();
            clock.advance(HOUR - 1);
            thread::sleep(Duration::from_millis(20));
            assert_eq!(timed_out_at.load(SeqCst), 0, "early");
            clock.advance(1);
            while timed_out_at.load(SeqCst) == 0 {
                Native::relax();
            }
            assert_eq!(timed_out_at.load(SeqCst), now + HOUR);
            drop(clock);
            assert!(Native::now_ns() >= now + HOUR);
            // And on from there.
            let then = Native::now_ns();
            thread::sleep(Duration::from_millis(2));
            let passed = Native::now_ns() - then;
            assert!((2_000_000..2_000_000_000).contains(&passed), "{passed} ns");
        } else {
            let deadline = *deadline.wait();
            assert_eq!(Native::block(Some(deadline)), Wakeup::TimedOut);
            timed_out_at.store(Native::now_ns(), SeqCst);
        }
    });
}
