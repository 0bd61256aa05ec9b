//! Any sequence of operations, as bytes, against a plain model.
//!
//! 1. [`run`] reads bytes as operations on a wheel and a table of what must come of them. It panics where they differ.
//!    Every string of bytes is a legal sequence, so bytes may come from anywhere: random ones (millions of operations),
//!    proptest (which shortens those that fail), or the corpus.
//! 2. The corpus is one short sequence for each broken wheel that it finds out. A wheel with one wrong rule must fail
//!    the sequence of its name, and must fail random ones soon; the sound one must pass all.
//! 3. `cargo xtask verify timers --only fuzz --minutes 10` goes on with new random sequences for so long.

use core::ptr::NonNull;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::entry::WheelEntry;
use super::geometry::{HORIZON, LEVELS, NO_SLACK, Rules, Sound, granule, level_of};
use super::raw::Raw;
use crate::queue::{Entry, Queue, Taker};

const ENTRIES: usize = 40;

/// What the model knows of an armed entry.
#[derive(Clone, Copy)]
struct Armed {
    expires: u64,
    /// The last tick at which it may be given back.
    latest: u64,
    /// The next time that it is filed anew must be on a level below this.
    below: usize,
}

struct World<'a, R> {
    bytes: core::slice::Iter<'a, u8>,
    wheel: Box<Raw<R>>,
    entries: Box<[WheelEntry]>,
    model: [Option<Armed>; ENTRIES],
    slack: [u32; ENTRIES],
    now: u64,
    /// A drain is under way.
    draining: bool,
    operations: u64,
}

/// How many operations the bytes were.
///
/// # Panics
/// If the wheel does anything that it must not.
fn run<R: Rules>(bytes: &[u8]) -> u64 {
    let mut world = World::<R> {
        bytes: bytes.iter(),
        wheel: Box::new(Raw::new()),
        entries: (0..ENTRIES).map(|_| WheelEntry::new()).collect(),
        model: [None; ENTRIES],
        slack: [NO_SLACK; ENTRIES],
        now: 0,
        draining: false,
        operations: 0,
    };
    world.now = world.beginning();
    while !world.bytes.as_slice().is_empty() {
        world.operation();
    }
    world.drain();
    world.wheel.check_empty();
    world.operations
}

