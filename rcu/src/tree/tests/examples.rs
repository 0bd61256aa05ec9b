//! One event at a time.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use hal::Native;
use hal::platform::TaskId;

use crate::callbacks::Segment;
use crate::head::Head;
use crate::tree::{
    Action, Driver, Due, Geometry, Holdout, Interrupted, Limits, Next, Node, PerCpu, Reader, Readers, Timing,
    Tree, Which,
};

const KERNEL: Interrupted = Interrupted::Kernel { preemptible: true, in_reader: false };
const READER: Interrupted = Interrupted::Kernel { preemptible: true, in_reader: true };

/// A tree whose CPUs are all up. Leaked: what a failed test leaves in its lists is not to be dropped.
fn tree(shape: Geometry, readers: Readers) -> Tree<'static, Native> {
    let nodes = Box::leak((0..shape.nodes()).map(|_| Node::new()).collect::<Box<[_]>>());
    let cpus = Box::leak((0..shape.cpus()).map(|_| PerCpu::new()).collect::<Box<[_]>>());
    let tree = Tree::new(shape, readers, nodes, cpus);
    (0..shape.cpus()).for_each(|cpu| tree.cpu_up(cpu));
    tree
}

fn name(number: usize) -> TaskId {
    TaskId(NonZeroUsize::new(number * TaskId::ALIGN).unwrap())
}

/// Steps until the driver wants to wait; says what it wants then, and what it did.
fn drive(driver: &mut Driver<'_, '_, Native>, cpu: u32, now: u64) -> (Next, Vec<Action>) {
    let mut actions = Vec::new();
    loop {
        let next = driver.step(cpu, now, |action| actions.push(action));
        if next != Next::Again {
            return (next, actions);
        }
    }
}

#[test]
fn when_all_others_are_idle_a_period_ends_without_waiting_for_anything() {
    let tree = tree(Geometry::with_fan_out(9, 2, 2), Readers::NonPreemptible);
    let mut driver = Driver::new(&tree);
    for cpu in 1..9 {
        assert_eq!(tree.idle_enter(cpu), Due::NOTHING);
    }
    let (cookie, due) = tree.start_poll(0);
    assert!(due.wake_driver);
    let (next, actions) = drive(&mut driver, 0, 0);
    assert!(tree.poll(cookie));
    assert_eq!(next, Next::Sleep);
    assert!(actions.contains(&Action::Ended(cookie)) && !actions.contains(&Action::Interrupt(1)));
}

#[test]
fn a_cpu_that_goes_idle_reports_and_need_not_be_scanned() {
    let tree = tree(Geometry::new(2), Readers::NonPreemptible);
    let mut driver = Driver::new(&tree);
    let (cookie, _) = tree.start_poll(0);
    assert_eq!(drive(&mut driver, 0, 0).0, Next::Until(Timing::DEFAULT.scan));
    assert!(tree.idle_enter(1).wake_driver);
    let _ = drive(&mut driver, 0, 0);
    assert!(tree.poll(cookie));
}

#[test]
fn waiters_share_a_period() {
    let tree = tree(Geometry::new(40), Readers::NonPreemptible);
    let (first, due) = tree.start_poll(0);
    assert!(due.wake_driver);
    for cpu in 1..40 {
        assert_eq!(tree.start_poll(cpu), (first, Due::NOTHING));
    }
}

#[test]
fn a_busy_cpu_is_nudged_and_then_interrupted_and_then_called_stalled() {
    let tree = tree(Geometry::new(2), Readers::NonPreemptible);
    let mut driver = Driver::new(&tree);
    let (cookie, _) = tree.start_poll(0);
    let Timing { nudge, interrupt, stall, .. } = Timing::DEFAULT;
    let _ = drive(&mut driver, 0, 0);
    assert_eq!(drive(&mut driver, 0, nudge - 1).1, []);
    assert_eq!(drive(&mut driver, 0, 2 * nudge).1, [Action::Nudge(1)]);
    assert_eq!(drive(&mut driver, 0, interrupt).1, [Action::Interrupt(1)]);
    assert_eq!(drive(&mut driver, 0, stall).1, [Action::Stalled(stall), Action::Interrupt(1)]);
    let mut holdouts = Vec::new();
    tree.holdouts(Which::Normal, |who| holdouts.push(who));
    assert_eq!(holdouts, [Holdout::Cpu(1)]);
    // Its tick cannot tell whether it is in a reader.
    assert_eq!(tree.check_tick(1, stall, KERNEL), Due { reschedule: true, ..Due::NOTHING });
    assert!(tree.note_context_switch(1, None).wake_driver);
    let _ = drive(&mut driver, 0, stall);
    assert!(tree.poll(cookie));
}

