//! What a trace record says, and how it looks to a person.

use core::fmt;

/// Something that happened on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The CPU goes on with another task. Tasks are named by their numbers, as `ps` shows them.
    Switch {
        /// The task that went.
        from: u32,
        /// The task that came.
        to: u32,
    },
    /// A task was woken.
    Wakeup {
        /// Its number.
        task: u32,
        /// The CPU that it was put on.
        cpu: u32,
    },
    /// An interrupt's handler begins.
    IrqEnter(u8),
    /// It has ended.
    IrqExit(u8),
    /// A softirq's handler begins.
    SoftirqEnter(u8),
    /// It has ended.
    SoftirqExit(u8),
    /// A CPU came on line.
    Online(u32),
    /// A CPU went off line.
    Offline(u32),
    /// A lock was found taken, and is waited for.
    LockContended(u64),
    /// That wait is over.
    LockWaited {
        /// The lock's address.
        lock: u64,
        /// How long it took, in nanoseconds; `u32::MAX` stands for that long or longer.
        ns: u32,
    },
    /// A grace period has ended.
    GracePeriod(u64),
    /// Callbacks were called.
    Callbacks {
        /// How many.
        called: u32,
        /// The CPU whose they were.
        cpu: u32,
        /// How many it has left, which wait for their turn or for a grace period.
        left: u32,
    },
    /// A grace period lasts too long; the number is that of the reports.
    Stall(u64),
    /// A CPU has too many callbacks, and another one is queued.
    Flood {
        /// How many it has.
        waiting: u32,
        /// The CPU.
        cpu: u32,
        /// Whether who queued it waits for there to be fewer.
        waits: bool,
    },
    /// A number that somebody wanted to see in the trace.
    Mark(u64),
}

impl Event {
    /// The event in a record: its kind, a number of 32 bits, and one of 64.
    #[inline(always)]
    pub(super) const fn encode(self) -> (u8, u32, u64) {
        match self {
            Event::Switch { from, to } => (1, from, to as u64),
            Event::Wakeup { task, cpu } => (2, task, cpu as u64),
            Event::IrqEnter(vector) => (3, vector as u32, 0),
            Event::IrqExit(vector) => (4, vector as u32, 0),
            Event::SoftirqEnter(vector) => (5, vector as u32, 0),
            Event::SoftirqExit(vector) => (6, vector as u32, 0),
            Event::Online(cpu) => (7, cpu, 0),
            Event::Offline(cpu) => (8, cpu, 0),
            Event::Mark(value) => (9, 0, value),
            Event::LockContended(lock) => (10, 0, lock),
            Event::LockWaited { lock, ns } => (11, ns, lock),
            Event::GracePeriod(number) => (12, 0, number),
            Event::Callbacks { called, cpu, left } => (13, called, (left as u64) << 32 | cpu as u64),
            Event::Stall(number) => (14, 0, number),
            Event::Flood { waiting, cpu, waits } => (15, waiting, (cpu as u64) << 1 | waits as u64),
        }
    }

    /// Undoes `encode`. `None` for what it does not make.
    pub(super) const fn decode(kind: u8, small: u32, large: u64) -> Option<Event> {
        Some(match kind {
            1 => Event::Switch { from: small, to: large as u32 },
            2 => Event::Wakeup { task: small, cpu: large as u32 },
            3 => Event::IrqEnter(small as u8),
            4 => Event::IrqExit(small as u8),
            5 => Event::SoftirqEnter(small as u8),
            6 => Event::SoftirqExit(small as u8),
            7 => Event::Online(small),
            8 => Event::Offline(small),
            9 => Event::Mark(large),
            10 => Event::LockContended(large),
            11 => Event::LockWaited { lock: large, ns: small },
            12 => Event::GracePeriod(large),
            13 => Event::Callbacks { called: small, cpu: large as u32, left: (large >> 32) as u32 },
            14 => Event::Stall(large),
            15 => Event::Flood { waiting: small, cpu: (large >> 1) as u32, waits: large & 1 != 0 },
            _ => return None,
        })
    }
}

