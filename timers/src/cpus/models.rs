//! CPUs that stop their ticks, arm timers and work for each other, in all interleavings.

use loom::sync::Arc;
use loom::thread;
use sync::Cpu;

use super::{CpuTimers, NEVER, Timers};
use crate::Ticks;
use crate::faults::{Fault, is_caught};
use crate::modelled::{Modelled, become_cpu};
use crate::primitives::Ordering;
use hal::Platform;

struct Machine {
    timers: &'static Timers<Modelled>,
    mine: [&'static CpuTimers<Modelled>; 2],
}

impl Machine {
    /// Two CPUs that tick.
    fn new() -> Arc<Machine> {
        let timers = &*Box::leak(Box::new(Timers::new_in()));
        let mine = [(); 2].map(|()| &*Box::leak(Box::new(CpuTimers::new_in())));
        let quiet = Cpu::<Modelled>::disable_interrupts();
        for (cpu, mine) in (0..).zip(mine) {
            become_cpu(cpu);
            timers.install(Modelled::cpu(), mine);
            timers.start_tick(&quiet, Modelled::cpu());
        }
        Arc::new(Machine { timers, mine })
    }

    fn stop(&self) -> u64 {
        self.timers.stop_tick(&Cpu::<Modelled>::disable_interrupts(), Modelled::cpu())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for mine in self.mine {
            // SAFETY: leaked by `new`; the model's threads have ended.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(mine).cast_mut()) });
        }
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(self.timers).cast_mut()) });
    }
}

fn check(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    test_support::check(&builder, f);
}

/// Both CPUs arm a timer and stop: whoever is last wakes for the first one.
#[test]
fn of_two_that_stop_at_once_one_answers_for_both() {
    check(|| {
        let machine = Machine::new();
        let cpus = [0, 1].map(|cpu| {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                become_cpu(cpu);
                machine.timers.after(Ticks(10 + u64::from(cpu)), |_| ());
                machine.stop()
            })
        });
        let wakes = cpus.map(|cpu| cpu.join().unwrap());
        assert_eq!(wakes.into_iter().min(), Some(10), "everybody sleeps too long");
        assert!(machine.timers.idle.0.earliest.load(Ordering::Relaxed) <= 10);
        become_cpu(0);
        drain(&machine);
    });
}

/// A CPU that does not tick arms a timer in an interrupt, and looks again, while the last one that ticks stops.
#[test]
fn what_is_armed_while_the_last_one_stops_is_slept_for() {
    check(|| {
        let machine = Machine::new();
        become_cpu(0);
        assert_eq!(machine.stop(), NEVER);
        let armer = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                become_cpu(0);
                machine.timers.after(Ticks(10), |_| ());
                machine.stop()
            })
        };
        let stopper = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                become_cpu(1);
                machine.stop()
            })
        };
        let wakes = [armer.join().unwrap(), stopper.join().unwrap()];
        assert_eq!(wakes.into_iter().min(), Some(10), "everybody sleeps too long");
        become_cpu(0);
        drain(&machine);
    });
}

#[test]
fn stopping_without_a_fence_is_noticed() {
    let model = "cpus::models::what_is_armed_while_the_last_one_stops_is_slept_for";
    is_caught(Fault::StopWithoutFence, model, "everybody sleeps too long");
}

/// A CPU pulls while another one, which does not tick, arms a timer.
#[test]
fn what_is_armed_while_somebody_pulls_is_known() {
    check(|| {
        let machine = Machine::new();
        become_cpu(0);
        machine.timers.after(Ticks(1), |_| ());
        machine.stop();
        machine.timers.advance_to(Ticks(1));
        let puller = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                become_cpu(1);
                machine.timers.pull();
            })
        };
        let armer = {
            let machine = Arc::clone(&machine);
            thread::spawn(move || {
                become_cpu(0);
                machine.timers.after(Ticks(5), |_| ());
                machine.stop();
            })
        };
        puller.join().unwrap();
        armer.join().unwrap();
        assert!(machine.timers.idle.0.earliest.load(Ordering::Relaxed) <= 5, "forgotten");
        become_cpu(0);
        drain(&machine);
    });
}

#[test]
fn pulling_backwards_is_noticed() {
    is_caught(Fault::PullBackwards, "cpus::models::what_is_armed_while_somebody_pulls_is_known", "forgotten");
}

/// Has everything called, so that nothing is left in memory.
fn drain(machine: &Machine) {
    machine.timers.advance_to(Ticks(1_000));
    for mine in machine.mine {
        mine.global.run(|| 1_000);
    }
}
