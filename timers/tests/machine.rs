//! Coarse timers on a machine of four CPUs that idle, wake, go off-line and come back, against a list of what is armed:
//! none early, none lost, none twice, none later than its level's granule.
#![cfg(not(loom))]

#[path = "support/sim.rs"]
mod sim;

use std::cell::RefCell;
use std::sync::Arc;

use hal::Platform;
use proptest::prelude::*;
use sim::{Sim, kicked, on};
use sync::Cpu;
use timers::wheel::Wheel;
use timers::{CpuTimers, Firing, Ticks, Timer, TimerFlags, Timers};

const CPUS: usize = 4;
const TIMERS: usize = 12;

type SimTimer = Timer<usize, Wheel, Sim>;

/// What is to be called, by the model.
#[derive(Clone, Copy, Debug)]
struct Armed {
    expires: u64,
    /// The latest tick at which it may be called, if its CPU is there for it.
    by: u64,
}

/// What the timers' functions know.
#[derive(Default)]
struct Model {
    armed: [Option<Armed>; TIMERS],
    /// Called again so many ticks after each call.
    beat: [Option<u64>; TIMERS],
    calls: u64,
}

thread_local! {
    static MODEL: RefCell<Model> = RefCell::default();
}

impl Model {
    fn arm(&mut self, timer: usize, expires: u64, now: u64) {
        let ahead = expires.saturating_sub(now);
        // Asked for once more, it stays in the bucket that it has.
        let same = self.armed[timer].filter(|armed| armed.expires == expires).map_or(0, |armed| armed.by);
        self.armed[timer] = Some(Armed { expires, by: same.max(expires.max(now + 1) + ahead / 8) });
    }
}

fn called(timer: &SimTimer, firing: &Firing<'_, Wheel, Sim>) {
    let (index, now) = (*timer.state(), firing.now().0);
    MODEL.with_borrow_mut(|model| {
        let armed =
            model.armed[index].take().unwrap_or_else(|| panic!("timer {index} is called twice at {now}"));
        assert!(now >= armed.expires, "timer {index} is early: {now}, {armed:?}");
        assert!(
            now <= armed.by || kind(index).contains(TimerFlags::DEFERRABLE),
            "timer {index} is late: {now}, {armed:?}"
        );
        model.calls += 1;
        if let Some(beat) = model.beat[index] {
            assert!(firing.rearm_at(Ticks(now + beat)));
            model.arm(index, now + beat, now);
        }
    });
}

/// Some of the timers are of each kind.
fn kind(timer: usize) -> TimerFlags {
    match timer % 6 {
        4 => TimerFlags::PINNED,
        5 => TimerFlags::DEFERRABLE,
        _ => TimerFlags::NONE,
    }
}

/// What a CPU is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ticks,
    /// Idle, until that tick.
    Sleeps(u64),
    Offline,
}

struct Machine {
    timers: &'static Timers<Sim>,
    mine: [&'static CpuTimers<Sim>; CPUS],
    /// The same, to be freed.
    leaked: (*mut Timers<Sim>, [*mut CpuTimers<Sim>; CPUS]),
    all: Vec<Arc<SimTimer>>,
    cpus: [State; CPUS],
    now: u64,
}

impl Machine {
    fn new() -> Machine {
        MODEL.take();
        let leaked = (
            Box::into_raw(Box::new(Timers::new_in())),
            [(); CPUS].map(|()| Box::into_raw(Box::new(CpuTimers::new_in()))),
        );
        // SAFETY: leaked just now; freed when the machine is dropped, and with it all who use them.
        let timers: &'static Timers<Sim> = unsafe { &*leaked.0 };
        // SAFETY: as above.
        let mine = leaked.1.map(|mine| unsafe { &*mine });
        for (cpu, mine) in mine.into_iter().enumerate() {
            timers.install(on(cpu), mine);
            timers.start_tick(&Cpu::<Sim>::disable_interrupts(), Sim::cpu());
        }
        let all = (0..TIMERS).map(|index| Arc::new(Timer::with_state(kind(index), index, called))).collect();
        Machine { timers, mine, leaked, all, cpus: [State::Ticks; CPUS], now: 0 }
    }

