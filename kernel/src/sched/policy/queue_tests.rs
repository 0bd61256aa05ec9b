//! One run queue against a plain model: lists and floating-point numbers, searched from end to end at each question.
//!
//! Both round, so at an edge both may be right; the model says so and the run ends there. The seed is fixed, so that an
//! edge that it does not see fails no build by chance.

use std::collections::VecDeque;
use std::ptr::NonNull;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::class::Level;
use super::{
    Departure, Entity, FAIR_TURN_NS, PATIENCE_NS, Policy, ROUND_ROBIN_SLICE_NS, RunQueue, SLICE_NS, Why,
};

const MS: u64 = 1_000_000;
/// Virtual nanoseconds that are as good as none. The queue rounds to a hundredth of one, but what somebody heavy owes to
/// somebody light is that many times as much for the latter, up to 6,000.
const CLOSE: f64 = 1_000.0;

/// A queue and the entities that may be in it, which live as long.
pub(super) struct World {
    pub(super) queue: Box<RunQueue>,
    entities: Vec<NonNull<Entity>>,
}

impl World {
    pub(super) fn new(policies: impl IntoIterator<Item = Policy>) -> World {
        let make = |policy| NonNull::from(Box::leak(Box::new(Entity::new(policy))));
        World { queue: Box::new(RunQueue::new()), entities: policies.into_iter().map(make).collect() }
    }

    pub(super) fn at(&self, id: usize) -> &Entity {
        // SAFETY: they live as long as the world.
        unsafe { self.entities[id].as_ref() }
    }

    pub(super) fn enqueue(&mut self, id: usize, why: Why, now: u64) -> bool {
        // SAFETY: the callers enqueue only what is away; queue and entity stay in their boxes.
        unsafe {
            self.queue.enqueue(self.entities[id], why, now);
            self.queue.should_preempt(self.entities[id])
        }
    }

    pub(super) fn dequeue(&mut self, id: usize, why: Departure, now: u64) {
        // SAFETY: the callers dequeue only what is in the queue.
        unsafe { self.queue.dequeue(self.entities[id], why, now) }
    }

    pub(super) fn set_policy(&mut self, id: usize, policy: Policy, now: u64) -> bool {
        // SAFETY: it is in this queue, or away.
        unsafe { self.queue.set_policy(self.entities[id], policy, now) }
    }

    pub(super) fn id(&self, entity: NonNull<Entity>) -> usize {
        self.entities.iter().position(|known| *known == entity).expect("an entity of this world")
    }

    pub(super) fn pick(&mut self, now: u64) -> Option<usize> {
        self.queue.pick(now).map(|entity| self.id(entity))
    }

    pub(super) fn current(&self) -> Option<usize> {
        self.queue.current().map(|entity| self.id(entity))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        while let Some(entity) = self.queue.pick(0) {
            // SAFETY: the current one.
            unsafe { self.queue.dequeue(entity, Departure::Ended, 0) };
        }
        for entity in self.entities.drain(..) {
            // SAFETY: made from a box; in no queue any more.
            drop(unsafe { Box::from_raw(entity.as_ptr()) });
        }
    }
}

/// A fair task of the model. Virtual times in nanoseconds at weight 1,024.
#[derive(Clone, Debug)]
struct Fair {
    weight: f64,
    had: f64,
    deadline: f64,
}

/// What a run queue should do.
#[derive(Clone, Debug)]
struct Model {
    policies: Vec<Policy>,
    /// Fair tasks in the queue, the current one too.
    fair: Vec<Option<Fair>>,
    /// Lags and distances of deadlines of those who are not.
    left: Vec<(f64, f64)>,
    /// Who left in debt: whose, weight, virtual time.
    absent: Vec<(usize, f64, f64)>,
    debts: Vec<f64>,
    /// The average when somebody left.
    last: f64,
    levels: Vec<VecDeque<usize>>,
    turns: Vec<u64>,
    current: Option<usize>,
    since: u64,
    done: bool,
    yielded: bool,
    challenged: bool,
    turn_over: bool,
    waited: u64,
    fair_turn: bool,
    /// A slice ended or did not, somebody left in debt or did not, within what is rounded: from there on both are right.
    undecided: bool,
}

