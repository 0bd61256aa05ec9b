use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::vec::Vec;
use std::{format, thread};

use super::*;

const PAGES: usize = 8;
const NAMES: usize = 200_000;

/// Memory and tables that some threads share: a page's entry names what it is mapped to, 0 if nothing.
struct World {
    shootdown: Shootdown,
    entries: [AtomicU64; PAGES],
    owners: [Mutex<()>; PAGES],
    /// What a name stands for has been given back, so nobody may translate to it.
    gone: Vec<AtomicBool>,
    next_name: AtomicU64,
    cpus: usize,
    /// Interrupts nobody on this CPU: a broken twin.
    forgotten: Option<usize>,
    stale_uses: AtomicUsize,
    started: Barrier,
    done: AtomicUsize,
}

/// A thread as a CPU with a TLB. It is "interrupted" only where it polls.
struct Cpu<'a> {
    number: usize,
    world: &'a World,
    tlb: RefCell<[u64; PAGES]>,
    seed: Cell<u64>,
}

impl Machine for Cpu<'_> {
    fn here(&self) -> usize {
        self.number
    }

    fn others(&self, visit: &mut dyn FnMut(usize)) {
        let forgotten = self.world.forgotten;
        (0..self.world.cpus).filter(|cpu| *cpu != self.number && Some(*cpu) != forgotten).for_each(visit);
    }

    fn interrupt(&self, _cpu: usize) {}

    fn flush(&self, range: Range<u64>) {
        for (page, entry) in self.tlb.borrow_mut().iter_mut().enumerate() {
            if range.contains(&(page as u64 * 4096)) {
                *entry = 0;
            }
        }
    }

    fn wait(&self, _cpu: usize, _turn: u64) -> bool {
        thread::yield_now();
        true
    }

    fn relax(&self) {
        thread::yield_now();
    }

    fn uninterrupted(&self, work: &mut dyn FnMut()) {
        work();
    }
}

impl Cpu<'_> {
    fn random(&self, below: usize) -> usize {
        let next = self.seed.get().wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.seed.set(next);
        (next >> 33) as usize % below
    }

    fn translate(&self, page: usize) -> u64 {
        let mut tlb = self.tlb.borrow_mut();
        if tlb[page] == 0 {
            tlb[page] = self.world.entries[page].load(Ordering::Acquire);
        }
        tlb[page]
    }

    fn read(&self) {
        let name = self.translate(self.random(PAGES));
        if name != 0 && self.world.gone[name as usize].load(Ordering::Acquire) {
            self.world.stale_uses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Maps a page to something else, and gives back what it was mapped to.
    fn remap(&self) {
        let page = self.random(PAGES);
        // As a spinning CPU would: serve while waiting for the page's owner.
        let _owner = loop {
            match self.world.owners[page].try_lock() {
                Ok(owner) => break owner,
                Err(_) => self.world.shootdown.serve(self),
            }
            thread::yield_now();
        };
        let old = self.world.entries[page].swap(0, Ordering::AcqRel);
        let at = page as u64 * 4096;
        self.world.shootdown.flush(self, at..at + 4096);
        self.world.gone[old as usize].store(old != 0, Ordering::Release);
        let new = self.world.next_name.fetch_add(1, Ordering::Relaxed);
        self.world.entries[page].store(new, Ordering::Release);
    }
}

fn run(cpus: usize, steps: usize, forgotten: Option<usize>, seed: u64) -> (World, usize) {
    let world = World {
        shootdown: Shootdown::new(),
        entries: [const { AtomicU64::new(0) }; PAGES],
        owners: [const { Mutex::new(()) }; PAGES],
        gone: (0..NAMES).map(|_| AtomicBool::new(false)).collect(),
        next_name: AtomicU64::new(1),
        cpus,
        forgotten,
        stale_uses: AtomicUsize::new(0),
        started: Barrier::new(cpus),
        done: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        for number in 0..cpus {
            let world = &world;
            thread::Builder::new()
                .name(format!("cpu {number}"))
                .spawn_scoped(scope, move || {
                    let seed = Cell::new(seed * 97 + number as u64);
                    let cpu = Cpu { number, world, tlb: RefCell::new([0; PAGES]), seed };
                    world.started.wait();
                    for _ in 0..steps {
                        // Seldom, so that what a CPU still believes has time to do harm.
                        match cpu.random(32) {
                            0 | 1 => cpu.remap(),
                            2 => world.shootdown.serve(&cpu),
                            3 => thread::yield_now(),
                            _ => cpu.read(),
                        }
                    }
                    world.done.fetch_add(1, Ordering::Relaxed);
                    // Goes on answering, as a CPU does, until nobody asks any more.
                    while world.done.load(Ordering::Relaxed) < cpus {
                        world.shootdown.serve(&cpu);
                        thread::yield_now();
                    }
                })
                .unwrap();
        }
    });
    let stale = world.stale_uses.load(Ordering::Relaxed);
    (world, stale)
}

