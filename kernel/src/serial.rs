//! The first serial port, COM1: the machine's only console.
//!
//! Three parties use it and none waits for another. The **transmitter** belongs to whoever has claimed the terminal (see
//! [`crate::log`]). The **receiver** runs in the port's interrupt, or wherever input is polled, and puts bytes into a
//! queue from which the console takes them. The **panic writer** shares with nobody and writes whatever the others do.
//! That works because transmitting reads the line status and writes data, and receiving reads the line status and reads
//! data: neither disturbs the other.
//!
//! A port that is absent or takes nothing never stops the machine: output to it is given up after a bounded wait.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use hal::{Native, Platform};
use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::{FifoTriggerLevel, IER};
use uart_16550::{BaudRate, Config, Uart16550};

use crate::log::Port;

/// The I/O port at which PC firmware and every hypervisor put COM1.
const COM1: u16 = 0x3f8;
/// The ISA interrupt line that belongs to it.
pub const ISA_IRQ: u8 = 4;

/// How many times the transmitter looks at a full port before it gives up: at one microsecond or so for each access,
/// seconds, where a real line at 115,200 baud takes 1.4 ms to empty its buffer of 16 bytes.
const PATIENCE: u32 = 1 << 20;
/// How often it looks once it has given up, until the port moves again.
const IMPATIENCE: u32 = 1 << 8;

/// Whether [`init`] has found a port.
static PRESENT: AtomicBool = AtomicBool::new(false);
static INPUT: ByteQueue<256> = ByteQueue::new();
static RECEIVING: AtomicBool = AtomicBool::new(false);
static SENT_NOWHERE: AtomicU64 = AtomicU64::new(0);

/// Sets the port up: 115,200 baud, eight bits, no parity, an interrupt for each byte received. Returns whether there is
/// a port; without one output goes nowhere and no input comes.
///
/// Call once, on the boot CPU, before the first output. Linux: `earlycon` and the 8250 driver.
pub fn init() -> bool {
    let config = Config {
        baud_rate: BaudRate::Baud115200,
        interrupts: IER::DATA_READY,
        // An interrupt for each byte: people type slowly, and an echo that waits for four bytes is no echo.
        fifo_trigger_level: Some(FifoTriggerLevel::One),
        ..Config::DEFAULT
    };
    let present = port().init(config).is_ok();
    PRESENT.store(present, Ordering::Relaxed);
    present
}

/// The port's registers. A new value each time: the driver keeps no state in it that matters after `init`.
fn port() -> Uart16550<PioBackend> {
    // SAFETY: COM1's eight ports are no other device's. Accesses by several parties at once are as the module says.
    match unsafe { Uart16550::new_port(COM1) } {
        Ok(port) => port,
        Err(_) => unreachable!("COM1 has room for its registers"),
    }
}

/// The way out, for the owner of the terminal.
#[derive(Debug, Default)]
pub struct Transmitter {
    stalled: bool,
}

impl Transmitter {
    /// A transmitter that expects the port to work.
    pub const fn new() -> Transmitter {
        Transmitter { stalled: false }
    }
}

impl Port for Transmitter {
    /// Sends all bytes, waiting for room, or gives up when the port takes nothing for a million looks. Cost: about one
    /// port access a byte.
    fn send(&mut self, bytes: &[u8]) {
        if PRESENT.load(Ordering::Relaxed) {
            let patience = if self.stalled { IMPATIENCE } else { PATIENCE };
            self.stalled = !send_bounded(bytes, patience);
        }
    }
}

/// Whether all bytes went out.
fn send_bounded(mut bytes: &[u8], patience: u32) -> bool {
    let mut port = port();
    let mut left = patience;
    while !bytes.is_empty() {
        let sent = port.send_bytes(bytes);
        bytes = &bytes[sent..];
        if sent > 0 {
            left = patience;
        } else if left == 0 {
            SENT_NOWHERE.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return false;
        } else {
            left -= 1;
            Native::relax();
        }
    }
    true
}

/// How many bytes were given up on because the port took nothing.
pub fn bytes_given_up() -> u64 {
    SENT_NOWHERE.load(Ordering::Relaxed)
}

/// Writes to the port at once, whoever else may be using it: no lock, no buffer, no allocation. For panics and faults,
/// when the other CPUs have been stopped. A newline becomes a carriage return and a newline.
#[derive(Debug, Default)]
pub struct PanicWriter;

impl fmt::Write for PanicWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if PRESENT.load(Ordering::Relaxed) {
            for line in text.split_inclusive('\n') {
                let (body, newline) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\r\n"));
                // Here a wait costs nothing that matters, and a lost report does.
                let _ = send_bounded(body.as_bytes(), PATIENCE) && send_bounded(newline.as_bytes(), PATIENCE);
            }
        }
        Ok(())
    }
}

