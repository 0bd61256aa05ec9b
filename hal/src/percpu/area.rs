//! Areas: how they are laid out, made and found.
//!
//! An area is a copy of the template followed by [`DYNAMIC_BYTES`] of room for variables that come at run time. It is
//! aligned to [`AREA_ALIGN`], the largest alignment that a variable may ask for, and lives for ever.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::{CPU_NUMBER, DYNAMIC_BYTES, HEAD, PerCpu};
use crate::{CpuId, MAX_CPUS};

/// The alignment of every area, and so the largest that a per-CPU variable may have: a cache line.
pub const AREA_ALIGN: usize = 64;

#[cfg(not(miri))]
unsafe extern "C" {
    #[link_name = "__start_percpu"]
    static TEMPLATE_START: u8;
    #[link_name = "__stop_percpu"]
    static TEMPLATE_END: u8;
}

/// Where the template is.
///
/// A linker that collects garbage does not count the two symbols as uses of the section, and drops both if no entry of
/// it is used. So the first entry is named here, and the struct is only ever read as a whole, volatile, which no
/// optimisation can see through.
#[cfg(not(miri))]
#[derive(Clone, Copy)]
#[expect(dead_code, reason = "`head` is there for the linker")]
struct Template {
    start: *const u8,
    end: *const u8,
    head: &'static PerCpu<super::Head, HEAD>,
}

// SAFETY: the pointers are addresses of statics.
#[cfg(not(miri))]
unsafe impl Sync for Template {}

#[cfg(not(miri))]
static TEMPLATE: Template =
    Template { start: &raw const TEMPLATE_START, end: &raw const TEMPLATE_END, head: &HEAD };

/// The addresses between which it is.
#[cfg(not(miri))]
fn bounds() -> (usize, usize) {
    // SAFETY: a static is readable.
    let template = unsafe { (&raw const TEMPLATE).read_volatile() };
    (template.start as usize, template.end as usize)
}

#[cfg(miri)]
use super::interpreted::bounds;

/// Area minus template for each CPU that has an area, else `NO_AREA`.
///
/// A slot is written once, by `install`.
static BASES: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(NO_AREA) }; MAX_CPUS];

/// No base can be all ones, because areas and the template are aligned.
const NO_AREA: usize = usize::MAX;

/// Why a CPU got no area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AreaError {
    /// The memory is not aligned to [`AREA_ALIGN`].
    Misaligned,
    /// The CPU has one already; areas are never replaced, because pointers into them are.
    Installed,
}

impl core::fmt::Display for AreaError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            AreaError::Misaligned => "a per-CPU area must be aligned to 64 bytes",
            AreaError::Installed => "this CPU has a per-CPU area already",
        })
    }
}

impl core::error::Error for AreaError {}

fn template_start() -> usize {
    bounds().0
}

/// The address of the template: what a base is relative to.
pub fn template_address() -> usize {
    template_start()
}

/// The size of the template in bytes.
pub fn template_size() -> usize {
    let (start, end) = bounds();
    end - start
}

/// Where the dynamic part of an area begins.
pub(super) fn dynamic_offset() -> usize {
    template_size().next_multiple_of(AREA_ALIGN)
}

/// The bytes that an area takes.
pub fn area_size() -> usize {
    dynamic_offset() + DYNAMIC_BYTES
}

/// Makes `memory` the area of `cpu`: copies the template, numbers it, runs the [initializers](Initializer), registers
/// it for [`PerCpu::on`]. Returns the base, which the caller puts into that CPU's GS base (or thread-local).
///
/// Runs on any CPU, before `cpu` executes its first per-CPU access.
///
/// # Errors
/// See [`AreaError`]. Nothing has changed then.
///
/// # Safety
/// `memory` is [`area_size`] bytes, writable, used for nothing else, and stays for ever. `cpu` is not running yet, or is
/// the caller with interrupts off and nothing yet stored in per-CPU variables.
pub unsafe fn install(cpu: CpuId, memory: NonNull<u8>) -> Result<usize, AreaError> {
    let area = memory.as_ptr() as usize;
    if !area.is_multiple_of(AREA_ALIGN) {
        return Err(AreaError::Misaligned);
    }
    if base_of(cpu).is_some() {
        return Err(AreaError::Installed);
    }
    let base = area.wrapping_sub(template_start());
    // SAFETY: the caller gives `area_size` bytes; the template is never written after link time, except by a CPU whose
    // base is still 0, which the caller excludes.
    unsafe {
        copy_template(memory);
        memory.as_ptr().add(template_size()).write_bytes(0, area_size() - template_size());
        (*HEAD.ptr_at(base)).base.store(base, Ordering::Relaxed);
        (*CPU_NUMBER.ptr_at(base)).store(cpu.as_u32(), Ordering::Relaxed);
    }
    // Release: pairs with the Acquire in `base_of`; who finds the base finds the copy complete.
    BASES[cpu.index()].store(base, Ordering::Release);
    for initializer in initializers() {
        (initializer.0)(cpu);
    }
    Ok(base)
}

