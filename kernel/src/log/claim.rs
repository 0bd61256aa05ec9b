//! Exclusive use of a value that is tried for and never waited for, and by which no work is left lying.
//!
//! Whoever has something for the value to take (a log record, say) first publishes it and then tries to claim. If that
//! fails, somebody else has the claim, and **that one sees what was published** when it looks again after giving the
//! claim up. So: publish, try; on success work, give up, look, and if there is more, try again. Nobody waits, in any
//! context, and nothing stays behind.
//!
//! The reason is that both the attempt and the giving up are read-modify-writes of one word. A failed attempt comes
//! before the giving up in that word's order, and so the giving up reads from it (or from a later attempt, which
//! continues its release sequence) and acquires what was published before it.

use super::primitives::{AtomicBool, Ordering, UnsafeCell};

/// A value and the claim to it.
#[derive(Debug)]
pub(super) struct Claim<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through `try_with`, by one execution at a time, in an order that `taken` establishes;
// so sharing the claim is sending the value.
unsafe impl<T: Send> Sync for Claim<T> {}

impl<T> Claim<T> {
    #[cfg(not(loom))]
    pub(super) const fn new(value: T) -> Claim<T> {
        Claim { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    #[cfg(loom)]
    pub(super) fn new(value: T) -> Claim<T> {
        Claim { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `f` on the value, unless somebody is using it: then `None`, at once.
    ///
    /// Contexts: any, NMI too. If `f` panics the claim stays taken, and every later attempt fails.
    pub(super) fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        // Acquire: pairs with the Release below in the user before. Release: pairs with the Acquire below in the user
        // that makes this attempt fail.
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: `taken` was false and is true now, so nobody else is between these two swaps, and whoever was before
        // happened before.
        let result = self.value.with_mut(|value| f(unsafe { &mut *value }));
        // Release: pairs with the Acquire above in the next user. Acquire: pairs with the Release above in those who
        // tried in vain; it must be a read-modify-write for that.
        self.taken.swap(false, Ordering::AcqRel);
        Some(result)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_refused_until_the_first_is_done() {
        let claim = Claim::new(1);
        let nested = claim.try_with(|value| {
            *value += 1;
            claim.try_with(|value| *value)
        });
        assert_eq!(nested, Some(None));
        assert_eq!(claim.try_with(|value| *value), Some(2));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    #[test]
    fn loom_nothing_published_is_left_behind() {
        test_support::model(|| {
            let shared = Arc::new((AtomicBool::new(false), Claim::new(0)));
            let serve = |shared: &(AtomicBool, Claim<u32>)| {
                while shared.0.load(Ordering::Relaxed) {
                    let served = shared.1.try_with(|served| {
                        if shared.0.swap(false, Ordering::Relaxed) {
                            *served += 1;
                        }
                    });
                    if served.is_none() {
                        return;
                    }
                }
            };
            let other = shared.clone();
            let thread = thread::spawn(move || {
                other.0.store(true, Ordering::Relaxed);
                serve(&other);
            });
            // Here for a moment for another reason, and looking again afterwards.
            shared.1.try_with(|_| ());
            serve(&shared);
            thread.join().unwrap();
            assert_eq!(shared.1.try_with(|served| *served), Some(1));
        });
    }
}
