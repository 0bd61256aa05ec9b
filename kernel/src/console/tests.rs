//! The console as a whole, on a machine of threads.

mod rcu;
mod tasks;
mod timers;

use std::sync::Mutex;

use super::machine::*;
use super::registry::*;
use super::*;

/// Two CPUs, and a note of what was done to it.
#[derive(Default)]
struct Made {
    done: Mutex<Vec<String>>,
    world: Mutex<tasks::World>,
    timers: Mutex<timers::World>,
    rcu: Mutex<rcu::World>,
}

impl Made {
    fn note(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }
}

impl Machine for Made {
    fn summary(&self) -> Summary {
        Summary { cpus: 2, memory: 128 << 20, machine: "threads".into() }
    }

    fn cpus(&self) -> Vec<Cpu> {
        let cpu = |number| Cpu {
            number,
            apic_id: Some(number * 2),
            state: "online",
            gs_base: Some(1),
            area: Some(2),
            frequency: None,
            ticks: 3,
            ipis: 4,
        };
        vec![cpu(0), cpu(1)]
    }

    fn memory(&self) -> Memory {
        Memory { total: 1 << 20, map: vec![(0, 4096, "usable")], ..Memory::default() }
    }

    fn interrupts(&self) -> Vec<Interrupt> {
        vec![Interrupt { vector: 32, name: "timer", counts: vec![1, 2] }]
    }

    fn interrupt_digest(&self) -> u64 {
        0xabc
    }

    fn acpi(&self) -> Vec<Fact> {
        vec![("tables", "none".into())]
    }

    fn clock(&self) -> Vec<Fact> {
        vec![("source", "host".into()), ("frequency of it", "1 GHz".into())]
    }

    fn per_cpu(&self) -> PerCpuAreas {
        PerCpuAreas::default()
    }

    fn backtrace(&self, cpu: Option<u32>, out: &mut dyn Write) -> fmt::Result {
        writeln!(out, "backtrace of {cpu:?}")
    }

    fn crashes(&self) -> Vec<(&'static str, &'static str)> {
        vec![("panic", "a panic"), ("null-read", "a null pointer")]
    }

    fn crash(&self, kind: &str) {
        self.note(format!("crash {kind}"));
    }

    fn set_cpu_online(&self, cpu: u32, online: bool, _: &mut TaskCx) -> Result<(), String> {
        match (cpu, online) {
            (0, false) => Err("the boot CPU stays online".into()),
            (1, _) => Ok(()),
            _ => Err(format!("there is no CPU {cpu}")),
        }
    }

    fn on_all_cpus(&self, work: &(dyn Fn(u32) + Sync)) {
        hal::hosted::run_cpus(2, |cpu| work(cpu as u32));
    }

    fn power_off(&self, success: bool) {
        self.note(format!("power off {success}"));
    }

    fn reboot(&self) {
        self.note("reboot".into());
    }
}

/// What the commands of a line print, and whether they went well.
fn run(machine: &Made, line: &str) -> (String, bool) {
    let mut out = String::new();
    let task = &mut token();
    let success =
        ALL.run_line(line, &mut Context { out: &mut out, task, machine, success: true, interactive: false });
    (out, success)
}

/// The right to sleep of the thread that plays the console.
fn token() -> TaskCx {
    // SAFETY: this thread is a task; no command here sleeps by another token.
    unsafe { TaskCx::new() }
}

#[track_caller]
fn prints(line: &str, expected: &str) {
    let (out, success) = run(&Made::default(), line);
    assert!(success && out.contains(expected), "{line}: {out}");
}

#[track_caller]
fn fails(line: &str, expected: &str) {
    let (out, success) = run(&Made::default(), line);
    assert!(!success && out.contains(expected), "{line}: {out}");
}

#[test]
fn every_command_answers() {
    prints("cpus", "0x0000000000000001");
    prints("mem", "usable");
    prints("mem map", "4.0 KiB  usable");
    prints("trace", "tracing is off");
    prints("trace dump 3; trace start", "tracing is off");
    fails("trace dump x", "`x` is not a number of records");
    fails("locks", "this kernel does not count");
    prints("holds", "nothing is measured");
    prints("hung", "no task waits");
    fails("holds 0", "`0` is neither `off` nor a number of microseconds");
    fails("hung soon", "neither `off` nor a number of seconds, 1 to 86400");
    prints("mem check 3", "constant pages");
    prints("irq", "timer");
    prints("irq hash", "IRQHASH 0000000000000abc\n");
    prints("acpi", "  tables  none\n");
    prints("clock", "  source           host\n  frequency of it  1 GHz\n");
    prints("percpu", "template");
    prints("backtrace", "backtrace of None");
    prints("backtrace 1", "backtrace of Some(1)");
    prints("crash", "null-read ");
    prints("demo", "demo percpu");
    prints("help", "  dmesg [LINES]");
    prints("help log", "log [LEVEL]\n  shows or sets");
    prints("cpu 1 offline", "CPU 1 is offline");
    prints("cpus; mem;;", "usable");
    prints("", "");
}

