//! The name of a CPU.

use core::fmt;

/// The most CPUs that one build can run: ids are `0..MAX_CPUS`. Set `QUIESCE_MAX_CPUS` when building to change it
/// from its default of 512. A machine with more runs the first `MAX_CPUS` and reports the rest.
pub const MAX_CPUS: usize = match option_env!("QUIESCE_MAX_CPUS") {
    Some(text) => parse(text),
    None => 512,
};

const fn parse(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut value, mut i) = (0, 0);
    while i < bytes.len() {
        assert!(bytes[i].is_ascii_digit(), "QUIESCE_MAX_CPUS must be a decimal number");
        value = value * 10 + (bytes[i] - b'0') as usize;
        i += 1;
    }
    assert!(value >= 1 && value <= 4096, "QUIESCE_MAX_CPUS must be between 1 and 4096");
    value
}

/// A CPU's number: dense, starting at 0 for the boot CPU, stable while the system runs.
///
/// It is the index of everything per-CPU. It is not the APIC id, which is the hardware's name for the same CPU.
///
/// # Invariants
/// The number is below [`MAX_CPUS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CpuId(u32);

impl CpuId {
    /// The CPU that booted the system.
    pub const BOOT: CpuId = CpuId(0);

    /// The CPU with this number, if a build with [`MAX_CPUS`] CPUs can have it.
    ///
    /// ```
    /// use hal::{CpuId, MAX_CPUS};
    /// assert_eq!(CpuId::new(3).unwrap().index(), 3);
    /// assert!(CpuId::new(MAX_CPUS as u32).is_none());
    /// ```
    pub const fn new(number: u32) -> Option<CpuId> {
        // INVARIANT: checked here, the one place where a number comes in.
        if (number as usize) < MAX_CPUS { Some(CpuId(number)) } else { None }
    }

    /// The CPU with a number that was a `CpuId` before.
    ///
    /// # Safety
    /// The number is below [`MAX_CPUS`].
    #[cfg_attr(
        not(all(target_os = "none", feature = "machine")),
        expect(dead_code, reason = "the machine's")
    )]
    #[inline(always)]
    pub(crate) const unsafe fn new_unchecked(number: u32) -> CpuId {
        // INVARIANT: by the contract.
        CpuId(number)
    }

    /// The number, for use as an array index. The compiler knows that it is below [`MAX_CPUS`].
    #[inline(always)]
    pub const fn index(self) -> usize {
        // SAFETY: the type's invariant.
        unsafe { core::hint::assert_unchecked((self.0 as usize) < MAX_CPUS) };
        self.0 as usize
    }

    /// The number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuId({})", self.0)
    }
}
