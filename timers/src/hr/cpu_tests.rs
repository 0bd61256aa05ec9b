//! A CPU with a timer that is programmed, a host that is late, and a model of what must be called when.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::vec::Vec;

use hal::hosted::TestClock;
use proptest::prelude::*;

use super::*;
use crate::hr::{HrTimer, HrTimers};
use crate::timer::{Firing, TimerFlags};

std::thread_local! {
    /// When the interrupt comes.
    static PROGRAMMED: Cell<u64> = const { Cell::new(NEVER) };
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, Debug)]
struct Call {
    who: usize,
    now: u64,
    expired: u64,
    /// The periods that were missed, of one that goes on.
    missed: u64,
}

fn program(by: u64) {
    PROGRAMMED.set(PROGRAMMED.get().min(by));
}

struct State {
    who: usize,
    /// 0: once.
    period: u64,
}

fn function(timer: &HrTimer<State>, firing: &Firing<'_, HrQueue>) {
    let State { who, period } = *timer.state();
    let missed = if period == 0 { 0 } else { firing.forward(period) };
    CALLS.with_borrow_mut(|calls| {
        calls.push(Call { who, now: firing.now(), expired: firing.expired_at(), missed });
    });
}

struct World {
    clock: Rc<TestClock>,
    all: &'static HrTimers,
    cpu: &'static CpuHr,
    timers: Vec<Arc<HrTimer<State>>>,
    /// What is armed, and for when.
    model: BTreeMap<usize, u64>,
    calls: u64,
}

const SIZE: usize = 12;

impl World {
    fn new() -> World {
        let clock = Rc::new(TestClock::install());
        PROGRAMMED.set(NEVER);
        CALLS.take();
        let all: &'static HrTimers = Box::leak(Box::new(HrTimers::new()));
        let cpu = Box::leak(Box::new(CpuHr::new(program)));
        all.install(Native::cpu(), cpu);
        let timers = (0..SIZE).map(|who| {
            let state = State { who, period: if who % 4 == 3 { 1_000 * who as u64 } else { 0 } };
            Arc::new(match who % 2 {
                0 => HrTimer::hard_with_state(TimerFlags::NONE, state, function),
                _ => HrTimer::soft_with_state(TimerFlags::NONE, state, function),
            })
        });
        World { clock, all, cpu, timers: timers.collect(), model: BTreeMap::new(), calls: 0 }
    }

    fn latest(&self, who: usize) -> u64 {
        self.model[&who] + self.timers[who].core.entry().slack()
    }

    /// Takes note of the calls that there were since.
    fn account(&mut self) {
        for Call { who, now, expired, missed } in CALLS.take() {
            self.calls += 1;
            let expires = self.model.remove(&who).expect("it was armed");
            assert_eq!(expired, expires, "when it was due");
            assert!(now >= expires, "early");
            let period = self.timers[who].state().period;
            if let Some(overruns) = (now - expires).checked_div(period) {
                assert_eq!(missed, overruns, "overruns");
                self.model.insert(who, expires + (missed + 1) * period);
            }
        }
        for (who, timer) in self.timers.iter().enumerate() {
            assert_eq!(timer.is_pending(), self.model.contains_key(&who));
        }
        let first = self.model.keys().map(|&who| self.latest(who)).min().unwrap_or(NEVER);
        assert!(PROGRAMMED.get() <= first, "the interrupt comes at {}, after {first}", PROGRAMMED.get());
    }

    /// Time passes, and each interrupt is late by that much.
    fn pass(&mut self, ns: u64, late: u64) {
        let end = Native::now_ns() + ns;
        while PROGRAMMED.get().saturating_add(late) <= end {
            let now = PROGRAMMED.replace(NEVER).saturating_add(late).max(Native::now_ns());
            self.clock.advance(now - Native::now_ns());
            let quiet = sync::irq::disable();
            let Due { mut softirq, next } = self.all.interrupt(&quiet, now);
            program(next);
            drop(quiet);
            while softirq {
                softirq = self.cpu.run_soft();
            }
            self.account();
        }
        self.clock.advance(end.saturating_sub(Native::now_ns()));
        let now = Native::now_ns();
        assert!(self.model.keys().all(|&who| self.latest(who) + late > now), "late, or lost");
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Arm { who, after, slack } => {
                let at = (Native::now_ns() + after).saturating_sub(500);
                let timer = &self.timers[who];
                timer.set_slack(slack);
                let was = self.all.modify(timer, at);
                assert_eq!(was, self.model.insert(who, at).is_some());
            }
            Op::Reduce { who, after } => {
                let at = Native::now_ns() + after;
                self.all.reduce(&self.timers[who], at);
                let armed = self.model.entry(who).or_insert(at);
                *armed = at.min(*armed);
            }
            Op::Delete { who } => {
                assert_eq!(self.timers[who].delete(), self.model.remove(&who).is_some());
            }
            Op::Pass { ns, late } => self.pass(ns, late),
            Op::Ask => {
                let quiet = sync::irq::disable();
                PROGRAMMED.set(self.all.next(&quiet));
            }
        }
        self.account();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for timer in &self.timers {
            timer.delete();
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Arm { who: usize, after: u64, slack: u64 },
    Reduce { who: usize, after: u64 },
    Delete { who: usize },
    Pass { ns: u64, late: u64 },
    Ask,
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..SIZE;
    let slack = prop_oneof![2 => Just(0u64), 1 => 0u64..200_000];
    let late = prop_oneof![2 => Just(0u64), 1 => 0u64..30_000];
    prop_oneof![
        4 => (who(), 0u64..100_000, slack).prop_map(|(who, after, slack)| Op::Arm { who, after, slack }),
        1 => (who(), 0u64..100_000).prop_map(|(who, after)| Op::Reduce { who, after }),
        2 => who().prop_map(|who| Op::Delete { who }),
        3 => (0u64..60_000, late).prop_map(|(ns, late)| Op::Pass { ns, late }),
        1 => Just(Op::Ask),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(300)))]
    /// Never early, never lost, never twice, overruns exact, and the interrupt is always programmed in time.
    #[test]
    fn called_when_the_model_says(ops in prop::collection::vec(op(), 1..if cfg!(miri) { 20 } else { 80 })) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn a_beat_does_not_drift_however_late_the_interrupt() {
    let mut world = World::new();
    let period = world.timers[7].state().period;
    let begun = Native::now_ns();
    world.apply(&Op::Arm { who: 7, after: 500 + period, slack: 0 });
    for round in 0..1_000u64 {
        world.pass(period, round * 13 % 5_000);
    }
    let next = world.model[&7];
    assert_eq!((next - begun) % period, 0);
    assert!(world.calls >= 500);
}

