//! What the CPU has to be told about page tables. Ring 0 only.

use core::ops::Range;

use ::x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags};
use ::x86_64::registers::model_specific::{Efer, EferFlags};
use ::x86_64::structures::paging::{PhysFrame, Size4KiB};
use ::x86_64::{PhysAddr, VirtAddr, instructions};

use super::Features;
use crate::x86_64::layout::PAGE_SIZE;

/// From this many pages on, a [`flush`] flushes everything: each `invlpg` costs about as much as some refills.
pub const FLUSH_ALL_ABOVE: u64 = 32;

/// Switches on what the tables rely on: write protection that binds the kernel too, global pages, and no-execute if the
/// CPU has it. For each CPU, before it loads such tables.
///
/// # Safety
/// The tables in use have no reserved bits set, and allow what the running code does.
pub unsafe fn enable(features: Features) {
    // SAFETY: the caller answers for the tables in use; the flags have no other effect.
    unsafe {
        if features.no_execute {
            Efer::update(|efer| efer.insert(EferFlags::NO_EXECUTE_ENABLE));
        }
        Cr0::update(|cr0| cr0.insert(Cr0Flags::WRITE_PROTECT));
        Cr4::update(|cr4| cr4.insert(Cr4Flags::PAGE_GLOBAL));
    }
}

/// Makes the tables with this root (a physical address) this CPU's. Translations of the old ones leave the TLB, except
/// global ones.
///
/// # Safety
/// The tables map the running code, its stack and everything else that is in use, as it is used.
pub unsafe fn switch_to(root: u64) {
    let frame = PhysFrame::<Size4KiB>::containing_address(PhysAddr::new(root));
    // SAFETY: by the caller's promise everything in use keeps its meaning.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) }
}

/// The root of the tables that this CPU uses.
pub fn current_root() -> u64 {
    Cr3::read().0.start_address().as_u64()
}

/// Forgets this CPU's translations of `range`, global ones too: page by page, or all if there are more than
/// [`FLUSH_ALL_ABOVE`]. Linux: `flush_tlb_kernel_range`, this CPU's part.
///
/// The caller stays on its CPU meanwhile.
pub fn flush(range: Range<u64>) {
    if range.end.saturating_sub(range.start).div_ceil(PAGE_SIZE) > FLUSH_ALL_ABOVE {
        return flush_all();
    }
    let mut address = range.start;
    while address < range.end {
        instructions::tlb::flush(VirtAddr::new_truncate(address));
        address += PAGE_SIZE;
    }
}

/// Forgets all of this CPU's translations, global ones too. Linux: `__flush_tlb_all`.
///
/// The caller stays on its CPU meanwhile.
pub fn flush_all() {
    let cr4 = Cr4::read();
    // Changing CR4.PGE flushes all entries (Intel SDM, volume 3, section 5.10.4.1).
    // SAFETY: translations are the same without global pages, only slower; the flag is back after the second write.
    unsafe {
        Cr4::write(cr4 - Cr4Flags::PAGE_GLOBAL);
        Cr4::write(cr4 | Cr4Flags::PAGE_GLOBAL);
    }
}
