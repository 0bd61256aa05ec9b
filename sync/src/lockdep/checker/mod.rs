//! The checker: what happens when a lock is taken and released, by all CPUs at once.
//!
//! 1. A lock finds its class: by the number that it keeps, or, the first time, in the graph.
//! 2. The context is looked at: may one wait for such a lock here at all?
//! 3. What the context adds to what is known about the class ([`Use`]) is added and followed up.
//! 4. The chain of held locks with the new one at its end is looked up; if it is new, the orders in it are added to the
//!    graph and followed up.
//! 5. The lock goes onto the task's stack.
//!
//! In the long run all of that is known. Then nothing is written but the task's own stack, and no lock is taken.
//!
//! # Invariants
//! * **C1**: `graph` is accessed by the execution that holds `lock`, with interrupts off and never from NMI, and no report
//!   is made meanwhile: a report takes other locks, whose holders may be waiting for `lock`.
//! * **C2**: an edge is looked up and added in one hold of `lock`, and so is a use. Of two that only together are wrong,
//!   the second one's search therefore sees the first.

mod views;

use core::cell::UnsafeCell;
use core::fmt;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering};

use hal::context::Context;

use super::class::{Identity, Label};
use super::follow::{Kind, follow_use, inversion_through};
use super::graph::{CLASSES, ClassId, Full, Graph, SITES, Strength};
use super::held::{Entry, Held, Removed, Since, level_of};
use super::map::{Acquire, Level, Subclass, WaitType};
use super::report::{Finding, Wrong};
use super::search::{Direction, Place};
use super::times::Times;
use super::usage::{Irq, Mark, Usage, Use};
use super::verdicts::Verdicts;

/// How many places that wait in an NMI are told apart.
const NMI_PLACES: usize = 16;

/// What is known about the locks of a system, and what is wrong with it. A kernel has one, in a `static`; tests make their
/// own.
///
/// About 655 KiB, all zeros at first: a static one takes no room in the kernel's image. Its tables do not grow. When one
/// is full that is reported, once, and dependencies are no longer checked.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let reports = hosted::ReportCapture::new();
/// let a = sync::SpinLock::<u32>::new(1);
/// let b = sync::SpinLock::<u32>::new(2);
/// assert_eq!(*a.lock() + *b.lock(), 3); // a, then b
/// assert_eq!(reports.take(), []);
/// assert_eq!(*b.lock() - *a.lock(), 1); // b, then a
/// assert!(reports.take()[0].message.contains("possible circular locking dependency detected"));
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub struct Checker {
    lock: AtomicBool,
    stopped: AtomicBool,
    graph: UnsafeCell<Graph>,
    /// The class of each site and subclass, 0 if there is none yet. Written with `lock` held.
    by_site: [[AtomicU16; Subclass::COUNT]; SITES],
    /// The graph's `Usage` of each class, to be read without `lock`.
    usage: [AtomicU8; CLASSES],
    verdicts: Verdicts,
    times: Times,
    deepest: AtomicUsize,
    reports: AtomicU32,
    /// Lines that were reported for waiting in an NMI, by address.
    nmi_places: [AtomicUsize; NMI_PLACES],
    /// What a map calls when it is dropped: an `OnDrop`, or null.
    on_drop: AtomicPtr<()>,
}

/// What a map calls when it is dropped, with its address.
pub(super) type OnDrop = fn(address: usize);

// SAFETY: by C1 the graph is accessed by one execution at a time; everything else is atomic.
unsafe impl Sync for Checker {}

/// Where and how a lock is taken.
#[derive(Clone, Copy)]
pub(super) struct Taking {
    pub(super) address: usize,
    pub(super) identity: Identity,
    /// The lock's number, 0 if the checker has no room for it.
    pub(super) site: u16,
    pub(super) how: Acquire,
    pub(super) at: &'static Location<'static>,
}

/// What was switched off before the checker was called.
#[derive(Clone, Copy)]
pub(super) struct Here {
    pub(super) context: Context,
    pub(super) interrupts_on: bool,
}

impl Here {
    /// Whether a handler can come in between.
    fn is_exposed(self, irq: Irq) -> bool {
        match irq {
            Irq::Hard => self.interrupts_on,
            Irq::Soft => self.interrupts_on && !self.context.in_interrupt(),
        }
    }

    /// The handler that this is.
    fn handler(self) -> Option<Irq> {
        if self.context.in_hardirq() {
            Some(Irq::Hard)
        } else {
            self.context.in_serving_softirq().then_some(Irq::Soft)
        }
    }
}

/// What the checker needs of the platform.
pub(super) struct Env<'a> {
    pub(super) relax: fn(),
    pub(super) now: fn() -> u64,
    pub(super) report: &'a dyn Fn(&Finding, Option<&Held>, &'static Location<'static>),
}

