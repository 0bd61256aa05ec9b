//! `rustup target add`, asked once a day at most when it does not work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::TARGET;
use crate::ui::{self, Step};
use crate::workspace::{self, find_program};

/// How long a refusal is believed.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
/// How long rustup may take: the component is 12 MB.
const LIMIT: Duration = Duration::from_secs(90);

/// Adds the kernel target to the rustup toolchain in `sysroot`; `false` when that is not possible.
pub(super) fn add_target(sysroot: &Path) -> Result<bool> {
    let (Some(rustup), Some(toolchain)) = (find_rustup(), toolchain_name(sysroot)) else { return Ok(false) };
    let refusal = refusal_file(&toolchain);
    if is_recent(&refusal) {
        return Ok(false);
    }
    ui::note(format_args!("adding the target {TARGET} to rustup's {toolchain} (12 MB, about 10 s)"));
    let mut command = Command::new(rustup);
    command.args(["target", "add", "--toolchain", &toolchain, TARGET]).env("RUSTUP_MAX_RETRIES", "1");
    let result = Step::new(format!("rustup target add {TARGET}")).limit(LIMIT).try_run(command)?;
    if result.success {
        let _ = fs::remove_file(refusal);
        return Ok(true);
    }
    let reason =
        result.output.lines().find(|line| line.contains("error:")).unwrap_or("no answer").trim().to_owned();
    ui::note(format_args!(
        "rustup could not add it ({reason}); trying the other ways, and rustup again tomorrow"
    ));
    if let Some(folder) = refusal.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(refusal, result.output)?;
    Ok(false)
}

/// Where the refusal for `toolchain` is kept.
fn refusal_file(toolchain: &str) -> PathBuf {
    workspace::target().join("xtask").join(format!("rustup-refused-{toolchain}"))
}

fn is_recent(file: &Path) -> bool {
    let written = file.metadata().and_then(|meta| meta.modified());
    written.is_ok_and(|written| SystemTime::now().duration_since(written).is_ok_and(|age| age < REMEMBERED))
}

fn find_rustup() -> Option<PathBuf> {
    find_program("rustup").or_else(|| {
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
        Some(home.join("bin/rustup")).filter(|file| file.exists())
    })
}

/// The name of the rustup toolchain whose sysroot this is.
fn toolchain_name(sysroot: &Path) -> Option<String> {
    let parent = sysroot.parent()?.file_name()?;
    (parent == "toolchains").then(|| sysroot.file_name().map(|name| name.to_string_lossy().into_owned()))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rustup_sysroot_has_a_toolchain_name() {
        let sysroot = Path::new("/home/me/.rustup/toolchains/stable-x86_64-unknown-linux-gnu");
        assert_eq!(toolchain_name(sysroot).as_deref(), Some("stable-x86_64-unknown-linux-gnu"));
        assert_eq!(toolchain_name(Path::new("/usr")), None);
    }

    #[test]
    fn a_refusal_is_believed_while_it_is_young() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(is_recent(file.path()));
        let old = SystemTime::now() - REMEMBERED - Duration::from_secs(1);
        file.as_file().set_modified(old).unwrap();
        assert!(!is_recent(file.path()));
        assert!(!is_recent(Path::new("/nonexistent")));
    }
}
