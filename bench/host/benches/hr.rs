//! Which structure for exact timers: `cargo bench -p bench-host --bench hr`.
//!
//! One run, one core, medians of several repetitions that take turns. The objects are 64 bytes each, in one array, and are
//! used in random order. "far" adds an entry that is later than all others and removes it, "near" one that is earlier;
//! "re-arm" removes a random one and adds it at a random time ahead; "hold" takes the first one out and adds it at a random
//! time ahead. The last columns are the longest single operation in a sequence: each operation's shortest time in nine runs
//! of the same sequence, and of these the longest. "fill" adds all in ascending order and takes them out from the front,
//! "mixed" re-arms at random.
//!
//! Instructions: `valgrind --tool=callgrind BENCH count far 10 1000000`, less the same with another number.

use std::hint::black_box;
use std::time::Instant;

#[path = "hr/meldable.rs"]
mod meldable;
#[path = "hr/others.rs"]
mod others;
#[path = "hr/pairing.rs"]
mod pairing;
#[expect(dead_code, unreachable_pub, reason = "it is the scheduler's")]
#[cfg_attr(test, expect(unused_imports, reason = "its tests are not compiled twice"))]
#[path = "../../../kernel/src/sched/tree.rs"]
mod tree;

/// A queue under test.
trait Candidate {
    const NAME: &'static str;
    type Node: Default;
    fn new(most: usize) -> Self;
    /// # Safety
    /// The node stays, and is in no queue.
    unsafe fn insert(&mut self, node: *mut Self::Node, expires: u64);
    /// # Safety
    /// The node is in this queue.
    unsafe fn remove(&mut self, node: *mut Self::Node);
    /// The first one.
    fn first(&mut self) -> *mut Self::Node {
        unreachable!("`pop` does without")
    }
    /// Takes the first one out.
    /// # Safety
    /// There is one.
    #[inline(always)]
    unsafe fn pop(&mut self) -> *mut Self::Node {
        let first = self.first();
        // SAFETY: it is in the queue.
        unsafe { self.remove(first) };
        first
    }
    /// # Safety
    /// The node lives.
    unsafe fn expires(node: *mut Self::Node) -> u64;
}

#[repr(C, align(64))]
#[derive(Default)]
struct Object<N> {
    node: N,
}

/// A small generator of random numbers, the same for all.
struct Random(u64);
impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Deadlines lie within the next second.
const AHEAD: u64 = 1_000_000_000;
const COLUMNS: [&str; 8] = ["far", "near", "re-arm", "hold", "add", "drain", "worst: mixed", "worst: fill"];

struct World<C: Candidate> {
    objects: Vec<Object<C::Node>>,
    order: Vec<u32>,
    queue: C,
    now: u64,
    random: Random,
}

impl<C: Candidate> World<C> {
    fn new(n: usize) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, (random.next() % (i as u64 + 1)) as usize);
        }
        let objects = (0..n + 1).map(|_| Object { node: C::Node::default() }).collect();
        World { objects, order, queue: C::new(n + 1), now: 0, random }
    }

    fn node(&mut self, i: usize) -> *mut C::Node {
        &raw mut self.objects[i].node
    }

    /// Adds all, in the given order of deadlines.
    fn fill(&mut self, ascending: bool, mut each: impl FnMut(&mut dyn FnMut())) {
        for i in 0..self.order.len() {
            let at = self.order[i] as usize;
            let expires =
                self.now + if ascending { 1_000 + i as u64 } else { 1_000 + self.random.next() % AHEAD };
            let node = self.node(at);
            // SAFETY: objects stay where they are; each is added once.
            each(&mut || unsafe { self.queue.insert(node, expires) });
        }
    }

    fn drain(&mut self, mut each: impl FnMut(&mut dyn FnMut())) {
        for _ in 0..self.order.len() {
            // SAFETY: all are in the queue.
            each(&mut || unsafe { _ = self.queue.pop() });
        }
    }

    fn pair(&mut self, expires: u64) {
        let node = self.node(self.order.len());
        // SAFETY: the last object is in no queue, and then is in this one.
        unsafe {
            self.queue.insert(black_box(node), black_box(expires));
            self.queue.remove(black_box(node));
        }
    }

    fn rearm(&mut self) {
        let at = (self.random.next() % self.order.len() as u64) as usize;
        let expires = self.now + 1_000 + self.random.next() % AHEAD;
        let node = self.node(at);
        // SAFETY: all but the last object are in the queue.
        unsafe {
            self.queue.remove(node);
            self.queue.insert(node, expires);
        }
        self.now += 10;
    }

    fn hold(&mut self) {
        // SAFETY: all are in the queue; the first one then in none.
        unsafe {
            let first = self.queue.pop();
            self.now = self.now.max(C::expires(first));
            let expires = self.now + 1_000 + self.random.next() % AHEAD;
            self.queue.insert(first, expires);
        }
    }
}

