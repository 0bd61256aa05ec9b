//! Grace periods for those who do not want to wait, or not yet.

use hal::Platform;

use super::{Due, Tree};
use crate::seq::Cookie;

/// Names a normal and an expedited grace period; either serves.
///
/// Linux: `struct rcu_gp_oldstate`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FullCookie {
    normal: Cookie,
    expedited: Cookie,
}

impl<P: Platform> Tree<'_, P> {
    /// Names the first grace period that begins from now on, without asking for it.
    ///
    /// Linux: `get_state_synchronize_rcu`. Contexts: any. A full memory barrier.
    #[inline]
    pub fn get_state(&self) -> Cookie {
        self.grace_periods.snapshot()
    }

    /// The same, and asks for it, on behalf of the executing CPU.
    ///
    /// Linux: `start_poll_synchronize_rcu`. Contexts: task, softirq, hardirq. Cost: the locks of the nodes on the way to
    /// the root as far as nobody has asked there.
    pub fn start_poll(&self, cpu: u32) -> (Cookie, Due) {
        let leaf = self.percpu(cpu).leaf;
        let state = self.lock(leaf);
        // After the lock: the grace period has not ended yet at this leaf, or the cookie names a later one.
        let cookie = self.grace_periods.snapshot();
        (cookie, self.request(leaf, state, cookie))
    }

    /// Whether the grace period of `cookie` has ended. If so, the call is a full memory barrier.
    ///
    /// Linux: `poll_state_synchronize_rcu`. Contexts: any.
    #[inline]
    pub fn poll(&self, cookie: Cookie) -> bool {
        self.grace_periods.done(cookie)
    }

    /// Names the first normal and the first expedited grace period that begin from now on.
    ///
    /// Linux: `get_state_synchronize_rcu_full`. Contexts: any. A full memory barrier.
    pub fn get_state_full(&self) -> FullCookie {
        FullCookie { normal: self.get_state(), expedited: self.expedited_state() }
    }

    /// The same, and asks for the normal one.
    ///
    /// Linux: `start_poll_synchronize_rcu_full`. Contexts and cost: as [`start_poll`](Tree::start_poll).
    pub fn start_poll_full(&self, cpu: u32) -> (FullCookie, Due) {
        let expedited = self.expedited_state();
        let (normal, due) = self.start_poll(cpu);
        (FullCookie { normal, expedited }, due)
    }

    /// Whether one of the two has ended. If so, the call is a full memory barrier.
    ///
    /// Linux: `poll_state_synchronize_rcu_full`. Contexts: any.
    pub fn poll_full(&self, cookie: FullCookie) -> bool {
        self.poll(cookie.normal) || self.expedited_done(cookie.expedited)
    }
}