#[test]
fn with_preemptible_readers_a_tick_outside_of_one_reports() {
    let tree = tree(Geometry::new(2), Readers::Preemptible);
    let mut driver = Driver::new(&tree);
    let (cookie, _) = tree.start_poll(0);
    let _ = drive(&mut driver, 0, 0);
    assert_eq!(tree.check_tick(1, 1, READER), Due { attention: true, ..Due::NOTHING });
    let in_softirq = Interrupted::Kernel { preemptible: false, in_reader: false };
    assert_eq!(tree.check_tick(1, 1, in_softirq), Due { reschedule: true, ..Due::NOTHING });
    assert!(tree.check_tick(1, 1, KERNEL).wake_driver);
    let _ = drive(&mut driver, 0, 1);
    assert!(tree.poll(cookie));
}

#[test]
fn a_preempted_reader_holds_up_exactly_the_periods_that_began_after_it() {
    let tree = tree(Geometry::new(2), Readers::Preemptible);
    let mut driver = Driver::new(&tree);
    // One that begins after its CPU has reported does not hold the period up.
    let (young, old) = (Box::pin(Reader::new()), Box::pin(Reader::new()));
    let (first, _) = tree.start_poll(0);
    assert_eq!(tree.note_context_switch(0, Some((old.as_ref(), name(1)))), Due::NOTHING);
    let _ = drive(&mut driver, 1, 0);
    assert!(!tree.poll(first));
    let _ = tree.quiescent(0);
    assert_eq!(tree.note_context_switch(0, Some((young.as_ref(), name(2)))), Due::NOTHING);
    let mut holdouts = Vec::new();
    tree.holdouts(Which::Normal, |who| holdouts.push(who));
    assert_eq!(holdouts, [Holdout::Task(name(1))]);
    // A second preemption in the same section changes nothing.
    let _ = tree.note_context_switch(1, Some((old.as_ref(), name(1))));
    assert_eq!(tree.node(0).blocked, 2);
    assert!(tree.reader_done(old.as_ref()).wake_driver);
    assert_eq!(tree.reader_done(old.as_ref()), Due::NOTHING);
    let _ = drive(&mut driver, 1, 0);
    assert!(tree.poll(first));
    // The next one it does hold up.
    let (second, _) = tree.start_poll(0);
    let _ = drive(&mut driver, 1, 0);
    let _ = tree.quiescent(0);
    assert!(!tree.poll(second));
    let boost = Timing::DEFAULT.boost;
    assert_eq!(drive(&mut driver, 1, boost).1, [Action::Boost(name(2))]);
    assert_eq!(drive(&mut driver, 1, 2 * boost).1, [], "boosted already");
    assert!(tree.reader_done(young.as_ref()).wake_driver);
    let _ = drive(&mut driver, 1, boost);
    assert!(tree.poll(second));
}

#[test]
#[should_panic(expected = "ended inside of a read-side critical section")]
fn a_task_that_ends_inside_of_a_reader() {
    let tree = tree(Geometry::new(1), Readers::Preemptible);
    let reader = Box::pin(Reader::new());
    let _ = tree.note_context_switch(0, Some((reader.as_ref(), name(1))));
}

unsafe fn nothing(_: NonNull<Head>) {}

