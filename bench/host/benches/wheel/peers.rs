//! The wheel and its peers behind one trait. Timers are told by numbers of users' objects.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use timers::queue::{Entry, Queue};
use timers::wheel::{Wheel, WheelEntry};

/// What keeps timers, in ticks of a millisecond. All start at tick 0.
pub(crate) trait Peer {
    const NAME: &'static str;
    fn new(timers: usize) -> Self;
    fn insert(&mut self, timer: usize, at: u64);
    fn cancel(&mut self, timer: usize);
    fn rearm(&mut self, timer: usize, at: u64) {
        self.cancel(timer);
        self.insert(timer, at);
    }
    /// Goes on to a later tick; returns how many timers were due.
    fn advance(&mut self, to: u64) -> usize;
    /// The next tick at which one is due, if the peer can tell.
    fn next(&mut self) -> Option<u64>;
}

/// A user's object, with what the peer needs in it.
#[repr(C, align(64))]
#[derive(Clone)]
struct Object<T>(T);

pub(crate) struct Ours {
    wheel: Wheel,
    objects: Vec<Object<WheelEntry>>,
    now: u64,
}

impl Ours {
    fn entry(&self, timer: usize) -> NonNull<WheelEntry> {
        NonNull::from(&self.objects[timer].0)
    }
}

impl Peer for Ours {
    const NAME: &'static str = "timers::wheel";

    fn new(timers: usize) -> Ours {
        let objects = (0..timers).map(|_| Object(WheelEntry::new())).collect();
        Ours { wheel: Wheel::new(), objects, now: 0 }
    }

    #[inline(always)]
    fn insert(&mut self, timer: usize, at: u64) {
        let entry = self.entry(timer);
        // SAFETY: it is in no wheel, and does not move.
        unsafe {
            entry.as_ref().set_expires(at);
            self.wheel.insert(entry, self.now);
        }
    }

    #[inline(always)]
    fn cancel(&mut self, timer: usize) {
        // SAFETY: it is in the wheel.
        unsafe { self.wheel.remove(self.entry(timer)) };
    }

    #[inline(always)]
    fn rearm(&mut self, timer: usize, at: u64) {
        // SAFETY: it is in the wheel.
        unsafe { self.wheel.modify(self.entry(timer), at, self.now) };
    }

    #[inline(always)]
    fn advance(&mut self, to: u64) -> usize {
        self.now = to;
        let mut due = 0;
        while self.wheel.pop_due(to).is_some() {
            due += 1;
        }
        due
    }

    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        Some(self.wheel.next())
    }
}

/// Ours, as if it did not leave later timers where they are.
pub(crate) struct Eager(Ours);

impl Peer for Eager {
    const NAME: &'static str = "the same, always moved";

    fn new(timers: usize) -> Eager {
        Eager(Ours::new(timers))
    }

    #[inline(always)]
    fn insert(&mut self, timer: usize, at: u64) {
        self.0.insert(timer, at);
    }

    #[inline(always)]
    fn cancel(&mut self, timer: usize) {
        self.0.cancel(timer);
    }

    #[inline(always)]
    fn advance(&mut self, to: u64) -> usize {
        self.0.advance(to)
    }

    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        self.0.next()
    }
}

/// libev's: four children a node, and the time beside the pointer. The users' objects know their places.
pub(crate) struct Heap {
    nodes: Vec<(u64, u32)>,
    places: Vec<Object<u32>>,
}

impl Heap {
    #[inline(always)]
    fn put(&mut self, place: usize, node: (u64, u32)) {
        self.nodes[place] = node;
        self.places[node.1 as usize].0 = place as u32;
    }

    #[inline(always)]
    fn up(&mut self, mut place: usize) {
        let node = self.nodes[place];
        while place > 0 {
            let parent = (place - 1) / 4;
            if self.nodes[parent].0 <= node.0 {
                break;
            }
            self.put(place, self.nodes[parent]);
            place = parent;
        }
        self.put(place, node);
    }

    #[inline(always)]
    fn down(&mut self, mut place: usize) {
        let node = self.nodes[place];
        loop {
            let first = place * 4 + 1;
            let children = first..(first + 4).min(self.nodes.len());
            let Some(least) = children.min_by_key(|&child| self.nodes[child].0) else { break };
            if self.nodes[least].0 >= node.0 {
                break;
            }
            self.put(place, self.nodes[least]);
            place = least;
        }
        self.put(place, node);
    }

    #[inline(always)]
    fn settle(&mut self, place: usize) {
        if place > 0 && self.nodes[(place - 1) / 4].0 > self.nodes[place].0 {
            self.up(place);
        } else {
            self.down(place);
        }
    }
}

impl Peer for Heap {
    const NAME: &'static str = "4-ary heap";

