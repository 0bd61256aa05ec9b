//! Work queues on this machine: a pool of workers on each CPU, one for all, and the queues that everybody may use.
//!
//! 1. Each CPU has a pool whose workers stay on it ([`system`]'s items run where they are queued), and there is one pool
//!    whose workers run anywhere ([`unbound`]). A queue of one's own ([`per_cpu`], [`any_cpu`], [`ordered`]) has lanes into
//!    these pools, and no tasks.
//! 2. A pool begins with one worker. It gets another when its last idle one goes to work, up to [`CPU_WORKERS`] or
//!    [`ANY_WORKERS`]: as many functions can sleep at once without holding up others. One that has had nothing to do for
//!    [`IDLE_NS`] ends, unless no other one is idle.
//! 3. When a CPU goes off-line its pool is closed: what waits there, and what is queued for it, goes to CPU 0, and what is
//!    being called is waited for ([`leave`]).
//!
//! Linux: `system_wq`, `system_unbound_wq`, `alloc_workqueue`; workers are `kworker/N:M`.

mod workers;

use alloc::boxed::Box;
use alloc::vec::Vec;

use hal::{CpuId, Native, Platform};
use spin::Once;
use sync::list::Owner;
use sync::work::Lane;
pub use sync::work::{Pool, Running, Stats, Work, WorkQueue};
use sync::{SpinLock, TaskCx};

use crate::task::SpawnError;
use workers::Place;

/// The most workers of one CPU.
pub const CPU_WORKERS: u32 = 8;
/// The most workers that run anywhere.
pub const ANY_WORKERS: u32 = 64;
/// For how long a worker that is not its pool's only idle one waits for something to do before it ends, in nanoseconds.
/// Linux: `IDLE_WORKER_TIMEOUT`, 5 minutes.
pub const IDLE_NS: u64 = 30_000_000_000;

/// Everything there is.
struct Works {
    /// By CPU number.
    cpus: Vec<&'static Pool>,
    system: &'static WorkQueue,
    unbound: &'static WorkQueue,
}

static WORKS: Once<Works> = Once::new();
static ANY: Pool = Pool::new(ANY_WORKERS).with_idle_ns(IDLE_NS);
static QUEUES: SpinLock<Vec<&'static WorkQueue>> = SpinLock::new(Vec::new());

fn works() -> &'static Works {
    WORKS.get().expect("work queues are there when the kernel's tasks are")
}

/// Makes the pools and the queues, and starts the first worker of each pool whose CPU is online.
///
/// # Errors
/// If there is no memory for a worker.
pub(crate) fn start(online: impl Iterator<Item = CpuId>) -> Result<(), SpawnError> {
    WORKS.call_once(|| {
        let cpus: Vec<&'static Pool> =
            (0..Native::cpu_count()).map(|_| &*Box::leak(Box::new(pool_of_a_cpu()))).collect();
        let system = register(lanes_of("system", &cpus, u32::MAX));
        let unbound = register(lanes_of("unbound", &[&ANY], u32::MAX));
        Works { cpus, system, unbound }
    });
    workers::start_first(Place::Anywhere)?;
    online.into_iter().try_for_each(join)
}

fn pool_of_a_cpu() -> Pool {
    Pool::new(CPU_WORKERS).with_idle_ns(IDLE_NS)
}

fn lanes_of(name: &'static str, pools: &[&'static Pool], limit: u32) -> WorkQueue {
    let first: &'static Lane = Box::leak(Box::new(Lane::new(pools[0], limit)));
    let others = pools[1..].iter().map(|pool| &*Box::leak(Box::new(Lane::new(pool, limit).with_heir(first))));
    let lanes: Vec<&'static Lane> = core::iter::once(first).chain(others).collect();
    WorkQueue::new(name, lanes.leak())
}

fn register(queue: WorkQueue) -> &'static WorkQueue {
    let queue = &*Box::leak(Box::new(queue));
    QUEUES.lock().push(queue);
    queue
}

/// Everybody's queue whose items run on the CPU that queues them. For functions that are soon done.
pub fn system() -> &'static WorkQueue {
    works().system
}

/// Everybody's queue whose items run on any CPU.
pub fn unbound() -> &'static WorkQueue {
    works().unbound
}

/// Has the item's function called soon by a worker of this CPU. See [`WorkQueue::queue`]. Linux: `schedule_work`.
///
/// Contexts: any but NMI.
#[inline]
pub fn queue<F, O>(work: O) -> bool
where
    O: Owner<Object = Work<F>> + 'static,
    F: Fn(&mut Running<'_>) + Send + Sync + 'static,
{
    system().queue(work)
}

/// A queue of one's own whose items run on the CPU that queues them, at most `limit` of each CPU at a time. It stays for
/// ever. Linux: `alloc_workqueue`. Contexts: task.
pub fn per_cpu(name: &'static str, limit: u32) -> &'static WorkQueue {
    register(lanes_of(name, &works().cpus, limit))
}

/// A queue of one's own whose items run on any CPU, at most `limit` at a time. It stays for ever. Linux: `alloc_workqueue`
/// with `WQ_UNBOUND`. Contexts: task.
pub fn any_cpu(name: &'static str, limit: u32) -> &'static WorkQueue {
    register(lanes_of(name, &[&ANY], limit))
}

/// A queue of one's own whose items run in order, one after the other, on any CPU. It stays for ever. Linux:
/// `alloc_ordered_workqueue`. Contexts: task.
pub fn ordered(name: &'static str) -> &'static WorkQueue {
    any_cpu(name, 1)
}

/// A CPU that may go off-line: what waits for its workers, and what is queued for them from here on, goes to the first
/// CPU's. Returns when its workers have nothing to do any more.
///
/// Contexts: task, with nothing held that a function waits for. `cpu` is not the first one.
pub fn leave(cpu: CpuId, cx: &mut TaskCx) {
    if let Some(pool) = pool_of(cpu) {
        pool.close();
        pool.drain(cx);
    }
}

/// Undoes [`leave`], or is the first time for a CPU that comes: its workers take items.
///
/// Contexts: task.
///
/// # Errors
/// If it has no worker and there is no memory for one.
pub fn join(cpu: CpuId) -> Result<(), SpawnError> {
    let Some(pool) = pool_of(cpu) else { return Ok(()) };
    if pool.stats().workers == 0 {
        workers::start_first(Place::On(cpu))?;
    }
    pool.open();
    Ok(())
}

fn pool_of(cpu: CpuId) -> Option<&'static Pool> {
    works().cpus.get(cpu.index()).copied()
}

/// The pool of that place.
fn pool_at(place: Place) -> &'static Pool {
    match place {
        Place::Anywhere => &ANY,
        Place::On(cpu) => works().cpus[cpu.index()],
    }
}

/// What each pool is doing: that of each CPU, and as `None` the one for all.
pub fn stats() -> Vec<(Option<CpuId>, Stats)> {
    let cpus = works().cpus.iter().enumerate();
    cpus.map(|(number, pool)| (CpuId::new(number as u32), pool.stats()))
        .chain([(None, ANY.stats())])
        .collect()
}

/// Whether the queue's items run on the CPU that queues them; also of a machine's only CPU.
pub fn is_per_cpu(queue: &WorkQueue) -> bool {
    !core::ptr::eq(queue.lanes()[0].pool(), &ANY)
}

/// Calls `visit` with each queue there is, oldest first. Contexts: task; `visit` runs with a lock held.
pub fn for_each_queue(visit: impl FnMut(&'static WorkQueue)) {
    QUEUES.lock().iter().copied().for_each(visit);
}
