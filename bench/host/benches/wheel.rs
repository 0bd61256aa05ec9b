//! What the wheel costs, beside its peers: `cargo bench -p bench-host --bench wheel`.
//!
//! One run on one core, in nanoseconds an operation; the best of a few rounds, which the peers take in turn. Times are spread evenly over ten
//! ticks a timer, 100,000 at most; timers are used in random order, so that with a million of them each use misses the cache.
//! "cancel" and "insert" take half of the timers out and put them in again; "later" changes each timer's time to up to 1,000
//! ticks later, "random" to any time. "spread" goes through all the ticks one by one, "at once" has all timers due in one
//! tick: both a timer, with nothing done for it. "tick" is one at which nothing is due, "next" asks for the first time.
//!
//! The users' objects, 64 bytes each, have what a peer needs: our entry, the heap's place, a handle, a time. So a peer that
//! keeps its entries elsewhere touches both.
//!
//! With `QUIESCE_PEERS=ours` only the wheel is measured, with `QUIESCE_TIMERS=1000` only so many timers.

use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Instant;

use timers::queue::{Entry, Queue};
use timers::wheel::{Wheel, WheelEntry};

#[path = "wheel/peers.rs"]
mod peers;
use peers::Peer;

const COLUMNS: [&str; 9] =
    ["fill", "insert", "cancel", "later", "random", "spread", "at once", "tick", "next"];

/// A small generator of random numbers, the same for all.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(bound)) >> 64) as u64
    }

    fn shuffled(&mut self, count: usize) -> Vec<u32> {
        let mut all: Vec<u32> = (0..count as u32).collect();
        for index in (1..count).rev() {
            all.swap(index, self.below(index as u64 + 1) as usize);
        }
        all
    }
}

fn nanoseconds(operations: usize, run: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    run();
    begun.elapsed().as_nanos() as f64 / operations as f64
}

/// One figure for each column.
fn round<P: Peer>(timers: usize, seed: u64) -> [f64; 9] {
    let mut random = Random(seed);
    let span = (timers as u64 * 10).min(100_000);
    let mut peer = P::new(timers);
    let order = random.shuffled(timers);
    // Nothing is due within the first ticks, so that some can be empty.
    let mut times = || -> Vec<u64> { (0..timers).map(|_| 2_000 + random.below(span)).collect() };
    let (first, again, anywhere) = (times(), times(), times());
    let fill = nanoseconds(timers, || {
        for (&timer, &at) in order.iter().zip(&first) {
            peer.insert(timer as usize, at);
        }
    });
    let order = random.shuffled(timers);
    let half = &order[..timers / 2];
    let cancel = nanoseconds(timers / 2, || {
        for &timer in half {
            peer.cancel(timer as usize);
        }
    });
    let insert = nanoseconds(timers / 2, || {
        for (&timer, &at) in half.iter().zip(&again) {
            peer.insert(timer as usize, at);
        }
    });
    let tick = nanoseconds(1_000, || {
        for now in 1..=1_000 {
            black_box(peer.advance(black_box(now)));
        }
    });
    let next = nanoseconds(1_000, || {
        for _ in 0..1_000 {
            black_box(black_box(&mut peer).next());
        }
    });
    let rearm = nanoseconds(timers, || {
        for (&timer, &at) in order.iter().zip(&anywhere) {
            peer.rearm(timer as usize, at);
        }
    });
    let later: Vec<u64> = anywhere.iter().map(|at| at + random.below(1_000)).collect();
    let later = nanoseconds(timers, || {
        for (&timer, &at) in order.iter().zip(&later) {
            peer.rearm(timer as usize, at);
        }
    });
    let mut due = 0;
    let spread = nanoseconds(timers, || {
        for now in 1_001..span + 8_000 {
            due += peer.advance(now);
        }
    });
    assert!(due >= timers, "{} lost some: {due} of {timers}", P::NAME);

    let mut peer = P::new(timers);
    for &timer in &order {
        peer.insert(timer as usize, 1_024);
    }
    peer.advance(1_023);
    let mut due = 0;
    let at_once = nanoseconds(timers, || due = peer.advance(1_024));
    assert!(due >= timers, "{} lost some: {due} of {timers}", P::NAME);
    [fill, insert, cancel, later, rearm, spread, at_once, tick, next]
}