/// A function that takes longer than it waits.
#[test]
fn who_is_always_due_again_does_not_keep_the_cpu() {
    std::thread_local! {
        static CLOCK: RefCell<Option<Rc<TestClock>>> = const { RefCell::new(None) };
        static CALLED: Cell<u32> = const { Cell::new(0) };
    }
    let mut world = World::new();
    let start = Native::now_ns();
    let (all, cpu) = (world.all, world.cpu);
    CLOCK.set(Some(Rc::clone(&world.clock)));
    let slow = Arc::new(HrTimer::hard(|firing| {
        CALLED.set(CALLED.get() + 1);
        CLOCK.with_borrow(|clock| clock.as_ref().unwrap().advance(2_000_000));
        firing.rearm_at(firing.now() + 1_000_000);
    }));
    all.add(&slow, start + 10);
    world.pass(9, 0);
    world.clock.advance(1);

    let quiet = sync::irq::disable();
    let now = Native::now_ns();
    let due = all.interrupt(&quiet, now);
    assert_eq!(CALLED.get(), ROUNDS);
    let spent = u64::from(ROUNDS) * 2_000_000;
    assert_eq!(due, Due { softirq: false, next: now + 2 * spent });
    let hang = HrStats { events: 1, retries: 3, hangs: 1, longest_hang_ns: spent };
    assert_eq!(cpu.stats(), hang);
    // Whatever interrupts meanwhile: nothing is called, and nothing is programmed earlier.
    assert_eq!(all.interrupt(&quiet, now + spent), Due { softirq: false, next: due.next });
    assert_eq!(all.next(&quiet), due.next);
    PROGRAMMED.set(NEVER);
    let other = Arc::new(HrTimer::hard(|_| ()));
    all.add(&other, now + 1);
    assert_eq!(PROGRAMMED.get(), NEVER);
    // Then it goes on.
    world.clock.advance(spent);
    let _ = all.interrupt(&quiet, Native::now_ns());
    assert_eq!((CALLED.get(), other.is_pending()), (2 * ROUNDS, false));
    assert_eq!(cpu.stats().hangs, 2);
    drop(quiet);
    slow.delete();
    CLOCK.take();
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn what_a_cpu_leaves_behind_is_called_elsewhere_once() {
    let mut world = World::new();
    let here = Native::cpu();
    let gone = CpuId::new(if here.as_u32() == 100 { 101 } else { 100 }).unwrap();
    let theirs: &'static CpuHr = Box::leak(Box::new(CpuHr::new(program)));
    world.all.install(gone, theirs);
    let at = Native::now_ns() + 1_000;
    for who in 0..SIZE {
        let at = at + who as u64 * 100;
        world.all.add_on(gone, &world.timers[who], at);
        world.model.insert(who, at);
    }
    assert_eq!(PROGRAMMED.get(), NEVER, "not this CPU's");
    assert_eq!(world.all.offline(gone, here), SIZE);
    let quiet = sync::irq::disable();
    PROGRAMMED.set(world.all.next(&quiet));
    drop(quiet);
    // Still, one that is armed for the CPU that is gone comes here.
    world.timers[0].delete();
    world.all.add_on(gone, &world.timers[0], at);
    world.account();
    world.pass(100_000, 0);
    assert!(world.calls >= SIZE as u64);
    let quiet = sync::irq::disable();
    world.all.online(&quiet, gone);
    drop(quiet);
    world.all.modify(&world.timers[0], at);
    world.timers[0].delete();
    world.all.add_on(gone, &world.timers[0], at);
    assert_ne!(theirs.hard().due(), NEVER);
    world.timers[0].delete();
}
