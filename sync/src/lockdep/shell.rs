//! Where the checker meets the platform.

use core::fmt;
use core::ops::Range;
use core::panic::Location;
use core::ptr;
use core::sync::atomic::Ordering;

use hal::Platform;
use hal::context::{Context, SOFTIRQ_MASK};
use hal::platform::{Report, Severity};

use super::ENABLED;
use super::checker::{Checker, Env, Here, Taking};
use super::class::Label;
use super::held::{Held, HeldStack};
use super::report::{Finding, Text};
use super::stretch::{self, Off};
use super::summary::Summary;
use super::times::{LockTimes, OnLong};
use super::usage::Usage;

/// Has the executing CPU's locks checked from now on, by `checker`, with `held` for what its running task holds.
///
/// Each CPU does it, with the same checker and a stack of its own, before it takes locks, or at a moment when it holds
/// none. Linux: `lockdep_init`. Contexts: task.
///
/// ```
/// use hal::{Native, hosted};
/// use sync::lockdep::{self, Checker, HeldStack};
/// static CHECKER: Checker = Checker::new();
/// static HELD: HeldStack = HeldStack::new();
///
/// let _cpu = hosted::bind()?;
/// // SAFETY: this thread is the CPU's only task, and nobody else has `HELD`.
/// unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let lock = sync::IrqSpinLock::new(1);
/// drop(lock.lock());
/// println!("{}", lockdep::summary::<Native>(&CHECKER));
/// // SAFETY: as above; no lock is held.
/// unsafe { lockdep::uninstall::<Native>() };
/// # Ok::<(), hosted::NoCpuLeft>(())
/// ```
///
/// # Safety
/// * `held` belongs to the task that executes the call, and to no other task or CPU. A platform that switches tasks
///   exchanges the record's `held` with them, so that it is always the running task's own, or null.
/// * Nobody else writes the record's `held` and `checker`.
pub unsafe fn install<P: Platform>(checker: &'static Checker, held: &'static HeldStack) {
    checker.set_on_drop(dropped::<P>);
    P::irq_disable();
    // SAFETY: records live for ever.
    let record = unsafe { P::record().as_ref() };
    record.held.store(ptr::from_ref(held).cast_mut().cast(), Ordering::Relaxed);
    // Release: pairs with the Acquire in `installed`.
    record.checker.store(ptr::from_ref(checker).cast_mut().cast(), Ordering::Release);
    P::irq_enable();
}

/// Takes back [`install`] on the executing CPU.
///
/// # Safety
/// As for [`install`]; the task holds no lock.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// # use core::panic::Location;
/// # use sync::lockdep::{Acquire, Level, Map, WaitType};
/// // SAFETY: no lock is held, and this thread is the CPU's only task.
/// unsafe { lockdep::uninstall::<Native>() };
/// drop(sync::SpinLock::<u32>::new(1).lock());
/// assert_eq!(lockdep::summary::<Native>(&CHECKER).classes, 0, "it is not told any more");
/// ```
pub unsafe fn uninstall<P: Platform>() {
    P::irq_disable();
    // SAFETY: records live for ever.
    let record = unsafe { P::record().as_ref() };
    record.checker.store(ptr::null_mut(), Ordering::Relaxed);
    record.held.store(ptr::null_mut(), Ordering::Relaxed);
    P::irq_enable();
}

/// Reports if the executing task holds a lock that lies in memory which is about to be given back.
///
/// Linux: `debug_check_no_locks_freed`. Contexts: any but NMI. Cost: O(held locks).
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
/// let lock = sync::SpinLock::<u32>::new(1);
/// let memory = (&raw const lock).addr()..(&raw const lock).addr() + size_of_val(&lock);
/// let guard = lock.lock();
/// lockdep::check_no_locks_freed::<Native>(memory);
/// assert!(reports.take()[0].message.contains("held lock freed"));
/// # drop(guard);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub fn check_no_locks_freed<P: Platform>(memory: Range<usize>) {
    with_checker::<P, _>(|checker, held, _, env| checker.freed(held, memory, env));
}