/// What it costs to leave re-armed timers where they are: a CPU that is idle but for `connections` connections, on each of
/// which something comes about once a second, and arms the connection's time-out of 30 s anew. How often in ten minutes
/// the wheel wakes the CPU up for nothing, and how often it files a timer anew.
fn looks(
    connections: usize,
    rearm: fn(&mut Wheel, NonNull<WheelEntry>, u64, u64),
    settle: usize,
) -> (u64, u64) {
    const HZ: u64 = 250;
    let mut random = Random(9);
    let entries: Vec<_> = (0..connections).map(|_| WheelEntry::new()).collect();
    let mut wheel = Wheel::new();
    for entry in &entries {
        entry.set_expires(30 * HZ);
        // SAFETY: it is in no wheel, and stays.
        unsafe { wheel.insert(NonNull::from(entry), 0) };
    }
    let (mut now, mut vain, mut seconds) = (0, 0, 0.0);
    while now < 600 * HZ {
        // Exponential times between two of all the packets.
        let unit = (random.below(1 << 30) + 1) as f64 / (1 << 30) as f64;
        seconds -= unit.ln() / connections as f64;
        let packet = (seconds * HZ as f64) as u64;
        loop {
            let next = if settle > 0 { wheel.settle(now, settle) } else { wheel.next() };
            if next > packet {
                break;
            }
            now = now.max(next);
            vain += 1;
            assert!(wheel.pop_due(now).is_none(), "no connection is silent for so long");
        }
        now = packet;
        let entry = NonNull::from(&entries[random.below(connections as u64) as usize]);
        rearm(&mut wheel, entry, now + 30 * HZ, now);
        assert!(wheel.pop_due(now).is_none());
    }
    (vain, wheel.refiled())
}

fn print_looks() {
    println!(
        "\n| connections | looks in vain: `next` | filed anew | with `settle` | filed anew | always moved |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    // SAFETY: the entry is in the wheel.
    let stay = |wheel: &mut Wheel, entry, at, now| _ = unsafe { wheel.modify(entry, at, now) };
    let moved = |wheel: &mut Wheel, entry: NonNull<WheelEntry>, at, now| {
        // SAFETY: the entry is in the wheel, and then is not.
        unsafe {
            wheel.remove(entry);
            entry.as_ref().set_expires(at);
            wheel.insert(entry, now);
        }
    };
    for connections in [1, 10, 100, 1_000] {
        let (vain, filed) = looks(connections, stay, 0);
        let (settled, filed_by_settle) = looks(connections, stay, 64);
        let (eager, _) = looks(connections, moved, 0);
        println!("| {connections} | {vain} | {filed} | {settled} | {filed_by_settle} | {eager} |");
    }
}

type Round = fn(usize, u64) -> [f64; 9];

fn main() {
    let all: [(&str, Round); 8] = [
        (peers::Ours::NAME, round::<peers::Ours>),
        (peers::Eager::NAME, round::<peers::Eager>),
        (peers::Heap::NAME, round::<peers::Heap>),
        (peers::Nexus::NAME, round::<peers::Nexus>),
        (peers::HashWheel::NAME, round::<peers::HashWheel>),
        (peers::Sleeps::NAME, round::<peers::Sleeps>),
        (peers::Delays::NAME, round::<peers::Delays>),
        (peers::Tree::NAME, round::<peers::Tree>),
    ];
    print_looks();
    // `cargo test --benches` asks whether it runs at all.
    let test = !std::env::args().any(|argument| argument == "--bench");
    let only_ours = std::env::var_os("QUIESCE_PEERS").is_some();
    let only: Option<usize> = std::env::var("QUIESCE_TIMERS").ok().and_then(|text| text.parse().ok());
    for (timers, rounds) in [(1_000, 9), (100_000, 5), (1_000_000, 3)] {
        if only.is_some_and(|only| only != timers) {
            continue;
        }
        let (timers, rounds) = if test { (100, 1) } else { (timers, rounds) };
        let all = if only_ours { &all[..2] } else { &all[..] };
        let mut figures = vec![Vec::new(); all.len()];
        for seed in 0..rounds {
            for (figures, (_, round)) in figures.iter_mut().zip(all) {
                figures.push(round(timers, seed));
            }
        }
        println!("\n| {timers} timers | {} |", COLUMNS.join(" | "));
        println!("|---|{}", "---:|".repeat(COLUMNS.len()));
        for ((name, _), figures) in all.iter().zip(figures) {
            let best = (0..COLUMNS.len()).map(|column| {
                let figure = figures.iter().map(|round| round[column]).fold(f64::INFINITY, f64::min);
                if figure < 10.0 { format!("{figure:.1}") } else { format!("{figure:.0}") }
            });
            println!("| {name} | {} |", best.collect::<Vec<_>>().join(" | "));
        }
    }
}
