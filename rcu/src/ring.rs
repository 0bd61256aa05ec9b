//! The head of a ring that readers walk without a lock, and which may be moved when nobody is in it.
//!
//! 1. The first and the last member of a ring know the head's address. *Home* is the address that they know.
//! 2. Everybody compares home with the head's address before he enters. If they differ then the head has been moved, by
//!    somebody who had it for himself: nobody is in the ring.
//! 3. Of those who find that, one *settles*: he writes the new address into both ends, and then into home. The others wait
//!    for that. As nobody has entered, no reader follows a pointer to the former place.

use core::ptr::NonNull;

use hal::Platform;
use sync::Cpu;
use sync::list::raw::Links;

use crate::primitives::{AtomicUsize, Ordering, const_fn};

/// What home is while somebody settles. No head has this address.
const SETTLING: usize = 1;

/// The part of the protocol that must hold, as a constant, so that a model can break it and show that it matters.
pub(crate) trait Rules {
    /// How home is stored when the ends know it.
    const SETTLED: Ordering = Ordering::Release;
}

/// The protocol as described.
pub(crate) enum Sound {}

impl Rules for Sound {}

/// The head of a ring.
///
/// # Invariants
/// `home` is the address that the ring's ends know the head by; 0 if there is no ring yet. If it is not the head's own,
/// nobody is in the ring.
pub(crate) struct Ring {
    head: Links,
    home: AtomicUsize,
}

impl Ring {
    const_fn! {
        pub(crate) fn new() -> Ring {
            Ring { head: Links::new(), home: AtomicUsize::new(0) }
        }
    }

    /// The head, of a ring whose ends know where it is. Cost: a load and a comparison, unless moved.
    #[inline(always)]
    pub(crate) fn anchor<P: Platform>(&self) -> NonNull<Links> {
        self.anchor_by::<P, Sound>()
    }

    #[inline(always)]
    fn anchor_by<P: Platform, R: Rules>(&self) -> NonNull<Links> {
        // By its address alone: to a head that was moved away and back nobody's pointer leads that was made of a reference to
        // it before.
        let head = NonNull::with_exposed_provenance(NonNull::from(&self.head).expose_provenance());
        // Acquire: pairs with the Release in `settle`.
        if self.home.load(Ordering::Acquire) != head.addr().get() {
            self.settle::<P, R>(head);
        }
        head
    }

    /// Takes up residence at a new address, or waits for who does.
    #[cold]
    fn settle<P: Platform, R: Rules>(&self, head: NonNull<Links>) {
        // A reader in an interrupt on this CPU would wait for the settler that it interrupted.
        let _undisturbed = Cpu::<P>::disable_interrupts();
        loop {
            // Acquire: as in `anchor`.
            let home = self.home.load(Ordering::Acquire);
            if home == head.addr().get() {
                return;
            }
            // Relaxed: what was done to the ring before happened before the head was moved, and that before this.
            if home == SETTLING
                || self.home.compare_exchange(home, SETTLING, Ordering::Relaxed, Ordering::Relaxed).is_err()
            {
                P::relax();
                continue;
            }
            // SAFETY: the head's pointers to the ends moved with it, and the ends are valid. Nobody reads or writes: all
            // who came since the head was moved are turned away above (the type's invariant).
            unsafe {
                // An empty ring leads back to the head's former place, which is compared and not followed.
                if home == 0 || Links::next(head).addr().get() == home {
                    Links::init(head);
                } else {
                    Links::rehome(head, Links::next(head), Links::prev(head));
                }
            }
            // INVARIANT: the ends know this address now. Release: pairs with the Acquires above.
            self.home.store(head.addr().get(), R::SETTLED);
            return;
        }
    }
}

#[cfg(all(test, loom))]
#[path = "list_models.rs"]
mod models;
