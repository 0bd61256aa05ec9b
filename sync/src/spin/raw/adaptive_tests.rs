//! The default lock word: its waiters as plain values under a scheduler that takes CPUs away, and on host threads.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::spin::raw::RawSpin;

/// What a simulated CPU is about to do.
enum Doing<R> {
    /// Wants the lock next time it runs.
    Idle,
    /// The first look, at a line that it found empty, or not.
    First { empty: bool },
    /// About to look.
    Waiting(Waiter<R>),
    /// Has looked, and is about to act on what it saw.
    Acting(Waiter<R>, Line, Step),
    /// Has the lock for so many more steps.
    Holding(u32),
}

struct Cpu<R> {
    doing: Doing<R>,
    /// Acquisitions by each CPU since this one drew its ticket.
    passed_by: Vec<u32>,
    rounds_waited: u32,
}

/// A lock and its CPUs as plain values. Looking and acting are steps of their own, so that everything can come between.
struct Sim<R> {
    locked: bool,
    line: Line,
    cpus: Vec<Cpu<R>>,
    acquisitions: u32,
    skipped: u32,
}

impl<R: Rules> Sim<R> {
    fn new(cpus: usize) -> Sim<R> {
        let cpu = |_| Cpu { doing: Doing::Idle, passed_by: vec![0; cpus], rounds_waited: 0 };
        Sim {
            locked: false,
            line: Line::EMPTY,
            cpus: (0..cpus).map(cpu).collect(),
            acquisitions: 0,
            skipped: 0,
        }
    }

    fn grab(&mut self, me: usize, hold: u32) -> bool {
        if self.locked {
            return false;
        }
        self.locked = true;
        self.acquisitions += 1;
        for (other, cpu) in self.cpus.iter_mut().enumerate() {
            // Who was skipped is not in line, whether it knows that or not.
            let (Doing::Waiting(waiter) | Doing::Acting(waiter, ..)) = &cpu.doing else { continue };
            if other != me && waiter.ticket.is_some_and(|ticket| self.line.contains(ticket)) {
                cpu.passed_by[me] += 1;
                assert!(cpu.passed_by[me] <= 1, "CPU {other} in line was passed twice by CPU {me}");
            }
        }
        self.cpus[me].doing = Doing::Holding(hold);
        self.cpus[me].rounds_waited = 0;
        true
    }

    /// One step of CPU `me`, which holds the lock for `hold` steps if it gets it now.
    fn step(&mut self, me: usize, hold: u32) {
        let doing = std::mem::replace(&mut self.cpus[me].doing, Doing::Idle);
        let next = match doing {
            Doing::Idle => Doing::First { empty: self.line.is_empty() || !R::HONOUR_LINE },
            Doing::First { empty } => {
                if empty && self.grab(me, hold) {
                    return;
                }
                Doing::Waiting(Waiter::new(R::PATIENCE))
            }
            Doing::Waiting(mut waiter) => {
                let step = waiter.look(self.line, self.locked);
                Doing::Acting(waiter, self.line, step)
            }
            Doing::Acting(mut waiter, seen, step) => {
                match step {
                    Step::Grab => {
                        if self.grab(me, hold) {
                            if let Some(ticket) = waiter.ticket
                                && self.line.is_in_front(ticket)
                            {
                                self.line = self.line.advanced();
                            }
                            return;
                        }
                        waiter.pause();
                    }
                    Step::ChangeLine(to, ticket) => {
                        if self.line == seen {
                            self.line = to;
                            if waiter.ticket == ticket {
                                self.skipped += 1;
                            } else {
                                self.cpus[me].passed_by.fill(0);
                            }
                            waiter.line_changed(ticket);
                        }
                    }
                    Step::Wait => {
                        waiter.pause();
                    }
                }
                Doing::Waiting(waiter)
            }
            Doing::Holding(0) => {
                self.locked = false;
                Doing::Idle
            }
            Doing::Holding(left) => Doing::Holding(left - 1),
        };
        self.cpus[me].doing = next;
    }

    fn is_waiting(&self, cpu: usize) -> bool {
        matches!(self.cpus[cpu].doing, Doing::Waiting(_) | Doing::Acting(..))
    }
}

/// A host: in each round every CPU that it runs makes one step. After one in `takes_away` steps, if that is not 0, it
/// takes the CPU away for some rounds, unless it holds the lock.
fn simulate<R: Rules>(cpus: usize, rounds: u32, seed: u64, takes_away: u64) -> Sim<R> {
    let mut sim = Sim::<R>::new(cpus);
    let mut random = hal::chaos::Rng::new(seed);
    let mut away = vec![0_u32; cpus];
    let mut rounds_without = 0;
    for _ in 0..rounds {
        let before = sim.acquisitions;
        let first = random.next_u64() as usize;
        for i in 0..cpus {
            let me = (first + i) % cpus;
            if away[me] > 0 {
                away[me] -= 1;
                continue;
            }
            sim.step(me, (random.next_u64() % 3) as u32);
            if sim.is_waiting(me) {
                sim.cpus[me].rounds_waited += 1;
                assert!(sim.cpus[me].rounds_waited <= LONGEST_WAIT, "CPU {me} runs and is not served");
            }
            let holds = matches!(sim.cpus[me].doing, Doing::Holding(_));
            let others_run = away.iter().filter(|rounds| **rounds > 0).count() + 2 < cpus;
            if takes_away > 0 && !holds && others_run && random.next_u64().is_multiple_of(takes_away) {
                // Not for so long that 256 tickets are drawn meanwhile, after which they begin anew.
                away[me] = (random.next_u64() % 600) as u32;
                // A wait that the host imposed is not the lock's.
                sim.cpus[me].rounds_waited = 0;
            }
        }
        rounds_without = if sim.acquisitions == before { rounds_without + 1 } else { 0 };
        assert!(rounds_without <= LONGEST_STILLSTAND, "the lock stands still");
    }
    assert!(sim.acquisitions > rounds / 100, "{} acquisitions", sim.acquisitions);
    sim
}

