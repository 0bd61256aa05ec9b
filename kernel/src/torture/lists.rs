//! A map and a list whose readers take no lock, while writers change, move, grow and shrink them.
//!
//! Some keys are always there, others come and go. A reader must find each of the former, in order where there is one, and
//! nothing that was freed.

use core::hash::{BuildHasherDefault, Hasher};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ::rcu::{Domain, RcuBox, RcuHashMap, RcuList};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hal::{Native, Platform};
use sync::TaskCx;
use sync::list::Link;

use super::control::{Random, Tally, bump, error, goes_on, spin};
use super::{MS, Plan, Scenario};
use crate::cpus;
use crate::rcu::Kernel;
use crate::task::{Builder, JoinHandle};

const NAME: &str = "lists";

pub(super) static SCENARIO: Scenario = Scenario {
    name: NAME,
    what: "a hash map that grows and shrinks and a list in which objects move, under readers without a lock",
    twins: &[
        ("lists-early", "what is removed is destroyed before its grace period"),
        ("lists-forgets", "a key that is always there is removed before it is put in again"),
        ("lists-unordered", "an object that stays is put in again at the end"),
    ],
    start,
    settle: |cx| Kernel::barrier(cx),
    counts,
};

static LOOKUPS: AtomicU64 = AtomicU64::new(0);
static WALKS: AtomicU64 = AtomicU64::new(0);
static CHANGES: AtomicU64 = AtomicU64::new(0);
static RESIZES: AtomicU64 = AtomicU64::new(0);
static EARLY: AtomicBool = AtomicBool::new(false);
static FORGETS: AtomicBool = AtomicBool::new(false);
static UNORDERED: AtomicBool = AtomicBool::new(false);

fn counts(tallies: &mut Vec<Tally>) {
    tallies.extend([
        Tally::of("lookups", &LOOKUPS, 5000),
        Tally::of("walks", &WALKS, 500),
        Tally::of("changes", &CHANGES, 500),
        Tally::of("resizes", &RESIZES, 6),
    ]);
}

const ALIVE: u32 = 0x600d_da7a;
const POISON: u32 = 0x6b6b_6b6b;

/// What can tell whether it has been destroyed.
struct Mark(AtomicU32);

impl Mark {
    fn new() -> Mark {
        Mark(AtomicU32::new(ALIVE))
    }

    /// It is destroyed from here on.
    fn poison(&self) {
        self.0.store(POISON, Ordering::Release);
    }

