//! The kernel's binary: names the library's entry. On a host it only says how it is meant to be started.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
hal::entry!(kernel::boot::main);

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("quiesce is a kernel: start it in a virtual machine with `cargo xtask run`");
    std::process::exit(2);
}
