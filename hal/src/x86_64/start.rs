//! The first steps of a CPU in Rust: area, descriptor tables, then the kernel.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use super::boot::{BootInfo, PvhError};
use crate::{CpuId, percpu};

unsafe extern "C" {
    static __boot_area_start: u8;
    static __boot_area_end: u8;
}

unsafe extern "Rust" {
    /// The kernel's entry, named by [`entry!`](crate::entry!).
    safe fn __quiesce_main(info: Result<&'static BootInfo, PvhError>) -> !;
}

/// Names the kernel's entry: `hal::entry!(main);` with
/// `fn main(boot: Result<&'static BootInfo, PvhError>) -> !`.
///
/// It is called on the boot CPU with interrupts off (depth 1), a per-CPU area, descriptor tables, and the boot tables'
/// mappings.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn __quiesce_main(
            info: ::core::result::Result<
                &'static $crate::x86_64::boot::BootInfo,
                $crate::x86_64::boot::PvhError,
            >,
        ) -> ! {
            $main(info)
        }
    };
}

/// The boot CPU's TSC when it reached Rust.
static BOOT_TSC: AtomicU64 = AtomicU64::new(0);

/// The boot CPU's time stamp counter when it reached Rust code: the zero of the kernel's time.
pub fn boot_tsc() -> u64 {
    BOOT_TSC.load(Ordering::Relaxed)
}

/// Continues the boot CPU's start, after which `read_info` may use per-CPU data.
pub(super) fn boot_cpu(read_info: impl FnOnce() -> Result<&'static BootInfo, PvhError>) -> ! {
    BOOT_TSC.store(super::clock::read_tsc(), Ordering::Relaxed);
    let (start, end) = (&raw const __boot_area_start as usize, &raw const __boot_area_end as usize);
    assert!(percpu::area_size() <= end - start, "link.ld reserves too little for the boot CPU's area");
    let memory = NonNull::new(start as *mut u8).expect("the linker placed the area");
    // SAFETY: link.ld reserves this memory for this purpose, checked above; the boot CPU, the caller, is the only CPU,
    // has interrupts off, and has stored nothing yet.
    let base = match unsafe { percpu::install(CpuId::BOOT, memory) } {
        Ok(base) => base,
        Err(error) => panic!("the boot CPU's area: {error}"),
    };
    adopt_base(base);
    super::tables::load_boot_cpu();
    __quiesce_main(read_info())
}

/// Makes `base` this CPU's per-CPU base.
pub(super) fn adopt_base(base: usize) {
    GsBase::write(VirtAddr::new(base as u64));
}

/// Continues the executing CPU in `next` on another stack, with the old one given up.
///
/// # Safety
/// `stack_top` is the aligned top of a mapped stack that nothing else uses and that stays mapped while the CPU runs on
/// it. Nothing on the old stack is used again.
pub unsafe fn continue_on(stack_top: u64, next: extern "C" fn() -> !) -> ! {
    // SAFETY: the caller's promises; the frame pointer chain ends here.
    unsafe {
        core::arch::asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            stack = in(reg) stack_top,
            next = in(reg) next,
            options(noreturn),
        );
    }
}

/// The GS base of the executing CPU, as its register has it.
pub fn gs_base() -> u64 {
    GsBase::read().as_u64()
}

/// The interrupt flag of the executing CPU, as its register has it.
pub fn interrupt_flag() -> bool {
    x86_64::instructions::interrupts::are_enabled()
}
