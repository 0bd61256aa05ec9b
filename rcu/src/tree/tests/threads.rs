//! One tree, entered by real threads at once: each plays a CPU, one more the grace-period thread.
//!
//! What is replaced is marked when its callback is called. A reader that finds a mark on what it is using has not been
//! waited for.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use hal::Native;
use hal::platform::TaskId;

use crate::head::Head;
use crate::tree::{Driver, Geometry, Next, Node, PerCpu, Reader, Readers, Timing, Tree};

const CPUS: u32 = 5;
/// The one that the driver runs on.
const DRIVING: u32 = CPUS - 1;
const ROUNDS: u64 = 4_000;

struct Version {
    head: Head,
    is_gone: AtomicBool,
    called: *const AtomicUsize,
}

unsafe fn gone(head: NonNull<Head>) {
    // SAFETY: queued with this function are the heads of leaked `Version`s, which stay; the counter outlives the threads.
    unsafe {
        let version = sync::container_of!(head, Version, head).as_ref();
        version.is_gone.store(true, Ordering::Relaxed);
        (*version.called).fetch_add(1, Ordering::Relaxed);
    }
}

fn version(called: &AtomicUsize) -> *mut Version {
    Box::into_raw(Box::new(Version { head: Head::new(), is_gone: AtomicBool::new(false), called }))
}

fn torture(readers: Readers) {
    let shape = Geometry::with_fan_out(CPUS, 2, 2);
    let mut nodes: Vec<Node<Native>> = (0..shape.nodes()).map(|_| Node::new()).collect();
    let mut cpus: Vec<PerCpu<Native>> = (0..CPUS).map(|_| PerCpu::new()).collect();
    let timing = Timing { scan: 20_000, nudge: 60_000, interrupt: 100_000, ..Timing::DEFAULT };
    let tree = &Tree::new(shape, readers, &mut nodes, &mut cpus).with_timing(timing);
    let (queued, called, finished) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
    let (queued, called, finished) = (&queued, &called, &finished);
    let current = &AtomicPtr::new(version(called));
    (0..CPUS).for_each(|cpu| tree.cpu_up(cpu));
    let barrier_was = tree.barrier_state();
    thread::scope(|scope| {
        for cpu in 0..DRIVING {
            scope.spawn(move || {
                let place = Box::pin(Reader::new());
                let name = TaskId(std::num::NonZeroUsize::new((cpu as usize + 1) * TaskId::ALIGN).unwrap());
                for round in 0..ROUNDS {
                    // SAFETY: versions are never freed before the test has ended.
                    let used = unsafe { &*current.load(Ordering::Acquire) };
                    if readers == Readers::Preemptible && round % 3 == 0 {
                        let _ = tree.note_context_switch(cpu, Some((place.as_ref(), name)));
                        if round % 9 == 0 {
                            thread::yield_now();
                        }
                    }
                    if round % 64 == u64::from(cpu) {
                        thread::yield_now();
                    }
                    assert!(!used.is_gone.load(Ordering::Relaxed), "gone while it was read");
                    let _ = tree.reader_done(place.as_ref());
                    // Out of the reader.
                    let _ = tree.quiescent(cpu);
                    if round % 4 == 0 {
                        let old = current.swap(version(called), Ordering::AcqRel);
                        queued.fetch_add(1, Ordering::Relaxed);
                        // SAFETY: leaked; swapped out by this thread only.
                        let _ = unsafe { tree.call(cpu, NonNull::from(&(*old).head), gone) };
                    }
                    if round % 8 == 1 {
                        let _ = tree.process(cpu);
                        // SAFETY: `gone` may be called anywhere.
                        let _ = unsafe { tree.run_ready(cpu, |_| false) };
                    }
                    match round % 32 {
                        5 => {
                            let _ = tree.idle_enter(cpu);
                            let was_idle = tree.interrupt_enter(cpu);
                            // SAFETY: as above.
                            let used = unsafe { &*current.load(Ordering::Acquire) };
                            assert!(!used.is_gone.load(Ordering::Relaxed), "gone while it was read");
                            tree.interrupt_exit(cpu, was_idle);
                            tree.idle_exit(cpu);
                        }
                        9 => {
                            let _ = tree.cpu_down(cpu);
                            tree.cpu_up(cpu);
                        }
                        17 => {
                            let _ = tree.try_expedite(cpu, |_| ());
                        }
                        25 => {
                            let _ = tree.try_barrier(|_| ());
                        }
                        _ => (),
                    }
                }
                let _ = tree.cpu_down(cpu);
                finished.fetch_add(1, Ordering::Release);
            });
        }
        scope.spawn(move || {
            let begun = Instant::now();
            let mut driver = Driver::new(tree);
            let mut is_done = false;
            while !is_done {
                // Pairs with the Release above.
                if finished.load(Ordering::Acquire) == u64::from(DRIVING) {
                    for from in 0..DRIVING {
                        let _ = tree.adopt_callbacks(DRIVING, from);
                    }
                    is_done = called.load(Ordering::Relaxed) == queued.load(Ordering::Relaxed);
                }
                let _ = tree.process(DRIVING);
                // SAFETY: as above.
                let _ = unsafe { tree.run_ready(DRIVING, |_| false) };
                let _ = tree.quiescent(DRIVING);
                if driver.step(DRIVING, begun.elapsed().as_nanos() as u64, |_| ()) != Next::Again {
                    thread::yield_now();
                }
            }
        });
    });
    assert_eq!(called.load(Ordering::Relaxed), queued.load(Ordering::Relaxed));
    assert!(tree.completed() > 0 && tree.barrier_done(barrier_was));
}

#[test]
fn nothing_is_gone_while_it_is_read() {
    torture(Readers::NonPreemptible);
}

#[test]
fn nothing_is_gone_while_preempted_tasks_read_it() {
    torture(Readers::Preemptible);
}
