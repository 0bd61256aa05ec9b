//! Reference counts that all CPUs count at once, on CPUs that come and go.

use core::sync::atomic::{AtomicBool, AtomicIsize, AtomicU32, Ordering};

use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{CpuId, MAX_CPUS, Native, Platform};
use sync::percpu_ref::PerCpuRef;
use sync::{TaskCx, preempt};

use crate::task::{Builder, JoinHandle};
use crate::{check, check_eq, cpus, hotplug, kernel_test};

/// A count with a creator who lets go once.
trait Count: Send + Sync + Sized + 'static {
    fn new() -> Option<Self>;
    fn try_get(&self) -> bool;
    /// Whether that was the last reference.
    fn put(&self) -> bool;
    fn kill(&self) -> bool;
}

impl Count for PerCpuRef {
    fn new() -> Option<PerCpuRef> {
        PerCpuRef::new().ok()
    }

    fn try_get(&self) -> bool {
        PerCpuRef::try_get(self)
    }

    fn put(&self) -> bool {
        PerCpuRef::put(self)
    }

    fn kill(&self) -> bool {
        PerCpuRef::kill(self)
    }
}

/// What one writes at first: a slot for each CPU and a mark that it is over, looked at before counting. Who has looked
/// and not counted when the slots are added up is not in the sum.
struct Naive {
    slots: [AtomicIsize; MAX_CPUS],
    over: AtomicBool,
    shared: AtomicIsize,
}

impl Naive {
    fn add(&self, change: isize) -> Option<isize> {
        let here = preempt::disable();
        if self.over.load(Ordering::SeqCst) {
            return Some(self.shared.fetch_add(change, Ordering::SeqCst) + change);
        }
        for _ in 0..20 {
            Native::relax();
        }
        self.slots[here.cpu().index()].fetch_add(change, Ordering::SeqCst);
        None
    }
}

impl Count for Naive {
    fn new() -> Option<Naive> {
        let (slots, over) = ([const { AtomicIsize::new(0) }; MAX_CPUS], AtomicBool::new(false));
        Some(Naive { slots, over, shared: AtomicIsize::new(0) })
    }

    fn try_get(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && {
            self.add(1);
            true
        }
    }

    fn put(&self) -> bool {
        self.add(-1) == Some(0)
    }

    fn kill(&self) -> bool {
        self.over.store(true, Ordering::SeqCst);
        let sum: isize = self.slots.iter().map(|slot| slot.load(Ordering::SeqCst)).sum();
        self.shared.fetch_add(sum, Ordering::SeqCst) + sum == 0
    }
}

/// What is counted, and what went wrong with it.
struct Object<C> {
    count: C,
    users: AtomicU32,
    /// Somebody was told that the last reference is gone.
    gone: AtomicU32,
    wrong: AtomicU32,
}

impl<C: Count> Object<C> {
    fn last(&self) {
        let users = self.users.load(Ordering::SeqCst);
        let again = self.gone.fetch_add(1, Ordering::SeqCst);
        self.wrong.fetch_add((users != 0 || again != 0).into(), Ordering::SeqCst);
    }

    /// Makes a reference, uses it on this CPU and perhaps on another one, and gives it up. Whether it got one.
    fn visit(&self, cx: &mut TaskCx) -> bool {
        if !self.count.try_get() {
            return false;
        }
        self.users.fetch_add(1, Ordering::SeqCst);
        self.wrong.fetch_add((self.gone.load(Ordering::SeqCst) != 0).into(), Ordering::SeqCst);
        cx.cond_resched();
        self.users.fetch_sub(1, Ordering::SeqCst);
        if self.count.put() {
            self.last();
        }
        true
    }
}

/// Fewer where time is counted: there CPUs that spin take turns of a millisecond. An even number: with each the CPU goes or
/// comes.
const OBJECTS: usize = if cfg!(feature = "chaos") { 4 } else { 16 };

/// All CPUs use one object after the other while its creator lets go of it. Returns how many visits there were, and how
/// many objects went too early, twice, or never; one is enough.
fn torture<C: Count>(
    objects: usize,
    cx: &mut TaskCx,
    mut between: impl FnMut(usize, &mut TaskCx),
) -> (u32, usize) {
    static VISITS: AtomicU32 = AtomicU32::new(0);
    VISITS.store(0, Ordering::Relaxed);
    let mut bad = 0;
    for round in 0..objects {
        let Some(count) = C::new() else { return (0, objects) };
        let object = Arc::new(Object {
            count,
            users: AtomicU32::new(0),
            gone: AtomicU32::new(0),
            wrong: AtomicU32::new(0),
        });
        let users: Vec<JoinHandle<()>> = (0..2 * cpus::online_count().min(4))
            .filter_map(|_| {
                let object = Arc::clone(&object);
                let visit = move |cx: &mut TaskCx| {
                    while object.visit(cx) {
                        VISITS.fetch_add(1, Ordering::Relaxed);
                    }
                };
                Builder::new("counts").spawn(visit).ok()
            })
            .collect();
        between(round, cx);
        cx.block(Some(Native::now_ns() + 300_000));
        if object.count.kill() {
            object.last();
        }
        users.into_iter().for_each(|user| user.join(cx));
        let (gone, wrong) = (object.gone.load(Ordering::SeqCst), object.wrong.load(Ordering::SeqCst));
        bad += usize::from(gone != 1 || wrong != 0);
        if bad != 0 {
            break;
        }
    }
    (VISITS.load(Ordering::Relaxed), bad)
}

kernel_test! {
    task, limit_ms = 60_000,
    fn the_last_reference_is_told_once_while_cpus_come_and_go(cx) {
        let other = cpus::online().find(|cpu| *cpu != CpuId::BOOT);
        let mut changed = Ok(());
        let (visits, bad) = torture::<PerCpuRef>(OBJECTS, cx, |round, cx| {
            if let Some(cpu) = other {
                let change = if round % 2 == 0 { hotplug::take_offline } else { hotplug::bring_online };
                changed = changed.and(change(cpu, cx));
            }
        });
        check_eq!(changed, Ok(()));
        check_eq!(bad, 0);
        check!(visits as usize > OBJECTS, "{visits} visits");
        Ok(())
    }
}

kernel_test! {
    task, limit_ms = 60_000,
    fn a_count_that_looks_before_it_counts_is_caught(cx) {
        if cpus::online_count() < 2 {
            crate::skip!("one CPU only");
        }
        let (visits, bad) = torture::<Naive>(20 * OBJECTS, cx, |_, _| ());
        check!(bad > 0, "{visits} visits, and all objects went well");
        Ok(())
    }
}
