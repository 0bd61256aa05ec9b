//! What a task does when nobody else wants anything.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use hal::x86_64::fpu::FpuGuard;
use hal::{Native, Platform, percpu};
use sync::list::{self, List};
use sync::wait::WaitQueue;
use sync::{
    BhSpinLock, Completion, IrqSpinLock, Mutex, RwLock, RwSemaphore, Semaphore, SeqLock, SpinLock, TaskCx,
    bh, irq, preempt,
};

use super::{BATCHES, Benchmark, Figures, Place, TURNS, Unit, samples, time};
use crate::bench::consume;

pub(super) const ALL: &[Benchmark] = &[
    Benchmark::task("empty_loop", empty_loop),
    Benchmark::task("preempt_disable_enable", |place, _| place.batches(|_| drop(preempt::disable()))),
    Benchmark::task("local_irq_save_restore", |place, _| place.batches(|_| drop(irq::disable()))),
    Benchmark::task("local_irq_disable_enable", |place, _| place.batches(|_| drop(irq::disable()))),
    Benchmark::task("local_bh_disable_enable", |place, _| place.batches(|_| drop(bh::disable()))),
    Benchmark::task("spin_lock_unlock", |place, _| {
        let lock = black_box(SpinLock::<u64>::new(0));
        place.batches(|_| drop(lock.lock()))
    }),
    Benchmark::task("spin_lock_irqsave_restore", irq_spin_lock),
    Benchmark::task("spin_lock_irq", irq_spin_lock),
    Benchmark::task("spin_lock_bh", |place, _| {
        let lock = black_box(BhSpinLock::new(0_u64));
        place.batches(|_| drop(lock.lock()))
    }),
    Benchmark::task("spin_trylock_unlock", |place, _| {
        let lock = black_box(SpinLock::<u64>::new(0));
        place.batches(|_| drop(lock.try_lock()))
    }),
    Benchmark::task("read_lock_unlock", |place, _| {
        let lock = black_box(RwLock::<u64>::new(0));
        place.batches(|_| drop(lock.read()))
    }),
    Benchmark::task("write_lock_unlock", |place, _| {
        let lock = black_box(RwLock::<u64>::new(0));
        place.batches(|_| drop(lock.write()))
    }),
    Benchmark::task("seqlock_read", |place, _| {
        let lock = black_box(SeqLock::<u64>::new(0));
        place.batches(|_| consume(lock.read()))
    }),
    Benchmark::task("seqlock_write", |place, _| {
        let lock = black_box(SeqLock::<u64>::new(0));
        place.batches(|_| lock.set(1))
    }),
    Benchmark::task("mutex_lock_unlock", |place, cx| {
        let mutex = black_box(Mutex::<u64>::new(0));
        place.batches(|_| drop(mutex.lock(cx)))
    }),
    Benchmark::task("rwsem_down_up_read", |place, cx| {
        let rwsem = black_box(RwSemaphore::<u64>::new(0));
        place.batches(|_| drop(rwsem.read(cx)))
    }),
    Benchmark::task("rwsem_down_up_write", |place, cx| {
        let rwsem = black_box(RwSemaphore::<u64>::new(0));
        place.batches(|_| drop(rwsem.write(cx)))
    }),
    Benchmark::task("semaphore_down_up", |place, cx| {
        let semaphore = black_box(Semaphore::<Native>::new(1));
        place.batches(|_| {
            semaphore.down(cx);
            semaphore.up();
        })
    }),
    Benchmark::task("atomic_inc", |place, _| {
        let count = black_box(AtomicU64::new(0));
        place.batches(|_| _ = count.fetch_add(1, Ordering::Relaxed))
    }),
    Benchmark::task("this_cpu_inc", |place, _| place.batches(|_| COUNTER.inc())),
    Benchmark::task("list_add_del", list_add_del),
    Benchmark::task("complete_wait_nonblocking", complete_wait),
    Benchmark::task("wake_up_empty_waitqueue", |place, _| {
        let queue = black_box(WaitQueue::<Native>::new());
        place.batches(|_| _ = queue.wake_one())
    }),
    Benchmark::task("kernel_fpu_begin_end", |place, _| place.batches(|_| drop(FpuGuard::begin()))),
    Benchmark::task("ktime_get", |place, _| place.batches(|_| consume(Native::now_ns()))),
    Benchmark::task("cond_resched", |place, cx| place.batches(|_| _ = cx.cond_resched())),
];

percpu! {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
}

/// The loop that all others are net of; itself it is net of the clock.
fn empty_loop(place: Place, _: &mut TaskCx) -> Figures {
    let net = || time(|_| ()).0.saturating_sub(place.clock_ns) * 1_000 / u64::from(TURNS);
    Figures::new(Unit::Ns, samples(BATCHES, net))
}

fn irq_spin_lock(place: Place, _: &mut TaskCx) -> Figures {
    let lock = black_box(IrqSpinLock::new(0_u64));
    place.batches(|_| drop(lock.lock()))
}

struct Item {
    link: list::Link,
}

sync::link_field! {
    struct InList = Item => link: list::Link;
}

fn list_add_del(place: Place, _: &mut TaskCx) -> Figures {
    let item = black_box(Item { link: list::Link::new() });
    let mut list = List::<&Item, InList>::new();
    place.batches(|_| {
        list.push_back(&item);
        consume(list.pop_front().map_or(0, |item| core::ptr::from_ref(item) as u64));
    })
}

fn complete_wait(place: Place, cx: &mut TaskCx) -> Figures {
    let done = black_box(Completion::<Native>::new());
    place.batches(|_| {
        done.complete();
        done.wait(cx);
    })
}
