//! A CPU's own data, with `&mut` access: a lock that never waits.
//!
//! Data of which every CPU has its own copy needs no lock against other CPUs. What it needs is that the CPU cannot
//! change in the middle, and that nothing else on the same CPU gets at the copy meanwhile. A flavour says what can, just
//! as it does for spin locks: [`Task`] for data of tasks, [`BottomHalf`](crate::BottomHalf) if softirqs use it too,
//! [`Irq`](crate::Irq) if interrupt handlers do.
//!
//! 1. [`LocalLock::lock`] enters the flavour, and then asks for this CPU's copy: in this order, because before it the
//!    task could still move.
//! 2. The flavour keeps out who it should. Who it does not keep out (a function that is called while its caller holds
//!    the lock, an interrupt handler that uses a `Task` one) would get a second `&mut` to the data. So the copy has a
//!    flag, an ordinary load and store, and finding it set stops the machine, in every build.
//! 3. Dropping the guard clears the flag and leaves the flavour.
//!
//! A bare guard and [`PerCpu`] do for `Cell`s and for types that may be shared; this is for the rest. There is no access
//! to another CPU's copy, because its owner does not lock it against others; what other CPUs shall read belongs into
//! atomics beside it ([`PerCpu::on`]), or they interrupt the owner and ask.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use hal::percpu::{PerCpu, Pinned};

use crate::cpu::CpuBound;
use crate::flavor::{Entered, Flavor, Proves, Task};
use crate::lockdep::{Acquire, Map, WaitType};
use holder::Holder;

/// One CPU's data, for the code on that CPU that flavour `F` does not keep out. Lives in a per-CPU variable.
///
/// Linux: `local_lock_t` with the data that it stands for. Unlike there the lock owns its data, and taking it twice is
/// caught in every build. Size: the data, one byte and padding; a pointer more in debug builds.
///
/// ```
/// use sync::LocalLock;
///
/// struct Cache {
///     free: [u32; 8],
///     count: usize,
/// }
/// hal::percpu! {
///     static CACHE: LocalLock<Cache> = LocalLock::new(Cache { free: [0; 8], count: 0 });
/// }
/// let mut cache = LocalLock::lock(&CACHE); // this CPU's, and the task stays here
/// let at = cache.count;
/// cache.free[at] = 7;
/// cache.count += 1;
/// ```
///
/// # Invariants
/// While `held` is set one guard for this copy lives, on the CPU that the copy belongs to.
pub struct LocalLock<T, F: Flavor = Task> {
    held: AtomicBool,
    holder: Holder,
    map: Map,
    flavor: PhantomData<fn() -> F>,
    data: UnsafeCell<T>,
}

impl<T, F: Flavor> LocalLock<T, F> {
    /// A copy that nobody uses. For the initial value of a per-CPU variable.
    ///
    /// ```
    /// # use sync::LocalLock;
    /// hal::percpu! {
    ///     static NEXT_ID: LocalLock<u32> = LocalLock::new(1);
    /// }
    /// assert_eq!(*LocalLock::lock(&NEXT_ID), 1);
    /// ```
    #[track_caller]
    pub const fn new(value: T) -> LocalLock<T, F> {
        LocalLock {
            held: AtomicBool::new(false),
            holder: Holder::new(),
            map: Map::new(WaitType::Spin, F::LEVEL),
            flavor: PhantomData,
            data: UnsafeCell::new(value),
        }
    }
}

impl<T: Send, F: Flavor> LocalLock<T, F> {
    /// Enters the flavour and gives access to this CPU's copy, until the guard is dropped. Never waits.
    ///
    /// Linux: `local_lock`, `local_lock_irqsave` and `local_lock_nested_bh`, by flavour. Contexts: as the flavour allows;
    /// not NMI. Cost: what the flavour costs, one load and two stores.
    ///
    /// If this CPU's copy is in use already the machine stops with `local lock recursion`.
    ///
    /// ```
    /// # use sync::LocalLock;
    /// hal::percpu! {
    ///     static SEEN: LocalLock<[u32; 2]> = LocalLock::new([0; 2]);
    /// }
    /// let mut seen = LocalLock::lock(&SEEN);
    /// seen[1] += 1;
    /// assert!(sync::context::in_atomic(), "as the flavour says");
    /// drop(seen);
    /// assert_eq!(*LocalLock::lock(&SEEN), [0, 1]);
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock<S>(variable: &'static PerCpu<LocalLock<T, F>, S>) -> LocalLockGuard<T, F> {
        let entered = Entered::new();
        let held = Held::new(variable, Acquire::WRITE, Location::caller());
        LocalLockGuard { held: held.unwrap_or_else(|lock| lock.refuse()), entered }
    }

