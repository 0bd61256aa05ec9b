//! A reference count that all CPUs count at once without meeting: one count a CPU, until somebody asks for the sum.
//!
//! One word that every CPU adds to is a cache line that every CPU waits for. But as long as an object is certain to stay
//! alive, because its creator has not let go of it yet, nobody needs to know whether the count is 0:
//!
//! 1. **Live**: each CPU adds and subtracts in a slot of its own. A reference may be made on one CPU and given up on
//!    another, so that single slots mean nothing and may be negative; their sum is the count.
//! 2. [`kill`](PerCpuRef::kill), by the creator, closes the slots one after the other: it swaps each one's value for a
//!    mark, and adds what was there to a shared count.
//! 3. An operation whose addition to its slot returns the mark has not been counted. It counts in the shared count
//!    instead. (What it added to the mark is forgotten; the mark is so far out that it stays one.)
//! 4. While slots are being closed the shared count is held up by a large bias, because it may be too low: references
//!    that it has seen given up may have been made in slots that it has not collected. Afterwards the bias goes, and
//!    with it the creator's reference. From here on the shared count is an ordinary one, and whoever brings it to 0 is
//!    told.
//!
//! Each operation is counted exactly once: in its slot if that was open at the moment of the addition, which the swap
//! then collects, or in the shared count. So nothing has to wait for operations that are in progress, and there is no
//! grace period.
//!
//! Linux: `percpu_ref`, which closes by an RCU grace period and so reads a flag and adds with an ordinary instruction,
//! where this adds with an atomic one that no other CPU contends for.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

use hal::percpu::{DynamicPerCpu, OutOfPerCpuSpace, Pinned};
use hal::platform::{Report, Severity};
use hal::{Native, Platform};

use crate::PreemptGuard;
use crate::primitives::{AtomicIsize, Ordering, const_fn, fence};

/// The mark of a closed slot. Values below `CLOSED / 2` are marks with what operations added to them since.
const CLOSED: isize = isize::MIN / 2;
/// What holds the shared count up while slots are open.
const BIAS: isize = isize::MAX / 2;
/// Above this the shared count is biased, or saturated.
const BIASED: isize = BIAS / 2;

/// The parts of the protocol that must hold, as constants, so that a model can break one and show that it matters.
trait Rules {
    /// Whether the shared count is held up while slots are being closed.
    const BIAS: isize = BIAS;
    /// How a slot is closed: swapped, or looked at and then stored to.
    const SWAP: bool = true;
    /// How references are given up.
    const PUT: Ordering = Ordering::Release;
    /// Whether an operation that meets a mark counts again, in the shared count.
    const COUNT_AGAIN: bool = true;
}

/// The protocol as described.
enum Sound {}

impl Rules for Sound {}

/// What is wrong with a count. Turned into a report by the public functions themselves: a closure would not know their
/// callers' lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    FromZero,
    Underflow,
    Killed,
    Revived(isize),
}

/// The shared count, and how operations divide between it and a slot.
///
/// # Invariants
/// References out = the sum of the open slots + `count` - (`BIAS` if a slot may be open).
struct Shared<R: Rules = Sound> {
    count: AtomicIsize,
    rules: PhantomData<fn() -> R>,
}

fn is_mark(value: isize) -> bool {
    value < CLOSED / 2
}

impl<R: Rules> Shared<R> {
    const_fn! {
        /// Live, with the creator's reference.
        fn new() -> Shared<R> {
            Shared { count: AtomicIsize::new(R::BIAS + 1), rules: PhantomData }
        }
    }

    #[inline]
    fn get(&self, slot: &AtomicIsize) -> Result<(), Fault> {
        // Relaxed: who makes a reference has one, through which it sees the object.
        if !is_mark(slot.fetch_add(1, Ordering::Relaxed)) {
            return Ok(());
        }
        self.get_shared()
    }

    #[cold]
    fn get_shared(&self) -> Result<(), Fault> {
        if !R::COUNT_AGAIN {
            return Ok(());
        }
        if self.count.fetch_add(1, Ordering::Relaxed) <= 0 {
            return Err(self.saturate(Fault::FromZero));
        }
        Ok(())
    }