/// Writes what the executing task holds, a line for each lock, the newest last. Linux: `debug_show_held_locks`.
///
/// Contexts: any; in an NMI it writes nothing.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let (one, other) = (sync::SpinLock::<u32>::new(1), sync::Mutex::<u32>::new(2));
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let guards = (other.lock(&mut cx), one.lock());
/// let mut held = String::new();
/// lockdep::write_held::<Native>(&mut held).unwrap();
/// assert_eq!(held.lines().count(), 2);
/// # drop(guards);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub fn write_held<P: Platform>(out: &mut dyn fmt::Write) -> fmt::Result {
    with_checker::<P, _>(|_, held, _, _| held.entries().try_for_each(|entry| writeln!(out, "{entry}")))
        .unwrap_or(Ok(()))
}

/// How much `checker` knows. Contexts: any but NMI.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// let lock = sync::SpinLock::<u32>::new(1);
/// drop(lock.lock());
/// let summary = lockdep::summary::<Native>(&CHECKER);
/// assert_eq!((summary.classes, summary.deepest, summary.reports), (1, 1, 0));
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub fn summary<P: Platform>(checker: &Checker) -> Summary {
    quietly::<P, _>(|| checker.summary(P::relax))
}

/// The classes that `checker` knows, and how they are used, by their numbers 1, 2 and so on. Contexts: any but NMI.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// drop(sync::IrqSpinLock::<u32>::new(1).lock());
/// let (label, usage) = lockdep::class::<Native>(&CHECKER, 1).unwrap();
/// assert!(label.site().file() == file!() && !usage.with_interrupts_on());
/// assert!(lockdep::class::<Native>(&CHECKER, 2).is_none());
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub fn class<P: Platform>(checker: &Checker, number: u16) -> Option<(Label, Usage)> {
    quietly::<P, _>(|| checker.class_at(number, P::relax))
}

/// Measures how long locks are held, or stops that: two readings of the clock for each acquisition while it is on, which is
/// why it is off at first. Waits for locks that were found taken are counted in any case.
///
/// Linux: `/proc/sys/kernel/lock_stat`. Contexts: any.
///
/// ```
/// use sync::lockdep::{self, Checker};
/// static CHECKER: Checker = Checker::new();
/// assert!(!lockdep::is_timing(&CHECKER));
/// lockdep::set_timing(&CHECKER, true);
/// assert!(lockdep::is_timing(&CHECKER));
/// ```
pub fn set_timing(checker: &Checker, on: bool) {
    checker.times().set_timing(on);
}

/// Whether holds of locks are measured, by [`set_timing`]. Contexts: any.
///
/// ```
/// static CHECKER: sync::lockdep::Checker = sync::lockdep::Checker::new();
/// assert!(!sync::lockdep::is_timing(&CHECKER), "at first it is off");
/// ```
pub fn is_timing(checker: &Checker) -> bool {
    checker.times().is_timing()
}

/// How long the locks of a class were waited for and held: of the class that has this number, 1, 2 and so on, as in
/// [`class`].
///
/// Linux: a line of `/proc/lock_stat`. Contexts: any but NMI.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// lockdep::set_timing(&CHECKER, true);
/// let lock = sync::SpinLock::<u32>::new(1);
/// drop(lock.lock());
/// let times = lockdep::times::<Native>(&CHECKER, 1).unwrap();
/// assert_eq!((times.holds, times.contended), (1, 0));
/// assert_eq!(times.longest_hold_at.unwrap().file(), file!());
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub fn times<P: Platform>(checker: &Checker, number: u16) -> Option<LockTimes> {
    quietly::<P, _>(|| checker.times_at(number, P::relax))
}

