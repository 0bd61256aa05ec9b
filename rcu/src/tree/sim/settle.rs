//! Liveness: everything that was asked for happens, in a bounded number of ticks.

use super::world::{Mode, TICK, World};
use crate::tree::Next;

impl World<'_, '_> {
    /// Ends what is going on and sees to it that all that was asked for happens.
    pub(super) fn settle(&mut self) {
        for cpu in 0..self.plan.cpus {
            self.end_report(cpu);
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
                self.end_report(cpu);
                // Some are in the middle of a report while the others and the driver go on; none for ever, when there are no
                // more choices.
                if self.random.below(4) == 3 {
                    self.begin_report(cpu);
                    continue;
                }
                self.tick(cpu);
                if self.cpus[cpu as usize].is_interrupted {
                    self.interrupt(cpu);
                }
                if self.cpus[cpu as usize].wants_resched {
                    self.switch(cpu);
                }
                // All of it: a CPU that has taken over from many has more than a batch for each tick.
                while self.cpus[cpu as usize].wants_process && self.may_process(cpu) {
                    self.process(cpu);
                }
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
