//! What happens on a CPU, as far as grace periods are concerned.

use core::pin::Pin;

use hal::Platform;
use hal::platform::TaskId;

use super::faults::faulty;
use super::percpu::Has;
use super::{Due, Reader, Readers, Tree};
use crate::primitives::{Ordering, fence};
use crate::seq::running;

/// What an interrupt has interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupted {
    /// The idle loop itself, between [`idle_enter`](Tree::idle_enter) and [`idle_exit`](Tree::idle_exit), and not another
    /// interrupt or a softirq there.
    Idle,
    /// A program in user mode.
    User,
    /// The kernel.
    Kernel {
        /// The interrupted task may be replaced: preemption and bottom halves are on, and no other interrupt is being
        /// served.
        preemptible: bool,
        /// It is inside of a preemptible read-side section.
        in_reader: bool,
    },
}

impl<P: Platform> Tree<'_, P> {
    /// Whether interrupted code of this kind shows that the CPU is in no reader.
    fn is_quiescent(&self, interrupted: Interrupted) -> bool {
        match interrupted {
            Interrupted::Idle | Interrupted::User => true,
            _ if faulty!(self, TickIsQuiescent) => true,
            // Without user mode, and without preemptible readers, nothing shows it but a context switch: whatever the
            // kernel is doing may be in a region without preemption, or begin one while this is being decided.
            Interrupted::Kernel { preemptible, in_reader } => {
                self.readers == Readers::Preemptible
                    && preemptible
                    && (!in_reader || faulty!(self, ReportInReader))
            }
        }
    }

    /// The running task is about to be replaced; `reader` is its place in the lists, and its name, if it is in a
    /// preemptible read-side section. Reports for the CPU.
    ///
    /// Linux: `rcu_note_context_switch`. Contexts: the scheduler's, interrupts off. Cost: three loads, if nobody waits
    /// and no reader is to be entered.
    #[inline]
    pub fn note_context_switch(&self, cpu: u32, reader: Option<(Pin<&Reader>, TaskId)>) -> Due {
        match reader {
            // One entry for the whole section, however often the task is preempted in it.
            Some((reader, task)) if !reader.is_queued() => self.report(cpu, Some((reader, task))),
            Some((reader, _)) if faulty!(self, ForgottenNestedReader) => {
                let mut due = self.reader_done(reader);
                due |= self.quiescent(cpu);
                due
            }
            _ => self.quiescent(cpu),
        }
    }

    /// The tick: once in a while on every CPU that is not idle. `now` is the time in nanoseconds.
    ///
    /// A tick that finds a grace period waiting for this CPU, and no quiescent state, asks for a reschedule, or for
    /// the attention of the reader's unlock.
    ///
    /// Linux: `rcu_sched_clock_irq`. Contexts: hardirq.
    pub fn check_tick(&self, cpu: u32, now: u64, interrupted: Interrupted) -> Due {
        let mut due = self.check_interrupt(cpu, interrupted);
        let percpu = self.percpu(cpu);
        if percpu.has.load(Ordering::Relaxed) == Has::LAZY {
            due |= self.check_lazy(cpu, now);
        }
        due.driver_starves = self.driver_starves(now);
        due
    }

    /// An interrupt that was asked for by [`Action::Interrupt`](super::Action), or another one.
    ///
    /// Linux: `rcu_exp_handler`. Contexts: hardirq.
    pub fn check_interrupt(&self, cpu: u32, interrupted: Interrupted) -> Due {
        if self.is_quiescent(interrupted) {
            return self.quiescent(cpu);
        }
        let mut due = Due::NOTHING;
        let percpu = self.percpu(cpu);
        let number = self.number_of(percpu.leaf);
        let reported = percpu.reported.load(Ordering::Relaxed) == number;
        if percpu.expedited.load(Ordering::Relaxed) || (running(number) && !reported) {
            match interrupted {
                Interrupted::Kernel { in_reader: true, .. } if self.readers == Readers::Preemptible => {
                    due.attention = true;
                }
                _ => due.reschedule = true,
            }
        } else if !reported {
            // A period has ended since the last look.
            due = self.note_end(cpu, number);
        }
        due
    }

    /// The end of a grace period is noticed wherever the CPU is.
    pub(super) fn note_end(&self, cpu: u32, number: usize) -> Due {
        self.percpu(cpu).reported.store(number, Ordering::Relaxed);
        self.waiting_due(cpu)
    }

    /// The CPU enters an extended quiescent state: until [`idle_exit`](Tree::idle_exit) there are no readers on it, except
    /// in interrupts. It is not asked for anything meanwhile. What is due is to be done before it halts.
    ///
    /// Linux: `ct_idle_enter`, `ct_user_enter`. Contexts: task, preemption off. Cost: an atomic addition and a fence.
    pub fn idle_enter(&self, cpu: u32) -> Due {
        let before = self.percpu(cpu).watching.fetch_add(1, Ordering::Release);
        debug_assert!(!is_extended(before), "a CPU that is idle becomes idle");
        // Pairs with the fence in `observe`: either the driver sees that this CPU is idle, or the look below sees the
        // driver's number. Release above: pairs with the Acquire there; what readers did here comes before.
        fence(Ordering::SeqCst);
        self.quiescent(cpu)
    }

    /// The CPU leaves the extended quiescent state. Readers may follow.
    ///
    /// Linux: `ct_idle_exit`. Contexts: task, preemption off. Cost: an atomic addition and a fence.
    pub fn idle_exit(&self, cpu: u32) {
        let before = self.percpu(cpu).watching.fetch_add(1, Ordering::Relaxed);
        debug_assert!(is_extended(before), "a CPU that is not idle stops being idle");
        if !faulty!(self, NoIdleFence) {
            // Pairs with the fence in `observe`: if the driver took this CPU for idle, the readers that follow see what
            // came before the grace period.
            fence(Ordering::SeqCst);
        }
    }

    /// An interrupt or NMI begins, before its first reader. The answer goes to
    /// [`interrupt_exit`](Tree::interrupt_exit).
    ///
    /// Linux: `ct_irq_enter`, `ct_nmi_enter`. There is no count to keep: an NMI that comes in the middle of this finds the
    /// state before or after, and leaves it as it was. Contexts: any. Cost: a load if the CPU is not idle.
    #[must_use = "what was idle has to be made idle again"]
    #[inline]
    pub fn interrupt_enter(&self, cpu: u32) -> bool {
        let was_idle = is_extended(self.percpu(cpu).watching.load(Ordering::Relaxed));
        if was_idle {
            self.idle_exit(cpu);
        }
        was_idle
    }

    /// The interrupt ends, after its last reader; `was_idle` is what [`interrupt_enter`](Tree::interrupt_enter) said. If
    /// it has made the idle loop end, that calls [`idle_exit`](Tree::idle_exit).
    ///
    /// Linux: `ct_irq_exit`, `ct_nmi_exit`. Contexts: any. Reports nothing, so that it may be called in an NMI: the driver
    /// will find out.
    #[inline]
    pub fn interrupt_exit(&self, cpu: u32, was_idle: bool) {
        if was_idle {
            // Release: pairs with the Acquire in `observe`; the interrupt's readers come before.
            self.percpu(cpu).watching.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether `cpu`, any one, is in an extended quiescent state, and the state's number. A full barrier stands before
    /// the look; readers of the CPU that ended before it entered that state happened before what follows.
    pub(super) fn observe(&self, cpu: u32) -> (bool, usize) {
        // Pairs with the fences in `idle_enter` and `idle_exit`.
        fence(Ordering::SeqCst);
        // Acquire: pairs with the Release in `idle_enter` and `interrupt_exit`.
        let watching = self.percpu(cpu).watching.load(Ordering::Acquire);
        (is_extended(watching), watching)
    }
}

/// Whether a CPU with this count is in an extended quiescent state.
const fn is_extended(watching: usize) -> bool {
    watching & 1 == 0
}
