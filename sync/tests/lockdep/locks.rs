//! Real locks: what they tell the checker, and what it says.

use core::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};

use hal::{Native, hosted};
use sync::lockdep::{self, Acquire, Level, Map, Subclass, WaitType};
use sync::wait::{Limits, WaitError, WaitQueue};
use sync::{Channel, Completion, Condvar, IrqSpinLock, Mutex, RwLock, Semaphore, SpinLock, TaskCx};

use crate::checked::Checked;

const CIRCULAR: &str = "possible circular locking dependency detected";

#[test]
fn two_spin_locks_in_both_orders() {
    let checked = Checked::new();
    let (a, b) = (SpinLock::<_>::new(1), SpinLock::<_>::new(2));
    {
        let _a = a.lock();
        let _b = b.lock();
    }
    assert!(checked.reports().is_empty());
    let (b_line, a_line);
    {
        b_line = line!() + 1;
        let _b = b.lock();
        a_line = line!() + 1;
        let _a = a.lock();
    }
    let reports = checked.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.starts_with(CIRCULAR), "{}", reports[0].message);
    assert_eq!((reports[0].location.file(), reports[0].location.line()), (file!(), a_line));
    assert!(reports[0].message.contains(&format!("at {}:{b_line}:", file!())), "{}", reports[0].message);
}

#[test]
fn locks_of_one_place_are_a_class_and_the_subclass_says_otherwise() {
    let checked = Checked::new();
    let locks = [1, 2].map(|n| IrqSpinLock::new(n));
    {
        let _outer = locks[0].lock();
        let _inner = locks[1].lock();
    }
    assert_eq!(checked.headlines(), ["possible recursive locking detected"]);
    let others = [1, 2].map(|n| IrqSpinLock::new(n));
    {
        let _outer = others[0].lock();
        let _inner = others[1].lock_nested(Subclass::NESTED);
    }
    assert!(checked.reports().is_empty());
    assert_eq!(checked.summary().classes, 3);
}

#[test]
fn a_lock_that_is_tried_makes_no_order() {
    let checked = Checked::new();
    let (a, b) = (IrqSpinLock::new(1), IrqSpinLock::new(2));
    for (outer, inner) in [(&a, &b), (&b, &a)] {
        let _outer = outer.lock();
        assert!(inner.try_lock().is_some());
    }
    assert!(checked.reports().is_empty());
    assert_eq!(checked.summary().orders, 0);
}

#[test]
fn readers_and_writers() {
    let checked = Checked::new();
    let (a, b) = (RwLock::<_>::new(1), SpinLock::<_>::new(2));
    {
        let _a = a.read();
        let _b = b.lock();
    }
    {
        let _b = b.lock();
        let _a = a.write();
    }
    assert_eq!(checked.headlines(), [CIRCULAR]);
}

#[test]
fn a_mutex_under_a_spin_lock() {
    let checked = Checked::new();
    // SAFETY: this thread is a task and has no other token.
    let mut cx = unsafe { TaskCx::new() };
    let (spin, mutex) = (SpinLock::<_>::new(1), Mutex::<_>::new(2));
    let guard = spin.lock();
    drop(mutex.lock(&mut cx));
    drop(guard);
    let headlines = checked.headlines();
    assert!(headlines.contains(&"invalid wait context".to_owned()), "{headlines:?}");
    drop(spin.lock());
    drop(mutex.lock(&mut cx));
    assert!(checked.reports().is_empty());
}

#[test]
fn mutexes_in_both_orders_on_two_cpus() {
    let checked = Checked::new();
    let (a, b) = (Mutex::<_>::new(1), Mutex::<_>::new(2));
    let reports: Vec<_> = [false, true]
        .map(|turned| {
            std::thread::scope(|scope| {
                let (a, b, checker) = (&a, &b, checked.checker);
                let on_a_cpu = move || {
                    let checked = Checked::with(checker);
                    // SAFETY: this thread is a task and has no other token.
                    let mut cx = unsafe { TaskCx::new() };
                    // SAFETY: as above; two tokens, because the guards borrow nothing of them.
                    let mut cx2 = unsafe { TaskCx::new() };
                    let (first, second) = if turned { (b, a) } else { (a, b) };
                    let first = first.lock(&mut cx);
                    drop(second.lock(&mut cx2));
                    drop(first);
                    checked.headlines()
                };
                scope.spawn(on_a_cpu).join().expect("the thread ends")
            })
        })
        .concat();
    assert_eq!(reports, [CIRCULAR]);
}

