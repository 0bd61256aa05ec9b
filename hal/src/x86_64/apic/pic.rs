//! The 8259 interrupt controllers of old, which must keep silent.

use x86_64::instructions::port::Port;

use crate::x86_64::vectors;

/// Re-initialises both controllers so that a spurious interrupt arrives at [`vectors::LEGACY_PIC`] and up, and not on top
/// of an exception, then masks all their lines. On a machine without them the writes go nowhere.
///
/// Early in boot, interrupts off. Cost: 12 port writes.
///
/// # Safety
/// Ring 0; interrupts that a device still sends through these controllers are lost from now on.
pub unsafe fn silence() {
    const MASTER: u16 = 0x20;
    const SLAVE: u16 = 0xa0;
    // Initialisation words (Intel 8259A): begin, cascade; first vector; wiring; 8086 mode. Then the mask.
    let words = |vector: u8, wiring: u8| [(0, 0x11), (1, vector), (1, wiring), (1, 0x01), (1, 0xff)];
    let both = [(MASTER, words(vectors::LEGACY_PIC, 1 << 2)), (SLAVE, words(vectors::LEGACY_PIC + 8, 2))];
    for (base, sequence) in both {
        for (offset, value) in sequence {
            // SAFETY: ring 0, and these ports are the controllers' or nothing's. Losing their interrupts is the caller's
            // wish. The write to port 0x80 gives an old controller the time that it needs.
            unsafe {
                Port::<u8>::new(base + offset).write(value);
                Port::<u8>::new(0x80).write(0);
            }
        }
    }
}
