//! `locks`: which locks are waited for, and how long they are held.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt::{self, Write};

use crate::console::machine::{LockClass, Locks, Machine};
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};

pub(super) static LOCKS: Command = Command {
    name: "locks",
    usage: "[N | all | wait | hold | top [SECONDS] | on | off | reset]",
    help: "shows which locks are waited for and held, and how long\n\
           Locks that one place makes are a class; the ten that were found taken most often are shown, or N, or `all`.\n\
           `wait` puts those first that were waited for longest altogether, `hold` those with the longest hold.\n\
           `top` shows again and again what happened in the last SECONDS (1 if not said otherwise); any key ends it.\n\
           How long locks are held is measured after `locks on`, and costs two looks at the clock for each hold.\n\
           `reset` forgets all figures.",
    complete: |_, before| match before {
        [] => ["all", "hold", "off", "on", "reset", "top", "wait"].map(String::from).to_vec(),
        _ => Vec::new(),
    },
    run: locks,
};

/// Classes shown if nothing else is said, and on a screen.
const SHOWN: usize = 10;
const SHOWN_ON_A_SCREEN: usize = 20;
/// The longest that `locks top` waits between two tables, in seconds.
const MOST_SECONDS: u64 = 3600;

/// What comes first.
#[derive(Clone, Copy)]
enum Order {
    Contended,
    Waited,
    LongestHold,
}

impl Order {
    fn rank(self, class: &LockClass) -> (u64, u64) {
        match self {
            Order::Contended => (class.contended, class.waited_ns),
            Order::Waited => (class.waited_ns, class.contended),
            Order::LongestHold => (class.longest_hold_ns, class.held_ns),
        }
    }
}

fn locks(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    let now = count(cx.machine)?;
    let (shown, order) = match arguments {
        [] => (SHOWN, Order::Contended),
        ["top", rest @ ..] => return top(cx, rest),
        [_, ..] if arguments.len() > 1 => return at_most(arguments, 1),
        ["all"] => (usize::MAX, Order::Contended),
        ["wait"] => (SHOWN, Order::Waited),
        ["hold"] => (SHOWN, Order::LongestHold),
        ["on" | "off"] => {
            cx.machine.set_lock_timing(arguments == ["on"]);
            writeln!(cx.out, "holds of locks are {}measured", if arguments == ["on"] { "" } else { "not " })?;
            return Ok(());
        }
        ["reset"] => {
            cx.machine.reset_locks();
            writeln!(cx.out, "figures begin again")?;
            return Ok(());
        }
        [word, ..] => match word.parse() {
            Ok(number) => (number, Order::Contended),
            Err(_) => {
                return Err(Failure::Usage(alloc::format!(
                    "`{word}` is not a number, `all`, `wait`, `hold`, `top`, `on`, `off` or `reset`"
                )));
            }
        },
    };
    Ok(write_locks(cx.out, &now, shown, order)?)
}

fn count(machine: &dyn Machine) -> Result<Locks, Failure> {
    machine.locks().ok_or_else(|| {
        Failure::Failed(String::from(
            "this kernel does not count; debug builds do (`cargo xtask run --debug`), and the feature `lockdep`, unless booted \
             with lockdep=off",
        ))
    })
}

/// What happened again and again.
fn top(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let seconds = match arguments.first() {
        None => 1,
        Some(word) => match word.parse() {
            Ok(number @ 1..=MOST_SECONDS) => number,
            _ => {
                let why = alloc::format!("`{word}` is not a number of seconds, 1 to {MOST_SECONDS}");
                return Err(Failure::Usage(why));
            }
        },
    };
    let interval = seconds * 1_000_000_000;
    let mut before = count(cx.machine)?;
    if !cx.interactive {
        cx.machine.pause(interval, false, cx.task);
        let between = difference(&before, count(cx.machine)?);
        return Ok(write_locks(cx.out, &between, SHOWN_ON_A_SCREEN, Order::Contended)?);
    }
    // Clears the screen.
    write!(cx.out, "\x1b[2J")?;
    while !cx.machine.pause(interval, true, cx.task) {
        let now = count(cx.machine)?;
        let mut table = String::from("\x1b[H");
        write_locks(&mut table, &difference(&before, now.clone()), SHOWN_ON_A_SCREEN, Order::Contended)?;
        write!(cx.out, "{}", table.replace('\n', "\x1b[K\n"))?;
        writeln!(cx.out, "any key ends this\x1b[K\x1b[J")?;
        before = now;
    }
    Ok(())
}

/// What was added since. The longest ones are those of all the time.
fn difference(before: &Locks, mut now: Locks) -> Locks {
    for (class, before) in now.classes.iter_mut().zip(&before.classes) {
        class.contended = class.contended.saturating_sub(before.contended);
        class.waited_ns = class.waited_ns.saturating_sub(before.waited_ns);
        class.holds = class.holds.saturating_sub(before.holds);
        class.held_ns = class.held_ns.saturating_sub(before.held_ns);
    }
    now
}

