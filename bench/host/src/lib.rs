//! What the benchmarks of this package share.
//!
//! Each file in `benches` measures one kind of operation beside other crates for the same, and prints a table:
//! `cargo bench -p bench-host --bench locks`. They are a package of their own so that nobody who tests the crates builds
//! what they are measured against.

mod bare;

pub use bare::Bare;
