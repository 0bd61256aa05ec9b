//! The code that a CPU starts with, in real mode, in a page below 1 MiB.
//!
//! It goes from real mode to 64-bit mode in one step, jumps to the kernel's image, looks its APIC id up in a table, and
//! takes from there its stack and per-CPU base.

use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::Preparation;
use crate::MAX_CPUS;
use crate::x86_64::layout::{PAGE_SIZE, phys_to_virt};

/// What the start-up code finds about its CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Seat {
    apic_id: u64,
    stack_top: u64,
    base: u64,
}

/// The table that started CPUs search. Each CPU has the seat of its number, written before it is told to start; one that
/// was given up and comes late so finds its own seat, whoever is being started then.
struct Seats(core::cell::UnsafeCell<[Seat; MAX_CPUS]>);

// SAFETY: as its comment says, writing and reading are ordered by the start-up interrupts.
unsafe impl Sync for Seats {}

#[unsafe(no_mangle)]
static __smp_seats: Seats =
    Seats(core::cell::UnsafeCell::new([Seat { apic_id: u64::MAX, stack_top: 0, base: 0 }; MAX_CPUS]));

#[unsafe(no_mangle)]
static __smp_seat_count: AtomicU64 = AtomicU64::new(0);
/// The kernel's own translations, which a CPU changes to as soon as it runs at the image's address.
#[unsafe(no_mangle)]
static __smp_root: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static __smp_entry: AtomicU64 = AtomicU64::new(0);

/// The page that has the code, or 0.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

core::arch::global_asm!(
    r#"
    .pushsection .rodata.trampoline, "a", @progbits
    .global __trampoline_start, __trampoline_end, __trampoline_root, __trampoline_features, __trampoline_gdt_base, __trampoline_far
    .code16
    .balign 16
    __trampoline_start:
        cli
        cld
        movw %cs, %ax
        movw %ax, %ds
        // Long mode in one step: PAE and global pages, the tables, EFER, then protection and paging together.
        movl %cr4, %eax
        orl $0xa0, %eax
        movl %eax, %cr4
        movl __trampoline_root - __trampoline_start, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx
        rdmsr
        orl __trampoline_features - __trampoline_start, %eax
        wrmsr
        movl %cr0, %eax
        andl $0x9fffffff, %eax          // caches on
        orl $0x80010001, %eax
        lgdtl trampoline_gdt_pointer - __trampoline_start
        movl %eax, %cr0
        ljmpl *(__trampoline_far - __trampoline_start)

    .code64
    trampoline_64:
        movw $16, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        xorl %eax, %eax
        movw %ax, %fs
        movw %ax, %gs
        movq $__smp_start, %rax
        jmpq *%rax

    .balign 8
    trampoline_gdt:
        .quad 0
        .quad 0x00af9b000000ffff        // 64-bit code
        .quad 0x00cf93000000ffff        // data
    trampoline_gdt_pointer:
        .word . - trampoline_gdt - 1
    __trampoline_gdt_base:
        .long trampoline_gdt - __trampoline_start
    __trampoline_far:
        .long trampoline_64 - __trampoline_start
        .word 8
    .balign 4
    __trampoline_root:
        .long 0
    __trampoline_features:
        .long 0
    __trampoline_end:
    .popsection
    "#,
    options(att_syntax)
);

core::arch::global_asm!(
    r#"
    .pushsection .text.smp_start, "ax", @progbits
    .global __smp_start
    __smp_start:
        mov rax, [rip + __smp_root]
        mov cr3, rax
        // The APIC id: all 32 bits from leaf 11 where the CPU has it, else 8 bits from leaf 1.
        xor eax, eax
        cpuid
        cmp eax, 11
        jb 2f
        mov eax, 11
        xor ecx, ecx
        cpuid
        test ebx, ebx
        jz 2f
        mov r8d, edx
        jmp 3f
    2:  mov eax, 1
        cpuid
        shr ebx, 24
        mov r8d, ebx
    3:  lea rsi, [rip + __smp_seats]
        mov rcx, [rip + __smp_seat_count]
    4:  test rcx, rcx
        jz 6f
        cmp [rsi], r8
        je 5f
        add rsi, 24
        dec rcx
        jmp 4b
    5:  mov rsp, [rsi + 8]
        mov eax, [rsi + 16]
        mov edx, [rsi + 20]
        mov ecx, 0xc0000101             // the GS base
        wrmsr
        mov rdi, [rip + __smp_entry]
        xor ebp, ebp
        mov rax, offset {started}
        call rax
    6:  cli                             // nobody asked for this CPU
        hlt
        jmp 6b
    .popsection
    "#,
    started = sym super::started,
);

unsafe extern "C" {
    static __trampoline_start: u8;
    static __trampoline_end: u8;
    static __trampoline_root: u8;
    static __trampoline_features: u8;
    static __trampoline_gdt_base: u8;
    static __trampoline_far: u8;
}

/// Copies the code to `page` and fills in what it needs, the first time.
///
/// # Safety
/// As for [`super::start`]; with one page goes one `start_root`.
pub(super) unsafe fn write(
    cpus: &[Preparation],
    page: u64,
    start_root: u64,
    root: u64,
    entry: extern "C" fn() -> !,
) {
    assert!(cpus.len() <= MAX_CPUS && page < 0x10_0000 && page.is_multiple_of(PAGE_SIZE));
    let start_root = u32::try_from(start_root).expect("the start-up tables lie below 4 GiB");
    let mut count = 0;
    for prepared in cpus {
        let i = prepared.cpu.index();
        count = count.max(i as u64 + 1);
        let seat = Seat {
            apic_id: prepared.apic_id.into(),
            stack_top: prepared.stack_top,
            base: prepared.base as u64,
        };
        // SAFETY: within the array. Only this CPU uses what is in this seat, and it is not under way: it has not been told to
        // start, or is about to be reset.
        unsafe { (*__smp_seats.0.get())[i] = seat };
    }
    __smp_seat_count.fetch_max(count, Ordering::Relaxed);
    __smp_root.store(root, Ordering::Relaxed);
    __smp_entry.store(entry as usize as u64, Ordering::Relaxed);

    // The page stays as it is: one that was given up may be in it.
    if WRITTEN.swap(page, Ordering::Relaxed) == page {
        return;
    }
    let start = &raw const __trampoline_start;
    let length = (&raw const __trampoline_end as usize) - start as usize;
    let target = phys_to_virt(page);
    let patch = |symbol: *const u8, change: &dyn Fn(u32) -> u32| {
        let place = target.wrapping_add(symbol as usize - start as usize).cast::<u32>();
        // SAFETY: inside the copy in `page`, which is ours.
        unsafe { place.write_unaligned(change(place.read_unaligned())) };
    };
    // SAFETY: `page` is a free page in the direct map, and the code fits.
    unsafe { ptr::copy_nonoverlapping(start, target, length) };
    // EFER: long mode, and no-execute as on the boot CPU.
    let features = x86_64::registers::model_specific::Efer::read_raw() as u32 & 0x900;
    patch(&raw const __trampoline_root, &|_| start_root);
    patch(&raw const __trampoline_features, &|_| features);
    patch(&raw const __trampoline_gdt_base, &|offset| offset + page as u32);
    patch(&raw const __trampoline_far, &|offset| offset + page as u32);
}
