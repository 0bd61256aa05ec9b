//! Callbacks beside what grace periods, barriers and CPUs that go do to them.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use loom::sync::Arc;
use loom::thread;

use super::super::faults::{Fault, Faults};
use super::super::{Action, Driver, Geometry, Next, Node, PerCpu, Readers, Tree};
use super::{KERNEL, Published, READING, WRITING, check, name, task};
use crate::head::Head;
use crate::modelled::Modelled;
use crate::primitives::{AtomicUsize, Ordering};

/// Destroys the version that was replaced.
unsafe fn destroy(head: NonNull<Head>) {
    // SAFETY: queued with this function is the head of a `Published` only, which outlives the model's threads.
    unsafe { sync::container_of!(head.cast::<ManuallyDrop<Head>>(), Published, callback).as_ref() }.destroy();
}

/// The writer queues a callback and calls what is ready, while the other CPU, whose task was preempted in a reader, begins
/// and ends grace periods: the callback must not take one that began before it was queued.
fn callback_beside_the_driver(fault: Option<Fault>) {
    // Over all schedules; not the model's.
    static CALLED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    fn call(shared: &Published) {
        shared.publish();
        // SAFETY: in place until the end of the model, and queued once.
        let _ = unsafe { shared.tree.call(WRITING, NonNull::from(&*shared.callback), destroy) };
        for _ in 0..2 {
            let _ = shared.tree.quiescent(WRITING);
            let _ = shared.tree.process(WRITING);
            // SAFETY: the callback may be called anywhere.
            let ran = unsafe { shared.tree.run_ready(WRITING, |_| false) };
            CALLED.fetch_add(ran.called, Ordering::Relaxed);
            thread::yield_now();
        }
        let _ = shared.tree.idle_enter(WRITING);
    }
    fn drive(shared: &Published) {
        let (_, _) = shared.tree.start_poll(READING);
        let mut driver = Driver::new(&shared.tree);
        for _ in 0..2 {
            let _ = driver.step(READING, 0, |_| ());
        }
        // The period has begun, this CPU has reported, and this reader begins.
        let reader = task();
        let version = shared.look();
        let _ = shared.tree.note_context_switch(READING, Some((reader, name())));
        while driver.step(READING, 0, |_| ()) == Next::Again {}
        shared.use_it(version);
        let _ = shared.tree.reader_done(reader);
        while driver.step(READING, 0, |_| ()) == Next::Again {}
    }
    check(3, move || {
        let shared = Published::new(fault, 16, Readers::Preemptible);
        let driving = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || drive(&shared))
        };
        call(&shared);
        driving.join().unwrap();
    });
    assert!(CALLED.load(Ordering::Relaxed) > 0, "it was never called");
}

#[test]
fn a_callback_beside_the_beginning() {
    callback_beside_the_driver(None);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_callback_that_is_called_one_period_early() {
    callback_beside_the_driver(Some(Fault::CalledOnePeriodEarly));
}

/// A callback that has waited for its grace period on the writing CPU, which goes down then. `called` says whether it has
/// been called.
struct Ready {
    tree: Tree<'static, Modelled>,
    callback: ManuallyDrop<Head>,
    called: AtomicUsize,
}

// SAFETY: the head is used through the tree only.
unsafe impl Sync for Ready {}
// SAFETY: as above.
unsafe impl Send for Ready {}

unsafe fn count(head: NonNull<Head>) {
    // SAFETY: queued with this function is the head of a `Ready` only, which outlives the model's threads.
    let ready = unsafe { sync::container_of!(head.cast::<ManuallyDrop<Head>>(), Ready, callback).as_ref() };
    ready.called.fetch_add(1, Ordering::Relaxed);
}

impl Ready {
    /// `cpu` is up, and has the callback, for which a grace period has been asked.
    fn queued(fault: Option<Fault>, cpu: u32) -> Arc<Ready> {
        let shape = Geometry::new(2);
        let nodes = Box::leak(Box::new([Node::new()]));
        let cpus = Box::leak(Box::new([PerCpu::new(), PerCpu::new()]));
        let mut tree = Tree::new(shape, Readers::NonPreemptible, nodes, cpus);
        tree.faults = fault.map_or(Faults::NONE, Faults::only);
        let ready =
            Arc::new(Ready { tree, callback: ManuallyDrop::new(Head::new()), called: AtomicUsize::new(0) });
        ready.tree.cpu_up(cpu);
        // SAFETY: in place until the end of the model, and queued once.
        let _ = unsafe { ready.tree.call(cpu, NonNull::from(&*ready.callback), count) };
        let _ = ready.tree.process(cpu);
        ready
    }

    /// The grace period has ended, and the CPU is down.
    fn new(fault: Option<Fault>) -> Arc<Ready> {
        let ready = Ready::queued(fault, WRITING);
        let tree = &ready.tree;
        let mut driver = Driver::new(tree);
        while driver.step(WRITING, 0, |_| ()) == Next::Again {}
        let _ = tree.process(WRITING);
        let _ = tree.cpu_down(WRITING);
        drop(driver);
        ready
    }

    fn run(&self, cpu: u32) {
        // SAFETY: the callback may be called anywhere.
        let _ = unsafe { self.tree.run_ready(cpu, |_| false) };
    }

    /// A tick of a busy CPU, the reschedule that it may ask for, and the softirq.
    fn tick(&self, cpu: u32) {
        let mut due = self.tree.check_tick(cpu, 0, KERNEL);
        due |= self.tree.note_context_switch(cpu, None);
        if due.process {
            let _ = self.tree.process(cpu);
            self.run(cpu);
        }
    }

    /// An interrupt of the idle loop, and its softirq.
    fn looks_after_idle(&self) {
        let was_idle = self.tree.interrupt_enter(READING);
        let _ = self.tree.process(READING);
        self.run(READING);
        self.tree.interrupt_exit(READING, was_idle);
    }

    /// Begins a barrier, and looks once whether it has been passed.
    fn barrier(&self) {
        let cookie = self.tree.barrier_state();
        let _ = self.tree.try_barrier(|_| ());
        if self.tree.barrier_done(cookie) {
            let called = self.called.load(Ordering::Relaxed);
            assert_eq!(called, 1, "a barrier was passed before a callback");
        }
    }
}

fn barrier_beside(fault: Option<Fault>, other: fn(&Ready)) {
    check(3, move || {
        let shared = Ready::new(fault);
        let beside = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || other(&shared))
        };
        shared.barrier();
        beside.join().unwrap();
        // Both CPUs: wherever the callbacks are by now.
        (0..2).for_each(|cpu| shared.run(cpu));
        assert_eq!(shared.called.load(Ordering::Relaxed), 1);
        assert!(!shared.tree.barriers.is_running(), "a barrier was not passed");
    });
}

