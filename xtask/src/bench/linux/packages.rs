//! Debian's kernel, its headers and a shell, unpacked under `target/linux/`.
//!
//! The headers of a kernel are spread over three packages that name each other by absolute paths, in a Makefile of one line;
//! it is rewritten to where they are unpacked. Everything else in them is relative.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ui::Step;
use crate::workspace::{self, find_program};

/// The package that depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

/// What was unpacked.
#[derive(Clone, Debug)]
pub(super) struct Debian {
    /// Such as `6.1.0-56-cloud-amd64`.
    pub(super) release: String,
    /// Where everything of this release is.
    pub(super) folder: PathBuf,
    pub(super) kernel: PathBuf,
    /// What a module is built against.
    pub(super) headers: PathBuf,
    pub(super) busybox: PathBuf,
}

/// Fetches and unpacks what is not there yet.
pub(super) fn unpack() -> Result<Debian> {
    let home = workspace::target().join("linux");
    let release = match unpacked_release(&home) {
        // What is there is taken, so that figures of one month compare with those of another.
        Some(release) => release,
        None => newest_release()?,
    };
    let folder = home.join(&release);
    let root = folder.join("root");
    let debian = Debian {
        kernel: root.join(format!("boot/vmlinuz-{release}")),
        headers: root.join(format!("usr/src/linux-headers-{release}")),
        busybox: root.join("bin/busybox"),
        release,
        folder,
    };
    if !is_complete(&debian.folder) {
        debian.fetch(&root)?;
    }
    Ok(debian)
}

/// The file whose presence says that everything is there.
fn mark(folder: &Path) -> PathBuf {
    folder.join("complete")
}

fn is_complete(folder: &Path) -> bool {
    mark(folder).exists()
}

fn unpacked_release(home: &Path) -> Option<String> {
    let mut complete: Vec<String> = fs::read_dir(home)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| is_complete(folder))
        .filter_map(|folder| Some(folder.file_name()?.to_str()?.to_owned()))
        .collect();
    complete.sort_unstable();
    complete.pop()
}

fn newest_release() -> Result<String> {
    let cache = program("apt-cache")?;
    let output = Command::new(cache).args(["depends", NEWEST]).env("LC_ALL", "C").output()?;
    release_in(&String::from_utf8_lossy(&output.stdout)).with_context(|| {
        format!("the package lists do not name {NEWEST}; refresh them: `sudo apt-get update` (Debian 12)")
    })
}

/// The release in the output of `apt-cache depends linux-image-cloud-amd64`.
fn release_in(depends: &str) -> Option<String> {
    let dependency = |line: &str| Some(line.trim().strip_prefix("Depends: linux-image-")?.to_owned());
    depends.lines().find_map(dependency)
}

/// Such as `linux-headers-6.1.0-56-common` and `linux-kbuild-6.1`, which the release's headers need.
fn packages_of(release: &str) -> Result<[String; 5]> {
    let not = || format!("`{release}` is not a release of Debian's such as 6.1.0-56-cloud-amd64");
    let version = release.strip_suffix("-cloud-amd64").with_context(not)?;
    let mut numbers = version.split('.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { bail!(not()) };
    Ok([
        format!("linux-image-{release}"),
        format!("linux-headers-{release}"),
        format!("linux-headers-{version}-common"),
        format!("linux-kbuild-{major}.{minor}"),
        "busybox-static".to_owned(),
    ])
}

fn program(name: &str) -> Result<PathBuf> {
    find_program(name).with_context(|| {
        format!("`{name}` is not in PATH: comparing with Linux takes a Debian system's tools")
    })
}

impl Debian {
    fn fetch(&self, root: &Path) -> Result<()> {
        let archives = self.folder.join("archives");
        fs::create_dir_all(&archives).with_context(|| format!("making {}", archives.display()))?;
        let mut download = Command::new(program("apt-get")?);
        download.arg("download").args(packages_of(&self.release)?).current_dir(&archives);
        Step::new(format!("fetching Linux {} (60 MB)", self.release))
            .limit(Duration::from_secs(600))
            .run(download)
            .context("if the mirror no longer has these versions: `sudo apt-get update`")?;
        let unpack = program("dpkg-deb")?;
        for archive in fs::read_dir(&archives)? {
            let archive = archive?.path();
            if archive.extension().is_some_and(|extension| extension == "deb") {
                let mut command = Command::new(&unpack);
                command.arg("-x").arg(&archive).arg(root);
                Step::new("unpacking").limit(Duration::from_secs(300)).run(command)?;
            }
        }
        let makefile = self.headers.join("Makefile");
        let text =
            fs::read_to_string(&makefile).with_context(|| format!("reading {}", makefile.display()))?;
        fs::write(&makefile, moved(&text, root)?)?;
        fs::write(mark(&self.folder), "")?;
        Ok(())
    }
}

/// The Makefile with its absolute path below `root`.
fn moved(makefile: &str, root: &Path) -> Result<String> {
    let root = root.to_str().context("the path of the target folder must be UTF-8")?;
    let moved = makefile.replace("include /usr/src/", &format!("include {root}/usr/src/"));
    if moved == makefile {
        bail!("Debian's headers have changed: their Makefile is\n{makefile}");
    }
    Ok(moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_found() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(release_in(depends).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(release_in("W: nothing\n"), None);
    }

    #[test]
    fn packages_are_named() {
        let [image, headers, common, kbuild, _] = packages_of("6.1.0-56-cloud-amd64").unwrap();
        assert_eq!(image, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(headers, "linux-headers-6.1.0-56-cloud-amd64");
        assert_eq!(common, "linux-headers-6.1.0-56-common");
        assert_eq!(kbuild, "linux-kbuild-6.1");
        for bad in ["6.1.0-56-amd64", "-cloud-amd64", "6-cloud-amd64"] {
            assert!(packages_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_makefile_is_moved() {
        let text =
            moved("include /usr/src/linux-headers-6.1.0-56-common/Makefile\n", Path::new("/t/root")).unwrap();
        assert_eq!(text, "include /t/root/usr/src/linux-headers-6.1.0-56-common/Makefile\n");
        assert!(moved("include ../x\n", Path::new("/t")).is_err());
    }

    #[test]
    fn the_newest_that_is_complete_is_taken() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(unpacked_release(home.path()), None);
        for (release, complete) in [("6.1.0-50", true), ("6.1.0-56", true), ("6.1.0-58", false)] {
            let folder = home.path().join(release);
            fs::create_dir(&folder).unwrap();
            if complete {
                fs::write(mark(&folder), "").unwrap();
            }
        }
        assert_eq!(unpacked_release(home.path()).as_deref(), Some("6.1.0-56"));
    }
}
