//! `cargo xtask lint`: clippy over the code that only the kernel target compiles.
//!
//! `cargo clippy` on a host sees everything but the machine's half: trap entries, page tables, the boot path. This runs
//! it for the kernel's target, with whatever compiler `run` would take.

use anyhow::Result;
use clap::Args;

use crate::build;
use crate::packages::{CLIPPY, Installing};
use crate::toolchain::{Choice, Toolchain};
use crate::ui::{self, Exit, Step};

/// What test runners take for "skipped".
const SKIPPED: u8 = 77;

/// Run clippy over the kernel as compiled for its own target.
///
/// The exit code is 77 when the compiler for that target has no clippy.
#[derive(Args)]
pub(crate) struct Lint {
    /// Which compiler to use
    #[arg(long, value_enum, value_name = "WHICH", default_value = "auto")]
    toolchain: Choice,
    /// Never install anything: print the command that would, and stop
    #[arg(long)]
    no_install: bool,
}

impl Lint {
    pub(crate) fn run(self) -> Result<()> {
        let installing = if self.no_install { Installing::Forbidden } else { Installing::Allowed };
        let toolchain = Toolchain::choose(self.toolchain, installing)?;
        let clippy = toolchain.cargo.with_file_name("cargo-clippy");
        // Debian packs it separately. What could not be installed is a reason to skip, and not to fail.
        if !clippy.exists()
            && toolchain.cargo.starts_with("/usr/bin")
            && let Err(error) = CLIPPY.install(installing)
        {
            ui::note(format_args!("{error:#}"));
        }
        if !clippy.exists() {
            let text = format!("skipped: {toolchain} comes without clippy");
            return Err(Exit::with(SKIPPED, text));
        }
        let mut command = build::cargo(&toolchain, "clippy", &build::target_folder());
        command.args(["--package", "kernel", "--bin", "quiesce", "--", "-D", "warnings"]);
        Step::new("clippy for the kernel target").run(command)?;
        ui::note("the kernel is clean for its own target, too");
        Ok(())
    }
}
