//! The run queue of one CPU.

use core::ptr::NonNull;

use super::class::{Level, Policy};
use super::entity::{Entity, Handle, Place, turn_of};
use super::fair::{Fair, weight_of};
use super::real_time::{End, RealTime};
use super::{FAIR_TURN_NS, PATIENCE_NS};

/// Nanoseconds of patience that a nanosecond of the fair class gives back.
const PATIENCE_PER_FAIR_NS: u64 = PATIENCE_NS / FAIR_TURN_NS;

/// At most so many tasks [`RunQueue::steal`] looks at.
const LOOKS: usize = 16;

/// Why a task comes into a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It was in no queue before: begins without credit or debt.
    New,
    /// It slept.
    Woken,
    /// It was taken out of another queue by [`Departure::Moved`] or [`RunQueue::steal`].
    Moved,
}

/// Why a task leaves a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Departure {
    /// It sleeps.
    Blocked,
    /// It goes to another queue.
    Moved,
    /// It is over.
    Ended,
}

/// The tasks that want one CPU, and the one that has it.
///
/// All times are in nanoseconds from one clock of the caller's choice; a moment that lies before an earlier one counts as
/// the same moment. All methods are for whoever has the queue alone, in any context. Nothing here blocks or
/// allocates. Linux: `struct rq`.
///
/// ```
/// use std::ptr::NonNull;
/// use kernel::sched::policy::{Departure, Entity, Policy, RunQueue, Why};
///
/// let (calm, urgent) = (Entity::new(Policy::fair(0)), Entity::new(Policy::fifo(10)));
/// let (calm, urgent) = (NonNull::from(&calm), NonNull::from(&urgent));
/// let mut queue = RunQueue::new();
/// // SAFETY: queue and entities stay in place until the entities are out of it; there is one thread.
/// unsafe {
///     queue.enqueue(calm, Why::New, 1_000);
///     assert_eq!(queue.pick(1_000), Some(calm));
///     queue.enqueue(urgent, Why::Woken, 5_000);
///     assert!(queue.should_preempt(urgent));
///     assert_eq!(queue.pick(5_000), Some(urgent));
///     queue.dequeue(urgent, Departure::Blocked, 6_000);
///     assert_eq!(queue.pick(6_000), Some(calm));
///     queue.dequeue(calm, Departure::Ended, 7_000);
///     assert_eq!(queue.pick(7_000), None);
///     assert_eq!((calm.as_ref().run_ns(), urgent.as_ref().run_ns()), (5_000, 1_000));
/// }
/// ```
///
/// # Invariants
///
/// * **Q1**: the entities that it refers to were handed to [`enqueue`](RunQueue::enqueue) and not taken out since, so E1
///   and E2 hold for them and this is the queue that may use them.
/// * **Q2**: `place` says where each is: `Queued` in the tree of the fair class or the list of its level, `Running` in
///   `current`, which is in neither.
#[derive(Debug)]
pub struct RunQueue {
    current: Option<Handle>,
    /// Up to when the current one's time is accounted for.
    since: u64,
    /// The current one had its turn among its equals, or gave it up. Real-time only.
    turn_over: bool,
    /// It is the fair class's turn, before real-time tasks.
    fair_turn: bool,
    /// How long real-time tasks kept the fair class waiting, less what it got since.
    kept_waiting_ns: u64,
    fair: Fair,
    real_time: RealTime,
    usual: UsualLoad,
}

// SAFETY: it refers to entities; whoever has the queue alone is the one who may use them (Q1).
unsafe impl Send for RunQueue {}

/// The load over the last second or so.
///
/// What sleeps and wakes moves the load up and down all the time. A balancer that follows it moves tasks to and fro.
/// Who comes for good or goes for good counts at once.
#[derive(Debug)]
struct UsualLoad {
    /// In units of 1/1,024 of a weight.
    scaled: i64,
    sampled: u64,
}

impl UsualLoad {
    /// How fast what was is forgotten, as a binary logarithm of nanoseconds: 1.07 s.
    const MEMORY: u32 = 30;

    fn sample(&mut self, load: u64, now: u64) {
        let ns = now.saturating_sub(self.sampled).min(1 << Self::MEMORY);
        self.sampled = self.sampled.max(now);
        let away = (load << 10).cast_signed() - self.scaled;
        self.scaled += ((i128::from(away) * i128::from(ns)) >> Self::MEMORY) as i64;
    }

