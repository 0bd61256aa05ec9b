//! LLVM's linker: rustc's own copy if any toolchain has one, else the system's.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages::{Installing, LINKER};
use crate::workspace::find_program;

/// A linker that understands `-C linker-flavor=ld.lld`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl Linker {
    /// Looks in `sysroot`, then in every rustup toolchain, then in `PATH`; installs a package as the last resort.
    pub(super) fn find(sysroot: &Path, installing: Installing) -> Result<Self> {
        if let Some(path) = Self::look(sysroot) {
            return Ok(Self { path });
        }
        LINKER.install(installing)?;
        let path =
            Self::look(sysroot).context("the package lld is installed, but `ld.lld` is not in PATH")?;
        Ok(Self { path })
    }

    fn look(sysroot: &Path) -> Option<PathBuf> {
        in_sysroot(sysroot)
            .or_else(|| rustup_toolchains().iter().find_map(|toolchain| in_sysroot(toolchain)))
            .or_else(|| find_program("rust-lld"))
            .or_else(|| find_program("ld.lld"))
            .or_else(versioned)
    }
}

fn in_sysroot(sysroot: &Path) -> Option<PathBuf> {
    // One folder a host: a toolchain holds its own, whatever its name, and at most targets without programs besides.
    let hosts = fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
    hosts.flatten().map(|host| host.path().join("bin/rust-lld")).find(|file| file.exists())
}

fn rustup_toolchains() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup")));
    let entries = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut found: Vec<_> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // Folder order is arbitrary; the same machine should always get the same linker. "stable" sorts last.
    found.sort();
    found.reverse();
    found
}

/// Debian's versioned names, the newest first.
fn versioned() -> Option<PathBuf> {
    (13..=30).rev().find_map(|version| find_program(&format!("ld.lld-{version}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_toolchains_own_linker_comes_first() {
        let sysroot = tempfile::tempdir().unwrap();
        let folder = sysroot.path().join("lib/rustlib/x86_64-unknown-linux-gnu/bin");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("rust-lld"), "").unwrap();
        let found = Linker::find(sysroot.path(), Installing::Forbidden).unwrap();
        assert_eq!(found.path, folder.join("rust-lld"));
    }
}
