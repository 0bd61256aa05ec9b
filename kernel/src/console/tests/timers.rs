//! Timers, as the console shows and handles them.

use super::*;
use crate::console::tasks::Tasks;
use crate::console::timers::{Calls, CpuPrecise, CpuWheels, Later, OwnTimer, Timers, Wheel, Wish};

/// A made machine's timers. What is to be called after a time is called when `pause` has let that pass.
#[derive(Default)]
pub(super) struct World {
    own: Vec<OwnTimer>,
    given: u32,
    slow: Option<u64>,
    later: Vec<(u64, Later)>,
}

impl Made {
    /// Calls what is due.
    pub(super) fn call_due(&self, now: u64) {
        loop {
            let due = {
                let later = &mut self.timers.lock().unwrap().later;
                later.iter().position(|(at, _)| *at <= now).map(|at| later.swap_remove(at))
            };
            let Some((at, function)) = due else { return };
            function(now - at);
        }
    }
}

impl Timers for Made {
    fn wheels(&self) -> (u64, Vec<CpuWheels>) {
        let wheel = |name, count, next| Wheel {
            name,
            levels: vec![count, 0, 0],
            next,
            calls: Calls { late: vec![40, 2], latest: 1, ..Calls::default() },
            ..Wheel::default()
        };
        let cpu = |cpu| CpuWheels {
            cpu,
            rests: cpu == 1,
            wheels: vec![wheel("tied", cpu as usize, Some(1002)), wheel("global", 0, None)],
        };
        (1000, vec![cpu(0), cpu(1)])
    }

    fn precise(&self) -> Vec<CpuPrecise> {
        vec![CpuPrecise { cpu: 1, hard: 3, events: 77, ..CpuPrecise::default() }]
    }

    fn slow_limit(&self) -> Option<u64> {
        self.timers.lock().unwrap().slow
    }

    fn set_slow_limit(&self, limit: Option<u64>) {
        self.timers.lock().unwrap().slow = limit;
    }

    fn add_timer(&self, wish: &Wish) -> Result<u32, String> {
        let mut world = self.timers.lock().unwrap();
        if world.given == 9 {
            return Err("no timers are left".into());
        }
        world.given += 1;
        let number = world.given;
        world.own.push(OwnTimer { number, wish: wish.clone(), remaining_ns: wish.ns, calls: 0 });
        Ok(number)
    }

    fn delete_timer(&self, number: u32) -> Option<bool> {
        let own = &mut self.timers.lock().unwrap().own;
        let at = own.iter().position(|timer| timer.number == number)?;
        Some(own.remove(at).remaining_ns > 0)
    }

    fn own_timers(&self) -> Vec<OwnTimer> {
        self.timers.lock().unwrap().own.clone()
    }

    fn call_after(&self, ns: u64, function: Later) {
        let at = self.now_ns() + ns;
        self.timers.lock().unwrap().later.push((at, function));
    }
}

#[test]
fn timers_shows_all_cpus_or_one() {
    let (out, success) = run(&Made::default(), "timers");
    assert!(success);
    let next = format!("{}.000 ms", 2 * ::timers::TICK_NS / 1_000_000);
    assert_eq!(
        out,
        format!(
            "tick 1000, {} a second; calls are not timed\n\
             CPU 0: its tick runs, 0 armed, 84 called, 80 of them in time\n\
             \x20 late: 4 by 1 or more ticks, 1 at most\n\
             CPU 1: its tick rests, 1 armed, 84 called, 80 of them in time\n\
             \x20 WHEEL            NEXT   L0   L1   L2  DUE\n\
             \x20 tied       {next:>10}    1    .    .    .\n\
             \x20 late: 4 by 1 or more ticks, 1 at most\n",
            ::timers::HZ
        )
    );
    let (out, success) = run(&Made::default(), "timers 1");
    assert!(success && !out.contains("CPU 0") && out.contains("CPU 1: its tick rests"), "{out}");
    fails("timers 2", "`2` is neither `slow` nor one of CPUs 0 to 1; usage: timers [CPU | slow [TIME|off]]");
    fails("timers x", "`x` is neither");
    fails("timers 1 2", "`2` is one argument too many");
}

#[test]
fn the_limit_for_slow_calls_is_set_and_shown() {
    let machine = Made::default();
    assert_eq!(run(&machine, "timers slow").0, "calls are not timed\n");
    assert_eq!(run(&machine, "timers slow 50").0, "calls of more than 50.000 us are slow\n");
    assert_eq!(machine.slow_limit(), Some(50_000));
    assert_eq!(run(&machine, "timers slow 1.5ms").0, "calls of more than 1.500 ms are slow\n");
    prints("timers slow 100us; timers", "a second; calls of more than 100.000 us are slow\n");
    assert_eq!(run(&machine, "timers slow off").0, "calls are not timed\n");
    assert_eq!(machine.slow_limit(), None);
    fails(
        "timers slow fast",
        "`fast` is no time: write a number and its unit (ns us ms s m h), as in `10ms`, or `off`",
    );
    fails("timers slow 1us 2", "`2` is one argument too many");
}

