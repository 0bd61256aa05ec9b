//! Softirqs: work that an interrupt leaves for the moment when interrupts are on again.
//!
//! 1. An interrupt handler has interrupts off, so it does what cannot wait, **raises** a softirq, and returns. The softirq
//!    runs before the interrupted task goes on, on the same CPU, with interrupts on. There are ten kinds, the
//!    [`Vector`]s, each a bit; raising one twice before it is served serves it once.
//! 2. [`serve`] runs them in **rounds**: it takes all bits at once with interrupts off, turns interrupts on, and runs what it
//!    took, the most urgent first. What is raised meanwhile is the next round's. Bits that were cleared *after* interrupts
//!    came on would take with them what an interrupt has raised in between.
//! 3. A softirq that raises itself, or interrupts that come faster than they are served, would keep the task out for ever.
//!    So a [`Budget`] ends the rounds, and what is left then goes to a task, which the scheduler weighs against others.
//!
//! Different CPUs serve the same vector at the same time. Work that is to run on one CPU at a time is a [`Tasklet`]: an
//! object with a function, of which any number share two vectors.
//!
//! The pending bits, and the places at which softirqs are served, are the platform's ([`Platform::raise_softirq`],
//! [`Platform::serve_softirqs`]); a platform gets [`serve`]'s loop from here.

mod tasklet;
mod tasklet_queue;
mod tasklet_state;

#[cfg(all(test, loom))]
#[path = "tasklet_models.rs"]
mod models;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use hal::Platform;

use crate::Cpu;
use crate::context::SoftirqGuard;

pub use tasklet::{Disabled, Running, Tasklet};
pub use tasklet_queue::TaskletQueue;

/// What a softirq is about. The order is that in which they are served.
///
/// Linux: `HI_SOFTIRQ` to `RCU_SOFTIRQ`, at the same numbers; what is about networks and disks there is about devices in
/// general here.
///
/// ```
/// use sync::softirq::Vector;
/// assert!(Vector::Timer < Vector::Tasklet);
/// assert_eq!(Vector::ALL.len(), 10);
/// assert_eq!(Vector::from_index(9), Some(Vector::Rcu));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Vector {
    /// Urgent tasklets. Linux: `HI_SOFTIRQ`.
    High,
    /// Timers of the wheel that have expired. Linux: `TIMER_SOFTIRQ`.
    Timer,
    /// Devices that can take more. Linux: `NET_TX_SOFTIRQ`.
    Output,
    /// Devices that have given something. Linux: `NET_RX_SOFTIRQ`.
    Input,
    /// Requests that devices have completed. Linux: `BLOCK_SOFTIRQ`.
    Complete,
    /// Devices that are polled. Linux: `IRQ_POLL_SOFTIRQ`.
    Poll,
    /// Tasklets. Linux: `TASKLET_SOFTIRQ`.
    Tasklet,
    /// Balancing the run queues. Linux: `SCHED_SOFTIRQ`.
    Balance,
    /// High-resolution timers. Linux: `HRTIMER_SOFTIRQ`.
    HighRes,
    /// Grace periods and callbacks. Linux: `RCU_SOFTIRQ`.
    Rcu,
}

impl Vector {
    /// How many there are.
    ///
    /// ```
    /// use sync::softirq::Vector;
    /// assert_eq!(Vector::from_index(Vector::COUNT as u32), None);
    /// ```
    pub const COUNT: usize = 10;

    /// All, in order.
    ///
    /// ```
    /// use sync::softirq::Vector;
    /// assert!(Vector::ALL.is_sorted());
    /// assert_eq!((Vector::ALL[0], Vector::ALL[9]), (Vector::High, Vector::Rcu));
    /// ```
    pub const ALL: [Vector; Vector::COUNT] = [
        Vector::High,
        Vector::Timer,
        Vector::Output,
        Vector::Input,
        Vector::Complete,
        Vector::Poll,
        Vector::Tasklet,
        Vector::Balance,
        Vector::HighRes,
        Vector::Rcu,
    ];

