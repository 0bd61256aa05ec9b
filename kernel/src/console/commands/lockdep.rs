//! `lockdep`: what the checker of lock dependencies knows.

use alloc::string::String;
use alloc::vec::Vec;

use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};

pub(super) static LOCKDEP: Command = Command {
    name: "lockdep",
    usage: "[classes]",
    help: "shows what is known about the order of locks\n\
           `classes` lists the classes of locks, and in which contexts they are taken.",
    complete: |_, before| if before.is_empty() { Vec::from([String::from("classes")]) } else { Vec::new() },
    run: lockdep,
};

fn lockdep(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 1)?;
    let classes = match arguments.first() {
        None => false,
        Some(&"classes") => true,
        Some(word) => return Err(Failure::Usage(alloc::format!("`{word}` is not `classes`"))),
    };
    Ok(cx.machine.lock_dependencies(classes, cx.out)?)
}