#[test]
fn a_lock_that_ends_while_it_is_held() {
    let checked = Checked::new();
    let at = Location::caller();
    let map = Box::new(Map::new(WaitType::Spin, Level::Hardirq));
    map.acquire::<Native>(Acquire::WRITE, at);
    drop(map);
    assert_eq!(checked.headlines(), ["held lock freed"]);
    // Its memory is given back.
    let map = Map::new(WaitType::Spin, Level::Hardirq);
    map.acquire::<Native>(Acquire::WRITE, at);
    let start = core::ptr::from_ref(&map) as usize;
    lockdep::check_no_locks_freed::<Native>(start + size_of::<Map>()..start + 4096);
    assert!(checked.reports().is_empty());
    lockdep::check_no_locks_freed::<Native>(start - 8..start + 8);
    assert_eq!(checked.headlines(), ["held lock freed"]);
    // A lock that is not held ends in silence, and so does one that was never taken.
    let locks = [1, 2].map(|n| Box::new(IrqSpinLock::new(n)));
    drop(locks[0].lock());
    drop(locks);
    drop(map);
    assert!(checked.reports().is_empty());
}

#[test]
fn what_is_held_is_known() {
    let map = Map::named("the lock", 7, WaitType::Sleep, Level::Task);
    assert_eq!(map.is_held::<Native>(), None, "nobody keeps books");
    let checked = Checked::new();
    assert_eq!(map.is_held::<Native>(), Some(false));
    map.assert_held::<Native>();
    let reports = checked.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.starts_with("a lock is not held that must be: the lock ("), "{reports:?}");
    map.acquire::<Native>(Acquire::RECURSIVE_READ, Location::caller());
    assert_eq!(map.is_held::<Native>(), Some(true));
    map.assert_held::<Native>();
    let mut held = String::new();
    lockdep::write_held::<Native>(&mut held).expect("a string takes everything");
    assert!(held.starts_with("the lock[7] (") && held.contains(") for recursive reading, at "), "{held}");
    map.release::<Native>(Location::caller());
    map.release::<Native>(Location::caller());
    assert_eq!(checked.headlines(), ["bad unlock balance detected"]);
    let (label, usage) = lockdep::class::<Native>(checked.checker, 1).expect("the first");
    assert_eq!((label.name(), label.key(), label.subclass()), (Some("the lock"), 7, Subclass::OUTER));
    assert_eq!(usage.to_string(), "OO");
    assert!(lockdep::class::<Native>(checked.checker, 2).is_none());
}

#[test]
fn keys_make_classes() {
    let checked = Checked::new();
    let at = Location::caller();
    let maps = [1, 2, 2].map(|key| Map::named("queue", key, WaitType::Spin, Level::Hardirq));
    let pair = |outer: &Map, inner: &Map| {
        outer.acquire::<Native>(Acquire::WRITE, at);
        inner.acquire::<Native>(Acquire::WRITE, at);
        inner.release::<Native>(at);
        outer.release::<Native>(at);
    };
    pair(&maps[0], &maps[1]);
    pair(&maps[0], &maps[2]);
    assert!(checked.reports().is_empty());
    pair(&maps[1], &maps[2]);
    assert_eq!(checked.headlines(), ["possible recursive locking detected"]);
}

/// What the module's documentation says about things that are waited for and are no locks.
#[test]
fn deleting_a_timer_under_a_lock_that_its_callback_takes() {
    let checked = Checked::new();
    let at = Location::caller();
    let callback = Map::named("timer callback", 0, WaitType::Spin, Level::Hardirq);
    let lock = IrqSpinLock::new(());
    // The timer fires and ends.
    callback.acquire::<Native>(Acquire::TRY_WRITE, at);
    drop(lock.lock());
    callback.release::<Native>(at);
    assert!(checked.reports().is_empty());
    // Much later it is deleted.
    let guard = lock.lock();
    callback.acquire::<Native>(Acquire::WRITE, at);
    callback.release::<Native>(at);
    drop(guard);
    assert_eq!(checked.headlines(), [CIRCULAR]);
}