fn scale(policy: Policy) -> f64 {
    match policy {
        Policy::Fair(nice) => 1024.0 / f64::from(nice.weight()),
        _ => 1.0,
    }
}

impl Model {
    fn new(policies: &[Policy]) -> Model {
        Model {
            policies: policies.to_vec(),
            fair: vec![None; policies.len()],
            left: vec![(0.0, 0.0); policies.len()],
            absent: Vec::new(),
            debts: vec![0.0; policies.len()],
            last: 0.0,
            levels: vec![VecDeque::new(); 102],
            turns: vec![ROUND_ROBIN_SLICE_NS; policies.len()],
            current: None,
            since: 0,
            done: false,
            yielded: false,
            challenged: false,
            turn_over: false,
            waited: 0,
            fair_turn: false,
            undecided: false,
        }
    }

    fn level(&self, id: usize) -> usize {
        usize::from(self.policies[id].level().0)
    }

    fn request(&self, id: usize) -> f64 {
        SLICE_NS as f64 * scale(self.policies[id])
    }

    fn average(&self) -> Option<f64> {
        let present = self.fair.iter().flatten().map(|task| (task.weight, task.had));
        let all: Vec<(f64, f64)> = present.chain(self.absent.iter().map(|gone| (gone.1, gone.2))).collect();
        let weight: f64 = all.iter().map(|one| one.0).sum();
        (weight > 0.0).then(|| all.iter().map(|one| one.0 * one.1).sum::<f64>() / weight)
    }

    fn let_go(&mut self) {
        if self.fair.iter().all(Option::is_none) {
            self.absent.clear();
        }
        let Some(average) = self.average() else { return };
        let weight: f64 = self.absent.iter().map(|gone| gone.1).sum();
        let mean = self.absent.iter().map(|gone| gone.1 * gone.2).sum::<f64>() / weight;
        self.undecided |= (mean - average).abs() < CLOSE;
        if mean <= average {
            self.absent.clear();
        }
    }

    fn waits(&self) -> bool {
        (0..self.fair.len()).any(|id| self.fair[id].is_some() && self.current != Some(id))
    }

    fn account(&mut self, now: u64) {
        let ns = now - self.since;
        self.since = now;
        let Some(id) = self.current else { return };
        if self.level(id) == 1 {
            let request = self.request(id);
            let units = ns as f64 * scale(self.policies[id]);
            let task = self.fair[id].as_mut().unwrap();
            task.had += units;
            self.undecided |= (task.had - task.deadline).abs() < CLOSE;
            if task.had >= task.deadline {
                task.deadline = task.had + request;
                self.done = true;
            }
            self.waited = self.waited.saturating_sub(ns * (PATIENCE_NS / FAIR_TURN_NS));
            if self.waited == 0 {
                self.fair_turn = false;
            }
        } else {
            if matches!(self.policies[id], Policy::RoundRobin(_)) {
                self.turns[id] = self.turns[id].saturating_sub(ns);
                self.turn_over |= self.turns[id] == 0;
            }
            if self.waits() && self.policies[id] != Policy::Stop {
                self.waited = (self.waited + ns).min(PATIENCE_NS);
                self.fair_turn |= self.waited == PATIENCE_NS;
            }
        }
    }

