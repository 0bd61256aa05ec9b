//! One clock against one reference.

/// A counter of known frequency that wraps around.
///
/// ```
/// let pm_timer = timers::clock::Reference::new(3_579_545, 24);
/// assert_eq!(pm_timer.turn_ns(), 4_686_968_874);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    hz: u64,
    mask: u64,
}

const NS: u128 = 1_000_000_000;

impl Reference {
    /// A counter that runs at `hz` and has `bits` bits.
    ///
    /// # Panics
    /// If it stands still, or has no bits, or more than 64.
    pub const fn new(hz: u64, bits: u32) -> Reference {
        assert!(hz > 0 && bits > 0 && bits <= 64, "a reference that does not count");
        Reference { hz, mask: u64::MAX >> (64 - bits) }
    }

    fn ns(self, counts: u128) -> i128 {
        // Counts are below 2^65, so this is below 2^95.
        (counts * NS / u128::from(self.hz)) as i128
    }

    /// How long it takes to wrap around, in ns.
    pub const fn turn_ns(self) -> u64 {
        let turn = (self.mask as u128 + 1) * NS / self.hz as u128;
        if turn > u64::MAX as u128 { u64::MAX } else { turn as u64 }
    }
}

/// A reference's count, and the clock before and after it was read, in ns.
///
/// ```
/// use timers::clock::Reading;
///
/// // Between the two looks at the clock the host had other things to do.
/// let reading = Reading { before: 1_000, count: 42, after: 9_000 };
/// assert_eq!(reading.width(), 8_000);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The clock just before.
    pub before: u64,
    /// The reference's count.
    pub count: u64,
    /// The clock just after.
    pub after: u64,
}

impl Reading {
    /// How long the reading took on the clock.
    pub const fn width(&self) -> u64 {
        self.after.saturating_sub(self.before)
    }
}

/// A clock that runs wrong by less than this is not doubted: stated frequencies are rounded, measured ones not exact.
pub const TOLERANCE_PPM: u64 = 5_000;
/// A comparison says something if it is at least this exact. So whatever is off by twice the tolerance is doubted.
const EXACT_PPM: i128 = 2_500;
/// This many doubts in the last eight comparisons make a verdict.
const DOUBTS: u32 = 2;

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finding {
    /// The first look, with which the next one is compared.
    Begun,
    /// The look says nothing.
    Skipped(Skipped),
    /// The clock is right, and at most by this many ppm off, fast if positive. It includes what the readings do not know.
    Agrees(i64),
    /// It is off by this many ppm, which one more comparison has to confirm. How much it is off is a guess if it is so
    /// much that the number of the reference's turns is uncertain.
    Doubted(i64),
    /// It is wrong.
    Wrong(i64),
}

/// Why a look says nothing.
///
/// ```
/// use timers::clock::{Finding, Reading, Reference, Skipped, Watchdog};
///
/// let mut watchdog = Watchdog::new(Reference::new(1_000_000, 24));
/// let at = |us: u64, width: u64| Reading { before: us * 1_000, count: us & 0xff_ffff, after: us * 1_000 + width };
/// assert_eq!(watchdog.look(at(0, 0)), Finding::Begun);
/// // A millisecond apart, and half of one to read: nothing can be said about parts in a thousand.
/// assert_eq!(watchdog.look(at(1_000, 500_000)), Finding::Skipped(Skipped::Vague));
/// // 24 bits of microseconds turn in 16.8 s.
/// assert_eq!(watchdog.look(at(60_000_000, 0)), Finding::Skipped(Skipped::Late));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Skipped {
    /// It took so long, or came so soon after the last one, that a clock that is right and one that is wrong would look
    /// alike.
    Vague,
    /// It came so late that the reference may have wrapped around more than it shows.
    Late,
}

/// Statistics of a [`Watchdog`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Looks {
    /// Looks at all.
    pub looks: u64,
    /// Those that said nothing.
    pub skipped: u64,
    /// Those that doubted the clock.
    pub doubted: u64,
    /// What the last comparison that said something found, in ppm.
    pub last_ppm: i64,
}

/// Compares a clock with a reference.
///
/// A clock that is off by 1 % or more is found by the third look that is not skipped, if looks come before the reference
/// has turned: one that is slow by whole turns cannot be told from a right one. A look is skipped if it follows the one
/// before by less than 400 times what the two took together, or if the clock says that the reference has turned since.
/// One that is off by less than 0.5 % is never found wrong, however long the host keeps the machine from running, and where.
///
/// A machine that was suspended in a way that one counter counts and the other does not is doubted once.
///
/// ```
/// use timers::clock::{Finding, Reading, Reference, Watchdog};
///
/// let mut watchdog = Watchdog::new(Reference::new(1_000_000, 32));
/// let look = |ms: u64, clock_ms: u64| Reading { before: clock_ms * 1_000_000, count: ms * 1_000, after: clock_ms * 1_000_000 };
/// assert_eq!(watchdog.look(look(0, 0)), Finding::Begun);
/// assert!(matches!(watchdog.look(look(1_000, 1_000)), Finding::Agrees(_)));
/// // From here on the clock is 2 % fast.
/// assert!(matches!(watchdog.look(look(2_000, 2_020)), Finding::Doubted(_)));
/// assert!(matches!(watchdog.look(look(3_000, 3_040)), Finding::Wrong(19_000..=21_000)));
/// ```
#[derive(Clone, Debug)]
pub struct Watchdog {
    reference: Reference,
    last: Option<Reading>,
    /// The last eight comparisons, a bit each, set for a doubt.
    history: u8,
    looks: Looks,
}

