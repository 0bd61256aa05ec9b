//! The fair class: earliest eligible virtual deadline first.
//!
//! 1. Each task's virtual time advances while it runs, inversely to its weight. The *average* is the mean of all tasks'
//!    virtual times, by weight: where everybody would be if the CPU could be divided at will. A task's *lag*, the average
//!    less its own virtual time, is what it is owed. All lags times weights add up to nothing.
//! 2. A task whose lag is not negative is *eligible*. It requests one slice at a time, and its *deadline* is the virtual
//!    moment at which it should have had that slice.
//! 3. The eligible task with the earliest deadline runs, until it had its slice. A newcomer with an earlier deadline
//!    preempts it, nobody else does. A task that requests less at once has earlier deadlines: it gets no more than its
//!    share, but sooner.
//! 4. Who leaves takes the lag along, and is put at that distance from the average when it comes back, here or on another
//!    CPU. Sleeping earns nothing: a credit is kept and does not grow.
//! 5. Who goes to sleep in debt is worked off: for the average it stays, until the average has reached it. So a debt
//!    costs those who stay nothing at once, and they all pay the same, however long they stay. Of those who are absent
//!    only the sum is known, which needs no links to somebody who sleeps, wakes elsewhere, or has ended.
//!
//! The average is never stored. What is, is the sum of weights times distances from a nearby moment `zero`, so that
//! "is this one eligible" is a multiplication, and only coming and leaving divide.

use super::entity::{ByDeadline, Entity, Handle};
use super::virtual_time::VirtualTime;
use super::{Departure, Why};
use crate::sched::tree::Tree;

/// No task is owed, or owes, more than this many of its requests once it has left.
const MOST_LAG: i64 = 2;

/// The fair tasks of one CPU. The current one is not in the tree; where it matters the caller names it.
#[derive(Debug)]
pub(super) struct Fair {
    waiting: Tree<ByDeadline, VirtualTime, VirtualTime>,
    zero: VirtualTime,
    /// Weights times distances from `zero`, of those who wait. With `zero` near, and what is counted at once bounded, each
    /// is below 2^48, so that there is room for those of 2^15 tasks.
    sum: i64,
    /// Weights of those who wait.
    weight: i64,
    absent: Absent,
    /// The current one had its slice.
    pub(super) done: bool,
    /// The current one let the others go first.
    pub(super) yielded: bool,
    /// Since the current one was picked somebody came who might go before it.
    pub(super) challenged: bool,
}

/// Those who left in debt, as one.
#[derive(Debug)]
struct Absent {
    sum: i64,
    weight: i64,
    /// Counts how often they were let go.
    round: u64,
}

#[inline(always)]
pub(super) fn weight_of(entity: Handle) -> i64 {
    i64::from(entity.weight.get().value)
}

/// Where the average is, as a fraction: `sum / weight` after `zero`.
#[derive(Clone, Copy)]
struct Average {
    zero: VirtualTime,
    sum: i64,
    weight: i64,
}

impl Average {
    /// Whether somebody at this moment is at the average or before it.
    #[inline(always)]
    fn reaches(self, had: VirtualTime) -> bool {
        i128::from(had.since(self.zero)) * i128::from(self.weight) <= i128::from(self.sum)
    }
}

impl Fair {
    pub(super) const fn new() -> Fair {
        Fair {
            waiting: Tree::new(),
            zero: VirtualTime::START,
            sum: 0,
            weight: 0,
            absent: Absent { sum: 0, weight: 0, round: 1 },
            done: false,
            yielded: false,
            challenged: false,
        }
    }

    /// How many wait.
    #[inline(always)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The weights of those who wait.
    #[inline(always)]
    pub(super) fn weight(&self) -> u64 {
        self.weight.cast_unsigned()
    }

    #[inline(always)]
    fn average(&self, current: Option<Handle>) -> Average {
        let mut average = Average {
            zero: self.zero,
            sum: self.sum + self.absent.sum,
            weight: self.weight + self.absent.weight,
        };
        if let Some(current) = current {
            let weight = weight_of(current);
            average.sum += current.had.get().since(self.zero) * weight;
            average.weight += weight;
        }
        average
    }

