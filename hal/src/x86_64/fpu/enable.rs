//! Switching the registers on, on every CPU alike, and finding out how they are saved.

use spin::Once;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use crate::x86_64::cpuid::{Features, Xsave};

/// What is enabled, and how it is saved.
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
#[repr(u32)]
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

/// Bytes of the `fxsave` format, with which the others begin.
pub(super) const LEGACY_AREA: u32 = 512;
/// Bytes of the header behind it in the others.
const HEADER: u32 = 64;

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

/// Where a component is in a save area, as CPUID leaf 0xd tells in the component's sub-leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Component {
    /// Its bytes.
    pub size: u32,
    /// Where it begins in the standard format.
    pub offset: u32,
    /// In the compacted format it begins at a multiple of 64.
    pub aligned: bool,
}

impl Component {
    fn of(number: u32) -> Component {
        let leaf = raw_cpuid::cpuid!(0xd, number);
        Component { size: leaf.eax, offset: leaf.ebx, aligned: leaf.ecx & 2 != 0 }
    }
}

/// The bytes that saving `components` by `method` may write, given what is told of component `n`.
///
/// In the compacted format components follow each other in the order of their numbers, whether they are in use or not
/// (Intel SDM volume 1, 13.4.3). The first two are part of the legacy area. Computed rather than read from CPUID: what
/// CPUID totals is for whatever is in XCR0, and some emulators total nothing for the compacted format.
///
/// ```
/// use hal::x86_64::fpu::{Component, SaveMethod, area_size};
/// let avx = Component { size: 256, offset: 576, aligned: false };
/// assert_eq!(area_size(0b111, SaveMethod::Standard, |_| avx), 832);
/// assert_eq!(area_size(0, SaveMethod::Legacy, |_| avx), 512);
/// ```
pub fn area_size(components: u64, method: SaveMethod, told: impl Fn(u32) -> Component) -> u32 {
    if method == SaveMethod::Legacy {
        return LEGACY_AREA;
    }
    let beyond = (2..63).filter(|number| components >> number & 1 != 0).map(told);
    beyond.fold(LEGACY_AREA + HEADER, |end, component| match method {
        SaveMethod::Compacted if component.aligned => end.next_multiple_of(64) + component.size,
        SaveMethod::Compacted => end + component.size,
        _ => end.max(component.offset + component.size),
    })
}

impl Fpu {
    fn choose(xsave: Option<Xsave>) -> Fpu {
        let Some(Xsave { components: supported, optimised, compacted, .. }) = xsave else {
            return Fpu { components: 0, area_size: LEGACY_AREA, method: SaveMethod::Legacy };
        };
        let method = match (compacted, optimised) {
            (true, _) => SaveMethod::Compacted,
            (false, true) => SaveMethod::Optimised,
            (false, false) => SaveMethod::Standard,
        };
        Fpu::new(components(supported), method)
    }

    pub(super) fn new(components: u64, method: SaveMethod) -> Fpu {
        Fpu { components, area_size: area_size(components, method, Component::of), method }
    }
}

/// What the first CPU enabled, and every other one after it.
static FORMAT: Once<Fpu> = Once::new();

/// How state is saved on this machine; the same on every CPU. `None` before [`enable`]. On a host, where the operating
/// system has enabled the registers, it is what that enabled.
///
/// Contexts: any. Cost: a load.
pub fn format() -> Option<Fpu> {
    #[cfg(not(target_os = "none"))]
    FORMAT.call_once(|| {
        let xsave = Features::detect().xsave;
        // SAFETY: XGETBV exists where the operating system has enabled XSAVE; hosts that run 64-bit threads and have
        // XSAVE have.
        let enabled = || unsafe { core::arch::x86_64::_xgetbv(0) };
        Fpu::choose(xsave.map(|xsave| Xsave { components: xsave.components & enabled(), ..xsave }))
    });
    FORMAT.get().copied()
}

/// Enables the registers on the executing CPU and says how they are saved.
///
/// Once per CPU, before any task runs on it. Cost: a few serialising instructions.
///
/// # Panics
/// If this CPU would save its state in another way than the first one did: a task could not move between them.
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
    let fpu = Fpu::choose(features.xsave);
    if fpu.method != SaveMethod::Legacy {
        // SAFETY: OSXSAVE is set, and the components keep to what exists and to the rules (x87 always, AVX with SSE,
        // AVX-512 whole).
        unsafe { XCr0::write_raw(fpu.components) };
    }
    let first = *FORMAT.call_once(|| fpu);
    assert!(fpu == first, "this CPU saves vector state by {fpu:?}, the first one by {first:?}");
    // Firmware may have left anything; from here on the registers are at their defaults while they have no owner.
    super::area::reset_x87();
    fpu
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

    /// A processor with AVX-512, as Intel's are laid out.
    fn told(number: u32) -> Component {
        let (size, offset, aligned) = match number {
            2 => (256, 576, false),
            5 => (64, 1088, false),
            6 => (512, 1152, true),
            7 => (1024, 1664, true),
            _ => panic!("component {number} is not enabled"),
        };
        Component { size, offset, aligned }
    }

    #[test]
    fn areas_end_behind_their_last_component() {
        assert_eq!(area_size(0b11, SaveMethod::Standard, told), 576);
        assert_eq!(area_size(0xe7, SaveMethod::Standard, told), 2688);
        assert_eq!(area_size(0xe7, SaveMethod::Optimised, told), 2688);
        // 576 + 256 = 832, + 64 = 896, a multiple of 64.
        assert_eq!(area_size(0xe7, SaveMethod::Compacted, told), 896 + 512 + 1024);
        let odd = |number| if number == 5 { Component { size: 8, ..told(5) } } else { told(number) };
        assert_eq!(area_size(0xe7, SaveMethod::Compacted, odd), 896 + 512 + 1024);
    }

    #[test]
    fn the_processor_totals_the_same() {
        let Some(fpu) = format().filter(|fpu| fpu.components != 0) else { return };
        // CPUID's total is for all that the host has enabled, which may be more.
        let largest = Features::detect().xsave.map_or(0, |xsave| xsave.largest);
        assert!((576..=largest).contains(&fpu.area_size), "{fpu:?}, at most {largest}");
        // SAFETY: XSAVE is enabled.
        let enabled = unsafe { core::arch::x86_64::_xgetbv(0) };
        let standard = area_size(enabled, SaveMethod::Standard, Component::of);
        assert_eq!(standard, raw_cpuid::cpuid!(0xd, 0).ebx);
    }
}
