//! Grace periods on this machine: what they wait for, what they do not wait for, and what is said when they wait long.

mod sleepable;
mod torture;
#[cfg(not(feature = "rcu-tiny"))]
mod tree;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ::rcu::domain::illegal_wait;
use ::rcu::{Domain, Head, RcuBox, Retired};
use alloc::boxed::Box;
use alloc::sync::Arc;
use hal::{CpuId, Native, Platform, percpu};
use sync::TaskCx;

use crate::calls::{self, CallData};
use crate::rcu::{self, Kernel, RcuOption};
use crate::sched::policy::Policy;
use crate::sched::{self, Preemption};
use crate::task::{Builder, TaskRef};
use crate::testing::{comes_true, comes_true_by_others};
use crate::{check, check_eq, cpus, kernel_test, skip};

const MS: u64 = 1_000_000;

kernel_test! {
    everywhere,
    fn smoke_synchronize_returns_on_every_cpu(_) {
        // SAFETY: a task in which nothing forbids sleeping, as `run_on_all` promises; used up here.
        let mut cx = unsafe { TaskCx::new() };
        for _ in 0..3 {
            let before = Kernel::get_state();
            Kernel::synchronize(&mut cx);
            check!(Kernel::poll(before));
            Kernel::synchronize_expedited(&mut cx);
            Kernel::barrier(&mut cx);
        }
        Ok(())
    }
}

/// Counts itself when it is freed.
struct Counted(&'static AtomicU32);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

kernel_test! {
    task,
    fn smoke_what_is_retired_is_freed_once_and_barrier_waits_for_it(cx) {
        static FREED: AtomicU32 = AtomicU32::new(0);
        FREED.store(0, Ordering::Relaxed);
        for n in 1..=500 {
            Retired::<_, Kernel>::new(RcuBox::new(Counted(&FREED))).free_after_grace_period();
            if u32::is_multiple_of(n, 100) {
                Kernel::barrier(cx);
                check_eq!(FREED.load(Ordering::Relaxed), n);
            }
        }
        Ok(())
    }
}

/// Queues an ordinary callback, which drops `value`. Those of [`Retired`] are lazy.
fn queue<T: Send + 'static>(value: T) {
    /// A head, and what is dropped.
    #[repr(C)]
    struct Headed<T> {
        head: Head,
        value: T,
    }
    unsafe fn free<T>(head: NonNull<Head>) {
        // SAFETY: every head that is queued with this function is the first field of a leaked box of this type.
        drop(unsafe { Box::from_raw(head.cast::<Headed<T>>().as_ptr()) }.value);
    }
    let headed = Box::leak(Box::new(Headed { head: Head::new(), value }));
    // SAFETY: fresh, in place until it is called, and queued once; what it frees may be sent.
    unsafe { Kernel::call(NonNull::from(headed).cast(), free::<T>) };
}

/// A task in a section, on `cpu`, that leaves it when it is told to; and whether it has.
struct Reading {
    inside: AtomicBool,
    leave: AtomicBool,
    left: AtomicU32,
}

impl Reading {
    /// `None` if there is no memory, or tasks are not preempted: it would keep its CPU. Where only readers are not, it may
    /// have any but this test's.
    fn begin(cpu: CpuId, policy: Policy) -> Option<Held> {
        if sched::preemption() != Preemption::Full || (!rcu::PREEMPTIBLE && cpu == CpuId::BOOT) {
            return None;
        }
        let new = || AtomicBool::new(false);
        let shared = Arc::new(Reading { inside: new(), leave: new(), left: AtomicU32::new(0) });
        let own = Arc::clone(&shared);
        let read = move |_: &mut TaskCx| {
            let section = rcu::read();
            let nested = rcu::read();
            own.inside.store(true, Ordering::Release);
            while !own.leave.load(Ordering::Relaxed) {
                // The end of an inner section is the end of nothing, however often the task was preempted.
                drop(rcu::read());
                Native::relax();
            }
            drop(nested);
            own.left.store(1, Ordering::SeqCst);
            drop(section);
        };
        let task = Builder::new("reader").on(cpu).policy(policy).spawn(read).ok()?.task().clone();
        comes_true_by_others(|| shared.inside.load(Ordering::Acquire)).then_some(Held { shared, task })
    }
}

/// The task leaves its section at the latest when this is dropped, so that a test that fails holds up no other.
struct Held {
    shared: Arc<Reading>,
    /// Whose policy may be of interest.
    #[cfg_attr(feature = "rcu-tiny", expect(dead_code, reason = "nobody is boosted"))]
    task: TaskRef,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.leave.store(true, Ordering::Relaxed);
    }
}

/// For how long a reader holds up who waits for it. Shorter where time is counted: there a CPU that spins makes it pass.
const HELD_NS: u64 = if cfg!(feature = "chaos") { 5 * MS } else { 50 * MS };

