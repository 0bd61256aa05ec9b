//! The guest machine: which QEMU, with which arguments, and how its end is to be read.
//!
//! [`Guest`] says what to boot and becomes a command line by [`Guest::arguments`], a pure function; [`Running`] is
//! the process with its serial line; [`Ending`] is what its exit status means.

mod accelerator;
mod ending;
mod options;
mod running;

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

pub(crate) use accelerator::{AccelChoice, Accelerator, kvm_verdict};
pub(crate) use ending::Ending;
pub(crate) use options::{GuestOptions, parse_cpus};
pub(crate) use running::{Read, Running, Stderr};

use crate::cmdline::Cmdline;
use crate::packages::{Installing, QEMU};
use crate::workspace::find_program;

/// The emulator's program name.
const PROGRAM: &str = "qemu-system-x86_64";

/// A machine model of QEMU that the kernel boots on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    /// PCIe, ICH9, HPET: what current hypervisors look like
    #[default]
    Q35,
    /// The older PC with PCI (i440FX)
    Pc,
    /// No PCI, no firmware to speak of: a minimal machine
    Microvm,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q35 => "q35",
            Self::Pc => "pc",
            Self::Microvm => "microvm",
        })
    }
}

impl Machine {
    fn argument(self, acpi: bool) -> String {
        let acpi = if acpi { "on" } else { "off" };
        match self {
            Self::Q35 | Self::Pc => format!("{self},acpi={acpi}"),
            // The legacy devices are what the kernel calibrates and wakes by; QEMU's own additions to the kernel
            // command line (virtio transports) would only be unknown words.
            Self::Microvm => {
                format!("{self},acpi={acpi},pit=on,pic=on,rtc=on,isa-serial=on,auto-kernel-cmdline=off")
            }
        }
    }
}

/// How virtual time runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// With the host's.
    Real,
    /// By counted instructions, 2^shift ns each: the same boot every time.
    Counted { shift: u8 },
}

/// One guest to boot.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    pub(crate) accelerator: Accelerator,
    pub(crate) cpu_model: String,
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory: u64,
    pub(crate) acpi: bool,
    pub(crate) time: Time,
    pub(crate) gdb: bool,
    pub(crate) kernel: PathBuf,
    pub(crate) cmdline: Cmdline,
    /// Arguments for QEMU after all others.
    pub(crate) extra: Vec<String>,
}

impl Guest {
    /// QEMU's arguments, without the program.
    pub(crate) fn arguments(&self) -> Result<Vec<String>> {
        let mut arguments: Vec<String> = Vec::new();
        let mut push = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        push(&["-machine", &self.machine.argument(self.acpi)]);
        match self.time {
            Time::Real => push(&["-accel", self.accelerator.argument()]),
            Time::Counted { shift } => {
                if self.accelerator == Accelerator::Kvm {
                    bail!("--icount counts instructions in software; it does not go with --accel kvm");
                }
                push(&["-accel", "tcg", "-icount", &format!("shift={shift},sleep=off")]);
                push(&["-rtc", "base=2026-01-01,clock=vm"]);
            }
        }
        push(&["-cpu", &self.cpu_model, "-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory)]);
        push(&["-nodefaults", "-display", "none", "-monitor", "none", "-serial", "stdio", "-no-reboot"]);
        push(&["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        push(&["-kernel", self.kernel.to_str().context("the path of the kernel must be UTF-8")?]);
        let mut cmdline = Cmdline::default();
        // Tells the guest that the debug-exit port exists.
        cmdline.words("debugexit").words(self.cmdline.finish()?);
        push(&["-append", cmdline.finish()?]);
        if self.gdb {
            push(&["-s", "-S"]);
        }
        arguments.extend(self.extra.iter().cloned());
        Ok(arguments)
    }

    /// The command that starts the guest.
    pub(crate) fn command(&self) -> Result<Command> {
        let program = find_program(PROGRAM).with_context(|| format!("`{PROGRAM}` is not in PATH"))?;
        let mut command = Command::new(program);
        command.args(self.arguments()?);
        Ok(command)
    }
}

/// Makes sure that the emulator is there.
pub(crate) fn require(installing: Installing) -> Result<()> {
    if find_program(PROGRAM).is_none() {
        QEMU.install(installing)?;
    }
    Ok(())
}

/// The emulator's path and version, if it is installed.
pub(crate) fn installed() -> Option<(PathBuf, String)> {
    let path = find_program(PROGRAM)?;
    let output = Command::new(&path).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some((path, parse_version(&text).unwrap_or("of unknown version").to_owned()))
}

/// `7.2.22` from `QEMU emulator version 7.2.22 (Debian ...)`.
fn parse_version(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix("QEMU emulator version ")?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Guest {
        Guest {
            machine: Machine::Q35,
            accelerator: Accelerator::Tcg,
            cpu_model: "max".to_owned(),
            cpus: 4,
            memory: 128,
            acpi: true,
            time: Time::Real,
            gdb: false,
            kernel: PathBuf::from("/k/quiesce"),
            cmdline: Cmdline::default(),
            extra: Vec::new(),
        }
    }

    #[test]
    fn a_plain_guest() {
        let arguments = guest().arguments().unwrap().join(" ");
        assert_eq!(
            arguments,
            "-machine q35,acpi=on -accel tcg,thread=multi -cpu max -smp 4 -m 128M -nodefaults -display none \
             -monitor none -serial stdio -no-reboot -device isa-debug-exit,iobase=0xf4,iosize=0x04 \
             -kernel /k/quiesce -append debugexit"
        );
    }

    #[test]
    fn counted_time_is_single_threaded_and_starts_on_a_fixed_day() {
        let arguments = Guest { time: Time::Counted { shift: 3 }, ..guest() }.arguments().unwrap().join(" ");
        assert!(
            arguments.contains("-accel tcg -icount shift=3,sleep=off -rtc base=2026-01-01,clock=vm"),
            "{arguments}"
        );
        assert!(!arguments.contains("thread=multi"));
        let kvm = Guest { time: Time::Counted { shift: 3 }, accelerator: Accelerator::Kvm, ..guest() };
        assert!(kvm.arguments().is_err());
    }

    #[test]
    fn a_persons_own_arguments_come_last() {
        let mut guest = Guest { gdb: true, extra: vec!["-d".into(), "int".into()], ..guest() };
        guest.cmdline.set("exec", "cpus; mem");
        let arguments = guest.arguments().unwrap();
        assert_eq!(arguments[arguments.len() - 4..], ["-s", "-S", "-d", "int"]);
        assert!(arguments.contains(&"debugexit exec=\"cpus; mem\"".to_owned()));
    }

    #[test]
    fn the_version_is_read() {
        let text = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright\n";
        assert_eq!(parse_version(text), Some("7.2.22"));
        assert_eq!(parse_version("nonsense"), None);
    }
}
