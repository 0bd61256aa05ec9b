//! The chains that have been examined, so that they are not examined again.
//!
//! A kernel takes the same locks in the same order over and over. What the graph says about a chain does not get better by
//! asking again: edges and uses are added only, and each that is added is examined at that moment against all of the
//! graph. So a chain is examined once; then its key is here, and finding it costs a load, without any lock.
//!
//! Keys are 64-bit hashes. Two chains of one key would make the second escape examination: with 16,384 chains the
//! chance that any two meet is 1 in 10^11.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many chains are remembered. Further ones are examined each time.
pub const CHAINS: usize = 16_384;

/// How many slots are looked at for one key.
const PROBES: usize = 8;

pub(super) struct Verdicts {
    keys: [AtomicU64; CHAINS],
    count: AtomicU32,
    /// Keys for which there was no room.
    turned_away: AtomicU32,
}

impl Verdicts {
    pub(super) const fn new() -> Verdicts {
        Verdicts {
            keys: [const { AtomicU64::new(0) }; CHAINS],
            count: AtomicU32::new(0),
            turned_away: AtomicU32::new(0),
        }
    }

    fn slots(&self, key: u64) -> impl Iterator<Item = &AtomicU64> {
        (0..PROBES).map(move |probe| &self.keys[(key as usize).wrapping_add(probe) % CHAINS])
    }

    /// Whether the chain has been examined. Relaxed: the key is all that is passed on.
    pub(super) fn knows(&self, key: u64) -> bool {
        for slot in self.slots(key) {
            match slot.load(Ordering::Relaxed) {
                known if known == key => return true,
                0 => return false,
                _ => (),
            }
        }
        false
    }

    pub(super) fn insert(&self, key: u64) {
        for slot in self.slots(key) {
            match slot.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.count.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Err(known) if known == key => return,
                Err(_) => (),
            }
        }
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed) as usize
    }

    pub(super) fn turned_away(&self) -> usize {
        self.turned_away.load(Ordering::Relaxed) as usize
    }
}