    /// The average, rounded down, which becomes `zero`.
    #[inline]
    pub(super) fn settle(&mut self, current: Option<Handle>) -> VirtualTime {
        let distance = match current {
            // The mean of one.
            Some(current) if self.weight + self.absent.weight == 0 => current.had.get().since(self.zero),
            _ => {
                let Average { sum, weight, .. } = self.average(current);
                if weight == 0 { 0 } else { sum.div_euclid(weight) }
            }
        };
        self.zero = self.zero.plus(distance);
        self.sum -= distance * self.weight;
        self.absent.sum -= distance * self.absent.weight;
        self.zero
    }

    /// Lets those go who are absent, if the average has reached them: without them it is the same.
    #[inline(always)]
    pub(super) fn let_go(&mut self, current: Option<Handle>) {
        if self.absent.weight != 0 {
            self.let_go_if_reached(current);
        }
    }

    fn let_go_if_reached(&mut self, current: Option<Handle>) {
        let Average { sum, weight, .. } = self.average(current);
        let present = weight - self.absent.weight;
        // Their mean is not after the mean of all; with nobody present there is nobody to whom they owe.
        if present == 0
            || i128::from(self.absent.sum) * i128::from(weight)
                <= i128::from(sum) * i128::from(self.absent.weight)
        {
            self.forget_absent();
        }
    }

    #[inline(always)]
    fn forget_absent(&mut self) {
        self.absent = Absent { sum: 0, weight: 0, round: self.absent.round + 1 };
    }

    /// Puts somebody among those who wait, at the place in time that it has.
    #[inline(always)]
    pub(super) fn put(&mut self, entity: Handle) {
        let had = entity.had.get();
        let weight = weight_of(entity);
        self.sum += had.since(self.zero) * weight;
        self.weight += weight;
        // SAFETY: E1 and E2 hold for a handle, and an entity that is put was in no tree.
        unsafe { self.waiting.insert(entity.pointer(), entity.deadline.get(), had) };
    }

    /// Takes somebody from those who wait.
    #[inline(always)]
    pub(super) fn take(&mut self, entity: Handle) {
        let weight = weight_of(entity);
        self.sum -= entity.had.get().since(self.zero) * weight;
        self.weight -= weight;
        // SAFETY: it is one of those who wait, so it is in the tree.
        unsafe { self.waiting.remove(entity.pointer()) };
    }

    /// Somebody comes: gives it a place in time and puts it there.
    pub(super) fn enter(&mut self, entity: Handle, current: Option<Handle>, why: Why) {
        let distance = if self.weight == 0 && current.is_none() {
            // Nobody is there who could be owed.
            self.forget_absent();
            0
        } else {
            self.let_go(current);
            self.distance(entity, current, why)
        };
        entity.had.set(self.zero.plus(-distance));
        let ahead = match why {
            // A start among equals: not behind all of those who are in the middle of their slices.
            Why::New => entity.request() / 2,
            Why::Woken => entity.request(),
            Why::Moved => entity.ahead.get(),
        };
        let deadline = entity.had.get().plus(ahead);
        entity.deadline.set(deadline);
        self.challenged |= current.is_some_and(|current| deadline < current.deadline.get());
        self.put(entity);
    }

    /// How far from the average, which becomes `zero`, somebody who comes has its place.
    fn distance(&mut self, entity: Handle, current: Option<Handle>, why: Why) -> i64 {
        let average = self.settle(current);
        let weight = weight_of(entity);
        let mut lag = entity.lag.get();
        match why {
            Why::New => return 0,
            Why::Woken if lag < 0 && entity.left.get().0 == self.home() => {
                // Others had their share meanwhile, which is what it owed them. If the average went back, because
                // somebody came with a claim, that is not its debt.
                let had = entity.had.get();
                lag = average.since(had).clamp(lag, 0);
                if entity.left.get().1 == self.absent.round {
                    // The average is with it already.
                    self.absent.sum -= had.since(self.zero) * weight;
                    self.absent.weight -= weight;
                    return lag;
                }
            }
            Why::Woken | Why::Moved => {}
        }
        // Its coming moves the average towards it; so much further away makes the lag what it was.
        let others = self.weight + self.absent.weight + current.map_or(0, weight_of);
        if lag == 0 { 0 } else { lag + lag * weight / others }
    }

