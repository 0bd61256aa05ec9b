//! `cargo xtask run`: build, boot, and connect the guest's console to this terminal.

mod escapes;
mod session;

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::build::{BuildOptions, Chaos, Kernel};
use crate::cmdline::Cmdline;
use crate::qemu::{self, Accelerator, Ending, Guest, GuestOptions, Machine, Time, parse_cpus};
use crate::ui::{self, Exit};
use crate::workspace;

use session::{Session, Stop};

/// What `timeout(1)` exits with, too.
const TIMED_OUT: u8 = 124;

/// Build the kernel, boot it in QEMU and connect its console to this terminal.
///
/// Ctrl-A X leaves, Ctrl-A H lists the other keys. The exit code is 0 when the guest powers off in good order, 1 when it
/// reports a failure or resets, and 124 when --timeout ended it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask run                                  4 CPUs, a prompt\n  \
    cargo xtask run --cpus 64 --memory 512M          many\n  \
    cargo xtask run --exec 'cpus; demo percpu'       no terminal needed; exit code 0 if all commands succeed\n  \
    cargo xtask run --icount 3 --seed 7              the same boot, every time\n  \
    cargo xtask run -- -d int -D /tmp/interrupts     more arguments for QEMU")]
pub(crate) struct Run {
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_cpus, help_heading = "Guest")]
    cpus: u32,
    /// Machine model
    #[arg(long, value_enum, value_name = "MODEL", default_value = "q35", help_heading = "Guest")]
    machine: Machine,
    #[command(flatten)]
    guest: GuestOptions,
    #[command(flatten)]
    build: BuildOptions,
    /// Run these console commands, separated by `;`, and power off
    #[arg(long, value_name = "COMMANDS")]
    exec: Option<String>,
    /// End the guest after this many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Run by counted instructions of 2^SHIFT ns each: every boot with one seed is the same
    #[arg(long, value_name = "SHIFT", value_parser = clap::value_parser!(u8).range(0..=10), help_heading = "Repeating")]
    icount: Option<u8>,
    /// Seed of the chaos points, which delay CPUs in racy places under --icount
    #[arg(long, value_name = "N", requires = "icount", help_heading = "Repeating")]
    seed: Option<u64>,
    /// Leave the chaos points out: what is counted are the instructions of the kernel as it is without --icount
    #[arg(long, requires = "icount", conflicts_with = "seed", help_heading = "Repeating")]
    no_chaos: bool,
    /// Wait for a debugger before the first instruction
    #[arg(long)]
    gdb: bool,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    append: String,
    /// More arguments for QEMU, after `--`
    #[arg(last = true, value_name = "QEMU ARGS")]
    qemu: Vec<String>,
}

impl Run {
    pub(crate) fn run(self) -> Result<()> {
        qemu::require(self.build.installing())?;
        let chaos = if self.seeded() { Chaos::Seeded } else { Chaos::Off };
        let kernel = self.build.build(chaos)?;
        let guest = self.guest(&kernel)?;
        self.announce(&guest, &kernel);
        let session = Session {
            guest: &guest,
            symbols: &kernel.symbols,
            limit: self.timeout.map(Duration::from_secs),
            takes_input: self.exec.is_none(),
        };
        match session.run()? {
            Stop::Left => Ok(()),
            Stop::Ended(ending) => self.judge(ending),
        }
    }

    /// Whether the kernel has chaos points, which a seed decides about.
    fn seeded(&self) -> bool {
        self.icount.is_some() && !self.no_chaos
    }

    fn guest(&self, kernel: &Kernel) -> Result<Guest> {
        let mut cmdline = Cmdline::default();
        if self.seeded() {
            cmdline.set("seed", &self.seed.unwrap_or(1).to_string());
        }
        if let Some(commands) = &self.exec {
            cmdline.set("exec", commands);
        }
        if self.icount.is_some() && self.cpus > 1 {
            // QEMU counts one CPU at a time, and goes to the next when a timer is due: without ticks a task that spins has
            // the machine for a tenth of a second.
            cmdline.set("tick", "idle");
        }
        cmdline.words(&self.append);
        Ok(Guest {
            machine: self.machine,
            accelerator: match self.icount {
                Some(_) if self.guest.accel == qemu::AccelChoice::Auto => Accelerator::Tcg,
                _ => Accelerator::choose(self.guest.accel)?,
            },
            cpu_model: self.guest.cpu.clone(),
            cpus: self.cpus,
            memory: self.guest.memory,
            acpi: true,
            time: self.icount.map_or(Time::Real, |shift| Time::Counted { shift }),
            gdb: self.gdb,
            kernel: kernel.elf.clone(),
            cmdline,
            extra: self.qemu.clone(),
        })
    }

    fn announce(&self, guest: &Guest, kernel: &Kernel) {
        let cpus = if self.cpus == 1 { "1 CPU".to_owned() } else { format!("{} CPUs", self.cpus) };
        let version = qemu::installed().map_or(String::new(), |(_, version)| format!(" {version}"));
        let accelerator = guest.accelerator.name();
        let mut line =
            format!("booting {cpus}, {} MiB, {}, QEMU{version} ({accelerator})", guest.memory, guest.machine);
        if let Time::Counted { shift } = guest.time {
            line += &match self.seeded() {
                true => format!(", counted time (shift {shift}, seed {})", self.seed.unwrap_or(1)),
                false => format!(", counted time (shift {shift})"),
            };
        }
        if self.exec.is_none() {
            line += "; Ctrl-A X leaves";
        }
        ui::note(line);
        if self.gdb {
            let symbols = workspace::shown(&kernel.symbols);
            ui::note("the guest waits for a debugger; in another terminal:");
            ui::note(format_args!("    gdb {symbols} -ex 'target remote localhost:1234' -ex continue"));
        }
    }

    fn judge(&self, ending: Ending) -> Result<()> {
        match ending {
            Ending::Success => Ok(()),
            Ending::Failure if self.exec.is_some() => {
                Err(Exit::with(1, "a command failed, or the guest did"))
            }
            Ending::TimedOut => {
                let seconds = self.timeout.unwrap_or(0);
                Err(Exit::with(TIMED_OUT, format!("the guest was ended after {seconds} s (--timeout)")))
            }
            Ending::Reset => {
                Err(Exit::with(1, format!("{ending}; `-- -d int,cpu_reset` shows the last interrupts")))
            }
            ending => Err(Exit::with(1, ending.to_string())),
        }
    }
}
