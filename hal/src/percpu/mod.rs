//! Per-CPU variables.
//!
//! 1. [`percpu!`](crate::percpu!) puts a variable's initial value into one linker section, the *template*.
//! 2. Each CPU owns an *area*, a copy of the template, and a base: the distance from the template to its area. On
//!    x86_64 the base is the GS base, so `inc dword ptr gs:[rip + X]` names the variable's link address and hits this
//!    CPU's copy, in one instruction that an interrupt cannot split. Hosted, the base is thread-local and the formula is
//!    the same.
//! 3. Anything that takes more than one instruction needs proof that the CPU cannot change meanwhile: a [`Pinned`]
//!    guard.
//!
//! What a variable's type allows:
//!
//! | access | needs | for types |
//! |---|---|---|
//! | [`inc`](PerCpu::inc), [`read`](PerCpu::read), .. | nothing: one instruction | atomic integers |
//! | [`get`](PerCpu::get) | a [`Pinned`] guard | `T: Sync`, because an interrupt may look at it in the middle |
//! | [`get_local`](PerCpu::get_local) | an [`IrqsOff`] guard | any `T`; `Cell`s too |
//! | [`on`](PerCpu::on) | nothing | `T: Sync`, because two CPUs share it |
//!
//! The integer operations are not atomic against *other* CPUs (there is no `lock` prefix): other CPUs read, the owner
//! writes. That is why they cost a fraction of an atomic.
//!
//! ```
//! use core::sync::atomic::{AtomicU64, Ordering};
//! use hal::percpu;
//!
//! percpu! {
//!     /// Packets seen by this CPU.
//!     static PACKETS: AtomicU64 = AtomicU64::new(0);
//! }
//! PACKETS.inc();
//! PACKETS.add(2);
//! assert_eq!(PACKETS.read(), 3);
//! let all: u64 = hal::percpu::cpus().map(|cpu| PACKETS.on(cpu).load(Ordering::Relaxed)).sum();
//! assert_eq!(all, 3);
//! ```

mod area;
mod counters;
mod dynamic;
#[cfg(not(target_os = "none"))]
#[doc(hidden)]
pub mod host;
mod integer;
#[cfg(miri)]
mod interpreted;

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::sync::atomic::AtomicUsize;

pub(crate) use area::base_of;
#[cfg(not(target_os = "none"))]
pub use area::set_host_base;
pub use area::{
    AREA_ALIGN, AreaError, Initializer, area_of, area_size, cpus, install, template_address, template_size,
};
pub use counters::Counters;
pub use dynamic::{DYNAMIC_BYTES, DynamicPerCpu, OutOfPerCpuSpace, dynamic_used};
pub use integer::{PerCpuInteger, Symbol};
#[cfg(miri)]
#[doc(hidden)]
pub use interpreted::add_initializer;

use crate::CpuId;

/// Proof that the current execution stays on the CPU it is on: preemption, migration or interrupts are off.
///
/// # Safety
/// While a value of the implementing type is borrowed, the borrowing execution must not move to another CPU. The type
/// must be neither `Send` nor `Sync`, or a reference on another CPU would prove the wrong thing.
pub unsafe trait Pinned {}

/// Proof that interrupts are off on this CPU, so that nothing but an NMI runs here in between.
///
/// NMI handlers must not create such proofs: an NMI arrives in spite of them.
///
/// # Safety
/// As for [`Pinned`], and interrupts are off while a value is borrowed.
pub unsafe trait IrqsOff: Pinned {}

/// A per-CPU variable: one `T` for each CPU. Declared with [`percpu!`](crate::percpu!).
///
/// # Invariants
/// Every value lies in the template section, so `address + base` is this variable in the area with that base.
#[repr(transparent)]
pub struct PerCpu<T, S> {
    template: UnsafeCell<T>,
    symbol: PhantomData<fn() -> S>,
}

// SAFETY: a shared reference gives access to the `T`s only by the methods below, each of which asks for what it needs:
// `T: Sync`, or proof that nobody else runs on this CPU, which alone reaches its `T`.
unsafe impl<T, S> Sync for PerCpu<T, S> {}

impl<T, S> PerCpu<T, S> {
    /// For [`percpu!`](crate::percpu!) only.
    ///
    /// # Safety
    /// The value must be a static in the template section.
    #[doc(hidden)]
    pub const unsafe fn new(value: T) -> PerCpu<T, S> {
        const {
            assert!(
                align_of::<T>() <= AREA_ALIGN,
                "a per-CPU variable may be aligned to at most AREA_ALIGN bytes"
            )
        };
        PerCpu { template: UnsafeCell::new(value), symbol: PhantomData }
    }

