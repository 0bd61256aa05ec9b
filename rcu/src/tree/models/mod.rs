//! The tree under all schedules of two threads, up to a bound, and all values that their loads may return.
//!
//! Run with `cargo xtask models rcu --filter tree`. The shape is always the same: something is published, a grace period
//! passes, and what was there before is destroyed; meanwhile another CPU reads. The model checker notices a read that
//! nothing orders before the destruction. Each model has twins with one mistake, in which it must notice it.

mod callbacks;

use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::ptr::NonNull;

use hal::platform::TaskId;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::faults::{Fault, Faults};
use super::{Driver, Geometry, Interrupted, Node, PerCpu, Reader, Readers, Tree};
use crate::head::Head;
use crate::modelled::Modelled;
use crate::primitives::{AtomicUsize, Ordering};

/// What happens to the reading CPU, which is number 0 or 1.
const READING: u32 = 0;
/// The CPU that publishes and runs the driver.
const WRITING: u32 = 1;

/// Two versions of something, and which of them is current.
struct Published {
    tree: Tree<'static, Modelled>,
    current: AtomicUsize,
    versions: [UnsafeCell<u32>; 2],
    /// Touched before each use and before the destruction: the checker tries both orders of these, which it does not for
    /// accesses to cells.
    uses: AtomicUsize,
    // Not dropped: a model that is stopped leaves it in a list.
    callback: ManuallyDrop<Head>,
}

// SAFETY: the model checks what this claims.
unsafe impl Sync for Published {}
// SAFETY: as above.
unsafe impl Send for Published {}

impl Published {
    fn new(fault: Option<Fault>, leaf: u32, readers: Readers) -> Arc<Published> {
        let shape = Geometry::with_fan_out(2, leaf, 2);
        let nodes = Box::leak((0..shape.nodes()).map(|_| Node::new()).collect::<Box<[Node<Modelled>]>>());
        let cpus = Box::leak((0..2).map(|_| PerCpu::new()).collect::<Box<[PerCpu<Modelled>]>>());
        let mut tree = Tree::new(shape, readers, nodes, cpus);
        tree.faults = fault.map_or(Faults::NONE, Faults::only);
        tree.cpu_up(READING);
        tree.cpu_up(WRITING);
        Arc::new(Published {
            tree,
            current: AtomicUsize::new(0),
            versions: [UnsafeCell::new(10), UnsafeCell::new(11)],
            uses: AtomicUsize::new(0),
            callback: ManuallyDrop::new(Head::new()),
        })
    }

    /// The first half of a reader: which version it is going to use.
    fn look(&self) -> usize {
        // Acquire: pairs with the Release in `publish`.
        self.current.load(Ordering::Acquire)
    }

    /// The second half.
    fn use_it(&self, version: usize) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the model reports a write that is not ordered with this.
        let value = self.versions[version].with(|value| unsafe { *value });
        assert_eq!(value, 10 + version as u32, "read after it was destroyed");
    }

    fn read(&self) {
        self.use_it(self.look());
    }

    fn publish(&self) {
        // Release: pairs with the Acquire in `look`.
        self.current.store(1, Ordering::Release);
    }

    fn destroy(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the model reports any other access that is not ordered with this.
        self.versions[0].with_mut(|value| unsafe { *value = 99 });
    }

    /// Publishes, waits for a grace period, and destroys.
    fn replace(&self) {
        self.publish();
        let (cookie, _) = self.tree.start_poll(WRITING);
        let mut driver = Driver::new(&self.tree);
        let mut now = 0;
        while !self.tree.poll(cookie) {
            if driver.step(WRITING, now, |_| ()) != super::Next::Again {
                // Time for a scan.
                now += self.tree.timing.scan;
                thread::yield_now();
            }
        }
        self.destroy();
    }

    /// The same with an expedited grace period.
    fn replace_expedited(&self) {
        self.publish();
        let cookie = self.tree.expedited_state();
        while !self.tree.expedited_done(cookie) {
            if !self.tree.try_expedite(WRITING, |_| ()) {
                thread::yield_now();
            }
        }
        self.destroy();
    }
}

fn check(bound: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.max_branches = 20_000;
    test_support::check(&builder, model);
}

/// One CPU writes, the other does `reading`.
fn beside(fault: Option<Fault>, leaf: u32, readers: Readers, reading: fn(&Published)) {
    beside_write(fault, leaf, readers, Published::replace, reading);
}

fn beside_write(
    fault: Option<Fault>,
    leaf: u32,
    readers: Readers,
    writing: fn(&Published),
    reading: fn(&Published),
) {
    // With leaves of one CPU there is a root to be locked as well, and a schedule is twice as long.
    check(if leaf == 1 { 2 } else { 3 }, move || {
        let shared = Published::new(fault, leaf, readers);
        let threads = [reading, writing].map(|act| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || act(&shared))
        });
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

const KERNEL: Interrupted = Interrupted::Kernel { preemptible: false, in_reader: false };

fn name() -> TaskId {
    TaskId(NonZeroUsize::new(TaskId::ALIGN).expect("is positive"))
}

/// A task's place in the lists. Leaked, because a model that is stopped leaves it there.
fn task() -> Pin<&'static Reader> {
    Pin::static_ref(Box::leak(Box::new(Reader::new())))
}