/// Rounds in which a CPU that runs must be served: two steps for each look of its patience, then everybody ahead of it,
/// each of whom may have to be skipped first.
const LONGEST_WAIT: u32 = 2 * PATIENCE + 8 * (2 * (ABSENT_AFTER + 4) + 8);

/// Rounds in which somebody must get the lock: all who are in line are skipped.
const LONGEST_STILLSTAND: u32 = 8 * 2 * (ABSENT_AFTER + 4);

/// Everybody joins the line at once.
enum Impatient {}
impl Rules for Impatient {
    const PATIENCE: u32 = 0;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(test_support::cases(64)))]

    /// While all CPUs run: who is in line is passed by each other one at most once, and nobody is skipped.
    #[test]
    fn who_runs_is_served_in_bounded_order(cpus in 2..8_usize, seed: u64) {
        let sim = simulate::<Sound>(cpus, 4_000, seed, 0);
        prop_assert_eq!(sim.skipped, 0);
        let sim = simulate::<Impatient>(cpus, 4_000, seed, 0);
        prop_assert_eq!(sim.skipped, 0);
    }

    /// While the host takes CPUs away: those that run are served all the same, in the same bounds, and the lock never
    /// stands still for longer than it takes to skip everybody.
    #[test]
    #[cfg_attr(miri, ignore = "takes minutes")]
    fn who_does_not_run_is_not_waited_for(cpus in 4..8_usize, seed: u64) {
        simulate::<Sound>(cpus, 8_000, seed, 50);
        simulate::<Impatient>(cpus, 8_000, seed, 50);
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes minutes")]
fn the_simulated_host_makes_waiters_skip() {
    let skipped: u32 = (0..20).map(|seed| simulate::<Impatient>(6, 8_000, seed, 50).skipped).sum();
    assert!(skipped > 100, "{skipped}");
}

/// Broken: latecomers do not look at the line.
enum Rude {}
impl Rules for Rude {
    const HONOUR_LINE: bool = false;
    const PATIENCE: u32 = 0;
}

#[test]
#[should_panic(expected = "was passed twice")]
fn passing_the_line_is_noticed() {
    for seed in 0..20 {
        simulate::<Rude>(6, 8_000, seed, 0);
    }
}

/// Broken: who is at the front is waited for, whether it runs or not.
enum Strict {}
impl Rules for Strict {
    const PATIENCE: u32 = 0;
    const ABSENT_AFTER: u32 = u32::MAX;
}

#[test]
#[should_panic(expected = "the lock stands still")]
fn waiting_for_who_does_not_run_is_noticed() {
    for seed in 0..20 {
        simulate::<Strict>(6, 8_000, seed, 50);
    }
}

/// Broken: who was skipped goes on waiting for its turn.
enum Oblivious {}
impl Rules for Oblivious {
    const PATIENCE: u32 = 0;
    const NOTICE_SKIP: bool = false;
}

#[test]
#[should_panic(expected = "runs and is not served")]
fn who_was_skipped_and_does_not_notice_is_noticed() {
    for seed in 0..20 {
        simulate::<Oblivious>(7, 8_000, seed, 1_000);
    }
}

#[test]
fn tickets_wrap_and_a_full_line_takes_nobody() {
    let mut line = Line::of(250, 0);
    for len in 0..255 {
        assert_eq!((line.len(), line.is_empty()), (len, len == 0));
        assert!(!line.contains(line.next()));
        line = line.joined();
    }
    assert!(line.contains(250) && line.contains(248) && !line.contains(249));
    let mut late = Waiter::<Impatient>::new(0);
    assert_eq!(late.look(line, true), Step::Wait);
    while !line.is_empty() {
        line = line.advanced();
    }
    assert_eq!(line.front(), 249);
    assert_eq!(late.look(line, true), Step::ChangeLine(Line::of(249, 1), Some(249)));
}

#[test]
fn pauses_double_up_to_the_longest_and_end_in_line() {
    let mut waiter = Waiter::<Sound>::new(PATIENCE);
    let pauses: Vec<u32> = (0..8).map(|_| waiter.pause()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
    waiter.line_changed(Some(3));
    assert_eq!(waiter.pause(), 1);
}

#[test]
fn a_try_respects_the_line_also_while_the_flag_is_clear() {
    let lock = AdaptiveLock::UNLOCKED;
    assert!(lock.change_line(Line::EMPTY, Line::EMPTY.joined()));
    assert!(!lock.is_locked() && !lock.try_lock());
    // Who waits skips the one that does not come, also if it may give up.
    let turns = Cell::new(0);
    assert!(lock.lock_while::<crate::test_platform::Journaling>(|turn| {
        turns.set(turn + 1);
        turn < 10_000
    }));
    assert!(turns.get() >= ABSENT_AFTER && lock.line().is_empty());
}

#[test]
fn giving_up_leaves_everything_as_it_was() {
    let lock = Word::<Impatient>::UNLOCKED;
    assert!(lock.try_lock());
    assert!(!lock.lock_while::<crate::test_platform::Journaling>(|turn| turn < 1_000));
    assert!(lock.is_locked() && lock.line() == Line::EMPTY);
    // SAFETY: taken above.
    unsafe { lock.unlock() };
    assert!(lock.try_lock());
}
