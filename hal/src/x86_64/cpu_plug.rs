//! Virtual CPUs that a host plugs in and pulls out: QEMU's register block for it.
//!
//! 1. The host changes something and raises an event. Each possible CPU has a *slot* with three bits that matter: there is a
//!    CPU, one was plugged in, the host would like it back.
//! 2. Whoever serves the event ([`CpuPlug::serve`]) asks for the next slot with news, takes the note away, and acts. The note
//!    goes first: what the host asks while we act makes a new one.
//! 3. A CPU is not taken, it is given: it leaves its slot when the guest says so, by a bit in the register, once it has
//!    stopped to use it. A guest that does not want to part with it says that too, and the host can read it.
//!
//! The ports are 12 bytes (QEMU, "ACPI CPU hotplug interface"). QEMU wakes up with an older interface in them that cannot
//! give CPUs back, and changes over when zero is written to the first. Which ports, the firmware's byte code says
//! ([`acpi::Topology::cpu_plug`](super::acpi::Topology::cpu_plug)); they are never guessed.
//!
//! Linux leaves all this to the interpreter of that byte code (`drivers/acpi/acpi_processor.c` hears of the outcome).

use x86_64::instructions::port::Port;

/// The registers, by their distance from the first port.
pub trait Ports {
    /// Reads a byte.
    fn read_u8(&mut self, offset: u16) -> u8;
    /// Reads four bytes.
    fn read_u32(&mut self, offset: u16) -> u32;
    /// Writes a byte.
    fn write_u8(&mut self, offset: u16, value: u8);
    /// Writes four bytes.
    fn write_u32(&mut self, offset: u16, value: u32);
}

/// Real ports.
#[derive(Debug)]
pub struct IoPorts(u16);

impl IoPorts {
    /// The registers whose first port is `base`.
    ///
    /// # Safety
    /// They are CPU hot-plug registers, as firmware has said, and nobody else uses them.
    pub unsafe fn new(base: u16) -> IoPorts {
        IoPorts(base)
    }
}

impl Ports for IoPorts {
    fn read_u8(&mut self, offset: u16) -> u8 {
        // SAFETY: one of the registers, by the contract of `new`; reading has no effect.
        unsafe { Port::new(self.0 + offset).read() }
    }

    fn read_u32(&mut self, offset: u16) -> u32 {
        // SAFETY: as above.
        unsafe { Port::new(self.0 + offset).read() }
    }

    fn write_u8(&mut self, offset: u16, value: u8) {
        // SAFETY: one of the registers; what they do to CPUs is what the callers say that they do.
        unsafe { Port::new(self.0 + offset).write(value) }
    }

    fn write_u32(&mut self, offset: u16, value: u32) {
        // SAFETY: as above.
        unsafe { Port::new(self.0 + offset).write(value) }
    }
}

/// Written: which slot the other registers are about.
const SELECTOR: u16 = 0;
/// Read: the second half of some answers; zero, where there is none.
const DATA_HIGH: u16 = 0;
/// Read: the slot's bits. Written: what is to be done about it, one bit at a time.
const FLAGS: u16 = 4;
/// Written: what `DATA` is about.
const COMMAND: u16 = 5;
/// The answer to the command, or what it is to be given.
const DATA: u16 = 8;

/// Of the flags read: there is a CPU.
const PRESENT: u8 = 1 << 0;
/// Of the flags read: one was plugged in. Written: take this note away.
const INSERTED: u8 = 1 << 1;
/// Of the flags read: the host asks for it. Written: take this note away.
const WANTED: u8 = 1 << 2;
/// Of the flags written: the CPU goes, now.
const EJECT: u8 = 1 << 3;

/// The data is the next slot from the selected one on, round about, that has news, which is then the selected one.
const NEXT: u8 = 0;
/// The data to be written is the event that the next status is about.
const TELL_EVENT: u8 = 1;
/// The data to be written is that status.
const TELL_STATUS: u8 = 2;
/// The data is the CPU's APIC id.
const APIC_ID: u8 = 3;

/// What the host has done or asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// It has plugged the CPU in.
    Inserted,
    /// It would like it back.
    Wanted,
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The CPU is in use, or known to be there; or, of one that is wanted: nobody uses it any more, it may go.
    Done,
    /// It will not be used, or it stays.
    Refused,
}

impl Request {
    /// The event as the host is told (ACPI 6.5, 6.3.5: `_OST`).
    const fn event(self) -> u32 {
        match self {
            Request::Inserted => 1,
            Request::Wanted => 3,
        }
    }

    /// Its status in the same place: done, a failure without a reason, or "the device is busy".
    const fn status(self, answer: Answer) -> u32 {
        match (answer, self) {
            (Answer::Done, _) => 0,
            (Answer::Refused, Request::Inserted) => 1,
            (Answer::Refused, Request::Wanted) => 0x82,
        }
    }
}

