//! Who holds a lock: remembered in debug builds and with the feature `lockdep`, to find out what goes wrong with it. Of no
//! size and no cost in others.
//!
//! * A CPU that waits for a lock that it holds itself waits for ever: `spinlock recursion`.
//! * A wait of `LOCKUP_NS` is no wait any more: `spinlock lockup suspected`. It goes on all the same.
//! * A lock is given up by who took it, on the same CPU: else `spinlock wrong owner`.
//! * A function whose caller must hold a lock says so: else `spinlock not held`.

#[cfg(all(any(debug_assertions, feature = "lockdep"), not(any(loom, shuttle))))]
pub(super) use recorded::{Owner, Watch};
#[cfg(not(all(any(debug_assertions, feature = "lockdep"), not(any(loom, shuttle)))))]
pub(super) use unrecorded::{Owner, Watch};

#[cfg(all(any(debug_assertions, feature = "lockdep"), not(any(loom, shuttle))))]
mod recorded {
    use core::fmt;
    use core::panic::Location;
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

    use hal::Platform;
    use hal::platform::{Report, Severity};

    /// After how long a wait is reported, once. Ten seconds, as long as Linux's watchdog takes by default to find a CPU
    /// stuck, and far beyond what a host keeps a virtual CPU waiting.
    const LOCKUP_NS: u64 = 10_000_000_000;

    /// How many turns pass between two looks at the clock, which is not free on all machines: some milliseconds.
    const TURNS_PER_LOOK_AT_CLOCK: u32 = 1 << 16;

    /// The holder's CPU, task and line.
    ///
    /// All accesses are relaxed: a CPU compares `cpu` with its own number, which only it stores, and a processor sees
    /// its own stores in order. What is read about another CPU is good for a message only, and each value in itself is
    /// one that was stored.
    pub(in crate::spin) struct Owner {
        /// The CPU's number plus one; 0 while the lock is free.
        cpu: AtomicU32,
        /// The task's chain of held locks, which is switched with the task; null if nobody keeps one.
        held: AtomicPtr<()>,
        taken_at: AtomicPtr<Location<'static>>,
    }

    fn report<P: Platform>(message: fmt::Arguments<'_>, at: &'static Location<'static>) {
        P::report(&Report { severity: Severity::Bug, message, location: at });
    }

    fn task_chain<P: Platform>() -> *mut () {
        // SAFETY: what is off while a lock is held keeps us on this CPU, where the record is valid.
        unsafe { P::record().as_ref() }.held.load(Relaxed)
    }

    impl Owner {
        pub(in crate::spin) const fn new() -> Owner {
            Owner {
                cpu: AtomicU32::new(0),
                held: AtomicPtr::new(ptr::null_mut()),
                taken_at: AtomicPtr::new(ptr::null_mut()),
            }
        }

        /// Called by the new holder.
        pub(in crate::spin) fn set<P: Platform>(&self, at: &'static Location<'static>) {
            self.taken_at.store(ptr::from_ref(at).cast_mut(), Relaxed);
            self.held.store(task_chain::<P>(), Relaxed);
            self.cpu.store(P::cpu().as_u32() + 1, Relaxed);
        }

        /// Called by the holder, before it lets go. Reports if somebody else took the lock.
        pub(in crate::spin) fn clear<P: Platform>(&self, at: &'static Location<'static>) {
            let here = P::cpu();
            let cpu = self.cpu.swap(0, Relaxed);
            let held = self.held.swap(ptr::null_mut(), Relaxed);
            let chain = task_chain::<P>();
            if cpu != here.as_u32() + 1 {
                report::<P>(
                    format_args!("spinlock wrong owner: CPU#{here} gives up a lock that {}", self.taken(cpu)),
                    at,
                );
            } else if !held.is_null() && !chain.is_null() && held != chain {
                report::<P>(
                    format_args!(
                        "spinlock wrong owner: a task gives up a lock that another task, on the same {}",
                        self.taken(cpu)
                    ),
                    at,
                );
            }
        }

