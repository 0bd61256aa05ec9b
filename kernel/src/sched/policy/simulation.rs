//! One to eight CPUs with thousands of tasks, run by the run queues and the balancing of this folder in simulated time.
//!
//! A [`Simulation`] is what the scheduler is on the machine: it locks nothing, since it is alone, but follows the same
//! answers at the same occasions. Tasks run until they have what they want or are replaced. Ticks come each millisecond
//! on each CPU, and with each fourth one a CPU looks whether others have more to do; an idle one looks at once.
//! Everything random comes from a seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ptr::NonNull;

use hal::CpuId;
use hal::chaos::Rng;
use hal::cpumask::CpuMask;

use super::balance::{Placement, choose_cpu, find_busiest};
use super::entity::Place;
use super::{Departure, Entity, Policy, RunQueue, Why};

pub(super) const MS: u64 = 1_000_000;
const TICK: u64 = MS;
const BALANCE_TICKS: u64 = 4;

/// What a task does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Habit {
    /// Runs whenever it may.
    Hog,
    /// Runs and sleeps for random times with these means, in nanoseconds.
    Sleeper { runs: u64, sleeps: u64 },
    /// Runs, and lets others go first after each so many nanoseconds.
    Yielder { runs: u64 },
}

/// A simulated task.
pub(super) struct Task {
    pub(super) entity: Entity,
    number: usize,
    pub(super) habit: Habit,
    pub(super) allowed: CpuMask,
    cpu: usize,
    /// How much longer it wants to run before it sleeps or yields.
    wants: u64,
    woken_at: Option<u64>,
    pub(super) longest_wait: u64,
}

sync::link_field! { struct InTask = Task => entity: Entity; }

/// The task of an entity.
fn task_of(entity: NonNull<Entity>) -> NonNull<Task> {
    use sync::list::Field;
    // SAFETY: all entities here are those of tasks, and the pointers were made from pointers to tasks.
    unsafe { entity.byte_sub(InTask::OFFSET).cast() }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Tick(usize),
    Wake(usize),
    /// The CPU's current task has what it wants, if it still is that stretch of running.
    Done(usize, u64),
}

#[derive(Debug, Default)]
struct Cpu {
    queue: RunQueue,
    /// Counts the stretches.
    stretch: u64,
    /// When the stretch began.
    since: u64,
    ticks: u64,
    idle_ns: u64,
}

/// A machine.
pub(super) struct Simulation {
    pub(super) now: u64,
    cpus: Vec<Cpu>,
    tasks: Vec<NonNull<Task>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    random: Rng,
    pub(super) switches: u64,
    pub(super) moves: u64,
    /// After each event it is checked that no CPU is idle while a task that may run there waits.
    pub(super) wastes_nothing: bool,
}

impl Simulation {
    pub(super) fn new(cpus: usize, seed: u64) -> Simulation {
        let mut machine = Simulation {
            now: 0,
            cpus: (0..cpus).map(|_| Cpu::default()).collect(),
            tasks: Vec::new(),
            events: BinaryHeap::new(),
            sequence: 0,
            random: Rng::new(seed),
            switches: 0,
            moves: 0,
            wastes_nothing: false,
        };
        for cpu in 0..cpus {
            machine.at(TICK * cpu as u64 / cpus as u64, Event::Tick(cpu));
        }
        machine
    }

    /// A new task, ready from now on.
    pub(super) fn spawn(&mut self, policy: Policy, habit: Habit, allowed: CpuMask) {
        let number = self.tasks.len();
        let cpu = self.below(self.cpus.len());
        let mut task = Task {
            entity: Entity::new(policy),
            number,
            habit,
            allowed,
            cpu,
            wants: 0,
            woken_at: None,
            longest_wait: 0,
        };
        task.wants = self.wants(habit);
        self.tasks.push(NonNull::from(Box::leak(Box::new(task))));
        self.make_ready(number, Why::New);
    }