    /// Somebody leaves, who is the current one or waits, and takes its lag along.
    pub(super) fn leave(&mut self, entity: Handle, current: Option<Handle>, why: Departure) {
        entity.ahead.set(entity.deadline.get().since(entity.had.get()));
        if self.weight + self.absent.weight == 0 && current == Some(entity) {
            // Who is alone is always where the average is.
            self.zero = entity.had.get();
            return entity.lag.set(0);
        }
        let average = self.settle(current);
        if entity.node.is_linked() {
            self.take(entity);
        }
        let most = MOST_LAG * entity.request();
        let lag = average.since(entity.had.get()).clamp(-most, most);
        entity.lag.set(lag);
        entity.had.set(average.plus(-lag));
        let mut round = 0;
        if lag < 0 && why != Departure::Moved {
            // For the average it stays. `average` is `zero`.
            let weight = weight_of(entity);
            self.absent.sum += -lag * weight;
            self.absent.weight += weight;
            round = self.absent.round;
        }
        entity.left.set((self.home(), round));
    }

    /// A name for this queue, to be compared only.
    fn home(&self) -> usize {
        (&raw const *self).addr()
    }

    /// The current one ran for `ns`.
    #[inline(always)]
    pub(super) fn charge(&mut self, current: Handle, ns: u64) {
        let had = current.had.get().plus(current.weight.get().virtual_units(ns));
        current.had.set(had);
        if had >= current.deadline.get() {
            current.deadline.set(had.plus(current.request()));
            self.done = true;
        }
    }

    /// The current one gives up the rest of its slice, as if it had had it.
    pub(super) fn give_up(&mut self, current: Handle) {
        current.had.set(current.deadline.get().max(current.had.get()));
        current.deadline.set(current.had.get().plus(current.request()));
        self.done = true;
        self.yielded = true;
    }

    /// Who should run instead of the current one, if anybody; without a current one, the next.
    #[inline(always)]
    pub(super) fn better_than(&self, current: Option<Handle>) -> Option<Handle> {
        if self.waiting.is_empty() || (current.is_some() && !self.done && !self.challenged) {
            return None;
        }
        if current.is_none() && self.waiting.len() == 1 {
            return self.iter().next();
        }
        let average = self.average(current);
        let found = self.waiting.first_where(|had| average.reaches(had));
        // SAFETY: what is in the tree is this queue's.
        let found = found.map(|entity| unsafe { Handle::new(entity) });
        let Some(current) = current else {
            debug_assert!(
                found.is_some(),
                "of those present one is not after a mean that the absent draw forward"
            );
            return found;
        };
        let stays = !self.yielded && (!self.done || average.reaches(current.had.get()));
        found.filter(|found| !stays || found.deadline.get() < current.deadline.get())
    }

    /// Whether somebody who waits should run at once, instead of the current one.
    #[inline(always)]
    pub(super) fn preempts(&self, entity: Handle, current: Handle) -> bool {
        entity.deadline.get() < current.deadline.get()
            && self.average(Some(current)).reaches(entity.had.get())
    }

    /// Somebody who is current, waits, or is away, gets another weight. What it is owed stays what it was.
    pub(super) fn reweigh(&mut self, entity: Handle, current: Option<Handle>, change: impl FnOnce(&Entity)) {
        let queued = entity.node.is_linked();
        let here = queued || current == Some(entity);
        let average = if here { self.settle(current) } else { self.zero };
        if queued {
            self.take(entity);
        }
        let (old, request) = (weight_of(entity), entity.request());
        change(&entity);
        let new = weight_of(entity);
        let scale = |units: i64| (i128::from(units) * i128::from(old) / i128::from(new)) as i64;
        if here {
            let had = average.plus(-scale(average.since(entity.had.get())));
            let ahead = entity.deadline.get().since(entity.had.get()).clamp(0, request);
            entity.had.set(had);
            entity.deadline.set(had.plus(scale(ahead)));
        } else {
            entity.lag.set(scale(entity.lag.get()));
            entity.ahead.set(scale(entity.ahead.get()));
        }
        if queued {
            self.put(entity);
        }
        self.challenged = true;
    }

    /// Those who wait, by deadline.
    pub(super) fn iter(&self) -> impl Iterator<Item = Handle> {
        let next = |entity| {
            // SAFETY: the iterator borrows the tree, so what it came from is still in it.
            unsafe { self.waiting.next(entity) }
        };
        // SAFETY: what is in the tree is this queue's.
        core::iter::successors(self.waiting.first(), move |entity| next(*entity))
            .map(|entity| unsafe { Handle::new(entity) })
    }

    /// How long until the current one has had its slice, if anybody waits for that.
    pub(super) fn slice_left_ns(&self, current: Handle) -> Option<u64> {
        if self.waiting.is_empty() {
            return None;
        }
        Some(current.weight.get().ns_until(current.deadline.get().since(current.had.get())))
    }
}
