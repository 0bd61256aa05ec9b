//! What the checker's verdict should be, found in two ways that share nothing with it but the words.

use std::collections::HashSet;
use std::vec;
use std::vec::Vec;

use crate::lockdep::map::Mode;
use crate::lockdep::usage::Irq;

/// Everything that was seen, and whether it contains a circle: by trying all simple circles. Handlers are edges like
/// others here, from each class held where they come to each class that they wait for.
#[derive(Default, Debug)]
pub(super) struct Seen {
    /// From, to; held shared; waited for as a recursive reader.
    orders: HashSet<(u32, u32, bool, bool)>,
    handlers_wait: HashSet<(bool, u32, bool)>,
    exposed: HashSet<(bool, u32, bool)>,
}

impl Seen {
    pub(super) fn order(&mut self, (from, held): (u32, Mode), (to, waited): (u32, Mode)) {
        self.orders.insert((from, to, held != Mode::Write, waited == Mode::RecursiveRead));
    }

    pub(super) fn handler_waits(&mut self, irq: Irq, (class, mode): (u32, Mode)) {
        self.handlers_wait.insert((irq == Irq::Hard, class, mode == Mode::RecursiveRead));
    }

    pub(super) fn exposed(&mut self, irq: Irq, (class, mode): (u32, Mode)) {
        self.exposed.insert((irq == Irq::Hard, class, mode != Mode::Write));
    }

    pub(super) fn can_deadlock(&self) -> bool {
        let mut edges: Vec<_> = self.orders.iter().copied().collect();
        for (irq, held, shared) in &self.exposed {
            for (other, waited, recursive) in &self.handlers_wait {
                if irq == other {
                    edges.push((*held, *waited, *shared, *recursive));
                }
            }
        }
        let closes = |path: &[(u32, u32, bool, bool)]| {
            let (first, last) = (path[0], path[path.len() - 1]);
            last.1 == first.0 && !(last.3 && first.2)
        };
        let mut paths: Vec<Vec<_>> = edges.iter().map(|edge| vec![*edge]).collect();
        while let Some(path) = paths.pop() {
            if closes(&path) {
                return true;
            }
            let last = path[path.len() - 1];
            for edge in &edges {
                let is_new = path.iter().all(|e| e.0 != edge.0 && e.1 != edge.1);
                if edge.0 == last.1 && is_new && !(last.3 && edge.2) {
                    let mut longer = path.clone();
                    longer.push(*edge);
                    paths.push(longer);
                }
            }
        }
        false
    }
}

/// A piece of code that takes locks one inside the other and releases them all.
#[derive(Clone, Debug)]
pub(super) struct Routine {
    /// The handler that it is, or a task's.
    pub(super) handler: Option<Irq>,
    /// The most urgent handler that may come meanwhile is below this one.
    pub(super) keeps_off: Option<Irq>,
    /// Lock, mode, without waiting.
    pub(super) locks: Vec<(usize, Mode, bool)>,
}

impl Routine {
    fn lets_in(&self, irq: Irq) -> bool {
        let keeps_out = |by: Option<Irq>| by == Some(Irq::Hard) || by == Some(irq);
        !keeps_out(self.handler) && !keeps_out(self.keeps_off)
    }
}

pub(super) const LOCKS: usize = 3;

/// An execution in the middle of a routine: which, and what it holds, by position in its list.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Frame {
    routine: usize,
    /// How many of the locks have been passed.
    at: usize,
    /// Those that were acquired (one without waiting may have been missed).
    holds: Vec<usize>,
}

/// A machine: on each CPU a stack of executions, of which the newest runs; and for each lock whether a writer waits who
/// has nothing else to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    cpus: Vec<Vec<Frame>>,
    writer_waits: [bool; LOCKS],
}

