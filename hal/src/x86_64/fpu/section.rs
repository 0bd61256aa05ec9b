//! Sections: vector registers for a moment, in kernel code.

use core::arch::asm;
use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;
use core::sync::atomic::AtomicU32;

use super::area::{Block, MXCSR_DEFAULT, reset_x87, x87_is_reset};
use super::live::owner;
use crate::context::{Context, HARDIRQ_MASK, SOFTIRQ_UNIT};
use crate::percpu::Pinned;
use crate::platform::{Report, Severity};
use crate::{Native, Platform, percpu};

percpu! {
    /// The preempt word at the beginning of this CPU's section, which is not 0 because preemption is off; 0 if no section
    /// is open.
    static SECTION: AtomicU32 = AtomicU32::new(0);
}

/// This CPU's vector registers are the holder's while the value lives.
///
/// * Preemption is off, so the section is no place to sleep in, and should be short: it adds to everybody's latency.
/// * Interrupts stay on. What interrupts the section cannot open one itself, and is told so by [`Unusable`].
/// * If the running (or interrupted) task owns the registers they are set aside first, and are back when the guard is
///   dropped.
/// * Inside MXCSR and the x87 control word have their default values. The registers' contents are nobody's.
/// * Code that changes MXCSR need not change it back. Code that uses x87 or MMX leaves the x87 stack empty and its control
///   word as it was (`emms`, `fninit`); debug builds check.
///
/// Linux: `kernel_fpu_begin`, `kernel_fpu_end`. Contexts: task, softirq, hardirq; not NMI. Cost on x86_64: 20 instructions
/// for begin and end together while the task has no vector state, else one save and one load of it.
///
/// ```
/// use core::arch::asm;
/// use hal::x86_64::fpu::FpuGuard;
///
/// fn xor(a: &mut [u8; 16], b: &[u8; 16], _vectors: &FpuGuard) {
///     // SAFETY: reads and writes 16 bytes; the guard says that xmm0 and xmm1 are ours.
///     unsafe {
///         asm!(
///             "movdqu xmm0, [{a}]", "movdqu xmm1, [{b}]", "pxor xmm0, xmm1", "movdqu [{a}], xmm0",
///             a = in(reg) a, b = in(reg) b, out("xmm0") _, out("xmm1") _, options(nostack),
///         );
///     }
/// }
/// let mut text = *b"sixteen bytes ..";
/// xor(&mut text, &[0x20; 16], &FpuGuard::begin());
/// assert_eq!(&text, b"SIXTEEN\0BYTES\0\x0e\x0e");
/// ```
///
/// # Invariants
/// `SECTION` of this CPU is not 0, and preemption was disabled once, by the execution that owns the value.
#[must_use = "the section is over as soon as the guard is dropped"]
#[clippy::has_significant_drop]
pub struct FpuGuard {
    /// Neither `Send` nor `Sync`.
    _bound: PhantomData<*const ()>,
}

/// Why vector registers cannot be had at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unusable {
    /// This very context has a section open already: pass its guard on instead of opening another one.
    Nested,
    /// The interrupted code has a section open. Do the work without vectors, or put it off.
    Interrupted,
    /// NMI handlers may have interrupted the saving of registers, and get none.
    Nmi,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unusable::Nested => "a vector section inside of another one; pass the outer one's guard on",
            Unusable::Interrupted => {
                "a vector section in an interrupt of another one; use `try_begin` and do without"
            }
            Unusable::Nmi => "a vector section in an NMI handler, which cannot have one",
        })
    }
}

impl core::error::Error for Unusable {}

/// Whether a section could be opened here and now. In task context with preemption on the answer may be out of date at
/// once; elsewhere it holds until the caller returns or opens one.
///
/// Contexts: any. Cost: a few instructions. Linux: `irq_fpu_usable`.
///
/// # Errors
/// [`Unusable`], the reason why not.
///
/// ```
/// use hal::x86_64::fpu::{FpuGuard, Unusable, usable};
/// assert_eq!(usable(), Ok(()));
/// let guard = FpuGuard::begin();
/// assert_eq!(usable(), Err(Unusable::Nested));
/// # drop(guard);
/// ```
pub fn usable() -> Result<(), Unusable> {
    let outer = SECTION.read();
    if outer != 0 || Native::context().in_nmi() { Err(reason(outer)) } else { Ok(()) }
}

impl FpuGuard {
    /// Opens a section.
    ///
    /// Contexts and cost: see [`FpuGuard`].
    ///
    /// # Panics
    /// If there is a section open on this CPU already, or in an NMI: the machine stops with the reason and the caller's
    /// line, because going on would destroy the registers of another. Code that may run in an interrupt uses
    /// [`try_begin`](FpuGuard::try_begin).
    #[inline(always)]
    #[track_caller]
    pub fn begin() -> FpuGuard {
        match FpuGuard::try_begin() {
            Ok(guard) => guard,
            Err(why) => refuse(why),
        }
    }