/// A reader, a report, another reader, and then nothing for good.
fn reads_and_switches(shared: &Published) {
    shared.read();
    let _ = shared.tree.note_context_switch(READING, None);
    let version = shared.look();
    // In the middle of the second one a tick comes.
    let _ = shared.tree.check_tick(READING, 0, KERNEL);
    shared.use_it(version);
    let _ = shared.tree.idle_enter(READING);
}

#[test]
fn a_report_beside_the_beginning() {
    beside(None, 16, Readers::NonPreemptible, reads_and_switches);
}

#[test]
fn a_report_beside_the_beginning_in_two_levels() {
    beside(None, 1, Readers::NonPreemptible, reads_and_switches);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_tick_that_is_taken_for_a_quiescent_state() {
    beside(Some(Fault::TickIsQuiescent), 16, Readers::NonPreemptible, reads_and_switches);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_cpu_that_is_skipped() {
    beside(Some(Fault::SkippedCpu), 16, Readers::NonPreemptible, reads_and_switches);
}

/// A CPU that reads in an interrupt of the idle loop, and between two times of idleness.
fn wakes_and_reads(shared: &Published) {
    let _ = shared.tree.idle_enter(READING);
    let was_idle = shared.tree.interrupt_enter(READING);
    shared.read();
    shared.tree.interrupt_exit(READING, was_idle);
    shared.tree.idle_exit(READING);
    shared.read();
    let _ = shared.tree.idle_enter(READING);
}

#[test]
fn idleness_beside_the_driver() {
    beside(None, 16, Readers::NonPreemptible, wakes_and_reads);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn idleness_that_is_left_without_a_fence() {
    beside(Some(Fault::NoIdleFence), 16, Readers::NonPreemptible, wakes_and_reads);
}

/// A task that is preempted in a section, twice, and another section begins on the CPU meanwhile.
fn is_preempted_and_reads(shared: &Published) {
    let reader = task();
    let version = shared.look();
    let _ = shared.tree.note_context_switch(READING, Some((reader, name())));
    shared.read(); // another task's, from beginning to end
    let _ = shared.tree.note_context_switch(READING, Some((reader, name())));
    shared.use_it(version);
    let _ = shared.tree.reader_done(reader);
    let _ = shared.tree.idle_enter(READING);
}

#[test]
fn preempted_readers_beside_the_driver() {
    beside(None, 16, Readers::Preemptible, is_preempted_and_reads);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_preempted_reader_that_is_forgotten() {
    beside(Some(Fault::ForgottenReader), 16, Readers::Preemptible, is_preempted_and_reads);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_reader_preempted_twice_and_forgotten() {
    beside(Some(Fault::ForgottenNestedReader), 16, Readers::Preemptible, is_preempted_and_reads);
}

/// A tick comes in a preemptible section.
fn is_interrupted_in_a_reader(shared: &Published) {
    let version = shared.look();
    let in_reader = Interrupted::Kernel { preemptible: true, in_reader: true };
    let due = shared.tree.check_tick(READING, 0, in_reader);
    shared.use_it(version);
    if due.attention {
        let _ = shared.tree.quiescent(READING);
    }
    let _ = shared.tree.idle_enter(READING);
}

#[test]
fn ticks_in_readers_beside_the_driver() {
    beside(None, 16, Readers::Preemptible, is_interrupted_in_a_reader);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_report_inside_of_a_reader() {
    beside(Some(Fault::ReportInReader), 16, Readers::Preemptible, is_interrupted_in_a_reader);
}

/// A CPU that goes down after a reader, and comes up before another.
fn goes_down_and_comes_up(shared: &Published) {
    shared.read();
    let _ = shared.tree.cpu_down(READING);
    shared.tree.cpu_up(READING);
    shared.read();
    let _ = shared.tree.cpu_down(READING);
}

#[test]
fn hotplug_beside_the_driver() {
    beside(None, 16, Readers::NonPreemptible, goes_down_and_comes_up);
}

#[test]
fn hotplug_beside_the_driver_in_two_levels() {
    beside(None, 1, Readers::NonPreemptible, goes_down_and_comes_up);
}

#[test]
fn hotplug_beside_an_expedited_period() {
    beside_write(None, 16, Readers::NonPreemptible, Published::replace_expedited, goes_down_and_comes_up);
}

#[test]
fn preempted_readers_beside_an_expedited_period() {
    beside_write(None, 16, Readers::Preemptible, Published::replace_expedited, is_preempted_and_reads);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn an_expedited_period_that_forgets_readers() {
    beside_write(
        Some(Fault::ExpeditedForgetsReaders),
        16,
        Readers::Preemptible,
        Published::replace_expedited,
        is_preempted_and_reads,
    );
}

#[test]
fn idleness_beside_an_expedited_period() {
    beside_write(None, 16, Readers::NonPreemptible, Published::replace_expedited, wakes_and_reads);
}

/// The writer waits for an expedited period while the other CPU, whose task was preempted in a reader, drives a normal one
/// through.
#[test]
fn an_expedited_period_beside_a_normal_one() {
    beside_write(None, 16, Readers::Preemptible, Published::replace_expedited, |shared| {
        let reader = task();
        let version = shared.look();
        let _ = shared.tree.note_context_switch(READING, Some((reader, name())));
        let (cookie, _) = shared.tree.start_poll(READING);
        let mut driver = Driver::new(&shared.tree);
        while driver.step(READING, 0, |_| ()) == super::Next::Again {}
        assert!(!shared.tree.poll(cookie), "a reader was preempted before it");
        shared.use_it(version);
        let _ = shared.tree.reader_done(reader);
        let _ = shared.tree.idle_enter(READING);
    });
}
