//! Tasks and handlers without a machine: the checker as a value, told what happens.

use core::cell::{Cell, RefCell};
use core::panic::Location;
use std::boxed::Box;
use std::string::{String, ToString};
use std::vec::Vec;

use hal::CpuId;
use hal::context::{Context, HARDIRQ_UNIT, SOFTIRQ_DISABLE_UNIT, SOFTIRQ_UNIT};

use super::checker::{Checker, Env, Here, Taking};
use super::class::Identity;
use super::held::Held;
use super::map::{Acquire, Level, WaitType};
use super::report::{Finding, Text};

pub(super) const TASK: Here = here(0, true);
pub(super) const TASK_IRQS_OFF: Here = here(0, false);
pub(super) const TASK_BH_OFF: Here = here(SOFTIRQ_DISABLE_UNIT, true);
pub(super) const TASK_PREEMPT_OFF: Here = here(1, true);
pub(super) const SOFTIRQ: Here = here(SOFTIRQ_UNIT, true);
pub(super) const SOFTIRQ_IRQS_OFF: Here = here(SOFTIRQ_UNIT, false);
pub(super) const HARDIRQ: Here = here(HARDIRQ_UNIT, false);

const fn here(word: u32, interrupts_on: bool) -> Here {
    Here { context: Context::from_word(word), interrupts_on }
}

/// A lock of the simulation: its class is its number, its address is its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lock {
    pub(super) class: u32,
    pub(super) instance: usize,
    pub(super) wait: WaitType,
    pub(super) level: Level,
}

pub(super) const fn lock(class: u32) -> Lock {
    Lock { class, instance: 0, wait: WaitType::Spin, level: Level::Hardirq }
}

impl Lock {
    pub(super) fn identity(self) -> Identity {
        Identity {
            site: Location::caller(),
            name: Some(["", "A", "B", "C", "D"].get(self.class as usize).copied().unwrap_or("X")),
            key: self.class,
            wait: self.wait,
            level: self.level,
        }
    }

    pub(super) fn address(self) -> usize {
        0x1_0000 * self.class as usize + 64 * (self.instance + 1)
    }
}

std::thread_local! {
    /// This thread's time, in nanoseconds.
    pub(super) static CLOCK: Cell<u64> = const { Cell::new(0) };
}

/// A checker, and what it has reported.
pub(super) struct Sim {
    pub(super) checker: Box<Checker>,
    reports: RefCell<Vec<String>>,
    /// The lines at which they were made.
    pub(super) places: RefCell<Vec<&'static Location<'static>>>,
}

impl Sim {
    pub(super) fn new() -> Sim {
        Sim { checker: Box::new(Checker::new()), reports: RefCell::default(), places: RefCell::default() }
    }

    fn with_env<R>(&self, f: impl FnOnce(&Env<'_>) -> R) -> R {
        let report = |finding: &Finding, held: Option<&Held>, at: &'static Location<'static>| {
            // With the checker's lock held a report could wait for itself.
            self.checker.with_graph(|| panic!("a report is made with the graph locked"), |_| ());
            let step = |edge| self.checker.step(edge, core::hint::spin_loop);
            let text = Text { finding, held, cpu: CpuId::BOOT, step: &step };
            self.places.borrow_mut().push(at);
            self.reports.borrow_mut().push(text.to_string());
        };
        f(&Env { relax: core::hint::spin_loop, now: || CLOCK.get(), report: &report })
    }

    /// The reports since the last call.
    pub(super) fn take(&self) -> Vec<String> {
        self.reports.take()
    }

    /// Their headlines.
    pub(super) fn headlines(&self) -> Vec<String> {
        self.take().iter().map(|text| text.lines().next().unwrap_or("").to_string()).collect()
    }

    #[track_caller]
    pub(super) fn acquire(&self, held: &mut Held, lock: Lock, how: Acquire, here: Here) {
        let at = Location::caller();
        self.with_env(|env| {
            let identity = lock.identity();
            let site = self.checker.site(&identity, env, at);
            let taking = Taking { address: lock.address(), identity, site, how, at };
            self.checker.acquire(held, &taking, here, env);
        });
    }

    #[track_caller]
    pub(super) fn release(&self, held: &mut Held, lock: Lock) {
        let at = Location::caller();
        self.with_env(|env| {
            let identity = lock.identity();
            let site = || self.checker.site(&identity, env, at);
            self.checker.release(held, (lock.address(), &identity), site, at, env);
        });
    }

    /// The wait for the lock is over, which began at `since_ns`.
    pub(super) fn waited(&self, held: &mut Held, lock: Lock, since_ns: u64) {
        self.with_env(|env| self.checker.waited(held, lock.address(), since_ns, env));
    }

    #[track_caller]
    pub(super) fn expose(&self, held: &Held, here: Here) {
        let at = Location::caller();
        self.with_env(|env| self.checker.expose(held, here, at, env));
    }

    pub(super) fn freed(&self, held: &mut Held, memory: core::ops::Range<usize>) {
        self.with_env(|env| self.checker.freed(held, memory, env));
    }

    #[track_caller]
    pub(super) fn waits_in_nmi(&self, lock: Lock) {
        let at = Location::caller();
        let taking =
            Taking { address: lock.address(), identity: lock.identity(), site: 0, how: Acquire::WRITE, at };
        self.with_env(|env| self.checker.waits_in_nmi(&taking, env));
    }

    /// Acquires the locks one inside the other, and releases them.
    #[track_caller]
    pub(super) fn nest(&self, here: Here, locks: &[(Lock, Acquire)]) {
        let mut held = Held::new();
        for (lock, how) in locks {
            self.acquire(&mut held, *lock, *how, here);
        }
        for (lock, _) in locks.iter().rev() {
            self.release(&mut held, *lock);
        }
        assert_eq!(held.depth(), 0);
    }
}
