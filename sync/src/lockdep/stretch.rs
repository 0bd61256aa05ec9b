//! How long a CPU has its interrupts, or its bottom halves, off.
//!
//! The guard that switches off notes the moment and its place in the CPU's record; the one that switches on again finds
//! them there, and tells of it if it was long ([`tell_long`](super::tell_long)). Nothing is noted while nobody wants to be
//! told.
//!
//! What begins or ends without a guard or a lock's flavour is not seen: the entry of an interrupt, whose handler has
//! interrupts off all the time, and a scheduler that switches them by hand.

use core::panic::Location;
use core::sync::atomic::Ordering::Relaxed;

use hal::Platform;
use hal::platform::Stretch;

use super::checker::Checker;
use super::shell::installed;
use super::times::{Lasted, Long};
use super::{ENABLED, shell};

/// What is off.
#[derive(Clone, Copy)]
pub(super) enum Off {
    Interrupts,
    BottomHalves,
}

impl Off {
    fn stretch<P: Platform>(self) -> &'static Stretch {
        // SAFETY: records live for ever; what is off keeps us on this CPU.
        let record = unsafe { P::record().as_ref() };
        match self {
            Off::Interrupts => &record.interrupts_off,
            Off::BottomHalves => &record.bottom_halves_off,
        }
    }
}

/// Interrupts were switched off just now, or were off. Guards and flavours call it. Contexts: any. Cost: nothing in builds
/// without the checker; a few loads where nobody wants to be told of long stretches.
#[inline(always)]
pub(crate) fn interrupts_went_off<P: Platform>(at: &'static Location<'static>) {
    if ENABLED && wanted::<P>() && P::irq_depth() == 1 {
        begin::<P>(Off::Interrupts, at);
    }
}

/// Bottom halves were switched off just now, or were off: the same for them.
#[inline(always)]
pub(crate) fn bottom_halves_went_off<P: Platform>(at: &'static Location<'static>) {
    if ENABLED && wanted::<P>() && P::context().bottom_half_depth() == 1 {
        begin::<P>(Off::BottomHalves, at);
    }
}

#[inline(always)]
fn wanted<P: Platform>() -> bool {
    installed::<P>().is_some_and(|checker| checker.times().has_limit())
}

#[cold]
fn begin<P: Platform>(off: Off, at: &'static Location<'static>) {
    let stretch = off.stretch::<P>();
    stretch.at.store(core::ptr::from_ref(at).cast_mut(), Relaxed);
    stretch.since_ns.store(P::now_ns().max(1), Relaxed);
}

/// It comes on.
#[inline]
pub(super) fn end<P: Platform>(checker: &Checker, off: Off, until: &'static Location<'static>) {
    let stretch = off.stretch::<P>();
    let since = stretch.since_ns.load(Relaxed);
    if since == 0 {
        return;
    }
    stretch.since_ns.store(0, Relaxed);
    let ns = P::now_ns().saturating_sub(since);
    let what = match off {
        Off::Interrupts => Lasted::InterruptsOff,
        Off::BottomHalves => Lasted::BottomHalvesOff,
    };
    // SAFETY: null, or what `begin` stored.
    if let Some(at) = unsafe { stretch.at.load(Relaxed).as_ref() } {
        let long = Long { what, ns, at, until };
        // Whatever is done to tell it is not checked, and if it lasts long itself not told.
        shell::with_checker::<P, _>(|_, _, _, _| checker.times().tell(&long));
    }
}
