//! `torture`: loads that try to break a subsystem.

use alloc::string::String;
use alloc::vec::Vec;

use crate::console::machine::Machine;
use crate::console::registry::{Command, CommandResult, Context, Failure, at_most};
use crate::console::torture::{Request, Told};
use crate::console::words::near;

pub(super) static TORTURE: Command = Command {
    name: "torture",
    usage: "list | NAME,..|all [--seconds N] [--broken TWIN] [--faults NAME,..|all]",
    help: "loads a subsystem until it breaks, and says how\n\
           `list` says which loads there are, their twins, each of which has one thing broken that must be\n\
           noticed, and what can strike meanwhile. Loads whose names come together run together.\n\
           What is drawn comes from the boot option `seed=`. At the end stands what was done, each with the\n\
           least of it that makes the run a test.",
    complete,
    run: torture,
};

/// The longest run, in seconds: a week.
const MOST_SECONDS: u64 = 7 * 24 * 3_600;
const DEFAULT_SECONDS: u64 = 10;

fn complete(machine: &dyn Machine, before: &[&str]) -> Vec<String> {
    let told = machine.loads();
    let names: Vec<&str> = match before {
        [] => ["list", "all"].into_iter().chain(told.scenarios.iter().map(|(name, _)| *name)).collect(),
        [.., "--broken"] => told.twins.iter().map(|(name, ..)| *name).collect(),
        [.., "--faults"] => told.faults.iter().map(|(name, _)| *name).chain(["all"]).collect(),
        [.., "--seconds"] => Vec::new(),
        _ => alloc::vec!["--seconds", "--broken", "--faults"],
    };
    names.into_iter().map(String::from).collect()
}

fn torture(cx: &mut Context<'_>, arguments: &[&str]) -> CommandResult {
    let told = cx.machine.loads();
    match arguments {
        [] => Err(Failure::Usage("which load? `torture list` names them".into())),
        ["list", rest @ ..] => {
            at_most(rest, 0)?;
            list(cx, &told)
        }
        [names, options @ ..] => {
            let request = parse(&told, names, options).map_err(Failure::Usage)?;
            match cx.machine.torture(&request, cx.task) {
                0 if request.broken.is_none() => Ok(()),
                0 => Err(Failure::Failed("nobody noticed what is broken".into())),
                _ if request.broken.is_some() => Ok(()),
                errors => Err(Failure::Failed(alloc::format!("{errors} errors"))),
            }
        }
    }
}

fn list(cx: &mut Context<'_>, told: &Told) -> CommandResult {
    for (name, what) in &told.scenarios {
        writeln!(cx.out, "TORTURE scenario {name}: {what}")?;
    }
    for (name, of, what) in &told.twins {
        writeln!(cx.out, "TORTURE twin {name} of {of}: {what}")?;
    }
    for (name, what) in &told.faults {
        writeln!(cx.out, "TORTURE fault {name}: {what}")?;
    }
    Ok(())
}

/// The names in `list`, each of which must be one of `known`.
fn names(list: &str, what: &str, known: &[&str]) -> Result<Vec<String>, String> {
    if list == "all" {
        return Ok(known.iter().map(|name| String::from(*name)).collect());
    }
    list.split(',').map(|name| one(name, what, known)).collect()
}

fn one(name: &str, what: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&name) {
        return Ok(String::from(name));
    }
    let near = near(name, known.iter().copied());
    let others = if near.is_empty() { known.join(", ") } else { near.join(" or ") };
    Err(alloc::format!("there is no {what} `{name}`; did you mean {others}?"))
}

fn parse(told: &Told, scenarios: &str, options: &[&str]) -> Result<Request, String> {
    let known: Vec<&str> = told.scenarios.iter().map(|(name, _)| *name).collect();
    let mut request = Request {
        scenarios: names(scenarios, "load", &known)?,
        seconds: DEFAULT_SECONDS,
        ..Request::default()
    };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let Some(value) = options.next() else { return Err(alloc::format!("`{option}` wants a value")) };
        match *option {
            "--seconds" => match value.parse() {
                Ok(seconds) if (1..=MOST_SECONDS).contains(&seconds) => request.seconds = seconds,
                _ => {
                    return Err(alloc::format!(
                        "`{value}` is not a number of seconds from 1 to {MOST_SECONDS}"
                    ));
                }
            },
            "--broken" => {
                let twins: Vec<&str> = told.twins.iter().map(|(name, ..)| *name).collect();
                let twin = one(value, "twin", &twins)?;
                let of = told.twins.iter().find(|(name, ..)| *name == twin).map(|(_, of, _)| *of);
                if !request.scenarios.iter().any(|name| Some(name.as_str()) == of) {
                    return Err(alloc::format!(
                        "`{twin}` is a twin of `{}`, which does not run",
                        of.unwrap_or("")
                    ));
                }
                request.broken = Some(twin);
            }
            "--faults" => {
                let faults: Vec<&str> = told.faults.iter().map(|(name, _)| *name).collect();
                request.faults = names(value, "fault", &faults)?;
            }
            _ => return Err(alloc::format!("`{option}` is not `--seconds`, `--broken` or `--faults`")),
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told {
            scenarios: vec![("rcu", "reads"), ("timers", "arms")],
            twins: vec![("rcu-early", "rcu", "ends early")],
            faults: vec![("hotplug", "CPUs go"), ("stutter", "pauses")],
        }
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let request = parse(&told(), "rcu", &[]).unwrap();
        assert_eq!((request.scenarios, request.seconds, request.broken), (vec!["rcu".into()], 10, None));
        let options = ["--faults", "all", "--broken", "rcu-early", "--seconds", "3"];
        let request = parse(&told(), "all", &options).unwrap();
        assert_eq!(request.scenarios, ["rcu", "timers"]);
        assert_eq!(request.faults, ["hotplug", "stutter"]);
        assert_eq!((request.seconds, request.broken.as_deref()), (3, Some("rcu-early")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |scenarios: &str, options: &[&str]| parse(&told(), scenarios, options).unwrap_err();
        assert_eq!(wrong("timer", &[]), "there is no load `timer`; did you mean timers?");
        assert_eq!(wrong("rcu", &["--seconds"]), "`--seconds` wants a value");
        assert!(wrong("rcu", &["--seconds", "0"]).contains("`0` is not a number of seconds"));
        assert_eq!(
            wrong("timers", &["--broken", "rcu-early"]),
            "`rcu-early` is a twin of `rcu`, which does not run"
        );
        assert!(wrong("rcu", &["--fault", "all"]).starts_with("`--fault` is not"));
        assert!(wrong("rcu", &["--faults", "hotplg"]).contains("did you mean hotplug?"));
    }
}
