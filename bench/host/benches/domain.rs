//! What readers and those who give up objects pay: `cargo bench -p bench-host --bench domain`.
//!
//! Each figure is the median of 15 rounds, in which all candidates take turns, of nanoseconds an operation.
//!
//! * *read*: begin a section, load the pointer, read a word of the object, end the section; one thread.
//! * *retire*: put a new object of 64 bytes in and give the old one up, its allocation and freeing included; one thread.
//! * *beside*: the same while another thread reads all the time.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread;
use std::time::Instant;

use rcu::hosted::HostedDomain;
use rcu::{Rcu, RcuBox};

const ROUNDS: usize = 15;
const TIMES: u32 = 200_000;

type Object = [u64; 8];

rcu::hosted_domain! { struct Bench; }

fn time(operation: &dyn Fn(u32)) -> f64 {
    let start = Instant::now();
    operation(TIMES);
    start.elapsed().as_nanos() as f64 / f64::from(TIMES)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// What is done `n` times.
type Work<'a> = Box<dyn Fn(u32) + Sync + 'a>;

struct Candidate<'a> {
    name: &'static str,
    read: Work<'a>,
    retire: Work<'a>,
}

fn main() {
    let _cpu = hal::hosted::bind().expect("a CPU is free");
    let ours = Rcu::<RcuBox<Object>, Bench>::new(RcuBox::new([1; 8]));
    let boxed = Rcu::<Box<Object>, Bench>::new(Box::new([1; 8]));
    let crossbeam = crossbeam_epoch::Atomic::new([1_u64; 8]);
    let collector = seize::Collector::new();
    let seize_pointer = AtomicPtr::new(Box::into_raw(Box::new([1_u64; 8])));
    let sdd_pointer = sdd::AtomicOwned::new([1_u64; 8]);
    let hazard = haphazard::AtomicPtr::from(Box::new([1_u64; 8]));

    let candidates = [
        Candidate {
            name: "rcu, RcuBox",
            read: Box::new(|n| {
                for _ in 0..n {
                    let reader = rcu::read();
                    black_box(ours.load(&reader)[0]);
                }
            }),
            retire: Box::new(|n| {
                for i in 0..n {
                    ours.replace(RcuBox::new([i.into(); 8])).free_after_grace_period();
                }
            }),
        },
        Candidate {
            name: "rcu, Box",
            read: Box::new(|n| {
                for _ in 0..n {
                    let reader = rcu::read();
                    black_box(boxed.load(&reader)[0]);
                }
            }),
            retire: Box::new(|n| {
                for i in 0..n {
                    boxed.replace(Box::new([i.into(); 8])).free_after_grace_period();
                }
            }),
        },
        Candidate {
            name: "crossbeam-epoch",
            read: Box::new(|n| {
                for _ in 0..n {
                    let guard = crossbeam_epoch::pin();
                    // SAFETY: never null, freed by `defer_destroy` only.
                    black_box(unsafe { crossbeam.load(Ordering::Acquire, &guard).deref() }[0]);
                }
            }),
            retire: Box::new(|n| {
                for i in 0..n {
                    let guard = crossbeam_epoch::pin();
                    let old =
                        crossbeam.swap(crossbeam_epoch::Owned::new([i.into(); 8]), Ordering::AcqRel, &guard);
                    // SAFETY: unlinked.
                    unsafe { guard.defer_destroy(old) };
                }
            }),
        },
        Candidate {
            name: "seize",
            read: Box::new(|n| {
                use seize::Guard;
                for _ in 0..n {
                    let guard = collector.enter();
                    // SAFETY: never null, freed by `retire` only.
                    black_box(unsafe { &*guard.protect(&seize_pointer, Ordering::Acquire) }[0]);
                }
            }),
            retire: Box::new(|n| {
                use seize::Guard;
                for i in 0..n {
                    let guard = collector.enter();
                    let old =
                        guard.swap(&seize_pointer, Box::into_raw(Box::new([i.into(); 8])), Ordering::AcqRel);
                    // SAFETY: unlinked, and came from a box.
                    unsafe { guard.defer_retire(old, seize::reclaim::boxed) };
                }
            }),
        },
        Candidate {
            name: "haphazard",
            read: Box::new(|n| {
                let mut pointer = haphazard::HazardPointer::new();
                for _ in 0..n {
                    black_box(hazard.safe_load(&mut pointer).expect("never null")[0]);
                    pointer.reset_protection();
                }
            }),
            retire: Box::new(|n| {
                for i in 0..n {
                    let old = hazard.swap(Box::new([i.into(); 8])).expect("never null");
                    // SAFETY: unlinked, and loaded through hazard pointers of this domain only.
                    unsafe { old.retire() };
                }
            }),
        },
        Candidate {
            name: "sdd",
            read: Box::new(|n| {
                for _ in 0..n {
                    let guard = sdd::Guard::new();
                    black_box(sdd_pointer.load(Ordering::Acquire, &guard).as_ref().expect("never null")[0]);
                }
            }),
            retire: Box::new(|n| {
                for i in 0..n {
                    drop(
                        sdd_pointer
                            .swap((Some(sdd::Owned::new([i.into(); 8])), sdd::Tag::None), Ordering::AcqRel),
                    );
                }
            }),
        },
    ];

    let mut samples = vec![[const { Vec::new() }; 3]; candidates.len()];
    for _ in 0..ROUNDS {
        for (candidate, [read, retire, beside]) in candidates.iter().zip(&mut samples) {
            read.push(time(&candidate.read));
            retire.push(time(&candidate.retire));
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        (candidate.read)(100);
                    }
                });
                beside.push(time(&candidate.retire));
                stop.store(true, Ordering::Relaxed);
            });
        }
    }
    println!("{:18} {:>8} {:>8} {:>8}", "ns", "read", "retire", "beside");
    for (candidate, [read, retire, beside]) in candidates.iter().zip(samples) {
        println!("{:18} {:8.2} {:8.1} {:8.1}", candidate.name, median(read), median(retire), median(beside));
    }
    let start = Instant::now();
    for _ in 0..10_000 {
        Bench::wait_for_readers();
    }
    println!("a grace period, nobody reads: {:.0} ns", start.elapsed().as_nanos() as f64 / 10_000.0);
    println!("{:?}", Bench::stats());
}
