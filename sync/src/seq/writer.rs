//! Who writes: remembered in debug builds, to catch a CPU that waits for itself. Of no size and no cost in others.

#[cfg(all(debug_assertions, not(loom)))]
pub(super) use recorded::Writer;
#[cfg(not(all(debug_assertions, not(loom))))]
pub(super) use unrecorded::Writer;

#[cfg(all(debug_assertions, not(loom)))]
mod recorded {
    use core::panic::Location;
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

    use hal::Platform;
    use hal::platform::{Report, Severity};

    /// The writer's CPU and line.
    ///
    /// All accesses are relaxed: a CPU compares `cpu` with its own number, which only it stores, and a processor sees
    /// its own stores in order.
    pub(in crate::seq) struct Writer {
        /// The CPU's number plus one; 0 while nobody writes.
        cpu: AtomicU32,
        began_at: AtomicPtr<Location<'static>>,
    }

    impl Writer {
        pub(in crate::seq) const fn new() -> Writer {
            Writer { cpu: AtomicU32::new(0), began_at: AtomicPtr::new(ptr::null_mut()) }
        }

        /// The executing CPU begins to write; reports if somebody does already, because exclusion is then missing.
        pub(in crate::seq) fn begin<P: Platform>(&self, at: &'static Location<'static>) {
            let was = self.cpu.swap(P::cpu().as_u32() + 1, Relaxed);
            if was != 0 {
                P::report(&Report {
                    severity: Severity::Bug,
                    message: format_args!(
                        "seqcount: write section inside of the one that CPU#{} began{}",
                        was - 1,
                        Since(&self.began_at)
                    ),
                    location: at,
                });
            }
            self.began_at.store(ptr::from_ref(at).cast_mut(), Relaxed);
        }

        pub(in crate::seq) fn end(&self) {
            self.cpu.store(0, Relaxed);
        }

        /// A reader is about to wait for a writer: reports if that is the executing CPU, because then the wait will
        /// not end.
        #[cold]
        pub(in crate::seq) fn check_reader<P: Platform>(&self, at: &'static Location<'static>) {
            let cpu = P::cpu();
            if self.cpu.load(Relaxed) == cpu.as_u32() + 1 {
                P::report(&Report {
                    severity: Severity::Bug,
                    message: format_args!(
                        "seqcount: reader on CPU#{cpu} waits for the write section that this CPU began{}",
                        Since(&self.began_at)
                    ),
                    location: at,
                });
            }
        }
    }

    /// Where a section began, if that is known yet.
    struct Since<'a>(&'a AtomicPtr<Location<'static>>);

    impl core::fmt::Display for Since<'_> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            // SAFETY: null, or made from a `&'static Location`, whose memory is never written.
            match unsafe { self.0.load(Relaxed).as_ref() } {
                Some(at) => write!(f, " at {at}"),
                None => Ok(()),
            }
        }
    }
}

#[cfg(not(all(debug_assertions, not(loom))))]
mod unrecorded {
    use core::panic::Location;

    use hal::Platform;

    /// Nothing.
    pub(in crate::seq) struct Writer;

    impl Writer {
        pub(in crate::seq) const fn new() -> Writer {
            Writer
        }

        #[inline(always)]
        pub(in crate::seq) fn begin<P: Platform>(&self, _at: &'static Location<'static>) {}

        #[inline(always)]
        pub(in crate::seq) fn end(&self) {}

        #[inline(always)]
        pub(in crate::seq) fn check_reader<P: Platform>(&self, _at: &'static Location<'static>) {}
    }
}