    fn new(timers: usize) -> Heap {
        Heap { nodes: Vec::with_capacity(timers), places: vec![Object(0); timers] }
    }

    fn insert(&mut self, timer: usize, at: u64) {
        self.nodes.push((at, timer as u32));
        self.up(self.nodes.len() - 1);
    }

    fn cancel(&mut self, timer: usize) {
        let place = self.places[timer].0 as usize;
        let last = self.nodes.pop().expect("it is in the heap");
        if place < self.nodes.len() {
            self.nodes[place] = last;
            self.settle(place);
        }
    }

    fn rearm(&mut self, timer: usize, at: u64) {
        let place = self.places[timer].0 as usize;
        self.nodes[place].0 = at;
        self.settle(place);
    }

    fn advance(&mut self, to: u64) -> usize {
        let mut due = 0;
        while let Some(&(at, timer)) = self.nodes.first()
            && at <= to
        {
            self.cancel(timer as usize);
            due += 1;
        }
        due
    }

    fn next(&mut self) -> Option<u64> {
        self.nodes.first().map(|node| node.0)
    }
}

pub(crate) struct Tree {
    set: BTreeSet<(u64, u32)>,
    times: Vec<Object<u64>>,
}

impl Peer for Tree {
    const NAME: &'static str = "BTreeSet";

    fn new(timers: usize) -> Tree {
        Tree { set: BTreeSet::new(), times: vec![Object(0); timers] }
    }

    fn insert(&mut self, timer: usize, at: u64) {
        self.times[timer].0 = at;
        self.set.insert((at, timer as u32));
    }

    fn cancel(&mut self, timer: usize) {
        self.set.remove(&(self.times[timer].0, timer as u32));
    }

    fn advance(&mut self, to: u64) -> usize {
        let mut due = 0;
        while self.set.first().is_some_and(|first| first.0 <= to) {
            self.set.pop_first();
            due += 1;
        }
        due
    }

    fn next(&mut self) -> Option<u64> {
        self.set.first().map(|first| first.0)
    }
}

pub(crate) struct Nexus {
    wheel: nexus_timer::Wheel<u32>,
    handles: Vec<Object<Option<nexus_timer::TimerHandle<u32>>>>,
    due: Vec<u32>,
    begun: Instant,
}

impl Nexus {
    fn at(&self, tick: u64) -> Instant {
        self.begun + Duration::from_millis(tick)
    }
}

impl Peer for Nexus {
    const NAME: &'static str = "nexus-timer";

    fn new(timers: usize) -> Nexus {
        let begun = Instant::now();
        let wheel = nexus_timer::Wheel::unbounded(timers, begun);
        Nexus {
            wheel,
            handles: (0..timers).map(|_| Object(None)).collect(),
            due: Vec::with_capacity(timers),
            begun,
        }
    }

    fn insert(&mut self, timer: usize, at: u64) {
        self.handles[timer].0 = Some(self.wheel.schedule(self.at(at), timer as u32));
    }

    fn cancel(&mut self, timer: usize) {
        let handle = self.handles[timer].0.take().expect("it is armed");
        self.wheel.cancel(handle);
    }

    fn rearm(&mut self, timer: usize, at: u64) {
        let handle = self.handles[timer].0.take().expect("it is armed");
        self.handles[timer].0 = Some(self.wheel.reschedule(handle, self.at(at)));
    }

    fn advance(&mut self, to: u64) -> usize {
        let to = self.at(to);
        self.due.clear();
        self.wheel.poll_and_rebalance(to, &mut self.due);
        for index in 0..self.due.len() {
            if let Some(handle) = self.handles[self.due[index] as usize].0.take() {
                self.wheel.cancel(handle);
            }
        }
        self.due.len()
    }

    fn next(&mut self) -> Option<u64> {
        self.wheel.next_deadline().map(|at| (at - self.begun).as_millis() as u64)
    }
}

/// Cancelling removes a number from a hash table; the entry stays in the wheel until its time.
pub(crate) struct HashWheel {
    wheel: hierarchical_hash_wheel_timer::wheels::cancellable::QuadWheelWithOverflow<Id>,
    now: u64,
}

type Id = hierarchical_hash_wheel_timer::IdOnlyTimerEntry<u32>;

impl Peer for HashWheel {
    const NAME: &'static str = "hierarchical_hash_wheel_timer";

    fn new(_: usize) -> HashWheel {
        HashWheel {
            wheel: hierarchical_hash_wheel_timer::wheels::cancellable::QuadWheelWithOverflow::new(),
            now: 0,
        }
    }

