//! Read sections as values, and what else proves that one is in force.

use core::fmt;
use core::marker::PhantomData;

use hal::Platform;
use sync::{BhGuard, Flavor, IrqGuard, PreemptGuard, TaskCx};

use crate::domain::Domain;

/// Begins a read section, which lasts until the guard is dropped. Which domain's follows from what the guard is used
/// for, or is said: `read::<Routes>()`.
///
/// What forbids waiting inside of the section is noticed when the program runs; with [`read_in`], when it is compiled.
///
/// Linux: `rcu_read_lock`. Contexts: any. Never waits. Cost: the domain's.
///
/// ```
/// use rcu::{RcuBox, RcuOption};
/// rcu::hosted_domain! { struct Routes; }
/// static GATEWAY: RcuOption<RcuBox<u32>, Routes> = RcuOption::none();
///
/// let reader = rcu::read();
/// assert_eq!(GATEWAY.load(&reader), None);
/// ```
#[inline(always)]
pub fn read<D: Domain>() -> ReadGuard<'static, D> {
    ReadGuard::begin()
}

/// As [`read`], in a task that has its [`TaskCx`]. The guard borrows it, so that neither a sleep nor a wait for a grace
/// period inside of the section compiles.
///
/// ```
/// use rcu::Domain;
/// rcu::hosted_domain! { struct Routes; }
/// # let mut cx = unsafe { sync::TaskCx::new() };
/// let reader = rcu::read_in::<Routes>(&cx);
/// drop(reader);
/// Routes::synchronize(&mut cx); // before the drop it would not compile
/// ```
#[inline(always)]
pub fn read_in<'cx, D: Domain>(_cx: &'cx TaskCx<D::Platform>) -> ReadGuard<'cx, D> {
    ReadGuard::begin()
}

/// A read section of domain `D` is in force while this value lives. Made by [`read`] and [`read_in`].
///
/// Guards nest and may be dropped in any order. A guard is neither `Send` nor `Sync`: it speaks about the execution that
/// made it. One that is leaked keeps its domain's grace periods from ending, for ever; no memory is freed too early.
///
/// # Invariants
/// One `read_lock` of `D`, by the execution that owns the value, has not been undone; `section` is what it returned.
#[must_use = "the section ends as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct ReadGuard<'cx, D: Domain> {
    section: D::Section,
    _cx: PhantomData<&'cx TaskCx<D::Platform>>,
    _bound: [*mut (); 0],
}

impl<D: Domain> ReadGuard<'_, D> {
    #[inline(always)]
    fn begin() -> Self {
        // INVARIANT: begun just now, and ended by `drop`.
        ReadGuard { section: D::read_lock(), _cx: PhantomData, _bound: [] }
    }
}

impl<D: Domain> Drop for ReadGuard<'_, D> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the type's invariant. References that were obtained under the guard borrow it.
        unsafe { D::read_unlock(self.section) };
    }
}

impl<D: Domain> fmt::Debug for ReadGuard<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadGuard({})", D::NAME)
    }
}

/// While a value of this type is borrowed, a read section of domain `D` is in force.
///
/// # Safety
/// That is so: no grace period of `D` that begins during the borrow ends before the borrow does.
///
/// ```
/// use rcu::{Proof, RcuBox, RcuOption};
/// rcu::hosted_domain! { struct Routes; }
///
/// /// For callers in whatever kind of read section.
/// fn metric<'a>(gateway: &'a RcuOption<RcuBox<u32>, Routes>, section: &'a impl Proof<Routes>) -> Option<&'a u32> {
///     gateway.load(section)
/// }
/// let gateway = RcuOption::from(RcuBox::new(7));
/// assert_eq!(metric(&gateway, &rcu::read::<Routes>()), Some(&7));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not show that a read section of `{D}` is in force",
    label = "not a proof for the domain `{D}`",
    note = "begin a section: `let reader = rcu::read::<{D}>();` and pass `&reader`"
)]
pub unsafe trait Proof<D: Domain> {}

// SAFETY: the guard's invariant and `Domain`'s guarantee. Whoever borrows the guard keeps it from being dropped.
unsafe impl<D: Domain> Proof<D> for ReadGuard<'_, D> {}

/// Domains whose grace periods wait for every section in which preemption, bottom halves or interrupts are off, so that
/// the guards of these, and of spin locks, are [proofs](Proof).
///
/// # Safety
/// They do, on every CPU.
pub unsafe trait AtomicReaders: Domain {}

// SAFETY: preemption is off while the guard lives.
unsafe impl<D: AtomicReaders<Platform = P>, P: Platform> Proof<D> for PreemptGuard<P> {}
// SAFETY: bottom halves are off while the guard lives.
unsafe impl<D: AtomicReaders<Platform = P>, P: Platform> Proof<D> for BhGuard<P> {}
// SAFETY: interrupts are off while the guard lives.
unsafe impl<D: AtomicReaders<Platform = P>, P: Platform> Proof<D> for IrqGuard<P> {}
// SAFETY: from a flavour's `enter` to its `exit` the execution is not preempted (`Flavor`'s contract), by one of the three.
unsafe impl<D: AtomicReaders<Platform = F::Platform>, T: ?Sized, F: Flavor> Proof<D>
    for sync::spin::SpinLockGuard<'_, T, F>
{
}
