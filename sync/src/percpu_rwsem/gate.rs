//! Counting in and out, closing and opening: the protocol, without data.

use core::panic::Location;

use hal::Platform;
use hal::percpu::DynamicPerCpu;

use crate::faults::{Fault, is_planted};
use crate::primitives::{AtomicBool, AtomicIsize, Ordering, const_fn};
use crate::spin::SpinLock;
use crate::wait::{Limits, Request, WaitError, WaitQueue, Waiters, itself, sleep};
use crate::{PreemptGuard, Task, TaskCx};

const READS: u8 = 0;
const WRITES: u8 = 1;

/// Where readers are counted: one number for each CPU, which only its tasks change, with preemption off.
pub(super) trait Slots {
    /// Calls `f` with the executing CPU's number, and stays there meanwhile.
    fn with_mine<R>(&self, f: impl FnOnce(&AtomicIsize) -> R) -> R;

    /// The sum of all CPUs' numbers. Acquire: pairs with the Release in [`count`].
    fn sum(&self) -> isize;
}

/// The CPUs' own memory.
pub(super) struct PerCpuSlots<P: Platform> {
    pub(super) slots: DynamicPerCpu<AtomicIsize>,
    pub(super) platform: core::marker::PhantomData<fn() -> P>,
}

impl<P: Platform> Slots for PerCpuSlots<P> {
    #[inline(always)]
    fn with_mine<R>(&self, f: impl FnOnce(&AtomicIsize) -> R) -> R {
        f(self.slots.get(&PreemptGuard::<P>::new()))
    }

    fn sum(&self) -> isize {
        self.slots.iter().map(|(_, slot)| slot.load(Ordering::Acquire)).sum()
    }
}

/// Adds to the executing CPU's number, with ordinary instructions: nobody else writes it meanwhile.
///
/// Release: pairs with the Acquire in [`Slots::sum`]; what readers did that left here happened before what a writer does
/// that sees them gone. Acquire: the next one who counts here passes on what those before it released.
#[inline(always)]
fn count(slot: &AtomicIsize, change: isize) {
    slot.store(slot.load(Ordering::Acquire).wrapping_add(change), Ordering::Release);
}

/// See [the module](super).
///
/// # Invariants
/// * **C1**: `closed` is set while a writer is in, or waits for readers to leave, or anybody is in line. It changes under
///   the line's lock, from clear to set by a writer that is in from then on, and back in `hand_over`.
/// * **C2**: a reader that is in has been counted, and either found the gate open after it was counted, or was counted
///   under the line's lock: by itself while the gate was open, or by a writer that let go.
pub(super) struct Gate<S: Slots, P: Platform> {
    pub(super) slots: S,
    closed: AtomicBool,
    /// Those who found it closed.
    line: SpinLock<Waiters<P>, Task<P>>,
    /// Where the one writer waits for the last reader.
    drained: WaitQueue<P>,
}

impl<S: Slots, P: Platform> Gate<S, P> {
    const_fn! {
        #[track_caller]
        pub(super) fn new(slots: S) -> Gate<S, P> {
            Gate {
                slots,
                closed: AtomicBool::new(false),
                line: SpinLock::new(Waiters::new()),
                drained: WaitQueue::new(),
            }
        }
    }

    /// In as a reader, if it is open.
    #[inline]
    pub(super) fn try_enter(&self) -> bool {
        let is_in = self.slots.with_mine(|slot| {
            count(slot, 1);
            // Pairs with the `fence_heavy` in `drain`: either we see the gate closed, or the writer sees us.
            P::fence_light();
            // Acquire: pairs with the Release in `hand_over`; what the last writer did happened before what we do.
            let is_open = !self.closed.load(Ordering::Acquire);
            if !is_open {
                count(slot, -1);
            }
            is_open
        });
        if !is_in && !is_planted(Fault::LeaveQuietly) {
            self.tell_writer();
        }
        is_in
    }