    fn insert(&mut self, timer: usize, at: u64) {
        let delay = Duration::from_millis(at - self.now);
        self.wheel.insert_ref_with_delay(Rc::new(Id::new(timer as u32, delay)), delay).expect("a time ahead");
    }

    fn cancel(&mut self, timer: usize) {
        self.wheel.cancel(&(timer as u32)).expect("it is armed");
    }

    fn advance(&mut self, to: u64) -> usize {
        let mut due = 0;
        while self.now < to {
            due += self.wheel.tick().len();
            self.now += 1;
        }
        due
    }

    fn next(&mut self) -> Option<u64> {
        match self.wheel.can_skip() {
            hierarchical_hash_wheel_timer::wheels::Skip::Millis(ticks) => Some(self.now + u64::from(ticks)),
            _ => Some(self.now),
        }
    }
}

/// A runtime whose clock is set by hand.
struct Runtime {
    runtime: tokio::runtime::Runtime,
    begun: tokio::time::Instant,
    now: u64,
}

impl Runtime {
    fn new() -> Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let begun = runtime.block_on(async { tokio::time::Instant::now() });
        Runtime { runtime, begun, now: 0 }
    }

    fn at(&self, tick: u64) -> tokio::time::Instant {
        self.begun + Duration::from_millis(tick)
    }

    fn advance(&mut self, to: u64) {
        let by = Duration::from_millis(to - self.now);
        self.now = to;
        self.runtime.block_on(tokio::time::advance(by));
    }
}

pub(crate) struct Sleeps {
    sleeps: Vec<Object<Option<Pin<Box<tokio::time::Sleep>>>>>,
    runtime: Runtime,
    armed: usize,
}

impl Sleeps {
    fn poll(sleep: &mut Pin<Box<tokio::time::Sleep>>) -> Poll<()> {
        sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl Peer for Sleeps {
    const NAME: &'static str = "tokio, Sleep";

    fn new(timers: usize) -> Sleeps {
        Sleeps { sleeps: (0..timers).map(|_| Object(None)).collect(), runtime: Runtime::new(), armed: 0 }
    }

    fn insert(&mut self, timer: usize, at: u64) {
        let at = self.runtime.at(at);
        let _entered = self.runtime.runtime.enter();
        let mut sleep = Box::pin(tokio::time::sleep_until(at));
        assert!(Self::poll(&mut sleep).is_pending());
        self.sleeps[timer].0 = Some(sleep);
        self.armed += 1;
    }

    fn cancel(&mut self, timer: usize) {
        self.sleeps[timer].0 = None;
        self.armed -= 1;
    }

    fn rearm(&mut self, timer: usize, at: u64) {
        let at = self.runtime.at(at);
        self.sleeps[timer].0.as_mut().expect("it is armed").as_mut().reset(at);
    }

    /// The runtime wakes those that are due, which is nothing here; all at the end of a run.
    fn advance(&mut self, to: u64) -> usize {
        self.runtime.advance(to);
        self.armed
    }

    fn next(&mut self) -> Option<u64> {
        None
    }
}

pub(crate) struct Delays {
    queue: tokio_util::time::DelayQueue<u32>,
    keys: Vec<Object<Option<tokio_util::time::delay_queue::Key>>>,
    runtime: Runtime,
}

impl Peer for Delays {
    const NAME: &'static str = "tokio, DelayQueue";

    fn new(timers: usize) -> Delays {
        let runtime = Runtime::new();
        let queue = {
            let _entered = runtime.runtime.enter();
            tokio_util::time::DelayQueue::with_capacity(timers)
        };
        Delays { queue, keys: vec![Object(None); timers], runtime }
    }

    fn insert(&mut self, timer: usize, at: u64) {
        let at = self.runtime.at(at);
        let _entered = self.runtime.runtime.enter();
        self.keys[timer].0 = Some(self.queue.insert_at(timer as u32, at));
    }

    fn cancel(&mut self, timer: usize) {
        let _entered = self.runtime.runtime.enter();
        self.queue.remove(&self.keys[timer].0.take().expect("it is armed"));
    }

    fn rearm(&mut self, timer: usize, at: u64) {
        let at = self.runtime.at(at);
        let _entered = self.runtime.runtime.enter();
        self.queue.reset_at(self.keys[timer].0.as_ref().expect("it is armed"), at);
    }

    fn advance(&mut self, to: u64) -> usize {
        self.runtime.advance(to);
        let _entered = self.runtime.runtime.enter();
        let mut due = 0;
        while let Poll::Ready(Some(_)) = self.queue.poll_expired(&mut Context::from_waker(Waker::noop())) {
            due += 1;
        }
        due
    }

    fn next(&mut self) -> Option<u64> {
        self.queue.peek().map(|key| (self.queue.deadline(&key) - self.runtime.begun).as_millis() as u64)
    }
}
