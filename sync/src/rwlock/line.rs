//! Who has the right of way: a line of those whom free competition treats badly, as a plain value.
//!
//! The rules are those of the default spin lock word (`spin/raw/adaptive.rs`): who was out of luck for long draws a
//! ticket; while there is a line nobody enters but the one at its front; and one at the front that does not take what
//! is free is not running, and is skipped. What differs is that "free" and "I may enter" are two questions here:
//! readers may enter beside readers, but only a lock that nobody holds shows that the one at the front is not there.

/// How many looks a waiter takes before it joins the line.
///
/// A look takes some tens of nanoseconds, so that a section of ordinary length ends first; and a writer that finds
/// readers coming and going without a gap waits a few microseconds until they have to stop.
pub(super) const PATIENCE: u32 = 64;

/// How many times in a row a waiter finds the lock free, and not its turn, before it skips who is at the front.
pub(super) const ABSENT_AFTER: u32 = 16;

/// The line: the ticket at the front, in the lower half, and the next to be drawn. Tickets wrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line(pub(super) u32);

impl Line {
    pub(super) const EMPTY: Line = Line(0);

    const fn of(front: u16, next: u16) -> Line {
        Line(front as u32 | (next as u32) << 16)
    }

    const fn front(self) -> u16 {
        self.0 as u16
    }

    const fn next(self) -> u16 {
        (self.0 >> 16) as u16
    }

    #[inline(always)]
    pub(super) const fn is_empty(self) -> bool {
        self.front() == self.next()
    }

    const fn len(self) -> u16 {
        self.next().wrapping_sub(self.front())
    }

    const fn contains(self, ticket: u16) -> bool {
        ticket.wrapping_sub(self.front()) < self.len()
    }

    pub(super) const fn is_in_front(self, ticket: u16) -> bool {
        ticket == self.front() && !self.is_empty()
    }

    /// The line without its front.
    pub(super) const fn advanced(self) -> Line {
        Line::of(self.front().wrapping_add(1), self.next())
    }

    /// The line with one more at its end.
    pub(super) const fn joined(self) -> Line {
        Line::of(self.front(), self.next().wrapping_add(1))
    }
}

/// What a waiter does after a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Tries to enter.
    Enter,
    /// Tries to change the line into this one, in which its ticket is that one.
    ChangeLine(Line, Option<u16>),
    /// Pauses.
    Wait,
}

/// One waiter's side of the rules.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) looks: u32,
    patience: u32,
    /// Its place, while it is in line or does not know yet that it was skipped.
    pub(super) ticket: Option<u16>,
    /// Whose turn it was when the lock was last found free, and how many times in a row.
    seen_free: (u16, u32),
}

impl Waiter {
    pub(super) fn new(patience: u32) -> Waiter {
        Waiter { looks: 0, patience, ticket: None, seen_free: (0, 0) }
    }

    /// One look at the lock. It may be entered if nobody else had the right of way, or not; it is held by nobody, or
    /// by somebody.
    pub(super) fn look(&mut self, line: Line, may_enter: bool, is_free: bool) -> Step {
        if self.ticket.is_some_and(|ticket| !line.contains(ticket)) {
            self.ticket = None;
        }
        let is_my_turn = self.ticket.is_some_and(|ticket| line.is_in_front(ticket));
        if may_enter && (is_my_turn || line.is_empty()) {
            return Step::Enter;
        }
        if !is_free {
            self.seen_free.1 = 0;
        } else if !is_my_turn && !line.is_empty() {
            let (front, times) = self.seen_free;
            self.seen_free = if front == line.front() { (front, times + 1) } else { (line.front(), 1) };
            if self.seen_free.1 >= ABSENT_AFTER {
                return Step::ChangeLine(line.advanced(), self.ticket);
            }
        }
        if self.ticket.is_none() && self.looks >= self.patience && line.len() < u16::MAX {
            return Step::ChangeLine(line.joined(), Some(line.next()));
        }
        Step::Wait
    }

