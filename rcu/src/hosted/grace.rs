//! Grace periods, driven by whoever wants one.
//!
//! 1. There is no thread for grace periods. Who waits for one takes the *driver's seat*, if it is free: starts a round if
//!    none runs, looks at the readers once, and ends the round if all have passed. Otherwise it leaves the seat, the round
//!    running, and comes back later.
//! 2. A thread that queues callbacks does the same, once for every [`BATCH`] of them. Then it calls what has become ready,
//!    as a softirq that comes at this place would: with bottom halves off, and not at all if the place forbids softirqs.
//! 3. So the costs of a grace period, its system call above all, are shared by a batch, and a thread that gives up many
//!    objects pays for them itself.

use core::marker::PhantomData;
use core::panic::Location;
use core::ptr::{self, NonNull};

use hal::Platform;
use hal::platform::{Report, Severity};
use sync::{Cpu, TaskCx};

use super::callbacks::{By, Chain, Queue};
use super::readers::{Awaited, Readers, Record, Rules, Sound};
use super::stalls::Stalls;
use crate::head::{Callback, Head};
use crate::pause::Pause;
use crate::primitives::{AtomicBool, Ordering, const_fn};
use crate::seq::{Cookie, Sequence};

/// So many new callbacks make their thread look after grace periods.
const BATCH: usize = 256;
/// The most callbacks that are called at one place: more than a batch, so that what has piled up becomes less.
const MOST_CALLED: usize = 4 * BATCH;
/// Everything that one hosted domain consists of.
pub struct Instance<P: Platform> {
    grace: Grace<P, Sound>,
}

/// The same, with rules that models can break.
pub(super) struct Grace<P, R> {
    pub(super) readers: Readers<P, R>,
    rounds: Sequence,
    /// Somebody is in the driver's seat.
    driven: AtomicBool,
    stalls: Stalls,
    /// For reports.
    name: &'static str,
    marker: PhantomData<fn() -> R>,
}

/// What a hosted domain has done and has to do. Numbers of different moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Grace periods that have ended.
    pub grace_periods: usize,
    /// Threads that have used the domain and are alive.
    pub threads: usize,
    /// Threads that are in a read section.
    pub readers: usize,
    /// Callbacks that have not been called.
    pub callbacks: usize,
}

impl<P: Platform> Instance<P> {
    const_fn! {
        /// A domain that nobody uses yet.
        #[doc(hidden)]
        pub fn new(name: &'static str) -> Instance<P> {
            Instance { grace: Grace::new(name) }
        }
    }

    pub(super) fn grace(&self) -> &Grace<P, Sound> {
        &self.grace
    }
}

impl<P: Platform, R: Rules> Grace<P, R> {
    const_fn! {
        pub(super) fn new(name: &'static str) -> Grace<P, R> {
            Grace {
                readers: Readers::new(),
                rounds: Sequence::new(),
                driven: AtomicBool::new(false),
                stalls: Stalls::new(),
                name,
                marker: PhantomData,
            }
        }
    }

    pub(super) fn snapshot(&self) -> Cookie {
        self.rounds.snapshot()
    }

    /// Whether the grace period has ended. If not, gives it a push.
    pub(super) fn poll(&self, cookie: Cookie) -> bool {
        self.rounds.done(cookie) || (self.drive() && self.rounds.done(cookie))
    }

    /// One turn in the driver's seat. Returns whether a grace period ended in it.
    pub(super) fn drive(&self) -> bool {
        // Acquire: pairs with the Release below: one driver's turn comes after the other's.
        if self.driven.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        P::chaos_point();
        if !self.rounds.is_running() {
            self.rounds.start();
            self.readers.raise();
        }
        P::chaos_point();
        let ended = self.readers.all_passed();
        if ended {
            self.rounds.end();
            self.stalls.over();
        } else if let Some(waited_ns) = self.stalls.look(P::now_ns()) {
            self.report_stall(waited_ns);
        }
        // Release: pairs with the Acquire above.
        self.driven.store(false, Ordering::Release);
        ended
    }

    /// Reports grace periods that have waited so long.
    pub(super) fn set_stall_ns(&self, ns: u64) {
        self.stalls.set_limit(ns);
    }

    #[cold]
    fn report_stall(&self, waited_ns: u64) {
        P::report(&Report {
            severity: Severity::Warning,
            message: format_args!(
                "rcu: {} stalls: grace period {} has waited {} ms for {}",
                self.name,
                self.rounds.completed() + 1,
                waited_ns / 1_000_000,
                Awaited(&self.readers),
            ),
            location: Location::caller(),
        });
    }

    /// Waits for the grace period.
    pub(super) fn wait(&self, cookie: Cookie, cx: &mut TaskCx<P>) {
        let mut pause = Pause::new();
        while !self.poll(cookie) {
            pause.once(cx);
        }
    }