#[test]
fn timer_add_passes_everything_on() {
    let machine = Made::default();
    let (out, success) = run(
        &machine,
        "timer add 3s; timer add 20ms --every --slack 1ms; timer add 1.5s --exact --on 1; timer list",
    );
    assert!(success, "{out}");
    assert_eq!(
        out,
        "timer 1: coarse, in 3.000 s; `timer del 1` takes it back\n\
         timer 2: coarse, every 20.000 ms, slack 1.000 ms; `timer del 2` takes it back\n\
         timer 3: exact, in 1.500 s, on CPU 1; `timer del 3` takes it back\n\
         TIMER       NEXT   CALLS  ARMED AS\n\
         \x20   1    3.000 s       0  coarse, in 3.000 s\n\
         \x20   2  20.000 ms       0  coarse, every 20.000 ms, slack 1.000 ms\n\
         \x20   3    1.500 s       0  exact, in 1.500 s, on CPU 1\n"
    );
    let wishes: Vec<Wish> = machine.own_timers().into_iter().map(|timer| timer.wish).collect();
    let second = 1_000_000_000;
    assert_eq!(
        wishes,
        [
            Wish { ns: 3 * second, ..Wish::default() },
            Wish { ns: second / 50, slack_ns: Some(second / 1000), every: true, ..Wish::default() },
            Wish { ns: 3 * second / 2, exact: true, on: Some(1), ..Wish::default() },
        ]
    );
}

#[test]
fn timer_del_takes_them_back() {
    let machine = Made::default();
    let (out, success) = run(&machine, "timer list; timer add 3s; timer add 0ns; timer del 1; timer del 2");
    assert!(success, "{out}");
    assert!(out.starts_with("no timer of the console's is armed; `timer add 3s` arms one\n"), "{out}");
    assert!(out.contains("timer 1 is deleted\ntimer 2 is being called, and is not called again\n"), "{out}");
    assert!(machine.own_timers().is_empty());
    let (out, success) = run(&machine, "timer del 1");
    assert!(!success && out.contains("there is no timer 1, or it has been called; `timer list`"), "{out}");
    fails("timer del", "which timer? `timer list` has their numbers");
    fails("timer del x", "`x` is no timer's number");
    fails("timer del 1 2", "`2` is one argument too many");
}

#[test]
fn wrong_timers_are_told_what_would_be_right() {
    fails("timer", "`add`, `del` or `list`?; usage: timer add TIME [--slack TIME]");
    fails("timer ad 3s", "`ad` is not `add`, `del` or `list`");
    fails("timer list 1", "`1` is one argument too many");
    fails("timer add", "in how long? As in `timer add 3s`");
    fails("timer add 3", "`3` is no time: write a number and its unit (ns us ms s m h)");
    fails("timer add 9999999h", "is too long");
    fails("timer add 3s fast", "`fast` is no option; there are --slack, --every, --exact, --on");
    fails("timer add 3s --slack", "`--slack` is followed by a time, as in `--slack 10ms`");
    fails("timer add 3s --slack much", "`much` is no time");
    fails("timer add 3s --on", "`--on` is followed by a CPU");
    fails("timer add 3s --on 2", "`2` is no CPU; they are 0 to 1");
    fails("timer add 3s --on all", "`all` is no CPU");
    fails("timer add 1ms --every", "no more than one every 10ms");
    let machine = Made::default();
    assert!(!run(&machine, "timer add 3s --every fast").1);
    assert!(machine.own_timers().is_empty(), "what is wrong arms nothing");
    machine.timers.lock().unwrap().given = 9;
    assert!(run(&machine, "timer add 3s").0.contains("timer: no timers are left"));
}

#[test]
fn hrtimers_is_a_table() {
    let (out, success) = run(&Made::default(), "hrtimers");
    assert!(
        success && out.contains("\n  1     3     0          -       0          -       77       0     0"),
        "{out}"
    );
    fails("hrtimers 1", "`1` is one argument too many; usage: hrtimers");
}

#[test]
fn completion_knows_timers() {
    let machine = Made::default();
    run(&machine, "timer add 3s; timer add 3s");
    let complete = |before: &str| ALL.complete(&machine, before).words;
    assert_eq!(complete("timer"), ["timer", "timers"]);
    assert_eq!(complete("timers "), ["0", "1", "slow"]);
    assert_eq!(complete("timers slow "), ["100us", "off"]);
    assert_eq!(complete("timer "), ["add", "del", "list"]);
    assert_eq!(complete("timer del "), ["1", "2"]);
    assert_eq!(complete("timer add 3s --e"), ["--every", "--exact"]);
    assert_eq!(complete("timer add 3s --every --e"), ["--exact"]);
    assert_eq!(complete("timer add 3s --on "), ["0", "1"]);
}

#[test]
fn the_demo_touches_freed_memory_only_where_it_says() {
    let (out, success) = run(&Made::default(), "demo timers");
    assert!(success, "{out}");
    assert!(
        out.contains(
            "held over the call, 10000 timers:\n    touched after being freed: 10000 times by the caller,"
        ),
        "{out}"
    );
    assert!(
        out.contains(
            "never freed, 10000 timers:\n    touched after being freed: 0 times by the caller, 0 by deleters\n"
        ),
        "{out}"
    );
    assert!(out.contains("deleted, 10000 freed\n"), "{out}");
    assert!(out.contains("`timer::after`: 100 of 100 called, 100 freed, 0 touched after that"), "{out}");
}
