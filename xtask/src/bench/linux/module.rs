//! The module with Linux's side of the operations, built by that kernel's own rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::packages::Debian;
use crate::ui::Step;
use crate::workspace::{self, find_program};

const NAME: &str = "quiesce_bench";

/// Builds the module if its source has changed since, and returns it without debugging information.
pub(super) fn build(debian: &Debian) -> Result<PathBuf> {
    for (program, package) in [("make", "make"), ("gcc", "gcc"), ("strip", "binutils")] {
        if find_program(program).is_none() {
            bail!("`{program}` is not in PATH, to build Linux's side: `sudo apt-get install {package}`");
        }
    }
    let source = workspace::root().join(format!("bench/linux/{NAME}.c"));
    let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
    let folder = debian.folder.join("module");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let (copy, module) = (folder.join(format!("{NAME}.c")), folder.join(format!("{NAME}.stripped.ko")));
    if module.exists() && fs::read_to_string(&copy).is_ok_and(|built| built == text) {
        return Ok(module);
    }
    let _ = fs::remove_file(&module);
    fs::write(&copy, text)?;
    fs::write(folder.join("Kbuild"), format!("obj-m := {NAME}.o\n"))?;
    Step::new("building Linux's side").limit(Duration::from_secs(300)).run(make(debian, &folder))?;
    let mut strip = Command::new("strip");
    strip.arg("-g").arg("-o").arg(&module).arg(folder.join(format!("{NAME}.ko")));
    Step::new("stripping the module").limit(Duration::from_secs(60)).run(strip)?;
    Ok(module)
}

fn make(debian: &Debian, folder: &Path) -> Command {
    let mut command = Command::new("make");
    command.arg("-C").arg(&debian.headers).arg(format!("M={}", folder.display())).arg("modules");
    // An outer make's, or a person's for another architecture.
    for name in ["MAKEFLAGS", "MFLAGS", "ARCH", "CROSS_COMPILE"] {
        command.env_remove(name);
    }
    command
}
