//! Sections of a domain that is a value.

use core::fmt;

use hal::{Native, Platform};

use super::{Driver, Rank, Srcu, Visitors};

impl<P: Platform, D: Driver> Srcu<P, D> {
    /// Begins a section, which lasts until the guard is dropped. The task may sleep in it.
    ///
    /// Linux: `srcu_read_lock`. Contexts: any, NMI included. Never waits. Cost: two loads, an addition to a counter of this
    /// CPU, a light fence.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// let section = plugins.read();
    /// assert_eq!(plugins.readers(), 1);
    /// drop(section);
    /// assert_eq!(plugins.readers(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn read(&self) -> SrcuGuard<'_, P, D> {
        // INVARIANT: begun just now, in this domain.
        SrcuGuard { domain: self, rank: self.read_lock() }
    }

    /// Begins a section, for those who have no place for a guard. What is returned is needed to end it.
    ///
    /// Linux: `srcu_read_lock`, `srcu_down_read`. Contexts and cost: as [`read`](Srcu::read).
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let plugins: rcu::Srcu = rcu::Srcu::new("plugins")?;
    /// let rank = plugins.read_lock();
    /// // SAFETY: what the line above began, in the same domain.
    /// unsafe { plugins.read_unlock(rank) };
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn read_lock(&self) -> Rank {
        // SAFETY: a rank's counter is one of the four.
        self.core.machine.enter(|counter| unsafe { self.counters.inc(counter) })
    }

    /// Ends a section.
    ///
    /// # Safety
    /// `rank` is what [`read_lock`](Srcu::read_lock) of **this** domain returned, and the section has not been ended. No
    /// reference that was obtained under its protection is used any more.
    #[inline(always)]
    pub unsafe fn read_unlock(&self, rank: Rank) {
        // SAFETY: as in `read_lock`.
        self.core.machine.leave(rank, |counter| unsafe { self.counters.inc(counter) });
    }
}

/// A section of a domain, as long as it lives. Made by [`Srcu::read`].
///
/// It knows its domain, so that it ends the section there, and [`is_of`](SrcuGuard::is_of) can be asked. It may be sent to
/// another task and end there. One that is leaked keeps the domain's grace periods from ending, for ever.
///
/// Linux: what `srcu_read_lock` returns, and the `srcu_struct` that has to be passed to `srcu_read_unlock` with it.
///
/// # Invariants
/// A section of `domain` has begun in `rank`, and this value ends it.
#[must_use = "the section ends as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct SrcuGuard<'a, P: Platform = Native, D: Driver = Visitors> {
    domain: &'a Srcu<P, D>,
    rank: Rank,
}

impl<P: Platform, D: Driver> SrcuGuard<'_, P, D> {
    /// Whether it is a section of this very domain: for structures that are handed a guard, and have a domain of their own.
    ///
    /// ```
    /// # let _cpu = hal::hosted::bind()?;
    /// let (a, b): (rcu::Srcu, rcu::Srcu) = (rcu::Srcu::new("a")?, rcu::Srcu::new("b")?);
    /// let section = a.read();
    /// assert!(section.is_of(&a) && !section.is_of(&b));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn is_of(&self, domain: &Srcu<P, D>) -> bool {
        core::ptr::eq(self.domain, domain)
    }
}

impl<P: Platform, D: Driver> Drop for SrcuGuard<'_, P, D> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the type's invariant. References that were obtained under the guard borrow it.
        unsafe { self.domain.read_unlock(self.rank) };
    }
}

impl<P: Platform, D: Driver> fmt::Debug for SrcuGuard<'_, P, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SrcuGuard({})", self.domain.name)
    }
}
