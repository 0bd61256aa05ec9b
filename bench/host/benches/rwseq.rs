//! What reading costs: `cargo bench -p bench-host --bench rwseq`.
//!
//! Each figure is the median of 15 rounds, in which all candidates take turns, of nanoseconds an operation. On one
//! thread, so nobody waits; on two, both threads do the same without a pause, and the figure is what one of them sees.
//! "sync" is measured on a platform on which switching preemption off costs nothing, because the peers do not switch
//! anything, and "hosted" on the hosted machine, whose preempt word is a thread-local.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use bench_host::Bare;
use hal::Native;
use sync::{IrqRwLock, Latch, PerCpuRef, RefCount, RwLock, SeqLock, Task};

const ROUNDS: usize = 15;
const TIMES: u32 = 200_000;

/// Runs `operation` on `threads` threads; nanoseconds an operation, as the first of them sees it.
fn time(threads: usize, operation: &(impl Fn() + Sync)) -> f64 {
    let barrier = Barrier::new(threads);
    let run = || {
        barrier.wait();
        let start = Instant::now();
        for _ in 0..TIMES {
            operation();
        }
        start.elapsed().as_nanos() as f64 / f64::from(TIMES)
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mine = run();
        for other in others {
            other.join().unwrap();
        }
        mine
    })
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

type Operation<'a> = (&'static str, Box<dyn Fn(usize) -> f64 + 'a>);

fn main() {
    let _cpu = hal::hosted::bind().expect("a CPU is free");
    let seq: SeqLock<[u64; 2], Task<Bare>> = SeqLock::new([1, 2]);
    let seq_large: SeqLock<[u64; 8], Task<Bare>> = SeqLock::new([1; 8]);
    let latch: Latch<[u64; 2], Task<Bare>> = Latch::new([1, 2]);
    let ours: RwLock<u64, Task<Bare>> = RwLock::new(1);
    let hosted: RwLock<u64> = RwLock::new(1);
    let ours_irq = IrqRwLock::new(1_u64);
    let spin = spin::RwLock::new(1_u64);
    let parking_lot = parking_lot::RwLock::new(1_u64);
    let std_lock = std::sync::RwLock::new(1_u64);
    let refs: RefCount<Native> = RefCount::new();
    // A CPU that comes up after the count was made has no slot of its own: both must have been there.
    let both = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _cpu = hal::hosted::bind().expect("a CPU is free");
                both.wait();
            });
        }
    });
    let percpu_refs = PerCpuRef::<Native>::new().expect("there is room");

    macro_rules! operation {
        ($name:literal, $body:expr) => {
            (
                $name,
                Box::new(|threads| {
                    time(threads, &|| {
                        black_box($body);
                    })
                }),
            )
        };
    }
    let operations: Vec<Operation<'_>> = vec![
        operation!("seqlock read, 2 words", seq.read()),
        operation!("seqlock read, 8 words", seq_large.read()),
        operation!("seqlock write, 2 words", seq.write()[0] += 1),
        operation!("latch read, 2 words", latch.read()),
        operation!("latch write, 2 words", latch.write()[0] += 1),
        operation!("rwlock read: sync", *ours.read()),
        operation!("rwlock read: hosted", *hosted.read()),
        operation!("rwlock read: hosted, Irq", *ours_irq.read()),
        operation!("rwlock read: spin", *spin.read()),
        operation!("rwlock read: parking_lot", *parking_lot.read()),
        operation!("rwlock read: std", *std_lock.read().unwrap()),
        operation!("rwlock write: sync", *ours.write() += 1),
        operation!("rwlock write: hosted", *hosted.write() += 1),
        operation!("rwlock write: hosted, Irq", *ours_irq.write() += 1),
        operation!("rwlock write: spin", *spin.write() += 1),
        operation!("rwlock write: parking_lot", *parking_lot.write() += 1),
        operation!("rwlock write: std", *std_lock.write().unwrap() += 1),
        operation!("refcount get + put", {
            refs.get();
            refs.put()
        }),
        operation!("percpu_ref get + put", {
            percpu_refs.get();
            percpu_refs.put()
        }),
    ];
    let mut samples = vec![[const { Vec::new() }; 2]; operations.len()];
    for _ in 0..ROUNDS {
        for ((_, operation), samples) in operations.iter().zip(&mut samples) {
            for (threads, samples) in (1..).zip(samples) {
                samples.push(operation(threads));
            }
        }
    }
    println!("{:28} {:>10} {:>10}", "ns an operation", "1 thread", "2 threads");
    for ((name, _), samples) in operations.iter().zip(samples) {
        let [one, two] = samples.map(median);
        println!("{name:28} {one:10.2} {two:10.2}");
    }
}
