//! A compiler for `x86_64-unknown-none`, wherever this machine can get one from.
//!
//! In this order:
//! 1. the active toolchain, when it has the target's library installed;
//! 2. Debian's `rustc-web`, `cargo-web` and `rust-web-src`, when they are installed: their library source is compiled
//!    along with the kernel, and nothing has to be fetched;
//! 3. the active toolchain, after `rustup target add` (a failure is remembered for a day, so that an offline machine
//!    waits once);
//! 4. the active toolchain's own library source (`rust-src`);
//! 5. Debian's packages, installed now.
//!
//! Compiling the library needs one unstable cargo option, hence `RUSTC_BOOTSTRAP=1` for all but 1 and 3. The kernel itself uses
//! stable features only.

mod linker;
mod rustup;

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::packages::{COMPILER, Installing};
use crate::workspace::find_program;

pub(crate) use linker::Linker;

/// The kernel's target.
pub(crate) const TARGET: &str = "x86_64-unknown-none";

/// The oldest compiler that builds the kernel, as in the workspace's `rust-version`.
const OLDEST: (u32, u32) = (1, 95);

/// Which compiler to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// The first of the others that works
    #[default]
    Auto,
    /// The active toolchain with its installed kernel target (added by rustup if need be)
    Target,
    /// The active toolchain with its library source (component rust-src)
    RustSrc,
    /// Debian's rustc-web, cargo-web and rust-web-src
    Debian,
}

/// How a toolchain gets the target's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// It is installed.
    Installed,
    /// It is compiled from source along with the kernel.
    Source,
}

/// A compiler, its cargo and a linker that together build the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) version: String,
    pub(crate) library: Library,
    pub(crate) linker: Linker,
    /// One phrase on where it comes from.
    pub(crate) origin: &'static str,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let library = match self.library {
            Library::Installed => "installed target library",
            Library::Source => "target library compiled from source",
        };
        write!(f, "rustc {} ({}, {library})", self.version, self.origin)
    }
}

impl Toolchain {
    /// Finds a toolchain, and installs what is missing if that is allowed.
    pub(crate) fn choose(choice: Choice, installing: Installing) -> Result<Self> {
        let found = match choice {
            Choice::Auto => Self::first_that_works(installing)?,
            Choice::Target => Some(Self::active_with_target(installing)?.with_context(|| {
                format!(
                    "the active toolchain has no library for {TARGET}; add it: `rustup target add {TARGET}`"
                )
            })?),
            Choice::RustSrc => Some(Self::active_with_source()?.context(
                "the active toolchain has no library source; add it: `rustup component add rust-src`",
            )?),
            Choice::Debian => None,
        };
        let candidate = match found {
            Some(candidate) => candidate,
            None => Candidate::debian(installing)?,
        };
        candidate.finish(installing)
    }

    /// What [`Self::choose`] would take without installing anything; for `doctor`.
    pub(crate) fn present(choice: Choice) -> Option<Self> {
        Self::choose(choice, Installing::Forbidden).ok()
    }

    /// The order of the module's documentation, but for its last entry.
    fn first_that_works(installing: Installing) -> Result<Option<Candidate>> {
        if let Some(found) = Self::active_with_target(Installing::Forbidden)? {
            return Ok(Some(found));
        }
        if let Ok(found) = Candidate::debian(Installing::Forbidden) {
            return Ok(Some(found));
        }
        match Self::active_with_target(installing)? {
            Some(found) => Ok(Some(found)),
            None => Self::active_with_source(),
        }
    }

    fn active_with_target(installing: Installing) -> Result<Option<Candidate>> {
        let Some(active) = Candidate::active() else { return Ok(None) };
        if active.has_target() {
            return Ok(Some(active));
        }
        if installing == Installing::Allowed && rustup::add_target(&active.sysroot)? && active.has_target() {
            return Ok(Some(active));
        }
        Ok(None)
    }

    fn active_with_source() -> Result<Option<Candidate>> {
        Ok(Candidate::active().filter(Candidate::has_source).map(|active| Candidate {
            library: Library::Source,
            origin: "the active toolchain",
            ..active
        }))
    }
}

