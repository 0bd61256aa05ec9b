//! What must hold, in numbers.

/// Counts readers by whether they began before the running period of one kind.
#[derive(Default, Debug)]
pub(super) struct Periods {
    pub(super) begun: u64,
    pub(super) ended: u64,
    /// Active readers that began before the running one did.
    old: u64,
    active: u64,
}

impl Periods {
    pub(super) fn begin(&mut self) {
        assert_eq!(self.begun, self.ended, "two periods at once");
        self.begun += 1;
        self.old = self.active;
    }

    pub(super) fn end(&mut self) {
        assert_eq!(self.begun, self.ended + 1, "a period ended that had not begun");
        assert_eq!(self.old, 0, "a grace period ended before a reader that began before it");
        self.ended += 1;
    }

    fn reader_begins(&mut self) -> u64 {
        self.active += 1;
        self.begun
    }

    /// Another reader that protects what one with this tag does.
    fn reader_continues(&mut self, tag: u64) {
        self.active += 1;
        if tag < self.begun && self.begun > self.ended {
            self.old += 1;
        }
    }

    fn reader_ends(&mut self, tag: u64) {
        self.active -= 1;
        if tag < self.begun && self.begun > self.ended {
            self.old -= 1;
        }
    }
}

/// The whole of it.
#[derive(Default, Debug)]
pub(super) struct Oracle {
    pub(super) normal: Periods,
    pub(super) expedited: Periods,
    /// Callbacks, in the order in which they were queued.
    pub(super) queued: u64,
    pub(super) called: u64,
    /// Of those queued before the running barrier, how many have not been called; and the first that came after it.
    before_barrier: u64,
    barrier_at: u64,
    pub(super) barriers: u64,
}

/// An active reader, for the oracle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    normal: u64,
    expedited: u64,
}

impl Oracle {
    pub(super) fn reader_begins(&mut self) -> Section {
        Section { normal: self.normal.reader_begins(), expedited: self.expedited.reader_begins() }
    }

    /// A section of another kind begins inside of `section`, and may end after it: what was read in the one is used in
    /// the other.
    pub(super) fn reader_continues(&mut self, section: Section) -> Section {
        self.normal.reader_continues(section.normal);
        self.expedited.reader_continues(section.expedited);
        section
    }

    pub(super) fn reader_ends(&mut self, section: Section) {
        self.normal.reader_ends(section.normal);
        self.expedited.reader_ends(section.expedited);
    }

    /// The number of a new callback and of the period that must have ended before it is called.
    pub(super) fn queue(&mut self) -> (u64, u64) {
        self.queued += 1;
        (self.queued - 1, self.normal.begun + 1)
    }

    pub(super) fn call(&mut self, (number, period): (u64, u64)) {
        assert!(self.normal.ended >= period, "a callback was called before a full grace period");
        self.called += 1;
        if number < self.barrier_at {
            self.before_barrier -= 1;
        }
    }

    pub(super) fn barrier_begins(&mut self) {
        self.barrier_at = self.queued;
        self.before_barrier = self.queued - self.called;
    }

    pub(super) fn barrier_ends(&mut self) {
        assert_eq!(
            self.before_barrier, 0,
            "a barrier was passed before a callback that was queued before it"
        );
        self.barriers += 1;
        self.barrier_at = 0;
    }
}