/// Has a byte come as if the port had received it. For tests.
///
/// Contexts: any but NMI.
#[cfg(target_os = "none")]
pub(crate) fn pretend_to_receive(byte: u8) {
    let quiet = sync::irq::disable();
    // Acquire, Release: as in `on_interrupt`, which leaves it to whoever receives.
    while RECEIVING.swap(true, Ordering::Acquire) {
        Native::relax();
    }
    INPUT.push(byte);
    RECEIVING.store(false, Ordering::Release);
    drop(quiet);
    on_interrupt();
}

/// Takes what the port has received into the input queue. The handler of the port's interrupt, and what a machine
/// without that interrupt calls now and then.
///
/// Contexts: any but NMI. Several CPUs may call it at once: one of them receives for all.
pub fn on_interrupt() {
    if !PRESENT.load(Ordering::Relaxed) {
        return;
    }
    let mut port = port();
    // Whoever finds another one receiving leaves it to that one, which looks once more after it has stopped.
    while port.ready_to_receive().is_ok() {
        // Acquire: pairs with the Release below in the receiver before; the queue has one writer at a time.
        if RECEIVING.swap(true, Ordering::Acquire) {
            return;
        }
        while let Ok(byte) = port.try_receive_byte() {
            INPUT.push(byte);
        }
        // Release: pairs with the Acquire above. The look at the port that follows is a port access, which the CPU does
        // not do before earlier stores.
        RECEIVING.store(false, Ordering::Release);
    }
}

/// The next byte that somebody typed. For one reader, the console. Never waits.
pub fn read_byte() -> Option<u8> {
    INPUT.pop()
}

/// Whether [`read_byte`] would return something.
pub fn has_input() -> bool {
    !INPUT.is_empty()
}

/// Bytes from one writer at a time to one reader: what does not fit is dropped, as a serial port does.
///
/// # Invariants
/// `tail <= head <= tail + N` (both only grow, and wrap); position `p` is in slot `p % N`.
#[derive(Debug)]
struct ByteQueue<const N: usize> {
    slots: [AtomicU8; N],
    head: AtomicUsize,
    tail: AtomicUsize,
}

impl<const N: usize> ByteQueue<N> {
    const fn new() -> ByteQueue<N> {
        const { assert!(N.is_power_of_two()) };
        ByteQueue {
            slots: [const { AtomicU8::new(0) }; N],
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        }
    }

    /// Whether there was room.
    fn push(&self, byte: u8) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `pop`; the slot has been read.
        if head.wrapping_sub(self.tail.load(Ordering::Acquire)) == N {
            return false;
        }
        self.slots[head % N].store(byte, Ordering::Relaxed);
        // Release: pairs with the Acquire in `pop`; the slot is filled.
        self.head.store(head.wrapping_add(1), Ordering::Release);
        true
    }

    fn pop(&self) -> Option<u8> {
        let tail = self.tail.load(Ordering::Relaxed);
        // Acquire: pairs with the Release in `push`.
        if self.head.load(Ordering::Acquire) == tail {
            return None;
        }
        let byte = self.slots[tail % N].load(Ordering::Relaxed);
        // Release: pairs with the Acquire in `push`.
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        Some(byte)
    }

    fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == self.tail.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn the_queue_equals_a_bounded_queue(operations in proptest::collection::vec(any::<Option<u8>>(), 0..200)) {
            let queue = ByteQueue::<8>::new();
            let mut model = VecDeque::new();
            for operation in operations {
                match operation {
                    Some(byte) => {
                        let fits = model.len() < 8;
                        prop_assert_eq!(queue.push(byte), fits);
                        if fits {
                            model.push_back(byte);
                        }
                    }
                    None => prop_assert_eq!(queue.pop(), model.pop_front()),
                }
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn bytes_cross_threads_in_order() {
        let queue = ByteQueue::<4>::new();
        let sent: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for &byte in &sent {
                    while !queue.push(byte) {
                        std::thread::yield_now();
                    }
                }
            });
            for &byte in &sent {
                let received = loop {
                    match queue.pop() {
                        Some(byte) => break byte,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(received, byte);
            }
        });
    }

    #[test]
    fn without_a_port_nothing_is_touched() {
        // A port access in a process of a host would end it.
        Transmitter::new().send(b"x");
        fmt::Write::write_str(&mut PanicWriter, "x\n").unwrap();
        on_interrupt();
        assert_eq!(read_byte(), None);
    }
}
