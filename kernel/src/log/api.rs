//! The one log of this kernel: its rings, its terminal, and the functions by which the rest of the kernel uses them.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use ::log::{LevelFilter, Log, Metadata};
use hal::{CpuId, Native, Platform};

use super::claim::Claim;
use super::line::{StackText, short_target, write_lost, write_record};
use super::primitives::AtomicU64;
use super::ring::{Entry, MAX_RECORD_WORDS, MAX_TEXT, Record, Ring};
use super::terminal::Terminal;
use crate::serial::{PanicWriter, Transmitter};

/// The boot CPU's ring is there from the first instruction on, and has room for the messages of a boot: 16 KiB.
static BOOT_WORDS: [AtomicU64; 2048] = [const { AtomicU64::new(0) }; 2048];
static BOOT_RING: Ring = Ring::new(&BOOT_WORDS);
/// The rings of CPUs 1, 2, ..
static OTHER_RINGS: spin::Once<Vec<Ring>> = spin::Once::new();
/// The words of another CPU's ring: 8 KiB.
const RING_WORDS: usize = 1024;
const _: () = assert!(RING_WORDS >= 8 * MAX_RECORD_WORDS);

static TERMINAL: Claim<Terminal<Transmitter>> = Claim::new(Terminal::new(Transmitter::new()));
static DEFERRED: AtomicBool = AtomicBool::new(false);

/// How long [`raw_line`] and [`edit`] try to get the terminal before they write past its owner: about a second.
const TERMINAL_PATIENCE: u32 = 1 << 24;

fn rings() -> impl Iterator<Item = &'static Ring> + Clone {
    core::iter::once(&BOOT_RING).chain(OTHER_RINGS.get().into_iter().flatten())
}

/// The ring that `cpu` writes; the boot CPU's for CPUs that have none.
fn ring_of(cpu: CpuId) -> &'static Ring {
    match (cpu.index().checked_sub(1), OTHER_RINGS.get()) {
        (Some(other), Some(rings)) => rings.get(other).unwrap_or(&BOOT_RING),
        _ => &BOOT_RING,
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= ::log::max_level()
    }

    fn log(&self, record: &::log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // A task that moves to another CPU from here on writes that other CPU's ring together with its owner, which
        // rings allow.
        let cpu = Native::cpu();
        let mut text = StackText::<MAX_TEXT>::new();
        let _ = text.write_fmt(*record.args());
        let entry = Entry {
            cpu: cpu.as_u32(),
            level: record.level() as u8,
            target: short_target(record.target()),
            text: text.as_str(),
            cut: text.is_cut(),
        };
        ring_of(cpu).push(&entry, Native::now_ns);
        if !DEFERRED.load(Ordering::Relaxed) {
            drain();
        } else {
            #[cfg(target_os = "none")]
            crate::tick::note_log();
        }
    }

    fn flush(&self) {
        drain();
    }
}

/// Makes this log the one behind the `log` crate's macros, with messages up to `level`. Call once, early on the boot CPU;
/// per-CPU areas and the heap need not be there yet, [`crate::serial::init`] should have run.
pub fn init(level: LevelFilter) {
    // A second call finds a logger installed, which is this one.
    let _ = ::log::set_logger(&Logger);
    set_level(level);
}

/// The most detailed level that is logged.
pub fn level() -> LevelFilter {
    ::log::max_level()
}

/// Sets the most detailed level that is logged, for all CPUs from now on. Linux: `dmesg -n`, but for what is kept too.
pub fn set_level(level: LevelFilter) {
    ::log::set_max_level(level);
}

/// Gives each of `cpus` CPUs a ring of its own, 8 KiB of heap each. Call once, when there is a heap, before other CPUs
/// start; CPUs without a ring write the boot CPU's.
pub fn give_rings(cpus: u32) {
    OTHER_RINGS.call_once(|| {
        (1..cpus)
            .map(|_| {
                let words: Vec<AtomicU64> = (0..RING_WORDS).map(|_| AtomicU64::new(0)).collect();
                Ring::new(words.leak())
            })
            .collect()
    });
}

/// From now on messages wait in their rings for somebody to [`drain`] them (or, with `false`, no longer). Say so once
/// idle CPUs or the console drain.
pub fn set_deferred(deferred: bool) {
    DEFERRED.store(deferred, Ordering::Relaxed);
}

/// Whether a message waits to be shown.
pub fn has_pending() -> bool {
    rings().any(|ring| ring.front_time().is_some())
}

/// Shows the messages that wait, unless somebody else is at it: that one will show them all.
///
/// Contexts: any but NMI (where it would only be slow). Never waits for another CPU. Cost: a look at each CPU's ring;
/// for each line the time that the port takes.
pub fn drain() {
    while has_pending() {
        if TERMINAL.try_with(|terminal| terminal.drain(rings(), Native::now_ns)).is_none() {
            return;
        }
    }
}

/// Shows what is in the rings with no regard to anybody: for the panic path, with the other CPUs stopped. A line that
/// was being shown at that moment may be shown again.
pub fn flush_for_panic() {
    let mut out = PanicWriter;
    // The cursor may be anywhere.
    let _ = out.write_str("\n");
    let mut record = Record::empty();
    // A CPU that could not be stopped may go on writing; it must not keep this one for ever.
    for _ in 0..10_000 {
        let oldest =
            rings().filter_map(|ring| Some((ring.front_time()?, ring))).min_by_key(|(time, _)| *time);
        let Some((_, ring)) = oldest else { break };
        if ring.peek(&mut record) {
            let _ = write_record(&mut out, &record);
            ring.advance(&record);
        }
    }
    for (cpu, ring) in rings().enumerate() {
        let lost = ring.take_dropped();
        if lost > 0 {
            let _ = write_lost(&mut out, Native::now_ns(), cpu as u32, lost);
        }
    }
}

/// Shows text that is no log message, as whole lines, after the messages that wait: for the console's answers and the
/// test harness.
///
/// Task context. Waits for whoever uses the terminal, a second at most.
pub fn raw_line(text: fmt::Arguments<'_>) {
    let done = with_terminal(|terminal| {
        terminal.drain(rings(), Native::now_ns);
        terminal.print(text);
    });
    if done.is_none() {
        let _ = writeln!(PanicWriter, "{text}");
    }
    drain();
}

/// Shows the bytes of a line editor, and keeps `image`, which redraws the line after others have been shown above it.
/// An empty image says that no line is being edited.
pub fn edit(bytes: &str, image: &str) {
    with_terminal(|terminal| terminal.edit(bytes, image));
    drain();
}

/// The log lines that have been shown, oldest first, as far as they are kept (64 KiB).
pub fn history() -> String {
    drain();
    let mut bytes = Vec::new();
    with_terminal(|terminal| bytes = terminal.history().concat());
    // Whoever wanted to show a message meanwhile has left it to us.
    drain();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Runs `f` while the terminal is taken, as it is when something fails in the middle of showing a message. For trying
/// out that a panic gets through then.
pub fn with_drain_held(f: &mut dyn FnMut()) {
    with_terminal(|_| f());
    drain();
}

fn with_terminal<R>(mut f: impl FnMut(&mut Terminal<Transmitter>) -> R) -> Option<R> {
    for _ in 0..TERMINAL_PATIENCE {
        if let Some(result) = TERMINAL.try_with(&mut f) {
            return Some(result);
        }
        Native::relax();
    }
    None
}
