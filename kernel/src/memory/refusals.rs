//! Frames that are refused on purpose, so that the ways out of a lack of memory are gone while there is plenty.
//!
//! Whoever asks for frames gets an answer that may be no. The heap does not ask this way when it grows, because most of those
//! who allocate there cannot go on without. Linux: `fail_page_alloc`.

use core::sync::atomic::{AtomicU64, Ordering};

use hal::chaos::mix;

/// One request in so many is refused; 0 for none.
static ONE_IN: AtomicU64 = AtomicU64::new(0);
static DRAW: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// From here on one request in `n` is refused, as drawn from `seed`; none if `n` is 0.
pub(crate) fn refuse_one_in(n: u64, seed: u64) {
    DRAW.store(seed, Ordering::Relaxed);
    ONE_IN.store(n, Ordering::Relaxed);
}

/// How many were refused since boot.
pub(crate) fn refused() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}

/// Whether this request is refused.
pub(super) fn strikes() -> bool {
    let n = ONE_IN.load(Ordering::Relaxed);
    let struck = n != 0 && mix(DRAW.fetch_add(1, Ordering::Relaxed)).is_multiple_of(n);
    if struck {
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
    struck
}
