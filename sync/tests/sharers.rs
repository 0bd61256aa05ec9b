//! Who may share data with whom under which lock: derived from what the flavours do, and compared with the table in the
//! documentation.
#![cfg(not(any(loom, shuttle)))]

use hal::context::Context;
use hal::{Native, Platform, hosted};
use sync::lockdep::Level;
use sync::{BottomHalf, Flavor, Irq, Task};

/// Who wants the data, from the least to the most urgent. Each interrupts those before it.
const CONTEXTS: [(&str, Option<Level>); 4] = [
    ("tasks", Some(Level::Task)),
    ("softirqs", Some(Level::Softirq)),
    ("hardware interrupts", Some(Level::Hardirq)),
    ("NMIs", None),
];

/// What a flavour keeps from running on the CPU that holds a lock of it, as seen in the CPU's state.
struct Off {
    tasks: bool,
    softirqs: bool,
    interrupts: bool,
}

fn off<F: Flavor<Platform = Native>>() -> Off {
    F::enter();
    let (context, depth): (Context, u32) = (Native::context(), Native::irq_depth());
    // SAFETY: entered just above, and no lock is held.
    unsafe { F::exit() };
    assert_eq!((Native::context().count(), Native::irq_depth()), (0, 0));
    Off {
        // The scheduler acts only if the word is 0 and interrupts are on; softirqs are served only outside of sections
        // without bottom halves and with interrupts on.
        tasks: context.count() != 0 || depth != 0,
        softirqs: context.in_softirq() || depth != 0,
        interrupts: depth != 0,
    }
}

struct Lock {
    name: &'static str,
    level: Level,
    off: Off,
}

fn lock<F: Flavor<Platform = Native>>(name: &'static str) -> Lock {
    Lock { name, level: F::LEVEL, off: off::<F>() }
}

impl Lock {
    /// Whether code of the context may take the lock at all.
    fn may_take(&self, level: Option<Level>) -> bool {
        level.is_some_and(|level| level <= self.level)
    }

    /// Whether the lock is right if `least` and `most` urgent code share the data: both may take it, and whatever
    /// could interrupt a holder on its CPU and want the lock too is switched off.
    fn suits(&self, least: usize, most: usize) -> bool {
        self.may_take(CONTEXTS[most].1)
            && self.may_take(CONTEXTS[least].1)
            && (0..=most).all(|other| match other {
                0 => self.off.tasks,
                1 => self.off.softirqs || other < least,
                2 => self.off.interrupts || other < least,
                _ => false,
            })
    }

    fn switches_off(&self) -> &'static str {
        match self.off {
            Off { interrupts: true, .. } => "interrupts are off on this CPU",
            Off { softirqs: true, .. } => "bottom halves are off on this CPU",
            Off { tasks: true, .. } => "the task is not preempted",
            _ => "nothing",
        }
    }
}

/// What is left where nothing can be switched off.
const WITHOUT_A_WAIT: &str = "[`try_lock`](SpinLock::try_lock) in the NMI, or no lock: a [`Latch`](crate::Latch), \
                              an [`LList`](crate::llist::LList)";

/// The table, as the documentation has it.
fn table() -> String {
    // From the one that switches off the least.
    let locks = [lock::<Task>("SpinLock"), lock::<BottomHalf>("BhSpinLock"), lock::<Irq>("IrqSpinLock")];
    let mut text = String::from("| shared by ... | ... and | lock | while it is held |\n|---|---|---|---|\n");
    for (least, (first, ..)) in CONTEXTS.iter().enumerate() {
        for (most, (second, ..)) in CONTEXTS.iter().enumerate().skip(least) {
            let found = locks.iter().find(|lock| lock.suits(least, most));
            let (name, off) = match found {
                Some(lock) => (format!("[`{0}`](crate::{0})", lock.name), lock.switches_off()),
                None => (WITHOUT_A_WAIT.to_string(), ""),
            };
            text.push_str(&format!("| {first} | {second} | {name} | {off} |\n"));
        }
    }
    text
}

#[test]
fn the_documentation_has_the_table_that_follows_from_the_flavours() {
    let _cpu = hosted::bind().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spin/sharers.md");
    let table = table();
    if std::env::var_os("UPDATE_TABLES").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(include_str!("../src/spin/sharers.md"), table, "write it anew with UPDATE_TABLES=1");
}

#[test]
fn each_lock_suits_the_contexts_that_it_is_named_for_and_no_more_urgent_ones() {
    let _cpu = hosted::bind().unwrap();
    let (task, bh, irq) = (lock::<Task>("task"), lock::<BottomHalf>("bh"), lock::<Irq>("irq"));
    let suits = |lock: &Lock| {
        (0..4)
            .flat_map(|least| (least..4).map(move |most| (least, most)))
            .filter(|(l, m)| lock.suits(*l, *m))
            .collect::<Vec<_>>()
    };
    assert_eq!(suits(&task), [(0, 0)]);
    assert_eq!(suits(&bh), [(0, 0), (0, 1), (1, 1)]);
    assert_eq!(suits(&irq), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]);
}
