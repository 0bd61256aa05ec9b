//! The screen at the other end of the port, as its one owner sees it: log lines pass by, plain text is printed, and at the
//! bottom there may be a line that somebody is typing, which everything else must go above.

use core::fmt::{self, Write};

use super::history::History;
use super::line::{StackText, write_lost, write_record};
use super::ring::{Record, Ring};

/// Where the terminal's bytes go.
pub trait Port {
    /// Sends bytes, as they are.
    fn send(&mut self, bytes: &[u8]);
}

/// The bytes of log lines that are kept for `dmesg`.
const HISTORY_BYTES: usize = 64 << 10;

/// Erases the line that the cursor is in and puts the cursor at its beginning.
const ERASE_LINE: &[u8] = b"\r\x1b[K";

/// The terminal's state.
///
/// # Invariants
/// `image` is what the line at the cursor shows; it is empty when the cursor is at the beginning of an empty line.
#[derive(Debug)]
pub(super) struct Terminal<P> {
    port: P,
    image: StackText<512>,
    history: History<HISTORY_BYTES>,
    record: Record,
}

impl<P: Port> Terminal<P> {
    pub(super) const fn new(port: P) -> Terminal<P> {
        Terminal { port, image: StackText::new(), history: History::new(), record: Record::empty() }
    }

    /// Shows all committed records of `rings` (the ring of CPU *i* in place *i*), the oldest first, and what was lost.
    pub(super) fn drain<'r>(&mut self, rings: impl Iterator<Item = &'r Ring> + Clone, now: impl Fn() -> u64) {
        let mut covered = false;
        loop {
            let oldest = rings
                .clone()
                .filter_map(|ring| Some((ring.front_time()?, ring)))
                .min_by_key(|(time, _)| *time);
            let Some((_, ring)) = oldest else { break };
            if ring.peek(&mut self.record) {
                self.cover(&mut covered);
                let mut out = Lines::new(&mut self.port, Some(&mut self.history));
                // Writing to `Lines` does not fail.
                let _ = write_record(&mut out, &self.record);
                // After the output, so that a panic in between prints the record twice rather than never.
                ring.advance(&self.record);
            }
        }
        for (cpu, ring) in rings.enumerate() {
            let lost = ring.take_dropped();
            if lost > 0 {
                self.cover(&mut covered);
                let mut out = Lines::new(&mut self.port, Some(&mut self.history));
                let _ = write_lost(&mut out, now(), cpu as u32, lost);
            }
        }
        if covered {
            self.port.send(self.image.as_str().as_bytes());
        }
    }

    /// Shows text that is not a log record, and a newline if it has none at its end, above the line that is being typed.
    pub(super) fn print(&mut self, text: fmt::Arguments<'_>) {
        let mut covered = false;
        self.cover(&mut covered);
        let mut out = Lines::new(&mut self.port, None);
        let _ = out.write_fmt(text);
        out.finish();
        self.port.send(self.image.as_str().as_bytes());
    }

    /// Sends the editor's bytes as they are, and keeps `image`: what redraws the line that they leave behind.
    pub(super) fn edit(&mut self, bytes: &str, image: &str) {
        self.port.send(bytes.as_bytes());
        self.image.clear();
        let _ = self.image.write_str(image);
    }

    pub(super) fn history(&self) -> [&[u8]; 2] {
        self.history.pieces()
    }

    fn cover(&mut self, covered: &mut bool) {
        if !*covered && !self.image.as_str().is_empty() {
            self.port.send(ERASE_LINE);
        }
        *covered = true;
    }
}

/// Sends text with the carriage returns that terminals need, and keeps its lines (their first 640 bytes) for `dmesg`.
struct Lines<'a, P: Port> {
    port: &'a mut P,
    history: Option<&'a mut History<HISTORY_BYTES>>,
    line: StackText<640>,
    line_ended: bool,
}

