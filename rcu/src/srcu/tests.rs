//! Domains of sleeping readers: one against a plain model, and many threads.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;

use hal::hosted::ReportCapture;
use proptest::prelude::*;
use sync::TaskCx;

use super::*;
use crate::{Domain, Head, Rcu, RcuBox, Srcu, read};

fn cx() -> TaskCx {
    // SAFETY: the tests use one at a time.
    unsafe { TaskCx::new() }
}

fn srcu(name: &'static str) -> Srcu {
    Srcu::new(name).expect("there is room")
}

/// Driven by nobody, but somebody is said to come: waiting does not call callbacks.
struct Told(AtomicU32);

impl Driver for Told {
    fn wanted(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Numbered {
    head: Head,
    number: u32,
}

thread_local! {
    static CALLED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

unsafe fn tell(head: NonNull<Head>) {
    // SAFETY: queued with this function are the heads of leaked `Numbered`s only.
    let this = unsafe { Box::from_raw(sync::container_of!(head, Numbered, head).as_ptr()) };
    CALLED.with_borrow_mut(|called| called.push(this.number));
}

fn queue<D: Driver>(srcu: &Srcu<hal::Native, D>, number: u32) {
    let whole: *mut Numbered = Box::leak(Box::new(Numbered { head: Head::new(), number }));
    // SAFETY: the field of a live object, which `tell` frees on whichever thread.
    unsafe { srcu.call(NonNull::new_unchecked(&raw mut (*whole).head), tell) };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

    /// The model knows which readers are there. A state or callback waits for those that were there when it was named.
    #[test]
    fn any_run_of_steps_is_as_the_model_says(steps in prop::collection::vec((0..7_u8, 0..8_usize), 0..120)) {
        let srcu = Srcu::<hal::Native, _>::with_driver("model", Told(AtomicU32::new(0))).expect("there is room");
        CALLED.take();
        let mut readers: Vec<(u32, SrcuGuard<'_, _, _>)> = Vec::new();
        // Which readers each waits for.
        let mut states: Vec<(crate::Cookie, Vec<u32>)> = Vec::new();
        let mut callbacks: Vec<(u32, Vec<u32>)> = Vec::new();
        let mut expected = Vec::new();
        for (next, (step, index)) in (0_u32..).zip(steps) {
            let present: Vec<u32> = readers.iter().map(|reader| reader.0).collect();
            match step {
                0 | 1 => readers.push((next, srcu.read())),
                2 if !readers.is_empty() => drop(readers.swap_remove(index % readers.len())),
                3 => states.push((srcu.start_poll(), present)),
                4 => {
                    queue(&srcu, next);
                    callbacks.push((next, present));
                }
                _ => {
                    // Several looks: one period may have to end before the next begins.
                    for _ in 0..4 {
                        srcu.work(&mut cx());
                    }
                }
            }
            let gone = |before: &[u32]| before.iter().all(|old| readers.iter().all(|reader| reader.0 != *old));
            for (state, before) in &states {
                prop_assert!(!srcu.poll(*state) || gone(before), "a period ended too early");
            }
            CALLED.with_borrow_mut(|called| expected.append(called));
            for (number, before) in &callbacks {
                prop_assert!(!expected.contains(number) || gone(before), "called too early");
            }
            prop_assert_eq!(srcu.readers(), readers.len());
        }
        readers.clear();
        srcu.barrier(&mut cx());
        CALLED.with_borrow_mut(|called| expected.append(called));
        prop_assert_eq!(expected, callbacks.iter().map(|callback| callback.0).collect::<Vec<_>>(), "in order, each once");
        prop_assert_eq!(srcu.callbacks(), 0);
        while srcu.work(&mut cx()) != Next::Idle {}
        prop_assert!(states.iter().all(|(state, _)| srcu.poll(*state)));
    }
}

/// The age of what readers hold, as for the hosted domain: writers send objects through stages, one grace period each.
#[test]
fn no_reader_holds_what_is_older_than_a_grace_period() {
    let seen = torture(Torture::synchronize);
    assert_eq!(seen[2].load(Ordering::Relaxed), 0, "{seen:?}");
    assert!(
        seen[0].load(Ordering::Relaxed) > 0 && seen[1].load(Ordering::Relaxed) > 0,
        "not exercised: {seen:?}"
    );
}

/// The twin.
#[test]
fn a_grace_period_that_ends_too_early_is_caught() {
    let seen = torture(|_| std::hint::spin_loop());
    assert!(seen[2].load(Ordering::Relaxed) > 0, "the torture cannot fail: {seen:?}");
}

crate::srcu_domain! { struct Torture; }

fn torture(grace_period: fn(&mut TaskCx)) -> [AtomicUsize; 3] {
    let current = Rcu::<RcuBox<AtomicUsize>, Torture>::new(RcuBox::new(AtomicUsize::new(0)));
    let (seen, stop): ([AtomicUsize; 3], AtomicBool) = Default::default();
    thread::scope(|scope| {
        for number in 0..3_usize {
            let (current, seen, stop) = (&current, &seen, &stop);
            scope.spawn(move || {
                let mut turn = number;
                while !stop.load(Ordering::Relaxed) {
                    let outer = read::<Torture>();
                    let inner = turn.is_multiple_of(3).then(read::<Torture>);
                    let object = current.load(&outer);
                    turn += 1;
                    (0..turn % 50).for_each(|_| std::hint::spin_loop());
                    if turn.is_multiple_of(64) {
                        thread::sleep(std::time::Duration::from_micros(50));
                    }
                    drop(inner);
                    // Acquire: pairs with nothing; keeps the load inside of the section.
                    seen[object.load(Ordering::Acquire).min(2)].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut pipe = Vec::new();
        let until = std::time::Instant::now() + std::time::Duration::from_millis(500);
        while std::time::Instant::now() < until {
            let old = current.replace(RcuBox::new(AtomicUsize::new(0)));
            old.store(1, Ordering::Relaxed);
            pipe.push(old);
            grace_period(&mut cx());
            for object in &pipe {
                object.fetch_add(1, Ordering::Relaxed);
            }
            pipe.retain(|object| object.load(Ordering::Relaxed) < 10);
        }
        stop.store(true, Ordering::Relaxed);
    });
    Torture::barrier(&mut cx());
    seen
}

#[test]
fn those_who_wait_share_grace_periods() {
    let srcu = srcu("shared");
    let section = srcu.read();
    let waiting = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                waiting.fetch_add(1, Ordering::Relaxed);
                srcu.synchronize(&mut cx());
            });
        }
        while waiting.load(Ordering::Relaxed) < 4 {
            thread::yield_now();
        }
        thread::sleep(std::time::Duration::from_millis(20));
        drop(section);
    });
    assert!(srcu.grace_periods() <= 4, "{srcu:?}");
}

#[test]
fn a_guard_may_end_in_another_thread() {
    let srcu = srcu("sent");
    let section = srcu.read();
    let state = srcu.start_poll();
    thread::scope(|scope| {
        scope.spawn(|| drop(section));
    });
    assert_eq!((srcu.readers(), srcu.work(&mut cx()), srcu.poll(state)), (0, Next::Idle, true));
}

#[test]
fn a_new_reader_does_not_hold_up_an_old_period() {
    let srcu = srcu("ranks");
    let before = srcu.read();
    let state = srcu.start_poll();
    assert!(matches!(srcu.work(&mut cx()), Next::After(_)));
    let after = srcu.read(); // in the other rank
    drop(before);
    assert_eq!(srcu.work(&mut cx()), Next::Idle);
    assert!(srcu.poll(state) && after.is_of(&srcu));
}

#[test]
fn readers_that_never_leave_a_rank_empty_do_not_hold_up_a_period() {
    let (srcu, stop) = (srcu("relay"), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut section = srcu.read();
            while !stop.load(Ordering::Relaxed) {
                let next = srcu.read();
                drop(std::mem::replace(&mut section, next)); // never without one
            }
        });
        (0..100).for_each(|_| srcu.synchronize(&mut cx()));
        srcu.synchronize_expedited(&mut cx());
        stop.store(true, Ordering::Relaxed);
    });
    assert!(srcu.grace_periods() >= 101);
}

