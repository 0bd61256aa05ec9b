//! Guards and locks on the hosted machine, with its interrupts.
#![cfg(not(loom))]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hal::percpu::{IrqsOff, Pinned};
use hal::{CpuId, Native, Platform, hosted};
use sync::{BottomHalf, IrqSpinLock, SpinLock, bh, irq, preempt};

/// Counts the reschedules of this thread's CPU.
fn count_reschedules() -> (Rc<Cell<u32>>, hosted::HooksGuard) {
    let count = Rc::new(Cell::new(0));
    let hook = Rc::clone(&count);
    let guard = hosted::set_hooks(hosted::Hooks {
        resched: Some(Rc::new(move || hook.set(hook.get() + 1))),
        ..Default::default()
    });
    (count, guard)
}

#[test]
fn a_reschedule_that_an_interrupt_asks_for_waits_for_the_outermost_guard() {
    let _cpu = hosted::bind().unwrap();
    let (count, _hooks) = count_reschedules();
    let lock = IrqSpinLock::new(());
    let here = preempt::disable();
    let quiet = irq::disable();
    let held = lock.lock();
    hosted::send_interrupt(Native::cpu(), || Native::set_need_resched(Native::cpu())).unwrap();
    drop(held);
    assert!(!Native::context().resched_due(), "the interrupt came in spite of the guard");
    drop(quiet);
    assert!(Native::context().resched_due() && count.get() == 0);
    drop(here);
    assert_eq!(count.get(), 1);
    drop(preempt::disable());
    assert_eq!(count.get(), 1);
}