    /// A reader has come across it, and stays a while.
    fn look(&self, what: &str) {
        let before = self.0.load(Ordering::Acquire);
        spin(2_000);
        if before != ALIVE || self.0.load(Ordering::Acquire) != ALIVE {
            error(NAME, format_args!("a reader holds {what} that was destroyed"));
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.poison();
    }
}

/// Hashes numbers.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = hal::chaos::mix(self.0 ^ u64::from(*byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Keys below this are always there.
const STAY: u64 = 64;
/// Others are between, and their number decides about the size.
const MOST: u64 = 256;

type Map = RcuHashMap<u64, (u64, Mark), Kernel, BuildHasherDefault<Mixer>>;

struct Entry {
    number: u32,
    mark: Mark,
    link: Link,
}

sync::link_field! { struct Listed = Entry => link: Link; }

type List = RcuList<RcuBox<Entry>, Listed, Kernel>;

/// The numbers of the objects of the list that stay: 1 to this. 0 is moved.
const LAST: u32 = 8;

fn entry(number: u32) -> RcuBox<Entry> {
    RcuBox::new(Entry { number, mark: Mark::new(), link: Link::new() })
}

struct Shared {
    map: Map,
    list: List,
}

fn read(shared: &Shared, mut random: Random, cx: &mut TaskCx) {
    while goes_on(cx) {
        let section = crate::rcu::read();
        for _ in 0..8 {
            let key = random.next() % (2 * STAY);
            match shared.map.get(&key, &section) {
                Some((number, mark)) => {
                    if *number != key {
                        error(NAME, format_args!("key {key} leads to the value of {number}"));
                    }
                    mark.look("a value");
                }
                None if key < STAY => {
                    error(NAME, format_args!("key {key}, which is always there, was not found"))
                }
                None => (),
            }
            bump(&LOOKUPS);
        }
        let mut expected = 1;
        for entry in shared.list.iter(&section) {
            entry.mark.look("an object");
            expected += u32::from(entry.number == expected);
        }
        if expected != LAST + 1 {
            error(NAME, format_args!("a walk came to {} of {LAST} objects that stay", expected - 1));
        }
        bump(&WALKS);
        drop(section);
        if random.one_in(16) {
            cx.block(Some(Native::now_ns() + random.next() % MS));
        }
        cx.cond_resched();
    }
}

fn write(shared: &Shared, mut random: Random, cx: &mut TaskCx) {
    let mut grows = true;
    while goes_on(cx) {
        let before = shared.map.buckets();
        for _ in 0..32 {
            let key = STAY + random.next() % MOST;
            let replaced = match grows || random.one_in(4) {
                true => shared.map.insert(key, (key, Mark::new())),
                false => shared.map.remove(&key),
            };
            if let Some(gone) = replaced {
                if EARLY.load(Ordering::Relaxed) {
                    gone.value().1.poison();
                }
                // Freed after a grace period.
                drop(gone);
            }
        }
        // One of those that stay gets another value: a new entry takes the place of the former one.
        let key = random.next() % STAY;
        if FORGETS.load(Ordering::Relaxed) {
            drop(shared.map.remove(&key));
            spin(10_000);
        }
        drop(shared.map.insert(key, (key, Mark::new())));
        if shared.map.len() as u64 > STAY + MOST / 2 {
            grows = false;
        } else if (shared.map.len() as u64) < STAY + MOST / 16 {
            grows = true;
        }
        if !grows {
            shared.map.shrink();
        }
        RESIZES.fetch_add(u64::from(shared.map.buckets() != before), Ordering::Relaxed);
        bump(&CHANGES);
        cx.block(Some(Native::now_ns() + random.next() % (2 * MS)));
    }
}

/// Takes one object out of the list and puts another one with its number in at the other end.
fn shift(shared: &Shared, mut random: Random, cx: &mut TaskCx) {
    while goes_on(cx) {
        let mut writer = shared.list.write();
        let gone = writer.remove_first(|entry| entry.number == 0);
        match random.one_in(2) {
            true => writer.push_back(entry(0)),
            false => writer.push_front(entry(0)),
        }
        let strays = UNORDERED.load(Ordering::Relaxed) && random.one_in(16);
        let stray = strays.then(|| writer.remove_first(|entry| entry.number == LAST / 2)).flatten();
        if stray.is_some() {
            writer.push_back(entry(LAST / 2));
        }
        drop(writer);
        drop(stray);
        if let Some(gone) = gone {
            if EARLY.load(Ordering::Relaxed) {
                gone.mark.poison();
            }
            drop(gone);
        }
        bump(&CHANGES);
        cx.block(Some(Native::now_ns() + random.next() % (MS / 2)));
    }
}

fn start(plan: &Plan, _: &mut TaskCx) -> Vec<JoinHandle<()>> {
    [&LOOKUPS, &WALKS, &CHANGES, &RESIZES]
        .into_iter()
        .for_each(|counter| counter.store(0, Ordering::Relaxed));
    EARLY.store(plan.is("lists-early"), Ordering::Relaxed);
    FORGETS.store(plan.is("lists-forgets"), Ordering::Relaxed);
    UNORDERED.store(plan.is("lists-unordered"), Ordering::Relaxed);
    let shared = Arc::new(Shared { map: Map::default(), list: List::new() });
    (0..STAY).for_each(|key| drop(shared.map.insert(key, (key, Mark::new()))));
    let mut writer = shared.list.write();
    (0..=LAST).for_each(|number| writer.push_back(entry(number)));
    drop(writer);
    let mut seeds = Random(plan.seed ^ 0x1157);
    let mut tasks = Vec::new();
    let bodies: [fn(&Shared, Random, &mut TaskCx); 3] = [write, write, shift];
    let readers = (0..2 * cpus::online_count().min(8)).map(|_| read as fn(&Shared, Random, &mut TaskCx));
    for body in bodies.into_iter().chain(readers) {
        let (shared, random) = (Arc::clone(&shared), Random(seeds.next()));
        tasks.extend(Builder::new("lists").spawn(move |cx| body(&shared, random, cx)));
    }
    tasks
}
