//! The forms in which timers are used, on one CPU of the hosted machine.
#![cfg(not(loom))]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use hal::hosted::{self, ReportCapture};
use hal::{Native, Platform};
use sync::TaskCx;
use sync::context::enter_softirq;
use timers::{CpuTimers, Deletion, Firing, Owned, Ticks, Timer, TimerFlags, Timers};

/// A machine of one CPU, which is this thread's.
struct Machine {
    timers: &'static Timers,
    mine: &'static CpuTimers,
    _cpu: hosted::Binding,
}

impl Machine {
    fn new() -> Machine {
        let cpu = hosted::bind().unwrap();
        let (timers, mine): (&'static Timers, &'static CpuTimers) =
            (Box::leak(Box::new(Timers::new())), Box::leak(Box::new(CpuTimers::new())));
        timers.install(Native::cpu(), mine);
        Machine { timers, mine, _cpu: cpu }
    }

    /// It becomes tick `now`; returns how many timers were called.
    fn at(&self, now: u64) -> u32 {
        if !self.timers.tick(Native::cpu(), Ticks(now)) {
            return 0;
        }
        // SAFETY: this is a task, which serves softirqs itself; the guard goes before it goes on.
        let serving = unsafe { enter_softirq() };
        self.timers.run(&serving)
    }
}

fn cx() -> TaskCx {
    // SAFETY: this thread is a task, and nobody uses another token at the same time.
    unsafe { TaskCx::new() }
}

/// What a function says of the next time, without arming the timer, holds when it is armed.
#[test]
fn a_function_changes_its_timer_for_the_next_time() {
    fn first(timer: &Timer<AtomicU32>, _: &Firing<'_>) {
        timer.state().fetch_add(1, Relaxed);
        timer.set_function(second);
        assert!(timer.set_expires(Ticks(9)));
    }
    fn second(timer: &Timer<AtomicU32>, firing: &Firing<'_>) {
        assert_eq!(firing.expired_at(), Ticks(9));
        timer.state().fetch_add(100, Relaxed);
    }
    let machine = Machine::new();
    let timer = Arc::new(Timer::with_state(TimerFlags::NONE, AtomicU32::new(0), first));
    machine.timers.add(&timer, Ticks(3));
    assert_eq!(machine.at(3), 1);
    assert_eq!((timer.is_pending(), timer.expires()), (false, Ticks(9)), "changed, and not armed");
    assert_eq!((machine.at(20), timer.state().load(Relaxed)), (0, 1));
    // Late by then, so at the next tick.
    assert!(machine.timers.add_as_set(&timer));
    assert_eq!((machine.at(21), timer.state().load(Relaxed)), (1, 101));
}

/// However far away: its bucket comes, and what is filed there is looked at. Alone, and with others before and behind it.
#[test]
fn what_is_due_at_the_end_of_time_is_never_early() {
    for others in [0, 1, 3, 300] {
        let machine = Machine::new();
        let timer = |_| Arc::new(Timer::new(|firing| assert!(firing.expired_at() <= firing.now())));
        let timers: Vec<_> = (0..others).map(timer).collect();
        let last = Arc::new(Timer::new(|firing| panic!("called at {}", firing.now())));
        // On one level, and in one bucket: the farthest one.
        let far = 1 << 40;
        let halves = timers.split_at(timers.len() / 2);
        halves.0.iter().for_each(|timer| _ = machine.timers.add(timer, Ticks(far)));
        machine.timers.add(&last, Ticks(u64::MAX));
        halves.1.iter().for_each(|timer| _ = machine.timers.add(timer, Ticks(far + 1)));
        assert_eq!(machine.at(far + 2), others as u32);
        assert!(last.is_pending());
        last.delete();
    }
}

