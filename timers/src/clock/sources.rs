//! All counters of a machine, and which of them the time is taken from.

use super::watchdog::{Finding, Reading, Reference, Watchdog};

/// A counter that can be the clock, or a reference for it, or both.
///
/// ```
/// use timers::clock::{Reference, Sources};
///
/// let mut sources = Sources::<&str, 4>::new();
/// sources.add("tsc", 300, None);
/// sources.add("pm timer", 200, Some(Reference::new(3_579_545, 24)));
/// for source in sources.iter() {
///     let reference = if source.watchdog().is_some() { ", a reference" } else { "" };
///     let state = if source.wrong_by().is_some() { "wrong" } else { "right" };
///     println!("{} ({}): {state}{reference}", source.id(), source.rating());
/// }
/// assert_eq!(sources.iter().map(|source| source.rating()).max(), Some(300));
/// ```
#[derive(Clone, Debug)]
pub struct Source<Id> {
    id: Id,
    rating: u32,
    watchdog: Option<Watchdog>,
    wrong: Option<i64>,
}

impl<Id: Copy> Source<Id> {
    /// Which.
    pub const fn id(&self) -> Id {
        self.id
    }

    /// How good it is as a clock: of those that are right the one with the highest rating is used.
    pub const fn rating(&self) -> u32 {
        self.rating
    }

    /// What compares the clock with it, if it can serve as a reference.
    pub const fn watchdog(&self) -> Option<&Watchdog> {
        self.watchdog.as_ref()
    }

    /// By how many ppm it was off when it was found wrong; `None` if it was not.
    pub const fn wrong_by(&self) -> Option<i64> {
        self.wrong
    }
}

/// What to do after a look.
///
/// ```
/// use timers::clock::{Reading, Reference, Sources, Verdict};
///
/// let mut sources = Sources::<char, 3>::new();
/// sources.add('t', 300, None);
/// for reference in ['a', 'b'] {
///     sources.add(reference, 100, Some(Reference::new(1_000_000, 64)));
/// }
/// // `a` counts as fast as the clock, `b` half as fast as it says that it does.
/// let mut read = |second: u64| {
///     let clock = second * 1_000_000_000;
///     sources.look(|id| {
///         let count = if id == 'a' { 1_000_000 * second } else { 500_000 * second };
///         Some(Reading { before: clock, count, after: clock })
///     })
/// };
/// assert_eq!(read(1), Verdict::Keep);
/// assert_eq!(read(2), Verdict::Keep);
/// assert!(matches!(read(3), Verdict::Dropped { reference: 'b', .. }), "one of two is no majority");
/// assert_eq!(read(4), Verdict::Keep);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict<Id> {
    /// Nothing.
    Keep,
    /// Nothing: a reference is wrong, and is not asked any more.
    Dropped {
        /// Which one.
        reference: Id,
        /// By how many ppm the clock differs from it.
        ppm: i64,
    },
    /// The clock is wrong.
    FallBack {
        /// What it counted.
        from: Id,
        /// What it has to count from now on; `None` if nothing else is left.
        to: Option<Id>,
        /// By how many ppm it was off.
        ppm: i64,
    },
}

/// At most `N` sources, and the one that is in use.
///
/// ```
/// use timers::clock::{Reading, Reference, Sources, Verdict};
///
/// #[derive(Clone, Copy, PartialEq, Debug)]
/// enum Counter { Tsc, PmTimer }
///
/// let mut sources = Sources::<Counter, 2>::new();
/// sources.add(Counter::Tsc, 300, None);
/// sources.add(Counter::PmTimer, 200, Some(Reference::new(1_000_000, 32)));
/// assert_eq!(sources.current(), Some(Counter::Tsc));
///
/// // The clock says two seconds for each one of the reference.
/// let at = |s: u64| Reading { before: 2_000_000_000 * s, count: 1_000_000 * s, after: 2_000_000_000 * s };
/// assert_eq!(sources.look(|_| Some(at(1))), Verdict::Keep);
/// assert_eq!(sources.look(|_| Some(at(2))), Verdict::Keep);
/// let verdict = sources.look(|_| Some(at(3)));
/// assert!(matches!(verdict, Verdict::FallBack { from: Counter::Tsc, to: Some(Counter::PmTimer), .. }));
/// ```
#[derive(Clone, Debug)]
pub struct Sources<Id, const N: usize> {
    all: [Option<Source<Id>>; N],
    current: Option<Id>,
}

