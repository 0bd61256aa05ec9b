//! What this processor can do, asked once at boot.
//!
//! All CPUs of a machine are taken to be alike; [`Features::lacks`] compares, so that a CPU that is not can be refused.

use core::fmt;

use raw_cpuid::{CpuId, Hypervisor};

/// What the processor offers of the things that Quiesce uses or reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// A local APIC.
    pub apic: bool,
    /// Its x2APIC form: registers are MSRs, ids have 32 bits.
    pub x2apic: bool,
    /// The APIC timer can fire at a TSC value.
    pub tsc_deadline: bool,
    /// There is a time stamp counter.
    pub tsc: bool,
    /// The TSC runs at one rate in every power state.
    pub invariant_tsc: bool,
    /// `rdtscp`.
    pub rdtscp: bool,
    /// Pages of 1 GiB.
    pub gib_pages: bool,
    /// Pages can forbid execution.
    pub nx: bool,
    /// `rdfsbase` and its kin.
    pub fsgsbase: bool,
    /// The kernel can be kept from executing, and from touching, user pages.
    pub smep: bool,
    /// See `smep`.
    pub smap: bool,
    /// AVX2: integer vectors of 32 bytes.
    pub avx2: bool,
    /// Bits of a physical address.
    pub physical_bits: u8,
    /// Saving of extended state, or `None` if there is only `fxsave`.
    pub xsave: Option<Xsave>,
    /// This CPU's APIC id.
    pub apic_id: u32,
    /// The hypervisor underneath, if one shows itself.
    pub hypervisor: Option<HypervisorName>,
    /// What the processor or hypervisor says of the TSC's frequency.
    pub tsc_hz: Option<(u64, HzClaim)>,
    /// What the hypervisor says of the APIC timer's frequency before its divider, in Hz.
    pub apic_hz: Option<u64>,
}

/// What `xsave` can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xsave {
    /// The state components that XCR0 may enable.
    pub components: u64,
    /// Bytes for all of them in the standard format.
    pub largest: u32,
    /// `xsaveopt`: unmodified state is not written.
    pub optimised: bool,
    /// `xsavec`: the compacted format.
    pub compacted: bool,
}

/// Who states the TSC's frequency, most trusted first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HzClaim {
    /// CPUID leaf 0x15: the ratio of the TSC to a crystal of known frequency. Exact.
    Crystal,
    /// CPUID leaf 0x16: the base frequency in MHz. Nominal; the TSC runs close to it.
    BaseFrequency,
    /// CPUID leaf 0x40000010: the hypervisor's own value in kHz.
    Hypervisor,
}

impl fmt::Display for HzClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HzClaim::Crystal => "CPUID 0x15 (crystal ratio)",
            HzClaim::BaseFrequency => "CPUID 0x16 (base frequency)",
            HzClaim::Hypervisor => "CPUID 0x40000010 (hypervisor)",
        })
    }
}

/// A hypervisor's name for itself: twelve bytes, padded with zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HypervisorName([u8; 12]);

impl fmt::Display for HypervisorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        name.iter().try_for_each(|byte| write!(f, "{}", byte.escape_ascii()))
    }
}

