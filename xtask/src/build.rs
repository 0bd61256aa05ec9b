//! Builds kernels for their target, in a folder of their own.
//!
//! The inner cargo must not inherit what the outer one set (toolchain, flags, target folder), or host and kernel
//! builds would invalidate each other. Kernels with different features share that folder, and with it the core library and
//! whatever else the features do not change; cargo gives all of them the same name, so each is kept under its own.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use crate::packages::Installing;
use crate::sanitizer::{self, Sanitizer};
use crate::strip;
use crate::toolchain::{Choice, Library, TARGET, Toolchain};
use crate::ui::{self, Step};
use crate::workspace;

/// Optimised or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Release,
    Debug,
}

/// Whether `chaos_point()` is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chaos {
    Off,
    Seeded,
}

/// Which readers RCU has.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rcu {
    /// Tasks may be preempted in their sections
    Preemptible,
    /// Sections are regions without preemption
    Nonpreemptible,
    /// The same, for a machine with one CPU: no tree of CPUs; further CPUs are left alone
    Tiny,
}

impl Rcu {
    fn features(self) -> &'static [&'static str] {
        match self {
            Rcu::Preemptible => &[],
            Rcu::Nonpreemptible => &["rcu-nonpreemptible"],
            Rcu::Tiny => &["rcu-nonpreemptible", "rcu-tiny"],
        }
    }
}

/// What differs between builds of one profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Whether `chaos_point()` is live.
    pub(crate) chaos: Chaos,
    /// Ticks a second, where not the usual number.
    pub(crate) hz: Option<u32>,
    /// Which readers RCU has.
    pub(crate) rcu: Rcu,
}

impl From<Chaos> for Variant {
    fn from(chaos: Chaos) -> Self {
        Self { chaos, hz: None, rcu: Rcu::Preemptible }
    }
}

impl Variant {
    /// What the file of such a kernel is called.
    fn name(self, binary: &str) -> String {
        let chaos = if self.chaos == Chaos::Seeded { "-chaos" } else { "" };
        let rcu = self.rcu.features().last().map_or(String::new(), |feature| format!("-{feature}"));
        let hz = self.hz.map_or(String::new(), |hz| format!("-{hz}hz"));
        format!("{binary}{chaos}{rcu}{hz}")
    }
}

/// The options that every command which builds a kernel shares.
#[derive(Args, Clone, Debug)]
pub(crate) struct BuildOptions {
    /// Build optimised (the default)
    #[arg(long, overrides_with = "debug", help_heading = "Build")]
    release: bool,
    /// Build with little optimisation and all debug assertions
    #[arg(long, overrides_with = "release", help_heading = "Build")]
    debug: bool,
    /// Check accesses to memory; implies --debug, and compiles the core library, too
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with = "release", help_heading = "Build")]
    sanitize: Option<Sanitizer>,
    /// Which compiler to use
    #[arg(long, value_enum, value_name = "WHICH", default_value = "auto", help_heading = "Build")]
    toolchain: Choice,
    /// Never install anything: print the command that would, and stop
    #[arg(long, help_heading = "Build")]
    no_install: bool,
    /// Which readers RCU has
    #[arg(long, value_enum, value_name = "READERS", default_value = "preemptible", help_heading = "Build")]
    rcu: Rcu,
}

/// ` --NAME VALUE`, or nothing if that is what it is without being said.
pub(crate) fn word<T: ValueEnum + PartialEq>(name: &str, value: T, usual: T) -> String {
    if value == usual { String::new() } else { said(name, &value) }
}

/// ` --NAME VALUE`.
pub(crate) fn said<T: ValueEnum>(name: &str, value: &T) -> String {
    value.to_possible_value().map_or(String::new(), |value| format!(" --{name} {}", value.get_name()))
}

impl BuildOptions {
    pub(crate) fn profile(&self) -> Profile {
        if self.debug || self.sanitize.is_some() { Profile::Debug } else { Profile::Release }
    }

    /// What accesses to memory are checked for.
    pub(crate) fn sanitizer(&self) -> Option<Sanitizer> {
        self.sanitize
    }

    /// The words that ask in a command for what these options ask for, each after a space.
    pub(crate) fn words(&self) -> String {
        let mut words = String::new();
        if self.debug {
            words += " --debug";
        }
        if let Some(sanitizer) = self.sanitize {
            words += &format!(" --sanitize {}", sanitizer.name());
        }
        words + &word("toolchain", self.toolchain, Choice::Auto) + &word("rcu", self.rcu, Rcu::Preemptible)
    }

    /// How much more time a guest may take because its kernel is instrumented.
    pub(crate) fn patience(&self) -> u32 {
        self.sanitize.map_or(1, |_| sanitizer::SLOWER)
    }