/// Has a reader on `cpu` held up `wait`, and says whether it waited until the reader had left.
fn waits_for_reader(cpu: CpuId, cx: &mut TaskCx, wait: fn(&mut TaskCx)) -> Option<bool> {
    static DONE: AtomicBool = AtomicBool::new(false);
    let reading = Reading::begin(cpu, Policy::default())?;
    DONE.store(false, Ordering::Relaxed);
    let shared = Arc::clone(&reading.shared);
    // Here: readers that are not preempted let nobody else have their CPU.
    let waiter = Builder::new("waits").on(CpuId::BOOT).spawn(move |cx| {
        wait(cx);
        let left = shared.left.load(Ordering::SeqCst) != 0;
        DONE.store(true, Ordering::Release);
        left
    });
    let waiter = waiter.ok()?;
    cx.block(Some(Native::now_ns() + HELD_NS / 2));
    if rcu::PREEMPTIBLE {
        // It is preempted when its CPU has been asked, and may report then. The reader holds up who waits as before.
        Builder::new("passes").on(cpu).policy(Policy::fifo(1)).spawn(|_| ()).ok()?.join(cx);
    }
    cx.block(Some(Native::now_ns() + HELD_NS / 2));
    let early = DONE.load(Ordering::Acquire);
    drop(reading);
    Some(waiter.join(cx) && !early)
}

