//! Counters in a row, for each CPU, known by their address instead of a name.
//!
//! A variable that is declared with [`percpu!`](crate::percpu!) is named in the instruction that changes it. A structure
//! that is made at run time, or that is handed its counters by somebody else, has only their address. In the template that
//! is one number for all CPUs, and the CPU's base turns it into the CPU's own in the same instruction.

use core::marker::PhantomData;
use core::sync::atomic::AtomicUsize;

use super::PerCpu;
use super::area::base_of;
use crate::CpuId;

/// `N` counters of each CPU. A copy of it is as good as the original.
///
/// Each CPU adds to its own; all may read all. What single counters mean is the user's affair: a task that counts twice
/// may have moved in between. Linux: a pointer to per-CPU memory, for `this_cpu_inc`.
///
/// ```
/// use core::sync::atomic::{AtomicUsize, Ordering};
/// use hal::percpu::{Counters, DynamicPerCpu};
///
/// let _cpu = hal::hosted::bind()?;
/// let events = DynamicPerCpu::new(|_cpu| [const { AtomicUsize::new(0) }; 4])?;
/// let counters: Counters<'_, 4> = events.counters();
/// // SAFETY: there are four.
/// unsafe { counters.inc(2) };
/// let sum: usize = counters.iter().map(|of_cpu| of_cpu[2].load(Ordering::Relaxed)).sum();
/// assert_eq!(sum, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Invariants
/// `link`, moved by the base of a CPU that runs, is the address of an array that lives for `'a`.
#[derive(Debug)]
pub struct Counters<'a, const N: usize> {
    pub(super) link: *const [AtomicUsize; N],
    /// Whether a CPU that has an area has its array too. `None`: always.
    pub(super) is_made: Option<fn(CpuId) -> bool>,
    pub(super) _values: PhantomData<&'a [AtomicUsize; N]>,
}

// SAFETY: it is a shared reference to atomics.
unsafe impl<const N: usize> Send for Counters<'_, N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Counters<'_, N> {}

impl<const N: usize> Clone for Counters<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<const N: usize> Copy for Counters<'_, N> {}

impl<'a, const N: usize> Counters<'a, N> {
    /// Adds one to this CPU's counter number `index`, wrapping around.
    ///
    /// Contexts: any, NMI included. One instruction on x86_64, without a `lock` prefix: neither an interrupt nor a move to
    /// another CPU can split it. A compiler barrier there; orders nothing else. Linux: `this_cpu_inc`.
    ///
    /// # Safety
    /// `index < N`.
    #[inline(always)]
    pub unsafe fn inc(self, index: usize) {
        #[cfg(target_os = "none")]
        // SAFETY: by the invariant and the contract a counter of this CPU, which is an atomic of this size.
        unsafe {
            core::arch::asm!("inc qword ptr gs:[{link} + {index} * 8]", link = in(reg) self.link, index = in(reg) index,
                options(nostack));
        }
        #[cfg(not(target_os = "none"))]
        {
            use core::sync::atomic::Ordering::Relaxed;

            let array = self.address().wrapping_add(super::this_base()) as *const AtomicUsize;
            // SAFETY: by the invariant and the contract a counter of this thread's CPU. Two steps are one here: the CPU is
            // this thread, and its interrupts come at delivery points.
            let counter = unsafe { &*array.add(index) };
            counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }

    /// The same, for a structure that keeps the handle whose counters they are.
    ///
    /// # Safety
    /// They are not used when the handle is gone.
    pub unsafe fn unbound(self) -> Counters<'static, N> {
        // INVARIANT: as long as it is used, by the contract.
        Counters { link: self.link, is_made: self.is_made, _values: PhantomData }
    }

    /// What a base is added to.
    fn address(self) -> usize {
        #[cfg(miri)]
        if self.is_made.is_none() {
            return super::interpreted::place_of(self.link);
        }
        self.link.addr()
    }

    /// The counters of all CPUs that have some, in the order of the CPUs' numbers. One whose area is made meanwhile may be
    /// left out.
    pub fn iter(self) -> impl Iterator<Item = &'a [AtomicUsize; N]> {
        self.by_cpu().map(|(_, counters)| counters)
    }

    /// The same, with the CPUs.
    pub fn by_cpu(self) -> impl Iterator<Item = (CpuId, &'a [AtomicUsize; N])> {
        super::cpus().filter_map(move |cpu| {
            if self.is_made.is_some_and(|is_made| !is_made(cpu)) {
                return None;
            }
            let array = self.address().wrapping_add(base_of(cpu)?) as *const [AtomicUsize; N];
            // SAFETY: by the invariant: the CPU has its array, which may be read by all.
            Some((cpu, unsafe { &*array }))
        })
    }
}

impl<S, const N: usize> PerCpu<[AtomicUsize; N], S> {
    /// The variable, as counters without a name.
    ///
    /// ```
    /// use core::sync::atomic::AtomicUsize;
    /// use hal::percpu::Counters;
    /// hal::percpu! {
    ///     static EVENTS: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
    /// }
    /// static COUNTERS: Counters<'static, 2> = EVENTS.counters();
    /// // SAFETY: there are two.
    /// unsafe { COUNTERS.inc(1) };
    /// ```
    pub const fn counters(&'static self) -> Counters<'static, N> {
        // INVARIANT: the variable is in every area from the beginning, and areas live for ever.
        Counters { link: self.template.get(), is_made: None, _values: PhantomData }
    }
}
