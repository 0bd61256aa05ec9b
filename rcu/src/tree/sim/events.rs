//! What happens on CPUs: sections, switches, ticks, idleness, coming and going.

use std::num::NonZeroUsize;

use hal::platform::TaskId;

use super::world::{Mode, TICK, World};
use crate::tree::{Interrupted, Next};

impl World<'_, '_> {
    pub(super) fn happens(&mut self) {
        self.now += u64::from(self.random.below(TICK as u32 / 4));
        if self.random.one_in(3) {
            self.drive();
            return;
        }
        let cpu = self.random.below(self.plan.cpus);
        self.end_report(cpu);
        self.unlocked(cpu);
        match self.random.below(34) {
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
            31 => self.odd(cpu),
            _ => self.begin_report(cpu),
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
            here.mode == Mode::Running(None) && here.section.is_none() && !here.is_reporting
        })
    }

    pub(super) fn drive(&mut self) {
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

    /// The executing CPU's task has left its outermost section, or will not say so before it is preemptible.
    pub(super) fn unlocked(&mut self, cpu: u32) {
        let here = &self.cpus[cpu as usize];
        let Mode::Running(Some(task)) = here.mode else {
            return;
        };
        if self.tasks[task].section.is_some() || (here.section.is_some() && !self.plan.hasty) {
            return;
        }
        if self.tasks[task].reader.is_queued() {
            let due = self.tree.reader_done(self.tasks[task].reader.as_ref());
            self.due(cpu, due);
        }
        if std::mem::take(&mut self.cpus[cpu as usize].wants_attention) {
            let due = self.tree.quiescent(cpu);
            self.due(cpu, due);
        }
    }

    /// A task offers its CPU: the first of the two steps of a report. The second is taken when something else has happened
    /// elsewhere.
    pub(super) fn begin_report(&mut self, cpu: u32) {
        if !matches!(self.cpus[cpu as usize].mode, Mode::Running(_))
            || self.in_section(cpu)
            || self.tree.has_reported(cpu)
        {
            return;
        }
        match self.tree.look(cpu) {
            Some(number) => {
                let due = self.tree.note_end(cpu, number);
                self.due(cpu, due);
            }
            None => self.cpus[cpu as usize].is_reporting = true,
        }
    }

    pub(super) fn end_report(&mut self, cpu: u32) {
        if std::mem::take(&mut self.cpus[cpu as usize].is_reporting) {
            let due = self.tree.report_locked(cpu, None);
            self.due(cpu, due);
        }
    }

    pub(super) fn in_section(&self, cpu: u32) -> bool {
        let here = &self.cpus[cpu as usize];
        let task = if let Mode::Running(Some(task)) = here.mode { self.tasks[task].section } else { None };
        here.section.is_some() || task.is_some()
    }

    fn begin_section(&mut self, cpu: u32) {
        self.unlocked(cpu);
        let here = &mut self.cpus[cpu as usize];
        let Mode::Running(task) = here.mode else {
            return;
        };
        match task.filter(|_| !self.random.one_in(4)) {
            Some(task) => {
                let task = &mut self.tasks[task];
                task.depth += 1;
                if task.depth == 1 {
                    task.section = Some(match here.section {
                        Some(section) => self.oracle.reader_continues(section),
                        None => self.oracle.reader_begins(),
                    });
                }
            }
            // Preemption off, perhaps in a preemptible section.
            None if here.section.is_none() => {
                here.section = Some(match task.and_then(|task| self.tasks[task].section) {
                    Some(section) => self.oracle.reader_continues(section),
                    None => self.oracle.reader_begins(),
                });
            }
            None => (),
        }
    }

    pub(super) fn end_section(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].interrupt.is_some() {
            return self.end_interrupt(cpu);
        }
        let task = if let Mode::Running(task) = self.cpus[cpu as usize].mode { task } else { None };
        let task = task.filter(|&task| self.tasks[task].section.is_some());
        // Where both kinds are active either may end first.
        match task.filter(|_| self.cpus[cpu as usize].section.is_none() || self.random.one_in(2)) {
            Some(task) => {
                let task = &mut self.tasks[task];
                task.depth -= 1;
                if task.depth == 0 {
                    self.oracle.reader_ends(task.section.take().expect("is in one"));
                }
            }
            None => {
                if let Some(section) = self.cpus[cpu as usize].section.take() {
                    self.oracle.reader_ends(section);
                }
            }
        }
        if self.random.one_in(2) {
            self.unlocked(cpu);
        }
    }

    /// Replaces the running task, by another one or by nothing; returns whether that was possible.
    pub(super) fn switch(&mut self, cpu: u32) -> bool {
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
            mode => {
                let task = if let Mode::Running(Some(task)) = mode { self.tasks[task].section } else { None };
                Interrupted::Kernel { preemptible: here.section.is_none(), in_reader: task.is_some() }
            }
        }
    }

    pub(super) fn tick(&mut self, cpu: u32) {
        if self.cpus[cpu as usize].mode == Mode::Down {
            return;
        }
        let interrupted = self.interrupted(cpu);
        let was_idle = self.tree.interrupt_enter(cpu);
        let due = self.tree.check_tick(cpu, self.now, interrupted);
        self.tree.interrupt_exit(cpu, was_idle);
        self.due(cpu, due);
    }

    pub(super) fn interrupt(&mut self, cpu: u32) {
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

    pub(super) fn idle(&mut self, cpu: u32) {
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
    pub(super) fn adopt(&mut self, from: u32) {
        self.end_report(0);
        if std::mem::take(&mut self.cpus[from as usize].is_orphaned) {
            let due = self.tree.adopt_callbacks(0, from);
            self.due(0, due);
        }
    }
}