    /// For what measures.
    ///
    /// # Errors
    /// If the kernel is not the one that people run.
    pub(crate) fn ensure_measurable(&self) -> Result<()> {
        ensure!(
            self.sanitize.is_none(),
            "what --sanitize builds is not worth measuring: it calls a function for each access"
        );
        Ok(())
    }

    pub(crate) fn toolchain(&self) -> Choice {
        self.toolchain
    }

    pub(crate) fn installing(&self) -> Installing {
        if self.no_install { Installing::Forbidden } else { Installing::Allowed }
    }

    /// Checks of accesses are in the core library, too, for which its source is needed.
    fn choose_toolchain(&self) -> Result<Toolchain> {
        let choose = |choice, installing| Toolchain::choose(choice, installing);
        match (self.sanitize, self.toolchain) {
            (Some(_), Choice::Auto) => choose(Choice::Debian, Installing::Forbidden)
                .or_else(|_| choose(Choice::RustSrc, Installing::Forbidden))
                .or_else(|_| choose(Choice::Debian, self.installing())),
            // Before anything is installed for it.
            (Some(_), Choice::Target) => {
                bail!(
                    "--sanitize compiles the core library, too: --toolchain debian or rust-src has its source"
                )
            }
            (_, choice) => choose(choice, self.installing()),
        }
    }

    /// Finds a toolchain and builds the kernel with it.
    pub(crate) fn build(&self, variant: impl Into<Variant>) -> Result<Kernel> {
        let toolchain = self.choose_toolchain()?;
        let mut variant = variant.into();
        // A scenario's own wish comes first.
        if variant.rcu == Rcu::Preemptible {
            variant.rcu = self.rcu;
        }
        Kernel::build(&toolchain, self.profile(), variant, self.sanitize, &QUIESCE)
    }

    /// The same for the kernel in `examples/other-kernel`.
    pub(crate) fn build_other(&self) -> Result<Kernel> {
        let toolchain = Toolchain::choose(self.toolchain, self.installing())?;
        Kernel::build(&toolchain, self.profile(), Chaos::Off.into(), None, &OTHER)
    }
}

/// A program for the kernel target.
struct Program {
    package: &'static str,
    binary: &'static str,
    /// What progress messages call it.
    name: &'static str,
}

const QUIESCE: Program = Program { package: "kernel", binary: "quiesce", name: "the kernel" };
const OTHER: Program = Program { package: "other-kernel", binary: "other-kernel", name: "the other kernel" };

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The stripped ELF, which is what boots.
    pub(crate) elf: PathBuf,
    /// The same with symbols and line tables.
    pub(crate) symbols: PathBuf,
}

impl Kernel {
    /// Builds the program; quick when nothing changed.
    fn build(
        toolchain: &Toolchain,
        profile: Profile,
        variant: Variant,
        sanitizer: Option<Sanitizer>,
        program: &Program,
    ) -> Result<Self> {
        let folder =
            sanitizer.map_or_else(target_folder, |sanitizer| workspace::target().join(sanitizer.folder()));
        let products = folder.join(TARGET).join(profile_folder(profile));
        if !products.exists() {
            announce(toolchain);
        }
        let started = Instant::now();
        let described = match sanitizer {
            Some(sanitizer) => sanitizer.target(&toolchain.rustc, TARGET, &folder)?,
            None => None,
        };
        let mut command = match &described {
            Some(file) => cargo_for(file.as_os_str(), toolchain, "build", &folder),
            None => cargo(toolchain, "build", &folder),
        };
        command.args(["--package", program.package, "--bin", program.binary]);
        if let Some(sanitizer) = sanitizer {
            let flags = [sanitizer.flags(), &[sanitizer.cfg()]].concat();
            command.arg("--config").arg(format!("target.{TARGET}.rustflags={flags:?}"));
        }
        if profile == Profile::Release {
            command.arg("--release");
        }
        if variant.chaos == Chaos::Seeded {
            command.args(["--features", "chaos"]);
        }
        for feature in variant.rcu.features() {
            command.args(["--features", feature]);
        }
        if let Some(hz) = variant.hz {
            command.env("QUIESCE_HZ", hz.to_string());
        }
        let result =
            Step::new(format!("building {} ({})", variant.name(program.name), profile_folder(profile)))
                .limit(Duration::from_secs(1200))
                .run(command)?;
        if result.output.contains("warning") && started.elapsed() > Duration::from_millis(500) {
            eprint!("{}", result.output);
        }
        let symbols = products.join(variant.name(program.binary)).with_extension("symbols");
        let elf = symbols.with_extension("stripped");
        keep(&products.join(program.binary), &symbols)?;
        strip::strip_file(&symbols, &elf)?;
        Ok(Self { elf, symbols })
    }

