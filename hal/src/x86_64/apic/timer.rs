//! The local APIC's timer: an interrupt on this CPU after a while, or again and again.
//!
//! Each CPU has one. All run at the same rate, so one measurement at boot serves all. Where the processor can, a single
//! shot is armed as a TSC value (TSC-deadline mode), which costs one register write and has the TSC's resolution.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;
use x86_64::registers::model_specific::Msr;

use super::registers::Register;
use super::{LocalApic, MASKED, SOFTWARE_ENABLED};
use crate::percpu;
use crate::x86_64::clock::{self, Failure, NS, Scale, Verdict};
use crate::x86_64::cpuid::Features;
use crate::x86_64::vectors;

/// The timers of all CPUs; acts on the executing CPU's.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    apic: LocalApic,
    /// Counts per second, after the divider.
    hz: u64,
    to_counts: Scale,
    /// From ns to TSC cycles, if single shots are armed as TSC values.
    to_cycles: Option<Scale>,
}

/// How the timer's frequency is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// The hypervisor states it.
    Stated,
    /// It was measured by the clock.
    Measured(Verdict),
}

/// The timer could not be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoTimer(pub Failure);

impl fmt::Display for NoTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Failure::Dead => {
                f.write_str("the APIC timer's frequency cannot be measured: the clock stands still")
            }
            Failure::Undecided(_) => {
                f.write_str("the APIC timer's frequency cannot be measured on so busy a host")
            }
        }
    }
}

impl core::error::Error for NoTimer {}

/// Timer modes in the local vector table entry (Intel SDM volume 3, 11.5.1).
const ONE_SHOT: u32 = 0;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 2 << 17;
/// The divider's encoding of "by 16", and its value.
const DIVIDE_BY_16: u32 = 0b0011;
const DIVIDER: u64 = 16;
/// IA32_TSC_DEADLINE.
const DEADLINE: Msr = Msr::new(0x6e0);

percpu! {
    /// This CPU's local vector table entry as last written, to spare the write when the mode stays. 0 is no valid entry.
    static ENTRY: AtomicU32 = AtomicU32::new(0);
}

static TIMER: Once<Timer> = Once::new();
static RATE: Once<Rate> = Once::new();

impl Timer {
    /// Learns the timer's rate: from the hypervisor, or by the clock, which must run. Takes 16 ms, with a busy host up to
    /// eight times that.
    ///
    /// Once, on the boot CPU, interrupts off, after [`LocalApic::new`].
    ///
    /// # Errors
    /// The measurement failed.
    pub fn calibrate(apic: LocalApic, features: &Features) -> Result<(Timer, Rate), NoTimer> {
        apic.access.write(Register::TIMER_DIVIDE, DIVIDE_BY_16);
        let (hz, rate) = match features.apic_hz {
            Some(hz) => (hz / DIVIDER, Rate::Stated),
            None => {
                let verdict = Timer::measure(&apic)?;
                (verdict.hz, Rate::Measured(verdict))
            }
        };
        if hz == 0 {
            return Err(NoTimer(Failure::Dead));
        }
        let trusted = clock::source() == clock::Source::Tsc;
        let tsc_hz = clock::tsc_hz().filter(|_| features.tsc_deadline && trusted);
        let to_cycles = tsc_hz.map(|tsc_hz| Scale::new(NS, tsc_hz));
        let timer = Timer { apic, hz, to_counts: Scale::new(NS, hz), to_cycles };
        Ok((timer, rate))
    }

    /// Lets the masked timer count down from its largest value beside the clock.
    fn measure(apic: &LocalApic) -> Result<Verdict, NoTimer> {
        let access = apic.access;
        // A software-disabled APIC need not count.
        access.write(Register::SPURIOUS, SOFTWARE_ENABLED | u32::from(vectors::SPURIOUS));
        access.write(Register::LVT_TIMER, MASKED | PERIODIC | u32::from(vectors::TIMER));
        access.write(Register::TIMER_INITIAL, u32::MAX);
        let mut counts = (|| u64::from(u32::MAX - access.read(Register::TIMER_CURRENT)), u64::from(u32::MAX));
        let mut time = (clock::now_ns, u64::MAX);
        let verdict = clock::measure(&mut counts, &mut time, NS);
        access.write(Register::TIMER_INITIAL, 0);
        access.write(Register::LVT_TIMER, MASKED | u32::from(vectors::TIMER));
        verdict.map_err(NoTimer)
    }

