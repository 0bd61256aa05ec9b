//! Boots a kernel that measures, and reads what it writes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::lines::Output;
use crate::cmdline::Cmdline;
use crate::qemu::{AccelChoice, Accelerator, Guest, Machine, Read, Running, Stderr, Time};
use crate::ui;

/// A guest that says nothing for so long is ended.
const SILENCE: Duration = Duration::from_secs(300);
/// How long it may take in all.
const LIMIT: Duration = Duration::from_secs(1800);

/// What is the same for both kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) cpus: u32,
    /// An instruction is a nanosecond.
    pub(super) icount: bool,
}

impl Setting {
    /// For names of files: `1cpu-icount`.
    pub(super) fn slug(self) -> String {
        format!("{}cpu{}", self.cpus, if self.icount { "-icount" } else { "" })
    }

    /// For people.
    pub(super) fn words(self) -> String {
        let cpus = if self.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", self.cpus) };
        if self.icount { format!("{cpus}, an instruction is a nanosecond") } else { cpus }
    }

    /// The guest; its arguments are the same whichever kernel it boots.
    pub(super) fn guest(self, kernel: PathBuf, cmdline: Cmdline, extra: Vec<String>) -> Result<Guest> {
        let accelerator =
            if self.icount { Accelerator::Tcg } else { Accelerator::choose(AccelChoice::Auto)? };
        Ok(Guest {
            machine: Machine::Q35,
            accelerator,
            cpu_model: "max".to_owned(),
            cpus: self.cpus,
            memory: 512,
            acpi: true,
            time: if self.icount { Time::Counted { shift: 0 } } else { Time::Real },
            gdb: false,
            kernel,
            cmdline,
            extra,
        })
    }
}

/// Boots the guest, and returns when it has measured everything. `show` gets each line that is one of ours.
///
/// # Errors
/// If it ends before, or says nothing for five minutes: with the last that it said.
pub(super) fn boot(guest: &Guest, mut show: impl FnMut(&str)) -> Result<Output> {
    let mut running = Running::start(guest.command()?, Stderr::Kept)?;
    // Kept open: what is typed at a console that is closed is an end of input.
    let _input = running.take_input();
    let begun = Instant::now();
    let mut heard = begun;
    let mut screen = Screen::default();
    let mut buffer = [0; 4096];
    loop {
        match running.read(&mut buffer, Duration::from_millis(500))? {
            Read::Bytes(n) => {
                heard = Instant::now();
                screen.take(&buffer[..n], &mut show)?;
            }
            Read::Quiet => {}
            Read::End => break,
        }
        if screen.output.done {
            break;
        }
        if heard.elapsed() > SILENCE || begun.elapsed() > LIMIT {
            let said = running.kill()?;
            let after = ui::time(begun.elapsed());
            bail!(
                "the guest was ended after {after} without coming to an end; {}{said}",
                screen.last_words()
            );
        }
    }
    if screen.output.done {
        running.kill()?;
        return Ok(screen.output);
    }
    let (ending, said) = running.finish()?;
    bail!("the guest ended before all was measured ({ending}); {}{said}", screen.last_words())
}

/// The serial line, cut into lines.
#[derive(Default)]
struct Screen {
    output: Output,
    line: Vec<u8>,
    /// The last lines that were not ours.
    others: Vec<String>,
}

impl Screen {
    fn take(&mut self, bytes: &[u8], show: &mut impl FnMut(&str)) -> Result<()> {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end().to_owned();
            if self.output.take(&line)? {
                show(&line);
            } else if !line.is_empty() {
                self.others.push(line);
                let surplus = self.others.len().saturating_sub(20);
                self.others.drain(..surplus);
            }
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        if self.others.is_empty() && self.line.is_empty() {
            return "it said nothing. ".to_owned();
        }
        format!("its last words:\n{}\n{}", self.others.join("\n"), String::from_utf8_lossy(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_come_in_pieces() {
        let mut screen = Screen::default();
        let mut shown = Vec::new();
        for piece in ["BENCH a 1.0 ", "ns min=1\r\nBEN", "CH b 2 ns\r\nhello\r", "\nBENCH_DONE\r\n"] {
            screen.take(piece.as_bytes(), &mut |line| shown.push(line.to_owned())).unwrap();
        }
        assert_eq!(screen.output.figures.len(), 2);
        assert!(screen.output.done);
        assert_eq!(screen.others, ["hello"]);
        assert_eq!(shown.len(), 3);
        assert!(screen.last_words().contains("hello"));
    }

    #[test]
    fn settings_have_names() {
        assert_eq!(Setting { cpus: 4, icount: false }.slug(), "4cpu");
        assert_eq!(Setting { cpus: 1, icount: true }.slug(), "1cpu-icount");
    }
}