impl fmt::Debug for HypervisorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Features {
    /// Asks the executing CPU. Any context. Cost: some 20 CPUID instructions, each of which a hypervisor intercepts, so
    /// some 10 to 100 us: ask once and keep the answer.
    ///
    /// ```
    /// let features = hal::x86_64::cpuid::Features::detect();
    /// assert!(features.tsc && features.physical_bits >= 32);
    /// ```
    pub fn detect() -> Features {
        let cpuid = CpuId::new();
        let basic = cpuid.get_feature_info();
        let basic = basic.as_ref();
        let structured = cpuid.get_extended_feature_info();
        let structured = structured.as_ref();
        let extended = cpuid.get_extended_processor_and_feature_identifiers();
        let extended = extended.as_ref();
        let hypervisor = cpuid.get_hypervisor_info();
        let x2apic = basic.is_some_and(|f| f.has_x2apic());
        let wide_id = cpuid.get_extended_topology_info().and_then(|mut levels| levels.next());
        let short_id = basic.map_or(0, |f| u32::from(f.initial_local_apic_id()));

        let crystal = cpuid.get_tsc_info().and_then(|info| info.tsc_frequency());
        let base = cpuid.get_processor_frequency_info();
        let base = base.map(|info| u64::from(info.processor_base_frequency()) * 1_000_000);
        let said = hypervisor.as_ref().and_then(|info| info.tsc_frequency());
        let said = said.map(|khz| u64::from(khz) * 1000);
        let claims =
            [(crystal, HzClaim::Crystal), (base, HzClaim::BaseFrequency), (said, HzClaim::Hypervisor)];

        Features {
            apic: basic.is_some_and(|f| f.has_apic()),
            x2apic,
            tsc_deadline: basic.is_some_and(|f| f.has_tsc_deadline()),
            tsc: basic.is_some_and(|f| f.has_tsc()),
            invariant_tsc: cpuid.get_advanced_power_mgmt_info().is_some_and(|f| f.has_invariant_tsc()),
            rdtscp: extended.is_some_and(|f| f.has_rdtscp()),
            gib_pages: extended.is_some_and(|f| f.has_1gib_pages()),
            nx: extended.is_some_and(|f| f.has_execute_disable()),
            fsgsbase: structured.is_some_and(|f| f.has_fsgsbase()),
            smep: structured.is_some_and(|f| f.has_smep()),
            smap: structured.is_some_and(|f| f.has_smap()),
            avx2: structured.is_some_and(|f| f.has_avx2()),
            physical_bits: cpuid
                .get_processor_capacity_feature_info()
                .map_or(36, |info| info.physical_address_bits()),
            xsave: basic.filter(|f| f.has_xsave()).and_then(|_| xsave(&cpuid)),
            apic_id: if x2apic { wide_id.map_or(short_id, |level| level.x2apic_id()) } else { short_id },
            hypervisor: hypervisor.as_ref().map(|info| name(&info.identify())),
            tsc_hz: claims.into_iter().find_map(|(hz, claim)| Some((hz.filter(|hz| *hz != 0)?, claim))),
            apic_hz: hypervisor
                .as_ref()
                .and_then(|info| info.apic_frequency())
                .filter(|khz| *khz != 0)
                .map(|khz| u64::from(khz) * 1000),
        }
    }

    /// The first feature that this CPU has and `other` lacks, among those that a kernel switches on for all CPUs.
    pub fn lacks(&self, other: &Features) -> Option<&'static str> {
        let pairs = [
            ("x2APIC", self.x2apic, other.x2apic),
            ("TSC-deadline timer", self.tsc_deadline, other.tsc_deadline),
            ("1 GiB pages", self.gib_pages, other.gib_pages),
            ("no-execute pages", self.nx, other.nx),
            ("AVX2", self.avx2, other.avx2),
            ("XSAVE", self.xsave.is_some(), other.xsave.is_some()),
        ];
        pairs.into_iter().find(|(_, mine, its)| *mine && !its).map(|(name, ..)| name)
    }
}

fn xsave(cpuid: &CpuId<raw_cpuid::CpuIdReaderNative>) -> Option<Xsave> {
    // The crate names components one by one; the mask as a whole is what XCR0 wants.
    let leaf = raw_cpuid::cpuid!(0xd, 0);
    let state = cpuid.get_extended_state_info()?;
    Some(Xsave {
        components: u64::from(leaf.edx) << 32 | u64::from(leaf.eax),
        largest: state.xsave_area_size_supported_features(),
        optimised: state.has_xsaveopt(),
        compacted: state.has_xsavec(),
    })
}

fn name(hypervisor: &Hypervisor) -> HypervisorName {
    HypervisorName(match hypervisor {
        Hypervisor::KVM => *b"KVM\0\0\0\0\0\0\0\0\0",
        Hypervisor::QEMU => *b"QEMU TCG\0\0\0\0",
        Hypervisor::Xen => *b"Xen\0\0\0\0\0\0\0\0\0",
        Hypervisor::VMware => *b"VMware\0\0\0\0\0\0",
        Hypervisor::HyperV => *b"Hyper-V\0\0\0\0\0",
        Hypervisor::Bhyve => *b"bhyve\0\0\0\0\0\0\0",
        Hypervisor::QNX => *b"QNX\0\0\0\0\0\0\0\0\0",
        Hypervisor::ACRN => *b"ACRN\0\0\0\0\0\0\0\0",
        Hypervisor::Unknown(ebx, ecx, edx) => {
            let mut name = [0; 12];
            for (bytes, word) in name.chunks_exact_mut(4).zip([ebx, ecx, edx]) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            name
        }
    })
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn a_cpu_lacks_nothing_that_it_has() {
        let features = Features::detect();
        assert_eq!(features.lacks(&features), None);
        let poorer = Features { nx: false, ..features };
        assert_eq!(Features { nx: true, ..features }.lacks(&poorer), Some("no-execute pages"));
        assert_eq!(poorer.lacks(&features), None);
    }

    #[test]
    fn names_are_printed_up_to_their_padding() {
        assert_eq!(name(&Hypervisor::QEMU).to_string(), "QEMU TCG");
        let strange = Hypervisor::Unknown(u32::from_le_bytes(*b"ab\x01d"), 0, 0);
        assert_eq!(name(&strange).to_string(), "ab\\x01d");
    }
}
