//! What the checker has found out: figures of waits and holds, names, how full its tables are.

use core::panic::Location;
use core::sync::atomic::Ordering;

use super::super::class::Label;
use super::super::graph::ClassId;
use super::super::held::{Entry, Held, Since};
use super::super::map::WaitType;
use super::super::search::Step;
use super::super::summary::Summary;
use super::super::times::{Lasted, LockTimes, Long, Times};
use super::super::usage::Usage;
use super::{Checker, Env, OnDrop};

impl Checker {
    /// A lock that was measured has been released.
    #[inline]
    pub(super) fn note_hold(&self, entry: &Entry, at: &'static Location<'static>, env: &Env<'_>) {
        let Some(class) = entry.class.filter(|_| entry.since != Since::NEVER) else { return };
        let Some(ns) = entry.since.elapsed((env.now)()) else { return };
        let row = self.times.of(class);
        if row.add_hold(ns) {
            // With the graph's lock, so that the place is that of the longest.
            self.with_graph(env.relax, |_| row.longest_hold.offer(ns, entry.at));
        }
        if entry.label.identity.wait == WaitType::Spin {
            self.times.tell(&Long { what: Lasted::Lock(entry.label), ns, at: entry.at, until: at });
        }
    }

    /// The wait for a lock that was taken is over, after it had begun at `since_ns`.
    pub(in super::super) fn waited(&self, held: &mut Held, address: usize, since_ns: u64, env: &Env<'_>) {
        let now = (env.now)();
        // What was acquired without waiting for it is not known yet.
        let Some(entry) = held.find_mut(address) else { return };
        if entry.since != Since::NEVER {
            // What was the time of asking is now that of getting.
            entry.since = Since::at(now);
        }
        let (Some(class), at, ns) = (entry.class, entry.at, now.saturating_sub(since_ns)) else { return };
        let row = self.times.of(class);
        if row.add_wait(ns) {
            self.with_graph(env.relax, |_| row.longest_wait.offer(ns, at));
        }
    }

    /// How long each class is waited for and held.
    pub(in super::super) fn times(&self) -> &Times {
        &self.times
    }

    /// The figures of the class of the given number, from 1 on.
    pub(in super::super) fn times_at(&self, number: u16, relax: fn()) -> Option<LockTimes> {
        self.with_graph(relax, |graph| {
            let is_known = number != 0 && usize::from(number) <= graph.class_count();
            is_known.then(|| self.times.of(ClassId(number)).read())
        })
    }

    /// Forgets all figures.
    pub(in super::super) fn reset_times(&self, relax: fn()) {
        self.with_graph(relax, |_| self.times.reset());
    }

    /// An edge of a path, with names.
    pub(in super::super) fn step(&self, edge: u16, relax: fn()) -> Option<Step> {
        self.with_graph(relax, |graph| graph.step(edge))
    }

    pub(in super::super) fn set_on_drop(&self, on_drop: OnDrop) {
        // Relaxed: a function's address, which is all that is passed on.
        self.on_drop.store(on_drop as *mut (), Ordering::Relaxed);
    }

    pub(in super::super) fn on_drop(&self) -> Option<OnDrop> {
        let on_drop = self.on_drop.load(Ordering::Relaxed);
        if on_drop.is_null() {
            return None;
        }
        // SAFETY: not null, so that it is what `set_on_drop` stored, a function of this type.
        Some(unsafe { core::mem::transmute::<*mut (), OnDrop>(on_drop) })
    }

    /// How much of the tables is in use.
    pub(in super::super) fn summary(&self, relax: fn()) -> Summary {
        let (sites, classes, edges) =
            self.with_graph(relax, |graph| (graph.site_count(), graph.class_count(), graph.edge_count()));
        Summary {
            is_checking: self.is_checking(),
            sites,
            classes,
            orders: edges,
            chains: self.verdicts.count(),
            chains_turned_away: self.verdicts.turned_away(),
            deepest: self.deepest.load(Ordering::Relaxed),
            reports: self.reports.load(Ordering::Relaxed) as usize,
        }
    }

    /// The class of the given number, from 1 on, and how it is used.
    pub(in super::super) fn class_at(&self, number: u16, relax: fn()) -> Option<(Label, Usage)> {
        self.with_graph(relax, |graph| {
            let class = ClassId(number);
            (usize::from(number) <= graph.class_count())
                .then(|| Some((graph.label(class)?, graph.usage(class))))?
        })
    }
}
