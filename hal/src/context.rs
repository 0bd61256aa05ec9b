//! What a CPU is in the middle of, in one word and one counter.
//!
//! The **preempt word** counts the reasons why the running task may not be replaced, each in its own field, so that
//! "may it be?" is a comparison with zero:
//!
//! ```text
//!  31              24 23     20 19     16 15      8 7       0
//! +--+---------------+---------+---------+---------+---------+
//! |N |       0       |   NMI   | hardirq | softirq | preempt |
//! +--+---------------+---------+---------+---------+---------+
//! ```
//!
//! `N` is *inverted*: set means that no reschedule is needed. The word is therefore zero exactly when nothing forbids a
//! reschedule **and** one is due, and leaving the outermost section is one decrement and one branch on its result.
//!
//! The **interrupt depth** counts who asked for interrupts to be off, and is zero exactly when the CPU's interrupt flag
//! is set. Guards may so be dropped in any order; the outermost one turns interrupts on.

use core::mem::offset_of;
use core::sync::atomic::AtomicU32;

use crate::__percpu_symbol;
use crate::percpu::PerCpu;

/// One level of [`preempt_disable`](crate::Platform::preempt_disable), in bits 0-7.
pub const PREEMPT_UNIT: u32 = 1;
/// Serving one softirq, in bits 8-15. Disabling bottom halves adds two of these, so that the two are told apart.
pub const SOFTIRQ_UNIT: u32 = 1 << 8;
/// What one level of disabled bottom halves adds.
pub const SOFTIRQ_DISABLE_UNIT: u32 = 2 * SOFTIRQ_UNIT;
/// One nested hardware interrupt, in bits 16-19.
pub const HARDIRQ_UNIT: u32 = 1 << 16;
/// One nested NMI, in bits 20-23.
pub const NMI_UNIT: u32 = 1 << 20;
/// Bit 31, inverted: set while no reschedule is due.
pub const NO_RESCHED_NEEDED: u32 = 1 << 31;

/// The preempt field.
pub const PREEMPT_MASK: u32 = 0xff;
/// The softirq field.
pub const SOFTIRQ_MASK: u32 = 0xff << 8;
/// The hardirq field.
pub const HARDIRQ_MASK: u32 = 0xf << 16;
/// The NMI field.
pub const NMI_MASK: u32 = 0xf << 20;

/// What says whether a CPU may be interrupted or go on with another task: next to each other, so that one instruction can
/// compare both.
#[repr(C, align(8))]
pub(crate) struct CpuCounts {
    word: PerCpu<AtomicU32, Word>,
    irq_depth: PerCpu<AtomicU32, IrqDepth>,
}

/// Where in [`COUNTS`] the depth is; the word is at its beginning.
pub(crate) const IRQ_DEPTH_OFFSET: usize = offset_of!(CpuCounts, irq_depth);
const _: () = assert!(offset_of!(CpuCounts, word) == 0 && IRQ_DEPTH_OFFSET == 4);

#[unsafe(link_section = "percpu")]
pub(crate) static COUNTS: CpuCounts = CpuCounts {
    // SAFETY: the attribute above puts the whole into the template section.
    word: unsafe { PerCpu::new(AtomicU32::new(NO_RESCHED_NEEDED)) },
    // SAFETY: as above.
    irq_depth: unsafe { PerCpu::new(AtomicU32::new(1)) },
};

/// The preempt word's link-time identity.
pub enum Word {}
/// The depth's.
pub enum IrqDepth {}

__percpu_symbol!(Word, AtomicU32, COUNTS, 0, PREEMPT_WORD);
__percpu_symbol!(IrqDepth, AtomicU32, COUNTS, IRQ_DEPTH_OFFSET, IRQ_DEPTH);

/// The preempt word of this CPU. Starts preemptible with no reschedule due.
pub const PREEMPT_WORD: &PerCpu<AtomicU32, Word> = &COUNTS.word;
/// How many parties want interrupts off on this CPU. A CPU starts with its interrupts off, and with one.
pub const IRQ_DEPTH: &PerCpu<AtomicU32, IrqDepth> = &COUNTS.irq_depth;

