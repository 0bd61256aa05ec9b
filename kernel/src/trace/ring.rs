//! A ring of trace records that overwrites its oldest, written from every context and read while it is written.
//!
//! 1. A writer takes the next **position** with one addition. Positions only grow; position `p` lives in slot
//!    `p % slots`.
//! 2. It **claims** the slot: the slot's first word, its *stamp*, goes from the stamp of an older record to "claimed" in
//!    one exchange. Then it stores the record, and stores the position's stamp.
//! 3. A slot that is claimed already belongs to a writer that was interrupted there, a whole lap ago, by everything since.
//!    The record is dropped and **counted**: it could not be stored without waiting for code that it interrupts.
//! 4. A reader looks at a position's stamp, reads the record, and looks again. Unless both are that position's stamp there
//!    is nothing to read: overwritten, or not written yet.
//!
//! Nobody waits. A record that is read is one that was written, whole. A CPU that has been interrupted between 1 and 2 may
//! find that its position is a lap behind; it sees a newer stamp and drops its record rather than the newer one.
//!
//! Each CPU has a ring of its own because sharing a cache line on every event is slow. Several CPUs may write one ring: a
//! task can be moved between choosing the ring and writing.
//!
//! Words are atomics and there is no `unsafe` here. Linux: the ring buffer of `ftrace`, which has pages and commits in
//! order; here records have one size, and each commits by itself.

use super::event::{Event, Record};
use super::primitives::{AtomicU64, Ordering, fence};

/// One record.
///
/// # Invariants
/// `stamp` is `EMPTY`, `CLAIMED`, or `stamp_of` the position whose record `words` holds. `words` are written by the one
/// writer that changed `stamp` to `CLAIMED`, before it changes it again.
#[derive(Debug)]
pub struct Slot {
    stamp: AtomicU64,
    words: [AtomicU64; 3],
}

const EMPTY: u64 = 0;
const CLAIMED: u64 = 1;

/// Stamps grow with positions, and are above `CLAIMED`.
const fn stamp_of(position: u64) -> u64 {
    position + 2
}

impl Slot {
    /// A slot without a record.
    #[cfg(not(loom))]
    pub const fn new() -> Slot {
        Slot { stamp: AtomicU64::new(EMPTY), words: [const { AtomicU64::new(0) }; 3] }
    }

    /// The same, in a model, whose atomics cannot be made in constants.
    #[cfg(loom)]
    pub fn new() -> Slot {
        Slot {
            stamp: AtomicU64::new(EMPTY),
            words: [AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0)],
        }
    }
}

impl Default for Slot {
    fn default() -> Slot {
        Slot::new()
    }
}

/// What the writer does beside storing; a broken twin leaves some of it out.
trait Rules {
    /// Slots are claimed, not taken.
    const CLAIMS: bool = true;
    /// The reader looks at the stamp again.
    const LOOKS_AGAIN: bool = true;
}

enum Sound {}

impl Rules for Sound {}

/// One CPU's records.
#[derive(Debug)]
pub struct Ring {
    slots: &'static [Slot],
    next: AtomicU64,
    dropped: AtomicU64,
}

impl Ring {
    /// A ring over empty slots that are used for nothing else.
    ///
    /// # Panics
    /// If the number of slots is not a power of two.
    pub fn new(slots: &'static [Slot]) -> Ring {
        assert!(slots.len().is_power_of_two());
        Ring { slots, next: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Appends a record, or counts it as dropped.
    ///
    /// Contexts: any, and any number of writers at once. Never waits. Cost: two atomic read-modify-writes and four stores.
    pub fn push(&self, record: Record) {
        self.push_by::<Sound>(record);
    }

    fn push_by<R: Rules>(&self, Record { time_ns, cpu, event }: Record) {
        // Relaxed: a position publishes nothing.
        let position = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = self.slot(position);
        let before = slot.stamp.load(Ordering::Relaxed);
        let older = before != CLAIMED && before < stamp_of(position);
        // Acquire: pairs with the Release below in the slot's last writer, whose stores must not come after ours.
        let claim =
            || slot.stamp.compare_exchange(before, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if R::CLAIMS && !(older && claim()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Release: pairs with the reader's Acquire fence, by way of the words: who sees one of them sees the claim.
        fence(Ordering::Release);
        let (kind, small, large) = event.encode();
        let packed = u64::from(kind) << 56 | u64::from(cpu & 0xff_ffff) << 32 | u64::from(small);
        for (word, value) in slot.words.iter().zip([time_ns, packed, large]) {
            word.store(value, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `read`; who sees the stamp sees the words.
        slot.stamp.store(stamp_of(position), Ordering::Release);
    }

    /// The record at `position`, if it is there: not overwritten, and complete.
    ///
    /// Contexts: any.
    pub fn read(&self, position: u64) -> Option<Record> {
        self.read_by::<Sound>(position)
    }

    fn read_by<R: Rules>(&self, position: u64) -> Option<Record> {
        let slot = self.slot(position);
        // Acquire: pairs with the Release that ends `push`.
        if slot.stamp.load(Ordering::Acquire) != stamp_of(position) {
            return None;
        }
        let [time_ns, packed, large] = [0, 1, 2].map(|i| slot.words[i].load(Ordering::Relaxed));
        // Acquire: pairs with the Release fence in `push`: if a word above is a later record's, so is the stamp below.
        fence(Ordering::Acquire);
        if R::LOOKS_AGAIN && slot.stamp.load(Ordering::Relaxed) != stamp_of(position) {
            return None;
        }
        let cpu = (packed >> 32) as u32 & 0xff_ffff;
        Some(Record { time_ns, cpu, event: Event::decode((packed >> 56) as u8, packed as u32, large)? })
    }

    /// The positions that may still be in the ring, oldest first. More may come at any time.
    pub fn positions(&self) -> core::ops::Range<u64> {
        let end = self.next.load(Ordering::Relaxed);
        end.saturating_sub(self.slots.len() as u64)..end
    }

    /// How many records have been dropped, as opposed to overwritten.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn slot(&self, position: u64) -> &Slot {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }
}

#[cfg(test)]
mod tests;
