//! Rounds against a model, and tasklets on one CPU.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hal::Platform;
use proptest::prelude::*;

use super::{Budget, Ending, Running, Source, Tasklet, TaskletQueue, Vector, serve};
use crate::context::SoftirqGuard;
use crate::test_platform::{Journaling, collect_reports, reports, reschedule_comes_due, time_passes};
use crate::{BottomHalf, Cpu, SpinLock};

/// What handling a softirq does, besides being noted: raises others, takes time, makes a reschedule due.
#[derive(Clone, Debug)]
struct Reaction {
    raises: Vec<u32>,
    ns: u64,
    reschedule: bool,
}

/// Pending bits, and reactions that are used up one by one.
struct Scripted {
    pending: Cell<u32>,
    reactions: RefCell<Vec<Reaction>>,
    log: RefCell<Vec<Vec<u32>>>,
}

impl Source<Journaling> for Scripted {
    fn pending(&self) -> u32 {
        assert_eq!(Journaling::irq_depth(), 1);
        self.pending.get()
    }
    fn take(&self) -> u32 {
        assert_eq!(Journaling::irq_depth(), 1);
        self.pending.take()
    }
    fn run(&self, vectors: u32, _: &SoftirqGuard<Journaling>) {
        assert_eq!(Journaling::irq_depth(), 0);
        assert!(Journaling::context().in_serving_softirq());
        let round = Vector::in_mask(vectors).map(Vector::index).collect::<Vec<_>>();
        for _ in &round {
            let Some(reaction) = self.reactions.borrow_mut().pop() else { continue };
            reaction.raises.iter().for_each(|vector| self.pending.set(self.pending.get() | 1 << vector));
            time_passes(reaction.ns);
            if reaction.reschedule {
                reschedule_comes_due();
            }
        }
        self.log.borrow_mut().push(round);
    }
}

/// The same with a set, from the rules as the documentation puts them.
fn model(first: u32, mut reactions: Vec<Reaction>, budget: Budget) -> (Vec<Vec<u32>>, Ending, u32) {
    let mut pending: BTreeSet<u32> = (0..10).filter(|vector| first & 1 << vector != 0).collect();
    let (mut log, mut now, mut end, mut due) = (Vec::new(), 0, None, false);
    loop {
        if pending.is_empty() {
            return (log, Ending::Served, 0);
        }
        let round: Vec<u32> = std::mem::take(&mut pending).into_iter().collect();
        for _ in &round {
            if let Some(reaction) = reactions.pop() {
                pending.extend(reaction.raises);
                now += reaction.ns;
                due |= reaction.reschedule;
            }
        }
        log.push(round);
        let first_end = *end.get_or_insert(now);
        let ending = if pending.is_empty() {
            Ending::Served
        } else if log.len() as u32 >= budget.rounds {
            Ending::OutOfRounds
        } else if due {
            Ending::RescheduleDue
        } else if now - first_end >= budget.ns {
            Ending::OutOfTime
        } else {
            continue;
        };
        return (log, ending, pending.iter().map(|vector| 1 << vector).sum());
    }
}

fn reaction() -> impl Strategy<Value = Reaction> {
    (prop::collection::vec(0..10_u32, 0..3), 0..60_u64, prop::bool::weighted(0.03))
        .prop_map(|(raises, ns, reschedule)| Reaction { raises, ns, reschedule })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(2_000)))]
    #[test]
    fn rounds_are_as_the_model_says(
        first in 0..1024_u32,
        reactions in prop::collection::vec(reaction(), 0..60),
        rounds in 1..12_u32,
        ns in 1..400_u64,
    ) {
        Journaling::clear_need_resched();
        let budget = Budget { rounds, ns };
        let source = Scripted {
            pending: Cell::new(first),
            reactions: RefCell::new(reactions.clone()),
            log: RefCell::default(),
        };
        let ending = as_softirq(true, |serving| serve(&source, budget, serving));
        Journaling::clear_need_resched();
        prop_assert_eq!(model(first, reactions, budget), (source.log.take(), ending, source.pending.get()));
    }
}

/// Runs `body` as a softirq, with interrupts off or on.
fn as_softirq<R>(irqs_off: bool, body: impl FnOnce(&SoftirqGuard<Journaling>) -> R) -> R {
    if irqs_off {
        Journaling::irq_disable();
    }
    // SAFETY: a task of the test's; the guard goes before it goes on.
    let serving = unsafe { Cpu::<Journaling>::enter_softirq() };
    let result = body(&serving);
    drop(serving);
    if irqs_off {
        Journaling::irq_enable();
    }
    result
}

type Queue = TaskletQueue<Journaling>;

fn run(queue: &Queue) -> usize {
    as_softirq(false, |serving| queue.run(serving))
}

#[test]
fn vectors_and_their_numbers() {
    for (index, vector) in Vector::ALL.into_iter().enumerate() {
        assert_eq!((vector.index() as usize, Vector::from_index(index as u32)), (index, Some(vector)));
    }
    assert_eq!(Vector::from_index(10), None);
    assert_eq!(Vector::from_index(32), None);
    let names: BTreeSet<_> = Vector::ALL.map(Vector::name).into_iter().collect();
    assert_eq!(names.len(), Vector::COUNT);
}