/// Forgets what [`times`] tells, of all classes. Contexts: any but NMI.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// lockdep::set_timing(&CHECKER, true);
/// drop(sync::SpinLock::<u32>::new(1).lock());
/// lockdep::reset_times::<Native>(&CHECKER);
/// assert_eq!(lockdep::times::<Native>(&CHECKER, 1).unwrap().holds, 0);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub fn reset_times<P: Platform>(checker: &Checker) {
    quietly::<P, _>(|| checker.reset_times(P::relax));
}

/// Has `tell` called each time that a spinning lock was held, or guards had interrupts or bottom halves off, for at least
/// `limit_ns` nanoseconds; `u64::MAX` ends that. Costs a reading of the clock at each beginning and each end while it is on.
///
/// `tell` is called at the end, before the lock is free or the interrupts are on, on the CPU and in the task concerned. It
/// must not block and must not take a lock that it could find held there; a report like any other may be made. What it
/// takes is not checked, nor told.
///
/// Time is the clock's: a host that does not run a virtual CPU lengthens what happens on that.
///
/// Linux: the tracers `irqsoff` and `preemptoff`; there is none for locks. Contexts: any.
///
/// ```
/// # use hal::{Native, Platform, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// static TOLD: AtomicU32 = AtomicU32::new(0);
/// lockdep::tell_long(&CHECKER, 1_000_000, |long| {
///     assert!(long.ns >= 1_000_000 && long.at.file() == file!());
///     TOLD.fetch_add(1, Relaxed);
/// });
/// let quiet = sync::irq::disable();
/// let end = Native::now_ns() + 1_000_000;
/// while Native::now_ns() < end {}
/// drop(quiet);
/// assert_eq!(TOLD.load(Relaxed), 1);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
pub fn tell_long(checker: &Checker, limit_ns: u64, tell: OnLong) {
    checker.times().set_limit(limit_ns, tell);
}

/// The interrupt depth may be about to become 0: whatever is held can then be met by a hardirq, and unless bottom halves
/// are off by a softirq. Whoever is about to call [`Platform::irq_enable`] calls this before it, as guards and flavours
/// do. Does nothing unless the caller is the outermost party.
///
/// Linux: `lockdep_hardirqs_on_prepare`. Contexts: any. Cost: nothing in builds without the checker, a load and a branch
/// where none is installed.
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// # use core::panic::Location;
/// # use hal::Platform;
/// Native::irq_disable();
/// // .. a handler of a platform, which keeps the count itself ..
/// lockdep::interrupts_coming_on::<Native>(Location::caller());
/// assert!(Native::irq_enable(), "the outermost");
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[inline(always)]
pub fn interrupts_coming_on<P: Platform>(at: &'static Location<'static>) {
    if ENABLED
        && let Some(checker) = installed::<P>()
        && P::irq_depth() == 1
    {
        expose::<P>(P::context(), at);
        stretch::end::<P>(checker, Off::Interrupts, at);
    }
}

/// Bottom halves may be about to be enabled: the same for them, before the softirq count goes down.
///
/// Linux: `lockdep_softirqs_on`. Contexts and cost: as [`interrupts_coming_on`].
///
/// ```
/// # use hal::{Native, hosted};
/// # use sync::lockdep;
/// # static CHECKER: lockdep::Checker = lockdep::Checker::new();
/// # static HELD: lockdep::HeldStack = lockdep::HeldStack::new();
/// # if !lockdep::ENABLED { return; }
/// # let _cpu = hosted::bind().unwrap();
/// # unsafe { lockdep::install::<Native>(&CHECKER, &HELD) };
/// # use core::panic::Location;
/// # use hal::{Platform, context::SOFTIRQ_DISABLE_UNIT};
/// Native::preempt_add(SOFTIRQ_DISABLE_UNIT);
/// // .. without softirqs ..
/// lockdep::bottom_halves_coming_on::<Native>(Location::caller());
/// Native::preempt_sub(SOFTIRQ_DISABLE_UNIT);
/// # unsafe { lockdep::uninstall::<Native>() };
/// ```
#[inline(always)]
pub fn bottom_halves_coming_on<P: Platform>(at: &'static Location<'static>) {
    if ENABLED && let Some(checker) = installed::<P>() {
        let context = P::context();
        if context.bottom_half_depth() == 1 {
            if P::irq_depth() == 0 && context.in_task() {
                expose::<P>(Context::from_word(context.count() & !SOFTIRQ_MASK), at);
            }
            stretch::end::<P>(checker, Off::BottomHalves, at);
        }
    }
}

