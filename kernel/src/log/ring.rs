//! The ring of log records that each CPU writes: usable in every context, NMI included, and under any lock.
//!
//! 1. A writer **reserves** words with one compare-and-exchange on `head`, stores the record into them, and **commits** by
//!    storing the first word, the header, last. A writer that is interrupted in between is no obstacle to the one that
//!    interrupts it: that one reserves behind.
//! 2. The reader takes records from `tail` on, in the order of reservation. A header of zero is a record that is reserved
//!    and not committed: the reader stops there, so one interrupted writer **holds back the records behind it** until it
//!    goes on. Nothing overtakes, nothing is lost.
//! 3. Before it moves `tail` the reader zeroes the words that it gives back. So a reserved header reads zero until its
//!    commit, whatever bytes the text before it left there.
//! 4. A record that does not fit is dropped and **counted**; the next record that does fit carries the count. What is in
//!    the ring is never overwritten, so a reader never sees a record change under it.
//!
//! Each CPU has a ring of its own because sharing a cache line between all CPUs on every message is slow, not because
//! sharing would be wrong: writers of several CPUs may use one ring, and early in boot they do.
//!
//! Words are atomics and there is no `unsafe` here: a reader that lost a race would print nonsense and could do no harm.
//! Two readers at once are excluded by the caller (see the drain); the panic path may break that rule, and
//! the header carries its position to notice.
//!
//! Linux has one ring for all CPUs (`printk_ringbuffer`) and overwrites the oldest records.

use super::primitives::{AtomicU64, Ordering};

/// The most bytes of text that a record holds. What is longer is cut, and marked as cut.
pub const MAX_TEXT: usize = 400;
/// The most bytes of a target that a record holds; longer ones lose their end.
pub const MAX_TARGET: usize = 40;

/// The words before the bytes: header, time, losses and CPU.
const FIXED_WORDS: usize = 3;
/// The longest record, in words.
pub const MAX_RECORD_WORDS: usize = FIXED_WORDS + (MAX_TEXT + MAX_TARGET).div_ceil(8);

/// One CPU's ring.
///
/// # Invariants
/// * `words.len()` is a power of two; position `p` lives in word `p % words.len()`.
/// * `tail <= head <= tail + words.len()`; both only grow. Words outside `tail..head` are zero.
/// * The word at a record's first position is zero, or its committed header.
#[derive(Debug)]
pub struct Ring {
    words: &'static [AtomicU64],
    head: AtomicU64,
    tail: AtomicU64,
    dropped: AtomicU64,
}

/// What a writer has to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The CPU that says it.
    pub cpu: u32,
    /// Its level: 1 (error) to 5 (trace).
    pub level: u8,
    /// The part of the system that says it.
    pub target: &'a str,
    /// What it says.
    pub text: &'a str,
    /// Whether the text was longer.
    pub cut: bool,
}

