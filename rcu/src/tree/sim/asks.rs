//! What is asked for: callbacks, expedited periods, cookies, barriers.

use std::ptr::NonNull;

use super::world::{CALLED, Call, Mode, World, called};
use crate::head::Head;
use crate::tree::Action;

impl World<'_, '_> {
    pub(super) fn call(&mut self, cpu: u32) {
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

    /// Whether somebody is there to do it: a CPU that is up, or the thread of one that is off-loaded.
    pub(super) fn may_process(&self, cpu: u32) -> bool {
        let here = &self.cpus[cpu as usize];
        here.mode != Mode::Down || here.is_offloaded
    }

    pub(super) fn process(&mut self, cpu: u32) {
        if !self.cpus[cpu as usize].wants_process || !self.may_process(cpu) {
            return;
        }
        let here = &mut self.cpus[cpu as usize];
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

    pub(super) fn expedite(&mut self, cpu: u32) {
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

    pub(super) fn poll_or_barrier(&mut self, cpu: u32) {
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

    pub(super) fn check_polls(&mut self) {
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
        // It may take over, below.
        self.end_report(0);
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
    pub(super) fn odd(&mut self, cpu: u32) {
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
}