kernel_test! {
    task,
    fn nobody_waits_shorter_than_for_the_readers_there_are(cx) {
        if sched::preemption() != Preemption::Full {
            skip!("tasks are not preempted");
        }
        let last = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT);
        let here = Some(CpuId::BOOT).filter(|_| rcu::PREEMPTIBLE);
        if here.or(last).is_none() {
            skip!("one CPU only, and readers keep it");
        }
        for cpu in here.into_iter().chain(last) {
            // This CPU's reader is preempted by this task each time that it wakes, the others' run alone.
            check_eq!((cpu, waits_for_reader(cpu, cx, Kernel::synchronize)), (cpu, Some(true)));
            check_eq!((cpu, waits_for_reader(cpu, cx, Kernel::synchronize_expedited)), (cpu, Some(true)));
            let poll = |cx: &mut TaskCx| {
                let state = Kernel::start_poll();
                while !Kernel::poll(state) {
                    cx.block(Some(Native::now_ns() + MS));
                }
            };
            check_eq!((cpu, waits_for_reader(cpu, cx, poll)), (cpu, Some(true)));
            let call = |cx: &mut TaskCx| {
                static FREED: AtomicU32 = AtomicU32::new(0);
                Retired::<_, Kernel>::new(RcuBox::new(Counted(&FREED))).free_after_grace_period();
                Kernel::barrier(cx);
            };
            check_eq!((cpu, waits_for_reader(cpu, cx, call)), (cpu, Some(true)));
            // Each time that another one comes is a look at those that wait.
            let first_of_many = |cx: &mut TaskCx| {
                static CALLED: AtomicU32 = AtomicU32::new(0);
                Kernel::barrier(cx);
                CALLED.store(0, Ordering::Relaxed);
                while CALLED.load(Ordering::Relaxed) == 0 {
                    queue(Counted(&CALLED));
                    cx.block(Some(Native::now_ns() + MS));
                }
            };
            check_eq!((cpu, waits_for_reader(cpu, cx, first_of_many)), (cpu, Some(true)));
            Kernel::barrier(cx);
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn regions_without_preemption_bottom_halves_or_interrupts_are_waited_for(cx) {
        let Some(cpu) = cpus::online().find(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU only") };
        static INSIDE: AtomicBool = AtomicBool::new(false);
        static LEFT: AtomicBool = AtomicBool::new(false);
        // Not for longer: others may want something of a CPU whose interrupts are off.
        fn stay() {
            INSIDE.store(true, Ordering::Release);
            let begun = Native::now_ns();
            while Native::now_ns() - begun < 60 * MS {
                Native::relax();
            }
            LEFT.store(true, Ordering::SeqCst);
        }
        let regions: [fn(); 3] = [
            || drop((sync::preempt::disable(), stay())),
            || drop((sync::bh::disable(), stay())),
            || drop((sync::irq::disable(), stay())),
        ];
        for (kind, region) in regions.into_iter().enumerate() {
            for wait in [Kernel::synchronize, Kernel::synchronize_expedited] {
                INSIDE.store(false, Ordering::SeqCst);
                LEFT.store(false, Ordering::SeqCst);
                let Ok(inside) = Builder::new("region").on(cpu).spawn(move |_| region()) else {
                    skip!("no memory for a task")
                };
                check!(comes_true_by_others(|| INSIDE.load(Ordering::Acquire)));
                wait(cx);
                let waited = LEFT.load(Ordering::SeqCst);
                inside.join(cx);
                check!(waited, "region {kind}");
            }
        }
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_task_that_keeps_its_cpu_holds_up_no_grace_period(cx) {
        let Some(cpu) = cpus::online().last().filter(|cpu| *cpu != CpuId::BOOT) else { skip!("one CPU only") };
        static STOP: AtomicBool = AtomicBool::new(false);
        static RUNNING: AtomicBool = AtomicBool::new(false);
        /// Whether it asks for a reschedule now and then; it never sleeps.
        static ASKS: AtomicBool = AtomicBool::new(false);
        let usual = sched::preemption();
        // With full preemption one that never asks; without, one that asks.
        for mode in [Preemption::Full, Preemption::None] {
            STOP.store(false, Ordering::Relaxed);
            RUNNING.store(false, Ordering::Relaxed);
            ASKS.store(mode == Preemption::None, Ordering::Relaxed);
            sched::set_preemption(mode);
            let hog = Builder::new("hog").on(cpu).spawn(|cx| {
                RUNNING.store(true, Ordering::Relaxed);
                while !STOP.load(Ordering::Relaxed) {
                    drop(rcu::read());
                    if ASKS.load(Ordering::Relaxed) {
                        cx.cond_resched();
                    }
                }
            });
            let Ok(hog) = hog else { skip!("no memory for a task") };
            let running = comes_true_by_others(|| RUNNING.load(Ordering::Relaxed));
            let wanted = Kernel::start_poll();
            let ended = comes_true_by_others(|| Kernel::poll(wanted));
            let still = !hog.is_finished();
            STOP.store(true, Ordering::Relaxed);
            hog.join(cx);
            sched::set_preemption(usual);
            check!(running && ended && still, "{mode:?}: running: {running}, ended: {ended}, still: {still}");
        }
        Ok(())
    }
}

percpu! {
    /// What forbids to wait where this is called is what it should be.
    static IN_INTERRUPT: CallData = CallData::new(|| {
        if illegal_wait::<Kernel>() == Some("in an interrupt handler or softirq") {
            TOLD.write(1);
        }
    });
    static TOLD: AtomicU32 = AtomicU32::new(0);
}

kernel_test! {
    everywhere,
    fn who_may_not_wait_is_told_why(cpu) {
        check_eq!(illegal_wait::<Kernel>(), None);
        let reader = rcu::read();
        check_eq!(illegal_wait::<Kernel>(), Some("in RCU read-side critical section"));
        drop(reader);
        let here = sync::preempt::disable();
        // Where readers are not preempted, this is the same as being one.
        let why = if rcu::PREEMPTIBLE { "with preemption off" } else { "in RCU read-side critical section" };
        check_eq!(illegal_wait::<Kernel>(), Some(why));
        drop(here);
        let here = sync::bh::disable();
        check_eq!(illegal_wait::<Kernel>(), Some("with bottom halves off"));
        drop(here);
        let here = sync::irq::disable();
        check_eq!(illegal_wait::<Kernel>(), Some("with interrupts off"));
        drop(here);
        check_eq!(illegal_wait::<Kernel>(), None);
        TOLD.on(cpu).store(0, Ordering::Relaxed);
        calls::irq_work(IN_INTERRUPT.on(cpu));
        check!(comes_true(|| TOLD.on(cpu).load(Ordering::Relaxed) != 0));
        Ok(())
    }
}

kernel_test! {
    task,
    fn a_pointer_that_is_replaced_is_seen_whole_by_all(cx) {
        static PAIR: RcuOption<RcuBox<(u64, u64)>> = RcuOption::none();
        static BAD: AtomicU32 = AtomicU32::new(0);
        static READS: AtomicU64 = AtomicU64::new(0);
        static STOP: AtomicBool = AtomicBool::new(false);
        BAD.store(0, Ordering::Relaxed);
        READS.store(0, Ordering::Relaxed);
        STOP.store(false, Ordering::Relaxed);
        drop(PAIR.replace(Some(RcuBox::new((0, !0)))));
        let readers: alloc::vec::Vec<_> = cpus::online()
            .take(4)
            .filter_map(|cpu| {
                let read = |cx: &mut TaskCx| {
                    while !STOP.load(Ordering::Relaxed) {
                        let section = rcu::read_in(cx);
                        if let Some((a, b)) = PAIR.load(&section) {
                            BAD.fetch_add(u32::from(*a != !*b), Ordering::Relaxed);
                            READS.fetch_add(1, Ordering::Relaxed);
                        }
                        drop(section);
                        cx.cond_resched();
                    }
                };
                Builder::new("pair").on(cpu).spawn(read).ok()
            })
            .collect();
        for n in 1..=60_u64 {
            drop(PAIR.replace(Some(RcuBox::new((n, !n)))));
            cx.block(Some(Native::now_ns() + MS / 4));
        }
        STOP.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join(cx));
        drop(PAIR.replace(None));
        Kernel::barrier(cx);
        check_eq!(BAD.load(Ordering::Relaxed), 0);
        check!(READS.load(Ordering::Relaxed) > 60);
        Ok(())
    }
}
