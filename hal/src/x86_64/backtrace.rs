//! Backtraces by frame pointers.
//!
//! Every kernel function keeps RBP as the head of a chain: at RBP the caller's RBP, above it the return address. A trap
//! puts a marked link into the chain (odd, see the entry stubs), from which the walk goes on with the interrupted code.
//! Every load is a probe, so that a damaged chain ends the walk and does no more harm.

use super::traps::{TrapFrame, probe};

/// One step of a backtrace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// Code that called on. The address lies inside the call instruction, so that it names the caller's line.
    Call(u64),
    /// Code that was interrupted at exactly this address by this vector.
    Trap {
        /// The interrupted instruction.
        rip: u64,
        /// What interrupted it.
        vector: u8,
    },
}

impl Frame {
    /// The code address to look up.
    pub fn address(self) -> u64 {
        match self {
            Frame::Call(address) | Frame::Trap { rip: address, .. } => address,
        }
    }
}

/// Walks a chain of frames, innermost first.
#[derive(Clone, Debug)]
pub struct Backtrace {
    link: u64,
    left: u32,
}

/// A chain longer than this is damaged or not worth printing.
const MOST_FRAMES: u32 = 48;

impl Backtrace {
    /// Starts at the frame whose RBP is `link`: the first step is that function's caller.
    pub fn from_link(link: u64) -> Backtrace {
        Backtrace { link, left: MOST_FRAMES }
    }

    /// Starts at interrupted code: the first step is the interrupted instruction.
    pub fn from_trap(frame: &TrapFrame) -> Backtrace {
        Backtrace::from_link(core::ptr::from_ref(frame) as u64 | 1)
    }

    /// Starts at the caller of the function that calls this.
    #[inline(always)]
    pub fn here() -> Backtrace {
        let link: u64;
        // SAFETY: copies a register.
        unsafe { core::arch::asm!("mov {}, rbp", out(reg) link, options(nomem, nostack, preserves_flags)) };
        Backtrace::from_link(link)
    }
}

impl Iterator for Backtrace {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        self.left = self.left.checked_sub(1)?;
        if self.link & 1 != 0 {
            let frame = self.link & !1;
            let rip = probe::read_u64(frame + core::mem::offset_of!(TrapFrame, rip) as u64)?;
            let vector = probe::read_u64(frame + core::mem::offset_of!(TrapFrame, vector) as u64)?;
            self.link = probe::read_u64(frame + core::mem::offset_of!(TrapFrame, rbp) as u64)?;
            return Some(Frame::Trap { rip, vector: vector as u8 });
        }
        if self.link == 0 {
            return None;
        }
        let (next, back) = (probe::read_u64(self.link)?, probe::read_u64(self.link + 8)?);
        self.link = next;
        // A return address outside of the image ends the chain: the first frame of a stack has 0 there.
        (back >= super::layout::IMAGE).then(|| Frame::Call(back - 1))
    }
}
