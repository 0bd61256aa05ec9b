//! Calls that are waited for: descriptors on the caller's stack.
//!
//! The caller does not leave before each of its descriptors was answered, so they may be on its stack and the function may
//! borrow from there. That is kept also where a panic unwinds: dropping a descriptor waits.
//!
//! # Invariants
//! * **W1**: an entry is in a queue, or being run, only while its `state` is [`UNDER_WAY`]. Whoever runs it stores another
//!   value as its last access.

use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::NonNull;

use hal::platform::{Report, Severity};
use hal::{CpuId, Platform};

use super::calls::Calls;
use super::data::called;
use super::error::CallError;
use super::queue::{CallQueue, Closed, Entry};
use crate::Cpu;
use crate::primitives::{AtomicU32, Ordering};

/// No call is under way with this descriptor: it was answered, or not used yet.
const FREE: u32 = 0;
const UNDER_WAY: u32 = 1;
/// The function panicked on the other CPU.
const PANICKED: u32 = 2;

/// Turns of waiting between two looks at the clock.
const TURNS_PER_LOOK: u32 = 1024;
/// Turns after which the awaited CPU is probably not running.
const TURNS_PER_YIELD: u32 = 64;

/// Somebody who waits for answers.
pub(super) struct Wait<'a, P: Platform> {
    calls: &'a Calls<P>,
    /// The function that is waited for.
    name: &'static str,
    at: &'static Location<'static>,
    /// Interrupts are off, so that nobody serves this CPU's calls but the waiting itself.
    by_hand: bool,
}

impl<'a, P: Platform> Wait<'a, P> {
    /// Before anything is sent: may the caller wait?
    pub(super) fn begin(
        calls: &'a Calls<P>,
        name: &'static str,
        at: &'static Location<'static>,
    ) -> Result<Wait<'a, P>, CallError> {
        let in_nmi = P::context().in_nmi();
        let by_hand = P::irq_depth() != 0;
        if by_hand {
            let place = if in_nmi { "in an NMI" } else { "with interrupts off" };
            let message = format_args!("waiting for a call {place} can deadlock: {name}");
            P::report(&Report { severity: Severity::Bug, message, location: at });
        }
        if in_nmi { Err(CallError::InNmi) } else { Ok(Wait { calls, name, at, by_hand }) }
    }

    /// Waits until `done`. `cpu` is the one that is to answer, where that is known.
    pub(super) fn until(&self, cpu: Option<CpuId>, done: impl Fn() -> bool) {
        let mut turns = 0_u32;
        let mut reported_at = None;
        while !done() {
            P::chaos_point();
            if self.by_hand {
                let quiet = Cpu::<P>::disable_interrupts();
                self.calls.serve_by_hand(&quiet);
            }
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_PER_YIELD) {
                P::yield_to_host()
            } else {
                P::relax()
            }
            if turns.is_multiple_of(TURNS_PER_LOOK) {
                let now = P::now_ns();
                let since = *reported_at.get_or_insert(now);
                if now - since > self.calls.patience_ns() {
                    self.complain(cpu);
                    reported_at = Some(P::now_ns());
                }
            }
        }
    }

    #[cold]
    fn complain(&self, cpu: Option<CpuId>) {
        let (name, ms) = (self.name, self.calls.patience_ns() / 1_000_000);
        let report = |message: core::fmt::Arguments<'_>| {
            P::report(&Report { severity: Severity::Bug, message, location: self.at });
        };
        match cpu {
            Some(cpu) => {
                report(format_args!("CPU#{cpu} has not answered a call for {ms} ms: {name}"));
                // Should it have missed its interrupt.
                self.calls.interrupt(cpu);
            }
            None => report(format_args!("a call has not ended for {ms} ms: {name}")),
        }
    }
}

/// Sets the state when the function is through, in whatever way.
struct Answer<'a>(&'a AtomicU32);

impl Answer<'_> {
    fn well(self) {
        // Release pairs with the acquire in `is_answered`: the caller sees what the function did, and its result. The
        // descriptor may be gone after this.
        self.0.store(FREE, Ordering::Release);
        core::mem::forget(self);
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        // Release: as above.
        self.0.store(PANICKED, Ordering::Release);
    }
}

fn is_answered(state: &AtomicU32) -> bool {
    // Acquire pairs with the release in `Answer`.
    state.load(Ordering::Acquire) != UNDER_WAY
}

#[track_caller]
fn check_outcome(state: &AtomicU32, cpu: CpuId, name: &'static str) {
    if state.load(Ordering::Relaxed) == PANICKED {
        state.store(FREE, Ordering::Relaxed);
        panic!("a function that was called on CPU {cpu} panicked: {name}");
    }
}

/// A call to one CPU, with a result.
#[repr(C)]
pub(super) struct One<F, R, P: Platform> {
    // The first field: its address is the descriptor's.
    entry: Entry,
    state: AtomicU32,
    at: &'static Location<'static>,
    function: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<R>>,
    platform: PhantomData<fn() -> P>,
}