    /// Queues a callback of the thread that has `record`, and does its share of the work when it is due.
    ///
    /// # Safety
    /// `Domain::call`'s contract.
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn call(&self, record: &Record, head: NonNull<Head>, function: Callback) {
        // SAFETY: the contract.
        let is_new = unsafe { Head::prepare::<P>(head, function) };
        if !is_new {
            return;
        }
        // SAFETY: prepared just now.
        let new = unsafe { record.queue.push::<P>(head) };
        if new.is_multiple_of(BATCH) {
            self.work(record);
        }
    }

    /// Moves grace periods and callbacks on, those of ended threads too.
    #[cold]
    pub(super) fn work(&self, record: &Record) {
        record.queue.advance::<P>(By::Owner, &self.rounds);
        if self.drive() {
            record.queue.advance::<P>(By::Owner, &self.rounds);
        }
        if softirqs_may_come::<P>() {
            self.call_ready(record, &record.queue, By::Owner);
            for left in self.readers.records().filter(|other| !other.is_in_use()) {
                left.queue.advance::<P>(By::Another, &self.rounds);
                self.call_ready(record, &left.queue, By::Another);
            }
        }
    }

    /// Calls some of the ready callbacks of `queue`, in the name of the thread that has `record`.
    fn call_ready(&self, record: &Record, queue: &Queue, by: By) {
        let calling = Calling::<P>::begin(&record.queue);
        // SAFETY: ready ones: their grace periods have passed.
        unsafe { calling.call(queue.take_ready::<P>(by, MOST_CALLED)) };
    }

    /// Returns when all callbacks that were queued before have been called. `record` is that of the executing thread.
    pub(super) fn barrier(&self, record: &Record, cx: &mut TaskCx<P>) {
        let calling = Calling::<P>::begin(&record.queue);
        let mut all = Chain::new();
        for other in self.readers.records() {
            let by = if ptr::eq(other, record) { By::Owner } else { By::Another };
            all.append(&mut other.queue.take_all::<P>(by));
        }
        if !all.is_empty() {
            self.wait(self.snapshot(), cx);
        }
        // SAFETY: a grace period has passed since they were taken out of the queues.
        unsafe { calling.call(all) };
        // What was not in a queue any more was taken out by a thread that had announced itself before. Its announcement is
        // seen here, after having been inside of that queue.
        for other in self.readers.records() {
            if let Some(calling) = other.queue.is_calling() {
                let mut pause = Pause::new();
                while other.queue.is_calling() == Some(calling) {
                    pause.once(cx);
                }
            }
        }
    }

    /// `record` is that of the executing thread.
    pub(super) fn stats(&self, record: &Record) -> Stats {
        let records = || self.readers.records();
        let waiting = |other: &Record| {
            other.queue.len::<P>(if ptr::eq(other, record) { By::Owner } else { By::Another })
        };
        Stats {
            grace_periods: self.rounds.completed(),
            threads: records().filter(|record| record.is_in_use()).count(),
            readers: records().filter(|record| record.is_reading()).count(),
            callbacks: records().map(waiting).sum(),
        }
    }
}

/// Whether a softirq could interrupt the executing code at this place, and no preempt-off section is in the way. Inside of
/// a callback it could not.
fn softirqs_may_come<P: Platform>() -> bool {
    P::context().count() == 0 && P::irq_depth() == 0
}

/// This thread is calling callbacks. Announced from before they are taken out of a queue until they have been called.
struct Calling<'a, P: Platform> {
    own: &'a Queue,
    platform: PhantomData<fn() -> P>,
}

impl<'a, P: Platform> Calling<'a, P> {
    fn begin(own: &'a Queue) -> Calling<'a, P> {
        own.begin_calling();
        Calling { own, platform: PhantomData }
    }

    /// Calls them all and ends the announcement.
    ///
    /// # Safety
    /// Their grace periods have passed, and softirqs may come here.
    unsafe fn call(self, chain: Chain) {
        /// What is left of the callbacks when one of them panics.
        struct Rest<'a, P: Platform>(&'a Queue, Chain, PhantomData<fn() -> P>);
        impl<P: Platform> Drop for Rest<'_, P> {
            fn drop(&mut self) {
                if !self.1.is_empty() {
                    self.0.put_back::<P>(&mut self.1);
                }
            }
        }
        if chain.is_empty() {
            return;
        }
        let mut rest = Rest(self.own, chain, PhantomData::<fn() -> P>);
        let _no_softirqs = Cpu::<P>::disable_bottom_halves();
        while let Some(head) = rest.1.pop() {
            // SAFETY: the contract; taken out just now.
            unsafe { Head::invoke(head) };
        }
    }
}

impl<P: Platform> Drop for Calling<'_, P> {
    fn drop(&mut self) {
        self.own.end_calling();
    }
}
