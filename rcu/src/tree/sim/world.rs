//! The machine: CPUs, tasks, time, and what happens.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::ptr::NonNull;

use hal::Native;
use hal::platform::TaskId;

use super::oracle::{Oracle, Section};
use crate::head::Head;
use crate::seq::Cookie;
use crate::tree::faults::{Fault, Faults};
use crate::tree::{
    Action, Driver, Due, Geometry, Interrupted, Limits, Next, Node, PerCpu, Reader, Readers, Timing, Tree,
};

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
}

const TICK: u64 = 1_000_000;

const TIMING: Timing =
    Timing { scan: TICK, nudge: 3 * TICK, interrupt: 6 * TICK, boost: 8 * TICK, stall: 1_000 * TICK };

/// A generator of the xorshift family: small, and the same everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32).wrapping_mul(u64::from(limit)) >> 32) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Down,
    Idle,
    Running(Option<usize>),
}

struct Cpu {
    mode: Mode,
    /// A section of the CPU itself: without preemption, or in an interrupt.
    section: Option<Section>,
    /// An interrupt that came in the idle loop is being served.
    interrupt: Option<bool>,
    wants_process: bool,
    wants_resched: bool,
    wants_attention: bool,
    is_interrupted: bool,
    is_offloaded: bool,
    is_orphaned: bool,
}

struct Task {
    reader: Pin<Box<Reader>>,
    section: Option<Section>,
    depth: u32,
}

/// A callback that says when it was queued.
struct Call {
    head: Head,
    queued: (u64, u64),
}

