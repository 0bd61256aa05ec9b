//! Spin locks beside other crates' locks, in one table: `cargo bench -p bench-host --bench locks`.
//!
//! 1. *Pair* is one lock and unlock that nobody else wants, in nanoseconds: the median of rounds that alternate between
//!    all the locks, so that a slow moment of the machine falls on each of them.
//! 2. *n threads* is what so many threads get out of one lock with one addition inside, in million acquisitions a second,
//!    and how many more the most served thread got than the least served. With more threads than cores it shows
//!    what happens when a host takes a lock holder's core away. Medians of rounds, too.
//!
//! Ours are measured on a platform on which switching preemption off costs nothing, which is what the others do, and on
//! [`hal::Native`], on which a thread is a virtual CPU with all that belongs to it.
//!
//! `QUIESCE_BENCH_MS` is the time of one contended round, `QUIESCE_BENCH_ROUNDS` the number of rounds.

use std::cell::UnsafeCell;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bench_host::Bare;
use sync::{Irq, Queued, SpinLock, Task, Ticketed};

/// A lock around a number.
trait Lock: Sync {
    fn new() -> Self;
    /// One critical section.
    fn add(&self);
    fn sum(&self) -> u64;
}

macro_rules! lock {
    ($($Name:ident($Inner:ty) = $value:expr, |$lock:ident| $guard:expr;)*) => {$(
        struct $Name($Inner);

        impl Lock for $Name {
            fn new() -> $Name {
                $Name($value)
            }
            #[inline(always)]
            fn add(&self) {
                let $lock = &self.0;
                *$guard += 1;
            }
            fn sum(&self) -> u64 {
                let $lock = &self.0;
                *$guard
            }
        }
    )*};
}

lock! {
    Default_(SpinLock<u64, Task<Bare>>) = SpinLock::new(0), |l| l.lock();
    QueuedWord(SpinLock<u64, Queued<Task<Bare>>>) = SpinLock::new(0), |l| l.lock();
    TicketWord(SpinLock<u64, Ticketed<Task<Bare>>>) = SpinLock::new(0), |l| l.lock();
    NativeTask(SpinLock<u64>) = SpinLock::new(0), |l| l.lock();
    NativeIrq(SpinLock<u64, Irq>) = SpinLock::new(0), |l| l.lock();
    SpinMutex(spin::mutex::SpinMutex<u64>) = spin::mutex::SpinMutex::new(0), |l| l.lock();
    SpinTicket(spin::mutex::TicketMutex<u64>) = spin::mutex::TicketMutex::new(0), |l| l.lock();
    Kspin(kspin::SpinRaw<u64>) = kspin::SpinRaw::new(0), |l| l.lock();
    ParkingLot(parking_lot::Mutex<u64>) = parking_lot::Mutex::new(0), |l| l.lock();
    Std(std::sync::Mutex<u64>) = std::sync::Mutex::new(0), |l| l.lock().unwrap();
}

/// On cache lines of its own.
#[repr(align(128))]
struct Apart<T>(T);

/// Nanoseconds of one uncontended pair.
fn pair<L: Lock>() -> f64 {
    const PAIRS: u32 = 200_000;
    let lock = Apart(L::new());
    let start = Instant::now();
    for _ in 0..PAIRS {
        black_box(&lock).0.add();
    }
    let elapsed = start.elapsed();
    assert_eq!(lock.0.sum(), u64::from(PAIRS));
    elapsed.as_nanos() as f64 / f64::from(PAIRS)
}