/// Nanoseconds in microseconds with one digit.
struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&alloc::format!("{}.{}", self.0 / 1_000, self.0 % 1_000 / 100))
    }
}

fn write_locks(out: &mut dyn Write, locks: &Locks, shown: usize, order: Order) -> fmt::Result {
    let mut classes: Vec<&LockClass> =
        locks.classes.iter().filter(|class| class.contended != 0 || class.holds != 0).collect();
    classes.sort_by_key(|class| Reverse(order.rank(class)));
    let what = if locks.timing { "" } else { "; holds are not measured (`locks on`)" };
    let (busy, known) = (classes.len(), locks.classes.len());
    writeln!(out, "{busy} of {known} classes were waited for or measured; times in us{what}")?;
    writeln!(
        out,
        "{:>9} {:>11} {:>9} {:>10} {:>11} {:>9}  LOCK",
        "CONTENDED", "WAITED", "LONGEST", "HOLDS", "HELD", "LONGEST"
    )?;
    for class in classes.iter().take(shown) {
        let (waited, longest_wait) = (Micros(class.waited_ns), Micros(class.longest_wait_ns));
        let (held, longest_hold) = (Micros(class.held_ns), Micros(class.longest_hold_ns));
        let LockClass { name, contended, holds, .. } = class;
        writeln!(
            out,
            "{contended:>9} {waited:>11} {longest_wait:>9} {holds:>10} {held:>11} {longest_hold:>9}  {name}"
        )?;
        if let Some(at) = &class.longest_wait_at {
            writeln!(out, "{:>64}  longest wait at {at}", "")?;
        }
        if let Some(at) = &class.longest_hold_at {
            writeln!(out, "{:>64}  longest hold at {at}", "")?;
        }
    }
    match classes.len().saturating_sub(shown) {
        0 => Ok(()),
        more => writeln!(out, "and {more} more; `locks all` shows them"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, contended: u64, waited_us: u64, longest_hold_us: u64) -> LockClass {
        LockClass {
            name: name.into(),
            contended,
            waited_ns: waited_us * 1_000,
            longest_wait_ns: waited_us * 500,
            longest_wait_at: (contended != 0).then(|| format!("{name}.rs:1:2")),
            holds: 10,
            held_ns: longest_hold_us * 2_000,
            longest_hold_ns: longest_hold_us * 1_000,
            longest_hold_at: Some(format!("{name}.rs:3:4")),
        }
    }

    fn names(locks: &Locks, shown: usize, order: Order) -> Vec<String> {
        let mut out = String::new();
        write_locks(&mut out, locks, shown, order).unwrap();
        assert!(out.lines().all(|line| line.chars().count() < 110), "{out}");
        let named = |line: &&str| {
            line.trim_start().starts_with(|c: char| c.is_ascii_digit()) && !line.contains("classes")
        };
        out.lines().filter(named).map(|line| line.rsplit(' ').next().unwrap().into()).collect()
    }

    #[test]
    fn the_order_is_the_one_asked_for() {
        let idle = LockClass { name: "idle".into(), ..LockClass::default() };
        let classes = vec![class("a", 5, 900, 1), idle, class("b", 7, 100, 2), class("c", 0, 0, 9)];
        let locks = Locks { timing: true, classes };
        assert_eq!(names(&locks, 9, Order::Contended), ["b", "a", "c"]);
        assert_eq!(names(&locks, 9, Order::Waited), ["a", "b", "c"]);
        assert_eq!(names(&locks, 2, Order::LongestHold), ["c", "b"]);
    }

    #[test]
    fn a_table_says_who_and_where() {
        let locks = Locks { timing: false, classes: vec![class("a", 5, 900, 12), class("b", 1, 1, 1)] };
        let mut out = String::new();
        write_locks(&mut out, &locks, 1, Order::Contended).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(
            lines[0],
            "2 of 2 classes were waited for or measured; times in us; holds are not measured (`locks on`)"
        );
        assert_eq!(lines[2], "        5       900.0     450.0         10        24.0      12.0  a");
        assert!(
            lines[3].ends_with("longest wait at a.rs:1:2") && lines[4].ends_with("longest hold at a.rs:3:4")
        );
        assert_eq!(lines[5], "and 1 more; `locks all` shows them");
    }

    #[test]
    fn a_difference_leaves_the_longest_alone() {
        let before = Locks { timing: true, classes: vec![class("a", 5, 900, 12)] };
        let now = Locks { timing: true, classes: vec![class("a", 8, 1000, 13), class("b", 1, 1, 1)] };
        let between = difference(&before, now);
        let a = &between.classes[0];
        assert_eq!((a.contended, a.waited_ns, a.held_ns, a.longest_hold_ns), (3, 100_000, 2_000, 13_000));
        assert_eq!(between.classes[1].contended, 1);
    }
}
