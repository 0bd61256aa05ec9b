//! Builds of the kernel in which the compiler checks accesses to memory.

/// What is checked.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sanitizer {
    /// Each load and store is looked up: does somebody own this memory?
    Address,
}

impl Sanitizer {
    /// The target folder: the flags change every crate.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Sanitizer::Address => "kernel-address",
        }
    }

    /// What the compiler is told. Stacks and statics have no shadow, and all checks are calls.
    pub(crate) fn flags(self) -> &'static [&'static str] {
        match self {
            Sanitizer::Address => &[
                "-Zsanitizer=kernel-address",
                "-Cllvm-args=-asan-instrumentation-with-call-threshold=0",
                "-Cllvm-args=-asan-stack=0",
                "-Cllvm-args=-asan-globals=0",
                "--cfg=quiesce_sanitize=\"address\"",
            ],
        }
    }
}