    fn enqueue(&mut self, id: usize, why: Why, now: u64) {
        self.account(now);
        let level = self.level(id);
        if level != 1 {
            return self.levels[level].push_back(id);
        }
        self.let_go();
        let weight = 1024.0 / scale(self.policies[id]);
        let (mut lag, mut ahead) = self.left[id];
        match why {
            Why::New => (lag, ahead) = (0.0, self.request(id) / 2.0),
            Why::Woken => {
                ahead = self.request(id);
                if lag < 0.0 {
                    // Where the average is with the absent.
                    lag = (self.average().unwrap_or(self.last) - self.debts[id]).clamp(lag, 0.0);
                    let absent = self.absent.len();
                    let average = self.average();
                    self.absent.retain(|gone| gone.0 != id);
                    if self.absent.len() != absent {
                        // The average was with it.
                        let had = average.unwrap() - lag;
                        return self.enter(id, had, ahead);
                    }
                }
            }
            Why::Moved => {}
        }
        let others: f64 = self.fair.iter().flatten().map(|task| task.weight).sum::<f64>()
            + self.absent.iter().map(|gone| gone.1).sum::<f64>();
        let had = match self.average() {
            Some(average) => average - lag * (1.0 + weight / others),
            None => self.last,
        };
        self.enter(id, had, ahead);
    }

    fn enter(&mut self, id: usize, had: f64, ahead: f64) {
        let weight = 1024.0 / scale(self.policies[id]);
        let current = self.current.and_then(|id| self.fair[id].as_ref());
        self.challenged |= current.is_some_and(|current| had + ahead < current.deadline);
        self.fair[id] = Some(Fair { weight, had, deadline: had + ahead });
    }

    fn dequeue(&mut self, id: usize, why: Departure, now: u64) {
        self.account(now);
        let level = self.level(id);
        if level == 1 {
            let average = self.average().unwrap();
            self.last = average;
            let task = self.fair[id].take().unwrap();
            let most = 2.0 * self.request(id);
            let alone = self.fair.iter().all(Option::is_none) && self.absent.is_empty();
            let lag = if alone { 0.0 } else { (average - task.had).clamp(-most, most) };
            self.undecided |= !alone && lag.abs() < CLOSE;
            self.left[id] = (lag, task.deadline - task.had);
            self.debts[id] = average - lag;
            if lag < 0.0 && why != Departure::Moved {
                // Who has ended does not come back, even if the test uses the entity for somebody new.
                let whose = if why == Departure::Ended { usize::MAX } else { id };
                self.absent.push((whose, task.weight, average - lag));
            }
        }
        if self.current == Some(id) {
            self.current = None;
            self.new_stretch();
        } else {
            self.levels[level].retain(|other| *other != id);
        }
    }

    fn new_stretch(&mut self) {
        self.done = false;
        self.yielded = false;
        self.challenged = false;
        if self.turn_over
            && let Some(current) = self.current
        {
            self.turns[current] = ROUND_ROBIN_SLICE_NS;
        }
        self.turn_over = false;
    }

    /// Who may be picked. Several only if they are as good as equal.
    fn candidates(&mut self, now: u64) -> Vec<Option<usize>> {
        self.account(now);
        let running = self.current.map_or(0, |id| self.level(id));
        let top = (2..102).rev().find(|level| !self.levels[*level].is_empty()).unwrap_or(0);
        let fair_first = self.fair_turn && self.fair.iter().any(Option::is_some);
        if running.max(top) > 1 && !(fair_first && running.max(top) != 101) {
            if running > top || (running == top && !self.turn_over) {
                return vec![self.current];
            }
            return vec![self.levels[top].front().copied()];
        }
        self.let_go();
        let Some(average) = self.average() else { return vec![self.current] };
        let close = CLOSE;
        let mine = self.current.filter(|id| self.level(*id) == 1);
        let (mut sure, mut possible) = (f64::MAX, Vec::new());
        for (id, task) in self.fair.iter().enumerate() {
            let Some(task) = task else { continue };
            if Some(id) == mine && (self.yielded || !self.done) {
                continue;
            }
            if task.had <= average - close {
                sure = sure.min(task.deadline);
            }
            if task.had <= average + close {
                possible.push((Some(id), task.deadline));
            }
        }
        if mine.is_some() && !self.done && !self.challenged {
            return vec![mine];
        }
        if let Some(mine) = mine {
            let deadline = self.fair[mine].as_ref().unwrap().deadline;
            if self.yielded {
                // Only if there is nobody else.
                if sure == f64::MAX {
                    possible.push((Some(mine), f64::MIN));
                }
            } else if !self.done {
                sure = sure.min(deadline);
                possible.push((Some(mine), deadline));
            } else if sure == f64::MAX {
                possible.push((Some(mine), f64::MIN));
            }
        }
        possible.iter().filter(|one| one.1 <= sure + close).map(|one| one.0).collect()
    }