thread_local! {
    static CALLED: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

unsafe fn called(head: NonNull<Head>) {
    // SAFETY: queued with this function are the heads of leaked `Call`s, as the first field.
    let call = unsafe { Box::from_raw(sync::container_of!(head, Call, head).as_ptr()) };
    CALLED.with_borrow_mut(|all| all.push(call.queued));
}

pub(super) struct World<'t, 's> {
    tree: &'t Tree<'s, Native>,
    driver: Driver<'t, 's, Native>,
    driver_next: Next,
    driver_woken: bool,
    plan: Plan,
    pub(super) random: Random,
    now: u64,
    cpus: Vec<Cpu>,
    tasks: Vec<Task>,
    ready: Vec<usize>,
    polls: Vec<(Cookie, u64)>,
    expedited_running: bool,
    barrier_running: bool,
    pub(super) oracle: Oracle,
    /// Interrupts that were sent.
    pub(super) messages: u64,
    pub(super) boosts: u64,
}

/// Runs a world for so many events; returns how many grace periods, expedited ones, callbacks and barriers there were.
pub(super) fn run(plan: Plan, events: u32) -> [u64; 4] {
    let shape = Geometry::with_fan_out(plan.cpus, plan.leaf, plan.inner);
    // Leaked, like the world below until it has come to a good end: a run that a mistake has stopped leaves heads and
    // readers in their lists, which are not to be dropped then.
    let nodes = Box::leak((0..shape.nodes()).map(|_| Node::new()).collect::<Box<[Node<Native>]>>());
    let cpus = Box::leak((0..plan.cpus).map(|_| PerCpu::new()).collect::<Box<[PerCpu<Native>]>>());
    let limits = Limits { batch: 3, high: 200, low: 20, flood: 1_000, lazy: 20, lazy_ns: 50 * TICK };
    let mut tree = Tree::new(shape, plan.readers, nodes, cpus).with_limits(limits).with_timing(TIMING);
    tree.faults = plan.fault.map_or(Faults::NONE, Faults::only);
    let tree = &tree;
    let mut world = ManuallyDrop::new(World::new(tree, plan));
    for event in 1..=events {
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
    pub(super) fn new(tree: &'t Tree<'s, Native>, plan: Plan) -> World<'t, 's> {
        let mut world = World {
            tree,
            driver: Driver::new(tree),
            driver_next: Next::Sleep,
            driver_woken: false,
            plan,
            random: Random::new(plan.seed),
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

    // ---- What the tree says ----

    fn due(&mut self, cpu: u32, due: Due) {
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

    fn act(&mut self, action: Action) {
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
            Action::Ended(_) | Action::Stalled(_) => (),
            Action::WakeExpedited => self.expedited_ends(),
            Action::WakeBarrier => self.barrier_ends(),
            Action::WakeDriver => self.driver_woken = true,
        }
    }

    fn expedited_ends(&mut self) {
        self.oracle.expedited.end();
        self.expedited_running = false;
    }

    fn barrier_ends(&mut self) {
        self.oracle.barrier_ends();
        self.barrier_running = false;
    }

    // ---- What happens ----

    fn happens(&mut self) {
        self.now += u64::from(self.random.below(TICK as u32 / 4));
        if self.random.one_in(3) {
            self.drive();
            return;
        }
        let cpu = self.random.below(self.plan.cpus);
        self.unlocked(cpu);
        match self.random.below(32) {
            0..5 => self.begin_section(cpu),
            5..11 => self.end_section(cpu),
            11..18 => {
                self.switch(cpu);
            }
            18..21 => self.tick(cpu),
            21..24 => self.idle(cpu),
            24 => self.interrupt_idle(cpu),
            25 => self.call(cpu),
            26..28 => self.process(cpu),
            28 => self.plug(cpu),
            29 => self.expedite(cpu),
            30 => self.poll_or_barrier(cpu),
            _ => self.odd(cpu),
        }
        if self.cpus[cpu as usize].is_interrupted && self.random.one_in(3) {
            self.interrupt(cpu);
        }
        if self.cpus[cpu as usize].wants_resched && self.random.one_in(2) {
            self.switch(cpu);
        }
    }

    /// A CPU on which the driver may run: one that is up, and in no section.
    fn driver_cpu(&mut self) -> Option<u32> {
        let first = self.random.below(self.plan.cpus);
        (0..self.plan.cpus).map(|n| (first + n) % self.plan.cpus).take(64).find(|&cpu| {
            let here = &self.cpus[cpu as usize];
            here.mode == Mode::Running(None) && here.section.is_none()
        })
    }

    fn drive(&mut self) {
        let is_due = match self.driver_next {
            Next::Again => true,
            Next::Sleep => self.driver_woken,
            Next::Until(at) => self.driver_woken || self.now >= at,
        };
        let Some(cpu) = self.driver_cpu().filter(|_| is_due) else {
            return;
        };
        self.driver_woken = false;
        let steps = if self.random.one_in(3) { 1 + self.random.below(4) } else { 1_000 };
        for _ in 0..steps {
            let was_running = self.tree.grace_periods.is_running();
            let mut actions = Vec::new();
            self.driver_next = self.driver.step(cpu, self.now, |action| actions.push(action));
            let is_running = self.tree.grace_periods.is_running();
            if is_running && !was_running {
                self.oracle.normal.begin();
            } else if was_running && !is_running {
                self.oracle.normal.end();
            }
            actions.into_iter().for_each(|action| self.act(action));
            if self.driver_next != Next::Again {
                break;
            }
        }
    }

    /// The executing CPU's task has left its outermost section: now or a little later it says so.
    fn unlocked(&mut self, cpu: u32) {
        let Mode::Running(task) = self.cpus[cpu as usize].mode else {
            return;
        };
        if let Some(task) = task
            && self.tasks[task].section.is_none()
            && self.tasks[task].reader.is_queued()
        {
            let due = self.tree.reader_done(self.tasks[task].reader.as_ref());
            self.due(cpu, due);
        }
    }

    fn in_section(&self, cpu: u32) -> bool {
        let here = &self.cpus[cpu as usize];
        let task = if let Mode::Running(Some(task)) = here.mode { self.tasks[task].section } else { None };
        here.section.is_some() || task.is_some()
    }

    fn begin_section(&mut self, cpu: u32) {
        match self.cpus[cpu as usize].mode {
            Mode::Running(Some(task)) => {
                self.unlocked(cpu);
                let task = &mut self.tasks[task];
                task.depth += 1;
                if task.depth == 1 {
                    task.section = Some(self.oracle.reader_begins());
                }
            }
            Mode::Running(None) if self.cpus[cpu as usize].section.is_none() => {
                self.cpus[cpu as usize].section = Some(self.oracle.reader_begins());
            }
            _ => (),
        }
    }

    fn end_section(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].interrupt.is_some() {
            return self.end_interrupt(cpu);
        }
        if let Some(section) = self.cpus[cpu as usize].section.take() {
            self.oracle.reader_ends(section);
            return;
        }
        let Mode::Running(Some(task)) = self.cpus[cpu as usize].mode else {
            return;
        };
        let task = &mut self.tasks[task];
        task.depth = task.depth.saturating_sub(1);
        if task.depth == 0 {
            if let Some(section) = task.section.take() {
                self.oracle.reader_ends(section);
            }
            if std::mem::take(&mut self.cpus[cpu as usize].wants_attention) {
                self.unlocked(cpu);
                let due = self.tree.quiescent(cpu);
                self.due(cpu, due);
            }
        }
    }

    /// Replaces the running task, by another one or by nothing; returns whether that was possible.
    fn switch(&mut self, cpu: u32) -> bool {
        let here = &self.cpus[cpu as usize];
        let Mode::Running(task) = here.mode else {
            return false;
        };
        if here.section.is_some() {
            return false; // preemption is off
        }
        self.unlocked(cpu);
        let tree = self.tree;
        let due = match task.filter(|&task| self.tasks[task].section.is_some()) {
            Some(task) => {
                let name = TaskId(NonZeroUsize::new((task + 1) * TaskId::ALIGN).unwrap());
                tree.note_context_switch(cpu, Some((self.tasks[task].reader.as_ref(), name)))
            }
            None => tree.note_context_switch(cpu, None),
        };
        self.due(cpu, due);
        self.cpus[cpu as usize].wants_resched = false;
        self.ready.extend(task);
        let next = if self.ready.is_empty() || self.random.one_in(4) {
            None
        } else {
            let index = self.random.below(self.ready.len() as u32) as usize;
            Some(self.ready.swap_remove(index))
        };
        self.cpus[cpu as usize].mode = Mode::Running(next);
        true
    }

    fn interrupted(&self, cpu: u32) -> Interrupted {
        let here = &self.cpus[cpu as usize];
        match here.mode {
            Mode::Idle if here.interrupt.is_none() => Interrupted::Idle,
            Mode::Idle => Interrupted::Kernel { preemptible: false, in_reader: false },
            _ => {
                let in_reader = here.section.is_none() && self.in_section(cpu);
                Interrupted::Kernel { preemptible: here.section.is_none(), in_reader }
            }
        }
    }

    fn tick(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].mode == Mode::Down {
            return;
        }
        let interrupted = self.interrupted(cpu);
        let was_idle = self.tree.interrupt_enter(cpu);
        let due = self.tree.check_tick(cpu, self.now, interrupted);
        self.tree.interrupt_exit(cpu, was_idle);
        self.due(cpu, due);
    }

    fn interrupt(&mut self, cpu: u32) {
        self.cpus[cpu as usize].is_interrupted = false;
        if self.cpus[cpu as usize].mode == Mode::Down {
            return;
        }
        let interrupted = self.interrupted(cpu);
        let was_idle = self.tree.interrupt_enter(cpu);
        let due = self.tree.check_interrupt(cpu, interrupted);
        self.tree.interrupt_exit(cpu, was_idle);
        self.due(cpu, due);
    }

    fn idle(&mut self, cpu: u32) {
        let mode = self.cpus[cpu as usize].mode;
        match mode {
            Mode::Idle if self.cpus[cpu as usize].interrupt.is_none() => {
                self.tree.idle_exit(cpu);
                self.cpus[cpu as usize].mode = Mode::Running(None);
                self.switch(cpu);
            }
            Mode::Running(_) if self.switch(cpu) => {
                if let Mode::Running(Some(task)) = self.cpus[cpu as usize].mode {
                    self.ready.push(task);
                }
                self.cpus[cpu as usize].mode = Mode::Idle;
                let due = self.tree.idle_enter(cpu);
                self.due(cpu, due);
            }
            _ => (),
        }
    }

    /// An interrupt with a reader comes in the idle loop, and stays for a while.
    fn interrupt_idle(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].mode != Mode::Idle {
            return;
        }
        if self.cpus[cpu as usize].interrupt.is_some() {
            return self.end_interrupt(cpu);
        }
        let was_idle = self.tree.interrupt_enter(cpu);
        assert!(was_idle);
        self.cpus[cpu as usize].interrupt = Some(was_idle);
        self.cpus[cpu as usize].section = Some(self.oracle.reader_begins());
    }

    fn end_interrupt(&mut self, cpu: u32) {
        let here = &mut self.cpus[cpu as usize];
        let was_idle = here.interrupt.take().expect("is being served");
        let section = here.section.take().expect("began with one");
        self.oracle.reader_ends(section);
        self.tree.interrupt_exit(cpu, was_idle);
    }

    fn call(&mut self, cpu: u32) {
        if !matches!(self.cpus[cpu as usize].mode, Mode::Running(_)) {
            return;
        }
        for _ in 0..1 + self.random.below(8) {
            let call = Box::leak(Box::new(Call { head: Head::new(), queued: self.oracle.queue() }));
            let whole: *mut Call = call;
            // SAFETY: the field of a live object, by way of a pointer to the whole one.
            let head = unsafe { NonNull::new_unchecked(&raw mut (*whole).head) };
            let lazy = self.random.one_in(4);
            // SAFETY: the object is the queue's from here on; `called` may run anywhere.
            let due = unsafe {
                if lazy {
                    self.tree.call_lazy(cpu, head, called, self.now)
                } else {
                    self.tree.call(cpu, head, called)
                }
            };
            self.due(cpu, due);
        }
    }

    fn process(&mut self, cpu: u32) {
        let here = &mut self.cpus[cpu as usize];
        if !here.wants_process || (here.mode == Mode::Down && !here.is_offloaded) {
            return;
        }
        here.wants_process = false;
        let was_idle = here.mode == Mode::Idle && here.interrupt.is_none() && !here.is_offloaded;
        let token = was_idle && self.tree.interrupt_enter(cpu);
        let due = self.tree.process(cpu);
        self.due(cpu, due);
        let enough = 1 + self.random.below(10) as usize;
        let World { tree, oracle, random, barrier_running, .. } = self;
        let mut actions = Vec::new();
        // SAFETY: `called` may run anywhere.
        let ran = unsafe {
            tree.run_ready(cpu, |count| {
                CALLED.take().into_iter().for_each(|queued| oracle.call(queued));
                // A barrier may begin in the middle of a batch.
                if !*barrier_running && random.one_in(30) {
                    *barrier_running = true;
                    oracle.barrier_begins();
                    tree.try_barrier(|action| match action {
                        Action::WakeBarrier => {
                            oracle.barrier_ends();
                            *barrier_running = false;
                        }
                        action => actions.push(action),
                    });
                }
                count == enough
            })
        };
        self.tree.interrupt_exit(cpu, token);
        actions.into_iter().for_each(|action| self.act(action));
        self.due(cpu, ran.due);
        self.cpus[cpu as usize].wants_process |= ran.more;
    }

    fn plug(&mut self, cpu: u32) {
        let ups = self.cpus.iter().take(8).filter(|cpu| cpu.mode != Mode::Down).count();
        let mode = self.cpus[cpu as usize].mode;
        match mode {
            Mode::Down => {
                self.cpus[cpu as usize].mode = Mode::Running(None);
                self.cpus[cpu as usize].is_orphaned = false;
                self.tree.cpu_up(cpu);
            }
            Mode::Running(task) if ups > 2 && cpu != 0 && self.cpus[cpu as usize].section.is_none() => {
                // A last switch says that the CPU is quiescent; if there is nobody to be switched away it may do without.
                if task.is_some() || self.random.one_in(2) {
                    self.switch(cpu);
                }
                if let Mode::Running(Some(task)) = self.cpus[cpu as usize].mode {
                    self.ready.push(task);
                }
                self.cpus[cpu as usize].mode = Mode::Down;
                self.cpus[cpu as usize].is_orphaned = true;
                self.cpus[cpu as usize].wants_resched = false;
                let due = self.tree.cpu_down(cpu);
                self.due(cpu, due);
                if self.random.one_in(2) {
                    self.adopt(cpu);
                }
            }
            _ => (),
        }
    }

    /// CPU 0, which is always up, takes over.
    fn adopt(&mut self, from: u32) {
        if std::mem::take(&mut self.cpus[from as usize].is_orphaned) {
            let due = self.tree.adopt_callbacks(0, from);
            self.due(0, due);
        }
    }

    fn expedite(&mut self, cpu: u32) {
        if self.expedited_running
            || !matches!(self.cpus[cpu as usize].mode, Mode::Running(_))
            || self.in_section(cpu)
        {
            return;
        }
        self.oracle.expedited.begin();
        self.expedited_running = true;
        let mut actions = Vec::new();
        assert!(self.tree.try_expedite(cpu, |action| actions.push(action)));
        actions.into_iter().for_each(|action| self.act(action));
    }

    fn poll_or_barrier(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].mode == Mode::Down {
            return;
        }
        if self.random.one_in(4) {
            self.barrier();
            return;
        }
        let needed = self.oracle.normal.begun + 1;
        let (cookie, due) = self.tree.start_poll(cpu);
        self.due(cpu, due);
        if self.polls.len() < 64 {
            self.polls.push((cookie, needed));
        }
        self.check_polls();
    }

    fn check_polls(&mut self) {
        for &(cookie, needed) in &self.polls {
            let done = self.tree.poll(cookie);
            assert_eq!(done, self.oracle.normal.ended >= needed, "a cookie was done at the wrong time");
        }
        let ended = self.oracle.normal.ended;
        self.polls.retain(|&(_, needed)| ended < needed);
    }

    fn barrier(&mut self) {
        if self.barrier_running {
            return;
        }
        self.barrier_running = true;
        self.oracle.barrier_begins();
        let (mut actions, mut dues) = (Vec::new(), Vec::new());
        assert!(self.tree.try_barrier(|action| {
            actions.push(action);
            // Between two of the barrier's visits anything may happen: here, that callbacks move.
            for from in 1..self.plan.cpus {
                if std::mem::take(&mut self.cpus[from as usize].is_orphaned) {
                    dues.push(self.tree.adopt_callbacks(0, from));
                }
            }
        }));
        dues.into_iter().for_each(|due| self.due(0, due));
        actions.into_iter().for_each(|action| self.act(action));
    }

    /// What happens rarely.
    fn odd(&mut self, cpu: u32) {
        match self.random.below(3) {
            0 => {
                let offloaded = self.random.one_in(2);
                self.cpus[cpu as usize].is_offloaded = offloaded;
                let due = self.tree.set_offloaded(cpu, offloaded);
                self.due(cpu, due);
                if self.cpus[cpu as usize].mode == Mode::Down {
                    self.cpus[cpu as usize].is_orphaned = true;
                }
            }
            1 => self.adopt(cpu),
            _ => {
                let due = self.tree.hurry(cpu);
                self.due(cpu, due);
            }
        }
    }

    // ---- Liveness ----

    /// Ends what is going on and sees to it that all that was asked for happens.
    pub(super) fn settle(&mut self) {
        for cpu in 0..self.plan.cpus {
            while self.in_section(cpu) {
                self.end_section(cpu);
            }
            self.unlocked(cpu);
            self.adopt(cpu);
        }
        // Preempted readers have to run to finish.
        while let Some(index) = self.ready.iter().position(|&task| self.tasks[task].section.is_some()) {
            let task = self.ready.swap_remove(index);
            let section = self.tasks[task].section.take().expect("has one");
            self.tasks[task].depth = 0;
            self.oracle.reader_ends(section);
            let due = self.tree.reader_done(self.tasks[task].reader.as_ref());
            self.due(0, due);
            self.ready.push(task);
        }
        for task in 0..self.tasks.len() {
            if self.tasks[task].section.is_none() {
                let due = self.tree.reader_done(self.tasks[task].reader.as_ref());
                self.due(0, due);
            }
        }
        for cpu in 0..self.plan.cpus {
            let due = self.tree.hurry(cpu);
            self.due(cpu, due);
        }
        for round in 0.. {
            assert!(round < 1_000, "a grace period does not end, or a callback is lost: {:?}", self.oracle);
            self.now += TICK;
            if self.cpus[0].mode == Mode::Idle {
                self.idle(0);
            }
            for cpu in 0..self.plan.cpus {
                self.tick(cpu);
                if self.cpus[cpu as usize].is_interrupted {
                    self.interrupt(cpu);
                }
                if self.cpus[cpu as usize].wants_resched {
                    self.switch(cpu);
                }
                self.process(cpu);
            }
            if let Mode::Running(Some(task)) = self.cpus[0].mode {
                self.ready.push(task);
                self.cpus[0].mode = Mode::Running(None);
                let due = self.tree.note_context_switch(0, None);
                self.due(0, due);
            }
            self.drive();
            if self.is_settled() {
                break;
            }
        }
        self.check_polls();
        assert!(self.polls.is_empty(), "a grace period that was asked for did not come");
    }

    fn is_settled(&self) -> bool {
        let oracle = &self.oracle;
        oracle.queued == oracle.called
            && !self.barrier_running
            && !self.expedited_running
            && self.polls.iter().all(|&(_, needed)| oracle.normal.ended >= needed)
            && !self.tree.grace_periods.is_running()
            && self.driver_next == Next::Sleep
            && !self.driver_woken
    }
}
