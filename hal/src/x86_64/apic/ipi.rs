//! Interrupts from one CPU to others.
//!
//! In x2APIC mode a command is one 64-bit MSR write. In xAPIC mode it is two registers: the destination is written
//! first, and writing the low half sends. An interrupt or NMI between the two that sends as well would change the
//! destination under the first sender. Interrupts are therefore off in between, which also keeps the sender on its
//! CPU, and a sender in an NMI handler puts the destination back as it found it, so that it leaves no trace. All others
//! leave that out: a guest leaves the processor for each access.

use core::sync::atomic::AtomicU64;

use super::registers::{Access, Register};
use super::{LocalApic, counters};
use crate::x86_64::relax;
use crate::{Native, Platform};

/// What an interrupt command does at its destination (Intel SDM volume 3, 11.6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Fixed(u8),
    Nmi,
    Init,
    /// Start at this page number.
    Startup(u8),
}

/// Who gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum To {
    /// The CPU with this APIC id.
    One(u32),
    Myself,
    AllButMyself,
}

const ASSERT: u32 = 1 << 14;
/// Set while an xAPIC has not yet handed the command on.
const PENDING: u32 = 1 << 12;

/// How often the pending bit is looked at before the command is given up as stuck. It clears within microseconds; a
/// guest sees it clear at once. About a second on hardware.
const PATIENCE: u32 = 1_000_000;

/// Commands that an APIC did not hand on in time, on any CPU. Not zero means that the machine is broken.
pub(super) static STUCK: AtomicU64 = AtomicU64::new(0);

/// The low half of the command register.
pub(super) const fn low(kind: Kind, to: To) -> u32 {
    let what = match kind {
        Kind::Fixed(vector) => vector as u32,
        Kind::Nmi => 0b100 << 8,
        Kind::Init => 0b101 << 8,
        Kind::Startup(page) => 0b110 << 8 | page as u32,
    };
    let whom = match to {
        To::One(_) => 0,
        To::Myself => 0b01 << 18,
        To::AllButMyself => 0b11 << 18,
    };
    what | whom | ASSERT
}

/// The destination, as an x2APIC's high half has it.
pub(super) const fn high(to: To) -> u32 {
    match to {
        To::One(id) => id,
        To::Myself | To::AllButMyself => 0,
    }
}

impl LocalApic {
    /// Sends one command. Any context. An id beyond 255 does not exist in xAPIC mode; such a command is dropped.
    pub(super) fn command(&self, kind: Kind, to: To) {
        counters::SENT.inc();
        let (high, low) = (high(to), low(kind, to));
        match self.access {
            Access::Msr => {
                // An x2APIC write does not wait for earlier stores to become visible, and the receiver must see them:
                // the fences are those of Intel SDM volume 3, 11.12.3.
                x2apic_fence();
                self.access.write_wide(Register::COMMAND_LOW, u64::from(high) << 32 | u64::from(low));
            }
            // A shorthand has no destination: the other half of the command stays as it is, in the middle of another one too.
            Access::Memory(_) if !matches!(to, To::One(_)) => {
                self.wait_until_handed_on();
                self.access.write(Register::COMMAND_LOW, low);
            }
            Access::Memory(_) => {
                if high <= 0xff {
                    x86_64::instructions::interrupts::without_interrupts(|| {
                        self.command_in_memory(high, low)
                    });
                }
            }
        }
    }

    /// Both halves of a command, interrupts off.
    fn command_in_memory(&self, high: u32, low: u32) {
        // A write to uncached memory is not passed by earlier stores, so the receiver sees them.
        self.wait_until_handed_on();
        if Native::context().in_nmi() {
            return self.command_in_nmi(high, low);
        }
        self.access.write(Register::COMMAND_HIGH, high << 24);
        self.access.write(Register::COMMAND_LOW, low);
    }

    /// The same for who has perhaps come between the two halves of another one, which is handed on.
    #[cold]
    fn command_in_nmi(&self, high: u32, low: u32) {
        let found = self.access.read(Register::COMMAND_HIGH);
        self.access.write(Register::COMMAND_HIGH, high << 24);
        self.access.write(Register::COMMAND_LOW, low);
        // Before the destination changes back, and the other one goes on.
        self.wait_until_handed_on();
        self.access.write(Register::COMMAND_HIGH, found);
    }

    /// Whether an xAPIC has handed the last command on.
    #[inline(always)]
    pub(super) fn is_handed_on(&self) -> bool {
        self.access.read(Register::COMMAND_LOW) & PENDING == 0
    }

    pub(super) fn wait_until_handed_on(&self) {
        for _ in 0..PATIENCE {
            if self.is_handed_on() {
                return;
            }
            relax();
        }
        STUCK.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }
}

fn x2apic_fence() {
    // SAFETY: two fences; no effect but order. SSE2, which has them, is part of x86_64.
    unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_encoded_as_the_manual_says() {
        assert_eq!(low(Kind::Fixed(0xf0), To::One(3)), 0x40f0);
        assert_eq!(low(Kind::Nmi, To::AllButMyself), 0xc_4400);
        assert_eq!(low(Kind::Init, To::One(1)), 0x4500);
        assert_eq!(low(Kind::Startup(0x9f), To::One(1)), 0x469f);
        assert_eq!(low(Kind::Fixed(0x30), To::Myself), 0x4_4030);
        assert_eq!((high(To::One(300)), high(To::Myself)), (300, 0));
    }
}