    /// Unless the count is 0.
    #[inline]
    fn try_get(&self, slot: &AtomicIsize) -> bool {
        // Acquire: pairs with the Release in `revive`: the finder sees what was done to the object before.
        !is_mark(slot.fetch_add(1, Ordering::Acquire)) || self.try_get_shared()
    }

    #[cold]
    fn try_get_shared(&self) -> bool {
        let mut count = self.count.load(Ordering::Relaxed);
        while count > 0 {
            // Acquire: pairs with the Release of `put`, as in `RefCount`.
            match self.count.compare_exchange(count, count + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => count = now,
            }
        }
        false
    }

    /// Unless the slot is closed, which they all are when `kill` returns.
    #[inline]
    fn try_get_live(&self, slot: &AtomicIsize) -> bool {
        // Acquire: as in `try_get`.
        !is_mark(slot.fetch_add(1, Ordering::Acquire))
    }

    /// Whether that was the last reference.
    #[inline]
    fn put(&self, slot: &AtomicIsize) -> Result<bool, Fault> {
        // Release: pairs with the Acquire of the swap in `kill`, which hands on to the shared count.
        if !is_mark(slot.fetch_sub(1, R::PUT)) {
            return Ok(false);
        }
        self.put_shared(1)
    }

    #[cold]
    fn put_shared(&self, references: isize) -> Result<bool, Fault> {
        if !R::COUNT_AGAIN && references == 1 {
            return Ok(false);
        }
        // Release: pairs with the Acquire fence below, in the last `put`: what was done under these references happens
        // before the destruction. All changes of `count` are read-modify-writes and continue the release sequence.
        let was = self.count.fetch_sub(references, R::PUT);
        if was == references {
            // Acquire: pairs with the Release above, of everybody.
            fence(Ordering::Acquire);
            return Ok(true);
        }
        if was < references {
            return Err(self.saturate(Fault::Underflow));
        }
        Ok(false)
    }

    /// Closes the slots, collects what is in them, and gives the creator's reference up. Called once.
    fn kill<'a>(&self, slots: impl Iterator<Item = &'a AtomicIsize>) -> Result<bool, Fault> {
        for slot in slots {
            let was = if R::SWAP {
                // Acquire: pairs with the Release of each `put` in this slot. Release: what precedes the kill happens
                // before what is done by those who find the slot closed.
                slot.swap(CLOSED, Ordering::AcqRel)
            } else {
                let was = slot.load(Ordering::Acquire);
                slot.store(CLOSED, Ordering::Release);
                was
            };
            if !is_mark(was) {
                self.count.fetch_add(was, Ordering::Relaxed);
            }
        }
        self.put_shared(R::BIAS + 1)
    }

    /// From dead to live, with a reference for the caller, who alone has the object.
    fn revive<'a>(&self, slots: impl Iterator<Item = &'a AtomicIsize>) -> Result<(), Fault> {
        // Before the first slot opens, so that operations on slots that are still closed find the bias.
        // Release: pairs with the Acquire in `try_get_shared`.
        let was = self.count.compare_exchange(0, R::BIAS + 1, Ordering::Release, Ordering::Relaxed);
        if let Err(count) = was {
            return Err(Fault::Revived(count));
        }
        for slot in slots {
            // Release: pairs with the Acquire in `try_get`.
            slot.store(0, Ordering::Release);
        }
        Ok(())
    }

    #[cold]
    fn saturate(&self, fault: Fault) -> Fault {
        self.count.store(BIAS, Ordering::Relaxed);
        fault
    }
}

