//! The running machine's timers, as the console sees them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::timers::hr::HrQueue;
use ::timers::queue::Unit;
use ::timers::wheel::Wheel as WheelQueue;
use ::timers::{Base, CpuTimers, Stats};
use hal::{CpuId, Native, Platform, percpu};
use sync::SpinLock;

use super::ThisMachine;
use crate::console::timers::{Calls, CpuPrecise, CpuWheels, Later, OwnTimer, Timers, Wheel, Wish};
use crate::timer::precise::{self, HrTimer};
use crate::timer::{self, Firing, Owned, Ticks, Timer, TimerFlags};
use crate::{log, tick};

/// The console's own timers that had not been called for the last time when it last looked, in the order of their numbers.
static OWN: SpinLock<Vec<Own>> = SpinLock::new(Vec::new());
/// How many there have been.
static GIVEN: AtomicU64 = AtomicU64::new(0);

/// A timer of the console's own.
struct Own {
    number: u32,
    wish: Wish,
    form: Form,
}

/// Which kind of timer it is. Dropped, it is shut down.
enum Form {
    Coarse(Owned<Job>),
    Exact(Owned<Job, HrQueue>),
}

impl Form {
    fn job(&self) -> &Job {
        match self {
            Form::Coarse(timer) => timer.state(),
            Form::Exact(timer) => timer.state(),
        }
    }

    fn shutdown(&self) -> bool {
        match self {
            Form::Coarse(timer) => timer.shutdown(),
            Form::Exact(timer) => timer.shutdown(),
        }
    }
}

/// What such a timer does.
struct Job {
    number: u32,
    /// 0 if it is called once.
    period_ns: u64,
    /// When it is to be called next.
    due_ns: AtomicU64,
    calls: AtomicU64,
    /// It will not be called again.
    over: AtomicBool,
}

impl Job {
    /// Says how late it is. `missed`: how many periods have passed without a call.
    fn tell(&self, missed: Option<u64>) {
        let now = Native::now_ns();
        let passed = missed.unwrap_or(0) * self.period_ns;
        let due = self.due_ns.load(Ordering::Relaxed) + passed;
        let (late, number, cpu) = (now.saturating_sub(due), self.number, Native::cpu());
        let early = if now < due { ": EARLY" } else { "" };
        log::info!(
            "timer {number} was called on cpu{cpu}, {}.{:03} us late{early}",
            late / 1_000,
            late % 1_000
        );
        self.calls.fetch_add(1, Ordering::Relaxed);
        match missed {
            Some(_) => self.due_ns.store(due + self.period_ns, Ordering::Relaxed),
            None => self.over.store(true, Ordering::Relaxed),
        }
    }
}

/// The function of either kind; `period` is in the queue's unit.
fn called<Q: Unit>(timer: &Timer<Job, Q>, firing: &Firing<'_, Q>, period: u64) {
    let job = timer.state();
    job.tell((job.period_ns != 0).then(|| firing.forward(Q::Time::from(period))));
}

fn called_at_tick(timer: &Timer<Job>, firing: &Firing<'_>) {
    called(timer, firing, Ticks::covering_ns(timer.state().period_ns).0);
}

fn called_exactly(timer: &HrTimer<Job>, firing: &Firing<'_, HrQueue>) {
    called(timer, firing, timer.state().period_ns);
}

/// Takes those out that are over.
fn with_own<R>(f: impl FnOnce(&mut Vec<Own>) -> R) -> R {
    // Only the console's task uses the list, so it may be away while it changes; the lock is not held over that.
    let mut own = core::mem::take(&mut *OWN.lock());
    own.retain(|own| !own.form.job().over.load(Ordering::Relaxed));
    let result = f(&mut own);
    *OWN.lock() = own;
    result
}

/// Every CPU that has timers.
fn all_wheels() -> impl Iterator<Item = (CpuId, &'static CpuTimers)> {
    percpu::cpus().filter_map(|cpu| Some((cpu, timer::all().of(cpu)?)))
}

