//! `demo`: what the kernel is about, shown by running it.

mod lists;
mod percpu;
mod rcu;
mod timers;

use alloc::string::String;
use alloc::vec::Vec;

use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};
use crate::console::words::near;

/// Something to look at.
struct Demo {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Context<'_>) -> CommandResult,
}

const DEMOS: &[Demo] = &[
    Demo { name: "percpu", about: "per-CPU counters, raced with and without a guard", run: percpu::run },
    Demo {
        name: "timers",
        about: "timers that free themselves, with the lock in three places",
        run: timers::run,
    },
    Demo {
        name: "rcu",
        about: "freeing what somebody reads: too early, and after a grace period",
        run: rcu::run,
    },
    Demo {
        name: "lists",
        about: "a list that is walked without a lock while things move in it",
        run: lists::run,
    },
];

pub(super) static DEMO: Command = Command {
    name: "demo",
    usage: "[NAME]",
    help: "runs a demonstration; alone lists them",
    complete: |_, before| match before {
        [] => DEMOS.iter().map(|demo| String::from(demo.name)).collect(),
        _ => Vec::new(),
    },
    run: demo,
};

fn demo(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let Some(name) = arguments.first() else {
        DEMOS.iter().try_for_each(|demo| writeln!(cx.out, "  demo {:<12} {}", demo.name, demo.about))?;
        return Ok(());
    };
    match DEMOS.iter().find(|demo| demo.name == *name) {
        Some(demo) => (demo.run)(cx),
        None => {
            let meant = match near(name, DEMOS.iter().map(|demo| demo.name)) {
                near if near.is_empty() => String::new(),
                near => alloc::format!(" did you mean {}?", near.join(" or ")),
            };
            Err(Failure::Usage(alloc::format!(
                "there is no demonstration `{name}`;{meant} `demo` lists them"
            )))
        }
    }
}
