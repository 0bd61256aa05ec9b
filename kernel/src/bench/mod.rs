//! Measurements of the kernel by itself, for the console's `bench`.

pub mod locks;