    /// Lets time pass.
    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            if time >= end {
                self.events.push(Reverse((time, 0, event)));
                break;
            }
            self.now = time;
            match event {
                Event::Tick(cpu) => self.tick(cpu),
                Event::Wake(task) => self.make_ready(task, Why::Woken),
                Event::Done(cpu, stretch) if self.cpus[cpu].stretch == stretch => self.done(cpu),
                Event::Done(..) => {}
            }
            assert!(!self.wastes_nothing || self.wasted_cpu().is_none(), "at {time} after {event:?}");
        }
        self.now = end;
        for cpu in 0..self.cpus.len() {
            self.cpus[cpu].queue.tick(end);
        }
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = &Task> {
        // SAFETY: they live until the simulation ends, and nobody runs while it is borrowed.
        self.tasks.iter().map(|task| unsafe { task.as_ref() })
    }

    /// How long the CPUs had nobody to run, in all.
    pub(super) fn idle_ns(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.idle_ns).sum()
    }

    /// A CPU that is idle while a task that may run there waits elsewhere.
    fn wasted_cpu(&self) -> Option<usize> {
        let idle = (0..self.cpus.len()).filter(|cpu| self.cpus[*cpu].queue.is_empty());
        let waiting = || self.tasks().filter(|task| task.entity.place.get() == Place::Queued);
        idle.into_iter().find(|cpu| waiting().any(|task| task.allowed.contains(id(*cpu))))
    }

    fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((time, self.sequence, event)));
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random.next_u64() % limit as u64) as usize
    }

    /// Exponentially distributed, so that any phase between tasks occurs; at least a microsecond.
    fn around(&mut self, mean: u64) -> u64 {
        let uniform = ((self.random.next_u64() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        ((-uniform.ln() * mean as f64) as u64).clamp(1_000, mean * 8)
    }

    fn wants(&mut self, habit: Habit) -> u64 {
        match habit {
            Habit::Hog => u64::MAX,
            Habit::Sleeper { runs, .. } => self.around(runs),
            Habit::Yielder { runs } => runs,
        }
    }

    fn make_ready(&mut self, number: usize, why: Why) {
        let pointer = self.tasks[number];
        // SAFETY: it lives, and only shared references are made, but to fields that no queue uses.
        let task = unsafe { &mut *pointer.as_ptr() };
        let placement = Placement {
            level: task.entity.policy().level(),
            previous: id(task.cpu),
            waker: id((self.random.next_u64() % self.cpus.len() as u64) as usize),
            allowed: &task.allowed,
            fresh: why == Why::New,
        };
        let idle = (0..self.cpus.len()).filter(|cpu| self.cpus[*cpu].queue.is_empty()).map(id);
        let look = |cpu: CpuId| self.cpus.get(cpu.index()).map(|cpu| cpu.queue.summary());
        let cpu = choose_cpu(&placement, idle, look).expect("allowed somewhere").index();
        assert!(task.allowed.contains(id(cpu)));
        task.cpu = cpu;
        task.woken_at = (why == Why::Woken).then_some(self.now);
        let entity = NonNull::from(&task.entity);
        // SAFETY: the entity is away; queues and tasks stay in place and live until the simulation ends.
        let preempts = unsafe {
            let queue = &mut self.cpus[cpu].queue;
            queue.enqueue(entity, why, self.now);
            queue.should_preempt(entity)
        };
        if preempts {
            self.reschedule(cpu);
        }
    }

    /// The CPU's current stretch is over, or may be.
    fn reschedule(&mut self, cpu: usize) {
        self.close_stretch(cpu);
        let mut next = self.cpus[cpu].queue.pick(self.now);
        if next.is_none() && self.pull(cpu) {
            next = self.cpus[cpu].queue.pick(self.now);
        }
        self.switches += 1;
        let Some(next) = next else { return };
        // SAFETY: it lives, and nobody else uses these fields.
        let task = unsafe { task_of(next).as_mut() };
        if let Some(woken_at) = task.woken_at.take() {
            task.longest_wait = task.longest_wait.max(self.now - woken_at);
        }
        if task.habit != Habit::Hog {
            let (time, stretch) = (self.now + task.wants, self.cpus[cpu].stretch);
            self.at(time, Event::Done(cpu, stretch));
        }
    }

    /// Counts what the current task had.
    fn close_stretch(&mut self, cpu: usize) {
        let cpu = &mut self.cpus[cpu];
        let ran = self.now - cpu.since;
        cpu.since = self.now;
        cpu.stretch += 1;
        match cpu.queue.current() {
            // SAFETY: it lives, and nobody else uses this field.
            Some(current) => unsafe { task_of(current).as_mut() }.wants -= ran,
            None => cpu.idle_ns += ran,
        }
    }

    fn done(&mut self, cpu: usize) {
        self.close_stretch(cpu);
        let current = self.cpus[cpu].queue.current().expect("somebody ran");
        // SAFETY: it lives, and nobody else uses these fields.
        let task = unsafe { task_of(current).as_mut() };
        task.wants = self.wants(task.habit);
        match task.habit {
            Habit::Sleeper { sleeps, .. } => {
                let until = self.now + self.around(sleeps);
                self.at(until, Event::Wake(task.number));
                // SAFETY: it is the current one.
                unsafe { self.cpus[cpu].queue.dequeue(current, Departure::Blocked, self.now) };
            }
            Habit::Yielder { .. } => self.cpus[cpu].queue.yield_current(self.now),
            Habit::Hog => unreachable!("wants more than there is"),
        }
        self.reschedule(cpu);
    }

    fn tick(&mut self, cpu: usize) {
        self.at(self.now + TICK, Event::Tick(cpu));
        self.cpus[cpu].ticks += 1;
        let balances = self.cpus[cpu].ticks.is_multiple_of(BALANCE_TICKS);
        let (moved, due) = (balances && self.pull(cpu), self.cpus[cpu].queue.tick(self.now));
        if due || (moved && self.cpus[cpu].queue.current().is_none()) {
            self.reschedule(cpu);
        }
    }

    /// The CPU takes tasks from the busiest other one. Whether there were any.
    fn pull(&mut self, cpu: usize) -> bool {
        let look = |cpu: CpuId| Some(self.cpus[cpu.index()].queue.summary());
        let others = (1..self.cpus.len()).map(|step| id((cpu + step) % self.cpus.len()));
        let Some(mut pull) = find_busiest(&self.cpus[cpu].queue.summary(), others, look) else {
            return false;
        };
        let mut any = false;
        loop {
            let from = &mut self.cpus[pull.from.index()].queue;
            let found = from.steal(self.now, &mut |entity| {
                // SAFETY: entities in queues are live tasks'.
                let task = unsafe { task_of(entity).as_ref() };
                task.allowed.contains(id(cpu)) && pull.take(task.entity.load())
            });
            let Some(found) = found else { break };
            // SAFETY: as in `make_ready`; it was taken out just now.
            unsafe {
                task_of(found).as_mut().cpu = cpu;
                self.cpus[cpu].queue.enqueue(found, Why::Moved, self.now);
            }
            self.moves += 1;
            any = true;
        }
        any
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        for cpu in &mut self.cpus {
            while let Some(entity) = cpu.queue.pick(self.now) {
                // SAFETY: it is the current one.
                unsafe { cpu.queue.dequeue(entity, Departure::Ended, self.now) };
            }
        }
        for task in self.tasks.drain(..) {
            // SAFETY: made from a box, in no queue any more, and known to nobody else.
            drop(unsafe { Box::from_raw(task.as_ptr()) });
        }
    }
}

pub(super) fn id(cpu: usize) -> CpuId {
    CpuId::new(cpu as u32).expect("a CPU's number")
}
