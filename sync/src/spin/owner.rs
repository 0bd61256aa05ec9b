//! Who holds a lock: remembered in debug builds, to catch a CPU that waits for itself. Of no size and no cost in others.

#[cfg(all(debug_assertions, not(loom)))]
pub(super) use recorded::Owner;
#[cfg(not(all(debug_assertions, not(loom))))]
pub(super) use unrecorded::Owner;

#[cfg(all(debug_assertions, not(loom)))]
mod recorded {
    use core::panic::Location;
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

    use hal::Platform;
    use hal::platform::{Report, Severity};

    /// The holder's CPU and line.
    ///
    /// All accesses are relaxed: a CPU compares `cpu` with its own number, which only it stores, and a processor sees
    /// its own stores in order.
    pub(in crate::spin) struct Owner {
        /// The CPU's number plus one; 0 while the lock is free.
        cpu: AtomicU32,
        taken_at: AtomicPtr<Location<'static>>,
    }

    impl Owner {
        pub(in crate::spin) const fn new() -> Owner {
            Owner { cpu: AtomicU32::new(0), taken_at: AtomicPtr::new(ptr::null_mut()) }
        }

        /// Called by the new holder.
        pub(in crate::spin) fn set<P: Platform>(&self, at: &'static Location<'static>) {
            self.taken_at.store(ptr::from_ref(at).cast_mut(), Relaxed);
            self.cpu.store(P::cpu().as_u32() + 1, Relaxed);
        }

        /// Called by the holder, before it lets go.
        pub(in crate::spin) fn clear(&self) {
            self.cpu.store(0, Relaxed);
        }

        /// Called before waiting for the lock, with preemption off: reports if this CPU holds it, because then the wait
        /// will not end.
        #[cold]
        pub(in crate::spin) fn check<P: Platform>(&self, at: &'static Location<'static>) {
            let cpu = P::cpu();
            if self.cpu.load(Relaxed) != cpu.as_u32() + 1 {
                return;
            }
            // SAFETY: `taken_at` was stored by this CPU before `cpu` was, and points to a `'static` location.
            let taken_at = unsafe { &*self.taken_at.load(Relaxed) };
            P::report(&Report {
                severity: Severity::Bug,
                message: format_args!(
                    "spinlock recursion on CPU#{cpu}: it waits for a lock that it has held since {taken_at}"
                ),
                location: at,
            });
        }
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
mod unrecorded {
    use core::panic::Location;

    use hal::Platform;

    /// Nothing.
    pub(in crate::spin) struct Owner;

    impl Owner {
        pub(in crate::spin) const fn new() -> Owner {
            Owner
        }

        #[inline(always)]
        pub(in crate::spin) fn set<P: Platform>(&self, _at: &'static Location<'static>) {}

        #[inline(always)]
        pub(in crate::spin) fn clear(&self) {}

        #[inline(always)]
        pub(in crate::spin) fn check<P: Platform>(&self, _at: &'static Location<'static>) {}
    }
}