    /// What the interrupt of an idle or ticking CPU does first.
    fn interrupt(&mut self, cpu: usize) {
        if self.timers.tick(on(cpu), Ticks(self.now)) {
            // SAFETY: this is what serves softirqs; the guard goes before anything else is done.
            let serving = unsafe { Cpu::<Sim>::enter_softirq() };
            self.timers.run(&serving);
        }
    }

    /// An idle CPU looks for how long it may sleep.
    fn sleep(&mut self, cpu: usize) {
        let cpu_id = on(cpu);
        let wake = self.timers.stop_tick(&Cpu::<Sim>::disable_interrupts(), cpu_id);
        self.cpus[cpu] = State::Sleeps(wake);
    }

    /// A CPU ticks again.
    fn wake(&mut self, cpu: usize) {
        let cpu_id = on(cpu);
        self.timers.start_tick(&Cpu::<Sim>::disable_interrupts(), cpu_id);
        self.cpus[cpu] = State::Ticks;
    }

    /// CPUs that were kicked take an interrupt; it may kick others.
    fn take_kicks(&mut self) {
        loop {
            let kicked = kicked();
            if kicked.is_empty() {
                return;
            }
            for cpu in kicked {
                if let State::Sleeps(_) = self.cpus[cpu.index()] {
                    self.interrupt(cpu.index());
                    self.sleep(cpu.index());
                }
            }
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        for cpu in 0..CPUS {
            match self.cpus[cpu] {
                State::Ticks => self.interrupt(cpu),
                State::Sleeps(wake) if wake <= self.now => {
                    self.interrupt(cpu);
                    self.sleep(cpu);
                }
                State::Sleeps(_) | State::Offline => (),
            }
            self.take_kicks();
        }
        MODEL.with_borrow(|model| {
            for (index, armed) in model.armed.iter().enumerate() {
                let Some(armed) = armed else { continue };
                assert!(
                    armed.by > self.now || kind(index).contains(TimerFlags::DEFERRABLE),
                    "timer {index} is lost at {}: {armed:?}, {:?}",
                    self.now,
                    self.cpus,
                );
            }
        });
    }

    fn act(&mut self, act: Act) {
        let Act { what, cpu, timer: index, ahead } = act;
        let timer = self.all[index].clone();
        let expires = self.now + ahead;
        if self.cpus[cpu] == State::Offline {
            if matches!(what, What::Wake) {
                self.timers.online(on(cpu));
                self.wake(cpu);
            }
            return;
        }
        // An idle CPU does something in an interrupt only, and looks again after it.
        self.interrupt(cpu);
        self.take_kicks();
        let was_armed = MODEL.with_borrow(|model| model.armed[index]);
        let arm = |expires| MODEL.with_borrow_mut(|model| model.arm(index, expires, self.now));
        on(cpu);
        match what {
            What::Add if was_armed.is_none() => {
                arm(expires);
                assert!(self.timers.add(timer, Ticks(expires)));
            }
            What::AddOn(other) if was_armed.is_none() && self.cpus[other] != State::Offline => {
                arm(expires);
                assert!(self.timers.add_on(hal::CpuId::new(other as u32).unwrap(), timer, Ticks(expires)));
            }
            What::Modify => {
                arm(expires);
                assert_eq!(self.timers.modify(&timer, Ticks(expires)), was_armed.is_some());
            }
            What::Reduce => {
                if was_armed.is_none_or(|armed| expires < armed.expires) {
                    arm(expires);
                }
                assert_eq!(self.timers.reduce(&timer, Ticks(expires)), was_armed.is_some());
            }
            What::ModifyPending => {
                if was_armed.is_some() {
                    arm(expires);
                }
                assert_eq!(timer.modify_pending(Ticks(expires)), was_armed.is_some());
            }
            What::Delete => {
                MODEL.with_borrow_mut(|model| (model.armed[index], model.beat[index]) = (None, None));
                assert_eq!(timer.delete(), was_armed.is_some());
            }
            What::Beat => MODEL.with_borrow_mut(|model| model.beat[index] = Some(ahead % 50 + 1)),
            What::Sleep => self.cpus[cpu] = State::Sleeps(0),
            What::Wake => {
                self.wake(cpu);
            }
            What::Leave => {
                let heir = (0..CPUS).find(|other| *other != cpu && self.cpus[*other] != State::Offline);
                if let Some(heir) = heir {
                    self.cpus[cpu] = State::Offline;
                    self.timers.offline(on(cpu), hal::CpuId::new(heir as u32).unwrap());
                }
            }
            What::Add | What::AddOn(_) => (),
        }
        assert_eq!(
            self.all[index].is_pending(),
            MODEL.with_borrow(|model| model.armed[index].is_some()),
            "after {act:?}"
        );
        if let State::Sleeps(_) = self.cpus[cpu] {
            self.sleep(cpu);
        }
        self.take_kicks();
    }

    /// Everything that is armed is called, on a machine that ticks.
    fn finish(&mut self) {
        MODEL.with_borrow_mut(|model| model.beat = [None; TIMERS]);
        for cpu in 0..CPUS {
            if self.cpus[cpu] == State::Offline {
                self.timers.online(on(cpu));
            }
            self.wake(cpu);
        }
        let last = MODEL.with_borrow(|model| model.armed.iter().flatten().map(|armed| armed.by).max());
        for _ in self.now..=last.unwrap_or(0).max(self.now) + 1 {
            self.tick();
        }
        MODEL
            .with_borrow(|model| assert!(model.armed.iter().all(Option::is_none), "lost: {:?}", model.armed));
        assert!(self.all.iter().all(|timer| Arc::strong_count(timer) == 1), "references are let go of");
        let called: u64 = self
            .mine
            .iter()
            .map(|mine| {
                mine.local().stats().called + mine.global().stats().called + mine.deferrable().stats().called
            })
            .sum();
        assert_eq!(called, MODEL.with_borrow(|model| model.calls));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for mine in self.leaked.1 {
            // SAFETY: leaked by `new`; no timer is armed, and nobody uses it any more.
            drop(unsafe { Box::from_raw(mine) });
        }
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.leaked.0) });
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Add,
    AddOn(usize),
    Modify,
    Reduce,
    ModifyPending,
    Delete,
    Beat,
    Sleep,
    Wake,
    Leave,
}