/// A count of references to an object that all CPUs use all the time.
///
/// Making and giving up a reference cost one atomic addition in a cache line that no other CPU touches, until
/// [`kill`](Self::kill); after it, one in a line that all share. The operations may be called in every context, unless
/// it says otherwise. It takes 16 bytes of each CPU's room for dynamic variables (see [`DynamicPerCpu`]).
///
/// CPUs that come up after the count was made, or last revived, count in the shared line.
///
/// Linux: `percpu_ref`. There is no callback: who gives up the last reference is told, as with
/// [`RefCount`](crate::RefCount).
///
/// ```
/// use sync::PerCpuRef;
///
/// let _cpu = hal::hosted::bind()?;
/// let refs = PerCpuRef::<hal::Native>::new()?;
/// refs.get();
/// assert!(!refs.kill(), "somebody still has a reference");
/// assert!(!refs.try_get_live(), "no new users");
/// assert!(refs.put(), "the last one: destroy the object");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PerCpuRef<P: Platform = Native> {
    shared: Shared,
    slots: DynamicPerCpu<AtomicIsize>,
    /// Whether `kill` has been called since the count was live.
    killed: crate::primitives::AtomicBool,
    platform: PhantomData<fn() -> P>,
}

impl<P: Platform> PerCpuRef<P> {
    /// A live count with one reference: the creator's, which [`kill`](Self::kill) gives up. Linux: `percpu_ref_init`.
    ///
    /// Contexts: task.
    ///
    /// # Errors
    /// [`OutOfPerCpuSpace`].
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// assert!(refs.try_get_live() && !refs.put());
    /// assert!(refs.kill(), "the creator's was the last one");
    /// ```
    pub fn new() -> Result<PerCpuRef<P>, OutOfPerCpuSpace> {
        // Closed at first, also for CPUs that come later, which may be after `kill`.
        let slots = DynamicPerCpu::new(|_cpu| AtomicIsize::new(CLOSED))?;
        for (_, slot) in slots.iter() {
            slot.store(0, Ordering::Relaxed);
        }
        Ok(PerCpuRef {
            shared: Shared::new(),
            slots,
            killed: crate::primitives::AtomicBool::new(false),
            platform: PhantomData,
        })
    }

    /// Makes a reference, for somebody who has one. Linux: `percpu_ref_get`.
    ///
    /// Reports `percpu_ref: increment on 0; use after free`, and then the object is never destroyed.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// refs.get();
    /// assert!(!refs.kill() && refs.put(), "two references, the creator's and this one");
    /// ```
    #[inline]
    #[track_caller]
    pub fn get(&self) {
        self.get_with(&PreemptGuard::<P>::new());
    }

    /// As [`get`](Self::get), for somebody who stays on its CPU anyway.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// refs.get_with(&sync::preempt::disable());
    /// assert!(!refs.kill() && refs.put());
    /// ```
    #[inline]
    #[track_caller]
    pub fn get_with(&self, pinned: &(impl Pinned + ?Sized)) {
        if let Err(fault) = self.shared.get(self.slots.get(pinned)) {
            report::<P>(fault);
        }
    }

    /// Makes a reference unless the last one has been given up; whether it did. Linux: `percpu_ref_tryget`.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// assert!(refs.try_get());
    /// assert!(!refs.put() && refs.kill());
    /// assert!(!refs.try_get(), "the last one is gone");
    /// ```
    #[inline]
    #[must_use = "without a reference the object may be destroyed at any time"]
    pub fn try_get(&self) -> bool {
        self.shared.try_get(self.slots.get(&PreemptGuard::<P>::new()))
    }

    /// Makes a reference unless the count has been killed; whether it did. While [`kill`](Self::kill) runs, either may
    /// be the answer; after it has returned it is no.
    ///
    /// Also no, on a CPU that came up after the count was made: there use [`try_get`](Self::try_get). Linux:
    /// `percpu_ref_tryget_live`.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// refs.get();
    /// assert!(!refs.kill());
    /// assert!(!refs.try_get_live() && refs.try_get(), "dying, but not dead");
    /// ```
    #[inline]
    #[must_use = "without a reference the object may be destroyed at any time"]
    pub fn try_get_live(&self) -> bool {
        self.shared.try_get_live(self.slots.get(&PreemptGuard::<P>::new()))
    }