#[test]
fn the_driver_is_told_once_for_each_period() {
    let srcu = Srcu::<hal::Native, _>::with_driver("told", Told(AtomicU32::new(0))).expect("there is room");
    let told = || srcu.driver().0.load(Ordering::Relaxed);
    (0..10).for_each(|number| queue(&srcu, number));
    assert_eq!((told(), srcu.callbacks()), (1, 10));
    srcu.synchronize(&mut cx());
    assert_eq!((told(), srcu.callbacks()), (2, 10), "who waits leaves callbacks to the driver, and says so");
    assert_eq!((srcu.work(&mut cx()), srcu.callbacks()), (Next::Idle, 0));
}

#[test]
fn callbacks_wait_where_softirqs_could_not_come() {
    let srcu = srcu("quiet");
    queue(&srcu, 1);
    let section = sync::bh::disable();
    srcu.work(&mut cx());
    assert_eq!(srcu.callbacks(), 1);
    drop(section);
    srcu.work(&mut cx());
    assert_eq!(srcu.callbacks(), 0);
}

#[test]
fn stalls_are_reported_with_their_cpus() {
    let srcu = srcu("stalled");
    srcu.set_stall_ns(1);
    let section = srcu.read();
    srcu.start_poll();
    let reports = ReportCapture::new();
    srcu.work(&mut cx());
    thread::sleep(std::time::Duration::from_millis(1));
    srcu.work(&mut cx());
    let said = reports.take();
    assert_eq!(said.len(), 1, "{said:?}");
    let text = &said[0].message;
    assert!(text.contains("srcu: stalled stalls: grace period 1 has waited"), "{text}");
    let cpu = <hal::Native as hal::Platform>::cpu();
    assert!(text.contains(&format!("CPU {cpu}: 1, 0;")), "{text}");
    drop(section);
}

#[test]
fn a_domain_that_goes_calls_what_is_left() {
    let srcu = srcu("left");
    CALLED.take();
    (0..2_000).for_each(|number| queue(&srcu, number));
    drop(srcu);
    assert_eq!(CALLED.take().len(), 2_000);
}

#[test]
fn a_domain_that_goes_with_a_leaked_reader_says_so() {
    let srcu = srcu("leaked");
    std::mem::forget(srcu.read());
    let reports = ReportCapture::new();
    drop(srcu);
    let said = reports.take();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].message.contains("leaked was dropped with 1 readers"), "{said:?}");
}

#[test]
#[should_panic(expected = "Illegal synchronize with preemption off (domain illegal)")]
fn waiting_with_preemption_off_is_refused() {
    let srcu = srcu("illegal");
    let _here = sync::preempt::disable();
    srcu.synchronize(&mut cx());
}

#[test]
fn callbacks_of_many_threads_are_all_called() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    crate::srcu_domain! { struct Many; }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    crate::Retired::<_, Many>::new(RcuBox::new(0_u32))
                        .call(|_| _ = DONE.fetch_add(1, Ordering::Relaxed));
                }
                Many::barrier(&mut cx());
            });
        }
    });
    assert_eq!(DONE.load(Ordering::Relaxed), 8_000);
}