#[derive(Clone, Copy, Debug)]
struct Act {
    what: What,
    cpu: usize,
    timer: usize,
    ahead: u64,
}

fn act() -> impl Strategy<Value = Act> {
    let what = prop_oneof![
        4 => Just(What::Add),
        2 => (0..CPUS).prop_map(What::AddOn),
        4 => Just(What::Modify),
        1 => Just(What::Reduce),
        2 => Just(What::ModifyPending),
        2 => Just(What::Delete),
        1 => Just(What::Beat),
        6 => Just(What::Sleep),
        2 => Just(What::Wake),
        1 => Just(What::Leave),
    ];
    let ahead = prop_oneof![4 => 0..20_u64, 2 => 0..200_u64, 1 => 0..3_000_u64];
    (what, 0..CPUS, 0..TIMERS, ahead).prop_map(|(what, cpu, timer, ahead)| Act { what, cpu, timer, ahead })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: test_support::cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn none_is_early_none_late_none_lost_none_twice(acts in prop::collection::vec((act(), 0..12_u64), 1..200)) {
        let mut machine = Machine::new();
        for (act, ticks) in acts {
            machine.act(act);
            for _ in 0..ticks {
                machine.tick();
            }
        }
        machine.finish();
    }
}

/// The last CPU that stops answers for the timers of all; the others sleep.
#[test]
fn an_idle_machine_wakes_one_cpu() {
    let mut machine = Machine::new();
    for cpu in 0..CPUS {
        MODEL.with_borrow_mut(|model| model.arm(cpu, 40 + cpu as u64, 0));
        on(cpu);
        machine.timers.add(machine.all[cpu].clone(), Ticks(40 + cpu as u64));
        machine.sleep(cpu);
    }
    assert_eq!(machine.cpus[..3], [State::Sleeps(u64::MAX); 3]);
    assert!(matches!(machine.cpus[3], State::Sleeps(40..48)));
    for _ in 0..50 {
        machine.tick();
    }
    assert_eq!(machine.cpus, [State::Sleeps(u64::MAX); 4], "one of them has called all");
    machine.finish();
}
