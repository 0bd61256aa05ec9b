//! `cargo xtask image`: the file that a hypervisor boots, at a path that does not change.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use crate::build::{BuildOptions, Chaos};
use crate::ui;
use crate::workspace;

/// What a stripped kernel may weigh, in bytes.
pub(crate) const SIZE_GOAL: u64 = 1 << 20;

/// Build the stripped, bootable kernel ELF under target/.
///
/// `target/quiesce.elf` boots by PVH with `qemu-system-x86_64 -kernel`; `target/quiesce.debug.elf` is the same with
/// symbols, for a debugger.
#[derive(Args)]
pub(crate) struct Image {
    #[command(flatten)]
    build: BuildOptions,
}

impl Image {
    pub(crate) fn run(self) -> Result<()> {
        let kernel = self.build.build(Chaos::Off)?;
        let folder = workspace::target();
        let (elf, symbols) = (folder.join("quiesce.elf"), folder.join("quiesce.debug.elf"));
        copy(&kernel.elf, &elf)?;
        copy(&kernel.symbols, &symbols)?;
        let size = kernel.size()?;
        println!(
            "{}  {} KiB, boots by PVH: qemu-system-x86_64 -kernel",
            workspace::shown(&elf),
            size.div_ceil(1024)
        );
        println!("{}  the same with symbols and line tables", workspace::shown(&symbols));
        if size > SIZE_GOAL {
            ui::warn(format_args!("the image is {size} bytes; the goal is at most {SIZE_GOAL}"));
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}
