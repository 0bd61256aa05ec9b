//! General-purpose events: taking them over from the firmware, and finding out which one came.

use x86_64::instructions::port::Port;

use super::Events;

/// Of the PM1 control register: events interrupt us, and do not go to the firmware (ACPI 6.5, 4.8.3.2.1).
const OURS: u16 = 1;
/// How often the control register is looked at before the firmware is believed not to answer.
const PATIENCE: u32 = 100_000;

impl Events {
    /// Has the events interrupt, of which only `event` is allowed to, a number within block 0. What has come before is
    /// forgotten. `false` if there is no such event or the firmware does not part with them.
    ///
    /// Contexts: task, once. Cost: some accesses to ports, and what the firmware takes.
    ///
    /// # Safety
    /// The registers are those that firmware has described, and nobody else uses them.
    pub unsafe fn begin(&self, event: u8) -> bool {
        let half = u16::from(self.length / 2);
        if u16::from(event / 8) >= half {
            return false;
        }
        // SAFETY: by the contract, these are the event registers; the values are those that ACPI 6.5, 4.8.3 and 4.8.4 give
        // them: enable nothing, then clear by writing ones, then enable what is wanted.
        unsafe {
            Port::<u16>::new(self.fixed_enable).write(0);
            for byte in 0..half {
                Port::<u8>::new(self.block + half + byte).write(0);
                Port::<u8>::new(self.block + byte).write(0xff);
            }
            let mut control = Port::<u16>::new(self.control);
            if control.read() & OURS == 0 {
                if let Some((port, value)) = self.take_over {
                    Port::<u8>::new(port).write(value);
                }
                let mut turns = 0;
                while control.read() & OURS == 0 {
                    turns += 1;
                    if turns == PATIENCE {
                        return false;
                    }
                    core::hint::spin_loop();
                }
            }
            Port::<u8>::new(self.block + half + u16::from(event / 8)).write(1 << (event % 8));
        }
        true
    }

    /// Whether `event` has come since the last time; takes the note away, so that the interrupt ends.
    ///
    /// Contexts: any, the handler of the SCI first of all. Cost: one or two accesses to ports.
    ///
    /// # Safety
    /// [`begin`](Self::begin) was called with this event and returned `true`.
    pub unsafe fn take(&self, event: u8) -> bool {
        let mut status = Port::<u8>::new(self.block + u16::from(event / 8));
        let bit = 1 << (event % 8);
        // SAFETY: by the contract, the event's status byte; writing a one takes that note away.
        unsafe {
            let came = status.read() & bit != 0;
            if came {
                status.write(bit);
            }
            came
        }
    }
}