#[test]
fn wrong_input_is_told_what_would_be_right() {
    fails("cpuss", "there is no command `cpuss`; did you mean cpus? `help` lists");
    fails("cpu", "which CPU, and what is it to be?; usage: cpu N online|offline");
    fails("cpu 1 away", "`away` is not `online` or `offline`");
    fails("cpu x online", "`x` is no CPU's number");
    fails("cpu 0 offline", "cpu: the boot CPU stays online");
    fails("frobnicate", "there is no command `frobnicate`; `help` lists");
    fails("cpus 1", "cpus: `1` is one argument too many; usage: cpus");
    fails("mem x", "usage: mem [map | check [MIB]]");
    fails("irq x", "usage: irq [hash]");
    fails(
        "backtrace 7",
        "there is no task 7; `ps` lists them; CPUs are 0 to 1; usage: backtrace [[cpu] CPU |",
    );
    fails("backtrace x", "CPUs are 0 to 1");
    fails("crash null", "did you mean null-read?");
    fails("demo x", "there is no demonstration `x`");
    fails("demo percp", "did you mean percpu?");
    fails("help cpuss", "did you mean cpus?");
    fails("log loud", "levels: off, error, warn");
    fails("dmesg x", "`x` is not a number of lines");
    fails("log \"x", "a quote is not closed");
    fails("nothing; mem", "usable");
}

#[test]
fn commands_act_on_the_machine() {
    let machine = Made::default();
    assert!(!run(&machine, "crash panic").1);
    assert!(!run(&machine, "reboot").1);
    assert!(!run(&machine, "poweroff").1);
    assert!(!run(&machine, "nothing; poweroff").1);
    assert_eq!(*machine.done.lock().unwrap(), ["crash panic", "reboot", "power off true", "power off false"]);
}

#[test]
fn completion_knows_commands_and_their_arguments() {
    let complete = |before: &str| ALL.complete(&Made::default(), before).words;
    assert_eq!(complete("cl"), ["clock"]);
    assert_eq!(complete("c"), ["cancel", "clock", "cpu", "cpus", "crash"]);
    assert_eq!(complete("cpus;  cl"), ["clock"]);
    assert_eq!(complete("cpus;"), complete(""));
    assert_eq!(complete("log d"), ["debug"]);
    assert_eq!(complete("help dm"), ["dmesg"]);
    assert_eq!(complete("backtrace "), ["0", "1", "cpu", "task"]);
    assert_eq!(complete("crash n"), ["null-read"]);
    assert_eq!(complete("crash panic "), [""; 0]);
    assert_eq!(complete("nothing "), [""; 0]);
    assert_eq!(complete("").len(), ALL.0.len());
}

#[test]
fn the_demo_loses_updates_only_where_it_says() {
    prints("demo percpu", "guarded, read and write: 200000 of 200000 counted, 0 lost");
    prints("demo percpu", "one instruction: 200000 of 200000 counted, 0 lost");
}

#[test]
fn the_greeting_is_three_lines() {
    let text = Greeting(&Made::default().summary()).to_string();
    assert_eq!(text.lines().count(), 3);
    assert!(text.lines().all(|line| line.len() < 80), "{text}");
    assert!(text.starts_with(&format!(
        "Quiesce {}: 2 CPUs, 128.0 MiB of memory, on threads\n",
        env!("CARGO_PKG_VERSION")
    )));
    assert!(text.contains("`help`") && text.contains("`demo`") && text.contains("`poweroff`"));
    for command in ALL.0 {
        let summary = command.help.lines().next().unwrap();
        assert!(summary.chars().count() <= 58, "the list of `help` is 79 columns wide: {summary}");
    }
    let (help, _) = run(&Made::default(), "help");
    assert!(help.lines().all(|line| line.chars().count() < 80), "{help}");
}

#[test]
fn sizes_read_well() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((16 << 20) - 1, "15.9 MiB"),
        (1 << 40, "1.0 TiB"),
        (u64::MAX, "15.9 EiB"),
    ] {
        assert_eq!(commands::Size(bytes).to_string(), text);
    }
}
