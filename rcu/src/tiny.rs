//! Grace periods on one CPU with readers that are not preempted.
//!
//! 1. A reader runs with preemption off. So whenever the CPU is seen outside of such a section, in a context switch or in
//!    idle, there is no reader, anywhere: that moment, a *quiescent state*, is the end of every grace period.
//! 2. Callbacks hang in one list, oldest first, with two marks: up to `done` a quiescent state has come since they were
//!    queued; `last` is the newest. A quiescent state moves `done` up to `last` and raises the RCU softirq.
//! 3. The softirq takes the done ones into a list of its own, with interrupts off, and calls them, with bottom halves
//!    off; of each it reads the next before the call, which may free the object or queue it again.
//! 4. `synchronize` waits for nobody: where sleeping is allowed there is no reader.
//!
//! A timer tick is a quiescent state only if it interrupted idle: it may have interrupted a reader. A tick that finds
//! callbacks waiting and may not end their grace period asks for a reschedule, which will.
//!
//! Linux: `kernel/rcu/tiny.c`.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use hal::Platform;
use sync::{Cpu, TaskCx};

use crate::head::{Callback, Head};
use crate::primitives::{AtomicU32, AtomicUsize, Ordering, const_fn, fence};

/// What [`Tiny`] asks of the kernel around it.
#[derive(Clone, Copy, Debug)]
pub struct TinyHooks {
    /// The softirq that calls [`Tiny::process`].
    pub softirq: u32,
    /// Whether the idle task is running, or was interrupted. It ends no grace period by itself, so that it is asked to
    /// reschedule when something waits for one.
    pub is_idle: fn() -> bool,
}

/// Grace periods and callbacks of a machine with one CPU. [`tiny_domain!`](crate::tiny_domain) makes a
/// [`Domain`](crate::Domain) of it.
///
/// Refused, by a panic at the first use, where the platform can have a second CPU.
///
/// The kernel calls [`quiescent_state`](Tiny::quiescent_state) at each context switch and when it is idle,
/// [`tick`](Tiny::tick) at each timer tick, and [`process`](Tiny::process) in the softirq.
pub struct Tiny<P: Platform> {
    hooks: TinyHooks,
    list: UnsafeCell<List>,
    /// Grace periods that have ended; it wraps.
    periods: AtomicUsize,
    /// Callbacks that have been called; it wraps.
    called: AtomicUsize,
    /// Read sections that the executing code is in. Kept in debug builds, to name what is wrong.
    nesting: AtomicU32,
    platform: PhantomData<fn() -> P>,
}

/// All callbacks, oldest first.
struct List {
    first: Option<NonNull<Head>>,
    /// The last one whose grace period has passed.
    done: Option<NonNull<Head>>,
    last: Option<NonNull<Head>>,
    len: usize,
}

// SAFETY: there is one CPU (`check_cpus`), and `list` is used with its interrupts off.
unsafe impl<P: Platform> Sync for Tiny<P> {}
// SAFETY: as above; callbacks run on any thread by `call`'s contract.
unsafe impl<P: Platform> Send for Tiny<P> {}

/// The name of a moment, of a [`Tiny`] domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TinyState(usize);

impl<P: Platform> Tiny<P> {
    const_fn! {
        /// No callbacks.
        pub fn new(hooks: TinyHooks) -> Tiny<P> {
            Tiny {
                hooks,
                list: UnsafeCell::new(List { first: None, done: None, last: None, len: 0 }),
                periods: AtomicUsize::new(0_usize.wrapping_sub(256)),
                called: AtomicUsize::new(0),
                nesting: AtomicU32::new(0),
                platform: PhantomData,
            }
        }
    }

    #[track_caller]
    fn check_cpus() {
        assert!(
            P::cpu_count() == 1,
            "rcu::tiny serves one CPU, and this platform can have {}; use a domain for several",
            P::cpu_count()
        );
    }

    /// Uses the list with interrupts off.
    fn with<T>(&self, f: impl FnOnce(&mut List) -> T) -> T {
        let _off = Cpu::<P>::disable_interrupts();
        // SAFETY: one CPU, interrupts off, and `f` does not come back here: nobody else is at it. (Not for NMIs.)
        f(unsafe { &mut *self.list.get() })
    }

