//! Which bucket a time belongs to: pure arithmetic.
//!
//! Level *k* has 64 buckets of 8^*k* ticks, its *granule*. The bucket's time is a multiple of the granule, and its number
//! within the level is that multiple, modulo 64. Seen from a tick `base`, 64 multiples in a row have numbers of their
//! own, so a level reaches 63 granules far: the first multiple may be up to a granule away.

use crate::HZ;

/// How many levels the wheel has: as few as reach 12 days. 8 at 100 ticks a second, 9 at 250 and at 1,000.
///
/// ```
/// use timers::wheel::{HORIZON, LEVELS, granule, level_of};
/// assert_eq!(level_of(HORIZON), LEVELS - 1);
/// assert_eq!(HORIZON, 63 * granule(LEVELS - 1));
/// ```
pub const LEVELS: usize = levels(HZ);

/// The longest distance that has a bucket of its own, in ticks: 15 days at 100 ticks a second, 48 at 250, 12 at 1,000.
/// What is further away is filed in the furthest bucket, and looked at again when that comes.
pub const HORIZON: u64 = REACH << (COARSER * (LEVELS as u32 - 1));

/// Buckets in a level: as many as a word has bits.
pub(super) const BUCKETS: usize = 64;

/// Each level's granule is two to the power of this times the one before.
pub(super) const COARSER: u32 = 3;

/// How many granules far a level reaches.
const REACH: u64 = BUCKETS as u64 - 1;

const fn levels(hz: u64) -> usize {
    let mut levels = 1;
    while REACH << (COARSER * (levels - 1)) < 12 * 24 * 60 * 60 * hz {
        levels += 1;
    }
    levels as usize
}

/// The level that a timer belongs to if `distance` ticks remain, up to [`HORIZON`]: the finest that reaches so far.
///
/// ```
/// use timers::wheel::{granule, level_of};
///
/// assert_eq!((level_of(63), level_of(64), level_of(504), level_of(505)), (0, 1, 1, 2));
/// assert_eq!((granule(0), granule(1), granule(2)), (1, 8, 64));
/// ```
pub const fn level_of(distance: u64) -> usize {
    let bit = (distance | 1).ilog2() as usize;
    LEAST_LEVEL[bit] as usize + (distance > Sound::LEAST_REACH[bit]) as usize
}

/// The length of a bucket of that level in ticks. A timer that is filed there is late by less than this.
pub const fn granule(level: usize) -> u64 {
    1 << (COARSER * level as u32)
}

/// By the position of the highest bit of a distance: the level of the shortest such distance. The next one is at most one
/// level further, so that one comparison decides, and nothing that a processor would have to guess.
static LEAST_LEVEL: [u8; 64] = {
    let mut least = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        let mut level = 0;
        while level < LEVELS - 1 && 1 << bit > REACH << (COARSER * level as u32) {
            level += 1;
        }
        least[bit] = level as u8;
        bit += 1;
    }
    least
};

/// By the same: how far that level reaches, in ticks.
const fn reaches(granules: u64) -> [u64; 64] {
    let mut reaches = [0; 64];
    let mut bit = 0;
    while bit < 64 {
        reaches[bit] = granules << (COARSER * LEAST_LEVEL[bit] as u32);
        bit += 1;
    }
    reaches
}

/// What the wheel's promises rest on, one constant each. The tests have wheels in which one of them is wrong, and which
/// must be found out.
pub(super) trait Rules: 'static {
    /// How many granules far a level reaches.
    const REACH: u64 = REACH;
    /// The same in ticks, by the position of a distance's highest bit.
    const LEAST_REACH: &'static [u64; 64] = &reaches(Self::REACH);
    /// What is added before a time is cut to whole granules, in ticks short of a granule: 1 rounds up.
    const SHORT_OF_UP: u64 = 1;
    /// Distances are taken from the present, also if the wheel's clock is behind.
    const FORWARDS: bool = true;
    /// Buckets that came while nobody looked are gone through, and not only the present ones.
    const CATCHES_UP: bool = true;
    /// Each entry's own time is looked at when its bucket comes.
    const LOOKS: bool = true;
    /// A later time leaves the entry where it is only if its bucket comes by then.
    const STAYS_IF_EARLIER: bool = true;
    /// A timer whose slack its bucket would exceed goes into the bucket before.
    const KEEPS_SLACK: bool = true;
}

/// As they should be.
pub(super) struct Sound;

impl Rules for Sound {}

/// Where an entry goes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Below [`LEVELS`].
    pub(super) level: usize,
    /// Below [`BUCKETS`].
    pub(super) slot: usize,
    /// When that bucket comes.
    pub(super) time: u64,
}

/// "No slack given": longer than the coarsest granule, so that no bucket exceeds it.
pub(super) const NO_SLACK: u32 = u32::MAX;
const _: () = assert!(granule(LEVELS - 1) < NO_SLACK as u64);