impl<Id: Copy + PartialEq, const N: usize> Sources<Id, N> {
    /// No sources.
    pub const fn new() -> Sources<Id, N> {
        Sources { all: [const { None }; N], current: None }
    }

    /// Adds a source; `reference` says that the clock can be compared with it. The one with the highest rating is the clock
    /// until [`use_as_clock`](Sources::use_as_clock) or a look says something else.
    ///
    /// # Panics
    /// If there is no room.
    #[track_caller]
    pub fn add(&mut self, id: Id, rating: u32, reference: Option<Reference>) {
        let Some(free) = self.all.iter_mut().find(|place| place.is_none()) else {
            panic!("a machine with more than {N} clock sources");
        };
        *free = Some(Source { id, rating, watchdog: reference.map(Watchdog::new), wrong: None });
        self.current = self.best(None);
    }

    /// The sources, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Source<Id>> {
        self.all.iter().flatten()
    }

    /// What the clock counts.
    pub const fn current(&self) -> Option<Id> {
        self.current
    }

    /// The best one that is right, other than `except`.
    fn best(&self, except: Option<Id>) -> Option<Id> {
        let able = self.iter().filter(|source| source.wrong.is_none() && Some(source.id) != except);
        able.max_by_key(|source| source.rating).map(|source| source.id)
    }

    /// Notes that the clock counts that one, and begins anew to compare.
    ///
    /// ```
    /// let mut sources = timers::clock::Sources::<&str, 2>::new();
    /// sources.add("tsc", 300, None);
    /// sources.add("hpet", 250, None);
    /// assert_eq!(sources.current(), Some("tsc"));
    /// // Somebody asked for it on the command line.
    /// sources.use_as_clock("hpet");
    /// assert_eq!(sources.current(), Some("hpet"));
    /// ```
    pub fn use_as_clock(&mut self, id: Id) {
        self.current = Some(id);
        for watchdog in self.all.iter_mut().flatten().filter_map(|source| source.watchdog.as_mut()) {
            watchdog.restart();
        }
    }

    /// Compares the clock with all references. `read` reads one of them, if it can be read now.
    ///
    /// The clock is wrong if more references contradict it than agree with it; who agrees with it in spite of the others
    /// shows that those are wrong. The value then expects the clock to be switched: it compares the new one from here on.
    pub fn look(&mut self, mut read: impl FnMut(Id) -> Option<Reading>) -> Verdict<Id> {
        let mut against = 0u32;
        let mut agree = 0u32;
        // Which one is sure that the clock is wrong, and by how much.
        let mut sure = None;
        let current = self.current;
        for (index, source) in self.all.iter_mut().enumerate() {
            let Some(source) = source.as_mut().filter(|source| Some(source.id) != current) else { continue };
            let (Some(watchdog), None) = (&mut source.watchdog, source.wrong) else { continue };
            let Some(reading) = read(source.id) else { continue };
            match watchdog.look(reading) {
                Finding::Begun | Finding::Skipped(_) => {}
                Finding::Agrees(_) => agree += 1,
                Finding::Doubted(_) => against += 1,
                Finding::Wrong(ppm) => {
                    against += 1;
                    sure = Some((index, ppm));
                }
            }
        }
        let (Some((index, ppm)), Some(from)) = (sure, current) else { return Verdict::Keep };
        if against > agree {
            let to = self.best(Some(from));
            if let Some(source) = self.all.iter_mut().flatten().find(|source| source.id == from) {
                source.wrong = Some(ppm);
            }
            self.use_as_clock(to.unwrap_or(from));
            return Verdict::FallBack { from, to, ppm };
        }
        let Some(source) = &mut self.all[index] else { return Verdict::Keep };
        source.wrong = Some(ppm.saturating_neg());
        Verdict::Dropped { reference: source.id, ppm }
    }
}

impl<Id: Copy + PartialEq, const N: usize> Default for Sources<Id, N> {
    fn default() -> Self {
        Sources::new()
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
