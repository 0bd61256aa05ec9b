//! The table of guests to boot: the kernel's own tests on each machine, and what only a host can see.
//!
//! A guest cannot test how it crashes, what it does with broken firmware, or whether two boots are alike. Those are
//! [`Case`]s with an [`Expectation`]; add one by adding a line to a table below.

use super::acpi::Lie;
use crate::qemu::{Machine, Time};

/// Filter for the kernel tests that are run where booting is the point.
const SMOKE: &str = "test=smoke";
/// Shift and seed of the counted boots.
const SHIFT: u8 = 3;

/// One guest to boot, or a few that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) machine: Machine,
    pub(super) cpus: u32,
    /// Memory in MiB; `None` for the default.
    pub(super) memory: Option<u64>,
    pub(super) firmware: Firmware,
    pub(super) time: Time,
    /// Words for the kernel's command line.
    pub(super) words: String,
    pub(super) expect: Expectation,
}

impl Case {
    /// Whether this is one of [`tests_on`], which differ in machine and CPU count only.
    pub(super) fn is_grid(&self) -> bool {
        self.name == grid_name(self.machine, self.cpus)
    }

    /// How many of the host's cores it keeps busy.
    pub(super) fn cores(&self) -> usize {
        let is_short = matches!(self.expect, Expectation::Crash { .. });
        // Counted CPUs take turns on one thread, and a kernel without true tables runs a single CPU.
        if self.time != Time::Real || self.firmware != Firmware::Acpi || is_short {
            1
        } else {
            self.cpus as usize
        }
    }

    /// Whether what boots is the kernel of `examples/other-kernel`.
    pub(super) fn is_other_kernel(&self) -> bool {
        matches!(self.expect, Expectation::OtherKernel { .. })
    }
}

fn grid_name(machine: Machine, cpus: u32) -> String {
    format!("{machine}-{cpus}cpu")
}

/// What the guest gets to read about its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firmware {
    /// QEMU's own tables.
    Acpi,
    /// No ACPI.
    None,
    /// Our tables, with something wrong.
    Lying(Lie),
}

/// When a case has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// The kernel's tests ran and passed, and these texts were printed.
    Tests { says: &'static [&'static str] },
    /// The kernel stopped with exit code "failure" after it printed these texts, in any order, and exactly one report.
    Crash { says: &'static [&'static str] },
    /// The kernel of `examples/other-kernel` ended with exit code "success" after it printed these texts.
    OtherKernel { says: &'static [&'static str] },
    /// Two boots with one seed print the same `IRQHASH`, a third with another seed does not.
    SameHash,
}

/// The kernel's tests on one machine; `filter` may be empty.
pub(super) fn tests_on(machine: Machine, cpus: u32, filter: &str) -> Case {
    let words = if filter.is_empty() { "test".to_owned() } else { format!("test={filter}") };
    Case {
        name: grid_name(machine, cpus),
        words,
        expect: Expectation::Tests { says: &[] },
        ..plain(machine, cpus)
    }
}

/// Everything that the host drives.
pub(super) fn host_driven() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(boots());
    cases.extend(liars());
    cases.extend(CRASHES.iter().map(|&(kind, cpus, says)| Case {
        name: format!("crash-{kind}"),
        words: format!("crash={kind}"),
        expect: Expectation::Crash { says },
        ..plain(Machine::Q35, cpus)
    }));
    cases.push(Case {
        name: "other-kernel".to_owned(),
        expect: Expectation::OtherKernel { says: &["other-kernel: 2 CPUs, ", " acquisitions, ", ": ok"] },
        ..plain(Machine::Q35, 2)
    });
    // What needs more memory than the other guests have.
    cases.push(Case {
        name: "ten-thousand-tasks".to_owned(),
        memory: Some(512),
        words: "test=ten_thousand_tasks".to_owned(),
        expect: Expectation::Tests { says: &["10000 tasks at once"] },
        ..plain(Machine::Q35, 4)
    });
    cases.push(Case {
        name: "determinism".to_owned(),
        time: Time::Counted { shift: SHIFT },
        expect: Expectation::SameHash,
        ..plain(Machine::Q35, 4)
    });
    cases
}

