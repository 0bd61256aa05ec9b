//! The machine: CPUs, tasks and time; and what the tree wants of it.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;

use hal::Native;

use super::oracle::{Oracle, Section};
use crate::head::Head;
use crate::seq::Cookie;
use crate::tree::faults::{Fault, Faults};
use crate::tree::{Action, Driver, Due, Geometry, Limits, Next, Node, PerCpu, Reader, Readers, Timing, Tree};

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) cpus: u32,
    pub(super) leaf: u32,
    pub(super) inner: u32,
    pub(super) readers: Readers,
    /// Each `settle_every` events everything must come to an end.
    pub(super) settle_every: u32,
    pub(super) seed: u64,
    pub(super) fault: Option<Fault>,
    /// Unlocks report in regions without preemption.
    pub(super) hasty: bool,
}

pub(super) const TICK: u64 = 1_000_000;

const TIMING: Timing =
    Timing { scan: TICK, nudge: 3 * TICK, interrupt: 6 * TICK, boost: 8 * TICK, stall: 1_000 * TICK };

/// Where choices come from.
pub(super) enum Random {
    /// A generator of the xorshift family: small, and the same everywhere.
    Seeded(u64),
    /// A list, which can be made shorter when it has led to a finding; zeros when it is used up.
    Listed(std::vec::IntoIter<u32>),
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random::Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u32) -> u32 {
        match self {
            Random::Seeded(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                ((*state >> 32).wrapping_mul(u64::from(limit)) >> 32) as u32
            }
            Random::Listed(choices) => choices.next().unwrap_or(0) % limit,
        }
    }

    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Down,
    Idle,
    Running(Option<usize>),
}

pub(super) struct Cpu {
    pub(super) mode: Mode,
    /// A section of the CPU itself: without preemption, or in an interrupt.
    pub(super) section: Option<Section>,
    /// An interrupt that came in the idle loop is being served.
    pub(super) interrupt: Option<bool>,
    pub(super) wants_process: bool,
    pub(super) wants_resched: bool,
    pub(super) wants_attention: bool,
    pub(super) is_interrupted: bool,
    /// Has decided to report, and does not have the leaf's lock yet. Nothing else happens on it meanwhile.
    pub(super) is_reporting: bool,
    pub(super) is_offloaded: bool,
    pub(super) is_orphaned: bool,
}

pub(super) struct Task {
    pub(super) reader: Pin<Box<Reader>>,
    pub(super) section: Option<Section>,
    pub(super) depth: u32,
}

/// A callback that says when it was queued.
pub(super) struct Call {
    pub(super) head: Head,
    pub(super) queued: (u64, u64),
}

thread_local! {
    /// How many events the run has had that goes on, or that was stopped.
    pub(super) static EVENTS: Cell<u32> = const { Cell::new(0) };
    pub(super) static CALLED: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

pub(super) unsafe fn called(head: NonNull<Head>) {
    // SAFETY: queued with this function are the heads of leaked `Call`s, as the first field.
    let call = unsafe { Box::from_raw(sync::container_of!(head, Call, head).as_ptr()) };
    CALLED.with_borrow_mut(|all| all.push(call.queued));
}

pub(super) struct World<'t, 's> {
    pub(super) tree: &'t Tree<'s, Native>,
    pub(super) driver: Driver<'t, 's, Native>,
    pub(super) driver_next: Next,
    pub(super) driver_woken: bool,
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) cpus: Vec<Cpu>,
    pub(super) tasks: Vec<Task>,
    pub(super) ready: Vec<usize>,
    pub(super) polls: Vec<(Cookie, u64)>,
    pub(super) expedited_running: bool,
    pub(super) barrier_running: bool,
    pub(super) oracle: Oracle,
    /// Interrupts that were sent.
    pub(super) messages: u64,
    pub(super) boosts: u64,
}

/// Runs a world for so many events; returns how many grace periods, expedited ones, callbacks and barriers there were.
pub(super) fn run(plan: Plan, events: u32) -> [u64; 4] {
    run_with(plan, Random::new(plan.seed), events)
}

