//! What a record looks like to a person: `[    0.012345] cpu0 INFO  memory: text`.

use core::fmt::{self, Write};

use super::ring::Record;

/// Text of at most `N` bytes, on the stack: what does not fit is left out and remembered.
#[derive(Clone, Debug)]
pub struct StackText<const N: usize> {
    bytes: [u8; N],
    length: usize,
    cut: bool,
}

impl<const N: usize> StackText<N> {
    /// No text.
    pub const fn new() -> StackText<N> {
        StackText { bytes: [0; N], length: 0, cut: false }
    }

    /// What has been written, to the limit.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("?")
    }

    /// Whether anything was left out.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Forgets everything.
    pub const fn clear(&mut self) {
        self.length = 0;
        self.cut = false;
    }
}

impl<const N: usize> Default for StackText<N> {
    fn default() -> StackText<N> {
        StackText::new()
    }
}

impl<const N: usize> Write for StackText<N> {
    /// Never fails: an error would make a formatting caller give up in the middle.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let fits = super::ring::clip(text, N - self.length);
        self.bytes[self.length..self.length + fits.len()].copy_from_slice(fits.as_bytes());
        self.length += fits.len();
        self.cut = fits.len() < text.len();
        Ok(())
    }
}

/// The short name of a log target: the module below the crate that says most. `kernel::memory::frames` is `memory`,
/// `hal::x86_64::apic::timer` is `apic`, `rcu::tree` is `rcu`; a target that is no path stays as it is.
pub fn short_target(target: &str) -> &str {
    let mut rest = target;
    for prefix in ["kernel::", "quiesce::", "hal::", "x86_64::"] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    rest.split("::").next().unwrap_or(rest)
}

/// Writes a record as whole lines, each with the record's time and CPU in front, after a line that says how many records
/// were lost before it, if any were.
pub(super) fn write_record(out: &mut impl Write, record: &Record) -> fmt::Result {
    if record.lost > 0 {
        write_lost(out, record.time_ns, record.cpu, u64::from(record.lost))?;
    }
    let text = record.text();
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        // A text that ends its own line has an empty last one.
        if last && line.is_empty() && text.ends_with('\n') && !record.cut {
            break;
        }
        write_head(out, record.time_ns, record.cpu, level_name(record.level), record.target())?;
        write_printable(out, line)?;
        out.write_str(if last && record.cut { " [cut]\n" } else { "\n" })?;
    }
    Ok(())
}

/// Writes the line that stands for records that were dropped.
pub(super) fn write_lost(out: &mut impl Write, time_ns: u64, cpu: u32, lost: u64) -> fmt::Result {
    write_head(out, time_ns, cpu, "WARN", "log")?;
    writeln!(out, "{lost} earlier messages were lost: the ring of cpu{cpu} was full")
}

fn write_head(out: &mut impl Write, time_ns: u64, cpu: u32, level: &str, target: &str) -> fmt::Result {
    let micros = time_ns / 1000;
    write!(out, "[{:>5}.{:06}] cpu{cpu} {level:<5} {target}: ", micros / 1_000_000, micros % 1_000_000)
}

/// Control characters would move the cursor or worse; a message must not be able to.
fn write_printable(out: &mut impl Write, text: &str) -> fmt::Result {
    for part in text.split_inclusive(|c: char| c.is_control() && c != '\t') {
        let printable = part.trim_end_matches(|c: char| c.is_control() && c != '\t');
        out.write_str(printable)?;
        part[printable.len()..].chars().try_for_each(|c| write!(out, "{}", c.escape_default()))?;
    }
    Ok(())
}

/// The name of a level as it is numbered in a record.
pub fn level_name(level: u8) -> &'static str {
    ["?", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"].get(usize::from(level)).copied().unwrap_or("?")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::boxed::Box;
    use std::string::String;

    use super::*;
    use crate::log::primitives::AtomicU64;
    use crate::log::ring::{Entry, Ring};

    fn formatted(entry: Entry<'_>, time: u64) -> String {
        let words: Vec<_> = (0..64).map(|_| AtomicU64::new(0)).collect();
        let ring = Ring::new(Box::leak(words.into_boxed_slice()));
        ring.push(&entry, || time);
        let mut record = Record::empty();
        assert!(ring.peek(&mut record));
        let mut out = String::new();
        write_record(&mut out, &record).unwrap();
        out
    }

    #[test]
    fn a_line_has_time_cpu_level_and_target() {
        let entry = Entry { cpu: 0, level: 3, target: "memory", text: "text", cut: false };
        assert_eq!(formatted(entry, 12_345_678), "[    0.012345] cpu0 INFO  memory: text\n");
        let entry = Entry { cpu: 17, level: 1, target: "apic", text: "a\nb\n", cut: false };
        assert_eq!(
            formatted(entry, 123_456_000_001_000),
            "[123456.000001] cpu17 ERROR apic: a\n[123456.000001] cpu17 ERROR apic: b\n"
        );
    }

    #[test]
    fn an_empty_text_is_a_line_and_a_cut_one_says_so() {
        let entry = Entry { cpu: 0, level: 2, target: "x", text: "", cut: false };
        assert_eq!(formatted(entry, 0), "[    0.000000] cpu0 WARN  x: \n");
        let entry = Entry { cpu: 0, level: 2, target: "x", text: "abc", cut: true };
        assert_eq!(formatted(entry, 0), "[    0.000000] cpu0 WARN  x: abc [cut]\n");
    }

    #[test]
    fn control_characters_are_shown_not_sent() {
        let entry = Entry { cpu: 0, level: 2, target: "x", text: "a\x1b[2Jb\tc\r", cut: false };
        assert_eq!(formatted(entry, 0), "[    0.000000] cpu0 WARN  x: a\\u{1b}[2Jb\tc\\r\n");
    }

    #[test]
    fn targets_are_shortened_to_what_says_most() {
        for (target, short) in [
            ("kernel::memory::frames", "memory"),
            ("hal::x86_64::apic::timer", "apic"),
            ("hal::percpu", "percpu"),
            ("rcu::tree::node", "rcu"),
            ("kernel", "kernel"),
            ("boot", "boot"),
            ("", ""),
        ] {
            assert_eq!(short_target(target), short);
        }
    }

    #[test]
    fn stack_text_stops_between_characters_and_stays_stopped() {
        let mut text = StackText::<5>::new();
        write!(text, "abcä").unwrap();
        assert_eq!((text.as_str(), text.is_cut()), ("abcä", false));
        text.clear();
        write!(text, "abcdä").unwrap();
        write!(text, "e").unwrap();
        assert_eq!((text.as_str(), text.is_cut()), ("abcd", true));
    }
}