    /// In as a reader, sleeping until that is possible or a limit is reached.
    #[cfg(all(test, loom))]
    pub(super) fn enter(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<(), WaitError> {
        if self.try_enter() { Ok(()) } else { self.enter_slow(limits, cx) }
    }

    /// The same, for one who has just found it closed.
    #[cold]
    pub(super) fn enter_slow(&self, limits: Limits, cx: &mut TaskCx<P>) -> Result<(), WaitError> {
        let line = self.line.lock();
        if !self.closed.load(Ordering::Relaxed) {
            // C2. Ordered before every writer, and after the last one, by the line's lock.
            self.slots.with_mine(|slot| count(slot, 1));
            return Ok(());
        }
        P::chaos_point();
        sleep(&self.line, line, itself, Request::of_kind(READS), limits, cx).1
    }

    /// Out, as a reader. It may have come in on another CPU.
    #[inline]
    pub(super) fn leave(&self) {
        let is_closed = self.slots.with_mine(|slot| {
            count(slot, -1);
            // Pairs with the `fence_heavy` in `drain`: either the writer sees us gone, or we see that one waits.
            P::fence_light();
            self.closed.load(Ordering::Relaxed)
        });
        if is_closed {
            self.tell_writer();
        }
    }

    /// A number has changed while it was closed.
    #[cold]
    fn tell_writer(&self) {
        P::chaos_point();
        self.drained.wake_one();
    }

    /// In as the writer, sleeping until everybody else is out or a limit is reached.
    /// `note` is called before a wait, and what it returned is dropped after it.
    pub(super) fn close_noting<G>(
        &self,
        limits: Limits,
        cx: &mut TaskCx<P>,
        note: impl Fn() -> G,
    ) -> Result<(), WaitError> {
        let mut noted = None;
        let line = self.line.lock();
        if self.closed.load(Ordering::Relaxed) {
            noted = Some(note());
            sleep(&self.line, line, itself, Request::of_kind(WRITES), limits, cx).1?;
        } else {
            self.closed.store(true, Ordering::Relaxed);
            drop(line);
        }
        self.fence();
        // C1: it stays closed. So no reader comes in any more, and the sum can only be too high: whoever is in was
        // counted before the fence (C2), and whoever still comes counts and discounts in one place.
        if self.slots.sum() != 0 {
            noted.get_or_insert_with(note);
        }
        let result = self.drained.wait_with(limits, cx, || self.slots.sum() == 0);
        result.inspect_err(|_| self.open())
    }

    /// In as the writer, if nobody else is in. Interrupts the other CPUs unless it was closed.
    pub(super) fn try_close(&self) -> bool {
        let line = self.line.lock();
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        self.closed.store(true, Ordering::Relaxed);
        drop(line);
        self.fence();
        let is_in = self.slots.sum() == 0;
        if !is_in {
            self.open();
        }
        is_in
    }

    /// Between the closing and the sum. Pairs with the `fence_light`s in `try_enter` and `leave`.
    fn fence(&self) {
        P::chaos_point();
        if !is_planted(Fault::SumWithoutFence) {
            P::fence_heavy();
        }
    }

    /// Out, as the writer.
    pub(super) fn open(&self) {
        let mut line = self.line.lock();
        // Readers up to the first writer.
        while line.front_kind() == Some(READS) {
            // C2. What the writer did is passed on to it by the line's lock.
            self.slots.with_mine(|slot| count(slot, 1));
            line.signal_front();
        }
        P::chaos_point();
        // C1. The next writer finds it closed, and waits for those readers.
        if !line.signal_front() {
            // Release: pairs with the Acquire in `try_enter`.
            let order = if is_planted(Fault::OpenRelaxed) { Ordering::Relaxed } else { Ordering::Release };
            self.closed.store(false, order);
        }
    }

    /// Whether a writer is in or waits for the readers to leave.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// The caller's line, for the dependency checker.
pub(super) type At = &'static Location<'static>;