    fn grow(&mut self, weight: i64) {
        self.scaled = (self.scaled + (weight << 10)).max(0);
    }

    fn get(&self) -> u64 {
        self.scaled.cast_unsigned() >> 10
    }
}

/// What [`RunQueue::pick`] decided.
enum Next {
    Stay,
    Take(Handle),
}

impl RunQueue {
    /// A queue without tasks.
    pub const fn new() -> RunQueue {
        RunQueue {
            current: None,
            since: 0,
            turn_over: false,
            fair_turn: false,
            kept_waiting_ns: 0,
            fair: Fair::new(),
            real_time: RealTime::new(),
            usual: UsualLoad { scaled: 0, sampled: 0 },
        }
    }

    /// A task comes. O(log n).
    ///
    /// Whether it should run at once says [`should_preempt`](RunQueue::should_preempt).
    ///
    /// # Panics
    /// In debug builds, if it is in a queue already.
    ///
    /// # Safety
    /// The entity is in no queue, and the caller may use it. Until it is taken out again, it and the queue stay in
    /// place, it does not end, and it is used through this queue only. The pointer is good for the whole entity.
    #[inline]
    pub unsafe fn enqueue(&mut self, entity: NonNull<Entity>, why: Why, now: u64) {
        // SAFETY: the contract. INVARIANT: Q1.
        let entity = unsafe { Handle::new(entity) };
        debug_assert_eq!(entity.place.get(), Place::Away, "sched: a task was enqueued that is in a queue");
        self.account(now);
        entity.place.set(Place::Queued);
        if entity.level.get() == Level::FAIR {
            self.fair.enter(entity, self.current_fair(), why);
            if why != Why::Woken {
                self.usual.grow(weight_of(entity));
            }
        } else {
            // SAFETY: the contract keeps the queue in place; the entity was away.
            unsafe { self.real_time.put(entity, End::Back) };
        }
    }

    /// A task leaves, which is the current one or waits. O(log n).
    ///
    /// If it is the current one there is none afterwards, until [`pick`](RunQueue::pick).
    ///
    /// # Panics
    /// In debug builds, if it is in no queue.
    ///
    /// # Safety
    /// The entity is in this queue.
    #[inline]
    pub unsafe fn dequeue(&mut self, entity: NonNull<Entity>, why: Departure, now: u64) {
        // SAFETY: Q1.
        let entity = unsafe { Handle::new(entity) };
        debug_assert_ne!(entity.place.get(), Place::Away, "sched: a task was dequeued that is in no queue");
        self.account(now);
        if entity.level.get() == Level::FAIR {
            self.fair.leave(entity, self.current_fair(), why);
            if why != Departure::Blocked {
                self.usual.grow(-weight_of(entity));
            }
        } else if entity.place.get() == Place::Queued {
            self.real_time.take(entity);
        }
        if entity.place.get() == Place::Running {
            self.current = None;
            self.forget_current();
        }
        entity.place.set(Place::Away);
    }

    /// Chooses who runs from now on, which becomes the current one; `None` if nobody wants to. A current one that is
    /// replaced waits from now on. O(log n), O(1) if nobody waits.
    #[inline]
    pub fn pick(&mut self, now: u64) -> Option<NonNull<Entity>> {
        self.account(now);
        if let Next::Take(next) = self.choose() {
            // First out, then in: with few tasks there is nobody in the tree to be compared with in between.
            self.take(next);
            if let Some(current) = self.current {
                self.put_back(current);
            }
            next.place.set(Place::Running);
            self.current = Some(next);
        }
        self.forget_current();
        self.current()
    }

    /// Who has the CPU.
    #[inline]
    pub fn current(&self) -> Option<NonNull<Entity>> {
        self.current.map(Handle::pointer)
    }

    /// Accounts for the time up to now. Whether [`pick`](RunQueue::pick) should be called, because somebody else's turn
    /// has come. To be called at each tick, and at the moment that [`next_event`](RunQueue::next_event) told.
    pub fn tick(&mut self, now: u64) -> bool {
        self.account(now);
        self.usual.sample(self.load(), now);
        // What is summed up begins anew, before it is too much.
        self.fair.let_go(self.current_fair());
        self.fair.settle(self.current_fair());
        matches!(self.choose(), Next::Take(_))
    }

