//! Switching the machine off, and on again.

use core::fmt;
use core::ptr::NonNull;

use volatile::VolatilePtr;
use x86_64::instructions::port::Port;

use super::{Power, Register, SoftOff};

/// The machine has no such switch, or did not obey it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unavailable {
    /// What was to be done.
    pub action: &'static str,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this machine offers no working way to {}; stop it from outside", self.action)
    }
}

impl core::error::Error for Unavailable {}

/// How long the machine gets to act, in reads of port 0x80 (about 1 us each on hardware, more in a guest).
const PATIENCE: u32 = 200_000;

/// Switches the machine off by the way that firmware described. `map` gives the virtual address of a device register.
///
/// Any context, interrupts off, the other CPUs stopped. Does not return when it works.
///
/// # Errors
/// Firmware described no way, or the machine is still on.
pub fn power_off(power: &Power, map: impl Fn(u64, usize) -> Option<NonNull<u8>>) -> Unavailable {
    match power.off {
        Some(SoftOff::Pm1 { a, b }) => {
            for (register, kind) in [Some(a), b].into_iter().flatten() {
                let value = u16::from(kind & 7) << 10 | 1 << 13;
                match register {
                    // SAFETY: firmware named this port as the PM1 control register; S5 is what it is for.
                    Register::Port(port) => unsafe { Port::<u16>::new(port).write(value) },
                    Register::Memory(address) => {
                        if let Some(at) = map(address, 2) {
                            // SAFETY: `map` returned the address of the register that firmware named.
                            unsafe { VolatilePtr::new(at.cast::<u16>()) }.write(value);
                        }
                    }
                }
            }
        }
        Some(SoftOff::SleepControl(register, kind)) => {
            write_byte(register, (kind & 7) << 2 | 1 << 5, &map);
        }
        None => return Unavailable { action: "power off" },
    }
    wait();
    Unavailable { action: "power off" }
}

/// Resets the machine: by the register that firmware described, else by the keyboard controller, else by the reset
/// control register of PC chipsets. Does not return when it works. `power` is `None` when nothing is known.
///
/// Any context, interrupts off.
///
/// # Errors
/// The machine is still running.
pub fn reset(power: Option<&Power>, map: impl Fn(u64, usize) -> Option<NonNull<u8>>) -> Unavailable {
    if let Some((register, value)) = power.and_then(|power| power.reset) {
        write_byte(register, value, &map);
        wait();
    }
    // SAFETY: on a PC these ports reset the machine, which is the wish; where they do not exist, writes are lost.
    unsafe {
        Port::<u8>::new(0x64).write(0xfe_u8);
        wait();
        // Bit 1 selects a hard reset, the change of bit 2 to one starts it.
        Port::<u8>::new(0xcf9).write(0x02_u8);
        Port::<u8>::new(0xcf9).write(0x06_u8);
    }
    wait();
    Unavailable { action: "reset" }
}

fn write_byte(register: Register, value: u8, map: &impl Fn(u64, usize) -> Option<NonNull<u8>>) {
    match register {
        // SAFETY: firmware named this port for this purpose.
        Register::Port(port) => unsafe { Port::<u8>::new(port).write(value) },
        Register::Memory(address) => {
            if let Some(at) = map(address, 1) {
                // SAFETY: `map` returned the address of the register that firmware named.
                unsafe { VolatilePtr::new(at) }.write(value);
            }
        }
    }
}

/// Waits a while without a clock: it may be the clock that is broken.
fn wait() {
    let mut post = Port::<u8>::new(0x80);
    for _ in 0..PATIENCE {
        // SAFETY: port 0x80 shows progress codes; reading it has no effect but to take time.
        let _: u8 = unsafe { post.read() };
        core::hint::spin_loop();
    }
}