fn plain(machine: Machine, cpus: u32) -> Case {
    Case {
        name: String::new(),
        machine,
        cpus,
        memory: None,
        firmware: Firmware::Acpi,
        time: Time::Real,
        words: String::new(),
        expect: Expectation::Tests { says: &[] },
    }
}

/// Boots where the machine is the point.
fn boots() -> [Case; 11] {
    let smoke = |name: &str, machine, cpus| Case {
        name: format!("boot-{name}"),
        words: SMOKE.to_owned(),
        ..plain(machine, cpus)
    };
    [
        smoke("16-cpus", Machine::Q35, 16),
        smoke("64-cpus", Machine::Q35, 64),
        Case { memory: Some(16), ..smoke("16-mib", Machine::Q35, 2) },
        Case { memory: Some(16), ..smoke("16-mib-microvm", Machine::Microvm, 2) },
        Case {
            time: Time::Counted { shift: SHIFT },
            // Busy CPUs tick: QEMU goes from one CPU to the next when a timer is due.
            words: "test seed=1 tick=idle".to_owned(),
            ..smoke("icount", Machine::Q35, 4)
        },
        Case {
            time: Time::Counted { shift: SHIFT },
            words: "test=virtual_minutes seed=1".to_owned(),
            expect: Expectation::Tests { says: &["timer interrupts in five minutes"] },
            ..smoke("virtual-minutes", Machine::Q35, 4)
        },
        Case {
            words: "test=clock notsc".to_owned(),
            expect: Expectation::Tests { says: &["the TSC is not to be used; the clock is now the HPET"] },
            ..smoke("without-tsc", Machine::Q35, 4)
        },
        Case { words: "test=smoke preempt=none".to_owned(), ..smoke("preempt-none", Machine::Q35, 4) },
        Case {
            words: "test=smoke preempt=voluntary".to_owned(),
            ..smoke("preempt-voluntary", Machine::Q35, 2)
        },
        // Grace periods of readers that nothing replaces.
        Case { words: "test=rcu:: preempt=none".to_owned(), ..smoke("preempt-none-rcu", Machine::Q35, 4) },
        Case {
            firmware: Firmware::None,
            expect: Expectation::Tests { says: &["no ACPI", "running on one CPU"] },
            ..smoke("no-acpi", Machine::Microvm, 2)
        },
    ]
}

/// Boots with ACPI tables of our own: a kernel that does not trust them says so and runs one CPU.
fn liars() -> Vec<Case> {
    const LIES: [(&str, Lie, &[&str]); 8] = [
        ("honest", Lie::None, &["all 4 CPUs online"]),
        ("checksum", Lie::Checksum, &["APIC", "checksum", "running on one CPU"]),
        (
            "length-long",
            Lie::LengthTooLong,
            &["APIC", "impossible length of 4294967280", "running on one CPU"],
        ),
        ("length-short", Lie::LengthTooShort, &["APIC", "impossible length of 8", "running on one CPU"]),
        (
            "entry-of-no-length",
            Lie::EntryOfNoLength,
            &["APIC", "impossible length of 0", "running on one CPU"],
        ),
        ("entry-too-long", Lie::EntryTooLong, &["APIC", "impossible length of 200", "running on one CPU"]),
        (
            "ghosts",
            Lie::Ghosts,
            &[
                "this build runs at most 512 CPUs; 96 more stay parked",
                "CPUs 8-511 have APIC ids that an xAPIC cannot reach",
                "CPUs 4-7 did not answer their start-up in time",
                "all 4 CPUs online",
            ],
        ),
        ("root-pointer", Lie::RootPointer, &["0xfffffff8", "running on one CPU"]),
    ];
    let case = |(name, lie, says): (&str, Lie, &'static [&'static str])| Case {
        name: format!("acpi-{name}"),
        firmware: Firmware::Lying(lie),
        // With processors that are not there, the tests that count them cannot hold.
        words: if lie == Lie::Ghosts { "test=percpu::smoke" } else { SMOKE }.to_owned(),
        expect: Expectation::Tests { says },
        ..plain(Machine::Q35, 4)
    };
    LIES.into_iter().map(case).collect()
}