fn per<T>(times: usize, work: impl FnOnce() -> T) -> f64 {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed().as_nanos() as f64 / times as f64
}

fn measure<C: Candidate>(n: usize) -> [f64; 6] {
    const TIMES: usize = 200_000;
    let mut world = World::<C>::new(n);
    let add = per(n, || world.fill(false, |op| op()));
    (0..n.min(TIMES)).for_each(|_| world.hold());
    let far = per(TIMES, || (0..TIMES).for_each(|_| world.pair(world.now + 2 * AHEAD)));
    let near = per(TIMES, || (0..TIMES).for_each(|_| world.pair(world.now)));
    let rearm = per(TIMES, || (0..TIMES).for_each(|_| world.rearm()));
    let hold = per(TIMES, || (0..TIMES).for_each(|_| world.hold()));
    let drain = per(n, || world.drain(|op| op()));
    [far, near, rearm, hold, add, drain]
}

/// The longest operation of a sequence, in ns.
fn worst<C: Candidate>(n: usize, mixed: bool) -> f64 {
    let mut best: Vec<u64> = Vec::new();
    for _ in 0..9 {
        let mut world = World::<C>::new(n);
        let mut times = Vec::with_capacity(2 * n);
        let mut timed = |op: &mut dyn FnMut()| {
            let begun = Instant::now();
            op();
            times.push(begun.elapsed().as_nanos() as u64);
        };
        if mixed {
            world.fill(false, |op| op());
            for _ in 0..2 * n {
                timed(&mut || world.rearm());
            }
            world.drain(|op| op());
        } else {
            world.fill(true, &mut timed);
            world.drain(&mut timed);
        }
        if best.is_empty() {
            best = times;
        } else {
            best.iter_mut().zip(times).for_each(|(best, time)| *best = (*best).min(time));
        }
    }
    best.into_iter().max().unwrap_or(0) as f64
}

fn row<C: Candidate>(n: usize) -> (&'static str, Vec<[f64; 6]>, [f64; 2]) {
    (C::NAME, vec![measure::<C>(n)], [worst::<C>(n, true), worst::<C>(n, false)])
}

/// `hr count far 10 1000000`: a million pairs beside ten pending entries, for a tool that counts instructions; the pairs'
/// number of them is the difference between two such runs.
fn count(args: &[String]) {
    let [what, pending, times] = args else { panic!("count far|near PENDING TIMES") };
    let mut world = World::<others::Ours>::new(pending.parse().expect("a number"));
    world.fill(false, |op| op());
    let expires = if what == "far" { world.now + 2 * AHEAD } else { world.now };
    for _ in 0..times.parse::<u64>().expect("a number") {
        world.pair(expires);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    if let Some(at) = args.iter().position(|arg| arg == "count") {
        return count(&args[at + 1..]);
    }
    for n in [10, 1_000, 100_000] {
        let mut rows = vec![
            row::<others::Ours>(n),
            row::<others::Avl>(n),
            row::<meldable::Heap>(n),
            row::<pairing::Pairing>(n),
            row::<others::Buckets>(n),
            row::<others::FourAry>(n),
        ];
        for _ in 1..5 {
            rows[0].1.push(measure::<others::Ours>(n));
            rows[1].1.push(measure::<others::Avl>(n));
            rows[2].1.push(measure::<meldable::Heap>(n));
            rows[3].1.push(measure::<pairing::Pairing>(n));
            rows[4].1.push(measure::<others::Buckets>(n));
            rows[5].1.push(measure::<others::FourAry>(n));
        }
        println!("\n| {n} pending, ns | {} |", COLUMNS.join(" | "));
        println!("|---|{}", "---:|".repeat(COLUMNS.len()));
        for (name, runs, worst) in rows {
            print!("| {name} |");
            for column in 0..6 {
                let mut values: Vec<f64> = runs.iter().map(|run| run[column]).collect();
                values.sort_by(f64::total_cmp);
                print!(" {:.1} |", values[values.len() / 2]);
            }
            println!(" {:.0} | {:.0} |", worst[0], worst[1]);
        }
    }
}
