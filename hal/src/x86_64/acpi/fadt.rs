//! The FADT: the PM timer, the registers by which the machine is switched off and reset, and those that tell of events.

use acpi::address::RawGenericAddress;
use acpi::sdt::ExtendedField;
use acpi::sdt::fadt::Fadt;

use super::memory::{HEADER, Table};

/// The shortest FADT, that of ACPI 1.0.
pub(super) const FIXED: usize = 116;

/// A hardware register as ACPI names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// An I/O port.
    Port(u16),
    /// A physical address.
    Memory(u64),
}

/// The ACPI PM timer, which counts at [`PM_TIMER_HZ`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PmTimerInfo {
    /// Where its counter is read.
    pub register: Register,
    /// How many bits it has: 24 or 32.
    pub bits: u32,
}

/// The PM timer's frequency in Hz (ACPI 6.5, 4.8.3.3).
pub const PM_TIMER_HZ: u64 = 3_579_545;

/// How the machine is switched off and reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Power {
    /// How to enter S5, soft off.
    pub off: Option<SoftOff>,
    /// The register, and the byte to write to it, that reset the machine.
    pub reset: Option<(Register, u8)>,
}

impl Power {
    /// The physical addresses of those registers that live in memory and so have to be mapped before they are needed.
    pub fn memory_registers(&self) -> impl Iterator<Item = u64> {
        let off = match self.off {
            Some(SoftOff::Pm1 { a, b }) => [Some(a.0), b.map(|(register, _)| register)],
            Some(SoftOff::SleepControl(register, _)) => [Some(register), None],
            None => [None, None],
        };
        let reset = self.reset.map(|(register, _)| register);
        off.into_iter().chain([reset]).flatten().filter_map(|register| match register {
            Register::Memory(address) => Some(address),
            Register::Port(_) => None,
        })
    }
}

/// The way into S5.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SoftOff {
    /// 16-bit PM1 control registers: sleep type in bits 10 to 12, enable in bit 13.
    Pm1 {
        /// The register that every machine has, and its sleep type.
        a: (Register, u8),
        /// The second one, if the machine splits it in two.
        b: Option<(Register, u8)>,
    },
    /// Hardware-reduced machines (microvm): one byte, sleep type in bits 2 to 4, enable in bit 5.
    SleepControl(Register, u8),
}

/// How the machine tells of general-purpose events: by registers in I/O ports, and by one interrupt, the SCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Events {
    /// The SCI: an ISA interrupt where there are 8259 controllers, else a global system interrupt.
    pub interrupt: u16,
    /// The first port of block 0 of the events: the status bits, and behind them as many bytes of enable bits.
    pub block: u16,
    /// The bytes of both halves together.
    pub length: u8,
    /// The PM1 enable register: 16 bits, for the fixed events such as the power button. Split in two, this is the first.
    pub fixed_enable: u16,
    /// The PM1 control register, whose bit 0 says that events interrupt (and do not go to the firmware).
    pub control: u16,
    /// The port, and the byte to write to it, that ask the firmware to leave the events to us, where it has them first.
    pub take_over: Option<(u16, u8)>,
}

/// What the FADT says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decoded {
    pub(super) events: Option<Events>,
    pub(super) dsdt: u64,
    pub(super) pm_timer: Option<PmTimerInfo>,
    pub(super) reset: Option<(Register, u8)>,
    pub(super) hardware_reduced: bool,
    pm1a: Option<Register>,
    pm1b: Option<Register>,
    sleep_control: Option<Register>,
}

/// Decodes a checked copy of the FADT.
///
/// Reads the crate's fields and not its accessors, some of which multiply lengths in eight bits and so can overflow.
pub(super) fn decode(table: &Table) -> Decoded {
    let fadt: &Fadt = table.view();
    let revision = fadt.header.revision;
    let flags = fadt.flags;
    let (wide_dsdt, x_pm1a, x_pm1b) =
        (fadt.x_dsdt_address, fadt.x_pm1a_control_block, fadt.x_pm1b_control_block);
    let (x_timer, sleep) = (fadt.x_pm_timer_block, fadt.sleep_control_reg);
    // SAFETY: the fields beyond a short table's end are initialised too, with zeros.
    let wide_dsdt = unsafe { wide_dsdt.access(revision) }.filter(|address| *address != 0);
    let timer = block(x_timer, fadt.pm_timer_block, revision).filter(|_| fadt.pm_timer_length == 4);
    Decoded {
        events: events(fadt),
        dsdt: wide_dsdt.unwrap_or(u64::from(fadt.dsdt_address)),
        pm_timer: timer
            .map(|register| PmTimerInfo { register, bits: if flags.pm_timer_is_32_bit() { 32 } else { 24 } }),
        reset: register(fadt.reset_reg)
            .filter(|_| flags.supports_system_reset_via_fadt())
            .map(|register| (register, fadt.reset_value)),
        hardware_reduced: flags.system_is_hw_reduced_acpi(),
        pm1a: block(x_pm1a, fadt.pm1a_control_block, revision),
        pm1b: block(x_pm1b, fadt.pm1b_control_block, revision),
        sleep_control: block(sleep, 0, revision),
    }
}