/// A busy CPU whose callback waits, which nobody interrupts and which looks by itself, beside a grace period from its
/// beginning to its end. That does not wait for the CPU, whose step its beginning was, so that the CPU may find any number
/// whenever it looks.
fn busy_beside_the_end(fault: Option<Fault>) {
    check(3, move || {
        let shared = Ready::queued(fault, READING);
        shared.tree.cpu_up(WRITING);
        let begun = Arc::clone(&shared);
        let other = thread::spawn(move || {
            let mut driver = Driver::new(&begun.tree);
            while driver.step(READING, 0, |_| ()) == Next::Again {}
            assert!(begun.tree.quiescent(WRITING).wake_driver, "it is waited for");
            while driver.step(WRITING, 0, |_| ()) == Next::Again {}
        });
        shared.tick(READING);
        other.join().unwrap();
        shared.tick(READING);
        assert_eq!(shared.called.load(Ordering::Relaxed), 1, "nobody looked after a callback that is due");
    });
}

#[test]
fn a_busy_cpu_beside_the_end() {
    busy_beside_the_end(None);
}

#[test]
#[should_panic(expected = "nobody looked after a callback that is due")]
fn a_busy_cpu_that_does_not_notice_the_end() {
    busy_beside_the_end(Some(Fault::EndGoesUnnoticed));
}

/// The same CPU goes to idle for good, beside the grace period. Either it notices the end itself on its way, or the driver
/// does that it has to be told.
#[test]
fn a_cpu_that_idles_beside_the_end() {
    check(3, || {
        let shared = Ready::queued(None, READING);
        shared.tree.cpu_up(WRITING);
        let begun = Arc::clone(&shared);
        let other = thread::spawn(move || {
            let mut is_told = false;
            let mut note = |action| is_told |= action == Action::Process(READING);
            let mut driver = Driver::new(&begun.tree);
            while driver.step(WRITING, 0, &mut note) == Next::Again {}
            // A scan, for a CPU that idled without having anything to report.
            let scan = begun.tree.timing.scan;
            while driver.step(WRITING, scan, &mut note) == Next::Again {}
            (is_told, driver.ended() == 1)
        });
        shared.tick(READING);
        if shared.tree.idle_enter(READING).process {
            shared.looks_after_idle();
        }
        let (is_told, has_ended) = other.join().unwrap();
        assert!(has_ended || shared.tree.lock(0).is_done(), "nobody is waited for");
        if is_told {
            shared.looks_after_idle();
        }
        let called = shared.called.load(Ordering::Relaxed) == 1;
        assert_eq!(called, has_ended, "a callback and its grace period");
    });
}

/// CPU 0 takes the callbacks over while a barrier visits it and the other.
fn adopts(ready: &Ready) {
    let _ = ready.tree.adopt_callbacks(READING, WRITING);
    ready.run(READING);
}

#[test]
fn a_barrier_beside_callbacks_that_move() {
    barrier_beside(None, adopts);
}

#[test]
#[should_panic(expected = "a barrier was passed before a callback")]
fn a_barrier_that_misses_moved_callbacks() {
    barrier_beside(Some(Fault::BarrierMissesMoved), adopts);
}

#[test]
fn a_barrier_beside_a_batch() {
    barrier_beside(None, |ready| ready.run(WRITING));
}

#[test]
#[should_panic(expected = "a barrier was passed before a callback")]
fn a_barrier_that_misses_a_batch() {
    barrier_beside(Some(Fault::BarrierMissesInFlight), |ready| ready.run(WRITING));
}

/// While the callbacks are being handed to a thread both it and the softirq may call them.
#[test]
fn two_that_call_the_same_callbacks() {
    check(3, || {
        let shared = Ready::new(None);
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let _ = shared.tree.set_offloaded(WRITING, true);
                let _ = shared.tree.process(WRITING);
                shared.run(WRITING);
            })
        };
        let _ = shared.tree.process(WRITING);
        shared.run(WRITING);
        thread.join().unwrap();
        assert_eq!(shared.called.load(Ordering::Relaxed), 1);
    });
}
