//! `cargo xtask lint`: clippy over what `cargo clippy` on the workspace does not see.
//!
//! 1. The workspace is compiled with all features that anybody in it asks for. Who uses one of the libraries alone has
//!    fewer: each library is looked at with none, and with each of its features by itself.
//! 2. A host sees everything but the machine's half: trap entries, page tables, the boot path. The kernel is looked at for
//!    its own target, with whatever compiler `run` would take, and with the code for its checked builds; so is the example
//!    of another kernel, which has none of the machine.

use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::build;
use crate::packages::{CLIPPY, Installing};
use crate::sanitizer::Sanitizer;
use crate::toolchain::{Choice, Toolchain};
use crate::ui::{self, Exit, Step};
use crate::workspace;

/// What test runners take for "skipped".
const SKIPPED: u8 = 77;

/// The crates that others use with features of their choice.
const LIBRARIES: [&str; 4] = ["hal", "sync", "timers", "rcu"];

/// Run clippy over each library with fewer features, and over the kernel as compiled for its own target.
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
        lint_feature_sets()?;
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
        for program in PROGRAMS {
            program.lint(&toolchain)?;
        }
        ui::note("both kernels are clean for their own target, too");
        Ok(())
    }
}

/// What is looked at for the kernel's target.
struct Program {
    name: &'static str,
    package: &'static str,
    features: &'static str,
    sanitizer: Option<Sanitizer>,
}

const KERNEL: Program = Program { name: "the kernel", package: "kernel", features: "", sanitizer: None };

const PROGRAMS: [Program; 6] = [
    KERNEL,
    Program { name: "the kernel, --rcu nonpreemptible", features: "rcu-nonpreemptible", ..KERNEL },
    Program { name: "the kernel, --rcu tiny", features: "rcu-nonpreemptible,rcu-tiny", ..KERNEL },
    Program { name: "the kernel, --sanitize address", sanitizer: Some(Sanitizer::Address), ..KERNEL },
    Program { name: "the kernel, --sanitize thread", sanitizer: Some(Sanitizer::Thread), ..KERNEL },
    Program { name: "the other kernel", package: "other-kernel", ..KERNEL },
];

impl Program {
    fn lint(&self, toolchain: &Toolchain) -> Result<()> {
        let mut command = build::cargo(toolchain, "clippy", &build::target_folder());
        command.args(["--package", self.package, "--bins", "--features", self.features]);
        command.args(["--", "-D", "warnings"]);
        if let Some(sanitizer) = self.sanitizer {
            // What its code looks like, without the compiler's part in it, which takes a library of its own.
            command.env("RUSTC_BOOTSTRAP", "1").arg(sanitizer.cfg());
        }
        Step::new(format!("clippy for {}, for its target", self.name)).run(command)?;
        Ok(())
    }
}

/// Clippy for this host over each library without its features, and with each of them alone.
fn lint_feature_sets() -> Result<()> {
    let metadata = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: Value =
        serde_json::from_slice(&metadata.stdout).context("reading what `cargo metadata` says")?;
    for library in LIBRARIES {
        let features = features_of(&metadata, library);
        let features = features.with_context(|| format!("`cargo metadata` knows no package {library}"))?;
        for feature in [""].into_iter().chain(features) {
            let mut command = cargo();
            command.args(["clippy", "--quiet", "--package", library, "--no-default-features"]);
            command.args(["--features", feature, "--", "-D", "warnings"]);
            let set = if feature.is_empty() { "without features" } else { feature };
            Step::new(format!("clippy for {library}, {set}")).run(command)?;
        }
    }
    ui::note(format_args!("{} are clean with fewer features, too", LIBRARIES.join(", ")));
    Ok(())
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace::root());
    command
}

/// The names of a package's features, without the set of those that are on by default. `None` if there is no such package.
fn features_of<'a>(metadata: &'a Value, package: &str) -> Option<Vec<&'a str>> {
    let packages = metadata["packages"].as_array()?;
    let package = packages.iter().find(|other| other["name"] == package)?;
    let features = package["features"].as_object()?;
    Some(features.keys().map(String::as_str).filter(|name| *name != "default").collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn features_are_those_of_the_package_without_the_default_set() {
        let packages = json!({ "packages": [
            { "name": "other", "features": { "wrong": [] } },
            { "name": "timers", "features": { "alloc": [], "default": ["alloc"], "machine": ["hal/machine"] } },
        ] });
        assert_eq!(features_of(&packages, "timers"), Some(vec!["alloc", "machine"]));
        assert_eq!(features_of(&packages, "none"), None);
    }
}
