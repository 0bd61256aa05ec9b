//! The interrupt table, and the local APIC: a timer on each CPU and a way to interrupt the other one.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use hal::context::IRQ_DEPTH;
use hal::{CpuId, Platform, percpu};
use sync::Cpu;

use crate::platform::{self, Own};
use crate::{exercises, grace, machine, timing};

const TIMER: usize = 0x40;
const KICK: usize = 0x41;
const SPURIOUS: usize = 0xff;

/// The timer's period.
pub(crate) const TICK_NS: u64 = 1_000_000;

/// APIC registers, by their offset: Intel SDM volume 3, table 11-1.
mod register {
    pub(super) const END_OF_INTERRUPT: usize = 0xb0;
    pub(super) const SPURIOUS: usize = 0xf0;
    pub(super) const COMMAND: usize = 0x300;
    pub(super) const TIMER: usize = 0x320;
    pub(super) const TIMER_START: usize = 0x380;
    pub(super) const TIMER_NOW: usize = 0x390;
    pub(super) const TIMER_DIVIDE: usize = 0x3e0;
}

percpu! {
    /// Timer interrupts taken.
    pub(crate) static TICKS: AtomicU32 = AtomicU32::new(0);
}

/// The timer's first count, for one period.
static PERIOD: AtomicU32 = AtomicU32::new(1);

#[repr(C, align(16))]
struct Table([[u64; 2]; 256]);

static mut TABLE: Table = Table([[0; 2]; 256]);

core::arch::global_asm!(
    r#"
    .macro interrupt name, vector
    \name:
        push rax
        push rcx
        push rdx
        push rsi
        push rdi
        push r8
        push r9
        push r10
        push r11
        cld
        mov edi, \vector
        call {interrupt}            // 5 words by the CPU and 9 here: the stack is aligned
        pop r11
        pop r10
        pop r9
        pop r8
        pop rdi
        pop rsi
        pop rdx
        pop rcx
        pop rax
        iretq
    .endm

    .pushsection .text.interrupts, "ax", @progbits
    interrupt timer_entry, {timer}
    interrupt kick_entry, {kick}
    spurious_entry:
        iretq

    // Exceptions: what the CPU pushed, below it the vector. None is survived, so nothing is saved.
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    exception_\n:
        push \n
        jmp exception_common
    .endr
    exception_common:
        mov rdi, rsp
        and rsp, -16
        call {exception}
        ud2
    .popsection

    .pushsection .rodata.interrupts, "a", @progbits
    .balign 8
    exception_entries:
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
        .quad exception_\n
    .endr
    .popsection
    "#,
    interrupt = sym interrupt,
    exception = sym exception,
    timer = const TIMER,
    kick = const KICK,
);

unsafe extern "C" {
    static exception_entries: [u64; 32];
    fn timer_entry();
    fn kick_entry();
    fn spurious_entry();
}

/// Writes the table that all CPUs share. Once, before any loads it.
pub(crate) fn fill_table() {
    let set = |vector: usize, entry: u64| {
        // A 64-bit interrupt gate, Intel SDM volume 3, 6.14.1: code segment 8, present, the flag is cleared on entry.
        let low = entry & 0xffff | 8 << 16 | 0x8e00 << 32 | (entry >> 16 & 0xffff) << 48;
        // SAFETY: only this function, which runs once on the boot CPU alone, writes; no CPU has loaded the table yet.
        unsafe { TABLE.0[vector] = [low, entry >> 32] };
    };
    // SAFETY: the assembler wrote 32 addresses there.
    let exceptions = unsafe { &exception_entries };
    exceptions.iter().enumerate().for_each(|(vector, entry)| set(vector, *entry));
    set(TIMER, timer_entry as *const () as u64);
    set(KICK, kick_entry as *const () as u64);
    set(SPURIOUS, spurious_entry as *const () as u64);
    machine::silence_pic();
}

/// Measures the clocks. On the boot CPU, first of all.
pub(crate) fn calibrate() {
    write(register::SPURIOUS, 0x100 | SPURIOUS as u32);
    write(register::TIMER_DIVIDE, 3); // by 16
    write(register::TIMER, 1 << 16 | TIMER as u32); // masked
    write(register::TIMER_START, u32::MAX);
    machine::calibrate();
    let counted = u64::from(u32::MAX - read(register::TIMER_NOW));
    PERIOD.store((counted * TICK_NS / machine::CALIBRATION_NS).max(1) as u32, Ordering::Relaxed);
}

/// Loads the table, turns the local APIC on, and starts its timer. Interrupts stay off.
pub(crate) fn start_on_this_cpu() {
    #[repr(C, packed)]
    struct Pointer(u16, *const Table);
    let pointer = Pointer(size_of::<Table>() as u16 - 1, &raw const TABLE);
    // SAFETY: the table is complete and lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
    write(register::SPURIOUS, 0x100 | SPURIOUS as u32);
    write(register::TIMER_DIVIDE, 3);
    write(register::TIMER, 1 << 17 | TIMER as u32); // periodic
    write(register::TIMER_START, PERIOD.load(Ordering::Relaxed));
}

/// Interrupts the executing CPU, or the other one. One write, so that an interrupt in the middle of sending that sends
/// as well does no harm.
pub(crate) fn kick(cpu: CpuId) {
    let whom = if cpu == Own::cpu() { 0b01 } else { 0b11 };
    // A write to an uncached register is not reordered with earlier stores, so the other CPU sees them.
    write(register::COMMAND, whom << 18 | 1 << 14 | KICK as u32);
}

/// Resets all other CPUs, which then wait for a start-up interrupt.
pub(crate) fn send_init_to_others() {
    write(register::COMMAND, 0b11 << 18 | 0x4500);
}

/// Starts all other CPUs in real mode at the page.
pub(crate) fn send_startup_to_others(page: usize) {
    write(register::COMMAND, 0b11 << 18 | 0x4600 | (page >> 12) as u32);
}

/// What every interrupt does.
extern "C" fn interrupt(vector: usize) {
    // The CPU cleared the flag: one party more that wants interrupts off.
    IRQ_DEPTH.inc();
    // SAFETY: this is the entry; interrupts are off and counted until after the guard is gone, and none nests here.
    let serving = unsafe { Cpu::<Own>::enter_hardirq() };
    match vector {
        TIMER => {
            TICKS.inc();
            timing::on_tick(&serving);
            grace::on_tick(&serving);
            exercises::on_timer(&serving);
        }
        _ => platform::accept_resched_request(),
    }
    write(register::END_OF_INTERRUPT, 0);
    drop(serving);
    platform::leave_interrupt();
    // The return from the interrupt sets the flag, which was set when it came.
    IRQ_DEPTH.dec();
}

/// What every exception does: none is expected. `stack` is the vector, then what the CPU pushed.
extern "C" fn exception(stack: *const [u64; 4]) -> ! {
    // SAFETY: the entry pushed the vector on top of three words at least.
    let words = unsafe { &*stack };
    panic!("exception {}: {:#x?}", words[0], &words[1..])
}

/// The local APIC's registers, where they are after a reset.
const APIC: usize = 0xfee0_0000;

fn read(register: usize) -> u32 {
    // SAFETY: the boot tables map the registers, uncached, and reading those above has no effect.
    unsafe { ((APIC + register) as *const u32).read_volatile() }
}

fn write(register: usize, value: u32) {
    // SAFETY: as for `read`; the values of the callers make the APIC interrupt CPUs at entries that exist.
    unsafe { ((APIC + register) as *mut u32).write_volatile(value) };
}
