//! What xtask says, and where: its own words go to standard error, the guest's to standard output.
//!
//! A long step shows a spinner with its newest line of output on a terminal, and one line at its start and one at
//! its end elsewhere. A step that fails prints its whole output, so that nobody has to run it again to see why.

use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::process::Owned;

/// An error that carries the process exit code, and a message that may be empty when everything was already said.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Exit {
    pub(crate) fn silent(code: u8) -> anyhow::Error {
        Exit { code, message: String::new() }.into()
    }

    pub(crate) fn with(code: u8, message: impl Into<String>) -> anyhow::Error {
        Exit { code, message: message.into() }.into()
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// One line about what goes on.
pub(crate) fn note(text: impl fmt::Display) {
    write_stderr(&format!("{} {text}\n", paint("2", "xtask:")));
}

/// One line about something the person should know but that does not stop the work.
pub(crate) fn warn(text: impl fmt::Display) {
    write_stderr(&format!("{} {text}\n", paint("33", "xtask: warning:")));
}

/// The reason for stopping.
pub(crate) fn error(text: &str) {
    write_stderr(&format!("{} {text}\n", paint("31", "xtask: error:")));
}

/// Whether a person watches standard error.
pub(crate) fn interactive() -> bool {
    io::stderr().is_terminal()
}

/// `text` in an ANSI colour when standard error is a terminal that may be coloured.
pub(crate) fn paint(colour: &str, text: &str) -> String {
    if interactive() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{colour}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A duration with the precision that a reader can use.
pub(crate) fn time(duration: Duration) -> String {
    let us = duration.as_micros();
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..120_000_000 => format!("{:.1} s", us as f64 / 1e6),
        _ => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

fn write_stderr(text: &str) {
    // Nothing useful is left to do when standard error is gone.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A long piece of work that runs as a child process.
pub(crate) struct Step {
    label: String,
    limit: Option<Duration>,
    gentle: bool,
}

/// What a finished step left behind.
pub(crate) struct StepResult {
    pub(crate) success: bool,
    pub(crate) timed_out: bool,
    pub(crate) output: String,
    pub(crate) elapsed: Duration,
}

impl Step {
    /// `label` is a phrase such as "building the kernel".
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Self { label: label.into(), limit: None, gentle: false }
    }

    /// Ends the child after `limit`.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Lets the child clean up when it must be ended early (a package manager in the middle of its work).
    pub(crate) fn gentle(mut self) -> Self {
        self.gentle = true;
        self
    }

    /// Runs `command`; a failure is an error, after the command's whole output has been shown.
    pub(crate) fn run(self, command: Command) -> Result<StepResult> {
        let label = self.label.clone();
        let result = self.try_run(command)?;
        if !result.success {
            write_stderr(&result.output);
            let why = if result.timed_out { "took too long and was ended" } else { "failed" };
            bail!("{label} {why} after {}; its output is above", time(result.elapsed));
        }
        Ok(result)
    }

    /// Runs `command` and leaves judging its result to the caller.
    pub(crate) fn try_run(self, mut command: Command) -> Result<StepResult> {
        let program = command.get_program().to_string_lossy().into_owned();
        let (reader, writer) = io::pipe().context("creating a pipe")?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let started = Instant::now();
        let mut child = Owned::spawn(&mut command, self.gentle)
            .with_context(|| format!("starting `{program}` for: {}", self.label))?;
        // The command holds the write ends of the pipe; without dropping it the reader would never see the end.
        drop(command);

        let spinner = self.spinner();
        let timer = self.limit.map(|limit| child.kill_after(limit));
        let mut output = String::new();
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
            let text = String::from_utf8_lossy(&line);
            let newest = text.trim();
            if !newest.is_empty() {
                spinner.set_message(shorten(newest, 60));
            }
            output.push_str(&text);
            line.clear();
        }
        let status = child.wait()?;
        let timed_out = timer.is_some_and(|timer| timer.fired());
        spinner.finish_and_clear();
        let elapsed = started.elapsed();
        if status.success() && elapsed > Duration::from_secs(2) {
            note(format_args!("{}: {}", self.label, time(elapsed)));
        }
        Ok(StepResult { success: status.success() && !timed_out, timed_out, output, elapsed })
    }

    fn spinner(&self) -> ProgressBar {
        let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if interactive() {
            spinner.set_style(
                ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            spinner.set_prefix(self.label.clone());
            spinner.enable_steady_tick(Duration::from_millis(120));
        } else {
            note(&self.label);
        }
        spinner
    }
}

/// The first `width` characters of `text` with escape sequences dropped.
fn shorten(text: &str, width: usize) -> String {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\x1b' => drop(characters.by_ref().find(char::is_ascii_alphabetic)),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    if plain.chars().count() > width {
        plain = plain.chars().take(width - 3).collect::<String>() + "...";
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(time(Duration::from_micros(250)), "250 us");
        assert_eq!(time(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(time(Duration::from_millis(4_210)), "4.2 s");
        assert_eq!(time(Duration::from_secs(200)), "3 min 20 s");
    }

    #[test]
    fn shortening_drops_escapes() {
        assert_eq!(shorten("\x1b[32mCompiling\x1b[0m foo", 60), "Compiling foo");
        assert_eq!(shorten("0123456789", 8), "01234...");
    }

    #[test]
    fn a_failed_step_keeps_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let result = Step::new("failing on purpose").try_run(command).unwrap();
        assert!(!result.success && !result.timed_out);
        assert_eq!(result.output, "one\ntwo\n");
    }

    #[test]
    fn a_step_that_takes_too_long_is_ended() {
        let mut command = Command::new("sh");
        // The inner shell stays in the process group and keeps the pipe open: the whole group must go.
        command.args(["-c", "sh -c 'sleep 30' & sleep 30"]);
        let result = Step::new("sleeping").limit(Duration::from_millis(200)).try_run(command).unwrap();
        assert!(result.timed_out && !result.success);
        assert!(result.elapsed < Duration::from_secs(10));
    }
}
