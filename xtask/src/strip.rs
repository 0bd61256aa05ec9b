//! The bootable ELF: everything that is loaded, nothing that only a debugger wants.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use object::build::elf::Builder;
use object::elf;

/// Writes `from` without symbols and debug sections to `to`, unless `to` is already newer.
pub(crate) fn strip_file(from: &Path, to: &Path) -> Result<()> {
    let modified = |file: &Path| file.metadata().and_then(|meta| meta.modified()).ok();
    if let (Some(old), Some(new)) = (modified(from), modified(to))
        && new > old
    {
        return Ok(());
    }
    let data = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let stripped = strip(&data).with_context(|| format!("stripping {}", from.display()))?;
    // A guest that is just starting may have the old file open: replace it, never overwrite it.
    let partial = to.with_extension("partial");
    fs::write(&partial, stripped).with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, to).with_context(|| format!("writing {}", to.display()))
}

/// `data`, an ELF executable, without the sections that are not loaded.
fn strip(data: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(data).map_err(|error| anyhow!("not a usable ELF file: {error}"))?;
    let needed = builder.segments.iter().filter(|segment| segment.p_type == elf::PT_LOAD).count();
    ensure!(needed > 0, "the file has nothing to load");
    for section in &mut builder.sections {
        let names_sections = section.name.as_slice() == b".shstrtab";
        section.delete = !section.sh_flags.contains(elf::SHF_ALLOC) && !names_sections;
    }
    builder.symbols.iter_mut().for_each(|symbol| symbol.delete = true);
    let mut stripped = Vec::new();
    builder.write(&mut stripped).map_err(|error| anyhow!("{error}"))?;
    Ok(stripped)
}