#[test]
fn a_callback_passes_through_the_segments() {
    let tree = tree(Geometry::new(1), Readers::NonPreemptible);
    let mut driver = Driver::new(&tree);
    let heads: [&'static Head; 3] = std::array::from_fn(|_| &*Box::leak(Box::new(Head::new())));
    let segment = || tree.backlog(0).segments.iter().position(|&len| len != 0).map(|at| Segment::ALL[at]);
    // SAFETY: leaked; `nothing` may be called anywhere.
    let due = unsafe { tree.call(0, NonNull::from(heads[0]), nothing) };
    assert_eq!((due, segment()), (Due { process: true, ..Due::NOTHING }, Some(Segment::Next)));
    assert_eq!(tree.next_event(0), Some(0));
    // SAFETY: as above.
    let due = unsafe { tree.call(0, NonNull::from(heads[1]), nothing) };
    assert_eq!(due, Due::NOTHING, "the first one has said so");
    assert_eq!(tree.process(0), Due { wake_driver: true, ..Due::NOTHING });
    assert_eq!((segment(), tree.next_event(0)), (Some(Segment::Wait), None));
    let _ = drive(&mut driver, 0, 0);
    assert_eq!(tree.note_context_switch(0, None), Due { process: true, ..Due::NOTHING });
    assert_eq!(tree.process(0), Due::NOTHING);
    assert_eq!((segment(), tree.next_event(0)), (Some(Segment::Done), Some(0)));
    // SAFETY: as above.
    let ran = unsafe { tree.run_ready(0, |called| called == 1) };
    assert_eq!((ran.called, ran.more), (1, true));
    // SAFETY: as above.
    let ran = unsafe { tree.run_ready(0, |_| false) };
    assert_eq!((ran.called, ran.more, tree.backlog(0).total()), (1, false, 0));
    // A lazy one waits until it is old.
    // SAFETY: as above.
    let due = unsafe { tree.call_lazy(0, NonNull::from(heads[2]), nothing, 5) };
    assert_eq!((due, tree.process(0)), (Due::NOTHING, Due::NOTHING));
    let old = 5 + Limits::DEFAULT.lazy_ns;
    assert_eq!(tree.next_event(0), Some(old));
    assert_eq!(tree.check_tick(0, old - 1, KERNEL), Due::NOTHING);
    assert_eq!(tree.check_tick(0, old, KERNEL), Due { process: true, ..Due::NOTHING });
    assert!(tree.process(0).wake_driver);
    let _ = drive(&mut driver, 0, old);
    let _ = tree.process(0);
    // SAFETY: as above.
    assert_eq!(unsafe { tree.run_ready(0, |_| false) }.called, 1);
}

#[test]
fn an_idle_cpu_is_told_when_its_callbacks_are_due() {
    let tree = tree(Geometry::new(2), Readers::NonPreemptible);
    let mut driver = Driver::new(&tree);
    let head: &'static Head = Box::leak(Box::new(Head::new()));
    // SAFETY: leaked; `nothing` may be called anywhere.
    let _ = unsafe { tree.call(1, NonNull::from(head), nothing) };
    assert!(tree.process(1).wake_driver);
    let _ = tree.idle_enter(1);
    assert!(drive(&mut driver, 0, 0).1.contains(&Action::Process(1)));
    let _ = tree.process(1);
    // SAFETY: as above.
    assert_eq!(unsafe { tree.run_ready(1, |_| false) }.called, 1);
}

#[test]
fn batches_grow_with_the_backlog_and_lose_their_limit_in_a_flood() {
    let limits = Limits { batch: 4, high: 100, low: 10, flood: 150, ..Limits::DEFAULT };
    let tree = tree(Geometry::new(1), Readers::NonPreemptible).with_limits(limits);
    let mut driver = Driver::new(&tree);
    let heads: &'static [Head] = Box::leak((0..230).map(|_| Head::new()).collect::<Box<[_]>>());
    let mut queued = heads.iter();
    let mut run_with = |count: usize| {
        let mut flooded = false;
        for head in queued.by_ref().take(count) {
            // SAFETY: leaked; `nothing` may be called anywhere.
            flooded |= unsafe { tree.call(0, NonNull::from(head), nothing) }.flooded;
        }
        let _ = tree.process(0);
        let _ = drive(&mut driver, 0, 0);
        let _ = tree.process(0);
        // SAFETY: as above.
        (unsafe { tree.run_ready(0, |_| false) }.called, flooded)
    };
    assert_eq!(run_with(10), (4, false));
    assert_eq!(run_with(58), (8, false)); // 64 wait
    assert_eq!(run_with(95), (151, true)); // 56 were left
    // SAFETY: as above.
    assert_eq!(unsafe { tree.run_ready(0, |_| false) }.called, 0);
}

#[test]
fn a_driver_that_does_not_run_is_noticed() {
    let tree = tree(Geometry::new(1), Readers::NonPreemptible);
    let stall = Timing::DEFAULT.stall;
    let late = 10 * stall;
    assert!(!tree.check_tick(0, late, KERNEL).driver_starves, "there is nothing for it to do");
    let _ = tree.start_poll(0);
    assert!(!tree.check_tick(0, late + stall / 2, KERNEL).driver_starves, "it is counted from here on");
    assert!(
        !tree.check_tick(0, late, KERNEL).driver_starves,
        "another CPU, which was quicker to read the clock"
    );
    assert!(!tree.check_tick(0, late + stall / 2 + stall, KERNEL).driver_starves);
    assert!(tree.check_tick(0, late + stall / 2 + stall + 1, KERNEL).driver_starves);
    let mut driver = Driver::new(&tree);
    let _ = driver.step(0, late + 2 * stall, |_| ());
    assert!(!tree.check_tick(0, late + 2 * stall + 1, KERNEL).driver_starves);
}

/// The sequence numbers begin shortly before they wrap, and a CPU that was idle all the time is not misled.
#[test]
fn a_cpu_that_was_idle_while_the_numbers_wrapped() {
    let tree = tree(Geometry::with_fan_out(3, 1, 2), Readers::NonPreemptible);
    let mut driver = Driver::new(&tree);
    let _ = tree.idle_enter(2);
    for period in 0..600 {
        let (cookie, due) = tree.start_poll(0);
        assert!(due.wake_driver);
        let _ = drive(&mut driver, 0, period);
        assert!(!tree.poll(cookie));
        if period == 300 {
            tree.idle_exit(2);
            let _ = tree.quiescent(2);
            let _ = tree.idle_enter(2);
        }
        assert!(tree.quiescent(1).wake_driver);
        let _ = drive(&mut driver, 0, period);
        assert!(tree.poll(cookie));
    }
    assert_eq!(tree.completed(), 600);
}

#[test]
fn full_cookies_take_either() {
    let tree = tree(Geometry::new(2), Readers::NonPreemptible);
    let _ = tree.idle_enter(1);
    let full = tree.get_state_full();
    assert!(!tree.poll_full(full));
    assert!(tree.try_expedite(0, |_| ()));
    assert!(tree.poll_full(full));
    let (full, due) = tree.start_poll_full(0);
    assert!(due.wake_driver && !tree.poll_full(full));
    let _ = drive(&mut Driver::new(&tree), 0, 0);
    assert!(tree.poll_full(full));
}
