//! Who did something: the return addresses above it, in few bytes.
//!
//! Stacks are kept as the lower halves of return addresses: code is in the top 2 GiB.

use core::fmt;

use hal::x86_64::backtrace::Backtrace;
use hal::x86_64::layout::IMAGE;
use hal::{Native, Platform};

/// How many steps of a stack are kept.
const DEPTH: usize = 12;
/// How many of them are looked at for a place in the kernel's source. The others would make a line too long.
const LOOKED_AT: usize = 6;

/// Where something was done. Zeroes end the steps.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Stack {
    cpu: u32,
    steps: [u32; DEPTH],
}

impl Stack {
    pub(super) const NONE: Stack = Stack { cpu: 0, steps: [0; DEPTH] };

    /// The steps above the caller's own, without the first `skipped - 1` of them.
    #[inline(never)]
    pub(super) fn above(skipped: usize) -> Stack {
        let mut stack = Stack { cpu: Native::cpu().as_u32(), ..Stack::NONE };
        for (kept, step) in stack.steps.iter_mut().zip(Backtrace::here().skip(skipped)) {
            *kept = step.address() as u32;
        }
        stack
    }

    /// The innermost step, or 0.
    pub(super) fn innermost(&self) -> u32 {
        self.steps[0]
    }

    fn known(&self) -> impl Iterator<Item = &u32> {
        self.steps.iter().take_while(|step| **step != 0)
    }

    /// The innermost step that is in the kernel's own source. Which one that is, the host finds out.
    pub(super) fn place(&self) -> impl fmt::Display {
        fmt::from_fn(|f| self.known().take(LOOKED_AT).try_for_each(|step| write!(f, "[?{step:08x}?]")))
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " on CPU#{}:", self.cpu)?;
        let upper = IMAGE & !0xffff_ffff;
        self.known().try_for_each(|step| write!(f, "\n    [<{:016x}>]", upper | u64::from(*step)))
    }
}
