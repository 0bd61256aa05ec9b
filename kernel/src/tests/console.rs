//! The console on the machine: what only a person sees otherwise.

use core::fmt;

use alloc::string::String;
use sync::TaskCx;

use crate::console::commands::ALL;
use crate::console::registry::Context;
use crate::this_machine::ThisMachine;
use crate::{check, check_eq, kernel_test, serial};

/// A terminal whose person presses a key when it has shown a number of tables.
struct Watched {
    text: String,
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

fn run(command: &str, interactive: bool, task: &mut TaskCx) -> (Watched, bool) {
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