impl<R: Rules> World<'_, R> {
    fn byte(&mut self) -> u64 {
        self.bytes.next().copied().unwrap_or(0).into()
    }

    /// Boot, and where counters of 32 bits and the numbers of buckets wrap.
    fn beginning(&mut self) -> u64 {
        let (which, off) = (self.byte(), self.byte());
        let wrap = match which % 8 {
            0 => return off,
            1 => 1 << 32,
            2 => 1 << 31,
            3 => (1 << 63) - 16 * HORIZON,
            4 => 1 << 52,
            level => 64 * granule(level as usize % LEVELS) * 5,
        };
        wrap - off.min(wrap)
    }

    /// Distances of all lengths, more often than not about the ends of levels.
    fn distance(&mut self) -> u64 {
        let (kind, a) = (self.byte(), self.byte());
        let level = (kind as usize >> 3) % (LEVELS + 1);
        match kind % 8 {
            0 | 1 => a % 80,
            2 => 63 * granule(level) + a % 3 - 1,
            3 => 64 * granule(level) + a % 3 - 1,
            4 => granule(level) * (a % 64),
            5 => granule(level) * (a % 64) + self.byte(),
            6 => a * HORIZON / 100,
            _ => (a << 8 | self.byte()) >> (level % 8),
        }
    }

    /// A time, at times a past one, or never.
    fn time(&mut self) -> u64 {
        match self.byte() % 16 {
            0 => self.now.saturating_sub(self.bytes.len() as u64 % 70),
            1 if self.bytes.len().is_multiple_of(5) => u64::MAX,
            _ => self.now.saturating_add(self.distance()),
        }
    }

    fn operation(&mut self) {
        self.operations += 1;
        let index = self.byte() as usize % ENTRIES;
        match self.byte() % 16 {
            0..=3 => self.arm(index),
            4..=6 => self.modify(index),
            7 => self.modify_without_lock(index),
            8 | 9 => self.disarm(index),
            10 => self.settle(),
            11..=14 if !self.draining => self.go_on(),
            15 if !self.draining && self.byte() < 8 => self.migrate(),
            _ => self.disarm(index),
        }
        self.check();
    }

    fn entry(&self, index: usize) -> NonNull<WheelEntry> {
        NonNull::from(&self.entries[index])
    }

    /// What must come of arming an entry now.
    fn promise(&self, index: usize, expires: u64, below: Option<usize>) -> Armed {
        let latest = if expires <= self.now {
            self.now + 1
        } else {
            let level = level_of((expires - self.now).min(HORIZON));
            expires.saturating_add((granule(level) - 1).min(self.slack[index].into()))
        };
        // In the middle of a drain it may get into a bucket that is to be looked at in this drain.
        let level = level_of(expires.saturating_sub(self.now).min(HORIZON)) + usize::from(self.draining);
        let beyond = expires.saturating_sub(self.now) > HORIZON;
        Armed { expires, latest, below: if beyond { usize::MAX } else { below.unwrap_or(level) } }
    }

    fn arm(&mut self, index: usize) {
        let expires = self.time();
        if self.model[index].is_some() {
            return;
        }
        self.slack[index] = match self.byte() % 8 {
            0 => 0,
            1 => self.byte() as u32,
            2 => self.distance().min(u64::from(NO_SLACK)) as u32,
            _ => NO_SLACK,
        };
        self.entries[index].set_slack(self.slack[index].into());
        self.entries[index].set_expires(expires);
        let before = self.wheel.next();
        // SAFETY: it is in no wheel, and stays where it is for as long as the wheel lives.
        let earlier = unsafe { self.wheel.insert(self.entry(index), self.now) };
        assert_eq!(earlier, self.wheel.next() < before, "what insert says of next");
        self.model[index] = Some(self.promise(index, expires, None));
    }

    fn modify(&mut self, index: usize) {
        let expires = self.time();
        if self.model[index].is_none() {
            return;
        }
        let before = self.wheel.next();
        // SAFETY: it is in the wheel.
        let earlier = unsafe { self.wheel.modify(self.entry(index), expires, self.now) };
        assert!(earlier || self.wheel.next() >= before, "what modify says of next");
        // If it stays where it is, it is filed on any level when that bucket comes.
        self.model[index] = Some(self.promise(index, expires, Some(LEVELS)));
    }

    fn modify_without_lock(&mut self, index: usize) {
        let to = self.time();
        let Some(armed) = self.model[index] else { return };
        if !super::Wheel::may_stay(&self.entries[index], armed.expires, to) {
            return;
        }
        // The time that it has already promises nothing new.
        if to != armed.expires {
            self.entries[index].set_expires(to);
            self.model[index] = Some(self.promise(index, to, Some(LEVELS)));
        }
    }

    fn disarm(&mut self, index: usize) {
        if self.model[index].take().is_some() {
            // SAFETY: it is in the wheel.
            unsafe { self.wheel.remove(self.entry(index)) };
        }
    }

    fn settle(&mut self) {
        let limit = self.byte() as usize % 50;
        let before = self.wheel.next();
        let next = self.wheel.settle(self.now, limit);
        assert!(next >= before);
        self.note_filed();
        if limit > ENTRIES && !self.draining && next > self.now {
            // Nobody is woken up for entries that have been re-armed since.
            let real = self.model.iter().zip(&self.slack).any(|(armed, &slack)| {
                armed.is_some_and(|armed| {
                    let remaining = armed.expires.saturating_sub(self.now);
                    let coarse = granule(level_of(remaining.min(HORIZON)));
                    armed.expires <= next
                        || (u64::from(slack) < coarse && armed.expires - next < coarse)
                        || remaining > HORIZON
                })
            });
            assert!(real || next == u64::MAX, "settled, and {next} is nobody's");
        }
    }

    /// Time passes, and what is due is given back.
    fn go_on(&mut self) {
        let next = self.wheel.next();
        let to = match self.byte() % 8 {
            0..=2 => self.now + 1,
            3 => next.saturating_sub(1),
            4 | 5 => next,
            _ => self.now + self.distance(),
        };
        // Time ends before 2^63, and does not go back.
        let end = if next == u64::MAX { self.now + 1000 } else { u64::MAX };
        self.now = to.min(end).min((1 << 63) - 1).max(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        self.draining = true;
        let mut given = 0;
        loop {
            let batch = self.pop();
            if batch.is_empty() {
                break;
            }
            self.note_filed();
            let indices: Vec<_> = batch.into_iter().map(|entry| self.given_back(entry)).collect();
            self.check();
            for index in indices {
                given += 1;
                assert!(given < 10_000, "a drain that does not end");
                self.call(index);
            }
        }
        self.note_filed();
        self.draining = false;
        for armed in self.model.iter().flatten() {
            assert!(armed.latest > self.now, "late: {} at {}", armed.expires, self.now);
        }
        self.check();
    }

    /// What is due next: one entry, or up to three at once.
    fn pop(&mut self) -> Vec<NonNull<WheelEntry>> {
        let now = self.now;
        if self.operations.is_multiple_of(2) {
            return self.wheel.pop_due(now).into_iter().collect();
        }
        let mut batch = Vec::new();
        loop {
            let mut taken = Taking { now, looks: R::LOOKS, room: 3, batch: &mut batch };
            let popped = self.wheel.pop_batch(now, 3, &mut taken);
            assert_eq!(popped.room, taken.room, "counted wrongly");
            if !batch.is_empty() || popped.all {
                return batch;
            }
        }
    }

    fn given_back(&mut self, entry: NonNull<WheelEntry>) -> usize {
        let index = self.entries.iter().position(|known| core::ptr::eq(known, entry.as_ptr()));
        let index = index.expect("an entry of ours");
        let armed = self.model[index].take().expect("given back, and was not armed");
        assert!(armed.expires <= self.now, "early: {} at {}", armed.expires, self.now);
        assert!(!self.entries[index].is_linked());
        assert_eq!(self.entries[index].expires(), armed.expires);
        index
    }

    /// What a function does that is called for it.
    fn call(&mut self, index: usize) {
        match self.byte() % 8 {
            0 => self.arm(index),
            1 | 2 => self.operation(),
            _ => {}
        }
    }

    /// All to a new wheel.
    fn migrate(&mut self) {
        let mut armed = self.model.iter().flatten().count();
        while let Some(entry) = self.wheel.pop_any() {
            armed -= 1;
            // SAFETY: it is one of ours.
            assert!(unsafe { !entry.as_ref().is_linked() });
        }
        assert_eq!(armed, 0, "some were left behind");
        assert_eq!((self.wheel.check(), self.wheel.next()), (0, u64::MAX));
        if self.byte().is_multiple_of(2) {
            *self.wheel = Raw::new();
        }
        for index in 0..ENTRIES {
            if let Some(armed) = self.model[index] {
                // SAFETY: it is in no wheel.
                unsafe { self.wheel.insert(self.entry(index), self.now) };
                self.model[index] = Some(self.promise(index, armed.expires, None));
            }
        }
    }

    /// No entry is filed twice on a level.
    fn note_filed(&mut self) {
        for (entry, level) in self.wheel.log.split_off(0) {
            let index = self.entries.iter().position(|known| core::ptr::eq(known, entry.as_ptr()));
            let index = index.expect("an entry of ours");
            if let Some(armed) = &mut self.model[index] {
                assert!(level < armed.below, "filed again on level {level}, to be below {}", armed.below);
                if armed.expires.saturating_sub(self.now) <= HORIZON {
                    armed.below = level + usize::from(self.draining);
                }
            }
        }
    }

    fn check(&mut self) {
        assert_eq!(self.wheel.check(), self.model.iter().flatten().count());
        let next = self.wheel.next();
        let latest = self.model.iter().flatten().map(|armed| armed.latest).min();
        match latest {
            None => assert_eq!(next, u64::MAX, "an empty wheel has something to do"),
            Some(latest) => assert!(next <= latest, "next is {next}, too late for {latest}"),
        }
        if self.operations.is_multiple_of(64) {
            self.wheel.check_empty();
        }
    }
}