/// Runs the routines on as many CPUs, in every interleaving, with handlers at every place where they can come. Each task
/// has a CPU; the others are idle until a handler comes. Each lock exists once. Returns whether a CPU can come to wait for ever.
pub(super) fn some_schedule_deadlocks(routines: &[Routine]) -> bool {
    let tasks: Vec<_> = (0..routines.len()).filter(|r| routines[*r].handler.is_none()).collect();
    let machine = Machine { routines, tasks };
    let start = State { cpus: vec![vec![]; routines.len()], writer_waits: [false; LOCKS] };
    let mut known = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(state) = open.pop() {
        if machine.waits_in_a_circle(&state) {
            return true;
        }
        machine.steps(&state, |next| {
            if known.insert(next.clone()) {
                open.push(next);
            }
        });
    }
    false
}

struct Machine<'a> {
    routines: &'a [Routine],
    tasks: Vec<usize>,
}

impl Machine<'_> {
    /// Who holds the lock: CPU and mode.
    fn holders(&self, state: &State, lock: usize) -> Vec<(usize, Mode)> {
        let mut holders = vec![];
        for (cpu, frames) in state.cpus.iter().enumerate() {
            for frame in frames {
                let locks = &self.routines[frame.routine].locks;
                let modes = frame.holds.iter().filter(|i| locks[**i].0 == lock).map(|i| (cpu, locks[*i].1));
                holders.extend(modes);
            }
        }
        holders
    }

    /// On whom a request for the lock has to wait.
    fn blockers(&self, state: &State, lock: usize, mode: Mode) -> Vec<usize> {
        let holders = self.holders(state, lock);
        let behind_writer = mode == Mode::Read && state.writer_waits[lock];
        let in_the_way = |held: Mode| mode == Mode::Write || held == Mode::Write || behind_writer;
        holders.into_iter().filter(|(_, held)| in_the_way(*held)).map(|(cpu, _)| cpu).collect()
    }

    /// What a CPU's running execution waits for.
    fn waits_on(&self, state: &State, cpu: usize) -> Vec<usize> {
        let Some(frame) = state.cpus[cpu].last() else { return vec![] };
        match self.routines[frame.routine].locks.get(frame.at) {
            Some((lock, mode, false)) => self.blockers(state, *lock, *mode),
            _ => vec![],
        }
    }

    fn waits_in_a_circle(&self, state: &State) -> bool {
        let waits: Vec<_> = (0..state.cpus.len()).map(|cpu| self.waits_on(state, cpu)).collect();
        // From each CPU along all that it waits on: back to itself?
        (0..waits.len()).any(|start| {
            let mut reached: HashSet<usize> = HashSet::new();
            let mut open = waits[start].clone();
            while let Some(cpu) = open.pop() {
                if reached.insert(cpu) {
                    open.extend(&waits[cpu]);
                }
            }
            reached.contains(&start)
        })
    }

    fn steps(&self, state: &State, mut to: impl FnMut(State)) {
        for lock in 0..LOCKS {
            // A writer comes while the lock is held, and is gone when it has had its turn.
            let free = self.holders(state, lock).is_empty();
            if free == state.writer_waits[lock] {
                let mut next = state.clone();
                next.writer_waits[lock] = !free;
                to(next);
            }
        }
        for cpu in 0..state.cpus.len() {
            let frames = &state.cpus[cpu];
            let begin = |routine: usize| {
                let mut next = state.clone();
                next.cpus[cpu].push(Frame { routine, at: 0, holds: vec![] });
                next
            };
            for (routine, code) in self.routines.iter().enumerate() {
                let comes = match code.handler {
                    None => frames.is_empty() && self.tasks.get(cpu) == Some(&routine),
                    Some(irq) => frames.iter().all(|frame| self.routines[frame.routine].lets_in(irq)),
                };
                if comes {
                    to(begin(routine));
                }
            }
            let Some(frame) = frames.last() else { continue };
            let mut next = state.clone();
            let Some(running) = next.cpus[cpu].last_mut() else { continue };
            match self.routines[frame.routine].locks.get(frame.at) {
                Some((lock, mode, is_try)) => {
                    let blocked = !self.blockers(state, *lock, *mode).is_empty();
                    if blocked && !is_try {
                        continue;
                    }
                    running.at += 1;
                    if !blocked {
                        running.holds.push(frame.at);
                    }
                }
                None => {
                    next.cpus[cpu].pop();
                }
            }
            to(next);
        }
    }
}
