//! Grace periods of any number of CPUs: the tree of [`::rcu::tree`], driven by this machine.

mod callbacks;
mod domain;
mod events;
mod grace;
mod readers;
mod stall;

use ::rcu::tree::{Due, Geometry, Node, PerCpu, Readers, Timing, Tree};
use alloc::vec::Vec;
use hal::{Native, Platform};
use spin::Once;
use sync::softirq::Vector;
use timers::TICK_NS;

use super::PREEMPTIBLE;
pub use callbacks::{Overrun, offload, offloaded, overruns, set_flood_limit};
pub(crate) use callbacks::{ask, need_tick};
pub use domain::Kernel;
pub(crate) use events::{
    cpu_comes, cpu_goes, cpu_gone, idle_enter, idle_leave, next_event, nmi_enter, nmi_exit, note_switch,
    on_tick,
};
pub(crate) use grace::start;
pub use grace::{figures, running_since};
pub(crate) use readers::{check_before_block, end_of_task};
pub use stall::{set_stall_ns, stalls};

static TREE: Once<Tree<'static, Native>> = Once::new();

/// When the driver does what. Ticks may rest on busy CPUs, so that the first look is also when those are asked that have
/// not reported; the second interrupts them.
const TIMING: Timing = Timing {
    scan: TICK_NS,
    nudge: TICK_NS,
    interrupt: 3 * TICK_NS,
    boost: 500_000_000,
    stall: 21_000_000_000,
};

/// Makes the tree. On the boot CPU, before it has tasks, when the number of CPUs is known.
pub(crate) fn prepare() {
    TREE.call_once(|| {
        let shape = Geometry::new(Native::cpu_count());
        let nodes: Vec<Node<Native>> = (0..shape.nodes()).map(|_| Node::new()).collect();
        let cpus: Vec<PerCpu<Native>> = (0..shape.cpus()).map(|_| PerCpu::new()).collect();
        let readers = if PREEMPTIBLE { Readers::Preemptible } else { Readers::NonPreemptible };
        Tree::new(shape, readers, nodes.leak(), cpus.leak()).with_timing(TIMING)
    });
    crate::softirq::set_handler(Vector::Rcu, Some(&callbacks::RUN));
}

/// The machine's tree, for who wants to look at it.
///
/// # Panics
/// Before the boot CPU has tasks.
#[inline(always)]
pub fn tree() -> &'static Tree<'static, Native> {
    match TREE.get() {
        Some(tree) => tree,
        None => too_early(),
    }
}

#[cold]
fn too_early() -> ! {
    panic!("grace periods before there are tasks")
}

/// Does on this CPU what the tree wants done. No lock of the scheduler's is held; the execution stays on its CPU.
#[inline(always)]
fn act(due: Due) {
    if due != Due::NOTHING {
        act_on(due);
    }
}

#[cold]
#[inline(never)]
fn act_on(due: Due) {
    if due.attention {
        hal::x86_64::reader::want_attention();
    }
    if due.reschedule {
        Native::set_need_resched(Native::cpu());
    }
    if due.process {
        Native::raise_softirq(Vector::Rcu.index());
    }
    if due.wake_offload {
        callbacks::wake_offload();
    }
    if due.wake_driver {
        grace::wake_driver();
    }
    if due.wake_expedited {
        grace::EXPEDITED.wake_all();
    }
    if due.wake_barrier {
        grace::BARRIER.wake_all();
    }
    if due.driver_starves {
        stall::driver_starves();
    }
}