/// `switch 3 -> 7`, `irq 0x20 begins`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Switch { from, to } => write!(f, "switch {from} -> {to}"),
            Event::Wakeup { task, cpu } => write!(f, "wake-up of {task} on cpu{cpu}"),
            Event::IrqEnter(vector) => write!(f, "irq {vector:#04x} begins"),
            Event::IrqExit(vector) => write!(f, "irq {vector:#04x} ends"),
            Event::SoftirqEnter(vector) => write!(f, "softirq {vector} begins"),
            Event::SoftirqExit(vector) => write!(f, "softirq {vector} ends"),
            Event::Online(cpu) => write!(f, "cpu{cpu} is online"),
            Event::Offline(cpu) => write!(f, "cpu{cpu} is offline"),
            Event::LockContended(lock) => write!(f, "lock {lock:#x} is waited for"),
            Event::LockWaited { lock, ns: u32::MAX } => {
                write!(f, "lock {lock:#x}: the wait is over, after more than 4 s")
            }
            Event::LockWaited { lock, ns } => write!(f, "lock {lock:#x}: the wait is over, after {ns} ns"),
            Event::GracePeriod(number) => write!(f, "grace period {number} has ended"),
            Event::Callbacks { called, cpu, left } => {
                write!(f, "{called} callbacks of cpu{cpu} called, {left} left")
            }
            Event::Stall(number) => write!(f, "a grace period lasts too long, report {number}"),
            Event::Flood { waiting, cpu, waits: true } => {
                write!(f, "{waiting} callbacks of cpu{cpu}: who queued the last one waits")
            }
            Event::Flood { waiting, cpu, waits: false } => {
                write!(f, "{waiting} callbacks of cpu{cpu}: who queued the last one cannot wait")
            }
            Event::Mark(value) => write!(f, "mark {value:#x}"),
        }
    }
}

/// A record as it was read from a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When, in nanoseconds of the kernel's clock.
    pub time_ns: u64,
    /// Where.
    pub cpu: u32,
    /// What.
    pub event: Event,
}

/// `[    1.234567890] cpu3 switch 3 -> 7`.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, ns) = (self.time_ns / 1_000_000_000, self.time_ns % 1_000_000_000);
        write!(f, "[{s:>5}.{ns:09}] cpu{:<3} {}", self.cpu, self.event)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            any::<(u32, u32)>().prop_map(|(from, to)| Event::Switch { from, to }),
            any::<(u32, u32)>().prop_map(|(task, cpu)| Event::Wakeup { task, cpu }),
            any::<u8>().prop_map(Event::IrqEnter),
            any::<u8>().prop_map(Event::IrqExit),
            any::<u8>().prop_map(Event::SoftirqEnter),
            any::<u8>().prop_map(Event::SoftirqExit),
            any::<u32>().prop_map(Event::Online),
            any::<u32>().prop_map(Event::Offline),
            any::<u64>().prop_map(Event::Mark),
            any::<u64>().prop_map(Event::LockContended),
            any::<(u64, u32)>().prop_map(|(lock, ns)| Event::LockWaited { lock, ns }),
            any::<u64>().prop_map(Event::GracePeriod),
            any::<(u32, u32, u32)>().prop_map(|(called, cpu, left)| Event::Callbacks { called, cpu, left }),
            any::<u64>().prop_map(Event::Stall),
            any::<(u32, u32, bool)>().prop_map(|(waiting, cpu, waits)| Event::Flood { waiting, cpu, waits }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn events_survive_their_encoding(event in event()) {
            let (kind, small, large) = event.encode();
            prop_assert_eq!(Event::decode(kind, small, large), Some(event));
        }
    }

    #[test]
    fn a_line_for_a_record() {
        let record = Record { time_ns: 1_000_000_020, cpu: 3, event: Event::Switch { from: 3, to: 7 } };
        assert_eq!(record.to_string(), "[    1.000000020] cpu3   switch 3 -> 7");
        assert_eq!(Event::decode(0, 0, 0), None);
    }
}
