//! What readers and those who give up objects execute, in instructions: `cargo bench -p bench-host --bench count`.
//!
//! It runs itself under callgrind, for each operation twice, with different numbers of repetitions: the difference is the
//! operations' own, without what a process does to begin and end. The loop around each operation is taken off as well.
#![cfg(not(any(loom, shuttle)))]

use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::Ordering;

use hal::Platform;
use rcu::{Rcu, RcuBox, Srcu};

const TIMES: [u32; 2] = [20_000, 120_000];
const OPERATIONS: [(&str, &str); 8] = [
    ("loop", "the loop by itself"),
    ("read", "hosted domain: a read section with one load"),
    ("srcu", "Srcu: a read section"),
    ("srcu-type", "srcu_domain!: a read section"),
    ("retire", "hosted domain: put an object in and give the old one up"),
    ("allocate", ".. of which: allocate and free, 512 objects apart"),
    ("crossbeam-read", "crossbeam-epoch: as the hosted domain reads"),
    ("crossbeam-retire", "crossbeam-epoch: as the hosted domain gives up"),
];

type Object = [u64; 8];

rcu::hosted_domain! { struct Bench; }
rcu::srcu_domain! { struct Sleepers; }

fn repeat(operation: &str, times: u32) {
    let _cpu = hal::hosted::bind().expect("a CPU is free");
    hal::Native::fence_heavy(); // settles what light fences are
    let ours = Rcu::<RcuBox<Object>, Bench>::new(RcuBox::new([1; 8]));
    let crossbeam = crossbeam_epoch::Atomic::new([1_u64; 8]);
    let sleepers: Srcu = Srcu::new("bench").expect("there is room");
    match operation {
        "loop" => (0..times).for_each(|n| _ = black_box(n)),
        "read" => {
            for n in 0..times {
                black_box(n);
                let reader = rcu::read();
                black_box(ours.load(&reader)[0]);
            }
        }
        "srcu" => {
            for n in 0..times {
                black_box(n);
                drop(sleepers.read());
            }
        }
        "srcu-type" => {
            for n in 0..times {
                black_box(n);
                drop(rcu::read::<Sleepers>());
            }
        }
        "retire" => {
            for n in 0..times {
                ours.replace(RcuBox::new([black_box(n).into(); 8])).free_after_grace_period();
            }
        }
        "allocate" => {
            let mut kept = std::collections::VecDeque::with_capacity(1_024);
            for n in 0..times {
                kept.push_back(Box::new([u64::from(black_box(n)); 10]));
                if kept.len() == 1_024 {
                    kept.drain(..512);
                }
            }
        }
        "crossbeam-read" => {
            for n in 0..times {
                black_box(n);
                let guard = crossbeam_epoch::pin();
                // SAFETY: never null, freed by `defer_destroy` only.
                black_box(unsafe { crossbeam.load(Ordering::Acquire, &guard).deref() }[0]);
            }
        }
        "crossbeam-retire" => {
            for n in 0..times {
                let guard = crossbeam_epoch::pin();
                let new = crossbeam_epoch::Owned::new([black_box(n).into(); 8]);
                let old = crossbeam.swap(new, Ordering::AcqRel, &guard);
                // SAFETY: unlinked.
                unsafe { guard.defer_destroy(old) };
            }
        }
        other => panic!("no operation {other}"),
    }
}

/// Instructions of a process that repeats the operation.
fn count(operation: &str, times: u32) -> Option<u64> {
    let this = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args([operation, &times.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [operation, times] = &arguments[..] {
        return repeat(operation, times.parse().expect("a number"));
    }
    let mut of_loop = 0.0;
    for (operation, what) in OPERATIONS {
        let (Some(few), Some(many)) = (count(operation, TIMES[0]), count(operation, TIMES[1])) else {
            return println!("valgrind is needed to count instructions");
        };
        let each = many.saturating_sub(few) as f64 / f64::from(TIMES[1] - TIMES[0]);
        if operation == "loop" {
            of_loop = each;
        } else {
            println!("{:7.1}  {what}", each - of_loop);
        }
    }
}
