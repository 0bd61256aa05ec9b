//! Reading sections, callbacks and grace periods.

use core::ptr::NonNull;

use ::rcu::{Domain, Head, RcuBox, Srcu};
use alloc::vec::Vec;
use hal::{Native, Platform};
use sync::TaskCx;

use super::{Benchmark, Figures, Place, Unit};
use crate::bench::consume;
use crate::rcu::{self, Kernel, Rcu};

pub(super) const ALL: &[Benchmark] = &[
    Benchmark::task("rcu_read_lock_unlock", |place, _| place.batches(|_| drop(rcu::read()))),
    Benchmark::task("rcu_deref_section", |place, _| {
        let shared = Rcu::new(RcuBox::new(7_u64));
        place.batches(|_| {
            let section = rcu::read();
            consume(*shared.load(&section));
        })
    }),
    Benchmark::task("srcu_read_lock_unlock", |place, _| {
        let Ok(domain) = Srcu::<Native>::new("bench") else { return Figures::new(Unit::Ns, Vec::new()) };
        place.batches(|_| drop(domain.read()))
    }),
    Benchmark::task("call_rcu_enqueue_1e5", |_, cx| many_callbacks(cx).0),
    Benchmark::task("call_rcu_to_barrier_1e5", |_, cx| many_callbacks(cx).1),
    Benchmark::task("synchronize_rcu", |place, cx| place.singles(31, || Kernel::synchronize(cx))),
    Benchmark::task("synchronize_rcu_expedited", |place, cx| {
        place.singles(101, || Kernel::synchronize_expedited(cx))
    }),
    Benchmark::task("rcu_barrier_idle", |place, cx| place.singles(101, || Kernel::barrier(cx))),
    Benchmark::task("synchronize_srcu", synchronize_srcu),
];

fn synchronize_srcu(place: Place, cx: &mut TaskCx) -> Figures {
    let Ok(domain) = Srcu::<Native>::new("bench") else { return Figures::new(Unit::Ns, Vec::new()) };
    place.singles(31, || domain.synchronize(cx))
}

/// What is called does nothing: its object is freed after the barrier, with all others.
unsafe fn nothing(_: NonNull<Head>) {}

/// What queueing callbacks costs, each, and what it takes until all were called.
fn many_callbacks(cx: &mut TaskCx) -> (Figures, Figures) {
    const MANY: u64 = 100_000;
    const TRIES: usize = 5;
    let mut heads: Vec<Head> = (0..MANY).map(|_| Head::new()).collect();
    let first = heads.as_mut_ptr();
    let (mut queued, mut called) = (Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let begun = Native::now_ns();
        for number in 0..MANY as usize {
            // SAFETY: inside the vector, whose elements nobody refers to by another way.
            let head = unsafe { NonNull::new_unchecked(first.add(number)) };
            // SAFETY: it lives until the barrier below has seen its callback called, and is queued once before that.
            unsafe { Kernel::call(head, nothing) };
        }
        queued.push((Native::now_ns() - begun) * 1_000 / MANY);
        Kernel::barrier(cx);
        called.push((Native::now_ns() - begun) * 1_000 / MANY);
    }
    drop(heads);
    (Figures::new(Unit::Ns, queued), Figures::new(Unit::Ns, called))
}