    /// The line was changed as the last look said.
    pub(super) fn line_changed(&mut self, ticket: Option<u16>) {
        self.ticket = ticket;
        self.seen_free.1 = 0;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_queue_of_numbers_that_wrap() {
        let mut line = Line::of(u16::MAX, u16::MAX);
        assert!(line.is_empty() && !line.contains(u16::MAX));
        line = line.joined().joined();
        assert!(line.is_in_front(u16::MAX) && line.contains(0) && !line.contains(1));
        assert_eq!(line.len(), 2);
        line = line.advanced();
        assert!(line.is_in_front(0) && !line.contains(u16::MAX));
        assert!(line.advanced().is_empty());
    }

    /// A lock as a plain value, and waiters of which a scheduler lets one at a time take a look.
    #[derive(Default)]
    struct Simulation {
        line: Option<Line>,
        readers: u32,
        has_writer: bool,
    }

    impl Simulation {
        /// One turn of a waiter's loop; whether it has entered.
        fn turn(&mut self, waiter: &mut Waiter, writes: bool) -> bool {
            let line = self.line.unwrap_or(Line::EMPTY);
            let is_free = self.readers == 0 && !self.has_writer;
            let may_enter = if writes { is_free } else { !self.has_writer };
            match waiter.look(line, may_enter, is_free) {
                Step::Enter => {
                    if writes {
                        self.has_writer = true;
                    } else {
                        self.readers += 1;
                    }
                    if waiter.ticket.is_some_and(|ticket| line.is_in_front(ticket)) {
                        self.line = Some(line.advanced());
                    }
                    return true;
                }
                Step::ChangeLine(to, ticket) => {
                    self.line = Some(to);
                    waiter.line_changed(ticket);
                }
                Step::Wait => waiter.looks += 1,
            }
            false
        }

        fn leave(&mut self, writes: bool) {
            if writes {
                assert!(self.has_writer && self.readers == 0);
                self.has_writer = false;
            } else {
                assert!(!self.has_writer && self.readers > 0);
                self.readers -= 1;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        /// Everybody runs, in any order: once a waiter is in line, it is passed by those before it and by nobody else,
        /// whoever reads and whoever writes.
        #[test]
        #[cfg_attr(miri, ignore = "takes minutes")]
        fn those_in_line_enter_in_order(
            kinds in prop::collection::vec(any::<bool>(), 2..6),
            turns in prop::collection::vec(any::<prop::sample::Index>(), 400..2_000),
        ) {
            struct Party { waiter: Waiter, inside: u32, entries: u32, passed: u32 }
            let mut parties: Vec<_> = kinds.iter().map(|_| Party {
                waiter: Waiter::new(3), inside: 0, entries: 0, passed: 0,
            }).collect();
            let mut simulation = Simulation::default();
            let mut order: VecDeque<usize> = VecDeque::new();
            // Nobody is absent: parties take turns in an order that the test shuffles anew for each round.
            for round in turns {
                let first = round.index(kinds.len());
                for i in (0..kinds.len()).map(|i| (i + first) % kinds.len()) {
                    if parties[i].inside > 0 {
                        parties[i].inside -= 1;
                        if parties[i].inside == 0 {
                            simulation.leave(kinds[i]);
                            parties[i].waiter = Waiter::new(3);
                        }
                        continue;
                    }
                    let had_ticket = parties[i].waiter.ticket.is_some();
                    let front = order.front().copied();
                    if simulation.turn(&mut parties[i].waiter, kinds[i]) {
                        prop_assert!(front.is_none_or(|front| front == i), "passed the line");
                        order.retain(|other| *other != i);
                        parties[i].entries += 1;
                        parties[i].inside = 1 + round.index(4) as u32;
                        parties[i].passed = 0;
                        for (j, other) in parties.iter_mut().enumerate() {
                            if j != i && other.inside == 0 {
                                other.passed += 1;
                            }
                        }
                    } else if !had_ticket && parties[i].waiter.ticket.is_some() {
                        order.push_back(i);
                    }
                    // Passed once in each of the few rounds before it is in line, and then by those ahead of it.
                    prop_assert!(parties[i].passed <= 6 * kinds.len() as u32, "starved");
                }
            }
            prop_assert!(parties.iter().all(|party| party.entries > 0));
        }
    }

    #[test]
    fn one_that_is_not_running_is_skipped_once_and_joins_anew() {
        let mut simulation = Simulation::default();
        let (mut absent, mut other) = (Waiter::new(0), Waiter::new(1_000));
        simulation.has_writer = true;
        assert!(!simulation.turn(&mut absent, true)); // joins
        assert!(absent.ticket.is_some());
        simulation.leave(true);
        // It is not running from here on.
        let mut looks = 0;
        while !simulation.turn(&mut other, false) {
            looks += 1;
        }
        assert_eq!(looks, ABSENT_AFTER);
        // The next one pays nothing.
        assert!(simulation.turn(&mut Waiter::new(1_000), false));
        // It runs again, and finds itself skipped: not its turn any more, but the end of the line.
        assert!(!simulation.turn(&mut absent, true));
        assert!(absent.ticket.is_some() && simulation.line.unwrap().len() == 1);
        simulation.leave(false);
        simulation.leave(false);
        assert!(simulation.turn(&mut absent, true));
        assert!(simulation.line.unwrap().is_empty());
    }

    #[test]
    fn a_writer_that_waits_for_readers_is_not_skipped() {
        let mut simulation = Simulation { readers: 1, ..Simulation::default() };
        let mut writer = Waiter::new(0);
        assert!(!simulation.turn(&mut writer, true));
        let mut reader = Waiter::new(0);
        for _ in 0..10 * ABSENT_AFTER {
            assert!(!simulation.turn(&mut reader, false));
        }
        simulation.leave(false);
        assert!(!simulation.turn(&mut reader, false), "the writer's turn");
        assert!(simulation.turn(&mut writer, true));
    }
}