    /// Whether the task, which just came into this queue, should have the CPU at once.
    ///
    /// # Safety
    /// The entity is in this queue.
    #[inline]
    pub unsafe fn should_preempt(&self, woken: NonNull<Entity>) -> bool {
        // SAFETY: Q1.
        let woken = unsafe { Handle::new(woken) };
        let Some(current) = self.current else { return true };
        match (woken.level.get(), current.level.get()) {
            (Level::FAIR, Level::FAIR) => self.fair.preempts(woken, current),
            (new, Level::FAIR) if new.is_real_time() => !self.is_fair_turn(),
            (new, old) => new > old,
        }
    }

    /// The current task lets others go first that want the CPU as much as it does. A real-time task goes behind its
    /// equals; a fair one gives up the rest of its slice. The next [`pick`](RunQueue::pick) does it.
    pub fn yield_current(&mut self, now: u64) {
        self.account(now);
        match self.current {
            Some(current) if current.level.get() == Level::FAIR => self.fair.give_up(current),
            _ => self.turn_over = true,
        }
    }

    /// Changes a task's policy, wherever it is: current, waiting, or in no queue. Whether [`pick`](RunQueue::pick)
    /// should be called. O(log n).
    ///
    /// A real-time task whose priority rises goes behind its new equals; one whose priority falls goes before them, as
    /// in POSIX.
    ///
    /// # Safety
    /// The entity is in this queue, or in none and the caller may use it.
    pub unsafe fn set_policy(&mut self, entity: NonNull<Entity>, policy: Policy, now: u64) -> bool {
        // SAFETY: by the contract.
        let entity = unsafe { Handle::new(entity) };
        self.account(now);
        let (old, new) = (entity.level.get(), policy.level());
        let place = entity.place.get();
        if old == Level::FAIR && new == Level::FAIR {
            self.fair.reweigh(entity, self.current_fair(), |entity| entity.adopt_policy(policy));
        } else {
            if place == Place::Queued {
                self.take(entity);
            }
            if place == Place::Running {
                // For a moment nobody is, so that the averages are the others'.
                self.current = None;
            }
            entity.adopt_policy(policy);
            entity.lag.set(0);
            if place != Place::Away {
                self.come_back(entity, if new < old { End::Front } else { End::Back });
            }
            if place == Place::Running {
                self.take(entity);
                self.current = Some(entity);
            }
        }
        matches!(self.choose(), Next::Take(_))
    }

    /// How much a task of the fair class requests at once, in nanoseconds, from its next request on: 100 µs to 100 ms,
    /// to which other values are brought. Less at once means sooner and more often, not less.
    ///
    /// # Safety
    /// As [`set_policy`](RunQueue::set_policy).
    pub unsafe fn set_slice(&mut self, entity: NonNull<Entity>, slice_ns: u64) {
        // SAFETY: by the contract.
        let entity = unsafe { Handle::new(entity) };
        entity.slice_ns.set(slice_ns.clamp(100_000, 100_000_000));
    }

    /// Takes out a task that waits, for another queue, which gets it by [`Why::Moved`]. Looks at most at 16 tasks, in the
    /// order in which they would run, and takes the first that is `allowed` there. Never the current one.
    pub fn steal(
        &mut self,
        now: u64,
        allowed: &mut dyn FnMut(NonNull<Entity>) -> bool,
    ) -> Option<NonNull<Entity>> {
        let found = {
            let mut candidates = self.real_time.iter().chain(self.fair.iter()).take(LOOKS);
            candidates.find(|candidate| allowed(candidate.pointer()))?
        };
        // SAFETY: it waits in this queue.
        unsafe { self.dequeue(found.pointer(), Departure::Moved, now) };
        Some(found.pointer())
    }

    /// Takes out the first task that waits and is `wanted`, however many there are, for another queue, which gets it by
    /// [`Why::Moved`]. O(n); for a CPU that goes.
    pub fn evict(
        &mut self,
        now: u64,
        wanted: &mut dyn FnMut(NonNull<Entity>) -> bool,
    ) -> Option<NonNull<Entity>> {
        let found = {
            let mut candidates = self.real_time.iter().chain(self.fair.iter());
            candidates.find(|candidate| wanted(candidate.pointer()))?
        };
        // SAFETY: it waits in this queue.
        unsafe { self.dequeue(found.pointer(), Departure::Moved, now) };
        Some(found.pointer())
    }