impl Ring {
    /// A ring over `words`, which are zero and used for nothing else. It should have room for many records of
    /// [`MAX_RECORD_WORDS`]; one that is longer than the ring is always dropped.
    ///
    /// # Panics
    /// If the number of words is not a power of two.
    #[cfg(not(loom))]
    pub const fn new(words: &'static [AtomicU64]) -> Ring {
        assert!(words.len().is_power_of_two());
        Ring { words, head: AtomicU64::new(0), tail: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// A ring over `words`, which are zero. The model's atomics cannot be made in constants.
    #[cfg(loom)]
    pub fn new(words: &'static [AtomicU64]) -> Ring {
        assert!(words.len().is_power_of_two());
        Ring { words, head: AtomicU64::new(0), tail: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Appends a record, or counts it as lost if there is no room. `now` is read between finding the place and taking it,
    /// so times never go back along a ring (if the clock does not).
    ///
    /// Contexts: any, and any number of writers at once. Never waits; retries only when another writer got in between.
    pub fn push(&self, entry: &Entry<'_>, now: impl Fn() -> u64) {
        let target = clip(entry.target, MAX_TARGET);
        let text = clip(entry.text, MAX_TEXT);
        let cut = entry.cut || text.len() < entry.text.len();
        let length = FIXED_WORDS + (target.len() + text.len()).div_ceil(8);
        let Some((start, time)) = self.reserve(length as u64, now) else {
            return;
        };
        let lost = match self.dropped.load(Ordering::Relaxed) {
            0 => 0,
            // Two writers may both have seen a count; the exchange gives it to one of them.
            _ => self.dropped.swap(0, Ordering::Relaxed),
        };
        let header =
            Header { position: start, target: target.len(), text: text.len(), level: entry.level, cut };
        self.word(start + 1).store(time, Ordering::Relaxed);
        self.word(start + 2)
            .store(lost.min(u64::from(u32::MAX)) << 32 | u64::from(entry.cpu), Ordering::Relaxed);
        let mut bytes = target.bytes().chain(text.bytes());
        for position in start + FIXED_WORDS as u64..start + length as u64 {
            let word = u64::from_le_bytes(core::array::from_fn(|_| bytes.next().unwrap_or(0)));
            self.word(position).store(word, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `peek`; who sees the header sees the rest.
        self.word(start).store(header.encode(), Ordering::Release);
    }

    fn reserve(&self, length: u64, now: impl Fn() -> u64) -> Option<(u64, u64)> {
        loop {
            let head = self.head.load(Ordering::Relaxed);
            // Acquire: pairs with the Release in `advance`; the words given back are zero for us, and stay behind our
            // stores.
            let tail = self.tail.load(Ordering::Acquire);
            // Others may have moved both since `head` was read; the exchange below would fail.
            let Some(used) = head.checked_sub(tail) else { continue };
            if used + length > self.words.len() as u64 {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            let time = now();
            // Relaxed: a reservation publishes nothing; the commit does.
            if self.head.compare_exchange(head, head + length, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Some((head, time));
            }
        }
    }

    /// The oldest record, unless there is none or it is not committed yet. It stays in the ring until
    /// [`Ring::advance`].
    pub fn peek(&self, record: &mut Record) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        // Acquire: pairs with the Release that commits in `push`.
        let Some(header) = Header::decode(self.word(tail).load(Ordering::Acquire), tail) else {
            return false;
        };
        record.position = tail;
        record.words = FIXED_WORDS as u64 + (header.target + header.text).div_ceil(8) as u64;
        record.time_ns = self.word(tail + 1).load(Ordering::Relaxed);
        let origin = self.word(tail + 2).load(Ordering::Relaxed);
        record.lost = (origin >> 32) as u32;
        record.cpu = origin as u32;
        record.level = header.level;
        record.cut = header.cut;
        record.target_len = header.target;
        record.text_len = header.text;
        for (chunk, position) in
            record.bytes.chunks_mut(8).zip(tail + FIXED_WORDS as u64..tail + record.words)
        {
            chunk.copy_from_slice(&self.word(position).load(Ordering::Relaxed).to_le_bytes()[..chunk.len()]);
        }
        true
    }

    /// Gives the words of a record that [`Ring::peek`] returned back to the writers. Nothing, if that has been done.
    pub fn advance(&self, record: &Record) {
        if self.tail.load(Ordering::Relaxed) != record.position {
            return;
        }
        for position in record.position..record.position + record.words {
            self.word(position).store(0, Ordering::Relaxed);
        }
        // Release: pairs with the Acquire in `reserve`; who may use the words finds them zero.
        self.tail.store(record.position + record.words, Ordering::Release);
    }

    /// The time of the record that [`Ring::peek`] would find.
    pub fn front_time(&self) -> Option<u64> {
        let tail = self.tail.load(Ordering::Relaxed);
        // Acquire: pairs with the Release that commits in `push`.
        Header::decode(self.word(tail).load(Ordering::Acquire), tail)?;
        Some(self.word(tail + 1).load(Ordering::Relaxed))
    }

    /// Takes the count of records that were dropped and that no later record has reported: for when the ring is empty.
    pub fn take_dropped(&self) -> u64 {
        match self.dropped.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.dropped.swap(0, Ordering::Relaxed),
        }
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        &self.words[position as usize & (self.words.len() - 1)]
    }
}

/// A record's first word.
///
/// ```text
///  63       62    61-60  59-56   55-48    47-32       31-0
/// committed cut     0    level   target   text bytes  low bits of the position
/// ```
struct Header {
    position: u64,
    target: usize,
    text: usize,
    level: u8,
    cut: bool,
}

impl Header {
    const COMMITTED: u64 = 1 << 63;
    const CUT: u64 = 1 << 62;

    fn encode(&self) -> u64 {
        let cut = if self.cut { Header::CUT } else { 0 };
        let sizes = (self.target as u64) << 48 | (self.text as u64) << 32;
        Header::COMMITTED | cut | u64::from(self.level & 15) << 56 | sizes | self.position & 0xffff_ffff
    }

    /// The header that belongs at `position`; `None` if it is not committed, or is no header of that position.
    fn decode(word: u64, position: u64) -> Option<Header> {
        let header = Header {
            position,
            target: (word >> 48 & 0xff) as usize,
            text: (word >> 32 & 0xffff) as usize,
            level: (word >> 56 & 15) as u8,
            cut: word & Header::CUT != 0,
        };
        // The sizes can be wrong only for a reader that runs against another one, and must not lead it out of bounds.
        let sane = header.target <= MAX_TARGET && header.text <= MAX_TEXT;
        (word & Header::COMMITTED != 0 && word as u32 == position as u32 && sane).then_some(header)
    }
}

/// A record as it was read: [`Ring::peek`] fills it.
#[derive(Clone, Debug)]
pub struct Record {
    position: u64,
    words: u64,
    /// When it was written, in nanoseconds of the kernel's clock.
    pub time_ns: u64,
    /// How many records of this ring were dropped before it and after the one before.
    pub lost: u32,
    /// The CPU that wrote it.
    pub cpu: u32,
    /// Its level: 1 (error) to 5 (trace).
    pub level: u8,
    /// Whether the text was longer than [`MAX_TEXT`].
    pub cut: bool,
    target_len: usize,
    text_len: usize,
    bytes: [u8; MAX_TARGET + MAX_TEXT],
}

impl Record {
    /// Room for a record.
    pub const fn empty() -> Record {
        Record {
            position: 0,
            words: 0,
            time_ns: 0,
            lost: 0,
            cpu: 0,
            level: 0,
            cut: false,
            target_len: 0,
            text_len: 0,
            bytes: [0; MAX_TARGET + MAX_TEXT],
        }
    }

    /// The part of the system that wrote it.
    pub fn target(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.target_len]).unwrap_or("?")
    }

    /// What it says.
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[self.target_len..self.target_len + self.text_len]).unwrap_or("?")
    }
}

/// The longest beginning of `text` that has at most `limit` bytes and ends between characters.
pub fn clip(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests;