#[test]
fn tasklets_run_in_order_and_once() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tasklet = |number: u32| {
        let order = Arc::clone(&order);
        Arc::new(Tasklet::new_in(move |_: &Running<'_, Journaling>| order.lock().unwrap().push(number)))
    };
    let (queue, tasklets) = (Queue::new(Vector::High), [tasklet(0), tasklet(1), tasklet(2)]);
    for tasklet in &tasklets {
        assert!(queue.schedule(Arc::clone(tasklet)) && !queue.schedule(Arc::clone(tasklet)));
        assert_eq!((Arc::strong_count(tasklet), tasklet.is_scheduled()), (2, true));
    }
    assert_eq!((run(&queue), run(&queue)), (3, 0));
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    assert!(tasklets.iter().all(|tasklet| Arc::strong_count(tasklet) == 1 && !tasklet.is_scheduled()));
}

#[test]
fn who_is_queued_is_owned_by_the_queue() {
    struct Noted(Arc<AtomicU32>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (dropped, queue) = (Arc::new(AtomicU32::new(0)), Queue::new(Vector::Tasklet));
    let noted = Noted(Arc::clone(&dropped));
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    // A box: nobody else has it, and it goes with its last run.
    queue.schedule(Box::new(Tasklet::new_in(move |running: &Running<'_, Journaling>| {
        let _ = &noted;
        if count.fetch_add(1, Ordering::Relaxed) < 2 {
            assert!(running.again() && !running.again());
        }
    })));
    for round in 1..=3 {
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        assert_eq!((run(&queue), runs.load(Ordering::Relaxed)), (1, round));
    }
    assert_eq!((dropped.load(Ordering::Relaxed), run(&queue)), (1, 0));
}

#[test]
fn disabled_tasklets_wait_aside() {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    static TASKLET: Tasklet<fn(&Running<'_, Journaling>), Journaling> = Tasklet::new_in(|_| {
        RUNS.fetch_add(1, Ordering::Relaxed);
    });
    let queue = Queue::new(Vector::Tasklet);
    let (first, second) = (TASKLET.disable_no_wait(), TASKLET.disable_no_wait());
    assert!(queue.schedule(&TASKLET));
    assert_eq!((run(&queue), run(&queue)), (0, 0));
    assert!(TASKLET.is_scheduled() && TASKLET.is_disabled() && !queue.schedule(&TASKLET));
    first.enable(&queue);
    assert_eq!(run(&queue), 0);
    second.enable(&queue);
    assert_eq!((run(&queue), run(&queue), RUNS.load(Ordering::Relaxed)), (1, 0, 1));
    // Enabled before the runner came by.
    let off = TASKLET.disable_no_wait();
    assert!(queue.schedule(&TASKLET));
    off.enable(&queue);
    assert_eq!((run(&queue), RUNS.load(Ordering::Relaxed)), (1, 2));
}

#[test]
fn what_is_killed_does_not_run_and_is_let_go_of() {
    let queue = Queue::new(Vector::Tasklet);
    let tasklet = || Arc::new(Tasklet::new_in(|_: &Running<'_, Journaling>| panic!("it was killed")));
    // SAFETY: the test is its task's only user.
    let mut cx = unsafe { crate::TaskCx::<Journaling>::new_in() };
    let parked = tasklet();
    let _off = parked.disable_no_wait();
    queue.schedule(Arc::clone(&parked));
    assert_eq!((run(&queue), Arc::strong_count(&parked)), (0, 2));
    parked.kill(&mut cx);
    assert_eq!((Arc::strong_count(&parked), parked.is_scheduled(), parked.is_killed()), (1, false, true));
    assert!(!queue.schedule(Arc::clone(&parked)) && Arc::strong_count(&parked) == 1);
}

#[test]
fn queues_of_dead_cpus_are_inherited_in_order() {
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (dead, mine) = (Queue::new(Vector::Tasklet), Queue::new(Vector::Tasklet));
    for number in 0..3 {
        let order = Arc::clone(&order);
        dead.schedule(Box::new(Tasklet::new_in(move |_: &Running<'_, Journaling>| {
            order.lock().unwrap().push(number);
        })));
    }
    assert_eq!((mine.inherit(&dead), run(&dead), run(&mine)), (3, 0, 3));
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn a_function_that_leaks_a_section_is_named() {
    collect_reports();
    let queue = Queue::new(Vector::Tasklet);
    queue.schedule(Box::new(Tasklet::new_in(|running: &Running<'_, Journaling>| {
        let data = SpinLock::<u32, BottomHalf<Journaling>>::new(1);
        *data.lock_with(running.softirq()) += 1;
        std::mem::forget(Cpu::<Journaling>::disable_preemption());
    })));
    run(&queue);
    let reports = reports();
    assert!(
        reports.len() == 1 && reports[0].contains("tasklet preempt leak 00000100 -> 00000101 at"),
        "{reports:?}"
    );
    assert!(reports[0].contains("softirq/tests.rs"), "{reports:?}");
}