    /// How many tasks want the CPU, the current one included.
    #[inline]
    pub fn len(&self) -> usize {
        self.fair.waiting() + self.real_time.waiting() + usize::from(self.current.is_some())
    }

    /// Whether nobody wants the CPU.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them are in the fair class.
    #[inline]
    pub fn fair_len(&self) -> usize {
        self.fair.waiting() + usize::from(self.current_fair().is_some())
    }

    /// The weights of those in the fair class.
    #[inline]
    pub fn load(&self) -> u64 {
        self.fair.weight() + self.current_fair().map_or(0, |current| u64::from(current.weight.get().value))
    }

    /// How urgent the most urgent one is, running or waiting.
    #[inline]
    pub fn level(&self) -> Level {
        let waiting = if self.fair.waiting() != 0 { Level::FAIR } else { Level::IDLE };
        self.current_level().max(self.real_time.top()).max(waiting)
    }

    /// What other CPUs may want to know.
    #[inline]
    pub fn summary(&self) -> Summary {
        let urgent = self.real_time.waiting() + usize::from(self.current_level() > Level::FAIR);
        Summary {
            level: self.level(),
            load: self.usual.get(),
            fair: self.fair_len() as u32,
            urgent: urgent as u32,
        }
    }

    /// In how many nanoseconds [`tick`](RunQueue::tick) should be called, if the current one goes on: when its slice
    /// ends, and somebody waits for that. `None`: nothing will happen by time alone.
    pub fn next_event(&self, now: u64) -> Option<u64> {
        let current = self.current?;
        let in_ns = if current.level.get() == Level::FAIR {
            let turn = (self.is_fair_turn() && self.real_time.waiting() != 0)
                .then(|| self.kept_waiting_ns.div_ceil(PATIENCE_PER_FAIR_NS));
            earlier(turn, self.fair.slice_left_ns(current))
        } else {
            let equals = self.real_time.is_occupied(current.level.get());
            let turn = (equals && current.turn_ns.get() != u64::MAX).then(|| current.turn_ns.get());
            let patience = (self.fair.waiting() != 0 && current.level.get() != Level::STOP)
                .then(|| PATIENCE_NS.saturating_sub(self.kept_waiting_ns));
            earlier(turn, patience)
        };
        in_ns.map(|ns| ns.saturating_sub(now.saturating_sub(self.since)))
    }

    /// When the turn of the current one ends among its equals, if it is a real-time task that has some; on the clock of
    /// `now`, which is not before the last time that was handed in. The fair class's slices end at ticks.
    pub fn turn_ends(&self, now: u64) -> Option<u64> {
        let real_time = self.current.is_some_and(|current| current.level.get() != Level::FAIR);
        self.next_event(now).filter(|_| real_time).map(|ns| now.saturating_add(ns))
    }

    fn current_level(&self) -> Level {
        self.current.map_or(Level::IDLE, |current| current.level.get())
    }

    #[inline(always)]
    fn current_fair(&self) -> Option<Handle> {
        self.current.filter(|current| current.level.get() == Level::FAIR)
    }

    /// Whether fair tasks go before real-time ones.
    #[inline(always)]
    fn is_fair_turn(&self) -> bool {
        self.fair_turn && (self.fair.waiting() != 0 || self.current_fair().is_some())
    }

    /// The current one ran until now.
    #[inline(always)]
    fn account(&mut self, now: u64) {
        let ns = now.saturating_sub(self.since);
        if ns == 0 {
            return;
        }
        self.since = now;
        let Some(current) = self.current else { return };
        current.add_run_ns(ns);
        if current.level.get() == Level::FAIR {
            self.fair.charge(current, ns);
            if self.kept_waiting_ns != 0 {
                self.kept_waiting_ns =
                    self.kept_waiting_ns.saturating_sub(ns.saturating_mul(PATIENCE_PER_FAIR_NS));
                self.fair_turn &= self.kept_waiting_ns != 0;
            }
        } else {
            self.charge_real_time(current, ns);
        }
    }

