//! Debian packages: what is missing is installed, or the exact command for it is printed.
//!
//! Installing needs apt and the right to use it (root, or sudo without a password). The package lists are only
//! refreshed when they are absent or too old to fetch from, because that alone can take half a minute.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ui::{self, Step};
use crate::workspace::find_program;

/// What xtask is allowed to change on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installing {
    /// Missing tools may be installed.
    Allowed,
    /// Nothing is installed; the command that would do it is printed.
    Forbidden,
}

/// Packages that belong together, and why they are needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) packages: &'static [&'static str],
    pub(crate) why: &'static str,
    /// What to do on a system without apt.
    pub(crate) by_hand: &'static str,
}

/// The emulator.
pub(crate) const QEMU: Need = Need {
    packages: &["qemu-system-x86"],
    why: "QEMU, to boot the kernel",
    by_hand: "install QEMU 7.2 or newer with `qemu-system-x86_64` (package qemu-system-x86, qemu-system-x86_64 or qemu)",
};

/// A compiler together with the library source that matches it.
pub(crate) const COMPILER: Need = Need {
    packages: &["rustc-web", "cargo-web", "rust-web-src"],
    why: "a Rust compiler with library source, to build for the kernel target",
    by_hand: "add the kernel target to your Rust toolchain: `rustup target add x86_64-unknown-none`",
};

/// The linter that belongs to that compiler.
pub(crate) const CLIPPY: Need = Need {
    packages: &["rust-web-clippy"],
    why: "clippy for Debian's compiler, to lint the kernel for its own target",
    by_hand: "use a toolchain that has clippy and the kernel target: `rustup component add clippy`",
};

/// A linker for bare-metal ELF files.
pub(crate) const LINKER: Need = Need {
    packages: &["lld"],
    why: "ld.lld, to link the kernel",
    by_hand: "install LLVM's linker (package lld)",
};

impl Need {
    /// The command that a person would type.
    pub(crate) fn command(&self) -> String {
        let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
        format!(
            "{sudo}apt-get update && {sudo}apt-get install --yes --no-install-recommends {}",
            self.packages.join(" ")
        )
    }

    /// Installs the packages, or says how to.
    pub(crate) fn install(&self, installing: Installing) -> Result<()> {
        let Some(apt) = Apt::find() else {
            bail!("missing: {}.\nThis system has no apt; {}", self.why, self.by_hand);
        };
        if installing == Installing::Forbidden {
            bail!("missing: {}.\nInstall it with:\n\n    {}\n", self.why, self.command());
        }
        let Some(prefix) = privileges() else {
            bail!(
                "missing: {}.\nInstalling needs root or sudo without a password. Run:\n\n    {}\n",
                self.why,
                self.command()
            );
        };
        if !apt.has_candidates(self.packages) {
            apt.update(&prefix)?;
            if !apt.has_candidates(self.packages) {
                bail!(
                    "missing: {}.\nThis system's package lists do not have {}; {}",
                    self.why,
                    self.packages.join(", "),
                    self.by_hand
                );
            }
        }
        ui::note(format_args!(
            "installing {} ({}); {}",
            self.packages.join(" "),
            self.why,
            apt.size(self.packages)
        ));
        let first = apt.install_step(self).try_run(apt.install_command(&prefix, self.packages))?;
        if first.success {
            return Ok(());
        }
        // The lists may name versions that the mirror no longer has: refresh them and try once more.
        apt.update(&prefix)?;
        apt.install_step(self)
            .run(apt.install_command(&prefix, self.packages))
            .with_context(|| format!("by hand: {}", self.command()))?;
        Ok(())
    }
}

/// The words that make a command run as root; `None` when that would need a password.
fn privileges() -> Option<Vec<PathBuf>> {
    if rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let sudo = find_program("sudo")?;
    let allowed = Command::new(&sudo)
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    allowed.then(|| vec![sudo, PathBuf::from("-n")])
}

struct Apt {
    get: PathBuf,
    cache: PathBuf,
}

impl Apt {
    fn find() -> Option<Self> {
        Some(Self { get: find_program("apt-get")?, cache: find_program("apt-cache")? })
    }

    /// Whether the package lists offer every one of `packages`.
    fn has_candidates(&self, packages: &[&str]) -> bool {
        packages.iter().all(|package| {
            let output = Command::new(&self.cache).args(["policy", package]).env("LC_ALL", "C").output();
            output.is_ok_and(|output| candidate(&String::from_utf8_lossy(&output.stdout)).is_some())
        })
    }

    fn update(&self, prefix: &[PathBuf]) -> Result<()> {
        ui::note("the package lists are missing or too old; refreshing them takes about 20 s");
        let mut command = as_root(prefix, &self.get);
        command.arg("update");
        Step::new("apt-get update").gentle().limit(Duration::from_secs(180)).run(command)?;
        Ok(())
    }

    fn install_step(&self, need: &Need) -> Step {
        Step::new(format!("installing {}", need.packages.join(" "))).gentle().limit(Duration::from_secs(900))
    }

    fn install_command(&self, prefix: &[PathBuf], packages: &[&str]) -> Command {
        let mut command = as_root(prefix, &self.get);
        command
            .args(["install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"])
            .args(packages);
        command
    }

    /// "67 MB to fetch, about 40 s", as far as apt can say.
    fn size(&self, packages: &[&str]) -> String {
        let output = Command::new(&self.get)
            .args(["-qq", "--print-uris", "--yes", "--no-install-recommends", "install"])
            .args(packages)
            .env("LC_ALL", "C")
            .output();
        let bytes = output.map_or(0, |output| download_size(&String::from_utf8_lossy(&output.stdout)));
        if bytes == 0 {
            return "takes about a minute".to_owned();
        }
        let megabytes = bytes.div_ceil(1_000_000);
        // Unpacking and set-up dominate: measured at about 3 MB/s of archive, and a few seconds of start.
        format!("{megabytes} MB to fetch, about {} s", 10 + megabytes / 3)
    }
}

fn as_root(prefix: &[PathBuf], program: &Path) -> Command {
    let mut words = prefix
        .iter()
        .map(PathBuf::as_path)
        .chain([Path::new("env"), Path::new("DEBIAN_FRONTEND=noninteractive")])
        .chain([program]);
    // The chain holds `env` at least.
    let mut command = Command::new(words.next().unwrap_or(program));
    command.args(words);
    command
}

/// The version that apt would install, from `apt-cache policy PACKAGE`.
fn candidate(policy: &str) -> Option<&str> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then_some(version)
}

/// The sum of the sizes in the output of `apt-get --print-uris`.
fn download_size(uris: &str) -> u64 {
    uris.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read() {
        assert_eq!(candidate("lld:\n  Installed: (none)\n  Candidate: 1:14.0\n"), Some("1:14.0"));
        assert_eq!(candidate("lld:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn sizes_are_summed() {
        let uris = "'http://x/a.deb' a.deb 1000 SHA256:1\n'http://x/b.deb' b.deb 2345 SHA256:2\n";
        assert_eq!(download_size(uris), 3345);
        assert_eq!(download_size("nothing here\n"), 0);
    }

    #[test]
    fn the_command_for_a_person_is_complete() {
        assert!(QEMU.command().ends_with("apt-get install --yes --no-install-recommends qemu-system-x86"));
    }
}