/// What [`CpuPlug::serve`] tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// See [`Request`]. What is answered counts.
    Request(Request),
    /// The CPU has gone, or, if the answer of its request was kept from happening, it is still there: whoever has taken it
    /// out of use may use it again. What is answered does not matter.
    Ejected {
        /// Whether it is still there.
        stays: bool,
    },
}

/// The register block.
///
/// # Invariants
/// The block speaks the newer interface, and slots are below `slots`.
#[derive(Debug)]
pub struct CpuPlug<P> {
    ports: P,
    slots: u32,
}

impl<P: Ports> CpuPlug<P> {
    /// Looks whether the registers are there, and changes them over to the interface that can give CPUs back. `slots` is how
    /// many CPUs are possible.
    ///
    /// Contexts: task, by the one who serves events from then on. Cost: 4 accesses, which a host emulates.
    pub fn detect(mut ports: P, slots: u32) -> Option<CpuPlug<P>> {
        // The first zero changes over, the second selects a slot that exists.
        ports.write_u32(SELECTOR, 0);
        ports.write_u32(SELECTOR, 0);
        ports.write_u8(COMMAND, NEXT);
        // INVARIANT: only the newer interface answers this way. The older one shows the bits of the CPUs that are there,
        // which are never none; ports that nobody has read as ones.
        (ports.read_u32(DATA_HIGH) == 0 && slots > 0).then_some(CpuPlug { ports, slots })
    }

    /// Whether a CPU is in this slot.
    pub fn is_present(&mut self, slot: u32) -> bool {
        self.flags(slot) & PRESENT != 0
    }

    /// The APIC id of this slot's CPU, whether it is there or not.
    pub fn apic_id(&mut self, slot: u32) -> u32 {
        self.ports.write_u32(SELECTOR, slot);
        self.ports.write_u8(COMMAND, APIC_ID);
        self.ports.read_u32(DATA)
    }

    /// Does what the host has asked for since the last time, until nothing is left. `notice` is called with the CPU's APIC
    /// id, and says what became of it; a CPU that it has answered [`Done`](Answer::Done) for when it was wanted is pulled out
    /// after that.
    ///
    /// Contexts: task. Cost: some ten accesses for each request.
    pub fn serve(&mut self, mut notice: impl FnMut(u32, Notice) -> Answer) {
        let mut from = 0;
        while let Some((slot, request, is_there)) = self.next(from) {
            from = slot;
            self.forget(slot, request);
            if !is_there {
                // It has gone since the host asked.
                continue;
            }
            let apic_id = self.apic_id(slot);
            let answer = notice(apic_id, Notice::Request(request));
            if (request, answer) != (Request::Wanted, Answer::Done) {
                self.tell(slot, request, answer);
                continue;
            }
            // Whatever else was asked about this CPU is done by its going.
            self.forget(slot, Request::Wanted);
            self.set_flag(slot, EJECT);
            // One with a note is another one, plugged in since.
            let stays = self.flags(slot) & (PRESENT | INSERTED) == PRESENT;
            notice(apic_id, Notice::Ejected { stays });
        }
    }

    /// The next slot with news, looking from `from` on, what it is, and whether the CPU was there then. All from one look: in
    /// the next moment the host may plug another one in. One that came and is wanted came first.
    fn next(&mut self, from: u32) -> Option<(u32, Request, bool)> {
        self.ports.write_u32(SELECTOR, from);
        self.ports.write_u8(COMMAND, NEXT);
        let slot = self.ports.read_u32(DATA);
        if slot >= self.slots {
            return None;
        }
        let flags = self.flags(slot);
        let request = match flags {
            _ if flags & INSERTED != 0 => Request::Inserted,
            _ if flags & WANTED != 0 => Request::Wanted,
            _ => return None,
        };
        Some((slot, request, flags & PRESENT != 0))
    }

    fn forget(&mut self, slot: u32, request: Request) {
        let flag = match request {
            Request::Inserted => INSERTED,
            Request::Wanted => WANTED,
        };
        self.set_flag(slot, flag);
    }

    /// Tells the host what became of its request.
    fn tell(&mut self, slot: u32, request: Request, answer: Answer) {
        self.ports.write_u32(SELECTOR, slot);
        for (command, data) in [(TELL_EVENT, request.event()), (TELL_STATUS, request.status(answer))] {
            self.ports.write_u8(COMMAND, command);
            self.ports.write_u32(DATA, data);
        }
    }

    fn flags(&mut self, slot: u32) -> u8 {
        self.ports.write_u32(SELECTOR, slot);
        self.ports.read_u8(FLAGS)
    }

    fn set_flag(&mut self, slot: u32, flag: u8) {
        self.ports.write_u32(SELECTOR, slot);
        self.ports.write_u8(FLAGS, flag);
    }
}

#[cfg(test)]
mod tests;
