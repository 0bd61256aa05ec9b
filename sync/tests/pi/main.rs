//! Inherited priorities, compared step by step with what the state of all mutexes implies.
//!
//! Tasks are host threads that do what they are told, one thing at a time. After each thing all threads have done it or
//! sleep, so that nothing is in progress, and what the platform was told must be what a plain model says: who holds and
//! waits for what, and from that the priorities by their definition.
#![cfg(not(any(loom, shuttle)))]

mod platform;

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};

use hal::hosted;
use hal::platform::TaskId;
use platform::{Known, Prioritised, register, reports_of};
use proptest::prelude::*;
use sync::pi::priority_changed;
use sync::wait::{Limits, WaitError};
use sync::{PiMutex, TaskCx};

const TASKS: usize = 5;
const MUTEXES: usize = 4;

type Mutexes = [PiMutex<u64, Prioritised>; MUTEXES];

/// What a task is told to do.
#[derive(Clone, Copy, Debug)]
enum Order {
    Lock(usize),
    TryLock(usize),
    Unlock(usize),
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Done,
    Locked(bool),
    Cancelled,
}

/// One task: the thread's side.
fn obey(mutexes: &Mutexes, orders: &Receiver<Order>, outcomes: &Sender<Outcome>) {
    // SAFETY: the thread is a task, this is its only token, and nothing is switched off.
    let mut cx = unsafe { TaskCx::<Prioritised>::new_in() };
    let mut held: [_; MUTEXES] = std::array::from_fn(|_| None);
    for order in orders {
        let outcome = match order {
            Order::Lock(m) => match mutexes[m].lock_with(Limits::NONE.cancellable(), &mut cx) {
                Ok(mut guard) => {
                    *guard += 1;
                    held[m] = Some(guard);
                    Outcome::Locked(true)
                }
                Err(WaitError::Cancelled) => Outcome::Cancelled,
                Err(WaitError::TimedOut) => unreachable!("there is no deadline"),
            },
            Order::TryLock(m) => {
                held[m] = mutexes[m].try_lock();
                Outcome::Locked(held[m].is_some())
            }
            Order::Unlock(m) => {
                held[m] = None;
                Outcome::Done
            }
        };
        outcomes.send(outcome).unwrap();
    }
}

/// One task: the test's side.
struct Puppet {
    task: TaskId,
    known: &'static Known,
    orders: Sender<Order>,
    outcomes: Receiver<Outcome>,
}

impl Puppet {
    /// Tells it to do something; `None`: it sleeps over it.
    fn order(&self, order: Order) -> Option<Outcome> {
        self.known.sleeps.store(false, Ordering::Relaxed);
        self.orders.send(order).unwrap();
        loop {
            if let Ok(outcome) = self.outcomes.try_recv() {
                return Some(outcome);
            }
            // Acquire: pairs with the Release in `block`; what it told the platform before is there.
            if self.known.sleeps.load(Ordering::Acquire) {
                return None;
            }
            std::thread::yield_now();
        }
    }

    /// What became of something that it slept over.
    fn outcome(&self) -> Outcome {
        let patience = std::time::Duration::from_secs(60);
        self.outcomes.recv_timeout(patience).expect("it is another one's turn, or nobody's")
    }

    fn cancel(&self) -> Outcome {
        self.known.cancelled.store(true, Ordering::Relaxed);
        // SAFETY: it has not ended.
        unsafe { <Prioritised as hal::Platform>::wake(self.task) };
        let outcome = self.outcome();
        self.known.cancelled.store(false, Ordering::Relaxed);
        outcome
    }
}

/// Calls `f` with tasks that do what they are told.
fn with_puppets<R>(f: impl FnOnce(&Mutexes, &[Puppet]) -> R) -> R {
    let mutexes: Mutexes = std::array::from_fn(|_| PiMutex::new(0));
    std::thread::scope(|scope| {
        let puppets: Vec<Puppet> = (0..TASKS)
            .map(|_| {
                let (orders, to_obey) = channel();
                let (tell, outcomes) = channel();
                let (introduce, introduced) = channel();
                let mutexes = &mutexes;
                scope.spawn(move || {
                    let _cpu = hosted::bind().unwrap();
                    introduce.send(register(1)).unwrap();
                    obey(mutexes, &to_obey, &tell);
                });
                let (task, known) = introduced.recv().unwrap();
                Puppet { task, known, orders, outcomes }
            })
            .collect();
        let _cpu = hosted::bind().unwrap();
        f(&mutexes, &puppets)
    })
}