    /// Opens a section if that is possible here.
    ///
    /// Contexts: any. Cost: see [`FpuGuard`].
    ///
    /// # Errors
    /// [`Unusable`]: do the work without vectors.
    ///
    /// ```
    /// use hal::x86_64::fpu::{FpuGuard, Unusable};
    /// let outer = FpuGuard::try_begin()?;
    /// assert_eq!(FpuGuard::try_begin().unwrap_err(), Unusable::Nested);
    /// drop(outer);
    /// assert!(FpuGuard::try_begin().is_ok());
    /// # Ok::<(), Unusable>(())
    /// ```
    #[inline(always)]
    pub fn try_begin() -> Result<FpuGuard, Unusable> {
        Native::preempt_disable();
        let word = Native::context();
        let outer = SECTION.read();
        if outer != 0 || word.in_nmi() {
            return Err(refused(outer));
        }
        // An interrupt between the look and this store may have had a section; it is over. From here on there is none
        // but this.
        SECTION.write(word.count());
        if let Some(owner) = owner() {
            set_aside(owner);
        }
        // SAFETY: loads the value that the code around expects MXCSR to have.
        unsafe {
            asm!("ldmxcsr [rip + {}]", sym MXCSR_DEFAULT, options(nostack, preserves_flags, readonly));
        }
        // INVARIANT: both was done just now, and `drop` undoes it.
        Ok(FpuGuard { _bound: PhantomData })
    }

    /// The end of a section, which loads the owner's registers if `RESTORES`.
    #[inline(always)]
    #[track_caller]
    fn end<const RESTORES: bool>() {
        if let Some(owner) = owner() {
            if RESTORES {
                put_back(owner);
            }
        } else if cfg!(debug_assertions) && !x87_is_reset() {
            left_dirty(Location::caller());
        }
        // The registers are right again: an interrupt after this store may open a section of its own.
        SECTION.write(0);
        Native::preempt_enable();
    }
}

impl Drop for FpuGuard {
    #[inline(always)]
    fn drop(&mut self) {
        FpuGuard::end::<true>();
    }
}

// SAFETY: preemption is off for as long as the value exists, which is neither `Send` nor `Sync`.
unsafe impl Pinned for FpuGuard {}

impl fmt::Debug for FpuGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FpuGuard").field("owner_set_aside", &super::has_owner()).finish()
    }
}

/// Saves the owner's registers at the beginning of a section.
#[cold]
#[inline(never)]
fn set_aside(owner: core::ptr::NonNull<Block>) {
    // SAFETY: the owner's area is claimed by this CPU and stays so, because only a context switch changes that, and
    // preemption is off. `SECTION` keeps everybody else on this CPU from the registers.
    let x87_in_use = unsafe {
        Block::save(owner);
        Block::x87_was_in_use(owner)
    };
    if x87_in_use {
        reset_x87();
    }
}

/// Loads them at its end.
#[cold]
#[inline(never)]
fn put_back(owner: core::ptr::NonNull<Block>) {
    // SAFETY: as in `set_aside`, which saved them. The section is over: nobody needs what is in the registers.
    unsafe { Block::load(owner) };
}

/// Undoes `try_begin`'s first step and says why it failed.
#[cold]
fn refused(outer: u32) -> Unusable {
    let why = reason(outer);
    Native::preempt_enable();
    why
}

/// Why there can be no section, given the preempt word at the beginning of the one that is open.
fn reason(outer: u32) -> Unusable {
    // What tells the contexts on one CPU apart: which interrupts are being served. Disabled bottom halves are no context.
    let level = |word: u32| word & (HARDIRQ_MASK | SOFTIRQ_UNIT);
    let here: Context = Native::context();
    if here.in_nmi() {
        Unusable::Nmi
    } else if level(here.count()) == level(outer) {
        Unusable::Nested
    } else {
        Unusable::Interrupted
    }
}

#[cold]
#[track_caller]
fn refuse(why: Unusable) -> ! {
    Native::report(&Report {
        severity: Severity::Fatal,
        message: format_args!("{why}"),
        location: Location::caller(),
    });
    panic!("{why}");
}

#[cold]
fn left_dirty(location: &'static Location<'static>) {
    reset_x87();
    Native::report(&Report {
        severity: Severity::Bug,
        message: format_args!("a vector section leaves x87 registers or their control word changed"),
        location,
    });
}

/// Sections that do something wrong, for tests that must notice.
#[doc(hidden)]
pub mod broken {
    use super::FpuGuard;

    /// A section at whose end the owner's registers do not come back.
    pub fn without_restore(work: impl FnOnce(&FpuGuard)) {
        let guard = FpuGuard::begin();
        work(&guard);
        core::mem::forget(guard);
        FpuGuard::end::<false>();
    }
}