    /// The vector of that number.
    ///
    /// ```
    /// use sync::softirq::Vector;
    /// assert_eq!(Vector::from_index(0), Some(Vector::High));
    /// assert_eq!(Vector::from_index(10), None);
    /// ```
    pub const fn from_index(index: u32) -> Option<Vector> {
        Some(match index {
            0 => Vector::High,
            1 => Vector::Timer,
            2 => Vector::Output,
            3 => Vector::Input,
            4 => Vector::Complete,
            5 => Vector::Poll,
            6 => Vector::Tasklet,
            7 => Vector::Balance,
            8 => Vector::HighRes,
            9 => Vector::Rcu,
            _ => return None,
        })
    }

    /// Its number, which is also its bit's.
    ///
    /// ```
    /// use sync::softirq::Vector;
    /// assert!(Vector::ALL.iter().all(|vector| Vector::from_index(vector.index()) == Some(*vector)));
    /// ```
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The mask with its bit.
    ///
    /// ```
    /// use sync::softirq::Vector;
    /// assert_eq!(Vector::Timer.bit(), 1 << Vector::Timer.index());
    /// ```
    pub const fn bit(self) -> u32 {
        1 << self.index()
    }

    /// What tables call it.
    ///
    /// ```
    /// use std::collections::BTreeSet;
    /// use sync::softirq::Vector;
    /// let names: BTreeSet<_> = Vector::ALL.iter().map(|vector| vector.name()).collect();
    /// assert_eq!(names.len(), Vector::COUNT);
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Vector::High => "high",
            Vector::Timer => "timer",
            Vector::Output => "output",
            Vector::Input => "input",
            Vector::Complete => "complete",
            Vector::Poll => "poll",
            Vector::Tasklet => "tasklet",
            Vector::Balance => "balance",
            Vector::HighRes => "highres",
            Vector::Rcu => "rcu",
        }
    }

    /// The vectors whose bits are set, the most urgent first.
    ///
    /// ```
    /// use sync::softirq::Vector;
    /// let two = Vector::Rcu.bit() | Vector::Timer.bit();
    /// assert!(Vector::in_mask(two).eq([Vector::Timer, Vector::Rcu]));
    /// ```
    #[inline]
    pub fn in_mask(mask: u32) -> impl Iterator<Item = Vector> {
        let mut left = mask & ((1 << Vector::COUNT) - 1);
        core::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            // SAFETY: the number of a bit that is set, of which there are those of vectors only.
            let vector = unsafe { core::mem::transmute::<u8, Vector>(left.trailing_zeros() as u8) };
            left &= left - 1;
            Some(vector)
        })
    }
}

/// For how long softirqs are served in place of the task that they interrupt.
///
/// The first round always runs. Another one follows if fewer than `rounds` have run, less than `ns` nanoseconds have
/// passed since the end of the first, and no reschedule is due. A round ends when its handlers do, so the bound is what a
/// budget allows and one round more. The clock is not read unless there is a second round.
///
/// ```
/// use sync::softirq::Budget;
/// let short = Budget { ns: 200_000, ..Budget::USUAL };
/// assert_eq!(short.rounds, 10);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// The most rounds, at least 1.
    pub rounds: u32,
    /// See above.
    pub ns: u64,
}

impl Budget {
    /// 10 rounds, 2 ms. Linux: `MAX_SOFTIRQ_RESTART`, `MAX_SOFTIRQ_TIME`.
    ///
    /// ```
    /// use sync::softirq::Budget;
    /// assert_eq!(Budget::USUAL, Budget { rounds: 10, ns: 2_000_000 });
    /// ```
    pub const USUAL: Budget = Budget { rounds: 10, ns: 2_000_000 };
    /// What a task that serves softirqs does before it lets others run.
    ///
    /// ```
    /// use sync::softirq::Budget;
    /// assert_eq!(Budget::ONE_ROUND.rounds, 1);
    /// ```
    pub const ONE_ROUND: Budget = Budget { rounds: 1, ns: 0 };
}