    /// As [`lock`](LocalLock::lock), but `None` if the copy is in use, that is if the caller has interrupted its user or
    /// was called by it.
    ///
    /// ```
    /// use sync::LocalLock;
    ///
    /// hal::percpu! {
    ///     static BUFFER: LocalLock<[u8; 16]> = LocalLock::new([0; 16]);
    /// }
    /// let first = LocalLock::try_lock(&BUFFER);
    /// assert!(first.is_some() && LocalLock::try_lock(&BUFFER).is_none());
    /// ```
    #[inline]
    #[track_caller]
    pub fn try_lock<S>(variable: &'static PerCpu<LocalLock<T, F>, S>) -> Option<LocalLockGuard<T, F>> {
        let entered = Entered::new();
        let held = Held::new(variable, Acquire::TRY_WRITE, Location::caller()).ok()?;
        Some(LocalLockGuard { held, entered })
    }

    /// Gives access to this CPU's copy where the flavour is in force already, as `proof` shows. The guard cannot outlive
    /// the proof, and dropping it is no preemption point.
    ///
    /// Contexts and misuse: as for [`lock`](LocalLock::lock). Cost: one load and two stores.
    ///
    /// ```
    /// use sync::{LocalLock, preempt};
    ///
    /// hal::percpu! {
    ///     static LENGTHS: LocalLock<[usize; 2]> = LocalLock::new([0; 2]);
    /// }
    /// let here = preempt::disable();
    /// LocalLock::lock_with(&LENGTHS, &here)[1] += 1;
    /// ```
    #[inline]
    #[track_caller]
    pub fn lock_with<'a, S>(
        variable: &'static PerCpu<LocalLock<T, F>, S>,
        _proof: &'a (impl Proves<F> + ?Sized),
    ) -> LocalLockWithGuard<'a, T, F> {
        let held = Held::new(variable, Acquire::WRITE, Location::caller());
        LocalLockWithGuard { held: held.unwrap_or_else(|lock| lock.refuse()), proof: PhantomData }
    }
}

/// This CPU's copy is in use while this value lives, and what the flavour switches off is off. Made by
/// [`LocalLock::lock`]; gives access to the data.
///
/// Neither `Send` nor `Sync`.
///
/// ```
/// use sync::{Irq, LocalLock, context::irqs_disabled};
/// hal::percpu! {
///     static DEPTH: LocalLock<u8, Irq> = LocalLock::new(0);
/// }
/// let guard = LocalLock::lock(&DEPTH);
/// assert!(irqs_disabled() && LocalLock::try_lock(&DEPTH).is_none());
/// drop(guard);
/// assert!(!irqs_disabled() && LocalLock::try_lock(&DEPTH).is_some());
/// ```
#[must_use = "the data is given back as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct LocalLockGuard<T: 'static, F: Flavor> {
    // The order of these fields is the order of release.
    held: Held<T, F>,
    #[expect(dead_code, reason = "it is there to be dropped after `held`")]
    entered: Entered<F>,
}

/// This CPU's copy is in use while this value lives, in a section that was there before. Made by
/// [`LocalLock::lock_with`]; gives access to the data.
///
/// Neither `Send` nor `Sync`.
///
/// ```
/// use sync::{LocalLock, context::in_atomic, preempt};
/// hal::percpu! {
///     static DEPTH: LocalLock<u8> = LocalLock::new(0);
/// }
/// let here = preempt::disable();
/// *LocalLock::lock_with(&DEPTH, &here) = 3;
/// assert!(in_atomic(), "the section is the other guard's");
/// assert_eq!(*LocalLock::lock_with(&DEPTH, &here), 3);
/// ```
#[must_use = "the data is given back as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct LocalLockWithGuard<'a, T: 'static, F: Flavor> {
    held: Held<T, F>,
    proof: PhantomData<&'a ()>,
}

/// A copy that was found in use.
struct InUse<T: 'static, F: Flavor> {
    lock: &'static LocalLock<T, F>,
    at: &'static Location<'static>,
}

/// The copy is in use by the owner of this value.
///
/// # Invariants
/// `lock` is the copy of the CPU that the owner is on and stays on, and the owner alone set its `held`.
struct Held<T: 'static, F: Flavor> {
    lock: &'static LocalLock<T, F>,
    at: &'static Location<'static>,
    _bound: CpuBound,
}

