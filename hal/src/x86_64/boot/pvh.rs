//! The PVH entry: how QEMU's `-kernel` and other virtual machine monitors start a 64-bit ELF without a boot loader.
//!
//! A note in the ELF file names the 32-bit physical address of `pvh_start`. The CPU arrives there in protected mode with
//! paging off, flat segments and EBX pointing to a `hvm_start_info`.

use core::cell::UnsafeCell;
use core::slice;

use super::{BOOT_INFO, BootInfo, MAX_REGIONS, MemoryKind, MemoryRegion};
use crate::x86_64::layout::{IMAGE, phys_to_virt};

/// The tables that the boot CPU enters 64-bit mode with. They map physical 0..4 GiB, everything allowed, at 0, in the
/// direct map and (the first GiB) at the image. The kernel replaces them as soon as it knows its memory.
#[repr(C, align(4096))]
struct BootTables {
    root: [u64; 512],
    /// For address 0 and the direct map.
    low: [u64; 512],
    /// For the image.
    high: [u64; 512],
    directories: [[u64; 512]; 4],
}

#[unsafe(no_mangle)]
static mut __boot_tables: BootTables =
    BootTables { root: [0; 512], low: [0; 512], high: [0; 512], directories: [[0; 512]; 4] };

/// The stack that the boot CPU runs on until the kernel gives it a guarded one.
const BOOT_STACK_SIZE: usize = 32 * 1024;

#[repr(C, align(64))]
struct BootStack([u8; BOOT_STACK_SIZE]);

#[unsafe(no_mangle)]
static mut __boot_stack: BootStack = BootStack([0; BOOT_STACK_SIZE]);

core::arch::global_asm!(
    r#"
    .pushsection .note.pvh, "a", @note
    .balign 4
    .long 4                             // the size of the name
    .long 8                             // the size of the value
    .long 18                            // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start - {image}
    .balign 4
    .popsection

    .pushsection .text.boot, "ax", @progbits
    .code32
    .global pvh_start
    pvh_start:
        cli
        cld
        mov esp, offset __boot_stack - {image} + {stack_size}
        mov ebp, ebx                    // the start info, out of cpuid's way

        // Directories: 2,048 pages of 2 MiB, present, writable, large.
        mov edi, offset __boot_tables - {image} + 3 * 4096
        mov eax, 0x83
        xor ecx, ecx
    2:  mov dword ptr [edi + ecx * 8], eax
        add eax, 0x200000
        inc ecx
        cmp ecx, 2048
        jb 2b

        // Four directories below `low`; the first also at the last but one place of `high`.
        mov edi, offset __boot_tables - {image}
        lea eax, [edi + 3 * 4096 + 3]
        mov dword ptr [edi + 4096 + 0], eax
        mov dword ptr [edi + 2 * 4096 + 510 * 8], eax
        add eax, 4096
        mov dword ptr [edi + 4096 + 8], eax
        add eax, 4096
        mov dword ptr [edi + 4096 + 16], eax
        add eax, 4096
        mov dword ptr [edi + 4096 + 24], eax

        // The root: entries 0, 256 (direct map) and 511 (image).
        lea eax, [edi + 4096 + 3]
        mov dword ptr [edi], eax
        mov dword ptr [edi + 256 * 8], eax
        add eax, 4096
        mov dword ptr [edi + 511 * 8], eax
        mov cr3, edi

        mov eax, cr4
        or eax, 0xa0                    // PAE, PGE
        mov cr4, eax

        // EFER: long mode, and no-execute where the CPU has it.
        mov eax, 0x80000001
        cpuid
        shr edx, 9                      // NX is bit 20 of EDX, NXE bit 11 of EFER
        and edx, 0x800
        or edx, 0x100
        mov esi, edx
        mov ecx, 0xc0000080
        rdmsr
        or eax, esi
        wrmsr

        mov eax, cr0
        or eax, 0x80010001              // paging, write protection, protected mode
        mov cr0, eax
        lgdt [pvh_gdt_pointer - {image}]
        ljmp 8, offset pvh_start_64 - {image}

    .code64
    pvh_start_64:
        mov ax, 16
        mov ds, ax
        mov es, ax
        mov ss, ax
        xor eax, eax
        mov fs, ax
        mov gs, ax
        // GS base 0: until the boot CPU has its area, per-CPU accesses go to the template.
        xor edx, edx
        mov ecx, 0xc0000101
        wrmsr
        mov rsp, offset __boot_stack + {stack_size}
        mov edi, ebp
        xor ebp, ebp
        mov rax, offset {entry}
        call rax
        ud2

    .balign 8
    pvh_gdt:
        .quad 0
        .quad 0x00af9b000000ffff        // 64-bit code
        .quad 0x00cf93000000ffff        // data
    pvh_gdt_pointer:
        .word . - pvh_gdt - 1
        .long pvh_gdt - {image}
    .popsection
    "#,
    image = const IMAGE,
    stack_size = const BOOT_STACK_SIZE,
    entry = sym entry,
);