/// Why [`serve`] returned.
///
/// ```
/// # use std::cell::Cell;
/// # use hal::{Native, Platform};
/// # use sync::context::{SoftirqGuard, enter_softirq};
/// use sync::softirq::{Budget, Ending, Source, serve};
///
/// struct Insatiable(Cell<u32>);
/// impl Source<Native> for Insatiable {
///     fn pending(&self) -> u32 { 1 }
///     fn take(&self) -> u32 { 1 }
///     fn run(&self, _: u32, _: &SoftirqGuard) { self.0.set(self.0.get() + 1) }
/// }
/// let source = Insatiable(Cell::new(0));
/// # Native::irq_disable();
/// # let serving = unsafe { enter_softirq() };
/// let ending = serve(&source, Budget { rounds: 3, ns: u64::MAX }, &serving);
/// # drop(serving);
/// # Native::irq_enable();
/// assert_eq!((ending, source.0.get()), (Ending::OutOfRounds, 3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Nothing is pending.
    Served,
    /// Softirqs are pending, and as many rounds as the budget allows have run.
    OutOfRounds,
    /// Softirqs are pending, and the time is up.
    OutOfTime,
    /// Softirqs are pending, and the task is to be replaced.
    RescheduleDue,
}

/// A CPU's pending softirqs, and what serves them.
///
/// ```
/// # use std::cell::Cell;
/// # use hal::{Native, Platform};
/// # use sync::context::{SoftirqGuard, enter_softirq};
/// use sync::softirq::{Budget, Ending, Source, Vector, serve};
///
/// struct Bits(Cell<u32>);
/// impl Source<Native> for Bits {
///     fn pending(&self) -> u32 { self.0.get() }
///     fn take(&self) -> u32 { self.0.take() }
///     fn run(&self, vectors: u32, _: &SoftirqGuard) { assert_eq!(vectors, Vector::Timer.bit()) }
/// }
/// let source = Bits(Cell::new(Vector::Timer.bit()));
/// # Native::irq_disable();
/// # let serving = unsafe { enter_softirq() };
/// assert_eq!(serve(&source, Budget::USUAL, &serving), Ending::Served);
/// # drop(serving);
/// # Native::irq_enable();
/// ```
pub trait Source<P: Platform> {
    /// What is pending, a bit for each vector. With interrupts off, that is exact.
    fn pending(&self) -> u32;
    /// Takes what is pending: it is not pending any more. Called with interrupts off.
    fn take(&self) -> u32;
    /// The same, called with interrupts on: what an interrupt raises meanwhile is taken or stays pending. One instruction may do;
    /// the default turns interrupts off.
    fn take_at_once(&self) -> u32 {
        P::irq_disable();
        let vectors = self.take();
        P::irq_enable();
        vectors
    }
    /// Runs the handlers of the vectors whose bits are set. Called with interrupts on.
    fn run(&self, vectors: u32, serving: &SoftirqGuard<P>);
}

/// Serves what is pending on this CPU, in rounds, until nothing is or the budget is used up.
///
/// Linux: `__do_softirq`. Contexts: serving softirqs, as the guard shows, with interrupts off, counted once. They are off
/// again when it returns. Cost without the handlers: two looks and one interrupt section for each round.
///
/// ```
/// use std::cell::Cell;
/// use hal::{Native, Platform};
/// use sync::context::{SoftirqGuard, enter_softirq};
/// use sync::softirq::{Budget, Ending, Source, Vector, serve};
///
/// struct Bits(Cell<u32>);
/// impl Source<Native> for Bits {
///     fn pending(&self) -> u32 {
///         self.0.get()
///     }
///     fn take(&self) -> u32 {
///         self.0.take()
///     }
///     fn run(&self, vectors: u32, _: &SoftirqGuard) {
///         assert_eq!(Native::irq_depth(), 0);
///         if vectors == Vector::Timer.bit() {
///             self.0.set(Vector::Rcu.bit()); // raised while serving: the next round's
///         }
///     }
/// }
/// Native::irq_disable();
/// // SAFETY: this is a task, which serves softirqs itself here; the guard goes before it goes on.
/// let serving = unsafe { enter_softirq() };
/// let bits = Bits(Cell::new(Vector::Timer.bit()));
/// assert_eq!(serve(&bits, Budget::ONE_ROUND, &serving), Ending::OutOfRounds);
/// assert_eq!(serve(&bits, Budget::USUAL, &serving), Ending::Served);
/// drop(serving);
/// Native::irq_enable();
/// ```
#[inline]
pub fn serve<P: Platform>(source: &impl Source<P>, budget: Budget, serving: &SoftirqGuard<P>) -> Ending {
    if serve_round(source, serving) { serve_further(source, budget, serving) } else { Ending::Served }
}

