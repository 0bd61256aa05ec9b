//! Which thread has which record, for each domain.

use core::cell::Cell;
use core::ptr::NonNull;
use std::boxed::Box;
use std::cell::RefCell;
use std::thread::LocalKey;
use std::vec::Vec;

use hal::{Native, Platform};
use sync::TaskCx;

use super::grace::{Instance, Stats};
use super::readers::Record;
use crate::domain::{Domain, check_may_wait};
use crate::head::{Callback, Head};
use crate::seq::Cookie;

/// A domain made by [`hosted_domain!`](crate::hosted_domain).
///
/// # Safety
/// Implemented by the macro alone: `instance` and `slot` are the domain's own.
pub unsafe trait HostedDomain: Domain<Platform = Native> {
    #[doc(hidden)]
    fn instance() -> &'static Instance<Native>;
    #[doc(hidden)]
    fn slot() -> &'static LocalKey<Slot>;

    /// What the domain has done and has to do.
    ///
    /// ```
    /// use rcu::{Domain, hosted::HostedDomain};
    /// rcu::hosted_domain! { struct Routes; }
    /// let reader = rcu::read::<Routes>();
    /// assert_eq!((Routes::stats().threads, Routes::stats().readers), (1, 1));
    /// ```
    fn stats() -> Stats {
        Self::instance().grace().stats(known::<Self>())
    }

    /// Does what is to be done for callbacks of this thread, and of threads that have ended: pushes the grace period, and
    /// calls what is ready. Never waits. For threads that queue few callbacks, at a quiet moment.
    ///
    /// Contexts: task; calls nothing where preemption, bottom halves or interrupts are off.
    ///
    /// ```
    /// use rcu::{Domain, RcuBox, Retired, hosted::HostedDomain};
    /// rcu::hosted_domain! { struct Routes; }
    /// Retired::<_, Routes>::new(RcuBox::new(7)).free_after_grace_period();
    /// assert_eq!(Routes::stats().callbacks, 1);
    /// Routes::work();
    /// assert_eq!(Routes::stats().callbacks, 0); // nobody reads
    /// ```
    fn work() {
        Self::instance().grace().work(record::<Self>());
    }

    /// Reports grace periods that have waited for their readers for so many ns, and again each time that this has become half
    /// as long again. 21 s if not set; `u64::MAX` for never. Who drives the period notices: somebody who waits, or who
    /// queues callbacks.
    ///
    /// ```
    /// use rcu::hosted::HostedDomain;
    /// rcu::hosted_domain! { struct Routes; }
    /// Routes::set_stall_ns(60_000_000_000);
    /// ```
    fn set_stall_ns(ns: u64) {
        Self::instance().grace().set_stall_ns(ns);
    }

    /// [`Domain::synchronize`] for programs without a [`TaskCx`]: what forbids waiting is noticed at run time only.
    ///
    /// ```
    /// use rcu::hosted::HostedDomain;
    /// rcu::hosted_domain! { struct Routes; }
    /// Routes::wait_for_readers();
    /// ```
    #[track_caller]
    fn wait_for_readers() {
        // SAFETY: the token is used here for one call, in which nobody else uses one of this thread; that nothing forbids
        // waiting is what the function looks for first.
        Self::synchronize(&mut unsafe { TaskCx::new() });
    }

    /// [`Domain::barrier`] for programs without a [`TaskCx`].
    ///
    /// ```
    /// use rcu::{RcuBox, Retired, hosted::HostedDomain};
    /// rcu::hosted_domain! { struct Routes; }
    /// drop(Retired::<_, Routes>::new(RcuBox::new(7)));
    /// Routes::wait_for_callbacks();
    /// assert_eq!(Routes::stats().callbacks, 0);
    /// ```
    #[track_caller]
    fn wait_for_callbacks() {
        // SAFETY: as in `wait_for_readers`.
        Self::barrier(&mut unsafe { TaskCx::new() });
    }
}

/// Where a thread keeps its record of one domain.
#[doc(hidden)]
pub struct Slot(Cell<&'static Record>);

/// The record of threads that have none yet. Never written to.
static NOBODY: Record = Record::nobody();

impl Slot {
    #[expect(clippy::new_without_default, reason = "the macro needs a constant")]
    pub const fn new() -> Slot {
        Slot(Cell::new(&NOBODY))
    }
}

#[inline(always)]
fn known<D: HostedDomain>() -> &'static Record {
    D::slot().with(|slot| slot.0.get())
}

/// This thread's record.
#[inline(always)]
fn record<D: HostedDomain>() -> &'static Record {
    let record = known::<D>();
    if record.is_nobody() { register::<D>() } else { record }
}

/// Makes this thread known to the domain.
#[cold]
fn register<D: HostedDomain>() -> &'static Record {
    // From here on light fences are cheap, if they can be.
    Native::fence_heavy();
    let readers = &D::instance().grace().readers;
    let record = readers.adopt().unwrap_or_else(|| {
        let record: &'static Record = Box::leak(Box::new(Record::new()));
        readers.publish(record);
        record
    });
    record.name_holder();
    D::slot().with(|slot| slot.0.set(record));
    // Fails in a thread that is ending: then the record stays this thread's for ever, idle, which harms nobody.
    let _ = AT_EXIT.try_with(|at_exit| at_exit.0.borrow_mut().push(forget::<D>));
    record
}

/// The thread ends.
fn forget<D: HostedDomain>() {
    let record = known::<D>();
    if record.is_reading() {
        // References may be left that its guard protects, with other threads. The domain goes on without freeing anything.
        std::eprintln!(
            "rcu: a thread ended in a read section of {}, by a leaked guard; its grace periods will never end",
            D::NAME
        );
        return;
    }
    D::slot().with(|slot| slot.0.set(&NOBODY));
    record.give_back();
}

