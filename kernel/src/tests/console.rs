//! The console on the machine: what only a person sees otherwise.

use core::fmt;

use alloc::string::String;
use sync::TaskCx;

use crate::console::commands::ALL;
use crate::console::registry::Context;
use crate::this_machine::ThisMachine;
use crate::{check, check_eq, kernel_test, serial};
#[cfg(not(feature = "rcu-tiny"))]
use crate::{cpus, rcu, sched, skip, testing::expect_report};

/// A terminal whose person presses a key when it has shown a number of tables.
pub(super) struct Watched {
    pub(super) text: String,
    tables: usize,
}

impl fmt::Write for Watched {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        let before = self.tables;
        self.tables = self.text.matches("\x1b[H").count();
        if before < 3 && self.tables >= 3 {
            serial::pretend_to_receive(b'q');
        }
        Ok(())
    }
}

pub(super) fn run(command: &str, interactive: bool, task: &mut TaskCx) -> (Watched, bool) {
    let mut out = Watched { text: String::new(), tables: 0 };
    let good = ALL.run(
        command,
        &mut Context { out: &mut out, task, machine: &ThisMachine, success: true, interactive },
    );
    (out, good)
}

kernel_test! {
    task,
    fn top_is_shown_again_and_again_until_a_key(cx) {
        let (out, good) = run("top 1", true, cx);
        check!(good, "{}", out.text);
        check_eq!(out.tables, 3);
        // The first table comes soon, the others after a second each; the test's own task is in each of them.
        let tables = || out.text.split("\x1b[H").skip(1);
        check_eq!(tables().filter(|table| table.contains("any key ends this")).count(), 3);
        check!(tables().all(|table| table.contains("running")), "{}", out.text);
        // The key was taken.
        check!(!serial::has_input());
        let (out, good) = run("top --once 1", true, cx);
        check!(good && !out.text.contains('\x1b'), "{}", out.text);
        Ok(())
    }
}

kernel_test! {
    task,
    fn work_says_where_items_of_each_queue_run(cx) {
        let (out, good) = run("work", false, cx);
        check!(good && out.text.contains(" system (each CPU)") && out.text.contains(" unbound (any CPU)"), "{}", out.text);
        Ok(())
    }
}

kernel_test! {
    task,
    fn rcu_waits_and_shows_how_things_stand(cx) {
        for (command, answer) in [
            ("rcu sync", "a grace period: "),
            ("rcu sync 3", "a grace period, 3 times: median "),
            ("rcu expedite 2", "an expedited grace period, 2 times: median "),
            ("rcu barrier", "a barrier: "),
            #[cfg(not(feature = "rcu-tiny"))]
            ("rcu offload 0 on", "callbacks of CPU 0 are called by a task\n"),
            #[cfg(not(feature = "rcu-tiny"))]
            ("rcu offload 0 off", "callbacks of CPU 0 are called by the CPU\n"),
        ] {
            let (out, good) = run(command, false, cx);
            check!(good && out.text.starts_with(answer), "{command}: {}", out.text);
        }
        let (out, good) = run("rcu", false, cx);
        check!(good && out.text.contains("readers "), "{}", out.text);
        // A row for each node and each CPU, and a headline each.
        #[cfg(not(feature = "rcu-tiny"))]
        {
            let shape = *rcu::tree().geometry();
            let rows = out.text.lines().skip_while(|line| !line.starts_with("NODE")).count();
            check_eq!(rows, 2 + shape.nodes() + shape.cpus() as usize);
        }
        let (out, good) = run("rcu offload 4096 on", false, cx);
        check!(!good && out.text.contains("`4096` is no CPU"), "{}", out.text);
        Ok(())
    }
}

#[cfg(not(feature = "rcu-tiny"))]
kernel_test! {
    task,
    fn rcu_stall_has_a_reader_reported_and_leaves_nothing(cx) {
        let alone = cpus::online_count() == 1 && sched::preemption() != sched::Preemption::Full;
        if alone || !rcu::PREEMPTIBLE {
            skip!("the reader may keep those from running who would report it");
        }
        expect_report("WARNING: rcu:");
        let (limit, reports) = (rcu::tree().stall_ns(), rcu::stalls());
        let (out, good) = run("rcu stall", false, cx);
        check!(good && out.text.contains("and the grace period has ended"), "{}", out.text);
        check!(rcu::stalls() > reports);
        check_eq!(rcu::tree().stall_ns(), limit);
        Ok(())
    }
}

kernel_test! {
    task,
    fn the_demo_of_timers_finds_what_it_shows(cx) {
        let (out, good) = run("demo timers", false, cx);
        check!(good, "{}", out.text);
        check!(out.text.contains("touched after being freed: 10000 times by the caller,"), "{}", out.text);
        check!(out.text.contains("touched after being freed: 0 times by the caller, 0 by deleters\n"), "{}", out.text);
        check!(out.text.contains("`timer::after`: 100 of 100 called, 100 freed, 0 touched after that\n"), "{}", out.text);
        Ok(())
    }
}

kernel_test! {
    task,
    fn demos_of_rcu_find_what_they_show(cx) {
        let (out, good) = run("demo rcu", false, cx);
        check!(good, "{}", out.text);
        check!(out.text.contains("freed after a grace period: 0 of 8 were read after that, 8 freed\n"), "{}", out.text);
        let (out, good) = run("demo lists", false, cx);
        check!(good && out.text.contains("freed objects that were met: 0;"), "{}", out.text);
        Ok(())
    }
}
