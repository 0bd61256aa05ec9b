//! The log where it is hardest: in an NMI, while the terminal is taken, from all CPUs at once.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use hal::x86_64::apic;
use hal::{Native, Platform};

use crate::testing::nmi;
use crate::{check, check_eq, cpus, kernel_test, log, services};

/// The lines of the log that contain `word`, without what stands before it.
fn lines_with(word: &str) -> Vec<String> {
    log::history().lines().filter_map(|line| line.find(word).map(|at| String::from(&line[at..]))).collect()
}

kernel_test! {
    fn messages_from_an_nmi_arrive() {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        RUNS.store(0, Ordering::Relaxed);
        nmi::set_hook(Some(|_| {
            ::log::info!("nmi-message {}", RUNS.load(Ordering::Relaxed));
            RUNS.fetch_add(1, Ordering::Relaxed);
        }));
        let patience = Native::now_ns() + 2_000_000_000;
        // In the middle of the terminal's use, too: nothing may be waited for.
        log::with_drain_held(&mut || {
            apic::send_nmi_to_cpu(Native::cpu());
            while RUNS.load(Ordering::Relaxed) == 0 && Native::now_ns() < patience {
                Native::relax();
            }
        });
        nmi::set_hook(None);
        check_eq!(RUNS.load(Ordering::Relaxed), 1);
        check_eq!(lines_with("nmi-message "), ["nmi-message 0"]);
        Ok(())
    }
}

kernel_test! {
    fn a_message_is_no_preemption_point() {
        // An interrupt in between may serve it, but not each time.
        for _ in 0..1_000 {
            Native::set_need_resched(Native::cpu());
            ::log::info!("with a reschedule due");
            let still_due = Native::context().resched_due();
            // The preemption point that serves it.
            drop(sync::preempt::disable());
            if still_due {
                return Ok(());
            }
        }
        check!(false, "logging rescheduled a thousand times");
        Ok(())
    }
}

kernel_test! {
    fn lines_of_all_cpus_are_whole_and_in_order() {
        let count = cpus::online_count();
        let each = (256 / count).max(2);
        services::run_on_all(&|cpu| {
            for number in 0..each {
                ::log::info!("whole-line cpu {cpu} number {number} {:=<width$}|", "", width = number % 30);
            }
        });
        let lines = lines_with("whole-line ");
        let mut next = alloc::vec![0; hal::MAX_CPUS];
        for line in &lines {
            let mut words = line.split(' ');
            let (cpu, number) = (words.nth(2), words.nth(1));
            let (Some(cpu), Some(number)) = (cpu.and_then(|w| w.parse().ok()), number.and_then(|w| w.parse().ok())) else {
                return Err(crate::testing::Verdict::Failed(alloc::format!("a torn line: {line}")));
            };
            let (cpu, number): (usize, usize) = (cpu, number);
            let expected = alloc::format!("whole-line cpu {cpu} number {number} {:=<width$}|", "", width = number % 30);
            check!(*line == expected, "a torn line: {line}");
            check!(number >= next[cpu], "CPU {cpu}: {number} after {}", next[cpu]);
            next[cpu] = number + 1;
        }
        let lost: usize = lines_with_lost();
        check!(lines.len() + lost >= each * count, "{} shown, {lost} counted as lost, of {}", lines.len(), each * count);
        check!(!lines.is_empty());
        Ok(())
    }
}

/// How many messages the log says were lost, in all that is kept of it.
fn lines_with_lost() -> usize {
    log::history()
        .lines()
        .filter_map(|line| {
            line.split_once(" log: ")?.1.split_once(" earlier messages were lost")?.0.parse::<usize>().ok()
        })
        .sum()
}