impl<F: FnOnce() -> R + Send, R: Send, P: Platform> One<F, R, P> {
    pub(super) fn call(
        calls: &Calls<P>,
        cpu: CpuId,
        function: F,
        at: &'static Location<'static>,
    ) -> Result<R, CallError> {
        let name = core::any::type_name::<F>();
        let wait = Wait::begin(calls, name, at)?;
        let one = One::<F, R, P> {
            entry: Entry::new(Self::run),
            state: AtomicU32::new(UNDER_WAY),
            at,
            function: UnsafeCell::new(Some(function)),
            result: UnsafeCell::new(None),
            platform: PhantomData,
        };
        // SAFETY: this descriptor is nobody else's, stays where it is, and is not dropped before it was run (W1).
        if let Err(error) = unsafe { calls.send(cpu, NonNull::from(&one).cast()) } {
            one.state.store(FREE, Ordering::Relaxed);
            return Err(error);
        }
        wait.until(Some(cpu), || is_answered(&one.state));
        check_outcome(&one.state, cpu, name);
        // SAFETY: answered, so that nobody else has a pointer to it.
        match unsafe { (*one.result.get()).take() } {
            Some(result) => Ok(result),
            None => unreachable!("an answer without a panic has a result"),
        }
    }

    /// # Safety
    /// `entry` is that of such a descriptor, and came out of a queue just now.
    unsafe fn run(entry: NonNull<Entry>) {
        // SAFETY: the entry is the first field of a `repr(C)` structure, valid until it is answered (W1).
        let one = unsafe { entry.cast::<Self>().as_ref() };
        let answer = Answer(&one.state);
        // SAFETY: the caller does not touch these two before the answer, and we are the only one who runs it. `F` and `R`
        // are `Send`.
        let (function, result) = unsafe { (&mut *one.function.get(), &mut *one.result.get()) };
        if let Some(function) = function.take() {
            *result = Some(called::<P, _>(function, core::any::type_name::<F>(), one.at));
        }
        answer.well();
    }
}

impl<F, R, P: Platform> Drop for One<F, R, P> {
    fn drop(&mut self) {
        // Only where a panic unwinds through the wait.
        while !is_answered(&self.state) {
            P::relax();
        }
    }
}

/// What all descriptors of one round share.
pub(super) struct Round<'f, F> {
    function: &'f F,
    at: &'static Location<'static>,
}

impl<'f, F> Round<'f, F> {
    pub(super) fn new(function: &'f F, at: &'static Location<'static>) -> Round<'f, F> {
        Round { function, at }
    }
}

/// One of the descriptors of a call to many. When it was answered it serves for another CPU.
#[repr(C)]
pub(super) struct Slot<'r, F, P: Platform> {
    // The first field: its address is the descriptor's.
    entry: Entry,
    state: AtomicU32,
    /// The CPU that it is under way to.
    cpu: Cell<CpuId>,
    round: &'r Round<'r, F>,
    platform: PhantomData<fn() -> P>,
}

impl<'r, F: Fn(CpuId) + Sync, P: Platform> Slot<'r, F, P> {
    pub(super) fn new(round: &'r Round<'r, F>) -> Slot<'r, F, P> {
        Slot {
            entry: Entry::new(Self::run),
            state: AtomicU32::new(FREE),
            cpu: Cell::new(CpuId::BOOT),
            round,
            platform: PhantomData,
        }
    }

    /// Sends it to a CPU. `Ok` says whether that should be interrupted.
    ///
    /// # Safety
    /// The slot is free, and stays in place until it is dropped.
    pub(super) unsafe fn send(&self, queue: &CallQueue, cpu: CpuId) -> Result<bool, Closed> {
        self.cpu.set(cpu);
        self.state.store(UNDER_WAY, Ordering::Relaxed);
        // SAFETY: free, hence in no queue (W1), and ours; in place by the contract.
        let pushed = unsafe { queue.push::<P>(NonNull::from(self).cast()) };
        if pushed.is_err() {
            self.state.store(FREE, Ordering::Relaxed);
        }
        pushed
    }

    /// Waits until it is free.
    pub(super) fn wait(&self, wait: &Wait<'_, P>) {
        if !is_answered(&self.state) {
            wait.until(Some(self.cpu.get()), || is_answered(&self.state));
        }
        check_outcome(&self.state, self.cpu.get(), wait.name);
    }

    /// # Safety
    /// As for [`One::run`].
    unsafe fn run(entry: NonNull<Entry>) {
        let slot = entry.cast::<Self>();
        // SAFETY: the entry is the first field of a `repr(C)` structure, valid until it is answered (W1). Its `cpu` is not
        // looked at here.
        let (state, round) = unsafe { (&slot.as_ref().state, slot.as_ref().round) };
        let answer = Answer(state);
        called::<P, _>(|| (round.function)(P::cpu()), core::any::type_name::<F>(), round.at);
        answer.well();
    }
}

impl<F, P: Platform> Drop for Slot<'_, F, P> {
    fn drop(&mut self) {
        // Only where a panic unwinds through the wait.
        while !is_answered(&self.state) {
            P::relax();
        }
    }
}
