//! The console: a prompt on the serial port, and the commands behind it.
//!
//! `keys` turns bytes into keys, [`editor`] keys into lines, [`words`] lines into commands, [`registry`] finds and runs
//! them, [`commands`] are they, and [`machine`] is all that they know of the machine
//! (its tasks are in [`tasks`]). Only this file touches the one
//! terminal of the kernel; everything else is a value that tests make for themselves.

pub mod commands;
pub mod editor;
mod keys;
pub mod machine;
pub mod rcu;
pub mod registry;
pub mod tasks;
pub mod timers;
pub mod torture;
pub mod words;

use alloc::string::String;
use core::fmt::{self, Write};

use sync::TaskCx;

use self::commands::ALL;
use self::editor::{Editor, Event};
use self::machine::{Machine, Summary};
use self::registry::Context;
use crate::{log, serial};

const PROMPT: &str = "quiesce> ";

/// Greets, prompts and runs what is typed, for ever. `wait` is called when nothing is to be done, and returns when
/// something may be: after any interrupt.
///
/// Task context, on one CPU.
pub fn run(machine: &dyn Machine, task: &mut TaskCx, mut wait: impl FnMut(&mut TaskCx)) -> ! {
    log::raw_line(format_args!("{}", Greeting(&machine.summary())));
    let mut editor = Editor::new(PROMPT);
    log::edit(PROMPT, PROMPT);
    loop {
        // Also where the port's interrupt does not arrive.
        serial::on_interrupt();
        log::drain();
        match serial::read_byte() {
            Some(byte) => take(machine, task, &mut editor, byte),
            None => wait(task),
        }
    }
}

fn take(machine: &dyn Machine, task: &mut TaskCx, editor: &mut Editor, byte: u8) {
    let mut echo = String::new();
    let event = editor.feed(byte, |before| ALL.complete(machine, before), &mut echo);
    let Some(event) = event else {
        log::edit(&echo, &editor.image());
        return;
    };
    log::edit(&echo, "");
    match event {
        Event::Line(line) => {
            ALL.run_line(
                &line,
                &mut Context { out: &mut Screen::default(), task, machine, success: true, interactive: true },
            );
        }
        Event::Interrupted => {}
        Event::End => log::raw_line(format_args!("`poweroff` ends the run")),
    }
    let image = editor.image();
    log::edit(&image, &image);
}

/// Runs the commands of a script, separated by `;`, showing each before its answer. Returns whether all went well.
///
/// Task context.
pub fn execute(machine: &dyn Machine, task: &mut TaskCx, script: &str) -> bool {
    let mut screen = Screen::default();
    let mut cx = Context { out: &mut screen, task, machine, success: true, interactive: false };
    for command in words::commands(script) {
        log::raw_line(format_args!("{PROMPT}{command}"));
        ALL.run(command, &mut cx);
    }
    cx.success
}

/// Three lines: what is running, what to try, how to leave.
struct Greeting<'a>(&'a Summary);

impl fmt::Display for Greeting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { cpus, memory, machine } = self.0;
        let plural = if *cpus == 1 { "" } else { "s" };
        let memory = commands::Size(*memory);
        writeln!(
            f,
            "Quiesce {}: {cpus} CPU{plural}, {memory} of memory, on {machine}",
            env!("CARGO_PKG_VERSION")
        )?;
        writeln!(f, "Try `help`, which lists the commands, and `demo`, which shows what it is about")?;
        write!(f, "`poweroff` ends the run; under `cargo xtask run` so does Ctrl-A X")
    }
}

/// The terminal, for the answers of commands: whole lines at a time, so that log lines come between and not into them.
#[derive(Default)]
struct Screen {
    line: String,
}

impl Write for Screen {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(end) => {
                    log::raw_line(format_args!("{}{end}", self.line));
                    self.line.clear();
                }
                None => self.line.push_str(part),
            }
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            log::raw_line(format_args!("{}", self.line));
        }
    }
}

#[cfg(test)]
mod tests;