/// Random bytes: a plain generator with a good mixing step.
fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    (0..length.div_ceil(8))
        .flat_map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ z >> 31).to_le_bytes()
        })
        .collect()
}

/// Whether a wheel by these rules fails a sequence.
fn fails(run: fn(&[u8]) -> u64, bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(bytes))).is_err()
}

/// Wheels that are wrong, by name.
macro_rules! twins {
    ($($(#[$doc:meta])* $Twin:ident: $rule:ident: $Type:ty = $wrong:expr;)*) => {
        $($(#[$doc])* struct $Twin;
        impl Rules for $Twin {
            const $rule: $Type = $wrong;
        })*
        const TWINS: &[(&str, fn(&[u8]) -> u64)] = &[$((stringify!($Twin), run::<$Twin>),)*];
    };
}

twins! {
    /// A level is thought to reach one granule further than it does.
    ReachesTooFar: REACH: u64 = 64;
    /// The next level is taken one granule too early.
    ReachesTooShort: REACH: u64 = 62;
    /// A whole granule late where that is not needed.
    RoundsUpTwice: SHORT_OF_UP: u64 = 0;
    /// Distances are counted from where idle left the clock.
    CountsFromTheClock: FORWARDS: bool = false;
    /// The clock is set past buckets that came while nobody looked.
    SkipsBuckets: CATCHES_UP: bool = false;
    /// What is in a bucket is given back when the bucket comes.
    TrustsBuckets: LOOKS: bool = false;
    /// Re-armed entries stay in buckets that come after their time.
    StaysAnyway: STAYS_IF_EARLIER: bool = false;
    /// A slack is forgotten.
    ForgetsSlack: KEEPS_SLACK: bool = false;
}

/// One sequence a line: the name of what it finds out, and the bytes in hexadecimal digits.
const CORPUS: &str = include_str!("corpus.txt");

fn corpus() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    CORPUS.lines().filter(|line| !line.starts_with('#')).map(move |line| {
        let (name, digits) = line.split_once(' ').expect("a name and digits");
        (name, digits.as_bytes().chunks(2).map(byte).collect())
    })
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn random_sequences() {
    let operations: u64 = (0..300).map(|seed| run::<Sound>(&random(seed, 40_000))).sum();
    assert!(operations > 2_000_000, "only {operations} operations");
}

#[test]
fn the_corpus() {
    for (name, bytes) in corpus() {
        assert!(!fails(run::<Sound>, &bytes), "{name}");
    }
}

#[test]
fn each_broken_wheel_fails_the_sequence_of_its_name() {
    // Found at a rate with nine levels; with eight the bytes are other distances.
    for (name, run) in TWINS.iter().filter(|_| LEVELS == 9) {
        let (_, bytes) = corpus().find(|(of, _)| of == name).expect("a sequence for each");
        assert!(fails(*run, &bytes), "{name} was not found out");
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn each_broken_wheel_fails_random_sequences() {
    for (name, run) in TWINS {
        let found = (0..20).filter(|&seed| fails(*run, &random(seed, 40_000))).count();
        assert!(found >= 18, "{name} was found out by {found} of 20 only");
    }
}

proptest! {
    /// Here for what it does with a sequence that fails: it makes it short.
    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn any_sequence(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        run::<Sound>(&bytes);
    }
}

/// For so many seconds as `QUIESCE_FUZZ_SECONDS` says; else not at all.
#[test]
fn fuzz() {
    test_support::fuzz("operations", |seed| {
        // Long ones, and short ones that begin often.
        let length = if seed.is_multiple_of(2) { 40_000 } else { 400 };
        let bytes = random(seed, length);
        if fails(run::<Sound>, &bytes) {
            let short = shortened(&bytes, |bytes| fails(run::<Sound>, bytes));
            panic!("failed by: {}", digits(&short));
        }
        run::<Sound>(&bytes)
    });
}

/// Writes the corpus anew, for rules that have changed: `QUIESCE_CORPUS=FILE cargo test -p timers new_corpus`.
#[test]
fn new_corpus() {
    let Some(file) = std::env::var_os("QUIESCE_CORPUS") else { return };
    let mut text = String::from("# For each broken wheel a sequence that finds it out. See sequences.rs.\n");
    for (name, run) in TWINS {
        let bytes = (0..).map(|seed| random(seed, 4_000)).find(|bytes| fails(*run, bytes)).unwrap();
        let short = shortened(&bytes, |bytes| fails(*run, bytes));
        text += &format!("{name} {}\n", digits(&short));
    }
    std::fs::write(file, text).expect("a place for the corpus");
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes out, or sets to 0, whatever the failure does not need.
fn shortened(bytes: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut best = bytes.to_vec();
    let mut length = best.len().next_power_of_two() / 2;
    while length > 0 {
        let mut at = 0;
        while at < best.len() {
            let end = (at + length).min(best.len());
            let without: Vec<u8> = best[..at].iter().chain(&best[end..]).copied().collect();
            let mut zeroed = best.clone();
            zeroed[at..end].fill(0);
            if fails(&without) {
                best = without;
            } else if zeroed != best && fails(&zeroed) {
                best = zeroed;
                at = end;
            } else {
                at = end;
            }
        }
        length /= 2;
    }
    best
}

/// Takes what is due: every other entry as if it were like those before.
struct Taking<'a> {
    now: u64,
    looks: bool,
    room: usize,
    batch: &'a mut Vec<NonNull<WheelEntry>>,
}

impl Taker<WheelEntry> for Taking<'_> {
    fn take_alike(&mut self, entry: NonNull<WheelEntry>, number: usize) -> bool {
        // SAFETY: an entry of the test's.
        let due = unsafe { entry.as_ref() }.expires() <= self.now || !self.looks;
        number.is_multiple_of(2) && due && self.take_other(entry, number)
    }

    fn take_other(&mut self, entry: NonNull<WheelEntry>, number: usize) -> bool {
        assert_eq!(number, self.room, "numbered wrongly");
        self.room -= 1;
        // SAFETY: an entry of the test's.
        let this = unsafe { entry.as_ref() };
        assert_eq!((this.is_linked(), this.slot()), (false, number));
        let due = this.expires() <= self.now || !self.looks;
        if due {
            self.batch.push(entry);
        }
        due
    }
}