#[test]
fn nobody_uses_a_translation_that_was_shot_down() {
    for seed in 0..4 {
        let (world, stale) = run(4, 4000, None, seed);
        assert_eq!(stale, 0);
        let stats = world.shootdown.stats();
        assert!(stats.requests > 400 && stats.rounds > 0 && stats.rounds <= stats.requests, "{stats:?}");
    }
}

#[test]
fn forgetting_a_cpu_would_be_noticed() {
    let stale: usize = (0..4).map(|seed| run(4, 4000, Some(2), seed).1).sum();
    assert!(stale > 0);
}

#[test]
fn one_cpu_needs_nobody() {
    let (world, stale) = run(1, 1000, None, 1);
    assert_eq!(stale, 0);
    let stats = world.shootdown.stats();
    assert_eq!(stats.requests, stats.rounds);
}

/// A CPU that is interrupted while it flushes: the interrupt's handler serves the same round, and before it returns the
/// next round has asked for other addresses.
struct Interrupted<'a> {
    shootdown: &'a Shootdown,
    leader_has_more: &'a AtomicBool,
    flushed: RefCell<Vec<Range<u64>>>,
    depth: Cell<u32>,
}

impl Machine for Interrupted<'_> {
    fn here(&self) -> usize {
        1
    }

    fn others(&self, _visit: &mut dyn FnMut(usize)) {}

    fn interrupt(&self, _cpu: usize) {}

    fn flush(&self, range: Range<u64>) {
        self.flushed.borrow_mut().push(range);
        if self.depth.replace(1) == 0 {
            self.shootdown.serve(self);
            self.leader_has_more.store(true, Ordering::Release);
            while self.shootdown.asked[1].load(Ordering::Acquire) != 2 {
                thread::yield_now();
            }
        }
    }

    fn wait(&self, _cpu: usize, _turn: u64) -> bool {
        true
    }

    fn relax(&self) {}

    fn uninterrupted(&self, work: &mut dyn FnMut()) {
        work();
    }
}

/// A CPU that flushes on two CPUs, 0 and 1.
struct Leader;

impl Machine for Leader {
    fn here(&self) -> usize {
        0
    }

    fn others(&self, visit: &mut dyn FnMut(usize)) {
        visit(1);
    }

    fn interrupt(&self, _cpu: usize) {}

    fn flush(&self, _range: Range<u64>) {}

    fn wait(&self, _cpu: usize, _turn: u64) -> bool {
        thread::yield_now();
        true
    }

    fn relax(&self) {
        thread::yield_now();
    }

    fn uninterrupted(&self, work: &mut dyn FnMut()) {
        work();
    }
}

#[test]
fn a_round_is_not_answered_by_who_served_the_one_before() {
    let (shootdown, leader_has_more) = (Shootdown::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        let leader = scope.spawn(|| {
            shootdown.flush(&Leader, 0x1000..0x2000);
            while !leader_has_more.load(Ordering::Acquire) {
                thread::yield_now();
            }
            shootdown.flush(&Leader, 0x8000..0x9000);
        });
        while shootdown.asked[1].load(Ordering::Acquire) != 1 {
            thread::yield_now();
        }
        let cpu = Interrupted {
            shootdown: &shootdown,
            leader_has_more: &leader_has_more,
            flushed: RefCell::new(Vec::new()),
            depth: Cell::new(0),
        };
        shootdown.serve(&cpu);
        assert_eq!(shootdown.asked[1].load(Ordering::Acquire), 2, "still owed");
        cpu.flushed.borrow_mut().clear();
        shootdown.serve(&cpu);
        assert!(cpu.flushed.borrow().contains(&(0x8000..0x9000)));
        leader.join().unwrap();
    });
}

#[test]
fn ranges_join_and_overflow_to_everything() {
    let mut wanted = Wanted::NOTHING;
    wanted.add(0..0);
    assert_eq!(wanted.count, 0);
    wanted.add(0x1000..0x2000);
    wanted.add(0x2000..0x3000);
    assert_eq!((wanted.count, wanted.starts[0], wanted.ends[0]), (1, 0x1000, 0x3000));
    for n in 1..=MAX_RANGES as u64 {
        wanted.add(n << 20..(n << 20) + 1);
    }
    assert_eq!((wanted.count, wanted.starts[0], wanted.ends[0]), (1, 0, u64::MAX));
}
