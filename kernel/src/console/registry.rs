//! Commands: what they are, how one is found, run and completed.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use sync::TaskCx;

use super::editor::Completion;
use super::machine::Machine;
use super::words::{commands, near, words};

/// A command of the console.
#[derive(Debug)]
pub struct Command {
    /// What one types.
    pub name: &'static str,
    /// Its arguments, `""` if it has none. In the usual notation: `KIND`, `[CPU]`, `on|off`.
    pub usage: &'static str,
    /// What it does: a line, and perhaps more after it.
    pub help: &'static str,
    /// What the next argument may be, given the ones before it; filtered by what has been typed of it.
    pub complete: fn(&dyn Machine, &[&str]) -> Vec<String>,
    /// Does it.
    pub run: fn(&mut Context<'_>, &[&str]) -> CommandResult,
}

/// What a command has to work with.
pub struct Context<'a> {
    /// Where its answer goes.
    pub out: &'a mut dyn fmt::Write,
    /// The right to sleep of the task that runs it.
    pub task: &'a mut TaskCx,
    /// The machine.
    pub machine: &'a dyn Machine,
    /// Whether every command before it went well.
    pub success: bool,
    /// Whether a person types and looks on. A script's commands answer once and end.
    pub interactive: bool,
}

/// How a command ends.
pub type CommandResult = Result<(), Failure>;

/// Why a command did not do what it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The arguments are wrong; this is what is wrong with them. The usage is shown after it.
    Usage(String),
    /// It did not work; this is why.
    Failed(String),
}

impl From<fmt::Error> for Failure {
    fn from(_: fmt::Error) -> Failure {
        Failure::Failed(String::from("the terminal takes no output"))
    }
}

/// For commands without arguments, or whose arguments cannot be guessed.
pub(super) fn no_completion(_: &dyn Machine, _: &[&str]) -> Vec<String> {
    Vec::new()
}

/// An error unless there are at most `most` arguments.
pub(super) fn at_most(arguments: &[&str], most: usize) -> CommandResult {
    match arguments.get(most) {
        None => Ok(()),
        Some(extra) => Err(Failure::Usage(alloc::format!("`{extra}` is one argument too many"))),
    }
}

/// The commands there are.
#[derive(Clone, Copy, Debug)]
pub struct Registry(pub &'static [&'static Command]);

impl Registry {
    /// The command of that name.
    pub fn find(self, name: &str) -> Option<&'static Command> {
        self.0.iter().copied().find(|command| command.name == name)
    }

    /// Runs the commands of a line, all of them, and says whether all went well.
    pub fn run_line(self, line: &str, cx: &mut Context<'_>) -> bool {
        let mut success = true;
        for command in commands(line) {
            success &= self.run(command, cx);
        }
        success
    }

    /// Runs one command, and says whether it went well. What went wrong is told in the output.
    pub fn run(self, command: &str, cx: &mut Context<'_>) -> bool {
        let result = match words(command) {
            Ok(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                match words.split_first() {
                    Some((name, arguments)) => self.run_words(name, arguments, cx),
                    None => Ok(()),
                }
            }
            Err(unclosed) => Err(unclosed.to_string()),
        };
        if let Err(message) = &result {
            // A terminal that takes nothing takes this neither.
            let _ = writeln!(cx.out, "{message}");
            cx.success = false;
        }
        result.is_ok()
    }

    fn run_words(self, name: &str, arguments: &[&str], cx: &mut Context<'_>) -> Result<(), String> {
        let command = self.find(name).ok_or_else(|| self.unknown(name))?;
        (command.run)(cx, arguments).map_err(|failure| match failure {
            Failure::Failed(why) => alloc::format!("{name}: {why}"),
            Failure::Usage(why) => alloc::format!("{name}: {why}; usage: {}", usage(command)),
        })
    }

    /// The message about a command that does not exist.
    pub fn unknown(self, name: &str) -> String {
        let near = near(name, self.0.iter().map(|command| command.name));
        let meant = match near.is_empty() {
            true => String::new(),
            false => alloc::format!(" did you mean {}?", near.join(" or ")),
        };
        alloc::format!("there is no command `{name}`;{meant} `help` lists all commands")
    }

    /// What can complete the text before the cursor: a command's name, or its argument.
    pub fn complete(self, machine: &dyn Machine, before: &str) -> Completion {
        // The last command, with its leading spaces gone and its trailing ones kept.
        let command = match before.rfind(';') {
            Some(at) if commands(&before[..at]).len() < commands(before).len() => &before[at + 1..],
            Some(at) if before[at + 1..].trim().is_empty() => &before[at + 1..],
            _ => before,
        };
        let (earlier, typed) =
            command.rsplit_once(' ').map_or(("", command), |(earlier, typed)| (earlier, typed));
        let earlier: Vec<&str> = earlier.split_whitespace().collect();
        let mut candidates = match earlier.split_first() {
            None => self.0.iter().map(|command| String::from(command.name)).collect(),
            Some((name, arguments)) => {
                self.find(name).map(|command| (command.complete)(machine, arguments)).unwrap_or_default()
            }
        };
        candidates.retain(|candidate| candidate.starts_with(typed));
        candidates.sort();
        Completion { typed: typed.chars().count(), words: candidates }
    }
}

/// A command with its arguments, as one types it.
pub(super) fn usage(command: &Command) -> String {
    [command.name, command.usage].join(" ").trim_end().to_string()
}