/// The bucket for a time, seen from `base`, a tick that has not been gone through yet.
///
/// The bucket comes at the time or up to a granule, and up to `slack` ticks, after it. If there is no such bucket, because
/// the time is beyond the horizon or the slack is short, the bucket is one that comes before the time, on a level that is
/// coarser than what then remains.
#[inline(always)]
pub(super) fn place<R: Rules>(expires: u64, base: u64, slack: u32) -> Place {
    match place_at_once::<R>(expires, base, slack) {
        Some(place) => place,
        None => place_in_the_end::<R>(expires, base, slack),
    }
}

/// The same for most times: `None` if it is beyond the horizon or there is a slack.
#[inline(always)]
pub(super) fn place_at_once<R: Rules>(expires: u64, base: u64, slack: u32) -> Option<Place> {
    let expires = expires.max(base);
    let distance = expires - base;
    let bit = (distance | 1).ilog2() as usize;
    let level = usize::from(LEAST_LEVEL[bit]) + usize::from(distance > R::LEAST_REACH[bit]);
    if level >= LEVELS || slack != NO_SLACK {
        return None;
    }
    let shift = COARSER * level as u32;
    // A multiple, rounded up. Wraps at time 0 only, and there back to 0.
    let multiple = (expires.wrapping_sub(R::SHORT_OF_UP) >> shift).wrapping_add(1);
    Some(Place { level, slot: multiple as usize % BUCKETS, time: multiple << shift })
}

/// The same for all others.
#[cold]
fn place_in_the_end<R: Rules>(expires: u64, base: u64, slack: u32) -> Place {
    let Some(own) = place_at_once::<R>(expires, base, NO_SLACK) else {
        // The furthest bucket, for what is further.
        let level = LEVELS - 1;
        let shift = COARSER * level as u32;
        let multiple = (base >> shift) + REACH;
        return Place { level, slot: multiple as usize % BUCKETS, time: multiple << shift };
    };
    let Place { level, slot, time } = own;
    if time.wrapping_sub(expires.max(base)) <= u64::from(slack) || !R::KEEPS_SLACK {
        return own;
    }
    Place { level, slot: slot.wrapping_sub(1) % BUCKETS, time: time - granule(level) }
}

/// One bit for each bucket.
pub(super) type Bits = [u64; LEVELS];

/// The bucket that comes first at `from` or later.
pub(super) fn earliest(bits: &Bits, from: u64) -> Option<Place> {
    let mut found: Option<Place> = None;
    for (level, &bits) in bits.iter().enumerate() {
        if bits == 0 {
            continue;
        }
        let shift = COARSER * level as u32;
        // The first that this level could have.
        let first = from.div_ceil(1 << shift);
        if found.is_some_and(|found| found.time <= first << shift) {
            // Nor have coarser ones any before that.
            break;
        }
        let away = bits.rotate_right((first % BUCKETS as u64) as u32).trailing_zeros();
        let multiple = first + u64::from(away);
        let time = multiple << shift;
        if found.is_none_or(|found| time < found.time) {
            found = Some(Place { level, slot: multiple as usize % BUCKETS, time });
        }
    }
    found
}

/// The buckets whose time is in `from..=to`.
pub(super) fn within(bits: &Bits, from: u64, to: u64) -> Bits {
    let mut within = [0; LEVELS];
    // In granules of the level: the first that has begun by `from` or later, and the last.
    let (mut first, mut last) = (from, to);
    for level in 0..LEVELS {
        // What is no multiple of a granule is none of a coarser one.
        if first > last {
            break;
        }
        let count = last - first + 1;
        let window = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        within[level] = bits[level] & window.rotate_left((first % BUCKETS as u64) as u32);
        first = first.div_ceil(1 << COARSER);
        last >>= COARSER;
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_is_at_least_twelve_days_at_every_rate() {
        for (hz, expected) in [(100, 8), (250, 9), (1000, 9)] {
            let levels = levels(hz);
            assert_eq!(levels, expected);
            assert!(REACH << (COARSER * (levels as u32 - 1)) >= 12 * 86_400 * hz);
            assert!(REACH << (COARSER * (levels as u32 - 2)) < 12 * 86_400 * hz, "one level too many");
        }
    }

    #[test]
    fn a_level_begins_where_the_one_before_cannot_reach() {
        for level in 0..LEVELS {
            let reach = 63 * granule(level);
            assert_eq!(level_of(reach), level);
            if level + 1 < LEVELS {
                assert_eq!(level_of(reach + 1), level + 1);
            }
            // Late by less than a granule is late by less than 8/63 of what remained.
            assert!(level == 0 || (granule(level) - 1) * 63 < 8 * (63 * granule(level - 1) + 1));
        }
    }
}