fn wheels_of(timers: &CpuTimers) -> [(&'static str, &Base<WheelQueue>); 3] {
    [("tied", timers.local()), ("global", timers.global()), ("deferrable", timers.deferrable())]
}

fn calls(stats: &Stats) -> Calls {
    let slowest = stats.slowest.iter().flatten();
    Calls {
        late: stats.late.to_vec(),
        latest: stats.latest,
        slow: stats.slow,
        slowest: slowest.map(|slow| (slow.function.to_string(), slow.ns)).collect(),
    }
}

/// The kernel's own way to have something called once. (A function, for the name that `timers` shows.)
fn after(ns: u64, function: Later) {
    let due = Native::now_ns().saturating_add(ns);
    timer::after(ns, move |_| function(Native::now_ns().saturating_sub(due)));
}

/// A time, unless it is "never".
fn some(time: u64) -> Option<u64> {
    (time != u64::MAX).then_some(time)
}

impl Timers for ThisMachine {
    fn wheels(&self) -> (u64, Vec<CpuWheels>) {
        let cpus = all_wheels().map(|(cpu, timers)| {
            let wheels = wheels_of(timers).map(|(name, base)| {
                let look = base.look();
                Wheel {
                    name,
                    levels: look.levels.to_vec(),
                    due: look.due,
                    next: some(look.next),
                    calls: calls(&base.stats()),
                }
            });
            CpuWheels { cpu: cpu.as_u32(), rests: tick::is_resting(cpu), wheels: Vec::from(wheels) }
        });
        (timer::now().0, cpus.collect())
    }

    fn precise(&self) -> Vec<CpuPrecise> {
        let now = Native::now_ns();
        let of = |cpu| {
            let timers = precise::all().of(cpu)?;
            let (hard, soft, stats) = (timers.hard().look(), timers.soft().look(), timers.stats());
            let mut sum = calls(&timers.hard().stats());
            let others = calls(&timers.soft().stats());
            sum.late.iter_mut().zip(&others.late).for_each(|(sum, count)| *sum += count);
            sum.latest = sum.latest.max(others.latest);
            sum.slow += others.slow;
            sum.slowest.extend(others.slowest);
            Some(CpuPrecise {
                cpu: cpu.as_u32(),
                hard: hard.armed,
                soft: soft.armed,
                next_ns: some(hard.next.min(soft.next)).map(|next| next.saturating_sub(now)),
                calls: sum,
                events: stats.events,
                retries: stats.retries,
                hangs: stats.hangs,
                longest_hang_ns: stats.longest_hang_ns,
            })
        };
        percpu::cpus().filter_map(of).collect()
    }

    fn slow_limit(&self) -> Option<u64> {
        all_wheels().next().and_then(|(_, timers)| timers.local().slow_limit())
    }

    fn set_slow_limit(&self, limit: Option<u64>) {
        for (cpu, timers) in all_wheels() {
            wheels_of(timers).iter().for_each(|(_, base)| base.set_slow_limit(limit));
            if let Some(timers) = precise::all().of(cpu) {
                timers.hard().set_slow_limit(limit);
                timers.soft().set_slow_limit(limit);
            }
        }
    }

    fn add_timer(&self, wish: &Wish) -> Result<u32, String> {
        let on = match wish.on {
            None => None,
            Some(cpu) => Some(CpuId::new(cpu).ok_or_else(|| alloc::format!("there is no CPU {cpu}"))?),
        };
        let flags = if on.is_some() { TimerFlags::PINNED } else { TimerFlags::NONE };
        let number = GIVEN.fetch_add(1, Ordering::Relaxed) as u32 + 1;
        let due_ns = Native::now_ns().saturating_add(wish.ns);
        // A coarse beat is a number of ticks.
        let period_ns = match (wish.every, wish.exact) {
            (false, _) => 0,
            (true, true) => wish.ns,
            (true, false) => Ticks::covering_ns(wish.ns).as_ns(),
        };
        let job = Job {
            number,
            period_ns,
            due_ns: AtomicU64::new(due_ns),
            calls: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        let form = if wish.exact {
            let timer = Owned::new(HrTimer::soft_with_state(flags, job, called_exactly));
            if let Some(slack) = wish.slack_ns {
                timer.set_slack(slack);
            }
            match on {
                Some(cpu) => precise::all().add_on(cpu, &timer, due_ns),
                None => precise::add(&timer, due_ns),
            };
            Form::Exact(timer)
        } else {
            let timer = Owned::new(Timer::with_state(flags, job, called_at_tick));
            if let Some(slack) = wish.slack_ns {
                timer.set_slack(Ticks::elapsed_in_ns(slack));
            }
            let at = timer::ticks_from_now(wish.ns);
            match on {
                Some(cpu) => timer::add_on(cpu, &timer, at),
                None => timer::add(&timer, at),
            };
            Form::Coarse(timer)
        };
        with_own(|own| own.push(Own { number, wish: wish.clone(), form }));
        Ok(number)
    }

    fn delete_timer(&self, number: u32) -> Option<bool> {
        with_own(|own| {
            let at = own.iter().position(|own| own.number == number)?;
            Some(own.remove(at).form.shutdown())
        })
    }

    fn own_timers(&self) -> Vec<OwnTimer> {
        let now = Native::now_ns();
        let shown = |own: &Own| {
            let job = own.form.job();
            OwnTimer {
                number: own.number,
                wish: own.wish.clone(),
                remaining_ns: job.due_ns.load(Ordering::Relaxed).saturating_sub(now),
                calls: job.calls.load(Ordering::Relaxed),
            }
        };
        with_own(|own| own.iter().map(shown).collect())
    }

    fn call_after(&self, ns: u64, function: Later) {
        after(ns, function);
    }
}