#[test]
fn a_closure_is_called_once_and_its_memory_is_gone_before() {
    let machine = Machine::new();
    let calls = Arc::new(AtomicU32::new(0));
    let inside = Arc::clone(&calls);
    machine.timers.after(Ticks(3), move |fired| {
        assert_eq!((fired.now(), fired.expired_at()), (Ticks(3), Ticks(3)));
        inside.fetch_add(1, Relaxed);
    });
    assert_eq!((machine.at(1), machine.at(2)), (0, 0), "never early");
    assert_eq!((machine.at(3), machine.at(4)), (1, 0));
    assert_eq!(calls.load(Relaxed), 1);
    assert_eq!(Arc::strong_count(&calls), 1, "the closure is gone");
}

#[test]
fn a_shared_timer_is_armed_modified_deleted_and_let_go_of() {
    let machine = Machine::new();
    let calls = Arc::new(AtomicU32::new(0));
    let inside = Arc::clone(&calls);
    let timer = Arc::new(Timer::new(move |_: &Firing<'_>| {
        inside.fetch_add(1, Relaxed);
    }));
    assert!(machine.timers.add(&timer, Ticks(5)));
    assert_eq!((Arc::strong_count(&timer), timer.is_pending(), timer.expires()), (2, true, Ticks(5)));
    assert!(machine.timers.modify(&timer, Ticks(9)));
    assert!(!machine.timers.reduce(timer.clone(), Ticks(20)) || timer.expires() == Ticks(9));
    assert!(machine.timers.reduce(&timer, Ticks(7)));
    assert_eq!((Arc::strong_count(&timer), timer.expires()), (2, Ticks(7)));
    assert_eq!((machine.at(5), machine.at(6), machine.at(7)), (0, 0, 1));
    assert_eq!((Arc::strong_count(&timer), timer.is_pending()), (1, false));
    assert!(!timer.modify_pending(Ticks(9)) && !timer.delete());
    assert!(!machine.timers.modify(timer.clone(), Ticks(9)), "it was not armed");
    assert!(timer.modify_pending(Ticks(10)) && timer.delete() && !timer.delete());
    assert_eq!((machine.at(20), Arc::strong_count(&timer)), (0, 1));
    assert_eq!(calls.load(Relaxed), 1);
}

#[test]
fn arming_an_armed_timer_is_reported_with_both_places() {
    let machine = Machine::new();
    let reports = ReportCapture::new();
    let timer = Arc::new(Timer::new(|_: &Firing<'_>| ()));
    assert!(machine.timers.add(&timer, Ticks(5)));
    assert!(!machine.timers.add(&timer, Ticks(6)));
    let reports = reports.take();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.contains("timer added that is armed already"), "{}", reports[0].message);
    assert!(reports[0].message.matches("forms.rs").count() == 2 || !cfg!(debug_assertions));
    assert_eq!((timer.expires(), Arc::strong_count(&timer)), (Ticks(5), 2));
    assert!(timer.delete());
}

#[test]
fn a_function_arms_its_timer_again_and_changes_it() {
    let machine = Machine::new();
    static CALLS: AtomicU64 = AtomicU64::new(0);
    fn second(timer: &Timer<u64>, firing: &Firing<'_>) {
        CALLS.fetch_add(100 * timer.state(), Relaxed);
        assert!(!timer.is_pending() && timer.is_running());
        assert!(firing.rearm_at(firing.now()), "that has passed");
        assert!(timer.is_pending());
        assert_eq!(timer.try_delete_sync(), Deletion::Running);
        if CALLS.load(Relaxed) > 600 {
            assert!(timer.delete() && !timer.is_pending());
        }
    }
    fn first(timer: &Timer<u64>, firing: &Firing<'_>) {
        CALLS.fetch_add(*timer.state(), Relaxed);
        timer.set_function(second);
        assert!(firing.rearm_at(Ticks(8)));
    }
    machine.timers.add(Box::new(Timer::with_state(TimerFlags::NONE, 3, first)), Ticks(4));
    assert_eq!((machine.at(4), CALLS.load(Relaxed)), (1, 3));
    assert_eq!((machine.at(7), machine.at(8), CALLS.load(Relaxed)), (0, 1, 303));
    assert_eq!((machine.at(8), machine.at(9), CALLS.load(Relaxed)), (0, 1, 603), "not in the same tick");
    assert_eq!(machine.at(100), 0);
}

#[test]
fn a_beat_does_not_drift_and_counts_what_it_missed() {
    let machine = Machine::new();
    let seen = Arc::new(sync::SpinLock::<Vec<(u64, u64)>>::new(Vec::new()));
    let inside = Arc::clone(&seen);
    let timer =
        Owned::new(Timer::periodic(TimerFlags::NONE, Ticks(10), move |firing: &Firing<'_>, missed| {
            inside.lock_with(firing).push((firing.expired_at().0, missed));
        }));
    machine.timers.add(&timer, Ticks(10));
    for now in [10, 20, 29, 47, 50, 80] {
        machine.at(now);
    }
    assert_eq!(*seen.lock(), [(10, 0), (20, 0), (30, 1), (50, 0), (60, 2)]);
    drop(timer);
    assert_eq!(machine.at(200), 0, "its owner is gone");
    assert_eq!(Arc::strong_count(&seen), 1);
}

