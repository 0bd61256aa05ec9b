//! The console's commands about tasks, CPUs and the trace, on the machine that they are about.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use hal::{CpuId, Native, Platform};
use sync::TaskCx;
use sync::softirq::{Running, Tasklet};

use super::console;
use crate::sched::{self, Preemption, policy::Policy};
use crate::task::{self, State};
use crate::testing::comes_true;
use crate::{check, check_eq, cpus, kernel_test, skip, trace};

/// What a command prints, and whether it succeeded.
fn run(command: &str, cx: &mut TaskCx) -> (String, bool) {
    let (out, good) = console::run(command, false, cx);
    (out.text, good)
}

/// Ends the test.
macro_rules! fail {
    ($($why:tt)+) => {
        return Err(crate::testing::failed(format_args!($($why)+)))
    };
}

/// What a command that succeeds prints.
macro_rules! said {
    ($cx:expr, $($command:tt)+) => {{
        let command = alloc::format!($($command)+);
        let (text, good) = run(&command, $cx);
        check!(good, "{command}: {text}");
        text
    }};
}

#[cfg(any(feature = "lockdep", debug_assertions))]
kernel_test! {
    task,
    fn locks_that_were_waited_for_are_listed_by_class(cx) {
        static WANTED: sync::Mutex<u32> = sync::Mutex::new(0);
        said!(cx, "locks reset");
        let held = WANTED.lock(cx);
        let waiter = task::spawn("waiter", |cx| *WANTED.lock(cx) += 1);
        let Ok(waiter) = waiter else { skip!("no memory") };
        check!(crate::testing::comes_true_by_others(|| waiter.task().state() == State::Blocked));
        drop(held);
        waiter.join(cx);
        let text = said!(cx, "locks wait");
        let row = text.lines().find(|line| line.contains("kernel/src/tests/commands.rs"));
        let Some(row) = row else { fail!("{text}") };
        check!(row.contains(" 1 "), "found taken once: {row}");
        Ok(())
    }
}

/// The row of a table that begins with this number.
fn row(table: &str, number: u32) -> Option<&str> {
    let number = number.to_string();
    table.lines().find(|line| line.split_whitespace().next() == Some(&number))
}

kernel_test! {
    task,
    fn tasks_are_spawned_shown_changed_and_ended(cx) {
        let Some(other) = cpus::online().nth(1) else { skip!("one CPU only, which `spin` would have to itself") };
        let answer = said!(cx, "spawn spin --on {other} --policy 3");
        let number: Option<u32> = answer.split_whitespace().nth(3).and_then(|word| word.trim_end_matches(';').parse().ok());
        let Some(number) = number else { fail!("{answer}") };
        let Some(spin) = task::find(number) else { fail!("no task {number}") };
        check!(comes_true(|| spin.state() == State::Running));
        check_eq!((spin.cpu(), spin.policy()), (other, Policy::fair(3)));

        let table = said!(cx, "ps");
        let shown = row(&table, number).map(|row| row.split_whitespace().collect::<Vec<_>>());
        let Some(shown) = shown else { fail!("{table}") };
        check_eq!(shown[1..5], ["spin", "running", &*other.to_string(), "nice:3"]);
        check!(table.contains("running") && table.contains(" main "), "{table}");
        let table = said!(cx, "sched");
        let running = row(&table, other.as_u32()).map(|row| row.ends_with(&alloc::format!("{number} spin")));
        check!(running == Some(true), "{table}");

        let answer = said!(cx, "nice {number} rr:7");
        check_eq!(answer, alloc::format!("task {number} `spin`: nice:3 -> rr:7\n"));
        check_eq!(spin.policy(), Policy::round_robin(7));

        // It is where it spins, and the CPU that is asked is the one that it has.
        for whom in [alloc::format!("task {number}"), alloc::format!("cpu {other}")] {
            let text = said!(cx, "backtrace {whom}");
            check!(text.contains(&alloc::format!("CPU#{other}:")) && text.contains("  #0  "), "{text}");
        }

        check_eq!(said!(cx, "cancel {number}"), alloc::format!("task {number} `spin` has ended\n"));
        check_eq!(spin.state(), State::Ended);
        let (text, good) = run(&alloc::format!("cancel {number}"), cx);
        check!(!good && (text.contains("there is no task") || text.contains("has ended")), "{text}");
        let (text, good) = run("cancel 1", cx);
        check!(!good && text.contains("task 1 `idle/0` is the kernel's own and stays"), "{text}");
        Ok(())
    }
}

kernel_test! {
    task,
    fn the_mode_of_preemption_is_shown_and_changed(cx) {
        let before = sched::preemption();
        let text = said!(cx, "sched preempt voluntary");
        let during = sched::preemption();
        sched::set_preemption(before);
        check_eq!((&*text, during), ("preemption: voluntary\n", Preemption::Voluntary));
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_cpu_goes_and_comes_back_by_command(cx) {
        let Some(other) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU only") };
        check_eq!(said!(cx, "cpu {other} offline"), alloc::format!("CPU {other} is offline\n"));
        check!(!cpus::online().any(|cpu| cpu == other));
        let table = said!(cx, "sched");
        check!(row(&table, other.as_u32()).is_none(), "{table}");
        check_eq!(said!(cx, "cpu {other} online"), alloc::format!("CPU {other} is online\n"));
        check!(cpus::online().any(|cpu| cpu == other));
        let (text, good) = run("cpu 0 offline", cx);
        check!(!good && text.contains("the boot CPU stays online"), "{text}");
        Ok(())
    }
}

kernel_test! {
    task,
    fn softirqs_that_were_served_are_counted(cx) {
        static TASKLET: Tasklet<fn(&Running<'_>)> = Tasklet::new(|_| ());
        let here = sync::migrate::disable();
        let cpu = Native::cpu().as_u32() as usize;
        let count = |text: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with("tasklet "))?;
            line.split_whitespace().nth(1 + cpu)?.parse::<u64>().ok()
        };
        let before = said!(cx, "softirq");
        crate::softirq::schedule(&TASKLET);
        let after = said!(cx, "softirq");
        drop(here);
        let (Some(before_count), Some(after_count)) = (count(&before), count(&after)) else { fail!("{after}") };
        check!(after_count > before_count, "{before}\n{after}");
        Ok(())
    }
}

kernel_test! {
    task,
    fn the_trace_is_started_shown_and_stopped_by_command(cx) {
        // Tests are traced, in case one fails.
        struct Restart;
        impl Drop for Restart {
            fn drop(&mut self) {
                trace::start();
            }
        }
        let _restart = Restart;
        check_eq!(said!(cx, "trace stop"), "tracing is off\n");
        check_eq!(said!(cx, "trace"), "tracing is off\n");
        check_eq!(said!(cx, "trace start"), "tracing is on\n");
        trace::mark(0x5151_0001);
        cx.sleep_ns(1_000_000);
        trace::mark(0x5151_0002);
        check_eq!(said!(cx, "trace stop"), "tracing is off\n");
        trace::mark(0x5151_0003);
        let text = said!(cx, "trace dump 1000");
        let at = |mark: &str| text.find(mark);
        let (Some(first), Some(second)) = (at("0x51510001"), at("0x51510002")) else { fail!("{text}") };
        check!(first < second && text[first..second].contains("switch "), "{text}");
        check!(at("0x51510003").is_none(), "{text}");
        // As many as were asked for, and how many there are before.
        let text = said!(cx, "trace dump 2");
        check_eq!(text.lines().filter(|line| line.contains("] cpu")).count(), 2);
        check!(text.contains("earlier"), "{text}");
        Ok(())
    }
}