/// The same with choices from somewhere else.
pub(super) fn run_with(plan: Plan, random: Random, events: u32) -> [u64; 4] {
    let shape = Geometry::with_fan_out(plan.cpus, plan.leaf, plan.inner);
    // Leaked, like the world below until it has come to a good end: a run that a mistake has stopped leaves heads and
    // readers in their lists, which are not to be dropped then.
    let nodes = Box::leak((0..shape.nodes()).map(|_| Node::new()).collect::<Box<[Node<Native>]>>());
    let cpus = Box::leak((0..plan.cpus).map(|_| PerCpu::new()).collect::<Box<[PerCpu<Native>]>>());
    let limits = Limits { batch: 3, high: 200, low: 20, flood: 1_000, lazy: 20, lazy_ns: 50 * TICK };
    let mut tree = Tree::new(shape, plan.readers, nodes, cpus).with_limits(limits).with_timing(TIMING);
    tree.faults = plan.fault.map_or(Faults::NONE, Faults::only);
    let tree = &tree;
    let mut world = ManuallyDrop::new(World::new(tree, plan, random));
    for event in 1..=events {
        EVENTS.set(event);
        world.happens();
        if event % plan.settle_every == 0 {
            world.settle();
        }
    }
    world.settle();
    let Oracle { normal, expedited, called, barriers, .. } = &ManuallyDrop::into_inner(world).oracle;
    [normal.ended, expedited.ended, *called, *barriers]
}

impl<'t, 's> World<'t, 's> {
    pub(super) fn new(tree: &'t Tree<'s, Native>, plan: Plan, random: Random) -> World<'t, 's> {
        let mut world = World {
            tree,
            driver: Driver::new(tree),
            driver_next: Next::Sleep,
            driver_woken: false,
            plan,
            random,
            now: 0,
            cpus: Vec::new(),
            tasks: Vec::new(),
            ready: Vec::new(),
            polls: Vec::new(),
            expedited_running: false,
            barrier_running: false,
            oracle: Oracle::default(),
            messages: 0,
            boosts: 0,
        };
        for cpu in 0..plan.cpus {
            world.cpus.push(Cpu {
                mode: Mode::Running(None),
                section: None,
                interrupt: None,
                wants_process: false,
                wants_resched: false,
                wants_attention: false,
                is_interrupted: false,
                is_reporting: false,
                is_offloaded: false,
                is_orphaned: false,
            });
            tree.cpu_up(cpu);
        }
        if plan.readers == Readers::Preemptible {
            for task in 0..plan.cpus as usize * 2 {
                world.tasks.push(Task { reader: Box::pin(Reader::new()), section: None, depth: 0 });
                world.ready.push(task);
            }
        }
        world
    }

    pub(super) fn due(&mut self, cpu: u32, due: Due) {
        self.driver_woken |= due.wake_driver;
        let here = &mut self.cpus[cpu as usize];
        here.wants_process |= due.process || due.wake_offload;
        here.wants_resched |= due.reschedule;
        here.wants_attention |= due.attention;
        if due.wake_expedited {
            self.expedited_ends();
        }
        if due.wake_barrier {
            self.barrier_ends();
        }
    }

    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Nudge(cpu) => self.cpus[cpu as usize].wants_resched = true,
            Action::Interrupt(cpu) => {
                self.messages += 1;
                self.cpus[cpu as usize].is_interrupted = true;
            }
            Action::Process(cpu) => {
                self.messages += 1;
                self.cpus[cpu as usize].wants_process = true;
            }
            Action::Boost(_) => self.boosts += 1,
            Action::Ended(_) | Action::Stalled(_) | Action::MayBeDue(_) => (),
            Action::WakeExpedited => self.expedited_ends(),
            Action::WakeBarrier => self.barrier_ends(),
            Action::WakeDriver => self.driver_woken = true,
        }
    }

    pub(super) fn expedited_ends(&mut self) {
        self.oracle.expedited.end();
        self.expedited_running = false;
    }

    pub(super) fn barrier_ends(&mut self) {
        self.oracle.barrier_ends();
        self.barrier_running = false;
    }
}
