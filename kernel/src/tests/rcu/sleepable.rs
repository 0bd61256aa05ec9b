//! Readers that sleep.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ::rcu::Head;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, Native, Platform};
use sync::TaskCx;

use crate::rcu::sleepable;
use crate::task::Builder;
use crate::testing::{comes_true_by_others, expect_report};
use crate::{check, check_eq, cpus, hotplug, kernel_test, log, skip};

const MS: u64 = 1_000_000;

kernel_test! {
    task,
    fn a_grace_period_waits_for_readers_that_sleep_elsewhere(cx) {
        let Ok(domain) = sleepable("test") else { skip!("no room") };
        for expedited in [false, true] {
            let inside = Arc::new(AtomicU32::new(0));
            let readers: Vec<_> = cpus::online()
                .filter_map(|cpu| {
                    let (domain, inside) = (Arc::clone(&domain), Arc::clone(&inside));
                    let read = move |cx: &mut TaskCx| {
                        let section = domain.read();
                        inside.fetch_add(1, Ordering::SeqCst);
                        cx.sleep_ns(30 * MS);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(section);
                    };
                    Builder::new("sleeps").on(cpu).spawn(read).ok()
                })
                .collect();
            let there = readers.len() as u32;
            check!(comes_true_by_others(|| inside.load(Ordering::SeqCst) == there || domain.readers() == 0));
            if expedited {
                domain.synchronize_expedited(cx);
            } else {
                domain.synchronize(cx);
            }
            check_eq!(inside.load(Ordering::SeqCst), 0);
            readers.into_iter().for_each(|reader| reader.join(cx));
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn callbacks_are_called_though_nobody_waits(cx) {
        static CALLED: AtomicU32 = AtomicU32::new(0);
        unsafe fn called(head: NonNull<Head>) {
            CALLED.fetch_add(1, Ordering::Relaxed);
            // SAFETY: every head that is queued with this function was a leaked box.
            drop(unsafe { Box::from_raw(head.as_ptr()) });
        }
        CALLED.store(0, Ordering::Relaxed);
        let Ok(domain) = sleepable("test") else { skip!("no room") };
        let section = domain.read();
        for _ in 0..100 {
            let head = NonNull::from(Box::leak(Box::new(Head::new())));
            // SAFETY: fresh, in place until it is called, and queued once.
            unsafe { domain.call(head, called) };
        }
        let polled = domain.start_poll();
        cx.sleep_ns(50 * MS);
        check_eq!((CALLED.load(Ordering::Relaxed), domain.poll(polled)), (0, false));
        drop(section);
        check!(comes_true_by_others(|| CALLED.load(Ordering::Relaxed) == 100 && domain.poll(polled)));
        Ok(())
    }
}

kernel_test! {
    task,
    fn sleeping_readers_that_stay_are_told(_cx) {
        let Ok(domain) = sleepable("test-stall") else { skip!("no room") };
        expect_report("srcu: test-stall stalls");
        domain.set_stall_ns(100 * MS);
        let section = domain.read();
        let polled = domain.start_poll();
        let told = comes_true_by_others(|| domain.stalls() != 0);
        // And where they began: here, in a section that has not ended.
        let names_here = |text: &str| text.contains("begun and ended on CPU 0: 1, 0;");
        let named = comes_true_by_others(|| {
            log::history().rsplit_once("srcu: test-stall stalls").is_some_and(|(_, told)| names_here(told))
        });
        check!(told && named && !domain.poll(polled), "told: {told}, named: {named}");
        drop(section);
        check!(comes_true_by_others(|| domain.poll(polled)));
        Ok(())
    }
}

/// What readers are led to, one after the other.
static SLOTS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

kernel_test! {
    task, limit_ms = 60_000,
    fn sleeping_readers_see_nothing_change_under_them_while_cpus_come_and_go(cx) {
        static STOP: AtomicBool = AtomicBool::new(false);
        static BAD: AtomicU32 = AtomicU32::new(0);
        static READS: AtomicU32 = AtomicU32::new(0);
        static PRESENT: AtomicU32 = AtomicU32::new(0);
        STOP.store(false, Ordering::Relaxed);
        BAD.store(0, Ordering::Relaxed);
        READS.store(0, Ordering::Relaxed);
        let Ok(domain) = sleepable("test-torture") else { skip!("no room") };
        let readers: Vec<_> = (0..2 * cpus::online_count().min(4))
            .filter_map(|number| {
                let domain = Arc::clone(&domain);
                let read = move |cx: &mut TaskCx| {
                    let mut turn = number as u64;
                    while !STOP.load(Ordering::Relaxed) {
                        turn += 1;
                        let section = domain.read();
                        let slot = &SLOTS[PRESENT.load(Ordering::Acquire) as usize];
                        let found = slot.load(Ordering::Acquire);
                        match turn % 4 {
                            0 => cx.sleep_ns(turn % 7 * MS / 2),
                            1 => _ = cx.cond_resched(),
                            _ => Native::relax(),
                        }
                        BAD.fetch_add((slot.load(Ordering::Acquire) != found).into(), Ordering::Relaxed);
                        drop(section);
                        READS.fetch_add(1, Ordering::Relaxed);
                    }
                };
                Builder::new("srcu reader").spawn(read).ok()
            })
            .collect();
        let other = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT);
        for turn in 0..40_u32 {
            // The slot that nobody is led to changes, when those are gone who were led to it before.
            let next = 1 - PRESENT.load(Ordering::Relaxed);
            if turn.is_multiple_of(3) { domain.synchronize_expedited(cx) } else { domain.synchronize(cx) }
            SLOTS[next as usize].fetch_add(1, Ordering::AcqRel);
            PRESENT.store(next, Ordering::Release);
            // Readers have their turn, on one CPU too.
            cx.sleep_ns(MS);
            if let Some(cpu) = other.filter(|_| turn.is_multiple_of(4)) {
                let change = if turn.is_multiple_of(8) { hotplug::take_offline } else { hotplug::bring_online };
                check_eq!(change(cpu, cx), Ok(()));
            }
        }
        STOP.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join(cx));
        check_eq!(BAD.load(Ordering::Relaxed), 0);
        check!(READS.load(Ordering::Relaxed) > 40);
        Ok(())
    }
}