/// Who holds and waits for what.
#[derive(Debug)]
struct Model {
    owner: [Option<usize>; MUTEXES],
    line: [Vec<usize>; MUTEXES],
    own: [u32; TASKS],
}

impl Model {
    fn new() -> Model {
        Model { owner: [None; MUTEXES], line: std::array::from_fn(|_| Vec::new()), own: [1; TASKS] }
    }

    fn waits_for(&self, task: usize) -> Option<usize> {
        self.line.iter().position(|line| line.contains(&task))
    }

    /// By definition: the greatest of those who wait for what it holds.
    fn inherited(&self, task: usize) -> u32 {
        let held = (0..MUTEXES).filter(|&m| self.owner[m] == Some(task));
        held.flat_map(|m| &self.line[m]).map(|&waiter| self.urgency(waiter)).max().unwrap_or(0)
    }

    fn urgency(&self, task: usize) -> u32 {
        self.own[task].max(self.inherited(task))
    }

    /// Whether `task` would wait for itself if it waited for the mutex.
    fn closes_a_circle(&self, task: usize, mutex: usize) -> bool {
        let Some(owner) = self.owner[mutex] else { return false };
        owner == task || self.waits_for(owner).is_some_and(|next| self.closes_a_circle(task, next))
    }

    /// Who is next: the first of the most urgent.
    fn successor(&self, mutex: usize) -> Option<usize> {
        let greatest = self.line[mutex].iter().map(|&task| self.urgency(task)).max()?;
        self.line[mutex].iter().copied().find(|&task| self.urgency(task) == greatest)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Lock(usize, usize),
    TryLock(usize, usize),
    Unlock(usize, usize),
    Cancel(usize),
    SetPriority(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let (task, mutex) = (0..TASKS, 0..MUTEXES);
    prop_oneof![
        6 => (task.clone(), mutex.clone()).prop_map(|(t, m)| Step::Lock(t, m)),
        1 => (task.clone(), mutex.clone()).prop_map(|(t, m)| Step::TryLock(t, m)),
        4 => (task.clone(), mutex).prop_map(|(t, m)| Step::Unlock(t, m)),
        1 => task.clone().prop_map(Step::Cancel),
        3 => (task, 1..8_u32).prop_map(|(t, p)| Step::SetPriority(t, p)),
    ]
}

/// Does the step on both sides, if it can be done now.
fn perform(step: Step, model: &mut Model, puppets: &[Puppet]) {
    match step {
        Step::Lock(t, m) if model.waits_for(t).is_none() && !model.closes_a_circle(t, m) => {
            let outcome = puppets[t].order(Order::Lock(m));
            if model.owner[m].is_none() {
                assert_eq!(outcome, Some(Outcome::Locked(true)));
                model.owner[m] = Some(t);
            } else {
                assert_eq!(outcome, None);
                model.line[m].push(t);
            }
        }
        Step::TryLock(t, m) if model.waits_for(t).is_none() && model.owner[m] != Some(t) => {
            let is_free = model.owner[m].is_none();
            assert_eq!(puppets[t].order(Order::TryLock(m)), Some(Outcome::Locked(is_free)));
            model.owner[m] = model.owner[m].or(Some(t));
        }
        Step::Unlock(t, m) if model.waits_for(t).is_none() && model.owner[m] == Some(t) => {
            let next = model.successor(m);
            assert_eq!(puppets[t].order(Order::Unlock(m)), Some(Outcome::Done));
            model.owner[m] = next;
            if let Some(next) = next {
                model.line[m].retain(|&task| task != next);
                assert_eq!(puppets[next].outcome(), Outcome::Locked(true));
            }
        }
        Step::Cancel(t) if model.waits_for(t).is_some() => {
            assert_eq!(puppets[t].cancel(), Outcome::Cancelled);
            model.line.iter_mut().for_each(|line| line.retain(|&task| task != t));
        }
        Step::SetPriority(t, priority) => {
            model.own[t] = priority;
            puppets[t].known.own.store(priority, Ordering::Relaxed);
            // SAFETY: the task has not ended.
            unsafe { priority_changed::<Prioritised>(puppets[t].task) };
        }
        _ => (),
    }
}

fn compare(model: &Model, mutexes: &Mutexes, puppets: &[Puppet]) {
    for (t, puppet) in puppets.iter().enumerate() {
        let told = puppet.known.told.load(Ordering::Relaxed);
        assert_eq!(told, model.inherited(t), "task {t} inherits, in {model:?}");
        assert_eq!(puppet.known.kept.inherited().0, told);
    }
    for (m, mutex) in mutexes.iter().enumerate() {
        assert_eq!(mutex.owner(), model.owner[m].map(|t| puppets[t].task));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(test_support::cases(64)) })]