/// The structure that EBX points to (version 1 of the protocol).
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct MapEntry {
    start: u64,
    length: u64,
    kind: u32,
    reserved: u32,
}

const MAGIC: u32 = 0x336e_c578;

/// Why the start information cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PvhError {
    /// The magic number is wrong: not entered by PVH.
    BadMagic(u32),
    /// Version 0 has no memory map.
    NoMemoryMap,
}

/// The memory map, taken over: the loader's is in memory that will be used for something else.
struct Regions(UnsafeCell<[MemoryRegion; MAX_REGIONS]>);

// SAFETY: written once, by `read`, before other CPUs run.
unsafe impl Sync for Regions {}

static REGIONS: Regions =
    Regions(UnsafeCell::new([MemoryRegion { start: 0, length: 0, kind: MemoryKind::Reserved }; MAX_REGIONS]));

/// The first Rust code, on the boot CPU: one CPU, interrupts off, boot tables.
extern "C" fn entry(start_info: u64) -> ! {
    super::super::start::boot_cpu(|| {
        // SAFETY: the boot tables map the first 4 GiB, where the loader put its data; called once, before other CPUs run.
        let info = unsafe { read(start_info) };
        info.map(|info| BOOT_INFO.call_once(|| info))
    })
}

/// Takes the loader's data over.
///
/// # Safety
/// `start_info` is what the PVH loader passed, and readable in the direct map. Called once.
unsafe fn read(start_info: u64) -> Result<BootInfo, PvhError> {
    // SAFETY: by the protocol there is a start info at this address.
    let start = unsafe { &*phys_to_virt(start_info).cast::<StartInfo>() };
    if start.magic != MAGIC {
        return Err(PvhError::BadMagic(start.magic));
    }
    if start.version < 1 || start.memory_map_entries == 0 {
        return Err(PvhError::NoMemoryMap);
    }
    let taken = (start.memory_map_entries as usize).min(MAX_REGIONS);
    // SAFETY: the protocol promises this many entries there; `REGIONS` is used here only, once.
    let (entries, regions) = unsafe {
        (
            slice::from_raw_parts(phys_to_virt(start.memory_map).cast::<MapEntry>(), taken),
            &mut *REGIONS.0.get(),
        )
    };
    for (entry, region) in entries.iter().zip(regions.iter_mut()) {
        *region = MemoryRegion { start: entry.start, length: entry.length, kind: kind(entry.kind) };
    }
    let (command_line, end_of_line) = match start.command_line {
        0 => ("", 0),
        address => {
            // SAFETY: by the protocol a terminated string, which stays because its frames are reserved below.
            let text = unsafe { core::ffi::CStr::from_ptr(phys_to_virt(address).cast()) };
            (text.to_str().unwrap_or(""), address + text.count_bytes() as u64 + 1)
        }
    };
    let image_end = super::super::layout::sections()[3].range.end - IMAGE;
    let line_start = if end_of_line == 0 { 0 } else { start.command_line };
    Ok(BootInfo {
        command_line,
        rsdp: Some(start.rsdp).filter(|rsdp| *rsdp != 0),
        memory: &regions[..taken],
        reserved: [(0x20_0000, image_end), (line_start, end_of_line)],
        protocol: "PVH",
    })
}

/// The type numbers of the E820 interface, which PVH shares.
fn kind(number: u32) -> MemoryKind {
    match number {
        1 => MemoryKind::Usable,
        3 => MemoryKind::AcpiReclaimable,
        4 => MemoryKind::AcpiNvs,
        5 => MemoryKind::Bad,
        _ => MemoryKind::Reserved,
    }
}
