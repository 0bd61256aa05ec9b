//! What the tree's locks switch off: interrupts, because quiescent states are reported by interrupt handlers too.

#[cfg(not(loom))]
pub(crate) use sync::Irq as NodeFlavor;

/// In models the lock word is one that is either taken or not: how a lock chooses among those who wait has models of its
/// own, and would multiply the schedules of these.
#[cfg(loom)]
pub(crate) use modelled::NodeFlavor;

#[cfg(loom)]
mod modelled {
    use core::marker::PhantomData;

    use hal::Platform;
    use sync::Flavor;
    use sync::lockdep::Level;
    use sync::spin::raw::RawSpin;

    use crate::primitives::{AtomicBool, Ordering};

    /// As `sync::Irq`, with a plain lock word.
    #[derive(Debug)]
    pub(crate) struct NodeFlavor<P>(PhantomData<fn() -> P>);

    // SAFETY: what `sync::Irq` does.
    unsafe impl<P: Platform> Flavor for NodeFlavor<P> {
        type Platform = P;
        type Raw = Word;

        const LEVEL: Level = Level::Hardirq;

        fn enter() {
            P::irq_disable();
        }

        unsafe fn exit() {
            if P::irq_enable() {
                P::check_resched();
            }
        }
    }

    #[derive(Debug)]
    pub(crate) struct Word(AtomicBool);

    // SAFETY: held by who has set the word, with an Acquire operation; cleared by a Release store.
    unsafe impl RawSpin for Word {
        fn unlocked() -> Word {
            Word(AtomicBool::new(false))
        }

        fn lock<P: Platform>(&self, mut pause: impl FnMut(u32)) {
            while !self.try_lock() {
                pause(0);
            }
        }

        fn try_lock(&self) -> bool {
            // Acquire: pairs with the Release in `unlock`.
            self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        }

        unsafe fn unlock(&self) {
            // Release: pairs with the Acquire in `try_lock`.
            self.0.store(false, Ordering::Release);
        }

        fn is_locked(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }
}