#[test]
fn interrupts_stay_off_until_the_last_guard_in_whatever_order() {
    let _cpu = hosted::bind().unwrap();
    let taken = Arc::new(AtomicU32::new(0));
    let (a, b) = (irq::disable(), irq::disable());
    let in_handler = Arc::clone(&taken);
    hosted::send_interrupt(Native::cpu(), move || {
        in_handler.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    drop(a); // the older one first: with saved and restored flags, interrupts would come on here
    assert_eq!(taken.load(Ordering::Relaxed), 0);
    drop(b);
    assert_eq!(taken.load(Ordering::Relaxed), 1);
}

#[test]
fn other_cpus_take_interrupts_meanwhile() {
    let _cpu = hosted::bind().unwrap();
    let _quiet = irq::disable();
    let other = std::thread::spawn(|| {
        let _cpu = hosted::bind().unwrap();
        let taken = Arc::new(AtomicU32::new(0));
        let in_handler = Arc::clone(&taken);
        hosted::send_interrupt(Native::cpu(), move || {
            in_handler.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        taken.load(Ordering::Relaxed)
    });
    assert_eq!(other.join().unwrap(), 1);
}

/// Each CPU adds from its task and from interrupts that it sends to itself and its neighbour. With a task lock a handler
/// would wait for the task that it interrupted.
#[test]
fn tasks_and_interrupt_handlers_share_an_irq_lock() {
    const CPUS: usize = 3;
    const ROUNDS: u32 = 2_000;
    static SUM: IrqSpinLock<(u32, u32)> = IrqSpinLock::new((0, 0));
    fn add() {
        let mut sum = SUM.lock();
        sum.0 += 1;
        Native::relax(); // a delivery point, if interrupts were on
        sum.1 += 1;
    }
    let taken = Arc::new(AtomicU32::new(0));
    let cpus = std::sync::Mutex::new(Vec::<CpuId>::new());
    hosted::run_cpus(CPUS, |me| {
        cpus.lock().unwrap().push(Native::cpu());
        while cpus.lock().unwrap().len() < CPUS {
            Native::relax();
        }
        let cpus = cpus.lock().unwrap().clone();
        for round in 0..ROUNDS {
            add();
            let taken = Arc::clone(&taken);
            let to = cpus[(me + round as usize % 2) % CPUS];
            hosted::send_interrupt(to, move || {
                add();
                taken.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        }
        // Nobody goes off line before all interrupts were taken.
        while taken.load(Ordering::Relaxed) < CPUS as u32 * ROUNDS {
            Native::relax();
        }
    });
    let expected = 2 * CPUS as u32 * ROUNDS;
    assert_eq!(*SUM.lock(), (expected, expected));
}

/// The same for softirqs, which each CPU's interrupts raise. With a task lock a softirq would wait for the task that it
/// runs on top of.
#[test]
fn tasks_and_softirqs_share_a_bottom_half_lock() {
    const CPUS: usize = 3;
    const ROUNDS: u32 = 2_000;
    const VECTOR: u32 = 3;
    static SUM: SpinLock<(u32, u32), BottomHalf> = SpinLock::new((0, 0));
    fn add() {
        let mut sum = SUM.lock();
        sum.0 += 1;
        Native::relax(); // an interrupt may come here and raise the softirq
        sum.1 += 1;
    }
    let (taken, served) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    let cpus = std::sync::Mutex::new(Vec::<CpuId>::new());
    hosted::run_cpus(CPUS, |me| {
        let served_here = Rc::new(Cell::new(0));
        let counter = Rc::clone(&served_here);
        let _hooks = hosted::set_hooks(hosted::Hooks {
            softirq: Some(Rc::new(move |pending| {
                assert_eq!(pending, 1 << VECTOR);
                add();
                counter.set(counter.get() + 1);
            })),
            ..Default::default()
        });
        cpus.lock().unwrap().push(Native::cpu());
        while cpus.lock().unwrap().len() < CPUS {
            Native::relax();
        }
        let cpus = cpus.lock().unwrap().clone();
        for round in 0..ROUNDS {
            let no_softirqs = (round % 2 == 1).then(bh::disable);
            let taken = Arc::clone(&taken);
            let to = cpus[(me + round as usize % 2) % CPUS];
            hosted::send_interrupt(to, move || {
                Native::raise_softirq(VECTOR);
                taken.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            let before = served_here.get();
            add();
            if no_softirqs.is_some() {
                assert_eq!(served_here.get(), before, "served in a section without bottom halves");
            }
        }
        // Nobody goes off line before all interrupts were taken, and those of this CPU have served when they were over.
        while taken.load(Ordering::Relaxed) < CPUS as u32 * ROUNDS {
            Native::relax();
        }
        served.fetch_add(served_here.get(), Ordering::Relaxed);
    });
    let served = served.load(Ordering::Relaxed);
    // Several that are raised before one is served are served together: how many depends on the host's schedule. But each
    // CPU was interrupted, so each has served.
    assert!(served >= CPUS as u32, "{served}");
    let expected = CPUS as u32 * ROUNDS + served;
    assert_eq!(*SUM.lock(), (expected, expected));
}

#[test]
fn guards_prove_what_they_are_good_for() {
    hal::percpu! {
        static SHARED: AtomicU32 = AtomicU32::new(0);
        static PRIVATE: Cell<u32> = Cell::new(0);
    }
    fn pinned(proof: &impl Pinned) -> u32 {
        SHARED.get(proof).fetch_add(1, Ordering::Relaxed)
    }
    fn quiet(proof: &impl IrqsOff) -> u32 {
        let private = PRIVATE.get_local(proof);
        private.replace(private.get() + 1)
    }
    let _cpu = hosted::bind().unwrap();
    let (task, irq_lock) = (SpinLock::<_>::new(()), IrqSpinLock::new(()));
    assert_eq!(pinned(&preempt::disable()), 0);
    assert_eq!(pinned(&irq::disable()), 1);
    assert_eq!(pinned(&task.lock()), 2);
    assert_eq!(pinned(&irq_lock.lock()), 3);
    assert_eq!(quiet(&irq::disable()), 0);
    assert_eq!(quiet(&irq_lock.lock()), 1);
    assert_eq!(pinned(&bh::disable()), 4);
    assert_eq!(pinned(&sync::migrate::disable()), 5);
    let off = irq::disable();
    assert_eq!(quiet(&irq_lock.lock_with(&off)), 2);
    assert_eq!(off.cpu(), preempt::disable().cpu());
}

#[test]
fn guards_and_locks_have_their_sizes() {
    // Debug builds remember where a guard was made: a place and a CPU.
    let made = if cfg!(debug_assertions) { 16 } else { 0 };
    assert_eq!(size_of::<sync::PreemptGuard>(), made);
    assert_eq!(size_of::<sync::BhGuard>(), made);
    assert_eq!(size_of::<sync::IrqGuard>(), made);
    assert_eq!(size_of::<sync::MigrateGuard>(), made);
    assert_eq!(size_of::<sync::TaskCx>(), 0);
    assert_eq!(size_of::<sync::spin::SpinLockGuard<'_, u64, sync::Irq>>(), size_of::<usize>() + made);
    if !cfg!(debug_assertions) {
        assert_eq!(size_of::<SpinLock<u32>>(), 8);
    }
}
