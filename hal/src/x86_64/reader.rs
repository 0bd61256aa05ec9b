//! How deep the running task is in read-side sections: one word of each CPU.
//!
//! It counts like the preempt word. The low bits are the nesting; bit 31 is *inverted*: set means that nothing is to be
//! done when the outermost section ends. So the word becomes zero exactly when that section ends **and** somebody waits
//! for it, and leaving a section is one decrement and one branch. The word belongs to the running task, and goes and comes
//! with it; interrupts count on top and leave it as they found it.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering, compiler_fence};

use crate::percpu;

/// The word outside of all sections, while nobody waits for this task.
pub const AT_REST: u32 = 1 << 31;

percpu! {
    static NESTING: AtomicU32 = AtomicU32::new(AT_REST);
}

/// A section begins. It nests. A compiler barrier. Contexts: any. Cost: one instruction.
#[inline(always)]
pub fn enter() {
    NESTING.inc();
    // The compiler keeps what is read in the section behind this.
    compiler_fence(Ordering::SeqCst);
}

/// A section ends, begun by [`enter`]. Calls `attend` if it was the outermost one and somebody waits for that; then the
/// word is 0 and not [`AT_REST`], until somebody writes it. A compiler barrier. Contexts: any. Cost: two instructions.
#[inline(always)]
pub fn leave(attend: impl FnOnce()) {
    // SAFETY: one decrement of this CPU's word, which the caller incremented; the branch is taken when it is 0. Memory is
    // clobbered, which makes it a compiler barrier.
    unsafe {
        asm!(
            "dec dword ptr gs:[rip + {word}]",
            "jz {zero}",
            word = sym NESTING,
            zero = label { attend() },
            options(nostack),
        );
    }
}

/// The running task's word, or the interrupted one's. Contexts: any; exact where the task stays on its CPU, and in it.
#[inline(always)]
pub fn word() -> u32 {
    NESTING.read()
}

/// How many sections the running task is in, those of interrupts on top of it included.
#[inline(always)]
pub fn depth() -> u32 {
    word() & !AT_REST
}

/// Sets the word, for the scheduler when it switches, and for who has attended. Interrupts are off.
#[inline(always)]
pub fn set_word(word: u32) {
    NESTING.write(word);
}

/// Somebody waits for the section that the running task, or the interrupted one, is in.
#[inline(always)]
pub fn want_attention() {
    NESTING.and(!AT_REST);
}