/// A compiler before its linker is known.
#[derive(Clone, Debug)]
struct Candidate {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    library: Library,
    origin: &'static str,
}

impl Candidate {
    /// The toolchain that runs xtask right now.
    ///
    /// Its programs are named by their full paths: rustup's proxies would look at variables and files that the kernel
    /// build should not depend on.
    fn active() -> Option<Self> {
        let rustc = env::var_os("RUSTC").map(PathBuf::from).or_else(|| find_program("rustc"))?;
        let sysroot = PathBuf::from(output_of(Command::new(rustc).args(["--print", "sysroot"])).ok()?.trim());
        let bin = sysroot.join("bin");
        let (cargo, rustc) = (bin.join("cargo"), bin.join("rustc"));
        (cargo.exists() && rustc.exists()).then_some(Self {
            cargo,
            rustc,
            sysroot,
            library: Library::Installed,
            origin: "the active toolchain",
        })
    }

    /// Debian's packages, installed if need be.
    fn debian(installing: Installing) -> Result<Self> {
        let candidate = Self {
            cargo: PathBuf::from("/usr/bin/cargo"),
            rustc: PathBuf::from("/usr/bin/rustc"),
            sysroot: PathBuf::from("/usr"),
            library: Library::Source,
            origin: "Debian's packages",
        };
        if !(candidate.cargo.exists() && candidate.rustc.exists() && candidate.has_source()) {
            COMPILER.install(installing).with_context(|| {
                format!("no compiler for {TARGET} (with rustup and a network: `rustup target add {TARGET}`)")
            })?;
        }
        ensure!(
            candidate.has_source(),
            "the packages {} are installed, but {} is missing",
            COMPILER.packages.join(", "),
            candidate.sysroot.join("lib/rustlib/src/rust/library").display()
        );
        Ok(candidate)
    }

    fn has_target(&self) -> bool {
        let folder = self.sysroot.join("lib/rustlib").join(TARGET).join("lib");
        fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        })
    }

    fn has_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    }

    fn finish(self, installing: Installing) -> Result<Toolchain> {
        let version = version_of(&self.rustc)?;
        let Some(number) = parse_version(&version) else {
            bail!("`{} --version` printed something unexpected: {version}", self.rustc.display());
        };
        ensure!(
            number >= OLDEST,
            "{} is version {version}; the kernel needs {}.{} or newer: `rustup update stable`, or let apt upgrade {}",
            self.rustc.display(),
            OLDEST.0,
            OLDEST.1,
            COMPILER.packages.join(" ")
        );
        let linker = Linker::find(&self.sysroot, installing)?;
        Ok(Toolchain {
            cargo: self.cargo,
            rustc: self.rustc,
            version,
            library: self.library,
            linker,
            origin: self.origin,
        })
    }
}

/// `1.95.0` from `rustc 1.95.0 (59807616e 2026-04-14)`.
fn version_of(rustc: &Path) -> Result<String> {
    let text = output_of(Command::new(rustc).arg("--version"))?;
    Ok(text.split_whitespace().nth(1).unwrap_or(text.trim()).to_owned())
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running `{program}`"))?;
    ensure!(
        output.status.success(),
        "`{program}` failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(parse_version("1.95.0"), Some((1, 95)));
        assert_eq!(parse_version("1.100.0-nightly"), Some((1, 100)));
        assert_eq!(parse_version("what"), None);
        assert!(parse_version("1.100.0") > parse_version("1.95.0"));
    }

    #[test]
    fn the_target_counts_as_installed_only_with_its_core_library() {
        let sysroot = tempfile::tempdir().unwrap();
        let candidate = Candidate {
            cargo: PathBuf::new(),
            rustc: PathBuf::new(),
            sysroot: sysroot.path().to_owned(),
            library: Library::Installed,
            origin: "a test",
        };
        let folder = sysroot.path().join("lib/rustlib/x86_64-unknown-none/lib");
        fs::create_dir_all(&folder).unwrap();
        assert!(!candidate.has_target());
        fs::write(folder.join("libcore-0123.rlib"), "").unwrap();
        assert!(candidate.has_target());
    }
}