#[test]
fn an_owner_that_goes_in_the_call_leaves_the_call_its_state() {
    let machine = Machine::new();
    type Slot = Arc<sync::SpinLock<Option<Owned<Box<dyn Fn(&Firing<'_>) + Send + Sync>>>>>;
    let slot: Slot = Arc::new(sync::SpinLock::new(None));
    let inside = Arc::clone(&slot);
    let witness = Arc::new(7);
    let held = Arc::clone(&witness);
    let function: Box<dyn Fn(&Firing<'_>) + Send + Sync> = Box::new(move |firing| {
        let owner = inside.lock().take();
        drop(owner);
        assert!(!firing.rearm_at(Ticks(100)), "it is shut down");
        assert_eq!((*held, Arc::strong_count(&held)), (7, 2), "still there");
    });
    *slot.lock() = Some(Owned::new(Timer::new(function)));
    machine.timers.add(slot.lock().as_ref().unwrap(), Ticks(2));
    assert_eq!(machine.at(2), 1);
    assert_eq!(Arc::strong_count(&witness), 1, "gone with the call");
}

#[test]
fn what_is_shut_down_is_not_armed_again() {
    let machine = Machine::new();
    let timer = Arc::new(Timer::new(|_: &Firing<'_>| ()));
    machine.timers.add(&timer, Ticks(5));
    assert!(timer.shutdown_sync(&mut cx()) && timer.is_shut_down());
    assert!(!machine.timers.add(&timer, Ticks(6)) && !machine.timers.modify(&timer, Ticks(6)));
    assert!(!timer.is_pending() && Arc::strong_count(&timer) == 1);
    let never_armed = Arc::new(Timer::new(|_: &Firing<'_>| ()));
    assert!(!never_armed.shutdown() && !machine.timers.add(&never_armed, Ticks(6)));
    assert_eq!(machine.at(10), 0);
}

#[test]
fn an_embedded_timer_is_armed_pinned_and_shut_down_before_it_goes() {
    let machine = Machine::new();
    let calls = Arc::new(AtomicU32::new(0));
    let inside = Arc::clone(&calls);
    {
        let timer = pin!(Timer::new(move |_: &Firing<'_>| {
            inside.fetch_add(1, Relaxed);
        }));
        machine.timers.add(timer.as_ref(), Ticks(2));
        assert_eq!(machine.at(2), 1);
        machine.timers.add(timer.as_ref(), Ticks(4));
        assert!(timer.shutdown_sync(&mut cx()));
    }
    assert_eq!((machine.at(4), calls.load(Relaxed)), (0, 1));
}

#[test]
fn an_embedded_timer_that_goes_armed_stops_the_machine() {
    let machine = Machine::new();
    let _reports = ReportCapture::new();
    // What goes on after the panic uses the timer's memory, so that it is not given back.
    let timer = Box::leak(Box::new(std::mem::ManuallyDrop::new(Timer::new(|_: &Firing<'_>| ()))));
    // SAFETY: it does not move any more.
    machine.timers.add(unsafe { std::pin::Pin::new_unchecked(&**timer) }, Ticks(2));
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        // SAFETY: dropped once, and not used as a timer of its owner after.
        unsafe { std::mem::ManuallyDrop::drop(timer) }
    }));
    let message = *dropped.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("embedded timer dropped that is armed"), "{message}");
}

#[test]
fn what_a_function_leaves_switched_off_is_reported_under_its_name_and_mended() {
    let machine = Machine::new();
    let reports = ReportCapture::new();
    machine.timers.after(Ticks(1), |_| std::mem::forget(sync::preempt::disable()));
    machine.at(1);
    let reports = reports.take();
    assert!(reports[0].message.starts_with("timer: 0x"), "{}", reports[0].message);
    assert!(reports[0].message.contains("what_a_function_leaves_switched_off"));
    assert!(reports[0].message.contains("preempt leak 00000100 -> 00000101"));
    assert!(sync::context::preemptible());
}

#[test]
fn a_timer_deleted_synchronously_by_its_own_function_is_reported() {
    let machine = Machine::new();
    let reports = ReportCapture::new();
    let timer = Arc::new(Timer::with_state(TimerFlags::NONE, (), |timer: &Timer<()>, firing| {
        firing.rearm_at(Ticks(9));
        // What the types refuse a function that does not cheat.
        assert!(!timer.delete_sync(&mut cx()));
        assert!(timer.is_pending(), "nothing was done");
    }));
    machine.timers.add(&timer, Ticks(1));
    assert_eq!(machine.at(1), 1);
    assert!(reports.take().iter().any(|report| report.message.contains("it would wait for itself")));
    assert!(timer.delete_sync(&mut cx()));
}

#[test]
fn with_interrupts_off_only_irqsafe_timers_are_deleted_synchronously() {
    let machine = Machine::new();
    let reports = ReportCapture::new();
    let safe = Arc::new(Timer::new_in(TimerFlags::IRQSAFE, |_: &Firing<'_>| {
        assert!(sync::context::irqs_disabled());
    }));
    let unsafe_one = Arc::new(Timer::new(|_: &Firing<'_>| assert!(!sync::context::irqs_disabled())));
    machine.timers.add(&safe, Ticks(1));
    machine.timers.add(&unsafe_one, Ticks(1));
    assert_eq!(machine.at(1), 2);
    machine.timers.add(&safe, Ticks(3));
    machine.timers.add(&unsafe_one, Ticks(3));
    let quiet = sync::irq::disable();
    assert!(safe.delete_sync_irqs_off(&quiet));
    assert_eq!(reports.take(), []);
    unsafe_one.delete_sync_irqs_off(&quiet);
    assert!(reports.take()[0].message.contains("not irqsafe"));
    drop(quiet);
}

#[test]
fn slow_functions_are_named() {
    let machine = Machine::new();
    machine.mine.global().set_slow_limit(Some(1));
    thread_local! {
        static CLOCK: hosted::TestClock = hosted::TestClock::install();
    }
    CLOCK.with(|_| ());
    machine.timers.after(Ticks(1), |_| ());
    machine.timers.after(Ticks(2), |_| CLOCK.with(|clock| clock.advance(5_000)));
    machine.at(2);
    let stats = machine.mine.global().stats();
    assert_eq!((stats.called, stats.slow), (2, 1));
    assert_eq!(stats.slowest[0].unwrap().ns, 5_000);
    assert!(stats.slowest[0].unwrap().function.to_string().contains("slow_functions_are_named"));
    assert_eq!((stats.late[0], stats.late[1], stats.latest), (1, 1, 1));
}

#[test]
fn a_timer_is_48_bytes_its_function_and_its_state() {
    if !cfg!(debug_assertions) && !sync::lockdep::ENABLED {
        assert_eq!(size_of::<Timer<()>>(), 48 + 8);
        assert_eq!(size_of::<Timer<[u64; 3]>>(), 48 + 8 + 24);
    }
}