    fn charge_real_time(&mut self, current: Handle, ns: u64) {
        let turn = current.turn_ns.get();
        if turn != u64::MAX {
            current.turn_ns.set(turn.saturating_sub(ns));
            self.turn_over |= turn <= ns;
        }
        if self.fair.waiting() != 0 && current.level.get() != Level::STOP {
            self.kept_waiting_ns = (self.kept_waiting_ns + ns).min(PATIENCE_NS);
            self.fair_turn |= self.kept_waiting_ns == PATIENCE_NS;
        }
    }

    /// Who should run.
    #[inline]
    fn choose(&mut self) -> Next {
        let running = self.current_level();
        let waiting = self.real_time.top();
        let urgent = running.max(waiting);
        let fair_first = self.is_fair_turn() && urgent != Level::STOP;
        if urgent > Level::FAIR && !fair_first {
            let stays = running > waiting || (running == waiting && !self.turn_over);
            return if stays { Next::Stay } else { Next::Take(self.real_time.first(waiting)) };
        }
        self.fair.let_go(self.current_fair());
        match self.fair.better_than(self.current_fair()) {
            Some(better) => Next::Take(better),
            None => Next::Stay,
        }
    }

    /// A new stretch begins: of a new current one, or of the old one although its turn was over.
    #[inline(always)]
    fn forget_current(&mut self) {
        self.fair.done = false;
        self.fair.yielded = false;
        self.fair.challenged = false;
        if self.turn_over {
            self.turn_over = false;
            if let Some(current) = self.current {
                current.turn_ns.set(turn_of(current.policy()));
            }
        }
    }

    /// The current one is to wait, where it would be found next among its equals unless its turn is over.
    #[inline]
    fn put_back(&mut self, current: Handle) {
        current.place.set(Place::Queued);
        if current.level.get() == Level::FAIR {
            return self.fair.put(current);
        }
        let end = if self.turn_over { End::Back } else { End::Front };
        if self.turn_over {
            self.turn_over = false;
            current.turn_ns.set(turn_of(current.policy()));
        }
        // SAFETY: it was current, so in no list; `enqueue`'s contract keeps the queue in place while it has entities.
        unsafe { self.real_time.put(current, end) };
    }

    /// Takes somebody out who waits.
    #[inline]
    fn take(&mut self, entity: Handle) {
        if entity.level.get() == Level::FAIR {
            self.fair.take(entity);
        } else {
            self.real_time.take(entity);
        }
    }

    /// Somebody with a new policy comes back into its class.
    fn come_back(&mut self, entity: Handle, end: End) {
        if entity.level.get() == Level::FAIR {
            self.fair.enter(entity, self.current_fair(), Why::New);
        } else {
            // SAFETY: it was taken out just now; it is still in this queue as the caller sees it, which so stays in place.
            unsafe { self.real_time.put(entity, end) };
        }
    }
}

impl Default for RunQueue {
    fn default() -> RunQueue {
        RunQueue::new()
    }
}

/// What one CPU knows of another one: a copy that may be out of date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// How urgent the most urgent task there is.
    pub level: Level,
    /// The weights of its fair tasks, over the last second or so.
    pub load: u64,
    /// How many those are.
    pub fair: u32,
    /// How many real-time and stop tasks want it.
    pub urgent: u32,
}

impl Summary {
    /// Whether nobody wants the CPU.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.level == Level::IDLE
    }

    /// The summary in one word, so that it can be told by one store. What is too large for its field is told as the
    /// largest that is not.
    #[inline]
    pub fn encode(&self) -> u64 {
        let (fair, urgent) = (self.fair.min(0xffff), self.urgent.min(0xff));
        let load = self.load.min(0xffff_ffff);
        u64::from(self.level.0) << 56 | u64::from(urgent) << 48 | u64::from(fair) << 32 | load
    }

    /// Reads what [`encode`](Summary::encode) wrote.
    #[inline]
    pub fn decode(word: u64) -> Summary {
        Summary {
            level: Level((word >> 56) as u8),
            urgent: (word >> 48 & 0xff) as u32,
            fair: (word >> 32 & 0xffff) as u32,
            load: word & 0xffff_ffff,
        }
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