    /// Counts per second in one-shot and periodic mode.
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// How single shots are armed, in words.
    pub fn mode(&self) -> &'static str {
        if self.to_cycles.is_some() { "TSC-deadline" } else { "one-shot" }
    }

    /// Interrupts this CPU once, at least `ns` nanoseconds from now as the timer counts. Replaces what was armed.
    ///
    /// Longer than the counter reaches (32 bits; about a minute at 62.5 MHz) comes early, as does any expiry by the
    /// measurement's error: the handler looks at the clock and arms again.
    ///
    /// Interrupts off. Cost: one register write, two after a change of mode.
    #[inline]
    pub fn start_oneshot(&self, ns: u64) {
        match self.to_cycles {
            Some(to_cycles) => {
                self.set_entry(TSC_DEADLINE);
                let deadline = clock::read_tsc().saturating_add(to_cycles.apply_up(ns));
                write_deadline(deadline);
            }
            None => {
                self.set_entry(ONE_SHOT);
                self.apic.access.write(Register::TIMER_INITIAL, self.counts(ns));
            }
        }
    }

    /// Interrupts this CPU every `ns` nanoseconds. Interrupts off.
    pub fn start_periodic(&self, ns: u64) {
        self.set_entry(PERIODIC);
        self.apic.access.write(Register::TIMER_INITIAL, self.counts(ns));
    }

    /// Disarms. An interrupt that is already on its way still comes. Interrupts off.
    pub fn stop(&self) {
        if self.to_cycles.is_some() && ENTRY.read() == entry(TSC_DEADLINE) {
            write_deadline(0);
        } else {
            self.apic.access.write(Register::TIMER_INITIAL, 0);
        }
    }

    /// The timer's count for `ns`: at least 1, since 0 disarms, at most what its register holds.
    fn counts(&self, ns: u64) -> u32 {
        u32::try_from(self.to_counts.apply_up(ns)).unwrap_or(u32::MAX)
    }

    #[inline]
    fn set_entry(&self, mode: u32) {
        if ENTRY.read() == entry(mode) {
            return;
        }
        let access = self.apic.access;
        access.write(Register::TIMER_INITIAL, 0);
        access.write(Register::TIMER_DIVIDE, DIVIDE_BY_16);
        access.write(Register::LVT_TIMER, entry(mode));
        ENTRY.write(entry(mode));
        // An entry in memory may take effect after a following MSR write unless it is fenced (Intel SDM volume 3, 11.5.4.1).
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// The executing CPU's entry was written by somebody else.
pub(super) fn forget_entry() {
    ENTRY.write(0);
}

const fn entry(mode: u32) -> u32 {
    mode | vectors::TIMER as u32
}

#[inline]
fn write_deadline(tsc: u64) {
    let mut deadline = DEADLINE;
    // SAFETY: only reached in TSC-deadline mode, which the processor has; at that TSC value it sends the timer's vector,
    // for which the kernel has a handler. 0 disarms.
    unsafe { deadline.write(tsc) };
}

/// Makes `timer` the one that the functions below use. Once, at boot.
pub fn init(timer: Timer, rate: Rate) {
    TIMER.call_once(|| timer);
    RATE.call_once(|| rate);
}

/// The installed timer and how its rate is known.
pub fn get() -> Option<(&'static Timer, Rate)> {
    Some((TIMER.get()?, *RATE.get()?))
}

/// [`Timer::start_oneshot`] on the installed timer; nothing before [`init`].
#[inline]
pub fn start_oneshot(ns: u64) {
    if let Some(timer) = TIMER.get() {
        timer.start_oneshot(ns);
    }
}

/// [`Timer::start_periodic`] on the installed timer; nothing before [`init`].
pub fn start_periodic(ns: u64) {
    if let Some(timer) = TIMER.get() {
        timer.start_periodic(ns);
    }
}

/// [`Timer::stop`] on the installed timer; nothing before [`init`].
pub fn stop() {
    if let Some(timer) = TIMER.get() {
        timer.stop();
    }
}
