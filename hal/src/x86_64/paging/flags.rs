//! What an entry of a page table says.

use ::x86_64::structures::paging::PageTableFlags;

use super::Permissions;

/// How accesses to a page are cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cache {
    /// As memory is.
    WriteBack,
    /// Not at all: device registers. Selects entry 3 of the page attribute table, which is "uncacheable" from power-on
    /// and is left so.
    Uncached,
}

/// What a mapping is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// What the pages may be used for.
    pub permissions: Permissions,
    /// How accesses are cached.
    pub cache: Cache,
    /// Whether translations stay in the TLB when another root is loaded.
    pub global: bool,
}

impl Attributes {
    /// Cached memory of the kernel, the same in every address space.
    pub const fn kernel(permissions: Permissions) -> Attributes {
        Attributes { permissions, cache: Cache::WriteBack, global: true }
    }

    /// Device registers.
    pub const fn device() -> Attributes {
        Attributes { permissions: Permissions::ReadWrite, cache: Cache::Uncached, global: true }
    }

    /// Cached memory that exists under one root only.
    pub const fn local(permissions: Permissions) -> Attributes {
        Attributes { permissions, cache: Cache::WriteBack, global: false }
    }

    pub(super) fn flags(self, features: Features) -> PageTableFlags {
        let mut flags = permission_flags(self.permissions, features);
        flags.set(PageTableFlags::NO_CACHE | PageTableFlags::WRITE_THROUGH, self.cache == Cache::Uncached);
        flags.set(PageTableFlags::GLOBAL, self.global);
        flags
    }
}

/// The flags that [`permission_flags`] decides.
pub(super) const PERMISSION_FLAGS: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::NO_EXECUTE);

pub(super) fn permission_flags(permissions: Permissions, features: Features) -> PageTableFlags {
    let mut flags = PageTableFlags::PRESENT;
    flags.set(PageTableFlags::WRITABLE, permissions == Permissions::ReadWrite);
    flags.set(PageTableFlags::NO_EXECUTE, permissions != Permissions::ReadExecute && features.no_execute);
    flags
}

/// What the CPU's page tables can do beyond the architecture's minimum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Pages can forbid execution. Without it, everything that is mapped can be executed.
    pub no_execute: bool,
    /// There are pages of 1 GiB.
    pub giant_pages: bool,
}

impl Features {
    /// What the executing CPU can do.
    pub fn detect() -> Features {
        let cpuid = raw_cpuid::CpuId::new();
        let extended = cpuid.get_extended_processor_and_feature_identifiers();
        Features {
            no_execute: extended.as_ref().is_some_and(|e| e.has_execute_disable()),
            giant_pages: extended.as_ref().is_some_and(|e| e.has_1gib_pages()),
        }
    }
}

/// The size of a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Giant,
}

impl PageSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << (12 + 9 * (self.level() - 1))
    }

    /// The level of table whose entries map such pages; 1 is the lowest.
    pub(super) const fn level(self) -> u32 {
        match self {
            PageSize::Small => 1,
            PageSize::Large => 2,
            PageSize::Giant => 3,
        }
    }

    pub(super) const fn of_level(level: u32) -> PageSize {
        match level {
            1 => PageSize::Small,
            2 => PageSize::Large,
            _ => PageSize::Giant,
        }
    }
}