std::thread_local! {
    /// What this thread has to do when it ends, for each domain that knows it.
    static AT_EXIT: AtExit = const { AtExit(RefCell::new(Vec::new())) };
}

struct AtExit(RefCell<Vec<fn()>>);

impl Drop for AtExit {
    fn drop(&mut self) {
        for forget in self.0.take() {
            forget();
        }
    }
}

#[doc(hidden)]
#[inline(always)]
pub fn read_lock<D: HostedDomain>() -> &'static Record {
    let record = known::<D>();
    if D::instance().grace().readers.enter(record) { record } else { read_lock_slowly::<D>() }
}

/// The first section of this thread, or a nested one.
#[cold]
#[inline(never)]
fn read_lock_slowly<D: HostedDomain>() -> &'static Record {
    let record = record::<D>();
    if !D::instance().grace().readers.enter(record) {
        record.nest();
    }
    record
}

/// # Safety
/// As for `Domain::read_unlock`.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn read_unlock<D: HostedDomain>(record: &'static Record) {
    D::instance().grace().readers.leave(record);
}

#[doc(hidden)]
pub fn is_reading<D: HostedDomain>() -> bool {
    known::<D>().is_reading()
}

/// # Safety
/// As for `Domain::call`.
#[doc(hidden)]
#[inline(always)]
#[track_caller]
pub unsafe fn call<D: HostedDomain>(head: NonNull<Head>, function: Callback) {
    // SAFETY: the contract.
    unsafe { D::instance().grace().call(record::<D>(), head, function) };
}

#[doc(hidden)]
#[track_caller]
pub fn synchronize<D: HostedDomain>(cx: &mut TaskCx) {
    check_may_wait::<D>("synchronize");
    let grace = D::instance().grace();
    grace.wait(grace.snapshot(), cx);
}

#[doc(hidden)]
#[track_caller]
pub fn barrier<D: HostedDomain>(cx: &mut TaskCx) {
    check_may_wait::<D>("barrier");
    D::instance().grace().barrier(record::<D>(), cx);
}

#[doc(hidden)]
pub fn get_state<D: HostedDomain>() -> Cookie {
    D::instance().grace().snapshot()
}

#[doc(hidden)]
pub fn start_poll<D: HostedDomain>() -> Cookie {
    let cookie = get_state::<D>();
    D::instance().grace().drive();
    cookie
}

#[doc(hidden)]
pub fn poll<D: HostedDomain>(state: Cookie) -> bool {
    D::instance().grace().poll(state)
}

/// Makes domains for programs on host threads: `hosted_domain! { pub struct Name; }`.
///
/// The type has no values. It implements [`Domain`] and
/// [`HostedDomain`].
///
/// ```
/// use rcu::{Domain, RcuBox, RcuOption};
///
/// rcu::hosted_domain! {
///     /// Protects the table of routes.
///     pub struct Routes;
/// }
/// static GATEWAY: RcuOption<RcuBox<u32>, Routes> = RcuOption::none();
///
/// GATEWAY.replace(Some(RcuBox::new(1)));
/// let reader = rcu::read();
/// assert_eq!(GATEWAY.load(&reader), Some(&1));
/// ```
#[macro_export]
macro_rules! hosted_domain {
    ($($(#[$meta:meta])* $vis:vis struct $Name:ident;)+) => {$(
        $(#[$meta])*
        $vis struct $Name($crate::macros::Infallible);

        const _: () = {
            use $crate::macros::{Callback, Cookie, Head, Native, NonNull, TaskCx, hosted};

            // SAFETY: one instance for one type; `hosted` argues for the guarantee.
            unsafe impl $crate::Domain for $Name {
                type Platform = Native;
                type Section = &'static hosted::Record;
                type State = Cookie;
                const NAME: &'static str = ::core::stringify!($Name);

                #[inline(always)]
                fn read_lock() -> &'static hosted::Record {
                    hosted::read_lock::<$Name>()
                }
                #[inline(always)]
                unsafe fn read_unlock(section: &'static hosted::Record) {
                    // SAFETY: the same contract.
                    unsafe { hosted::read_unlock::<$Name>(section) };
                }
                fn is_reading() -> bool {
                    hosted::is_reading::<$Name>()
                }
                #[inline(always)]
                #[track_caller]
                unsafe fn call(head: NonNull<Head>, function: Callback) {
                    // SAFETY: the same contract.
                    unsafe { hosted::call::<$Name>(head, function) };
                }
                #[track_caller]
                fn synchronize(cx: &mut TaskCx<Native>) {
                    hosted::synchronize::<$Name>(cx);
                }
                #[track_caller]
                fn barrier(cx: &mut TaskCx<Native>) {
                    hosted::barrier::<$Name>(cx);
                }
                fn get_state() -> Cookie {
                    hosted::get_state::<$Name>()
                }
                fn start_poll() -> Cookie {
                    hosted::start_poll::<$Name>()
                }
                fn poll(state: Cookie) -> bool {
                    hosted::poll::<$Name>(state)
                }
            }

            // SAFETY: this domain's own.
            unsafe impl hosted::HostedDomain for $Name {
                #[inline(always)]
                fn instance() -> &'static hosted::Instance<Native> {
                    static INSTANCE: hosted::Instance<Native> = hosted::Instance::new(::core::stringify!($Name));
                    &INSTANCE
                }
                #[inline(always)]
                fn slot() -> &'static $crate::macros::LocalKey<hosted::Slot> {
                    $crate::macros::thread_local! {
                        static SLOT: hosted::Slot = const { hosted::Slot::new() };
                    }
                    &SLOT
                }
            }
        };
    )+};
}
