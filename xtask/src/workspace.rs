//! Where things are: the checkout, and the folder that build results go to.

use std::env;
use std::path::{Path, PathBuf};

/// The root of the checkout that this xtask belongs to.
///
/// The path that cargo gives at run time wins over the one of compile time, so that a moved checkout keeps working.
pub(crate) fn root() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    // `CARGO_MANIFEST_DIR` belongs to whichever package cargo runs, which is xtask unless someone nests cargo calls.
    let manifest =
        if manifest.ends_with("xtask") { manifest } else { PathBuf::from(env!("CARGO_MANIFEST_DIR")) };
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder of build results: `CARGO_TARGET_DIR` if set, else `target/` in the checkout.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => root().join(folder),
        _ => root().join("target"),
    }
}

/// `path` as a person wants to read it: relative to the current folder when it is inside it.
pub(crate) fn shown(path: &Path) -> String {
    let relative =
        env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf));
    relative.unwrap_or_else(|| path.to_path_buf()).display().to_string()
}

/// Looks `name` up in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
