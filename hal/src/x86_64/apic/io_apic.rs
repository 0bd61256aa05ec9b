//! The I/O APICs: which input of the machine interrupts which CPU with which vector.
//!
//! Registers are reached through an index register, so an access is two steps and a caller needs the controllers to
//! itself: all functions take `&mut self`. The kernel keeps the one [`IoApics`] behind an interrupt-disabling lock.

use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use volatile::{VolatileFieldAccess, VolatilePtr};

use crate::x86_64::acpi::{IoApicInfo, Override, Polarity, Topology, Trigger};

/// All I/O APICs of the machine, addressed by global system interrupt.
#[derive(Debug, Default)]
pub struct IoApics {
    controllers: Vec<IoApic>,
}

/// Why an interrupt cannot be routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RouteError {
    /// No controller has this global system interrupt.
    NoSuchInput(u32),
    /// The destination's APIC id does not fit into the controller's 8 bits.
    FarDestination(u32),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::NoSuchInput(gsi) => write!(f, "no I/O APIC has interrupt {gsi}"),
            RouteError::FarDestination(id) => {
                write!(f, "an I/O APIC cannot reach APIC id {id}; choose a CPU with an id below 255")
            }
        }
    }
}

impl core::error::Error for RouteError {}

/// The registers in memory (Intel 82093AA): an index, and a window on the register that it selects.
#[repr(C)]
#[derive(VolatileFieldAccess)]
struct Registers {
    select: u32,
    _reserved: [u32; 3],
    window: u32,
}

#[derive(Debug)]
struct IoApic {
    info: IoApicInfo,
    inputs: u32,
    registers: NonNull<Registers>,
}

// SAFETY: device registers that stay mapped and are the same for all CPUs; `&mut` keeps accesses apart.
unsafe impl Send for IoApic {}

const VERSION: u32 = 1;
/// The low half of input 0's entry; the high half follows, then the next input.
const FIRST_ENTRY: u32 = 0x10;
const MASKED: u32 = 1 << 16;

/// The low half of an input's entry: fixed delivery to a physical destination.
const fn entry(vector: u8, polarity: Polarity, trigger: Trigger) -> u32 {
    let polarity = matches!(polarity, Polarity::ActiveLow) as u32;
    let trigger = matches!(trigger, Trigger::Level) as u32;
    vector as u32 | polarity << 13 | trigger << 15
}

impl IoApic {
    fn read(&mut self, register: u32) -> u32 {
        // SAFETY: `registers` is mapped for good, by the contract of `IoApics::new`.
        let registers = unsafe { VolatilePtr::new(self.registers) };
        registers.select().write(register);
        registers.window().read()
    }

    fn write(&mut self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        let registers = unsafe { VolatilePtr::new(self.registers) };
        registers.select().write(register);
        registers.window().write(value);
    }
}

impl IoApics {
    /// Maps the controllers that firmware listed and masks all their inputs. Controllers that cannot be mapped are left
    /// out; so are inputs that two claim.
    ///
    /// # Safety
    /// `map_mmio` returns where the given device registers are mapped, uncached, for as long as the kernel runs. The
    /// kernel makes one such value.
    pub unsafe fn new(topology: &Topology, map_mmio: impl Fn(u64, usize) -> Option<NonNull<u8>>) -> IoApics {
        let mut controllers = Vec::new();
        for info in &topology.io_apics {
            let Some(registers) = map_mmio(info.address, size_of::<Registers>()) else {
                log::warn!("I/O APIC {} at {:#x} cannot be mapped", info.id, info.address);
                continue;
            };
            let mut controller = IoApic { info: *info, inputs: 0, registers: registers.cast() };
            controller.inputs = (controller.read(VERSION) >> 16 & 0xff) + 1;
            for input in 0..controller.inputs {
                controller.write(FIRST_ENTRY + 2 * input, MASKED);
                controller.write(FIRST_ENTRY + 2 * input + 1, 0);
            }
            controllers.push(controller);
        }
        IoApics { controllers }
    }

    /// Each controller as firmware listed it, with its number of inputs.
    pub fn controllers(&self) -> impl Iterator<Item = (IoApicInfo, u32)> + '_ {
        self.controllers.iter().map(|controller| (controller.info, controller.inputs))
    }

    /// Makes `gsi` interrupt the CPU with APIC id `apic_id` with `vector`. It stays masked until [`unmask`](Self::unmask).
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn route(
        &mut self,
        gsi: u32,
        vector: u8,
        apic_id: u32,
        polarity: Polarity,
        trigger: Trigger,
    ) -> Result<(), RouteError> {
        if apic_id >= 0xff {
            return Err(RouteError::FarDestination(apic_id));
        }
        let (controller, at) = self.find(gsi)?;
        controller.write(at, MASKED);
        controller.write(at + 1, apic_id << 24);
        controller.write(at, MASKED | entry(vector, polarity, trigger));
        Ok(())
    }

    /// Routes an ISA interrupt by the route that the firmware's overrides give it
    /// ([`Topology::isa_route`]), and unmasks it.
    ///
    /// # Errors
    /// See [`RouteError`].
    pub fn route_isa(&mut self, route: Override, vector: u8, apic_id: u32) -> Result<(), RouteError> {
        self.route(route.gsi, vector, apic_id, route.polarity, route.trigger)?;
        self.unmask(route.gsi)
    }

    /// Keeps `gsi` from interrupting.
    ///
    /// # Errors
    /// No controller has it.
    pub fn mask(&mut self, gsi: u32) -> Result<(), RouteError> {
        let (controller, at) = self.find(gsi)?;
        let value = controller.read(at);
        controller.write(at, value | MASKED);
        Ok(())
    }

    /// Lets `gsi` interrupt.
    ///
    /// # Errors
    /// No controller has it.
    pub fn unmask(&mut self, gsi: u32) -> Result<(), RouteError> {
        let (controller, at) = self.find(gsi)?;
        let value = controller.read(at);
        controller.write(at, value & !MASKED);
        Ok(())
    }

    /// The entry of `gsi` as the controller has it now: destination and state in 64 bits.
    ///
    /// # Errors
    /// No controller has it.
    pub fn raw_entry(&mut self, gsi: u32) -> Result<u64, RouteError> {
        let (controller, at) = self.find(gsi)?;
        Ok(u64::from(controller.read(at + 1)) << 32 | u64::from(controller.read(at)))
    }

    fn find(&mut self, gsi: u32) -> Result<(&mut IoApic, u32), RouteError> {
        self.controllers
            .iter_mut()
            .find_map(|controller| {
                let input = gsi.checked_sub(controller.info.gsi_base)?;
                (input < controller.inputs).then_some((controller, FIRST_ENTRY + 2 * input))
            })
            .ok_or(RouteError::NoSuchInput(gsi))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_encoded_as_the_data_sheet_says() {
        assert_eq!(entry(0x34, Polarity::ActiveHigh, Trigger::Edge), 0x34);
        assert_eq!(entry(0x39, Polarity::ActiveLow, Trigger::Level), 0xa039);
        assert_eq!(size_of::<Registers>(), 0x14);
    }

    #[test]
    fn what_nobody_has_cannot_be_routed() {
        let mut none = IoApics::default();
        assert_eq!(none.mask(4), Err(RouteError::NoSuchInput(4)));
        let far = none.route(4, 0x34, 300, Polarity::ActiveHigh, Trigger::Edge);
        assert_eq!(far, Err(RouteError::FarDestination(300)));
    }
}