/// A kind of crash, the number of CPUs, and what the report must say.
type Crash = (&'static str, u32, &'static [&'static str]);

const CRASHES: &[Crash] = &[
    ("panic", 2, &["BUG: CPU#", "panicked at", "crash requested", "backtrace of CPU#0", "CPU#1:"]),
    ("null-read", 2, &["null pointer read", "backtrace of CPU#"]),
    ("null-write", 2, &["null pointer write", "backtrace of CPU#"]),
    ("null-exec", 2, &["null pointer execution", "backtrace of CPU#"]),
    ("stack-overflow", 2, &["stack overflow", "backtrace of CPU#"]),
    ("task-stack-overflow", 2, &["stack overflow: task", "'s stack, at", "in task", "`deep`"]),
    ("sleep-in-atomic", 2, &["scheduling while atomic: task", "`main`", "backtrace of CPU#"]),
    (
        "synchronize-in-reader",
        2,
        &[
            "Illegal synchronize in RCU read-side critical section (domain kernel) at kernel/src/crash.rs",
            "backtrace of CPU#",
        ],
    ),
    (
        "synchronize-bh-off",
        2,
        &[
            "Illegal synchronize with bottom halves off (domain kernel) at kernel/src/crash.rs",
            "backtrace of CPU#",
        ],
    ),
    (
        "synchronize-preempt-off",
        2,
        &[
            "Illegal synchronize with preemption off (domain kernel) at kernel/src/crash.rs",
            "backtrace of CPU#",
        ],
    ),
    (
        "expedite-in-reader",
        2,
        &[
            "Illegal synchronize_expedited in RCU read-side critical section (domain kernel) at kernel/src/crash.rs",
            "backtrace of CPU#",
        ],
    ),
    (
        "barrier-in-reader",
        2,
        &[
            "Illegal barrier in RCU read-side critical section (domain kernel) at kernel/src/crash.rs",
            "backtrace of CPU#",
        ],
    ),
    ("irq-stack-overflow", 2, &["stack overflow", "backtrace of CPU#"]),
    ("exec-data", 2, &["execution of", "which is not code", "backtrace of CPU#"]),
    ("write-text", 2, &["write to", "which is read-only", "backtrace of CPU#"]),
    ("write-rodata", 2, &["write to", "which is read-only", "backtrace of CPU#"]),
    ("divide", 2, &["divide error", "backtrace of CPU#"]),
    ("invalid-opcode", 2, &["invalid opcode", "backtrace of CPU#"]),
    ("gpf", 2, &["general protection fault", "backtrace of CPU#"]),
    (
        "double-panic",
        3,
        &[
            "BUG: CPU#0: panicked",
            "CPU 0 panics with all others",
            "CPU#1 came second: panicked",
            "CPU#2 came second: panicked",
        ],
    ),
    ("panic-in-nmi", 2, &["crash requested in an NMI", "backtrace of CPU#"]),
    ("panic-with-console-busy", 2, &["crash requested while printing", "backtrace of CPU#"]),
    (
        "nested-vectors",
        2,
        &[
            "BUG: a vector section inside of another one; pass the outer one's guard on at kernel/src/crash.rs:",
            "backtrace of CPU#",
        ],
    ),
    (
        "failing-test",
        2,
        &[
            "TEST start crash::fails",
            "the end of the trace:",
            "mark 0xfa11",
            "TEST fail crash::fails: as was asked for",
        ],
    ),
    ("hang", 2, &["exceeded its time limit", "backtrace of CPU#", "CPU#0", "CPU#1", "the end of the trace:"]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_for_files() {
        let mut cases = host_driven();
        for machine in [Machine::Q35, Machine::Pc, Machine::Microvm] {
            cases.extend([1, 2, 64].map(|cpus| tests_on(machine, cpus, "")));
        }
        let names: BTreeSet<_> = cases.iter().map(|case| case.name.clone()).collect();
        assert_eq!(names.len(), cases.len());
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')));
    }

    #[test]
    fn every_crash_must_say_something_of_its_own() {
        assert!(CRASHES.iter().all(|(_, _, says)| says.iter().any(|text| !text.starts_with("backtrace"))));
    }
}