/// One waits for the completion under a mutex, another one completes it under the same mutex: never at the same time here.
#[test]
fn waiting_for_a_completion_under_a_lock_that_the_completing_side_takes() {
    let checked = Checked::new();
    // SAFETY: the thread is a task, this is its only token, and nothing is switched off.
    let mut cx = unsafe { TaskCx::new() };
    let done = Completion::<Native>::new();
    let [table, other] = [Mutex::<u32>::new(0), Mutex::<u32>::new(0)];
    let completed_under = other.lock(&mut cx);
    let inner = table.lock_with(Limits::NONE, &mut cx);
    done.complete();
    drop((inner, completed_under));
    done.wait(&mut cx);
    done.complete_all();
    assert!(checked.reports().is_empty(), "nothing was held by who waited");
    let held = table.lock(&mut cx);
    done.wait(&mut cx);
    drop(held);
    let reports = checked.reports();
    assert_eq!(reports.len(), 1);
    assert!(reports[0].message.starts_with(CIRCULAR) && reports[0].message.contains("completion"));
}

/// What a task waits for under `table`, and what another one does under it that would end the wait: a circle each, found
/// by doing one after the other, so that nobody really waits.
fn closes_a_circle(name: &str, bring_about: impl Fn(&mut TaskCx), wait: impl Fn(&mut TaskCx)) {
    let checked = Checked::new();
    // SAFETY: as above.
    let mut cx = unsafe { TaskCx::new() };
    let table = Mutex::<u32>::new(0);
    // Without the lock on either side, and with it on one side, there is nothing to say.
    bring_about(&mut cx);
    wait(&mut cx);
    let held = table.lock(&mut cx);
    bring_about(&mut cx);
    drop(held);
    wait(&mut cx);
    assert!(checked.reports().is_empty(), "{name}: nothing was held by who waited");
    bring_about(&mut cx);
    let held = table.lock(&mut cx);
    wait(&mut cx);
    drop(held);
    let reports = checked.reports();
    assert_eq!(reports.len(), 1, "{name}");
    assert!(reports[0].message.starts_with(CIRCULAR), "{}", reports[0].message);
    assert!(reports[0].message.contains(name), "{}", reports[0].message);
}

#[test]
fn a_permit_is_awaited_under_a_lock_that_who_gives_it_back_takes() {
    let permits = Semaphore::<Native>::new(0);
    closes_a_circle("semaphore", |_| permits.up(), |cx| permits.down(cx));
}

#[test]
fn a_queue_is_waited_in_under_a_lock_that_who_wakes_takes() {
    let queue = WaitQueue::<Native>::new();
    for wake in [WaitQueue::wake_one, WaitQueue::wake_all] {
        closes_a_circle("wait queue", |_| _ = wake(&queue), |cx| queue.wait(cx, || true));
    }
}

#[test]
fn a_value_or_room_is_awaited_under_a_lock_that_the_other_side_takes() {
    let channel = Channel::<u32, 4>::new();
    let receive = |cx: &mut TaskCx| assert_eq!(channel.receive(cx), Ok(1));
    closes_a_circle("channel's values", |_| channel.try_send(1).expect("there is room"), receive);
    let channel = Channel::<u32, 4>::new();
    channel.try_send(1).expect("there is room");
    closes_a_circle(
        "channel's room",
        |_| assert_eq!(channel.try_receive(), Ok(1)),
        |cx| channel.send(1, cx).expect("there is room"),
    );
}

/// The mutex of the condition is let go of while it is waited for, another one is not.
#[test]
fn a_condition_is_awaited_under_a_lock_that_who_notifies_takes() {
    let (changed, state) = (Condvar::<Native>::new(), Mutex::<u32>::new(0));
    let at_once = |cx: &mut TaskCx| {
        let (guard, result) = changed.wait_with(Limits::NONE.until(0), state.lock(cx), cx);
        assert_eq!((*guard, result), (0, Err(WaitError::TimedOut)));
    };
    let notify = |cx: &mut TaskCx| {
        let held = state.lock(cx);
        changed.notify_one();
        changed.notify_all();
        drop(held);
    };
    closes_a_circle("condition variable", notify, at_once);
}

