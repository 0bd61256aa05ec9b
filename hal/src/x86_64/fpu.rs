//! Vector and floating-point state: enabled on every CPU alike, its size discovered.
//!
//! The kernel is compiled without vector registers; they are for tasks that ask for them. What matters here is that
//! every CPU enables the same components, so that an area of [`Fpu::area_size`] bytes fits wherever a task runs.

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use super::cpuid::{Features, Xsave};

/// What was enabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fpu {
    /// The state components in XCR0, or 0 when there is only `fxsave`.
    pub components: u64,
    /// Bytes of a task's save area, which must be aligned to 64 bytes.
    pub area_size: u32,
    /// How it is saved.
    pub method: SaveMethod,
}

/// The instruction that saves the state, best first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SaveMethod {
    /// `xsavec`: compacted, and skips state that was never used.
    Compacted,
    /// `xsaveopt`: skips state that has not changed.
    Optimised,
    /// `xsave`.
    Standard,
    /// `fxsave`: x87 and SSE only, 512 bytes.
    Legacy,
}

/// Bytes of the `fxsave` format.
const LEGACY_AREA: u32 = 512;

/// The components to enable out of those that exist: x87, SSE, AVX, and AVX-512 if all its three parts are there.
/// Others (MPX, protection keys, AMX) need more than an area to be used safely.
pub fn components(supported: u64) -> u64 {
    let plain = XCr0Flags::X87.union(XCr0Flags::SSE).bits();
    let avx = XCr0Flags::AVX.bits();
    let avx512 = XCr0Flags::OPMASK.union(XCr0Flags::ZMM_HI256).union(XCr0Flags::HI16_ZMM).bits();
    let mut chosen = plain;
    if supported & avx != 0 {
        chosen |= avx;
        if supported & avx512 == avx512 {
            chosen |= avx512;
        }
    }
    chosen
}

/// Enables the FPU on the executing CPU and says what a save area needs.
///
/// Once per CPU, before any task runs on it. Cost: a few serialising instructions.
///
/// # Safety
/// Executes in ring 0, with `features` of this CPU, before anything saves or restores vector state on it.
pub unsafe fn enable(features: &Features) -> Fpu {
    // SAFETY: in ring 0 by contract. SSE exists on every x86_64 processor; clearing EM and TS and setting MP makes x87 and
    // vector instructions execute, NE makes their errors exceptions. OSXSAVE is set only where XSAVE exists.
    unsafe {
        Cr0::update(|flags| {
            flags.remove(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED);
            flags.insert(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR);
        });
        Cr4::update(|flags| {
            flags.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE);
            flags.set(Cr4Flags::OSXSAVE, features.xsave.is_some());
        });
    }
    let Some(Xsave { components: supported, optimised, compacted, .. }) = features.xsave else {
        return Fpu { components: 0, area_size: LEGACY_AREA, method: SaveMethod::Legacy };
    };
    let components = components(supported);
    // SAFETY: OSXSAVE is set, and `components` keeps to what exists and to the rules (x87 always, AVX with SSE, AVX-512
    // whole).
    unsafe { XCr0::write_raw(components) };
    // With XCR0 written, leaf 0xd gives the sizes of exactly what is enabled: ebx of sub-leaf 0 in the standard format, of
    // sub-leaf 1 in the compacted one (where it also counts supervisor state, of which none is enabled).
    let standard = raw_cpuid::cpuid!(0xd, 0).ebx;
    let (area_size, method) = match (compacted, optimised) {
        (true, _) => (raw_cpuid::cpuid!(0xd, 1).ebx, SaveMethod::Compacted),
        (false, true) => (standard, SaveMethod::Optimised),
        (false, false) => (standard, SaveMethod::Standard),
    };
    // Some emulators report no compacted size.
    let area_size = if area_size < LEGACY_AREA { standard } else { area_size };
    Fpu { components, area_size, method }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_come_whole() {
        assert_eq!(components(0), 0b11, "x87 and SSE are always there");
        assert_eq!(components(0b111), 0b111);
        assert_eq!(components(0b0110_0111), 0b111, "AVX-512 with a part missing");
        assert_eq!(components(0xe7), 0xe7);
        assert_eq!(components(0xe3), 0b11, "AVX-512 without AVX");
        assert_eq!(components(u64::MAX), 0xe7);
    }
}