/// What is held can be met by the handlers that come in `context` with interrupts on.
#[cold]
fn expose<P: Platform>(context: Context, at: &'static Location<'static>) {
    with_checker::<P, _>(|checker, held, _, env| {
        checker.expose(held, Here { context, interrupts_on: true }, at, env);
    });
}

/// The checker of the executing CPU.
#[inline(always)]
pub(super) fn installed<P: Platform>() -> Option<&'static Checker> {
    // SAFETY: records live for ever. The caller may be moved to another CPU meanwhile; then this is the other one's.
    let record = unsafe { P::record().as_ref() };
    // Acquire: pairs with the Release in `install`.
    let checker = record.checker.load(Ordering::Acquire).cast::<Checker>();
    // SAFETY: null, or what `install` stored.
    unsafe { checker.as_ref() }
}

/// Calls `f` with the running task's held locks, with interrupts off. `None`: no checker is installed, or it is at work
/// further out in the call stack, or this is an NMI.
pub(super) fn with_checker<P: Platform, R>(
    f: impl FnOnce(&'static Checker, &mut Held, Here, &Env<'_>) -> R,
) -> Option<R> {
    installed::<P>()?;
    let here = Here { context: P::context(), interrupts_on: P::irq_depth() == 0 };
    if here.context.in_nmi() {
        return None;
    }
    quietly::<P, _>(|| {
        let checker = installed::<P>()?;
        // SAFETY: records live for ever, and with interrupts off we stay on this CPU.
        let held = unsafe { P::record().as_ref() }.held.load(Ordering::Relaxed).cast::<HeldStack>();
        // SAFETY: by `install`'s contract null, or the stack of the task that executes this.
        let held = unsafe { held.as_ref() }?;
        // SAFETY: the task's own, as above. Interrupts are off and NMIs have been turned away, so that nobody comes in
        // between but code that we call.
        let mut held = unsafe { held.enter() }?;
        let report = |finding: &Finding, held: Option<&Held>, at| report::<P>(checker, finding, held, at);
        Some(f(checker, &mut held, here, &Env { relax: P::relax, now: P::now_ns, report: &report }))
    })
}

/// Calls `f` with interrupts off.
fn quietly<P: Platform, R>(f: impl FnOnce() -> R) -> R {
    P::irq_disable();
    let result = f();
    if P::irq_enable() {
        // A report may have made a reschedule due.
        P::check_resched();
    }
    result
}

#[cold]
fn report<P: Platform>(
    checker: &Checker,
    finding: &Finding,
    held: Option<&Held>,
    at: &'static Location<'static>,
) {
    let step = |edge| checker.step(edge, P::relax);
    P::report(&Report {
        severity: Severity::Bug,
        message: format_args!("{}", Text { finding, held, cpu: P::cpu(), step: &step }),
        location: at,
    });
}

/// For [`Checker::waits_in_nmi`].
pub(super) fn waits_in_nmi<P: Platform>(taking: &Taking) {
    if let Some(checker) = installed::<P>() {
        let report = |finding: &Finding, held: Option<&Held>, at| report::<P>(checker, finding, held, at);
        checker.waits_in_nmi(taking, &Env { relax: P::relax, now: P::now_ns, report: &report });
    }
}

/// A map at this address is being dropped.
fn dropped<P: Platform>(address: usize) {
    check_no_locks_freed::<P>(address..address + 1);
}