/// # Safety
/// `area` has [`template_size`] bytes, which nobody else uses; nobody writes to the template.
unsafe fn copy_template(area: NonNull<u8>) {
    #[cfg(not(miri))]
    // SAFETY: by the contract.
    unsafe {
        area.as_ptr().copy_from_nonoverlapping(template_start() as *const u8, template_size());
    }
    #[cfg(miri)]
    // SAFETY: by the contract.
    unsafe {
        super::interpreted::add_area(area.as_ptr().expose_provenance());
    }
}

/// The base of `cpu`'s area.
pub(crate) fn base_of(cpu: CpuId) -> Option<usize> {
    // Acquire: pairs with the Release in `install`.
    Some(BASES[cpu.index()].load(Ordering::Acquire)).filter(|base| *base != NO_AREA)
}

/// The address of `cpu`'s area.
pub fn area_of(cpu: CpuId) -> Option<usize> {
    Some(base_of(cpu)?.wrapping_add(template_start()))
}

/// The address of the area of the CPU that runs this.
pub(super) fn this_area() -> usize {
    super::this_base().wrapping_add(template_start())
}

/// All CPUs that have an area, in order.
pub fn cpus() -> impl Iterator<Item = CpuId> {
    (0..MAX_CPUS as u32).filter_map(CpuId::new).filter(|cpu| base_of(*cpu).is_some())
}

/// A function that runs once for each area when it is made, for values that a bitwise copy cannot initialise (because
/// they hold their own address, or their CPU's number). It reaches them by [`PerCpu::on`].
///
/// Register it with [`percpu_init!`](crate::percpu_init!).
#[repr(transparent)]
pub struct Initializer(pub fn(CpuId));

/// Registers a function to run for each per-CPU area when it is made: `percpu_init!(function);` with
/// `fn function(cpu: CpuId)`. Functions run in no particular order, before the CPU does.
#[macro_export]
macro_rules! percpu_init {
    ($function:path) => {
        const _: $crate::percpu::Initializer = $crate::percpu::Initializer($function);
        #[cfg(miri)]
        const _: () = {
            #[used]
            #[unsafe(link_section = ".init_array")]
            static REGISTER: extern "C" fn() = {
                extern "C" fn register() {
                    $crate::percpu::add_initializer($function);
                }
                register
            };
        };
        // Rust cannot ask the linker to keep an entry that no code names ("R"); the assembler can.
        #[cfg(not(miri))]
        ::core::arch::global_asm!(
            ".pushsection percpu_init, \"awR\", @progbits",
            ".balign 8",
            ".quad {function}",
            ".popsection",
            function = sym $function,
        );
    };
}

crate::percpu_init!(none);

/// Keeps the section from being empty, so that its bounds exist.
fn none(_: CpuId) {}

#[cfg(miri)]
use super::interpreted::initializers;

#[cfg(not(miri))]
fn initializers() -> &'static [Initializer] {
    unsafe extern "C" {
        #[link_name = "__start_percpu_init"]
        static START: u8;
        #[link_name = "__stop_percpu_init"]
        static END: u8;
    }
    let start = (&raw const START).cast::<Initializer>();
    let end = (&raw const END).cast::<Initializer>();
    // SAFETY: the linker puts these symbols around the section, into which only `percpu_init!` puts anything: aligned
    // function pointers, which is what this type is.
    unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
}

impl<T, S> PerCpu<T, S> {
    /// The distance of this variable from the start of the area.
    pub fn offset(&'static self) -> usize {
        self.place() - template_start()
    }

    /// Where the variable is in the template.
    #[inline(always)]
    pub(super) fn place(&'static self) -> usize {
        #[cfg(not(miri))]
        {
            self.template.get() as usize
        }
        #[cfg(miri)]
        {
            super::interpreted::place_of(self.template.get())
        }
    }
}

#[cfg(not(target_os = "none"))]
std::thread_local! {
    static HOST_BASE: core::cell::Cell<Option<usize>> = const { core::cell::Cell::new(None) };
}

/// The base of the executing thread's virtual CPU.
#[cfg(not(target_os = "none"))]
#[inline]
pub(super) fn host_base() -> usize {
    HOST_BASE.get().unwrap_or_else(no_host_base)
}

/// The hosted machine binds a thread when it first asks.
#[cfg(all(not(target_os = "none"), feature = "machine"))]
fn no_host_base() -> usize {
    crate::hosted::bind_on_first_use()
}

#[cfg(all(not(target_os = "none"), not(feature = "machine")))]
fn no_host_base() -> usize {
    panic!(
        "this thread has no per-CPU area; pass what percpu::install returned to percpu::set_host_base first"
    )
}

/// Makes the executing host thread use the area with this base, or none: what loading the GS base is on the machine.
///
/// [`hosted`](crate::hosted) calls it; so does a platform for host threads that brings its own notion of CPUs.
///
/// # Safety
/// The base was returned by [`install`], and no other thread uses it.
#[cfg(not(target_os = "none"))]
pub unsafe fn set_host_base(base: Option<usize>) {
    HOST_BASE.set(base);
}