impl<'a, P: Port> Lines<'a, P> {
    fn new(port: &'a mut P, history: Option<&'a mut History<HISTORY_BYTES>>) -> Lines<'a, P> {
        Lines { port, history, line: StackText::new(), line_ended: false }
    }

    /// Ends the text's last line, unless it did so itself.
    fn finish(&mut self) {
        if !self.line_ended {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        self.port.send(b"\r\n");
        if let Some(history) = self.history.as_mut() {
            history.push_line(self.line.as_str().as_bytes());
        }
        self.line.clear();
        self.line_ended = true;
    }
}

impl<P: Port> Write for Lines<'_, P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            let body = part.strip_suffix('\n').unwrap_or(part);
            self.port.send(body.as_bytes());
            self.line.write_str(body)?;
            self.line_ended = false;
            if body.len() < part.len() {
                self.end_line();
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::boxed::Box;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::super::primitives::AtomicU64;
    use super::super::ring::Entry;
    use super::*;

    impl Port for Vec<u8> {
        fn send(&mut self, bytes: &[u8]) {
            self.extend_from_slice(bytes);
        }
    }

    fn rings(count: usize) -> Vec<Ring> {
        (0..count)
            .map(|_| {
                let words: Vec<_> = (0..64).map(|_| AtomicU64::new(0)).collect();
                Ring::new(Box::leak(words.into_boxed_slice()))
            })
            .collect()
    }

    fn shown(terminal: &mut Box<Terminal<Vec<u8>>>) -> String {
        String::from_utf8(core::mem::take(&mut terminal.port)).unwrap()
    }

    fn push(ring: &Ring, cpu: u32, time: u64, text: &str) {
        ring.push(&Entry { cpu, level: 3, target: "t", text, cut: false }, || time);
    }

    #[test]
    fn lines_come_above_the_line_being_typed() {
        let rings = rings(1);
        let mut terminal = Box::new(Terminal::new(Vec::new()));
        terminal.edit("> ab", "> ab");
        push(&rings[0], 0, 1_000_000, "hello");
        terminal.drain(rings.iter(), || 0);
        assert_eq!(shown(&mut terminal), "> ab\r\x1b[K[    0.001000] cpu0 INFO  t: hello\r\n> ab");
        terminal.drain(rings.iter(), || 0);
        assert_eq!(shown(&mut terminal), "");
        terminal.print(format_args!("one\ntwo"));
        assert_eq!(shown(&mut terminal), "\r\x1b[Kone\r\ntwo\r\n> ab");
        terminal.edit("\r\n", "");
        terminal.print(format_args!("three\n"));
        assert_eq!(shown(&mut terminal), "\r\nthree\r\n");
        assert_eq!(terminal.history()[0], b"[    0.001000] cpu0 INFO  t: hello\n");
    }

    #[test]
    fn losses_are_told_where_they_happened_or_at_the_end() {
        let rings = rings(2);
        let mut terminal = Box::new(Terminal::new(Vec::new()));
        let long = "x".repeat(380);
        for time in 0..3 {
            push(&rings[1], 1, time, &long);
        }
        terminal.drain(rings.iter(), || 5_000);
        let text = shown(&mut terminal);
        assert_eq!(text.matches("xxx: ").count() + text.matches(&long).count(), 1, "{text}");
        assert!(text.ends_with(
            "[    0.000005] cpu1 WARN  log: 2 earlier messages were lost: the ring of cpu1 was full\r\n"
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        /// Messages on several CPUs, drained at any moments: every one is shown once, whole, and those drained together
        /// are in the order of time.
        #[test]
        fn rings_are_merged_by_time(steps in proptest::collection::vec(proptest::option::weighted(0.8, 0..3usize), 0..60)) {
            let rings = rings(3);
            let mut terminal = Box::new(Terminal::new(Vec::new()));
            let mut expected = String::new();
            for (time, step) in steps.iter().enumerate() {
                match step {
                    Some(cpu) if rings[*cpu].front_time().is_none() => {
                        let line = format!("m{time}");
                        push(&rings[*cpu], *cpu as u32, time as u64 * 1000, &line);
                        expected += &format!("[    0.{time:06}] cpu{cpu} INFO  t: {line}\r\n");
                    }
                    _ => terminal.drain(rings.iter(), || 0),
                }
            }
            terminal.drain(rings.iter(), || 0);
            prop_assert_eq!(shown(&mut terminal), expected);
        }
    }
}
