//! Waits for locks that were found taken, as values.
//!
//! A lock's slow path makes one before it waits and drops it when the wait is over, whichever way. The platform hears of
//! both ends (for its trace), and the dependency checker of the time between (for its statistics). The fast paths know
//! nothing of it.

use core::marker::PhantomData;

use hal::Platform;

use crate::lockdep::Map;

/// A task or handler waits for a lock while this value lives.
pub(crate) struct Contended<'a, P: Platform> {
    map: &'a Map,
    lock: usize,
    /// What the platform answered.
    begun: u64,
    /// When, on the clock of [`Platform::now_ns`]; 0 where nobody counts.
    since_ns: u64,
    platform: PhantomData<fn() -> P>,
}

impl<'a, P: Platform> Contended<'a, P> {
    /// The wait for `lock`, whose map is `map`, begins.
    #[inline]
    pub(crate) fn begin<T: ?Sized>(lock: &T, map: &'a Map) -> Contended<'a, P> {
        let lock = core::ptr::from_ref(lock).cast::<()>() as usize;
        let begun = P::lock_contended(lock);
        Contended { map, lock, begun, since_ns: map.contended::<P>(), platform: PhantomData }
    }
}

impl<P: Platform> Drop for Contended<'_, P> {
    #[inline]
    fn drop(&mut self) {
        self.map.waited::<P>(self.since_ns);
        P::lock_waited(self.lock, self.begun);
    }
}
