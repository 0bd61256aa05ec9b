//! `poweroff` and `reboot`.

use super::super::registry::{Command, CommandResult, Context, Failure, at_most, no_completion};

pub(super) static POWEROFF: Command = Command {
    name: "poweroff",
    usage: "",
    help: "ends the run\nAfter commands of a script the exit status says whether all of them went well.",
    complete: no_completion,
    run: power_off,
};

fn power_off(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 0)?;
    cx.machine.power_off(cx.success);
    Err(Failure::Failed("this machine offers no way to be switched off".into()))
}

pub(super) static REBOOT: Command = Command {
    name: "reboot",
    usage: "",
    help: "starts the machine anew\nAn emulator that was told not to reboot ends instead.",
    complete: no_completion,
    run: reboot,
};

fn reboot(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    at_most(arguments, 0)?;
    cx.machine.reboot();
    Err(Failure::Failed("this machine offers no way to be restarted".into()))
}