/// Million acquisitions a second by `threads` threads, and the most served one's share over the least served one's.
fn contended<L: Lock>(threads: usize, time: Duration) -> (f64, f64) {
    let lock = Apart(L::new());
    let stop = Apart(AtomicBool::new(false));
    let start = Barrier::new(threads + 1);
    let counts: Vec<_> = (0..threads).map(|_| Apart(UnsafeCell::new(0_u64))).collect();
    let mut elapsed = Duration::ZERO;
    let counts: Vec<u64> = thread::scope(|scope| {
        let workers: Vec<_> = counts
            .iter()
            .map(|_| {
                scope.spawn(|| {
                    let mut count = 0;
                    start.wait();
                    while !stop.0.load(Ordering::Relaxed) {
                        for _ in 0..8 {
                            lock.0.add();
                        }
                        count += 8;
                    }
                    count
                })
            })
            .collect();
        start.wait();
        let started = Instant::now();
        thread::sleep(time);
        stop.0.store(true, Ordering::Relaxed);
        elapsed = started.elapsed();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let sum: u64 = counts.iter().sum();
    assert_eq!(lock.0.sum(), sum, "the lock does not exclude");
    let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
    (sum as f64 / elapsed.as_secs_f64() / 1e6, *most as f64 / (*least).max(1) as f64)
}

struct Row {
    name: &'static str,
    pair: fn() -> f64,
    contended: fn(usize, Duration) -> (f64, f64),
    pairs: Vec<f64>,
    rates: [Vec<(f64, f64)>; THREADS.len()],
}

const THREADS: [usize; 3] = [2, 4, 8];

fn row<L: Lock>(name: &'static str) -> Row {
    Row { name, pair: pair::<L>, contended: contended::<L>, pairs: Vec::new(), rates: Default::default() }
}

fn median<T: Copy>(values: &mut [T], key: impl Fn(&T) -> f64) -> T {
    values.sort_by(|a, b| key(a).total_cmp(&key(b)));
    values[values.len() / 2]
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn main() {
    // Cargo passes `--bench`; when tests are run it does not, and then one short round shows that all this works.
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (rounds, time) = if measured {
        (setting("QUIESCE_BENCH_ROUNDS", 9), Duration::from_millis(setting("QUIESCE_BENCH_MS", 100)))
    } else {
        (1, Duration::from_millis(2))
    };
    let mut rows = [
        row::<Default_>("SpinLock (default word)"),
        row::<QueuedWord>("SpinLock (queued word)"),
        row::<TicketWord>("SpinLock (ticket word)"),
        row::<NativeTask>("SpinLock, hosted CPUs"),
        row::<NativeIrq>("IrqSpinLock, hosted CPUs"),
        row::<SpinMutex>("spin::SpinMutex"),
        row::<SpinTicket>("spin::TicketMutex"),
        row::<Kspin>("kspin::SpinRaw"),
        row::<ParkingLot>("parking_lot::Mutex"),
        row::<Std>("std::sync::Mutex"),
    ];
    // Strict order and more threads than cores can take for ever to stop, so that those are left out there.
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    let strict = |name: &str| name.contains("queued") || name.contains("icket");
    for _ in 0..rounds {
        for row in &mut rows {
            row.pairs.push((row.pair)());
        }
        for (i, threads) in THREADS.into_iter().enumerate() {
            for row in &mut rows {
                if threads <= 2 * cores || !strict(row.name) {
                    row.rates[i].push((row.contended)(threads, time));
                }
            }
        }
    }
    println!("{:26} {:>8}   {}", "", "pair", THREADS.map(|n| format!("{n} threads         ")).join(" "));
    println!("{:26} {:>8}   {}", "lock", "ns", THREADS.map(|_| "Mop/s   max/min    ".to_string()).join(" "));
    for row in &mut rows {
        let pair = median(&mut row.pairs, |ns| *ns);
        let rates = row.rates.each_mut().map(|rates| {
            if rates.is_empty() {
                return format!("{:>7}   {:<9}", "-", "");
            }
            let (rate, _) = median(rates, |(rate, _)| *rate);
            let (_, share) = median(rates, |(_, share)| *share);
            format!("{rate:7.2}   {share:<9.2}")
        });
        println!("{:26} {pair:8.2} {}", row.name, rates.join(""));
    }
}