        /// Called before the lock goes from a task to the next one on the same CPU.
        pub(in crate::spin) fn disown(&self) {
            self.held.store(ptr::null_mut(), Relaxed);
        }

        /// Reports if this CPU does not hold the lock.
        pub(in crate::spin) fn assert_here<P: Platform>(&self, at: &'static Location<'static>) {
            let cpu = self.cpu.load(Relaxed);
            let here = P::cpu();
            if cpu == 0 {
                report::<P>(format_args!("spinlock not held by CPU#{here}: nobody holds it"), at);
            } else if cpu != here.as_u32() + 1 {
                report::<P>(format_args!("spinlock not held by CPU#{here}: {}", self.taken(cpu)), at);
            }
        }

        /// Who has held it since where.
        fn taken(&self, cpu: u32) -> Taken<'_> {
            Taken { owner: self, cpu }
        }
    }

    struct Taken<'a> {
        owner: &'a Owner,
        cpu: u32,
    }

    impl fmt::Display for Taken<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let at = self.owner.taken_at.load(Relaxed);
            match self.cpu.checked_sub(1) {
                Some(cpu) if !at.is_null() => {
                    // SAFETY: whatever is stored here points to a `'static` location.
                    write!(f, "CPU#{cpu} has held since {}", unsafe { &*at })
                }
                Some(cpu) => write!(f, "CPU#{cpu} has just taken"),
                None => f.write_str("nobody holds"),
            }
        }
    }

    /// One wait for a lock.
    pub(in crate::spin) struct Watch {
        since_ns: u64,
        reported: bool,
    }

    impl Watch {
        #[inline(always)]
        pub(in crate::spin) fn new() -> Watch {
            Watch { since_ns: 0, reported: false }
        }

        /// Called before each turn of the wait, with preemption off.
        #[inline]
        pub(in crate::spin) fn turn<P: Platform>(
            &mut self,
            owner: &Owner,
            turns: u32,
            at: &'static Location<'static>,
        ) {
            if turns.is_multiple_of(TURNS_PER_LOOK_AT_CLOCK) {
                self.look_closer::<P>(owner, turns == 0, at);
            }
        }

        #[cold]
        fn look_closer<P: Platform>(&mut self, owner: &Owner, first: bool, at: &'static Location<'static>) {
            let here = P::cpu();
            let cpu = owner.cpu.load(Relaxed);
            if first {
                self.since_ns = P::now_ns();
                if cpu == here.as_u32() + 1 {
                    // The wait will not end.
                    let taken_at = owner.taken(cpu);
                    report::<P>(
                        format_args!("spinlock recursion on CPU#{here}: it waits for a lock that {taken_at}"),
                        at,
                    );
                }
            } else if !self.reported && P::now_ns().saturating_sub(self.since_ns) >= LOCKUP_NS {
                self.reported = true;
                report::<P>(
                    format_args!(
                        "spinlock lockup suspected on CPU#{here}: it has waited {} s for a lock that {}",
                        P::now_ns().saturating_sub(self.since_ns) / 1_000_000_000,
                        owner.taken(cpu)
                    ),
                    at,
                );
            }
        }
    }
}

#[cfg(not(all(any(debug_assertions, feature = "lockdep"), not(any(loom, shuttle)))))]
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
        pub(in crate::spin) fn clear<P: Platform>(&self, _at: &'static Location<'static>) {}

        #[inline(always)]
        pub(in crate::spin) fn disown(&self) {}

        #[inline(always)]
        pub(in crate::spin) fn assert_here<P: Platform>(&self, _at: &'static Location<'static>) {}
    }

    /// Nothing.
    pub(in crate::spin) struct Watch;

    impl Watch {
        #[inline(always)]
        pub(in crate::spin) fn new() -> Watch {
            Watch
        }

        #[inline(always)]
        pub(in crate::spin) fn turn<P: Platform>(
            &mut self,
            _: &Owner,
            _: u32,
            _: &'static Location<'static>,
        ) {
        }
    }
}
