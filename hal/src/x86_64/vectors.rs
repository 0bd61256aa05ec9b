//! Which interrupt vector means what.
//!
//! The local APIC serves higher vectors first, in classes of 16: what must not wait is at the top.

/// The first vector that is not an exception.
pub const FIRST_EXTERNAL: u8 = 0x20;
/// Where the legacy 8259 controllers deliver what they should not: they are masked, but a spurious one may come.
pub const LEGACY_PIC: u8 = 0x20;
/// Legacy ISA interrupt `n`, routed through the I/O APIC, arrives at `ISA + n`.
pub const ISA: u8 = 0x30;
/// The local APIC timer.
pub const TIMER: u8 = 0xec;
/// Please look again: a reschedule or a softirq was stored for this CPU, or work for its idle loop.
pub const KICK: u8 = 0xf0;
/// A function to call on this CPU.
pub const CALL: u8 = 0xf1;
/// Address translations changed.
pub const TLB: u8 = 0xf2;
/// From a CPU to itself: the end of this interrupt serves the softirqs that were raised where nobody was about to.
pub const SOFTIRQ: u8 = 0xf3;
/// The local APIC found an error.
pub const APIC_ERROR: u8 = 0xfe;
/// The local APIC withdrew an interrupt in the last moment; needs no end-of-interrupt.
pub const SPURIOUS: u8 = 0xff;
