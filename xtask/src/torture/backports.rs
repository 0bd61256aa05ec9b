//! A newer QEMU beside the system's: Debian's backports, unpacked under `target/`, nothing installed.
//!
//! QEMU 7.2 has no x2APIC in emulation and therefore at most 255 CPUs; version 10 has. apt is given sources, lists and a
//! cache of our own, so that the system's are as they were, and is only asked to download. The packages are unpacked side
//! by side, and what is not among them is found on the system, whose packages apt took into account.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::ui::Step;
use crate::workspace::{self, find_program};

const SUITE: &str = "bookworm-backports";
const PACKAGE: &str = "qemu-system-x86";
const SOURCES: &str = "Types: deb\n\
    URIs: http://deb.debian.org/debian\n\
    Suites: bookworm bookworm-updates bookworm-backports\n\
    Components: main\n\
    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";

/// An unpacked QEMU.
#[derive(Clone, Debug)]
pub(super) struct Backport {
    root: PathBuf,
}

impl Backport {
    /// Downloads and unpacks it, unless that was done before.
    pub(super) fn require() -> Result<Self> {
        let folder = workspace::target().join("qemu-backports");
        let root = folder.join("root");
        let this = Self { root: root.clone() };
        if this.program().exists() {
            return Ok(this);
        }
        for tool in ["apt-get", "dpkg-deb"] {
            ensure!(
                find_program(tool).is_some(),
                "`{tool}` is not here: --qemu backports needs a Debian 12 system"
            );
        }
        let lists = folder.join("apt");
        for part in ["sources", "state/lists/partial", "cache/archives/partial"] {
            let part = lists.join(part);
            fs::create_dir_all(&part).with_context(|| format!("creating {}", part.display()))?;
        }
        fs::write(lists.join("sources/backports.sources"), SOURCES)?;
        let mut update = apt(&lists);
        update.arg("update");
        Step::new("fetching the lists of Debian's backports").limit(Duration::from_secs(300)).run(update)?;
        let mut download = apt(&lists);
        download.args([
            "--yes",
            "--download-only",
            "--no-install-recommends",
            "-t",
            SUITE,
            "install",
            PACKAGE,
        ]);
        Step::new("downloading QEMU from Debian's backports (16 MB)")
            .limit(Duration::from_secs(1200))
            .run(download)?;
        // Complete or absent: what was interrupted is done again.
        let partial = folder.join("root.partial");
        let _ = fs::remove_dir_all(&partial);
        unpack(&lists.join("cache/archives"), &partial)?;
        fs::rename(&partial, &root).with_context(|| format!("renaming {}", partial.display()))?;
        let _ = fs::remove_dir_all(&lists);
        ensure!(this.program().exists(), "QEMU is not in what {PACKAGE} of {SUITE} contains");
        Ok(this)
    }

    fn program(&self) -> PathBuf {
        self.root.join("usr/bin/qemu-system-x86_64")
    }

    /// A command for it, with these arguments.
    pub(super) fn command(&self, arguments: Vec<String>) -> Command {
        let mut command = Command::new(self.program());
        command.env("LD_LIBRARY_PATH", self.root.join("usr/lib/x86_64-linux-gnu"));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.root.join(data));
        }
        command.args(arguments);
        command
    }
}

/// apt with files of its own.
fn apt(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let mut set = |key: &str, value: String| {
        command.args(["-o", &format!("{key}={value}")]);
    };
    let inside = |part: &str| folder.join(part).display().to_string();
    set("Dir::Etc::SourceList", "/dev/null".to_owned());
    set("Dir::Etc::SourceParts", inside("sources"));
    set("Dir::State", inside("state"));
    set("Dir::Cache", inside("cache"));
    // What is installed counts as there.
    set("Dir::State::status", "/var/lib/dpkg/status".to_owned());
    // Nothing of the system is changed, and its locks are not ours to take.
    set("Debug::NoLocking", "true".to_owned());
    // The user that apt would change to has no access to this folder.
    set("APT::Sandbox::User", "root".to_owned());
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn unpack(archives: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("creating {}", into.display()))?;
    let mut any = false;
    for entry in fs::read_dir(archives).with_context(|| format!("reading {}", archives.display()))? {
        let package = entry?.path();
        if package.extension().is_none_or(|extension| extension != "deb") {
            continue;
        }
        any = true;
        let mut command = Command::new("dpkg-deb");
        command.arg("--extract").arg(&package).arg(into);
        let result = Step::new(format!("unpacking {}", workspace::shown(&package))).try_run(command)?;
        if !result.success {
            bail!("{} does not unpack: {}", package.display(), result.output);
        }
    }
    ensure!(any, "apt has downloaded nothing; is {PACKAGE} of {SUITE} installed on this system already?");
    Ok(())
}
