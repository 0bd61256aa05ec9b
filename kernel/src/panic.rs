//! The end of the kernel, told so that it can be understood.
//!
//! 1. The first CPU to get here owns the panic; the word `OWNER` decides. It stops the others by NMI and is the only one
//!    that prints, so nothing interleaves, and it takes no lock, so nothing that it interrupted can hold it up.
//! 2. A CPU that panics meanwhile leaves its message in its own area, where the owner finds it, and stops.
//! 3. A panic of the owner inside of its own panic prints one line, and ends the machine.

use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hal::x86_64::backtrace::Backtrace;
use hal::x86_64::power::{self, ExitStatus};
use hal::x86_64::traps::{Cause, TrapFrame};
use hal::x86_64::{layout, traps};
use hal::{CpuId, Native, Platform, percpu};

use crate::serial::PanicWriter;
use crate::task::Task;
use crate::{log, memory, sched, snapshot, trace, watchdog};

const NOBODY: u32 = u32::MAX;

/// The number of the CPU that owns the panic.
static OWNER: AtomicU32 = AtomicU32::new(NOBODY);
/// The owner panicked again.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// The message of a CPU that came second.
struct Second {
    ready: AtomicBool,
    text: UnsafeCell<Message>,
}

// SAFETY: the text is written by its CPU before `ready` is set with Release, read by the owner after an Acquire.
unsafe impl Sync for Second {}

percpu! {
    static SECOND: Second = Second { ready: AtomicBool::new(false), text: UnsafeCell::new(Message::EMPTY) };
}

/// A message cut to a fixed size.
struct Message {
    bytes: [u8; 200],
    length: usize,
}