    /// Begins a read section. Contexts: any. Cost: that of `preempt_disable`.
    #[inline(always)]
    pub fn read_lock(&self) {
        P::preempt_disable();
        if cfg!(debug_assertions) {
            self.nesting.store(self.nesting.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Ends a read section: a preemption point.
    ///
    /// # Safety
    /// One was begun by this execution and has not been ended.
    #[inline(always)]
    pub unsafe fn read_unlock(&self) {
        if cfg!(debug_assertions) {
            self.nesting.store(self.nesting.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
        P::preempt_enable();
    }

    /// Whether the executing code is in a read section. Release builds do not know and answer `false`.
    pub fn is_reading(&self) -> bool {
        self.nesting.load(Ordering::Relaxed) != 0
    }

    /// Queues a callback. From the idle task it asks for a reschedule, whose context switch is a quiescent state.
    ///
    /// Contexts: any but NMI. Cost: O(1), interrupts are off for a few instructions.
    ///
    /// # Safety
    /// As for [`Domain::call`](crate::Domain::call).
    #[track_caller]
    pub unsafe fn call(&self, head: NonNull<Head>, function: Callback) {
        Self::check_cpus();
        // SAFETY: the contract.
        if !unsafe { Head::prepare::<P>(head, function) } {
            return;
        }
        self.with(|list| {
            match list.last {
                // SAFETY: both are in the list.
                Some(last) => unsafe { Head::set_next(last, Some(head)) },
                None => list.first = Some(head),
            }
            list.last = Some(head);
            list.len += 1;
        });
        self.ask_if_idle();
    }

    fn ask_if_idle(&self) {
        if (self.hooks.is_idle)() {
            P::set_need_resched(P::cpu());
        }
    }

    /// Says that the CPU is outside of all read sections: every callback that is queued is done. Returns whether some have
    /// waited for this.
    ///
    /// Called by the kernel in a context switch, and where it idles. Contexts: any but NMI, outside of read sections.
    /// Linux: `rcu_qs`.
    pub fn quiescent_state(&self) -> bool {
        Self::check_cpus();
        debug_assert!(!self.is_reading(), "rcu: a quiescent state inside of a read section");
        let any = self.with(|list| {
            self.periods.store(self.periods.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            let any = list.done != list.last;
            list.done = list.last;
            any
        });
        if any {
            P::raise_softirq(self.hooks.softirq);
        }
        any
    }

    /// A timer tick. `interrupted_idle`: it interrupted the idle task outside of every interrupt handler, softirq and
    /// section. Contexts: the tick's handler. Linux: `rcu_sched_clock_irq`.
    pub fn tick(&self, interrupted_idle: bool) {
        if interrupted_idle {
            self.quiescent_state();
        } else if self.with(|list| list.done != list.last) {
            P::set_need_resched(P::cpu());
        }
    }

    /// Calls the callbacks whose grace periods have passed. Returns how many.
    ///
    /// Contexts: the softirq, or a task that has bottom halves on. Linux: `rcu_process_callbacks`.
    pub fn process(&self) -> usize {
        let mut next = self.with(|list| {
            let done = list.done.take()?;
            let first = list.first;
            // SAFETY: in the list. What follows stays there.
            list.first = unsafe { Head::next(done) };
            // SAFETY: as above; it becomes the end of the list that is taken out.
            unsafe { Head::set_next(done, None) };
            if list.first.is_none() {
                list.last = None;
            }
            first
        });
        let mut calls = 0;
        let no_softirqs = Cpu::<P>::disable_bottom_halves();
        while let Some(head) = next {
            // SAFETY: taken out above. Read before the call, after which the head may be gone.
            next = unsafe { Head::next(head) };
            // SAFETY: a quiescent state has come since it was queued, and bottom halves are off.
            unsafe { Head::invoke(head) };
            calls += 1;
        }
        drop(no_softirqs);
        self.with(|list| list.len -= calls);
        self.called.store(self.called.load(Ordering::Relaxed).wrapping_add(calls), Ordering::Relaxed);
        calls
    }

    /// `synchronize`, after [`check_may_wait`](crate::domain::check_may_wait): there is no reader. Reschedules if that is
    /// due. A full memory barrier.
    pub fn synchronize(&self, cx: &mut TaskCx<P>) {
        Self::check_cpus();
        fence(Ordering::SeqCst);
        self.quiescent_state();
        cx.cond_resched();
        fence(Ordering::SeqCst);
    }

    /// Calls all callbacks that are queued. Nobody else can be in the middle of calling some: who calls them is not
    /// preempted, and the caller is a task.
    pub fn barrier(&self, cx: &mut TaskCx<P>) {
        self.synchronize(cx);
        self.process();
    }

    /// Names this moment.
    pub fn get_state(&self) -> TinyState {
        TinyState(self.periods.load(Ordering::Relaxed))
    }

    /// Names this moment, and asks for a reschedule if the CPU is idle.
    pub fn start_poll(&self) -> TinyState {
        let state = self.get_state();
        self.ask_if_idle();
        state
    }

    /// Whether a quiescent state has come since then.
    pub fn poll(&self, state: TinyState) -> bool {
        self.get_state() != state
    }

    /// How many callbacks are queued, one after the other: those whose grace periods have passed, and the others. Those that
    /// are being called are in neither. Cost: O(n), with interrupts off.
    pub fn backlog(&self) -> [usize; 2] {
        self.with(|list| {
            let (mut counts, mut at, mut passed) = ([0; 2], list.first, list.done.is_some());
            while let Some(head) = at {
                counts[usize::from(!passed)] += 1;
                passed &= list.done != Some(head);
                // SAFETY: in the list.
                at = unsafe { Head::next(head) };
            }
            counts
        })
    }

    /// How many callbacks have not been called yet.
    pub fn waiting(&self) -> usize {
        self.with(|list| list.len)
    }
}

impl<P: Platform> fmt::Debug for Tiny<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiny")
            .field("waiting", &self.waiting())
            .field("called", &self.called.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// Makes a domain of a [`Tiny`]: `tiny_domain! { pub struct Name(Platform) = hooks; }`.
///
/// The type has an associated function `tiny()`, by which the kernel reaches the instance. Its readers are all sections
/// with preemption, bottom halves or interrupts off, so that the guards of these are [`Proof`](crate::Proof)s.
///
/// ```
/// use rcu::tiny::TinyHooks;
/// rcu::tiny_domain! {
///     /// The kernel's.
///     pub struct Kernel(hal::Native) = TinyHooks { softirq: 9, is_idle: || false };
/// }
/// assert_eq!(Kernel::tiny().waiting(), 0);
/// ```
#[macro_export]
macro_rules! tiny_domain {
    ($($(#[$meta:meta])* $vis:vis struct $Name:ident($Platform:ty) = $hooks:expr;)+) => {$(
        $(#[$meta])*
        $vis struct $Name($crate::macros::Infallible);

        impl $Name {
            /// The one instance.
            #[inline(always)]
            $vis fn tiny() -> &'static $crate::tiny::Tiny<$Platform> {
                static TINY: $crate::tiny::Tiny<$Platform> = $crate::tiny::Tiny::new($hooks);
                &TINY
            }
        }

        const _: () = {
            use $crate::domain::check_may_wait;
            use $crate::macros::{Callback, Head, NonNull, TaskCx};
            use $crate::tiny::TinyState;

            // SAFETY: readers run with preemption off, on the only CPU, so that there is none when the kernel says that it
            // is switching tasks or idle. Callbacks are called after that.
            unsafe impl $crate::Domain for $Name {
                type Platform = $Platform;
                type Section = ();
                type State = TinyState;
                const NAME: &'static str = ::core::stringify!($Name);

                #[inline(always)]
                fn read_lock() {
                    $Name::tiny().read_lock();
                }
                #[inline(always)]
                unsafe fn read_unlock(_: ()) {
                    // SAFETY: the same contract.
                    unsafe { $Name::tiny().read_unlock() };
                }
                fn is_reading() -> bool {
                    $Name::tiny().is_reading()
                }
                #[track_caller]
                unsafe fn call(head: NonNull<Head>, function: Callback) {
                    // SAFETY: the same contract.
                    unsafe { $Name::tiny().call(head, function) };
                }
                #[track_caller]
                fn synchronize(cx: &mut TaskCx<$Platform>) {
                    check_may_wait::<$Name>("synchronize");
                    $Name::tiny().synchronize(cx);
                }
                #[track_caller]
                fn barrier(cx: &mut TaskCx<$Platform>) {
                    check_may_wait::<$Name>("barrier");
                    $Name::tiny().barrier(cx);
                }
                fn get_state() -> TinyState {
                    $Name::tiny().get_state()
                }
                fn start_poll() -> TinyState {
                    $Name::tiny().start_poll()
                }
                fn poll(state: TinyState) -> bool {
                    $Name::tiny().poll(state)
                }
            }
            // SAFETY: no context switch and no idling comes in the middle of such a section.
            unsafe impl $crate::AtomicReaders for $Name {}
        };
    )+};
}

#[cfg(all(test, not(loom)))]
#[path = "tiny_tests.rs"]
mod tests;
