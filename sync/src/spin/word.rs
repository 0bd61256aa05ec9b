//! Flavours with another lock word.

use core::marker::PhantomData;

use super::raw::{QueuedLock, TicketLock};
use crate::flavor::{Flavor, IrqsOffFlavor, Proves};
use crate::lockdep::Level;

/// Declares a flavour that is another one except for the lock word.
macro_rules! with_word {
    ($(#[$meta:meta])* $Name:ident, $Raw:ty) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $Name<F>(PhantomData<fn() -> F>);

        // SAFETY: enters and exits what `F` does, which keeps the promises.
        unsafe impl<F: Flavor> Flavor for $Name<F> {
            type Platform = F::Platform;
            type Raw = $Raw;

            const LEVEL: Level = F::LEVEL;

            #[inline(always)]
            #[track_caller]
            fn enter() {
                F::enter();
            }

            #[inline(always)]
            unsafe fn exit() {
                // SAFETY: the caller's promise is the same.
                unsafe { F::exit() }
            }
        }

        // SAFETY: as `F`, under which interrupts are off.
        unsafe impl<F: IrqsOffFlavor> IrqsOffFlavor for $Name<F> {}

        // SAFETY: what proves `F` proves what is entered in the same way.
        unsafe impl<F: Flavor, G: Proves<F> + ?Sized> Proves<$Name<F>> for G {}
    };
}

with_word! {
    /// Flavour `F` with the [queued](super::raw::QueuedLock) lock word: strict order of arrival, and waiters that do not
    /// disturb each other. For machines on which CPUs that wait do run.
    ///
    /// ```
    /// use sync::{Irq, Queued, SpinLock};
    /// static TABLE: SpinLock<[u8; 4], Queued<Irq>> = SpinLock::new([0; 4]);
    /// TABLE.lock()[3] = 1;
    /// assert_eq!(*TABLE.lock(), [0, 0, 0, 1]);
    /// ```
    Queued, QueuedLock
}

with_word! {
    /// Flavour `F` with the [ticket](super::raw::TicketLock) lock word: strict order of arrival.
    ///
    /// ```
    /// use sync::{SpinLock, Task, Ticketed};
    /// static NEXT: SpinLock<u32, Ticketed<Task>> = SpinLock::new(7);
    /// assert_eq!(*NEXT.lock(), 7);
    /// ```
    Ticketed, TicketLock
}