    /// This CPU's value. Linux: `this_cpu_ptr` inside `get_cpu`/`put_cpu`.
    ///
    /// Contexts: any. Cost: one load and one addition.
    #[inline]
    pub fn get<'a>(&'static self, _proof: &'a (impl Pinned + ?Sized)) -> &'a T
    where
        T: Sync,
    {
        // SAFETY: the proof keeps us on this CPU for `'a`; areas live for ever; `T: Sync` allows sharing with
        // interrupts on this CPU and with other CPUs.
        unsafe { &*self.local_ptr() }
    }

    /// This CPU's value, of a type that may not be shared: interrupts are off, so no other reference to it is in use.
    ///
    /// Contexts: any but NMI. Cost: one load and one addition.
    #[inline]
    pub fn get_local<'a>(&'static self, _proof: &'a (impl IrqsOff + ?Sized)) -> &'a T {
        // SAFETY: interrupts are off for `'a` and we stay here, so every other access to this CPU's value, which needs
        // the same proof or `T: Sync`, comes from this same execution; areas live for ever.
        unsafe { &*self.local_ptr() }
    }

    /// The value of `cpu`. Linux: `per_cpu_ptr`.
    ///
    /// Contexts: any. Cost: one indexed load and one addition.
    ///
    /// # Panics
    /// If `cpu` has no area; see [`cpus`].
    #[inline]
    #[track_caller]
    pub fn on(&'static self, cpu: CpuId) -> &'static T
    where
        T: Sync,
    {
        match base_of(cpu) {
            // SAFETY: a registered base leads to a live, initialised copy of the template; `T: Sync`.
            Some(base) => unsafe { &*self.ptr_at(base) },
            None => panic!("CPU {cpu} has no per-CPU area"),
        }
    }

    /// A pointer to the value of whatever CPU runs this, at this moment.
    #[inline]
    pub fn local_ptr(&'static self) -> *const T {
        self.ptr_at(this_base())
    }

    #[inline]
    fn ptr_at(&'static self, base: usize) -> *const T {
        self.place().wrapping_add(base) as *const T
    }
}

/// Declares per-CPU variables: `percpu! { static NAME: TYPE = INITIAL; }`, any number of them, with attributes and
/// visibility. `INITIAL` is a constant expression; every CPU starts with a bitwise copy of it.
///
/// Each declaration also introduces a type of the same name (the variable's link-time identity), which is what lets an
/// operation name the variable in its instruction.
///
/// A type aligned to more than [`AREA_ALIGN`] does not compile.
#[macro_export]
macro_rules! percpu {
    ($($(#[$meta:meta])* $vis:vis static $NAME:ident : $T:ty = $init:expr;)*) => {$(
        #[doc = concat!("The link-time identity of the per-CPU variable `", stringify!($NAME), "`.")]
        #[allow(non_camel_case_types, dead_code, clippy::upper_case_acronyms)]
        $vis enum $NAME {}

        $(#[$meta])*
        #[unsafe(link_section = "percpu")]
        $vis static $NAME: $crate::percpu::PerCpu<$T, $NAME> = {
            let value: $T = $init;
            // SAFETY: the attribute above puts this static into the template section.
            unsafe { $crate::percpu::PerCpu::new(value) }
        };

        $crate::__percpu_symbol!($NAME, $T);
    )*};
}

/// The first entry of the template, present in every program: the distance from the template to the area it is in.
/// It also gives the section its alignment, and keeps it from being empty.
#[repr(C, align(64))]
struct Head {
    base: AtomicUsize,
}

const _: () = assert!(align_of::<Head>() == AREA_ALIGN);

percpu! {
    // Linkers drop a section that only its bounds refer to; a retained member keeps it.
    #[used]
    static HEAD: Head = Head { base: AtomicUsize::new(0) };
    /// The number of the CPU that owns the area.
    static CPU_NUMBER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
}

/// The number of the CPU that runs this instruction, which may be another one by the next unless the caller is pinned.
/// Linux: `raw_smp_processor_id`. Cost: one load.
#[inline]
pub fn current_cpu_number() -> u32 {
    CPU_NUMBER.read()
}

/// The distance from the template to the area of the CPU that runs this instruction.
#[inline]
pub fn this_base() -> usize {
    #[cfg(target_os = "none")]
    {
        let base;
        // SAFETY: reads the first field of `HEAD` through GS; a CPU's GS base leads to its area or, before that is set
        // up, is 0 and leads to the template, whose base field is 0. No memory is written.
        unsafe {
            core::arch::asm!("mov {0}, gs:[rip + {1}]", out(reg) base, sym HEAD, options(nostack, preserves_flags, readonly));
        }
        base
    }
    #[cfg(not(target_os = "none"))]
    {
        area::host_base()
    }
}
