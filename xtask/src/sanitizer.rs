//! Builds of the kernel in which the compiler checks accesses to memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What is checked.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sanitizer {
    /// Each load and store is looked up: does somebody own this memory?
    Address,
    /// Some accesses wait a little: does somebody else access the same memory meanwhile?
    Thread,
}

impl Sanitizer {
    /// The target folder: the flags change every crate.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Sanitizer::Address => "kernel-address",
            Sanitizer::Thread => "kernel-thread",
        }
    }

    /// What the option is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sanitizer::Address => "address",
            Sanitizer::Thread => "thread",
        }
    }

    /// What tells the code that it is there.
    pub(crate) fn cfg(self) -> &'static str {
        match self {
            Sanitizer::Address => "--cfg=quiesce_sanitize=\"address\"",
            Sanitizer::Thread => "--cfg=quiesce_sanitize=\"thread\"",
        }
    }

    /// What the compiler is told besides, after what the profile says. Stacks and statics have no shadow, and all checks are calls.
    /// Where every access is one, the core library's layers of small functions are better inlined.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Sanitizer::Address => &[
                "-Zsanitizer=kernel-address",
                "-Cllvm-args=-asan-instrumentation-with-call-threshold=0",
                "-Cllvm-args=-asan-stack=0",
                "-Cllvm-args=-asan-globals=0",
                "-Copt-level=2",
                "-Cdebuginfo=line-tables-only",
            ],
            Sanitizer::Thread => &[
                "-Zsanitizer=thread",
                // The kernel has what the compiler calls.
                "-Zexternal-clangrt",
                "-Cllvm-args=-tsan-instrument-func-entry-exit=0",
                "-Cllvm-args=-tsan-distinguish-volatile=1",
                "-Copt-level=2",
                "-Cdebuginfo=line-tables-only",
            ],
        }
    }

    /// The description of the target to use instead of the compiler's own, if that refuses the flags: a file in `folder`,
    /// with the same name, so that all that goes by the target's name stays as it is.
    pub(crate) fn target(self, rustc: &Path, target: &str, folder: &Path) -> Result<Option<PathBuf>> {
        if self == Sanitizer::Address {
            return Ok(None);
        }
        let mut command = Command::new(rustc);
        command.env("RUSTC_BOOTSTRAP", "1");
        command.args(["-Zunstable-options", "--print", "target-spec-json", "--target", target]);
        let output = command.output().with_context(|| format!("running {}", rustc.display()))?;
        ensure!(output.status.success(), "{} does not describe the target {target}", rustc.display());
        let description = with_thread_checks(&output.stdout)?;
        let file = folder.join(target).with_extension("json");
        // A file that is newer would have everything built again.
        if fs::read(&file).ok().as_deref() != Some(description.as_bytes()) {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            fs::write(&file, description).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(Some(file))
    }
}

/// A target's description in which the thread checks are among what the compiler supports. It leaves them out where it has
/// no library to go with them.
fn with_thread_checks(description: &[u8]) -> Result<String> {
    let mut description: Value = serde_json::from_slice(description).context("the target's description")?;
    let supported = description
        .as_object_mut()
        .map(|fields| fields.entry("supported-sanitizers").or_insert_with(|| Value::Array(Vec::new())))
        .and_then(Value::as_array_mut)
        .context("the target's description has another form")?;
    supported.push("thread".into());
    Ok(format!("{description:#}\n"))
}

/// How much slower an instrumented guest may be before it counts as one that hangs.
pub(crate) const SLOWER: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_gets_thread_checks_beside_what_it_has() {
        let with =
            |text: &str| with_thread_checks(text.as_bytes()).map(|text| text.parse::<Value>().unwrap());
        let supported = |text| with(text).unwrap()["supported-sanitizers"].clone();
        assert_eq!(supported(r#"{"supported-sanitizers": ["kcfi"]}"#), serde_json::json!(["kcfi", "thread"]));
        assert_eq!(supported(r#"{"arch": "x86_64"}"#), serde_json::json!(["thread"]));
        assert!(with("[]").is_err());
        assert!(with("none").is_err());
    }
}
