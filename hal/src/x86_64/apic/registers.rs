//! Access to the local APIC's registers, which are memory (xAPIC) or model-specific registers (x2APIC).

use core::ptr::NonNull;

use volatile::VolatilePtr;
use x86_64::registers::model_specific::Msr;

/// A register: its memory offset divided by 16, which is also its MSR number minus 0x800 (Intel SDM volume 3, tables
/// 11-1 and 11-6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Register(u8);

impl Register {
    pub(super) const ID: Register = Register(0x02);
    pub(super) const VERSION: Register = Register(0x03);
    pub(super) const TASK_PRIORITY: Register = Register(0x08);
    pub(super) const END_OF_INTERRUPT: Register = Register(0x0b);
    pub(super) const LOGICAL_DESTINATION: Register = Register(0x0d);
    pub(super) const DESTINATION_FORMAT: Register = Register(0x0e);
    pub(super) const SPURIOUS: Register = Register(0x0f);
    pub(super) const IN_SERVICE: Register = Register(0x10);
    pub(super) const REQUEST: Register = Register(0x20);
    pub(super) const ERROR_STATUS: Register = Register(0x28);
    pub(super) const COMMAND_LOW: Register = Register(0x30);
    pub(super) const COMMAND_HIGH: Register = Register(0x31);
    pub(super) const LVT_TIMER: Register = Register(0x32);
    pub(super) const LVT_THERMAL: Register = Register(0x33);
    pub(super) const LVT_COUNTERS: Register = Register(0x34);
    pub(super) const LVT_LINT0: Register = Register(0x35);
    pub(super) const LVT_LINT1: Register = Register(0x36);
    pub(super) const LVT_ERROR: Register = Register(0x37);
    pub(super) const TIMER_INITIAL: Register = Register(0x38);
    pub(super) const TIMER_CURRENT: Register = Register(0x39);
    pub(super) const TIMER_DIVIDE: Register = Register(0x3e);

    /// Where it is in the page.
    pub(super) const fn offset(self) -> usize {
        size_of::<Slot>() * self.0 as usize
    }

    /// The `n`-th of a group of eight that hold one bit per vector.
    pub(super) const fn nth(self, n: u8) -> Register {
        assert!(n < 8);
        Register(self.0 + n)
    }
}

/// One register in memory: 32 bits, alone in its 16 bytes.
#[repr(C, align(16))]
struct Slot {
    value: u32,
}

/// The part of the APIC's page that has registers.
#[repr(C)]
pub(in crate::x86_64) struct Page {
    slots: [Slot; 64],
}

/// The two ways in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Device memory at this virtual address. Every CPU sees its own APIC there.
    Memory(NonNull<Page>),
    /// MSRs.
    Msr,
}

// SAFETY: the page is device memory that stays mapped, in which each CPU reaches its own APIC; registers are accessed
// one at a time with volatile accesses, which CPUs cannot disturb for each other.
unsafe impl Send for Access {}
// SAFETY: as above.
unsafe impl Sync for Access {}

/// The MSR of the register numbered 0.
const FIRST_MSR: u32 = 0x800;

impl Access {
    /// Access through memory.
    ///
    /// # Safety
    /// `page` is where the APIC's page is mapped, uncached, for as long as the kernel runs.
    pub(super) unsafe fn memory(page: NonNull<u8>) -> Access {
        Access::Memory(page.cast())
    }

    #[inline]
    pub(super) fn read(self, register: Register) -> u32 {
        match self {
            Access::Memory(page) => slot(page, register).read(),
            // SAFETY: this form is chosen only when the APIC is in x2APIC mode; all constants above but the destination
            // format, which callers leave alone in that mode, are readable or written registers of it.
            Access::Msr => unsafe { Msr::new(FIRST_MSR + u32::from(register.0)).read() as u32 },
        }
    }

    #[inline]
    pub(super) fn write(self, register: Register, value: u32) {
        match self {
            Access::Memory(page) => slot(page, register).write(value),
            Access::Msr => self.write_wide(register, u64::from(value)),
        }
    }

    /// Writes a 64-bit register, of which only x2APIC has one: the command register.
    #[inline]
    pub(super) fn write_wide(self, register: Register, value: u64) {
        debug_assert!(matches!(self, Access::Msr));
        // SAFETY: as in `read`. What a write does to the machine is the business of this module's callers, which keep
        // to vectors that have handlers.
        unsafe { Msr::new(FIRST_MSR + u32::from(register.0)).write(value) }
    }
}

/// The register's volatile place in memory.
#[inline]
fn slot(page: NonNull<Page>, register: Register) -> VolatilePtr<'static, u32> {
    // SAFETY: by the contract of `Access::memory` the page is mapped for good; registers are numbered below 64, so the
    // place is inside it, and it is aligned.
    unsafe {
        VolatilePtr::new(page).map(|page| {
            let slots = page.cast::<Slot>();
            NonNull::new_unchecked(&raw mut (*slots.add(usize::from(register.0)).as_ptr()).value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_where_the_manual_says() {
        let mut memory = [const { Slot { value: 0 } }; 64];
        let page = NonNull::from(&mut memory).cast::<u8>();
        // SAFETY: plain memory of the right size and alignment stands in for the device.
        let access = unsafe { Access::memory(page) };
        access.write(Register::SPURIOUS, 0x1ff);
        access.write(Register::TIMER_DIVIDE, 0b1011);
        access.write(Register::REQUEST.nth(7), 1 << 31);
        // SAFETY: offsets inside the array; this is how the manual gives them.
        let at = |offset: usize| unsafe { page.as_ptr().add(offset).cast::<u32>().read_volatile() };
        assert_eq!((at(0xf0), at(0x3e0), at(0x270)), (0x1ff, 0b1011, 1 << 31));
        assert_eq!(access.read(Register::SPURIOUS), 0x1ff);
    }
}