    /// The size of the bootable file in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        Ok(fs::metadata(&self.elf).with_context(|| format!("reading {}", self.elf.display()))?.len())
    }
}

/// A cargo command for the kernel target, cut off from the cargo that runs xtask.
pub(crate) fn cargo(toolchain: &Toolchain, subcommand: &str, target_folder: &Path) -> Command {
    cargo_for(OsStr::new(TARGET), toolchain, subcommand, target_folder)
}

/// The same for a target that may be a file with its description, which is named as the target is.
fn cargo_for(target: &OsStr, toolchain: &Toolchain, subcommand: &str, target_folder: &Path) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    command.current_dir(workspace::root());
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if is_inherited_setting(&name) {
            command.env_remove(&*name);
        }
    }
    command.env("RUSTC", &toolchain.rustc);
    if let (Some(bin), Some(path)) = (toolchain.cargo.parent(), env::var_os("PATH")) {
        // `cargo clippy` is a program that cargo looks up, and it must match the compiler.
        let folders = std::iter::once(bin.to_path_buf()).chain(env::split_paths(&path));
        if let Ok(path) = env::join_paths(folders) {
            command.env("PATH", path);
        }
    }
    command.arg(subcommand);
    if toolchain.library == Library::Source {
        command.env("RUSTC_BOOTSTRAP", "1");
        command
            .args(["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
    }
    if target != TARGET {
        command.arg("-Zjson-target-spec");
    }
    // Values given by `--config` are appended to the flags in `.cargo/config.toml`.
    command
        .arg("--target")
        .arg(target)
        .arg("--target-dir")
        .arg(target_folder)
        .arg("--config")
        .arg(format!("target.{TARGET}.linker={:?}", toolchain.linker.path.display().to_string()))
        .arg("--config")
        .arg(format!("target.{TARGET}.rustflags=[\"-Clinker-flavor=ld.lld\"]"));
    if ui::interactive() {
        command.args(["--color", "always"]);
    }
    command
}

/// Variables of an outer cargo or rustup, or of a person's host build, that would leak into the kernel's.
pub(crate) fn is_inherited_setting(name: &str) -> bool {
    let kept =
        ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_HTTP_PROXY", "CARGO_HTTP_CAINFO", "CARGO_TERM_COLOR"];
    let leaks = name.starts_with("CARGO") || name.starts_with("RUSTC") || name.starts_with("RUSTDOC");
    (leaks && !kept.contains(&name) && !name.starts_with("CARGO_REGISTR"))
        || matches!(name, "RUSTFLAGS" | "RUSTUP_TOOLCHAIN" | "TARGET" | "LD_LIBRARY_PATH")
}

fn announce(toolchain: &Toolchain) {
    let (what, seconds) = match toolchain.library {
        Library::Installed => ("", 40),
        Library::Source => (" and the core library", 90),
    };
    ui::note(format_args!("first build of the kernel{what} with {toolchain}: about {seconds} s"));
}

pub(crate) fn target_folder() -> PathBuf {
    workspace::target().join("kernel")
}

/// Copies `from`, which the next build replaces, to `to`, unless it is there already.
fn keep(from: &Path, to: &Path) -> Result<()> {
    // What cargo does not build anew it puts back as it was, so the times alone do not tell one kernel from another.
    let read = |file: &Path| fs::read(file).with_context(|| format!("reading {}", file.display()));
    let built = read(from)?;
    if to.exists() && read(to)? == built {
        return Ok(());
    }
    let partial = to.with_extension("partial");
    fs::write(&partial, built).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("writing {}", to.display()))
}

fn profile_folder(profile: Profile) -> &'static str {
    match profile {
        Profile::Release => "release",
        Profile::Debug => "debug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_differ_have_names_that_do() {
        let name = |chaos, rcu| Variant { rcu, ..Variant::from(chaos) }.name("quiesce");
        assert_eq!(name(Chaos::Off, Rcu::Preemptible), "quiesce");
        assert_eq!(name(Chaos::Off, Rcu::Nonpreemptible), "quiesce-rcu-nonpreemptible");
        assert_eq!(name(Chaos::Seeded, Rcu::Tiny), "quiesce-chaos-rcu-tiny");
    }

    #[test]
    fn the_inner_build_is_cut_off() {
        for name in
            ["RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "CARGO", "CARGO_PKG_NAME"]
        {
            assert!(is_inherited_setting(name), "{name}");
        }
        for name in
            ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRIES_X_INDEX", "RUSTUP_HOME"]
        {
            assert!(!is_inherited_setting(name), "{name}");
        }
    }
}