    #[test]
    fn each_owner_is_as_urgent_as_who_waits_for_it(steps in prop::collection::vec(step(), 1..120)) {
        with_puppets(|mutexes, puppets| {
            let mut model = Model::new();
            for step in steps {
                perform(step, &mut model, puppets);
                compare(&model, mutexes, puppets);
            }
            // Everybody lets go. Who sleeps is served by then.
            while model.owner.iter().any(Option::is_some) {
                for t in 0..TASKS {
                    for m in 0..MUTEXES {
                        perform(Step::Unlock(t, m), &mut model, puppets);
                    }
                }
            }
            compare(&model, mutexes, puppets);
            assert!(puppets.iter().all(|puppet| puppet.known.told.load(Ordering::Relaxed) == 0));
        });
    }
}

#[test]
fn a_circle_is_reported_when_it_is_closed() {
    with_puppets(|_, puppets| {
        for (t, puppet) in puppets.iter().enumerate().take(3) {
            assert_eq!(puppet.order(Order::Lock(t)), Some(Outcome::Locked(true)));
        }
        assert_eq!(puppets[0].order(Order::Lock(1)), None);
        assert_eq!(puppets[1].order(Order::Lock(2)), None);
        assert_eq!(reports_of("pi mutex deadlock"), 0);
        assert_eq!(puppets[2].order(Order::Lock(0)), None);
        assert_eq!(reports_of("pi mutex deadlock"), 1);
        assert_eq!(puppets[2].cancel(), Outcome::Cancelled);
        assert_eq!(puppets[2].order(Order::Lock(2)), None);
        assert_eq!(reports_of("pi mutex recursion"), 1);
        assert_eq!(puppets[2].cancel(), Outcome::Cancelled);
        // The circle is open again, and the others get on.
        assert_eq!(puppets[2].order(Order::Unlock(2)), Some(Outcome::Done));
        assert_eq!(puppets[1].outcome(), Outcome::Locked(true));
        assert_eq!(puppets[1].order(Order::Unlock(1)), Some(Outcome::Done));
        assert_eq!(puppets[0].outcome(), Outcome::Locked(true));
    });
}

#[test]
fn a_task_that_ends_as_the_owner_is_reported() {
    let mutex = PiMutex::<u32, Prioritised>::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _cpu = hosted::bind().unwrap();
            let (_, known) = register(1);
            core::mem::forget(mutex.try_lock());
            // SAFETY: never used again: the thread ends.
            unsafe { core::ptr::drop_in_place((&raw const known.kept).cast_mut()) };
        });
    });
    assert_eq!(reports_of("a task ends while it holds a PiMutex"), 1);
}

/// All at once, and nobody tells them when: nothing may be left over.
#[test]
fn walks_that_cross_leave_nothing_behind() {
    let mutexes: Mutexes = std::array::from_fn(|_| PiMutex::new(0));
    let known = hosted::run_cpus(TASKS, |number| {
        let (task, known) = register(number as u32 + 1);
        // SAFETY: the thread is a task, this is its only token, and nothing is switched off.
        let mut cx = unsafe { TaskCx::<Prioritised>::new_in() };
        let mut random = number as u32 + 1;
        for _ in 0..1_500 {
            // xorshift
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let first = random as usize % MUTEXES;
            let deadline = <Prioritised as hal::Platform>::now_ns() + u64::from(random >> 12 & 0xffff);
            let limits = if random & 0x40 == 0 { Limits::NONE } else { Limits::NONE.until(deadline) };
            let Ok(mut outer) = mutexes[first].lock_with(limits, &mut cx) else { continue };
            *outer += 1;
            if random & 0x80 != 0 {
                known.own.store(random >> 8 & 7, Ordering::Relaxed);
                // SAFETY: the task executes this.
                unsafe { priority_changed::<Prioritised>(task) };
            }
            // In one order, so that there are no circles.
            for inner in &mutexes[first + 1..] {
                if let Ok(mut inner) = inner.lock_with(limits, &mut cx) {
                    *inner += 1;
                    std::thread::yield_now();
                }
            }
        }
        known
    });
    assert!(known.iter().all(|known| known.told.load(Ordering::Relaxed) == 0));
    assert!(mutexes.iter().all(|mutex| !mutex.is_locked() && mutex.try_lock().is_some()));
}
