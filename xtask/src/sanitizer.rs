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

    /// What the option is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sanitizer::Address => "address",
        }
    }

    /// What the compiler is told, after what the profile says. Stacks and statics have no shadow, and all checks are calls.
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
                "--cfg=quiesce_sanitize=\"address\"",
            ],
        }
    }
}

/// How much slower an instrumented guest may be before it counts as one that hangs.
pub(crate) const SLOWER: u32 = 5;