#[test]
fn a_lock_that_the_completing_side_has_tried_for_is_no_reason_to_wait() {
    let checked = Checked::new();
    // SAFETY: as above.
    let mut cx = unsafe { TaskCx::new() };
    let (done, table) = (Completion::<Native>::new(), Mutex::<u32>::new(0));
    let tried = table.try_lock();
    done.complete();
    drop(tried);
    let held = table.lock(&mut cx);
    done.wait(&mut cx);
    drop(held);
    assert!(checked.reports().is_empty());
}

#[test]
fn nested_readers_and_writers_of_one_class() {
    let checked = Checked::new();
    let [a, b] = [0, 1].map(|n| RwLock::<u32>::new(n));
    let outer = a.write();
    drop(b.write_nested(Subclass::NESTED));
    drop(b.read_nested(Subclass::NESTED));
    assert!(checked.reports().is_empty());
    drop(b.read());
    drop(outer);
    assert_eq!(checked.headlines(), ["possible recursive locking detected"]);
}

#[test]
fn sleeping_in_atomic_names_what_is_held() {
    let checked = Checked::new();
    let lock = IrqSpinLock::new(());
    let (held, line) = (lock.lock(), line!());
    sync::context::might_sleep();
    drop(held);
    let reports = checked.reports();
    let last = reports[0].message.lines().last().unwrap_or_default();
    assert!(last.starts_with("  holds ") && last.contains(&format!("{}:{line}", file!())), "{last}");
}

/// A reporter that takes locks of its own, in both orders, does not lead to a report about the report.
#[test]
fn a_report_may_take_locks() {
    static LOG: [IrqSpinLock<usize>; 2] = [IrqSpinLock::new(0), IrqSpinLock::new(0)];
    let checked = Checked::new();
    let _hooks = hosted::set_hooks(hosted::Hooks {
        report: Some(std::rc::Rc::new(|_| {
            let mut outer = LOG[0].lock();
            *outer += 1;
            *LOG[1].lock() += 1;
        })),
        ..hosted::Hooks::default()
    });
    let a = IrqSpinLock::new(());
    let b = IrqSpinLock::new(());
    for (outer, inner) in [(&a, &b), (&b, &a)] {
        let _outer = outer.lock();
        let _inner = inner.lock();
    }
    assert_eq!((*LOG[0].lock(), *LOG[1].lock()), (1, 1));
    assert_eq!(checked.summary().reports, 1);
}

/// All CPUs at once, with one checker: each inversion is reported once, by whoever comes second.
#[test]
fn many_cpus_one_report() {
    const CPUS: usize = 4;
    const LOCKS: usize = 6;
    let checked = Checked::new();
    let maps: Vec<_> =
        (0..LOCKS as u32).map(|key| Map::named("lock", key, WaitType::Spin, Level::Hardirq)).collect();
    let reports = AtomicUsize::new(0);
    hosted::run_cpus(CPUS, |cpu| {
        let checked = Checked::with(checked.checker);
        for round in 0..200 {
            // Pairs of neighbours: (0, 1), (2, 3), (4, 5), in both orders.
            let pair = (round + cpu) % (LOCKS / 2) * 2;
            let turned = (round / 7 + cpu) % 2;
            let (outer, inner) = (&maps[pair + turned], &maps[pair + 1 - turned]);
            let at = Location::caller();
            outer.acquire::<Native>(Acquire::WRITE, at);
            inner.acquire::<Native>(Acquire::WRITE, at);
            outer.release::<Native>(at);
            inner.release::<Native>(at);
        }
        let found = checked.headlines();
        assert!(found.iter().all(|headline| headline == CIRCULAR), "{found:?}");
        reports.fetch_add(found.len(), Ordering::Relaxed);
    });
    assert_eq!(reports.into_inner(), LOCKS / 2);
}

#[test]
fn nothing_is_checked_where_no_checker_is_installed() {
    let _cpu = hosted::bind().expect("a virtual CPU is left");
    let capture = hosted::ReportCapture::new();
    let (a, b) = (IrqSpinLock::new(1), IrqSpinLock::new(2));
    for (outer, inner) in [(&a, &b), (&b, &a)] {
        let _outer = outer.lock();
        let _inner = inner.lock();
    }
    assert!(capture.take().is_empty());
}
