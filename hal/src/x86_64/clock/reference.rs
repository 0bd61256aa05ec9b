//! Clocks of known frequency: HPET, ACPI PM timer, PIT.
//!
//! Each is slow to read (a device, in a guest an exit), and good for measuring the fast counters with, or as the clock
//! when those cannot be trusted.

use core::fmt;
use core::ptr::NonNull;

use volatile::{VolatileFieldAccess, VolatilePtr};
use x86_64::instructions::port::Port;

use crate::x86_64::acpi::{PM_TIMER_HZ, PmTimerInfo, Register};

/// Which reference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The high precision event timer: 10 MHz or more.
    Hpet,
    /// The ACPI power management timer: 3.58 MHz.
    PmTimer,
    /// Channel 2 of the programmable interval timer: 1.19 MHz, wraps every 55 ms.
    Pit,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Hpet => "HPET",
            Kind::PmTimer => "PM timer",
            Kind::Pit => "PIT",
        })
    }
}

/// A reference clock that counts upwards and wraps.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    device: Device,
    /// In Hz.
    pub(super) hz: u64,
    /// The width of its counter.
    pub(super) bits: u32,
}

#[derive(Clone, Copy, Debug)]
enum Device {
    Hpet(NonNull<HpetRegisters>),
    PortTimer(u16),
    MemoryTimer(NonNull<u32>),
    Pit,
}

// SAFETY: device registers at addresses that stay mapped; all but the PIT are read with one access, by any CPU.
unsafe impl Send for Reference {}
// SAFETY: as above. The PIT's two-step read is for the boot CPU alone, see `pit`.
unsafe impl Sync for Reference {}

/// The HPET's registers (IA-PC HPET specification, 2.3.3).
#[repr(C)]
#[derive(VolatileFieldAccess)]
struct HpetRegisters {
    _revision: u32,
    period_fs: u32,
    _reserved0: u64,
    configuration: u32,
    _reserved1: [u32; 55],
    counter_low: u32,
    counter_high: u32,
}

const HPET_ENABLE: u32 = 1;
const FEMTOSECONDS: u64 = 1_000_000_000_000_000;
/// The slowest HPET that the specification allows has a period of 100 ns; one faster than 1 ns does not exist.
const HPET_PERIODS: core::ops::RangeInclusive<u32> = 1_000_000..=100_000_000;

impl Reference {
    /// The HPET whose registers are mapped at `registers`, switched on. `None` if what is there is not an HPET.
    ///
    /// Its lower 32 bits are used, which are read in one access everywhere.
    ///
    /// # Safety
    /// An HPET's registers are mapped there, uncached, for as long as the kernel runs.
    pub(super) unsafe fn hpet(registers: NonNull<u8>) -> Option<Reference> {
        let device = registers.cast::<HpetRegisters>();
        // SAFETY: the caller's promise.
        let hpet = unsafe { VolatilePtr::new(device) };
        let period = hpet.period_fs().read();
        if !HPET_PERIODS.contains(&period) {
            return None;
        }
        hpet.configuration().update(|value| value | HPET_ENABLE);
        let hz = (FEMTOSECONDS + u64::from(period) / 2) / u64::from(period);
        Some(Reference { device: Device::Hpet(device), hz, bits: 32 })
    }

    /// The PM timer. `map` maps its register if that is in memory.
    ///
    /// # Safety
    /// `info` is firmware's, and `map` returns where the register is mapped, uncached, for as long as the kernel runs.
    pub(super) unsafe fn pm_timer(
        info: PmTimerInfo,
        map: impl FnOnce(u64, usize) -> Option<NonNull<u8>>,
    ) -> Option<Reference> {
        let device = match info.register {
            Register::Port(port) => Device::PortTimer(port),
            Register::Memory(address) => Device::MemoryTimer(map(address, 4)?.cast()),
        };
        Some(Reference { device, hz: PM_TIMER_HZ, bits: info.bits })
    }

