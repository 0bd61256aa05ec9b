//! What is said about a data race.
//!
//! One report for each pair of places: what races once does so again.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::stack::Stack;
use super::thread::{MARKED, VOLATILE, WRITE};
use crate::machine::Lines;

/// One of two that met.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Party {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) kind: u64,
    pub(super) stack: Stack,
}

impl Party {
    pub(super) const NONE: Party = Party { address: 0, size: 0, kind: 0, stack: Stack::NONE };

    /// Plain ones come first, then writes, then lower addresses, so that who sampled whom makes no difference.
    fn rank(&self) -> (bool, bool, u32) {
        (self.kind & MARKED != 0, self.kind & WRITE == 0, self.stack.innermost())
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marked = match self.kind {
            kind if kind & VOLATILE != 0 => "volatile ",
            kind if kind & MARKED != 0 => "atomic ",
            _ => "",
        };
        let what = if self.kind & WRITE != 0 { "write" } else { "read" };
        write!(f, "{marked}{what} of {} bytes", self.size)
    }
}

/// What is reported in one boot.
const MOST_REPORTS: u32 = 32;
static FOUND: AtomicU32 = AtomicU32::new(0);
/// The pairs of places that were reported.
static PAIRS: [AtomicU64; MOST_REPORTS as usize] = [const { AtomicU64::new(0) }; MOST_REPORTS as usize];
/// How often a value must change at a place by itself before that is reported. Somebody who looked just before there was a
/// watchpoint, and accessed just after, is met by another sample soon, and then has a name.
const SIGHTINGS: u64 = 4;
/// Places where a value changed by itself, in the upper half of a word, and how often, in the lower.
static CHANGED: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];
/// Somebody reports.
static REPORTING: AtomicBool = AtomicBool::new(false);

/// How many races were reported.
pub(crate) fn found() -> u32 {
    FOUND.load(Ordering::Relaxed)
}

/// Reports that `me` met `other`, or somebody unknown, unless this pair of places is known or there were too many. The
/// first bytes that `me` is about to access were `before` and are `after`.
///
/// Any context: the log takes lines in all of them.
pub(super) fn tell(me: Party, other: Option<Party>, before: u64, after: u64) {
    let (first, second) = match other {
        Some(other) if other.rank() < me.rank() => (other, Some(me)),
        other => (me, other),
    };
    let beside = second.map_or(0, |party| party.stack.innermost());
    let pair = u64::from(first.stack.innermost()) << 32 | u64::from(beside);
    if REPORTING.swap(true, Ordering::Relaxed) {
        // In an interrupt it may be the interrupted one who reports. Then this one is left for the next time.
        return;
    }
    if second.is_none() && !is_seen_again(first.stack.innermost()) {
        REPORTING.store(false, Ordering::Relaxed);
        return;
    }
    let count = FOUND.load(Ordering::Relaxed);
    let known = PAIRS.iter().take(count as usize).any(|known| known.load(Ordering::Relaxed) == pair);
    if !known && count < MOST_REPORTS {
        PAIRS[count as usize].store(pair, Ordering::Relaxed);
        let mut lines = Lines::new();
        // Never fails.
        let _ = writeln!(lines, "{}", Race { first, second, before, after });
        FOUND.store(count + 1, Ordering::Relaxed);
    }
    REPORTING.store(false, Ordering::Relaxed);
}

/// Counts a value that changed by itself at `place`. Returns whether that has been often enough. As the one who reports.
fn is_seen_again(place: u32) -> bool {
    let word = &CHANGED[place as usize / 4 % CHANGED.len()];
    let seen = word.load(Ordering::Relaxed);
    // Another place of the same word begins again.
    let times = if seen >> 32 == u64::from(place) { seen as u32 as u64 + 1 } else { 1 };
    word.store(u64::from(place) << 32 | times, Ordering::Relaxed);
    times >= SIGHTINGS
}

struct Race {
    first: Party,
    second: Option<Party>,
    before: u64,
    after: u64,
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Race { first, second, before, after } = self;
        write!(f, "BUG: data race in {} / ", first.stack.place())?;
        match second {
            Some(second) => write!(f, "{}: {first}, {second}", second.stack.place())?,
            None => write!(f, "a place unknown: {first}")?,
        }
        write!(f, "\n  {first} at {:#018x}{}", first.address, first.stack)?;
        if let Some(second) = second {
            write!(f, "\n  {second} at {:#018x}{}", second.address, second.stack)?;
        }
        match (before == after, first.kind & VOLATILE != 0) {
            (true, _) => Ok(()),
            _ => write!(f, "\n  the value was {before:#x} and is {after:#x}"),
        }
    }
}