    /// Gives a reference up; whether it was the last one, and the caller has to destroy the object. Never the last one
    /// before [`kill`](Self::kill) has returned, or is about to. Linux: `percpu_ref_put`.
    ///
    /// After the kill it reports `percpu_ref: underflow; use after free`, and then the object is never destroyed. Before
    /// it a reference that was given up twice cannot be told.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// refs.get();
    /// refs.get();
    /// assert!(!refs.put());
    /// assert!(!refs.kill());
    /// assert!(refs.put(), "after the kill one is the last");
    /// ```
    #[inline]
    #[track_caller]
    #[must_use = "whoever gives up the last reference destroys the object"]
    pub fn put(&self) -> bool {
        self.put_with(&PreemptGuard::<P>::new())
    }

    /// As [`put`](Self::put), for somebody who stays on its CPU anyway.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// refs.get();
    /// assert!(!refs.put_with(&sync::preempt::disable()));
    /// assert!(refs.kill());
    /// ```
    #[inline]
    #[track_caller]
    #[must_use = "whoever gives up the last reference destroys the object"]
    pub fn put_with(&self, pinned: &(impl Pinned + ?Sized)) -> bool {
        match self.shared.put(self.slots.get(pinned)) {
            Ok(answer) => answer,
            Err(fault) => {
                report::<P>(fault);
                false
            }
        }
    }

    /// Closes the CPUs' counts and gives the creator's reference up; whether it was the last one. From then on the
    /// count is a shared one, and [`put`](Self::put) tells who gives up the last.
    ///
    /// Linux: `percpu_ref_kill`, which does not wait either. Contexts: task, softirq. Cost: one exchange with each CPU's
    /// cache line. A second kill is reported, `percpu_ref: killed twice`, and ignored.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// assert!(refs.kill() && refs.is_killed());
    /// ```
    #[track_caller]
    #[must_use = "whoever gives up the last reference destroys the object"]
    pub fn kill(&self) -> bool {
        // Relaxed: one of two killers wins, whatever the ordering, and the other does nothing.
        let result = if self.killed.swap(true, Ordering::Relaxed) {
            Err(Fault::Killed)
        } else {
            self.shared.kill(self.slots.iter().map(|(_, slot)| slot))
        };
        match result {
            Ok(answer) => answer,
            Err(fault) => {
                report::<P>(fault);
                false
            }
        }
    }

    /// Makes a count live again that was killed and has reached 0, with one reference for the caller.
    ///
    /// Linux: `percpu_ref_reinit`. Contexts: task. If references are out it reports `percpu_ref: revived with N
    /// references`, and does nothing.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// assert!(refs.kill());
    /// refs.revive();
    /// assert!(refs.try_get_live());
    /// ```
    #[track_caller]
    pub fn revive(&self) {
        let slots = self.slots.iter().map(|(_, slot)| slot);
        match self.shared.revive(slots) {
            Ok(()) => self.killed.store(false, Ordering::Relaxed),
            Err(fault) => report::<P>(fault),
        }
    }

    /// Whether [`kill`](Self::kill) has been called; out of date at once. Linux: `percpu_ref_is_dying`.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind().unwrap();
    /// let refs = sync::PerCpuRef::<hal::Native>::new().unwrap();
    /// assert!(!refs.is_killed());
    /// assert!(refs.kill() && refs.is_killed());
    /// ```
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

#[cold]
#[track_caller]
fn report<P: Platform>(fault: Fault) {
    let report = |message: fmt::Arguments<'_>, at| {
        P::report(&Report { severity: Severity::Bug, message, location: at });
    };
    let at = Location::caller();
    match fault {
        Fault::FromZero => report(format_args!("percpu_ref: increment on 0; use after free"), at),
        Fault::Underflow => report(format_args!("percpu_ref: underflow; use after free"), at),
        Fault::Killed => report(format_args!("percpu_ref: killed twice"), at),
        Fault::Revived(count) if count > BIASED => {
            report(format_args!("percpu_ref: revived while it was live"), at);
        }
        Fault::Revived(count) => report(format_args!("percpu_ref: revived with {count} references"), at),
    }
}

impl<P: Platform> fmt::Debug for PerCpuRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerCpuRef").field("is_killed", &self.is_killed()).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
#[path = "percpu_ref_models.rs"]
mod models;
