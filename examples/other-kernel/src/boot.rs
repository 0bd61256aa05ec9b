//! From power-on to [`main`] on both CPUs.
//!
//! The boot CPU enters at `start_32` (PVH: 32-bit protected mode, paging off), builds tables that map 4 GiB at their own
//! addresses, and continues as every CPU does: into 64-bit mode, where it draws a number, which gives it a stack. The
//! other CPUs come from real mode by way of `trampoline`, which is copied to a page below 1 MiB.

use core::ptr;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use hal::{CpuId, percpu};

use crate::platform::CPUS;
use crate::{exercises, grace, interrupts, machine, timing};

/// Where the other CPUs start. Free memory on every PC, and a start-up interrupt can name it.
const TRAMPOLINE: usize = 0x8000;
const STACK_SIZE: usize = 64 * 1024;
/// Enough for the template and hal's dynamic part.
const AREA_SIZE: usize = 64 * 1024;

#[repr(C, align(4096))]
struct Tables([[u64; 512]; 6]);

#[repr(C, align(64))]
struct Memory<const SIZE: usize>([u8; SIZE]);

#[unsafe(no_mangle)]
static mut boot_tables: Tables = Tables([[0; 512]; 6]);
#[unsafe(no_mangle)]
static mut boot_stacks: [Memory<STACK_SIZE>; CPUS] = [const { Memory([0; STACK_SIZE]) }; CPUS];
#[unsafe(no_mangle)]
static boot_numbers: AtomicU32 = AtomicU32::new(0);
static mut AREAS: [Memory<AREA_SIZE>; CPUS] = [const { Memory([0; AREA_SIZE]) }; CPUS];

core::arch::global_asm!(
    r#"
    .pushsection .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18                  // lengths of name and value, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad start_32
    .popsection

    .pushsection .text.boot, "ax", @progbits
    .code32
    .global start_32
    start_32:
        cli
        cld
        // boot_tables: the root, one page of pointers to directories, four directories of 2 MiB pages.
        mov ebx, offset boot_tables
        lea eax, [ebx + 0x1003]
        mov [ebx], eax
        xor ecx, ecx
    2:  lea eax, [ecx + 2]
        shl eax, 12
        lea eax, [ebx + eax + 3]
        mov [ebx + 0x1000 + ecx * 8], eax
        inc ecx
        cmp ecx, 4
        jb 2b
        xor ecx, ecx
    3:  mov eax, ecx
        shl eax, 21
        or eax, 0x83                // present, writable, large
        cmp ecx, 3 * 512
        jb 4f
        or eax, 0x18                // device registers are in the last GiB: no caching
    4:  mov [ebx + 0x2000 + ecx * 8], eax
        inc ecx
        cmp ecx, 4 * 512
        jb 3b

    // Every CPU, in 32-bit mode with paging off.
    enter_64:
        mov eax, cr4
        or eax, 0x20                // PAE
        mov cr4, eax
        mov eax, offset boot_tables
        mov cr3, eax
        mov ecx, 0xc0000080         // EFER
        rdmsr
        or eax, 0x100               // long mode
        wrmsr
        mov eax, cr0
        or eax, 0x80010001          // paging, write protection, protected mode
        mov cr0, eax
        lgdt [gdt_pointer]
        ljmp 8, offset start_64

    .code64
    start_64:
        mov eax, 16
        mov ds, eax
        mov es, eax
        mov ss, eax
        xor eax, eax
        mov fs, eax
        mov gs, eax
        mov edi, 1
        lock xadd [rip + boot_numbers], edi
        cmp edi, {cpus}
        jae 6f
        lea eax, [rdi + 1]
        imul eax, eax, {stack_size}
        lea rsp, [rip + boot_stacks]
        add rsp, rax
        xor ebp, ebp
        call {main}
    6:  cli                         // a CPU more than we have room for
        hlt
        jmp 6b

    // The same code as the trampoline sees it: real mode, at whatever page CS says.
    .code16
    .balign 16
    trampoline:
        cli
        mov ax, cs
        mov ds, ax
        .byte 0x0f, 0x01, 0x16      // lgdt, from an offset in this page
        .word gdt_pointer_16 - trampoline
        mov eax, cr0
        or al, 1
        mov cr0, eax
        .byte 0x66, 0xea            // a far jump with a 32-bit offset
        .long protected
        .word 24
    gdt_pointer_16:
        .word gdt_pointer - gdt - 1
        .long gdt
    trampoline_end:

    .code32
    protected:
        mov eax, 16
        mov ds, eax
        mov ss, eax
        jmp enter_64

    .balign 8
    gdt:
        .quad 0
        .quad 0x00af9b000000ffff    // 64-bit code
        .quad 0x00cf93000000ffff    // data
        .quad 0x00cf9b000000ffff    // 32-bit code
    gdt_pointer:
        .word gdt_pointer - gdt - 1
        .long gdt
    .popsection
    .code64
    "#,
    cpus = const CPUS,
    stack_size = const STACK_SIZE,
    main = sym main,
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// The first Rust code of every CPU: interrupts off, a stack of its own, `number` unique.
extern "C" fn main(number: u32) -> ! {
    let cpu = CpuId::new(number).expect("numbers are below CPUS");
    adopt_area(cpu);
    if cpu == CpuId::BOOT {
        interrupts::calibrate();
        interrupts::fill_table();
        grace::prepare();
        grace::start_on_this_cpu();
        timing::start_on_this_cpu();
        interrupts::start_on_this_cpu();
        start_others();
        exercises::run_all()
    } else {
        grace::start_on_this_cpu();
        timing::start_on_this_cpu();
        interrupts::start_on_this_cpu();
        exercises::take_part(cpu)
    }
}

/// Gives the executing CPU its per-CPU variables.
fn adopt_area(cpu: CpuId) {
    assert!(percpu::area_size() <= AREA_SIZE, "AREA_SIZE is {AREA_SIZE}, {} are needed", percpu::area_size());
    let area = (&raw mut AREAS).cast::<u8>().wrapping_add(cpu.index() * AREA_SIZE);
    let area = NonNull::new(area).expect("statics are not at address 0");
    // SAFETY: `AREAS` is for this only, and this CPU takes its own part, once. The executing CPU has interrupts off and
    // has stored nothing yet.
    let base = unsafe { percpu::install(cpu, area) }.expect("the area is aligned and the CPU is new");
    // SAFETY: the GS base is what per-CPU variables are reached by, and nothing else uses it.
    unsafe { machine::write_msr(machine::GS_BASE, base as u64) };
}

/// Wakes all other CPUs. Those that there are beyond [`CPUS`] find no place and halt.
fn start_others() {
    let (start, end) = (&raw const trampoline, &raw const trampoline_end);
    // SAFETY: the page is RAM that nobody uses, and the linker put the code between these two.
    unsafe { ptr::copy_nonoverlapping(start, TRAMPOLINE as *mut u8, end.offset_from_unsigned(start)) };
    interrupts::send_init_to_others();
    machine::delay_us(10_000);
    interrupts::send_startup_to_others(TRAMPOLINE);
    let patience = machine::now_ns() + 10_000_000_000;
    // Relaxed: says only that they came.
    while boot_numbers.load(Ordering::Relaxed) < CPUS as u32 {
        assert!(machine::now_ns() < patience, "only one CPU came; this kernel wants {CPUS}");
        core::hint::spin_loop();
    }
}
