//! The first steps of a CPU in Rust: area, descriptor tables, then the kernel.

use core::ptr::NonNull;

use x86_64::registers::model_specific::GsBase;
use x86_64::VirtAddr;

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

/// Continues the boot CPU's start, after which `read_info` may use per-CPU data.
pub(super) fn boot_cpu(read_info: impl FnOnce() -> Result<&'static BootInfo, PvhError>) -> ! {
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
