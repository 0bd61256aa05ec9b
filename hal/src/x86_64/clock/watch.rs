//! What the clock is compared with while the machine runs, and the change to another counter.
//!
//! This is the mechanism. Whether the clock is wrong, and which counter is the next one, is decided above, by whoever
//! calls [`read_against`] now and then; `timers::clock` can.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use super::reference::{Kind, Reference};
use super::timebase::{Counter, Timebase, current, now_ns, publish};
use super::{info, tsc, tsc_hz};
use crate::{Native, Platform};

/// A reference's count, and what the clock said before and after it was read, in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bracket {
    /// The clock just before.
    pub before: u64,
    /// The reference's count, modulo its width.
    pub count: u64,
    /// The clock just after.
    pub after: u64,
}

/// Readings from which the sharpest is taken.
const READINGS: u32 = 4;

/// Reads the clock together with the device `kind`: the reading, of a few, that took the shortest time. `None` if there is no
/// such device, or if it is the clock itself, or the PIT, which only the boot CPU can read, while it boots.
///
/// Contexts: any but NMI. Cost: four readings of the device, about 1 us each in a guest.
pub fn read_against(kind: Kind) -> Option<Bracket> {
    let device = device(kind)?;
    if matches!(current()?.counter(), Counter::Device(used, _) if used.kind() == kind) {
        return None;
    }
    let mut best: Option<Bracket> = None;
    for _ in 0..READINGS {
        let before = now_ns();
        let count = device.read();
        let bracket = Bracket { before, count, after: now_ns() };
        if best.is_none_or(|best| bracket.after - bracket.before < best.after - best.before) {
            best = Some(bracket);
        }
    }
    best
}

/// A device that every CPU can read at any time.
fn device(kind: Kind) -> Option<Reference> {
    let able = info()?.references.iter().find(|reference| reference.kind() == kind);
    able.copied().filter(|_| kind != Kind::Pit)
}

/// Somebody changes the clock's counter.
static CHANGING: AtomicBool = AtomicBool::new(false);

/// Makes the clock count the device `kind` from now on: what it counted is wrong, by about `ppm`. The time goes on from
/// where it is, without a step back; it jumps ahead by 10 us and 20 ms times `ppm`, so that nobody who read the old counter
/// in the meantime was ahead of the new one. Returns whether it was done: not if there is no such device, or if another CPU
/// is changing it at the same moment.
///
/// Contexts: task, softirq, hardirq. Allocates.
pub fn fall_back(kind: Kind, ppm: u64) -> bool {
    let Some(device) = device(kind) else { return false };
    let margin = super::SWITCH_MARGIN_NS + ppm.min(1_000_000) * 20;
    let done = change(margin, |base_ns| {
        let counter = Counter::device(device);
        let origin = counter.read();
        Timebase::new(counter, device.hz(), origin, base_ns())
    });
    if done {
        log::warn!("the clock is now the {}", super::source());
    }
    done
}

/// Replaces the timebase by what `make` makes of the time that it starts from, which is `margin_ns` ahead. One at a time;
/// with interrupts off and memory at hand, so that little time passes between the readings of the old one and the new one.
///
/// `make` reads the new counter's origin first, and then the time. A host can stop a virtual CPU between the two for
/// milliseconds. In this order that puts the clock forward; in the other one it would put it back.
pub(super) fn change(margin_ns: u64, make: impl FnOnce(&dyn Fn() -> u64) -> Timebase) -> bool {
    let place = Box::new_uninit();
    // Acquire: pairs with the Release below; who changes it next sees what the one before published.
    if CHANGING.swap(true, Ordering::Acquire) {
        return false;
    }
    Native::irq_disable();
    publish(Box::write(place, make(&|| now_ns() + margin_ns)));
    // Release: pairs with the Acquire above.
    CHANGING.store(false, Ordering::Release);
    if Native::irq_enable() {
        Native::check_resched();
    }
    true
}

/// Makes the clock count the TSC again, taken to run faster than it does by `ppm`; with 0, as it should be. To test that this
/// is found. Returns whether it was done.
///
/// Contexts: as [`fall_back`].
#[doc(hidden)]
pub fn plant_tsc(ppm: i64) -> bool {
    let Some(hz) = tsc_hz() else { return false };
    // Who believes in a lower frequency sees time pass faster.
    let believed = i128::from(hz) * 1_000_000 / i128::from(1_000_000 + ppm);
    change(super::SWITCH_MARGIN_NS + ppm.unsigned_abs() * 20, |base_ns| {
        let origin = tsc::read();
        Timebase::new(Counter::Tsc, believed as u64, origin, base_ns())
    })
}