    fn picked(&mut self, picked: Option<usize>) {
        if picked != self.current {
            if let Some(old) = self.current {
                let level = self.level(old);
                if level != 1 && self.turn_over {
                    self.levels[level].push_back(old);
                    self.turns[old] = ROUND_ROBIN_SLICE_NS;
                    self.turn_over = false;
                } else if level != 1 {
                    self.levels[level].push_front(old);
                }
            }
            if let Some(new) = picked {
                let level = self.level(new);
                self.levels[level].retain(|other| *other != new);
            }
            self.current = picked;
        }
        self.new_stretch();
    }

    /// At a tick, whoever runs, the absent go if the average has reached them.
    fn tick(&mut self, now: u64) {
        self.account(now);
        self.let_go();
    }

    fn yields(&mut self, now: u64) {
        self.account(now);
        match self.current {
            Some(id) if self.level(id) == 1 => {
                let request = self.request(id);
                let task = self.fair[id].as_mut().unwrap();
                task.had = task.had.max(task.deadline);
                task.deadline = task.had + request;
                self.done = true;
                self.yielded = true;
            }
            _ => self.turn_over = true,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Somebody who is away comes.
    Come(usize),
    /// Somebody leaves.
    Leave(usize, Departure),
    Pick,
    Tick,
    Yield,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let departure = prop_oneof![
        3 => Just(Departure::Blocked),
        1 => Just(Departure::Moved),
        1 => Just(Departure::Ended),
    ];
    let step = prop_oneof![
        4 => any::<usize>().prop_map(Step::Come),
        2 => (any::<usize>(), departure).prop_map(|(who, why)| Step::Leave(who, why)),
        4 => Just(Step::Pick),
        3 => Just(Step::Tick),
        1 => Just(Step::Yield),
    ];
    let pause = prop_oneof![4 => 0..2 * MS, 1 => 0..1_000_u64, 1 => 0..60 * MS];
    (pause, step)
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        12 => (-20..20_i8).prop_map(Policy::fair),
        // Few levels, so that there are equals.
        2 => (1..4_u8).prop_map(|step| Policy::fifo(step * 33)),
        2 => (1..4_u8).prop_map(|step| Policy::round_robin(step * 33)),
        1 => Just(Policy::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: test_support::cases(600), rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_plain_model_does(
        policies in prop::collection::vec(policy(), 1..9),
        steps in prop::collection::vec(step(), 1..250),
    ) {
        let mut world = World::new(policies.iter().copied());
        let mut model = Model::new(&policies);
        // How each one left, or `None` while it is in.
        let mut away: Vec<Option<Departure>> = vec![Some(Departure::Ended); policies.len()];
        let mut now = 0;
        for (pause, step) in steps {
            now += pause;
            match step {
                Step::Come(who) => {
                    let id = who % policies.len();
                    let Some(left) = away[id].take() else { continue };
                    let why = match left {
                        Departure::Blocked => Why::Woken,
                        Departure::Moved => Why::Moved,
                        Departure::Ended => Why::New,
                    };
                    let preempts = world.enqueue(id, why, now);
                    model.enqueue(id, why, now);
                    // Whoever preempts is picked then, or somebody better.
                    let candidates = model.clone().candidates(now);
                    if model.undecided {
                        return Ok(());
                    }
                    prop_assert!(preempts || model.current.is_some());
                    if preempts && model.current.is_some() && candidates.len() == 1 && model.done == model.yielded && !model.turn_over {
                        prop_assert!(candidates[0] != model.current);
                    }
                }
                Step::Leave(who, why) => {
                    let id = who % policies.len();
                    if away[id].is_some() {
                        continue;
                    }
                    away[id] = Some(why);
                    world.dequeue(id, why, now);
                    model.dequeue(id, why, now);
                }
                Step::Pick => {
                    let candidates = model.candidates(now);
                    if model.undecided {
                        return Ok(());
                    }
                    let picked = world.pick(now);
                    prop_assert!(candidates.contains(&picked), "{:?} of {:?} in {:#?}", picked, candidates, model);
                    model.picked(picked);
                }
                Step::Tick => {
                    model.tick(now);
                    let candidates = model.candidates(now);
                    if model.undecided {
                        return Ok(());
                    }
                    let due = world.queue.tick(now);
                    if candidates.len() == 1 && !(model.current.is_none() && candidates[0].is_none()) {
                        prop_assert_eq!(due, candidates[0] != model.current, "{:?} in {:#?}", candidates, model);
                    }
                }
                Step::Yield => {
                    world.queue.yield_current(now);
                    model.yields(now);
                }
            }
            let inside: Vec<usize> = (0..policies.len()).filter(|id| away[*id].is_none()).collect();
            let fair = inside.iter().filter(|id| model.level(**id) == 1);
            prop_assert_eq!(world.current(), model.current);
            prop_assert_eq!(world.queue.len(), inside.len());
            prop_assert_eq!(world.queue.fair_len(), fair.clone().count());
            prop_assert_eq!(world.queue.load(), fair.map(|id| world.at(*id).load()).sum::<u64>());
            let level = inside.iter().map(|id| policies[*id].level()).max().unwrap_or(Level::IDLE);
            prop_assert_eq!(world.queue.level(), level);
        }
    }
}

/// Who ended in debt is let go at a tick while a real-time task runs, too: when the fair class has its next turn, the
/// average is that of those who are there.
#[test]
fn a_tick_lets_the_absent_go_whoever_runs() {
    let policies = [Policy::fair(0), Policy::fifo(33), Policy::fair(-11), Policy::fair(0)];
    let mut world = World::new(policies);
    let mut model = Model::new(&policies);
    let both = |world: &mut World, model: &mut Model, id: usize, now: u64| {
        world.enqueue(id, Why::New, now);
        model.enqueue(id, Why::New, now);
    };
    both(&mut world, &mut model, 0, 0);
    assert_eq!(world.pick(0), Some(0));
    model.picked(Some(0));
    // It has run for a moment, is replaced, and ends with that debt.
    both(&mut world, &mut model, 1, 0);
    both(&mut world, &mut model, 2, 0);
    let now = 1_086;
    assert_eq!(model.candidates(now), [Some(1)]);
    assert_eq!(world.pick(now), Some(1));
    model.picked(Some(1));
    world.dequeue(0, Departure::Ended, now);
    model.dequeue(0, Departure::Ended, now);
    // The other one gets the fair class's turn, and is then far beyond the debt.
    let (now, later) = (now + PATIENCE_NS, now + PATIENCE_NS + FAIR_TURN_NS);
    assert_eq!(world.pick(now), Some(2));
    assert_eq!(model.candidates(now), [Some(2)]);
    model.picked(Some(2));
    assert_eq!(world.pick(later), Some(1));
    assert_eq!(model.candidates(later), [Some(1)]);
    model.picked(Some(1));
    assert!(!world.queue.tick(later));
    model.tick(later);
    // It sleeps, owing nobody anything, and comes back beside a newcomer: they are equals.
    world.dequeue(2, Departure::Blocked, later);
    model.dequeue(2, Departure::Blocked, later);
    assert_eq!(world.at(2).lag.get(), 0);
    assert!(model.left[2].0.abs() < 1.0, "owes nothing: {}", model.left[2].0);
    both(&mut world, &mut model, 3, later);
    world.enqueue(2, Why::Woken, later);
    model.enqueue(2, Why::Woken, later);
    let now = later + PATIENCE_NS;
    // The heavier one has the earlier deadline.
    assert_eq!(world.pick(now), Some(2));
    assert!(model.candidates(now).contains(&Some(2)));
}
