//! Time: never back, on every CPU; ticks come.

use core::sync::atomic::{AtomicU64, Ordering};

use hal::x86_64::{apic, clock};
use hal::{Native, Platform};

use crate::testing::nmi;
use crate::{check, cpus, kernel_test, services, tick};

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