impl Checker {
    /// A checker that knows nothing.
    ///
    /// ```
    /// use sync::lockdep::{self, Checker};
    /// static CHECKER: Checker = Checker::new();
    /// let summary = lockdep::summary::<hal::Native>(&CHECKER);
    /// assert_eq!((summary.is_checking, summary.classes), (true, 0));
    /// ```
    pub const fn new() -> Checker {
        Checker {
            lock: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            graph: UnsafeCell::new(Graph::new()),
            by_site: [const { [const { AtomicU16::new(0) }; Subclass::COUNT] }; SITES],
            usage: [const { AtomicU8::new(0) }; CLASSES],
            verdicts: Verdicts::new(),
            times: Times::new(),
            deepest: AtomicUsize::new(0),
            reports: AtomicU32::new(0),
            nmi_places: [const { AtomicUsize::new(0) }; NMI_PLACES],
            on_drop: AtomicPtr::new(core::ptr::null_mut()),
        }
    }

    /// The graph, for as long as `f` takes. Interrupts are off; not in NMI; `f` makes no report (C1).
    pub(super) fn with_graph<R>(&self, relax: fn(), f: impl FnOnce(&mut Graph) -> R) -> R {
        // Acquire: pairs with the Release below; the graph is as the last holder left it.
        while self.lock.swap(true, Ordering::Acquire) {
            relax();
        }
        // SAFETY: C1, this execution has the lock, and `f` does not come here again because it makes no report.
        let result = f(unsafe { &mut *self.graph.get() });
        // Release: pairs with the Acquire above.
        self.lock.store(false, Ordering::Release);
        result
    }

    /// The number of the locks created where `identity` says; 0 if there is no room.
    pub(super) fn site(&self, identity: &Identity, env: &Env<'_>, at: &'static Location<'static>) -> u16 {
        match self.with_graph(env.relax, |graph| graph.site(identity)) {
            Ok(site) => site,
            Err(full) => {
                self.stop(full, env, at);
                0
            }
        }
    }

    /// The class of locks of `site` that are taken as `subclass`.
    fn class(&self, taking: &Taking, env: &Env<'_>) -> Option<ClassId> {
        let slot = &self.by_site[usize::from(taking.site)][taking.how.subclass.index()];
        // Relaxed: the number is all that is passed on.
        let known = slot.load(Ordering::Relaxed);
        if known != 0 {
            return Some(ClassId(known));
        }
        if taking.site == 0 {
            return None;
        }
        let class = self.with_graph(env.relax, |graph| match slot.load(Ordering::Relaxed) {
            0 => graph
                .add_class(taking.site, taking.how.subclass)
                .inspect(|class| slot.store(class.0, Ordering::Relaxed)),
            known => Ok(ClassId(known)),
        });
        class.map_err(|full| self.stop(full, env, taking.at)).ok()
    }

    fn stop(&self, Full(what): Full, env: &Env<'_>, at: &'static Location<'static>) {
        if !self.stopped.swap(true, Ordering::Relaxed) {
            (env.report)(&Finding::Full(what), None, at);
        }
    }

