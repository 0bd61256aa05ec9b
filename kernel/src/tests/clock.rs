//! Time: never back, on every CPU; ticks come.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hal::x86_64::{apic, clock};
use hal::{CpuId, Native, Platform};

use crate::testing::{Outcome, nmi};
use crate::{check, check_eq, clock_watch, cpus, kernel_test, services, skip, tick};

kernel_test! {
    limit_ms = 60_000,
    fn time_never_goes_back_on_or_across_cpus() {
        static LATEST: AtomicU64 = AtomicU64::new(0);
        static WORST: AtomicU64 = AtomicU64::new(0);
        WORST.store(0, Ordering::Relaxed);
        let look = || {
            // Acquire and Release pair with each other on the other CPUs: a reading that was published before must not
            // be later than one that is taken after.
            let published = LATEST.load(Ordering::Acquire);
            let now = Native::now_ns();
            if now < published {
                WORST.fetch_max(published - now, Ordering::Relaxed);
            }
            LATEST.fetch_max(now, Ordering::AcqRel);
        };
        nmi::set_hook(Some(|_| {
            let published = LATEST.load(Ordering::Acquire);
            let now = Native::now_ns();
            if now < published {
                WORST.fetch_max(published - now, Ordering::Relaxed);
            }
            LATEST.fetch_max(now, Ordering::AcqRel);
        }));
        let rounds = 40_000 / cpus::online_count();
        services::run_on_all(&|cpu| {
            for i in 0..rounds {
                look();
                if i % 512 == 0 {
                    apic::send_nmi_to_cpu(cpu);
                }
            }
        });
        nmi::set_hook(None);
        let worst = WORST.load(Ordering::Relaxed);
        check!(worst == 0, "went back by {worst} ns");
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn smoke_ticks_come_on_every_cpu(cpu) {
        let _kept = tick::keep_all();
        let before = tick::count(cpu);
        let patience = Native::now_ns() + 10_000_000_000;
        while tick::count(cpu) < before + 3 {
            check!(Native::now_ns() < patience, "no ticks");
            Native::relax();
        }
        Ok(())
    }
}

kernel_test! {
    everywhere,
    fn a_delay_is_never_short(_) {
        for ns in [1_000, 50_000, 2_000_000] {
            let begun = Native::now_ns();
            clock::delay_ns(ns);
            let took = Native::now_ns() - begun;
            check!(took >= ns, "{took} of {ns} ns");
        }
        Ok(())
    }
}

/// Between two looks: long against what one takes, short against the turn of a PM timer.
const BETWEEN_LOOKS_NS: u64 = 50_000_000;

kernel_test! {
    limit_ms = 60_000,
    fn an_honest_clock_agrees_with_the_references() {
        clock_watch::start();
        let before = clock::source();
        let patience = Native::now_ns() + 30_000_000_000;
        clock_watch::look();
        if clock_watch::comparisons() == 0 {
            skip!("nothing to compare with");
        }
        while clock_watch::comparisons() < 8 && Native::now_ns() < patience {
            clock::delay_ns(BETWEEN_LOOKS_NS);
            clock_watch::look();
        }
        check!(clock_watch::comparisons() >= 8, "{:?}", clock_watch::describe());
        check_eq!(clock::source(), before);
        Ok(())
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn a_clock_that_is_fast_is_found_and_time_goes_on() {
        find_wrong_clock(20_000)
    }
}

kernel_test! {
    limit_ms = 60_000,
    fn a_clock_that_is_slow_is_found_and_time_goes_on() {
        find_wrong_clock(-20_000)
    }
}

/// Plants a TSC that is off by `ppm`, while all CPUs compare what they read.
fn find_wrong_clock(ppm: i64) -> Outcome {
    static LATEST: AtomicU64 = AtomicU64::new(0);
    static WORST: AtomicU64 = AtomicU64::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    if !clock::info().is_some_and(|info| info.references.iter().any(|r| r.kind() != clock::Kind::Pit)) {
        skip!("nothing to compare with");
    }
    let honest = clock::source();
    LATEST.store(0, Ordering::Relaxed);
    WORST.store(0, Ordering::Relaxed);
    OVER.store(false, Ordering::Relaxed);
    clock_watch::start();
    if !clock::plant_tsc(ppm) {
        skip!("nobody knows the TSC's frequency");
    }
    services::run_on_all(&|cpu| {
        let read = || {
            // As in `time_never_goes_back_on_or_across_cpus`.
            let published = LATEST.load(Ordering::Acquire);
            let now = Native::now_ns();
            if now < published {
                WORST.fetch_max(published - now, Ordering::Relaxed);
            }
            LATEST.fetch_max(now, Ordering::AcqRel);
            now
        };
        if cpu != CpuId::BOOT {
            while !OVER.load(Ordering::Relaxed) {
                read();
                Native::relax();
            }
            return;
        }
        let patience = read() + 30_000_000_000;
        while clock::source() == clock::Source::Tsc && read() < patience {
            clock_watch::look();
            let next = read() + BETWEEN_LOOKS_NS;
            while read() < next {
                Native::relax();
            }
        }
        // And some time with the new one.
        let end = read() + BETWEEN_LOOKS_NS;
        while read() < end {
            Native::relax();
        }
        OVER.store(true, Ordering::Relaxed);
    });
    let (found, described) = (clock::source(), clock_watch::describe());
    let worst = WORST.load(Ordering::Relaxed);
    // What comes after is to have the clock that it had.
    if honest == clock::Source::Tsc {
        clock::plant_tsc(0);
    }
    clock_watch::start();
    check!(matches!(found, clock::Source::Device(_)), "{found}: {described:?}");
    check!(worst == 0, "went back by {worst} ns");
    check_eq!(clock::source(), honest);
    Ok(())
}