/// One reading of the preempt word and the interrupt depth, in the order in which a CPU has them.
///
/// ```
/// use hal::context::{Context, Counts};
/// let counts = Counts::new(Context::from_word(7), 2);
/// assert_eq!((counts.context().word(), counts.irq_depth()), (7, 2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts(u64);

impl Counts {
    /// From both.
    #[inline(always)]
    pub const fn new(context: Context, irq_depth: u32) -> Counts {
        Counts(context.0 as u64 | (irq_depth as u64) << (8 * IRQ_DEPTH_OFFSET))
    }

    /// As one number.
    #[cfg(all(target_os = "none", target_arch = "x86_64", feature = "machine"))]
    pub(crate) const fn from_bits(bits: u64) -> Counts {
        Counts(bits)
    }

    /// The number.
    #[cfg(all(target_os = "none", target_arch = "x86_64", feature = "machine"))]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// The preempt word.
    pub const fn context(self) -> Context {
        Context(self.0 as u32)
    }

    /// How many parties wanted interrupts off.
    pub const fn irq_depth(self) -> u32 {
        (self.0 >> (8 * IRQ_DEPTH_OFFSET)) as u32
    }
}

/// One reading of the preempt word.
///
/// ```
/// use hal::context::{Context, HARDIRQ_UNIT, NO_RESCHED_NEEDED};
/// let c = Context::from_word(NO_RESCHED_NEEDED | HARDIRQ_UNIT | 2);
/// assert!(c.in_hardirq() && !c.in_nmi() && !c.resched_due());
/// assert_eq!(c.preempt_depth(), 2);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context(u32);

impl Context {
    /// Interprets a preempt word.
    pub const fn from_word(word: u32) -> Context {
        Context(word)
    }

    /// The word that was read.
    pub const fn word(self) -> u32 {
        self.0
    }

    /// The counts, without the reschedule bit: 0 means that nothing but the interrupt flag could forbid preemption.
    /// Linux: `preempt_count()`.
    pub const fn count(self) -> u32 {
        self.0 & !NO_RESCHED_NEEDED
    }

    /// Nested preempt-disables.
    pub const fn preempt_depth(self) -> u32 {
        self.0 & PREEMPT_MASK
    }

    /// Inside an NMI handler.
    pub const fn in_nmi(self) -> bool {
        self.0 & NMI_MASK != 0
    }

    /// Inside a hardware interrupt handler.
    pub const fn in_hardirq(self) -> bool {
        self.0 & HARDIRQ_MASK != 0
    }

    /// Serving a softirq or with bottom halves disabled.
    pub const fn in_softirq(self) -> bool {
        self.0 & SOFTIRQ_MASK != 0
    }

    /// Serving a softirq.
    pub const fn in_serving_softirq(self) -> bool {
        self.0 & SOFTIRQ_UNIT != 0
    }

    /// How often bottom halves have been disabled and not enabled again.
    pub const fn bottom_half_depth(self) -> u32 {
        (self.0 & SOFTIRQ_MASK) / SOFTIRQ_DISABLE_UNIT
    }

    /// In an interrupt of some kind, or with bottom halves disabled: no softirq is served on top of it.
    /// Linux: `in_interrupt()`.
    pub const fn in_interrupt(self) -> bool {
        self.0 & (NMI_MASK | HARDIRQ_MASK | SOFTIRQ_MASK) != 0
    }

    /// Something forbids preemption; the interrupt flag is not asked. Linux: `in_atomic()`.
    pub const fn in_atomic(self) -> bool {
        self.count() != 0
    }

    /// In task context: no interrupt of any kind is being served (bottom halves may be disabled).
    pub const fn in_task(self) -> bool {
        self.0 & (NMI_MASK | HARDIRQ_MASK | SOFTIRQ_UNIT) == 0
    }

    /// A reschedule is due.
    pub const fn resched_due(self) -> bool {
        self.0 & NO_RESCHED_NEEDED == 0
    }

    /// Nothing is counted and no reschedule is due: one comparison for code that minds both.
    #[inline(always)]
    pub const fn is_clear(self) -> bool {
        self.0 == NO_RESCHED_NEEDED
    }
}