impl Decoded {
    /// The way into S5 with the sleep types that the DSDT names for the two registers.
    pub(super) fn soft_off(&self, types: (u8, u8)) -> Option<SoftOff> {
        if self.hardware_reduced {
            return Some(SoftOff::SleepControl(self.sleep_control?, types.0));
        }
        Some(SoftOff::Pm1 { a: (self.pm1a?, types.0), b: self.pm1b.map(|register| (register, types.1)) })
    }
}

/// The events' registers, if all are in I/O ports. The old fields suffice: the 64-bit forms say the same of ports.
fn events(fadt: &Fadt) -> Option<Events> {
    let port = |address: u32| u16::try_from(address).ok().filter(|port| *port != 0);
    let (gpe0, event, control) = (fadt.gpe0_block, fadt.pm1a_event_block, fadt.pm1a_control_block);
    let (length, event_length) = (fadt.gpe0_block_length, fadt.pm1_event_length);
    let (smi, enable) = (fadt.smi_cmd_port, fadt.acpi_enable);
    let flags = fadt.flags;
    if flags.system_is_hw_reduced_acpi() || length < 2 || length % 2 != 0 {
        return None;
    }
    let block = port(gpe0)?;
    block.checked_add(u16::from(length))?;
    Some(Events {
        interrupt: fadt.sci_interrupt,
        block,
        length,
        fixed_enable: port(event)?.checked_add(u16::from(event_length / 2))?,
        control: port(control)?,
        take_over: port(smi).filter(|_| enable != 0).map(|port| (port, enable)),
    })
}

/// A register block: the 64-bit form if it is there and not empty, else the old port number.
fn block(extended: ExtendedField<RawGenericAddress, 2>, legacy: u32, revision: u8) -> Option<Register> {
    // SAFETY: the fields beyond a short table's end are initialised too, with zeros.
    let extended = unsafe { extended.access(revision) };
    let old = u16::try_from(legacy).ok().filter(|port| *port != 0).map(Register::Port);
    extended.and_then(register).or(old)
}

/// A register address, if it is in a space that a kernel can reach directly.
fn register(raw: RawGenericAddress) -> Option<Register> {
    match (raw.address_space, raw.address) {
        (_, 0) => None,
        (0, address) => Some(Register::Memory(address)),
        (1, port) => u16::try_from(port).ok().map(Register::Port),
        _ => None,
    }
}

/// Finds the sleep types of S5 in the DSDT: `Name (_S5, Package () { a, b, .. })`.
///
/// This looks for the object's encoding instead of interpreting the table: the object is a constant everywhere, and an
/// interpreter is a large thing to trust with memory. `None` when the encoding is not of that form.
pub(super) fn sleep_types(dsdt: &Table) -> Option<(u8, u8)> {
    let code = &dsdt.bytes()[HEADER..];
    code.windows(4).enumerate().filter(|(_, name)| *name == b"_S5_").find_map(|(at, _)| {
        // The name follows NameOp, with or without the root prefix (ACPI 6.5, 20.2.5.1).
        let named = code[..at].ends_with(b"\x08") || code[..at].ends_with(b"\x08\\");
        let rest = code.get(at + 4..)?;
        let (&op, rest) = rest.split_first()?;
        (named && op == PACKAGE_OP).then_some(())?;
        // PkgLength: the top two bits of its first byte say how many bytes follow it.
        let extra = usize::from(rest.first()? >> 6);
        let rest = rest.get(1 + extra..)?;
        let (&elements, rest) = rest.split_first()?;
        let (a, rest) = integer(rest)?;
        let b = if elements > 1 { integer(rest)?.0 } else { 0 };
        (elements > 0).then_some((a & 7, b & 7))
    })
}

const PACKAGE_OP: u8 = 0x12;

/// Finds the ports of the CPU hot-plug registers in the DSDT:
/// `OperationRegion (PRST, SystemIO, base, 12)`, by which QEMU tells its own byte code where they are.
///
/// As [`sleep_types`] this looks for the encoding (ACPI 6.5, 20.2.5.2). The name is QEMU's, and so is the length: the older
/// interface, without a way to remove CPUs, has another one.
pub(super) fn cpu_plug(dsdt: &Table) -> Option<u16> {
    let code = &dsdt.bytes()[HEADER..];
    let mut places = code.windows(REGION.len()).enumerate().filter(|(_, op)| *op == REGION);
    places.find_map(|(at, _)| {
        let (base, rest) = number(&code[at + REGION.len()..])?;
        let (length, _) = number(rest)?;
        let base = u16::try_from(base).ok().filter(|base| *base != 0)?;
        (length == u64::from(CPU_PLUG_PORTS)).then_some(base)
    })
}

/// `OpRegionOp`, the name, and the space of I/O ports.
const REGION: &[u8] = b"\x5b\x80PRST\x01";
/// How many ports the CPU hot-plug registers take.
const CPU_PLUG_PORTS: u16 = 12;

/// One constant of the byte code, and what follows it (ACPI 6.5, 20.2.3).
fn number(code: &[u8]) -> Option<(u64, &[u8])> {
    let (&op, rest) = code.split_first()?;
    let bytes = match op {
        0x00 | 0x01 => return Some((op.into(), rest)),
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        0x0e => 8,
        _ => return None,
    };
    let value = rest.get(..bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    Some((value, &rest[bytes..]))
}

/// The low byte of a constant.
fn integer(code: &[u8]) -> Option<(u8, &[u8])> {
    number(code).map(|(value, rest)| (value as u8, rest))
}
