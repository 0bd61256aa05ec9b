//! What the dependency checker says of waits for timers, on one CPU of the hosted machine.
//!
//! None of these waits deadlocks here: there is one thread, and no call is under way. The checker knows the functions' and
//! the waiters' locks all the same, and says what could happen on two CPUs.
#![cfg(all(not(loom), any(feature = "lockdep", debug_assertions)))]

use std::sync::Arc;

use hal::hosted::{self, Binding, ReportCapture};
use hal::{Native, Platform};
use sync::context::enter_softirq;
use sync::lockdep::{self, Checker, HeldStack};
use sync::{BhSpinLock, IrqSpinLock, TaskCx};
use timers::{CpuTimers, Firing, Ticks, Timer, TimerFlags, Timers};

const CIRCULAR: &str = "possible circular locking dependency detected";
const THROUGH_IRQ: &str = "irq-safe -> irq-unsafe lock order detected";

/// A machine of one CPU, which is this thread's, with a checker.
struct Machine {
    timers: &'static Timers,
    reports: ReportCapture,
    _cpu: Binding,
}

impl Machine {
    fn new() -> Machine {
        let cpu = hosted::bind().unwrap();
        let checker: &'static Checker = Box::leak(Box::new(Checker::new()));
        // SAFETY: the thread is its CPU's only task, and the stack is its own.
        unsafe { lockdep::install::<Native>(checker, Box::leak(Box::new(HeldStack::new()))) };
        let timers: &'static Timers = Box::leak(Box::new(Timers::new()));
        timers.install(Native::cpu(), Box::leak(Box::new(CpuTimers::new())));
        Machine { timers, reports: ReportCapture::new(), _cpu: cpu }
    }

    /// Has the timer called at tick `now`.
    fn call<F>(&self, timer: &Arc<Timer<F>>, now: u64)
    where
        F: Fn(&Firing<'_>) + Send + Sync + 'static,
    {
        self.timers.add(timer, Ticks(now));
        assert!(self.timers.tick(Native::cpu(), Ticks(now)));
        // SAFETY: this is a task, which serves softirqs itself; the guard goes before it goes on.
        let serving = unsafe { enter_softirq() };
        assert_eq!(self.timers.run(&serving), 1);
    }

    /// The first lines of what was reported since the last call.
    fn headlines(&self) -> Vec<String> {
        let first = |message: &str| message.lines().next().unwrap_or("").to_owned();
        self.reports.take().iter().map(|report| first(&report.message)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: as in `new`; a test drops its guards first.
        unsafe { lockdep::uninstall::<Native>() };
    }
}

fn cx() -> TaskCx {
    // SAFETY: this thread is a task, and nobody uses another token at the same time.
    unsafe { TaskCx::new() }
}

#[test]
fn waiting_under_a_lock_that_the_function_takes_is_reported() {
    let machine = Machine::new();
    let total = Arc::new(BhSpinLock::new(0));
    let inside = Arc::clone(&total);
    let timer = Arc::new(Timer::new(move |firing: &Firing<'_>| *inside.lock_with(firing) += 1));
    machine.call(&timer, 1);
    timer.delete_sync(&mut cx());
    assert!(machine.headlines().is_empty(), "with nothing held it may");
    {
        let _held = total.lock();
        timer.delete_sync(&mut cx());
    }
    assert_eq!(machine.headlines(), [CIRCULAR]);
}

#[test]
fn the_function_need_not_have_been_called_after_the_wait() {
    let machine = Machine::new();
    let total = Arc::new(BhSpinLock::new(0));
    let inside = Arc::clone(&total);
    let timer = Arc::new(Timer::new(move |firing: &Firing<'_>| *inside.lock_with(firing) += 1));
    {
        let _held = total.lock();
        timer.delete_sync(&mut cx());
    }
    assert!(machine.headlines().is_empty(), "nobody knows what the function takes");
    machine.call(&timer, 1);
    assert_eq!(machine.headlines(), [CIRCULAR]);
}

/// Also if softirqs take that lock, and the same timer was waited for with softirqs on.
#[test]
fn waiting_under_another_lock_is_fine() {
    let machine = Machine::new();
    let (total, other) = (Arc::new(BhSpinLock::new(0)), Arc::new(BhSpinLock::new(0)));
    let inside = Arc::clone(&total);
    let timer = Arc::new(Timer::new(move |firing: &Firing<'_>| *inside.lock_with(firing) += 1));
    machine.call(&timer, 1);
    let inside = Arc::clone(&other);
    machine.call(&Arc::new(Timer::new(move |firing: &Firing<'_>| *inside.lock_with(firing) += 1)), 2);
    timer.delete_sync(&mut cx());
    {
        let _held = other.lock();
        timer.shutdown_sync(&mut cx());
    }
    assert!(machine.headlines().is_empty());
}

/// The function runs on one CPU, with interrupts on. An interrupt there spins for the lock of somebody on another CPU who
/// waits for the function.
#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn waiting_under_a_lock_that_an_interrupt_takes_is_reported() {
    let machine = Machine::new();
    let shared = Arc::new(IrqSpinLock::new(0));
    let theirs = Arc::clone(&shared);
    hosted::send_interrupt(Native::cpu(), move || *theirs.lock() += 1).expect("this CPU is online");
    let timer = Arc::new(Timer::new(|_: &Firing<'_>| ()));
    machine.call(&timer, 1);
    assert!(machine.headlines().is_empty());
    {
        let _held = shared.lock();
        timer.delete_sync(&mut cx());
    }
    let headlines = machine.headlines();
    assert_eq!(headlines[0], THROUGH_IRQ);
    assert!(headlines[1].contains("with interrupts off"), "{headlines:?}");
}

/// The same with a function that is called with interrupts off: no interrupt comes between.
#[test]
fn waiting_so_for_an_irqsafe_timer_is_fine() {
    let machine = Machine::new();
    let shared = Arc::new(IrqSpinLock::new(0));
    let theirs = Arc::clone(&shared);
    hosted::send_interrupt(Native::cpu(), move || *theirs.lock() += 1).expect("this CPU is online");
    let timer = Arc::new(Timer::new_in(TimerFlags::IRQSAFE, |_: &Firing<'_>| ()));
    machine.call(&timer, 1);
    {
        let held = shared.lock();
        timer.delete_sync_irqs_off(&held);
    }
    assert!(machine.headlines().is_empty());
}