    /// Channel 2 of the PIT, set to count round and round.
    ///
    /// # Safety
    /// Ring 0, on one CPU at a time: its counter is read in two steps.
    pub(super) unsafe fn pit() -> Reference {
        // SAFETY: ring 0, and these are the PIT's ports or nothing's. The speaker, which hangs on this channel, is off.
        unsafe {
            let mut gate = Port::<u8>::new(PIT_GATE);
            let value: u8 = gate.read();
            gate.write(value & !SPEAKER | GATE);
            Port::<u8>::new(PIT_COMMAND).write(CHANNEL2_RATE);
            Port::<u8>::new(PIT_CHANNEL2).write(0);
            Port::<u8>::new(PIT_CHANNEL2).write(0);
        }
        Reference { device: Device::Pit, hz: PIT_HZ, bits: 16 }
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        match self.device {
            Device::Hpet(_) => Kind::Hpet,
            Device::PortTimer(_) | Device::MemoryTimer(_) => Kind::PmTimer,
            Device::Pit => Kind::Pit,
        }
    }

    /// Its frequency in Hz.
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// The width of its counter.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The counter, in its lowest `bits` bits. HPET and PM timer: any context, any CPU.
    #[inline]
    pub(super) fn read(&self) -> u64 {
        let raw = match self.device {
            // SAFETY: mapped for good, by the contract of `hpet`.
            Device::Hpet(device) => unsafe { VolatilePtr::new(device) }.counter_low().read(),
            // SAFETY: firmware says that the timer is read here, and reading has no effect.
            Device::PortTimer(port) => unsafe { Port::<u32>::new(port).read() },
            // SAFETY: mapped for good, by the contract of `pm_timer`.
            Device::MemoryTimer(at) => unsafe { VolatilePtr::new(at) }.read(),
            // It counts down.
            Device::Pit => u32::from(u16::MAX - read_pit()),
        };
        u64::from(raw) & self.mask()
    }

    pub(super) fn mask(&self) -> u64 {
        (1 << self.bits) - 1
    }
}

/// The PIT's frequency in Hz.
const PIT_HZ: u64 = 1_193_182;
const PIT_CHANNEL2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
/// Bit 0 lets channel 2 count, bit 1 connects it to the speaker.
const PIT_GATE: u16 = 0x61;
const GATE: u8 = 1;
const SPEAKER: u8 = 2;
/// Channel 2, both bytes, mode 2 (count down to 1 and start again), binary.
const CHANNEL2_RATE: u8 = 0b1011_0100;
/// Channel 2: hold the count still for reading.
const CHANNEL2_LATCH: u8 = 0b1000_0000;

fn read_pit() -> u16 {
    // SAFETY: ring 0 by the contract of `Reference::pit`; latching and reading do not disturb the counting.
    unsafe {
        Port::<u8>::new(PIT_COMMAND).write(CHANNEL2_LATCH);
        let mut channel = Port::<u8>::new(PIT_CHANNEL2);
        let low: u8 = channel.read();
        let high: u8 = channel.read();
        u16::from_le_bytes([low, high])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_where_the_specification_says() {
        assert_eq!(core::mem::offset_of!(HpetRegisters, configuration), 0x10);
        assert_eq!(core::mem::offset_of!(HpetRegisters, counter_low), 0xf0);
    }

    #[test]
    fn an_hpet_in_memory() {
        let mut registers = HpetRegisters {
            _revision: 0x8086_a201,
            period_fs: 10_000_000,
            _reserved0: 0,
            configuration: 0,
            _reserved1: [0; 55],
            counter_low: 77,
            counter_high: 1,
        };
        let at = NonNull::from(&mut registers);
        // SAFETY: plain memory of the right form stands in for the device.
        let hpet = unsafe { Reference::hpet(at.cast()) }.unwrap();
        assert_eq!((hpet.hz(), hpet.read(), hpet.kind()), (100_000_000, 77, Kind::Hpet));
        // SAFETY: `registers` is alive; volatile, because the driver wrote behind the compiler's back.
        assert_eq!(unsafe { (&raw const (*at.as_ptr()).configuration).read_volatile() }, 1);
        for wrong in [0, 999_999, 100_000_001, u32::MAX] {
            // SAFETY: as above.
            unsafe {
                (&raw mut (*at.as_ptr()).period_fs).write_volatile(wrong);
                assert!(Reference::hpet(at.cast()).is_none(), "{wrong}");
            }
        }
    }
}
