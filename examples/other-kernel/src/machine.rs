//! Ports, model-specific registers, the serial port, time, and the way out.

use core::arch::asm;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

/// IA32_GS_BASE.
pub(crate) const GS_BASE: u32 = 0xc000_0101;

const COM1: u16 = 0x3f8;
/// Of QEMU's `isa-debug-exit`.
const EXIT: u16 = 0xf4;

/// TSC cycles in [`CALIBRATION_NS`], and the TSC at the moment that is time 0.
static CYCLES: AtomicU64 = AtomicU64::new(0);
static ZERO: AtomicU64 = AtomicU64::new(0);
/// How long the calibration takes.
pub(crate) const CALIBRATION_NS: u64 = 10_000_000;
/// The same in cycles of the PIT, which runs at 1.193182 MHz.
const CALIBRATION_PIT: u16 = 11_932;

/// # Safety
/// Writing the value to the register must be harmless to memory, or be what the caller wants.
pub(crate) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32) };
}

/// Only ports whose devices do not touch memory are used here: PIC, PIT, UART, debug exit.
fn out_u8(port: u16, value: u8) {
    // SAFETY: see above.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

fn in_u8(port: u16) -> u8 {
    let value;
    // SAFETY: as for `out_u8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

fn read_tsc() -> u64 {
    let (low, high): (u32, u32);
    // The fence keeps the reading behind what comes before it.
    // SAFETY: reads a counter.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Masks the old interrupt controllers, which are wired in parallel to the local APIC.
pub(crate) fn silence_pic() {
    out_u8(0x21, 0xff);
    out_u8(0xa1, 0xff);
}

/// Waits for [`CALIBRATION_NS`] by the PIT's second channel, and so learns how fast the TSC runs.
pub(crate) fn calibrate() {
    out_u8(0x61, in_u8(0x61) & !2 | 1); // gate on, speaker off
    out_u8(0x43, 0xb0); // channel 2, both bytes, count down once
    out_u8(0x42, CALIBRATION_PIT as u8);
    out_u8(0x42, (CALIBRATION_PIT >> 8) as u8);
    let start = read_tsc();
    while in_u8(0x61) & 0x20 == 0 {
        core::hint::spin_loop();
    }
    CYCLES.store((read_tsc() - start).max(1), Ordering::Relaxed);
    ZERO.store(start, Ordering::Relaxed);
}

/// Nanoseconds since the calibration. All CPUs of a guest have the same time stamp counter.
pub(crate) fn now_ns() -> u64 {
    let cycles = u128::from(read_tsc().saturating_sub(ZERO.load(Ordering::Relaxed)));
    (cycles * u128::from(CALIBRATION_NS) / u128::from(CYCLES.load(Ordering::Relaxed))) as u64
}

pub(crate) fn delay_us(us: u64) {
    let end = now_ns() + us * 1000;
    while now_ns() < end {
        core::hint::spin_loop();
    }
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while in_u8(COM1 + 5) & 0x20 == 0 {
                core::hint::spin_loop();
            }
            out_u8(COM1, byte);
        }
        Ok(())
    }
}

/// Prints to the serial port. Takes no lock, so that everybody can, in every context.
pub(crate) fn print(text: fmt::Arguments<'_>) {
    // The port takes everything.
    let _ = Serial.write_fmt(text);
}

/// Ends the run.
pub(crate) fn exit(success: bool) -> ! {
    let value: u32 = if success { 0x10 } else { 0x11 };
    // SAFETY: as for `out_u8`.
    unsafe { asm!("out dx, eax", in("dx") EXIT, in("eax") value, options(nomem, nostack, preserves_flags)) };
    loop {
        // SAFETY: halting stops this CPU and nothing else.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