impl<T: Send, F: Flavor> Held<T, F> {
    /// Claims this CPU's copy. What the flavour switches off is off.
    #[inline]
    fn new<S>(
        variable: &'static PerCpu<LocalLock<T, F>, S>,
        how: Acquire,
        at: &'static Location<'static>,
    ) -> Result<Held<T, F>, InUse<T, F>> {
        // SAFETY: areas live for ever, and every value in one is a copy of an initial value. Only code on this CPU gets
        // a reference to the copy: we stay here, by the flavour, and `LocalLock` is not `Sync`, so that `PerCpu::on` and
        // `get` do not hand it out; `get_local` does on this CPU, and through it nothing but `Debug` can be called.
        let lock = unsafe { &*variable.local_ptr() };
        // A load and a store will do: who comes between the two on this CPU is an interrupt, and it is over, with the
        // flag as it was, before we go on.
        if lock.held.load(Ordering::Relaxed) {
            return Err(InUse { lock, at });
        }
        lock.held.store(true, Ordering::Relaxed);
        // The compiler must not move accesses to the data before the store, nor (below) behind the one that clears it:
        // an interrupt handler that looks at the flag would believe it.
        compiler_fence(Ordering::Acquire);
        lock.map.acquire::<F::Platform>(how, at);
        lock.holder.set(at);
        // INVARIANT: set just now, by us.
        Ok(Held { lock, at, _bound: CpuBound::NEW })
    }
}

impl<T, F: Flavor> Held<T, F> {
    #[inline(always)]
    fn data(&self) -> &T {
        // SAFETY: by the invariants nobody else uses the copy; `&self` allows nobody `&mut T` meanwhile.
        unsafe { &*self.lock.data.get() }
    }

    #[inline(always)]
    fn data_mut(&mut self) -> &mut T {
        // SAFETY: by the invariants nobody else uses the copy; `&mut self` makes this the only reference.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T, F: Flavor> Drop for Held<T, F> {
    #[inline]
    fn drop(&mut self) {
        self.lock.map.release::<F::Platform>(self.at);
        compiler_fence(Ordering::Release);
        self.lock.held.store(false, Ordering::Relaxed);
    }
}

impl<T, F: Flavor> InUse<T, F> {
    /// A second `&mut` to the data must not be, so this does not return.
    #[cold]
    #[inline(never)]
    fn refuse(self) -> ! {
        use hal::Platform;
        use hal::platform::{Report, Severity};

        F::Platform::report(&Report {
            severity: Severity::Fatal,
            message: format_args!(
                "local lock recursion on CPU#{}: its data is in use{}",
                F::Platform::cpu(),
                self.lock.holder
            ),
            location: self.at,
        });
        panic!("the data of a local lock is in use");
    }
}

/// What both guards do alike: they are the data.
macro_rules! give_access {
    ([$($lifetime:lifetime)?] $Guard:ident) => {
        impl<T, F: Flavor> Deref for $Guard<$($lifetime,)? T, F> {
            type Target = T;

            #[inline(always)]
            fn deref(&self) -> &T {
                self.held.data()
            }
        }

        impl<T, F: Flavor> DerefMut for $Guard<$($lifetime,)? T, F> {
            #[inline(always)]
            fn deref_mut(&mut self) -> &mut T {
                self.held.data_mut()
            }
        }

        impl<T: fmt::Debug, F: Flavor> fmt::Debug for $Guard<$($lifetime,)? T, F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.held.data(), f)
            }
        }

        // SAFETY: the guard lives between an `enter` and the matching `exit` of its flavour (its own, or of the proof
        // that it borrows), where `Flavor` promises that the execution stays on its CPU. Neither `Send` nor `Sync`.
        unsafe impl<T, F: Flavor> Pinned for $Guard<$($lifetime,)? T, F> {}
    };
}

give_access!([] LocalLockGuard);
give_access!(['_] LocalLockWithGuard);

impl<T, F: Flavor> fmt::Debug for LocalLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLock").field("held", &self.held.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

/// Who uses the copy: remembered in debug builds, for the report of the next one who wants it.
mod holder {
    use core::fmt;
    use core::panic::Location;
    #[cfg(debug_assertions)]
    use core::sync::atomic::{AtomicPtr, Ordering};

    /// The line that took the lock last.
    pub(super) struct Holder {
        #[cfg(debug_assertions)]
        at: AtomicPtr<Location<'static>>,
    }

    impl Holder {
        pub(super) const fn new() -> Holder {
            Holder {
                #[cfg(debug_assertions)]
                at: AtomicPtr::new(core::ptr::null_mut()),
            }
        }

        #[inline(always)]
        pub(super) fn set(&self, _at: &'static Location<'static>) {
            #[cfg(debug_assertions)]
            self.at.store(core::ptr::from_ref(_at).cast_mut(), Ordering::Relaxed);
        }
    }

    impl fmt::Display for Holder {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            #[cfg(debug_assertions)]
            // SAFETY: null, or a `'static` location that `set` stored.
            if let Some(at) = unsafe { self.at.load(Ordering::Relaxed).as_ref() } {
                return write!(f, " since {at}");
            }
            f.write_str(" already")
        }
    }
}
