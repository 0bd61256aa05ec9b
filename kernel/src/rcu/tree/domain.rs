//! The kernel's domain, as `rcu`'s pointers and guards know it.

use core::ptr::NonNull;

use ::rcu::domain::check_may_wait;
use ::rcu::{AtomicReaders, Callback, Cookie, Domain, Head};
use hal::x86_64::reader;
use hal::{Native, Platform};
use sync::TaskCx;

use super::{PREEMPTIBLE, act, callbacks, grace, readers, tree};

/// The readers of this machine, and their grace periods.
///
/// Regions in which preemption, bottom halves or interrupts are off are sections too, so that their guards, and those of
/// spin locks, serve as proof.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {}

// SAFETY: the tree's guarantee, as long as it is told the truth: a CPU reports only where the running task is in no
// section (`events`, `readers`), tasks that are preempted in one are entered, CPUs that idle leave that state before
// anything there can read. Callbacks are called once each by `run_ready`; barriers are the tree's.
unsafe impl Domain for Kernel {
    type Platform = Native;
    type Section = ();
    type State = Cookie;

    const NAME: &'static str = "kernel";

    #[inline(always)]
    fn read_lock() {
        if PREEMPTIBLE { reader::enter() } else { Native::preempt_disable() }
    }

    #[inline(always)]
    unsafe fn read_unlock((): ()) {
        if PREEMPTIBLE { reader::leave(readers::attend) } else { Native::preempt_enable() }
    }

    fn is_reading() -> bool {
        if PREEMPTIBLE { reader::depth() != 0 } else { Native::context().preempt_depth() != 0 }
    }

    #[inline]
    #[track_caller]
    unsafe fn call(head: NonNull<Head>, function: Callback) {
        // SAFETY: the same contract.
        unsafe { callbacks::call(head, function) }
    }

    #[inline]
    #[track_caller]
    unsafe fn call_lazy(head: NonNull<Head>, function: Callback) {
        // SAFETY: the same contract.
        unsafe { callbacks::call_lazy(head, function) }
    }

    #[track_caller]
    fn synchronize(cx: &mut TaskCx) {
        check_may_wait::<Kernel>("synchronize");
        grace::synchronize(cx);
    }

    #[track_caller]
    fn synchronize_expedited(cx: &mut TaskCx) {
        check_may_wait::<Kernel>("synchronize_expedited");
        grace::synchronize_expedited(cx);
    }

    #[track_caller]
    fn barrier(cx: &mut TaskCx) {
        check_may_wait::<Kernel>("barrier");
        grace::barrier(cx);
    }

    fn get_state() -> Cookie {
        tree().get_state()
    }

    fn start_poll() -> Cookie {
        let here = sync::irq::disable();
        let (cookie, due) = tree().start_poll(here.cpu().as_u32());
        act(due);
        cookie
    }

    fn poll(state: Cookie) -> bool {
        tree().poll(state)
    }
}

// SAFETY: CPUs do not report from inside of regions without preemption, bottom halves or interrupts: the scheduler does not
// switch in them, a tick that hits one does not count, and `readers::attend` waits for their end.
unsafe impl AtomicReaders for Kernel {}