/// Serves what is pending on this CPU from a task whose bottom halves have just come on, which is likely to be one round: without
/// turning interrupts off and on for it. What is pending after that is served as by [`serve`], the first round counted.
/// If the budget ends it, `leave` is told why, with interrupts off and still serving.
///
/// Linux: `do_softirq` from `__local_bh_enable_ip`. Contexts: task, with interrupts and bottom halves on. Cost without the
/// handlers: a step to take what is pending and a look.
///
/// # Safety
/// As for [`enter_softirq`](crate::context::enter_softirq): the caller goes on when this returns.
///
/// ```
/// use std::cell::Cell;
/// use hal::Native;
/// use sync::context::SoftirqGuard;
/// use sync::softirq::{Budget, Ending, Source, Vector, serve_in_task};
///
/// struct Bits(Cell<u32>, Cell<u32>);
/// impl Source<Native> for Bits {
///     fn pending(&self) -> u32 {
///         self.0.get()
///     }
///     fn take(&self) -> u32 {
///         self.0.take()
///     }
///     fn run(&self, vectors: u32, _: &SoftirqGuard) {
///         self.1.set(self.1.get() + 1);
///         self.0.set(vectors); // raises itself
///     }
/// }
/// let bits = Bits(Cell::new(Vector::Timer.bit()), Cell::new(0));
/// let mut why = None;
/// # let sections = sync::preempt::disable();
/// // SAFETY: this is a task, which does nothing else meanwhile.
/// unsafe { serve_in_task(&bits, Budget { rounds: 3, ns: u64::MAX }, |ending, _| why = Some(ending)) };
/// assert_eq!((why, bits.1.get()), (Some(Ending::OutOfRounds), 3));
/// ```
#[inline(always)]
pub unsafe fn serve_in_task<P: Platform>(
    source: &impl Source<P>,
    budget: Budget,
    leave: impl FnOnce(Ending, &SoftirqGuard<P>),
) {
    // SAFETY: the caller's promise; dropped before this returns.
    let serving = unsafe { Cpu::<P>::enter_softirq() };
    source.run(source.take_at_once(), &serving);
    drop(serving);
    // Only now: an interrupt that raises something from here on finds that nobody serves, and does so itself.
    if source.pending() != 0 {
        // SAFETY: the caller's promise.
        unsafe { serve_rest(source, budget, leave) };
    }
}

/// What is pending after a round.
#[cold]
unsafe fn serve_rest<P: Platform>(
    source: &impl Source<P>,
    budget: Budget,
    leave: impl FnOnce(Ending, &SoftirqGuard<P>),
) {
    P::irq_disable();
    // SAFETY: passed on; dropped before this returns.
    let serving = unsafe { Cpu::<P>::enter_softirq() };
    // An interrupt may have served it.
    let ending = if source.pending() == 0 { Ending::Served } else { serve_further(source, budget, &serving) };
    if ending != Ending::Served {
        leave(ending, &serving);
    }
    drop(serving);
    P::irq_enable();
}

/// Serves what is pending at this moment. Returns whether there is something again.
#[inline(always)]
fn serve_round<P: Platform>(source: &impl Source<P>, serving: &SoftirqGuard<P>) -> bool {
    let vectors = source.take();
    if vectors == 0 {
        return false;
    }
    P::irq_enable();
    source.run(vectors, serving);
    P::irq_disable();
    source.pending() != 0
}

/// After the first round, which most often is the only one.
#[cold]
fn serve_further<P: Platform>(source: &impl Source<P>, budget: Budget, serving: &SoftirqGuard<P>) -> Ending {
    let mut rounds = 1;
    let mut end_ns = None;
    loop {
        if rounds >= budget.rounds {
            return Ending::OutOfRounds;
        }
        if P::context().resched_due() {
            return Ending::RescheduleDue;
        }
        let now = P::now_ns();
        if now >= *end_ns.get_or_insert(now.saturating_add(budget.ns)) {
            return Ending::OutOfTime;
        }
        if !serve_round(source, serving) {
            return Ending::Served;
        }
        rounds += 1;
    }
}