impl Message {
    const EMPTY: Message = Message { bytes: [0; 200], length: 0 };
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

#[cfg(all(target_os = "none", not(test)))]
#[panic_handler]
fn panic_handler(info: &PanicInfo<'_>) -> ! {
    let place = info.location();
    stop(
        &|out| {
            match place {
                Some(place) => write!(out, "panicked at {place}: ")?,
                None => write!(out, "panicked: ")?,
            }
            writeln!(out, "{}", info.message())
        },
        None,
    )
}

/// Stops the machine with a report: `describe` prints the first line (after `BUG: CPU#n: `), `frame` is where it
/// happened if a trap told.
pub fn stop(describe: &dyn Fn(&mut dyn Write) -> fmt::Result, frame: Option<&TrapFrame>) -> ! {
    Native::irq_disable();
    let cpu = Native::cpu();
    // AcqRel: the owner's later reads of what others left are ordered by `ready`; this only has to be one winner.
    match OWNER.compare_exchange(NOBODY, cpu.as_u32(), Ordering::AcqRel, Ordering::Relaxed) {
        Ok(_) => {}
        Err(owner) if owner == cpu.as_u32() => panicked_again(describe),
        Err(_) => came_second(describe),
    }
    snapshot::ask_others();
    log::flush_for_panic();
    let mut out = PanicWriter;
    let _ = report(&mut out, cpu, describe, frame);
    end(ExitStatus::Failure)
}

fn report(
    out: &mut dyn Write,
    cpu: CpuId,
    describe: &dyn Fn(&mut dyn Write) -> fmt::Result,
    frame: Option<&TrapFrame>,
) -> fmt::Result {
    write!(out, "BUG: CPU#{cpu}: ")?;
    describe(out)?;
    if let Some(frame) = frame {
        writeln!(out, "{frame}")?;
    }
    let context = Native::context();
    write!(out, "  preempt count {:#x}, interrupt depth {}", context.count(), Native::irq_depth())?;
    match sched::is_started() {
        true => writeln!(out, ", in {:?}", Task::current())?,
        false => writeln!(out)?,
    }
    writeln!(out, "backtrace of CPU#{cpu}:")?;
    snapshot::print_steps(out, frame.map_or_else(Backtrace::here, Backtrace::from_trap))?;
    snapshot::print_others(out)?;
    for other in percpu::cpus().filter(|other| *other != cpu) {
        let second = SECOND.on(other);
        // Acquire: pairs with the Release in `came_second`.
        if second.ready.load(Ordering::Acquire) {
            // SAFETY: complete, and its CPU has stopped.
            let message = unsafe { &*second.text.get() };
            let text = core::str::from_utf8(&message.bytes[..message.length]).unwrap_or("(not readable)");
            writeln!(out, "CPU#{other} came second: {}", text.trim_end())?;
        }
    }
    if sched::is_started() {
        watchdog::hung::print_stuck(out)?;
    }
    if let Some(last) = trace::last() {
        write!(out, "the end of the trace:\n{last}")?;
    }
    writeln!(out, "the machine is stopped")
}

fn came_second(describe: &dyn Fn(&mut dyn Write) -> fmt::Result) -> ! {
    // SAFETY: this CPU's own place, interrupts are off, and this CPU comes here once: it never leaves.
    let second = unsafe { &*SECOND.local_ptr() };
    if !second.ready.load(Ordering::Relaxed) {
        // SAFETY: not ready, so the owner does not read it.
        let _ = describe(unsafe { &mut *second.text.get() });
        // Release: pairs with the Acquire in `report`.
        second.ready.store(true, Ordering::Release);
    }
    // The owner's NMI may not reach this CPU, if it comes from an NMI handler itself.
    snapshot::leave_behind();
    power::halt_for_ever()
}

fn panicked_again(describe: &dyn Fn(&mut dyn Write) -> fmt::Result) -> ! {
    if !AGAIN.swap(true, Ordering::Relaxed) {
        let mut out = PanicWriter;
        let _ = out.write_str("\nBUG: a second panic while reporting the first: ");
        let _ = describe(&mut out);
    }
    end(ExitStatus::Failure)
}

/// Whether some CPU has panicked.
pub(crate) fn is_underway() -> bool {
    OWNER.load(Ordering::Relaxed) != NOBODY
}

/// For the NMI handler: stops this CPU if another one owns a panic.
pub(crate) fn on_nmi() {
    let owner = OWNER.load(Ordering::Relaxed);
    if owner != NOBODY && owner != Native::cpu().as_u32() {
        power::halt_for_ever();
    }
}

/// Ends the run with a status, by whatever the machine offers; halts if nothing works.
pub fn end(status: ExitStatus) -> ! {
    crate::shutdown::leave(status)
}

/// An exception that nothing expected.
pub(crate) fn on_exception(frame: &mut TrapFrame, cause: Cause) {
    if matches!(cause, Cause::Other(1 | 3)) {
        // A breakpoint or debug exception without a debugger: note it and go on.
        ::log::info!("{} at [<{:016x}>]", traps::exception_name(frame.vector as u8), frame.rip);
        return;
    }
    stop(&|out| writeln!(out, "{}", Description { cause, frame }), Some(frame));
}

/// A cause, in the terms of the kernel's own memory.
struct Description<'a> {
    cause: Cause,
    frame: &'a TrapFrame,
}

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::DoubleFault { address } | Cause::PageFault { address, .. }
                if memory::stacks::guard_owner(address).is_some() =>
            {
                let owner = memory::stacks::guard_owner(address);
                match owner {
                    Some(owner) => write!(f, "stack overflow: {owner}, at {address:#018x}"),
                    None => write!(f, "stack overflow"),
                }
            }
            Cause::PageFault { address, write, execute, mapped: true } => {
                let section = layout::sections().into_iter().find(|s| s.range.contains(&address));
                let what = section.as_ref().map_or("memory", |s| s.name);
                match (execute, write) {
                    (true, _) => write!(f, "execution of {what} at {address:#018x}, which is not code"),
                    (_, true) => write!(f, "write to {what} at {address:#018x}, which is read-only"),
                    _ => write!(f, "{}", self.cause),
                }
            }
            Cause::Other(13) => write!(f, "general protection fault, error code {:#x}", self.frame.error),
            cause => write!(f, "{cause}"),
        }
    }
}
