//! Whose values a CPU's registers hold: the context switch's part.

use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicUsize;

use super::area::{Area, Block, reset_x87};
use crate::percpu;
use crate::percpu::IrqsOff;

percpu! {
    /// The block of the area whose task owns this CPU's registers; 0 if none does.
    static OWNER: AtomicUsize = AtomicUsize::new(0);
}

/// The block of this CPU's owner.
#[inline(always)]
pub(super) fn owner() -> Option<NonNull<Block>> {
    NonNull::new(ptr::with_exposed_provenance_mut(OWNER.read()))
}

/// Whether the running task owns this CPU's registers.
///
/// Contexts: any; in an interrupt it is about the interrupted task. Cost: one instruction.
#[inline(always)]
pub fn has_owner() -> bool {
    OWNER.read() != 0
}

/// The running task gives way to one whose registers are in `next`; `None` is one that has no vector state.
///
/// Saves the registers into the area that the last call on this CPU named, if it named one, and loads those of `next`. Call
/// it in every context switch. A task that has just got an area calls it for itself, and begins with the initial state.
///
/// Contexts: any in which interrupts are off and no section is open. Cost: a load and two branches if neither task has
/// vector state; otherwise what the processor's instructions take, which depends on how much state is in use.
/// Linux: `switch_fpu_prepare` and `switch_fpu_finish`.
///
/// # Panics
/// If `next` is in another CPU's registers: its task runs there.
#[inline(always)]
pub fn switch_to(next: Option<&Area>, quiet: &(impl IrqsOff + ?Sized)) {
    let _ = quiet;
    if OWNER.read() != 0 || next.is_some() {
        switch(next.map(Area::block));
    }
}

/// Interrupts are off, so nothing else uses the registers meanwhile: sections are for those who may run, and an NMI may
/// not open one.
fn switch(next: Option<NonNull<Block>>) {
    let previous = owner();
    if previous == next {
        return;
    }
    if let Some(previous) = previous {
        // SAFETY: `OWNER` names the block of an area that this CPU has claimed, below, and that refuses to be dropped
        // while it is. Interrupts are off.
        let x87_in_use = unsafe {
            Block::save(previous);
            let in_use = Block::x87_was_in_use(previous);
            OWNER.write(0);
            Block::release(previous);
            in_use
        };
        if next.is_none() && x87_in_use {
            // Without an owner the registers are at their defaults; sections rely on it.
            reset_x87();
        }
    }
    if let Some(next) = next {
        let cpu = percpu::current_cpu_number();
        // SAFETY: the block of an area that the caller has borrowed. Once it is claimed, nobody else accesses it.
        unsafe {
            if let Err(other) = Block::claim(next, cpu) {
                panic!("CPU {cpu} is to run a task whose vector state is in the registers of CPU {other}");
            }
            Block::load(next);
        }
        OWNER.write(next.as_ptr().expose_provenance());
    }
}
