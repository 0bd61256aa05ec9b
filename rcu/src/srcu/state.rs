//! What a domain has done and has to do, and its end.

use core::fmt;
use core::sync::atomic::Ordering;

use hal::Platform;
use sync::TaskCx;

use super::{Driver, Srcu, stall};
use crate::domain::what_forbids_waiting;

impl<P: Platform, D: Driver> Srcu<P, D> {
    /// How many sections there are, at no particular moment: exact if none begins or ends meanwhile.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// let (a, _b) = (plugins.read(), plugins.read());
    /// drop(a);
    /// assert_eq!(plugins.readers(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readers(&self) -> usize {
        let ended = self.sum(2).wrapping_add(self.sum(3));
        self.sum(0).wrapping_add(self.sum(1)).wrapping_sub(ended)
    }

    /// Who is told when there is work.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let plugins = rcu::Srcu::<hal::Native, _>::with_driver("plugins", rcu::srcu::Visitors)?;
    /// let _: &rcu::srcu::Visitors = plugins.driver();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// How many callbacks wait. Out of date at once.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// assert_eq!(rcu::Srcu::<hal::Native>::new("plugins")?.callbacks(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn callbacks(&self) -> usize {
        self.core.waiting()
    }

    /// How many grace periods have ended.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// assert_eq!(rcu::Srcu::<hal::Native>::new("plugins")?.grace_periods(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn grace_periods(&self) -> usize {
        self.core.machine.rounds.completed()
    }

    /// Reports grace periods that have waited for their readers for so many ns, and again each time that this has become
    /// half as long again. 21 s if not set; `u64::MAX` for never. Who drives the period notices.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// plugins.set_stall_ns(60_000_000_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_stall_ns(&self, ns: u64) {
        self.stall_ns.store(ns, Ordering::Relaxed);
    }

    /// How often a grace period was reported because it waited for long.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// assert_eq!(plugins.stalls(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stalls(&self) -> u32 {
        self.stalls.load(Ordering::Relaxed)
    }
}

impl<P: Platform, D: Driver> Drop for Srcu<P, D> {
    /// Waits for nobody: there are no readers, because guards borrow the domain. Callbacks that are left are called here.
    ///
    /// Where that must not be, or if guards were leaked, it is reported and what is left is never called or freed. Linux:
    /// `cleanup_srcu_struct`, which wants `srcu_barrier` before it.
    fn drop(&mut self) {
        // SAFETY: lasts for this call, which whoever drops the domain makes; that nothing forbids callbacks is looked for.
        let mut cx = unsafe { TaskCx::<P>::new_in() };
        if what_forbids_waiting::<P>().is_none() {
            let queued = self.core.queued(); // those of one that queues itself again and again are never over
            while !self.core.have_called(queued) && self.readers() == 0 {
                self.work(&mut cx);
            }
        }
        if self.readers() != 0 || self.core.waiting() != 0 {
            stall::report_dropped(self);
            // The counters of guards that were leaked, and may yet turn up again in unsafe code.
            core::mem::forget(self.owned.take());
        }
    }
}

impl<P: Platform, D: Driver> fmt::Debug for Srcu<P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Srcu")
            .field("name", &self.name)
            .field("readers", &self.readers())
            .field("callbacks", &self.callbacks())
            .field("grace_periods", &self.grace_periods())
            .finish()
    }
}