impl Watchdog {
    /// One that has not looked.
    pub const fn new(reference: Reference) -> Watchdog {
        let looks = Looks { looks: 0, skipped: 0, doubted: 0, last_ppm: 0 };
        Watchdog { reference, last: None, history: 0, looks }
    }

    /// What it compares with.
    pub const fn reference(&self) -> Reference {
        self.reference
    }

    /// What it has found so far.
    pub const fn looks(&self) -> Looks {
        self.looks
    }

    /// Forgets the last reading and all doubts: for a clock that counts something else from now on.
    ///
    /// ```
    /// use timers::clock::{Finding, Reading, Reference, Watchdog};
    ///
    /// let mut watchdog = Watchdog::new(Reference::new(1_000_000, 32));
    /// let exact = |us: u64| Reading { before: us * 1_000, count: us, after: us * 1_000 };
    /// assert_eq!(watchdog.look(exact(0)), Finding::Begun);
    /// assert!(matches!(watchdog.look(exact(1_000_000)), Finding::Agrees(_)));
    /// watchdog.restart();
    /// assert_eq!(watchdog.look(exact(2_000_000)), Finding::Begun);
    /// assert_eq!((watchdog.looks().looks, watchdog.looks().skipped), (3, 0));
    /// ```
    pub const fn restart(&mut self) {
        self.last = None;
        self.history = 0;
    }

    /// Takes a reading, and compares with the last one. O(1).
    ///
    /// The clock must not go back. The readings may be taken on any CPU.
    pub fn look(&mut self, reading: Reading) -> Finding {
        self.looks.looks += 1;
        let Some(last) = self.last else {
            self.last = Some(reading);
            return Finding::Begun;
        };
        let finding = self.compare(last, reading);
        match finding {
            Finding::Skipped(why) => {
                self.looks.skipped += 1;
                // Of two that are too close the sharper one waits for the next. Who looks often does not put it off for
                // ever by that: the widths cannot halve without end.
                if why == Skipped::Late || reading.width() < last.width() / 2 {
                    self.last = Some(reading);
                }
            }
            Finding::Begun | Finding::Agrees(_) | Finding::Doubted(_) | Finding::Wrong(_) => {
                self.last = Some(reading);
            }
        }
        finding
    }

    fn compare(&mut self, last: Reading, reading: Reading) -> Finding {
        // What passed on the clock between the two moments at which the reference was read, at least and at most.
        let least = i128::from(reading.before) - i128::from(last.after);
        let most = i128::from(reading.after) - i128::from(last.before);
        let counts = u128::from(reading.count.wrapping_sub(last.count) & self.reference.mask);
        // What passed on the reference, at least and at most: one count is not known.
        let shown = (self.reference.ns(counts.saturating_sub(1)), self.reference.ns(counts + 1));
        let turn = self.reference.ns(u128::from(self.reference.mask) + 1);

        let after = |turns: i128| (shown.0 + turns * turn, shown.1 + turns * turn);
        // Whether a clock that is right may show what it shows if the reference has turned so many times.
        let fits = |turns: i128| {
            let (low, high) = after(turns);
            let part = |ns: i128| ns * i128::from(TOLERANCE_PPM) / 1_000_000;
            least <= high + part(high) && low - part(low) <= most
        };

        // The number of turns that comes nearest. A reading that took long may have room for others too.
        let middle = (least + most) / 2;
        let turns = ((middle - shown.0 + turn / 2) / turn).max(0);
        if (turns - 1..=turns + 1).any(|turns| turns > 0 && fits(turns)) {
            return Finding::Skipped(Skipped::Late);
        }
        let possible = fits(0);
        let nearest = after(if possible { 0 } else { turns });
        let unknown = (most - least) + (nearest.1 - nearest.0);
        let exact = unknown * 1_000_000 <= EXACT_PPM * nearest.0;
        if possible && !exact {
            return Finding::Skipped(Skipped::Vague);
        }
        let off = middle - (nearest.0 + nearest.1) / 2;
        let ppm = off.saturating_mul(1_000_000) / nearest.1.max(1);
        let ppm = ppm.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        self.looks.last_ppm = ppm;
        self.history = self.history << 1 | u8::from(!possible);
        if possible {
            return Finding::Agrees(ppm);
        }
        self.looks.doubted += 1;
        if self.history.count_ones() >= DOUBTS { Finding::Wrong(ppm) } else { Finding::Doubted(ppm) }
    }
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