    /// Whether dependencies are still being checked.
    fn is_checking(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    fn report(&self, finding: &Finding, held: &Held, at: &'static Location<'static>, env: &Env<'_>) {
        self.reports.fetch_add(1, Ordering::Relaxed);
        (env.report)(finding, Some(held), at);
    }

    /// A lock is about to be waited for, or was acquired without waiting.
    pub(super) fn acquire(&self, held: &mut Held, taking: &Taking, here: Here, env: &Env<'_>) {
        let Acquire { mode, subclass, is_try } = taking.how;
        let label = Label { identity: taking.identity, subclass };
        let mut entry = Entry {
            address: taking.address,
            label,
            class: self.class(taking, env),
            mode,
            is_try,
            at: taking.at,
            level: level_of(here.context),
            key: 0,
            since: Since::NEVER,
        };
        entry.key = held.key_with(&entry);
        if let Some(class) = entry.class
            && self.is_checking()
        {
            if !is_try {
                self.check_waiting(held, &entry, class, here, env);
            }
            self.note_uses(held, &entry, class, here, env);
            // Without waiting there is no order; what is taken under it will depend on it.
            if !is_try && !self.verdicts.knows(entry.key) {
                self.examine(held, &entry, class, env);
                self.verdicts.insert(entry.key);
            }
        }
        if self.times.are_measured() {
            entry.since = Since::at((env.now)());
        }
        if !held.push(entry) {
            self.stop(Full("a task's held locks"), env, taking.at);
        }
        self.deepest.fetch_max(held.depth(), Ordering::Relaxed);
    }

    /// Whether one may wait for such a lock here.
    fn check_waiting(&self, held: &Held, taking: &Entry, class: ClassId, here: Here, env: &Env<'_>) {
        let Identity { wait, level, .. } = taking.label.identity;
        let spinning = |entry: &&Entry| entry.label.identity.wait == WaitType::Spin;
        let mut under = None;
        let why = match (wait, level, here.handler()) {
            (WaitType::Sleep, _, Some(_)) => Wrong::SleepsInInterrupt,
            (WaitType::Sleep, _, None) => {
                if let Some(spinning) = held.entries().rev().find(spinning) {
                    under = spinning.class;
                    Wrong::SleepsUnder(spinning.label, spinning.at)
                } else if here.context.in_atomic() {
                    Wrong::SleepsWithPreemptionOff
                } else if !here.interrupts_on {
                    Wrong::SleepsWithInterruptsOff
                } else {
                    return;
                }
            }
            (WaitType::Spin, Level::Task, Some(_)) => Wrong::TaskLockInInterrupt,
            (WaitType::Spin, Level::Softirq, Some(Irq::Hard)) => Wrong::SoftirqLockInHardirq,
            (WaitType::Spin, ..) => return,
        };
        let under = under.unwrap_or(ClassId(0));
        if self.with_graph(env.relax, |graph| graph.is_news(Kind::WaitContext as u8, class, under)) {
            self.report(&Finding::WaitContext { taking: *taking, why }, held, taking.at, env);
        }
    }

    /// Notes in what contexts the class is waited for and held.
    fn note_uses(&self, held: &Held, entry: &Entry, class: ClassId, here: Here, env: &Env<'_>) {
        let mark = Mark { taken: Some(entry.at), enabled: None };
        if let Some(irq) = here.handler()
            && !entry.is_try
        {
            self.note_use(held, class, Use::in_handler(irq, entry.mode), mark, entry.at, env);
        }
        for irq in Irq::BOTH {
            if here.is_exposed(irq) {
                self.note_use(held, class, Use::exposed(irq, entry.mode), mark, entry.at, env);
            }
        }
    }

    /// Notes one fact about a class, and reports what it makes wrong.
    fn note_use(
        &self,
        held: &Held,
        class: ClassId,
        what: Use,
        mark: Mark,
        at: &'static Location<'static>,
        env: &Env<'_>,
    ) {
        let usage = &self.usage[class.index()];
        // Relaxed: a bit once set stays, and whoever set it follows it up.
        if Usage(usage.load(Ordering::Relaxed)).has(what) {
            return;
        }
        let finding = self.with_graph(env.relax, |graph| {
            if !graph.add_use(class, what, mark) {
                return None;
            }
            usage.store(graph.usage(class).0, Ordering::Relaxed);
            follow_use(graph, class, what)
        });
        if let Some(finding) = finding {
            self.report(&finding, held, at, env);
        }
    }

    /// Adds the orders that a new chain ends with, and reports what they make wrong.
    fn examine(&self, held: &Held, taking: &Entry, class: ClassId, env: &Env<'_>) {
        let waits_for_itself = |below: &&Entry| {
            below.class == Some(class) && !(taking.mode.is_recursive() && below.mode.is_shared())
        };
        let twice = held.chain(taking.level).find(waits_for_itself);
        if let Some(below) = twice
            && self.with_graph(env.relax, |graph| graph.is_news(Kind::Recursive as u8, class, class))
        {
            self.report(&Finding::Recursive { taking: *taking, held: *below }, held, taking.at, env);
        }
        for below in held.chain(taking.level) {
            if let Some(below_class) = below.class.filter(|below| *below != class) {
                // A lock that is taken twice with others in between makes circles with these, which say nothing new.
                self.add_order(held, (below, below_class), (taking, class), twice.is_none(), env);
            }
            // What is held below was held when this one was waited for, and a strong arrival connects it. A weak one
            // does not connect what departs weakly, and without waiting there was no order.
            if !below.is_try && !below.mode.is_recursive() {
                break;
            }
        }
    }

    /// What others wait for is being brought about by somebody who holds locks. Each of these it may have had to wait for
    /// before it could do so: the orders are those of locks that are waited for while `taking` is held.
    pub(super) fn bring_about(&self, held: &Held, taking: &Taking, here: Here, env: &Env<'_>) {
        let mut entry = Entry {
            address: taking.address,
            label: Label { identity: taking.identity, subclass: taking.how.subclass },
            class: self.class(taking, env),
            mode: taking.how.mode,
            is_try: true,
            at: taking.at,
            level: level_of(here.context),
            key: 0,
            since: Since::NEVER,
        };
        entry.key = held.key_with(&entry);
        let Some(class) = entry.class.filter(|_| self.is_checking() && !self.verdicts.knows(entry.key))
        else {
            return;
        };
        for lock in held.chain(entry.level).filter(|lock| !lock.is_try) {
            if let Some(lock_class) = lock.class.filter(|lock| *lock != class) {
                self.add_order(held, (&entry, class), (lock, lock_class), true, env);
            }
        }
        self.verdicts.insert(entry.key);
    }

    fn add_order(
        &self,
        held: &Held,
        (below, from): (&Entry, ClassId),
        (taking, to): (&Entry, ClassId),
        tell_circles: bool,
        env: &Env<'_>,
    ) {
        let strength = Strength::of(below.mode, taking.mode);
        let departs = Place { class: from, weak: strength.departs_weakly };
        let arrives = Place { class: to, weak: strength.arrives_weakly };
        let added = self.with_graph(env.relax, |graph| {
            let edge = graph.add_edge((from, below.at), (to, taking.at), strength)?;
            let Some(edge) = edge else { return Ok(None) };
            let closes = |_: &Graph, place: Place| place.class == from && place.blocks(departs.weak);
            let goal = graph.search(arrives, Direction::Forward, closes);
            let circle = match goal {
                Some(goal) if tell_circles && graph.is_news(Kind::Circular as u8, from, to) => {
                    let back = graph.path_to(goal, Direction::Forward);
                    Some(Finding::Circular { taking: *taking, held: *below, back })
                }
                _ => None,
            };
            Ok(Some((edge, circle)))
        });
        match added {
            Ok(None) => (),
            Ok(Some((edge, circle))) => {
                if let Some(finding) = circle {
                    self.report(&finding, held, taking.at, env);
                }
                for irq in Irq::BOTH {
                    let finding = self
                        .with_graph(env.relax, |graph| inversion_through(graph, departs, edge, arrives, irq));
                    if let Some(finding) = finding {
                        self.report(&finding, held, taking.at, env);
                    }
                }
            }
            Err(full) => self.stop(full, env, taking.at),
        }
    }

    /// A lock is about to be released.
    pub(super) fn release(
        &self,
        held: &mut Held,
        (address, identity): (usize, &Identity),
        site: impl FnOnce() -> u16,
        at: &'static Location<'static>,
        env: &Env<'_>,
    ) {
        match held.remove(address) {
            Removed::Was(entry) => return self.note_hold(&entry, at, env),
            Removed::Lost => return,
            Removed::NotHeld => {}
        }
        let (site, nothing) = (ClassId(site()), ClassId(0));
        if self.with_graph(env.relax, |graph| graph.is_news(Kind::BadUnlock as u8, site, nothing)) {
            let label = Label { identity: *identity, subclass: Subclass::OUTER };
            self.report(&Finding::BadUnlock { label }, held, at, env);
        }
    }

    /// Handlers are about to be switched on: everything that is held is exposed to them.
    pub(super) fn expose(&self, held: &Held, here: Here, at: &'static Location<'static>, env: &Env<'_>) {
        if !self.is_checking() {
            return;
        }
        for entry in held.entries() {
            let Some(class) = entry.class else { continue };
            let mark = Mark { taken: Some(entry.at), enabled: Some(at) };
            for irq in Irq::BOTH {
                if here.is_exposed(irq) {
                    self.note_use(held, class, Use::exposed(irq, entry.mode), mark, at, env);
                }
            }
        }
    }

    /// Memory is given back: no lock in it may be held.
    pub(super) fn freed(&self, held: &mut Held, memory: core::ops::Range<usize>, env: &Env<'_>) {
        loop {
            let Some(entry) = held.entries().find(|entry| memory.contains(&entry.address)).copied() else {
                return;
            };
            self.report(&Finding::Freed { entry }, held, entry.at, env);
            held.remove(entry.address);
        }
    }

    /// A lock is waited for in an NMI. Takes no lock, and leaves the task's stack alone, which may be in the middle of a
    /// change.
    pub(super) fn waits_in_nmi(&self, taking: &Taking, env: &Env<'_>) {
        let place = core::ptr::from_ref(taking.at) as usize;
        for slot in &self.nmi_places {
            match slot.compare_exchange(0, place, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(known) if known == place => return,
                Err(_) => (),
            }
        }
        let label = Label { identity: taking.identity, subclass: taking.how.subclass };
        let taking = Entry {
            address: taking.address,
            label,
            class: None,
            mode: taking.how.mode,
            is_try: false,
            at: taking.at,
            level: 0,
            key: 0,
            since: Since::NEVER,
        };
        self.reports.fetch_add(1, Ordering::Relaxed);
        (env.report)(&Finding::WaitContext { taking, why: Wrong::InNmi }, None, taking.at);
    }
}

impl Default for Checker {
    fn default() -> Checker {
        Checker::new()
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("is_checking", &self.is_checking()).finish_non_exhaustive()
    }
}
