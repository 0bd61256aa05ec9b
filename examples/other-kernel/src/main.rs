//! Another kernel: what somebody writes who wants Quiesce's locks and lists and has a machine layer already.
//!
//! It boots by PVH, starts a second CPU, takes timer interrupts on both, runs what is in `exercises.rs`, says how that
//! went and leaves. Nothing of Quiesce's own machine is in it. `platform.rs` is the page that makes the crates work here;
//! the other files are what any kernel has. The README goes through them in the order in which one writes them.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
mod exercises;
#[cfg(target_os = "none")]
mod grace;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod platform;
#[cfg(target_os = "none")]
mod timing;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    machine::print(format_args!("other-kernel: {info}\n"));
    machine::exit(false)
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("other-kernel is a kernel: `cargo xtask test-smp other-kernel` boots it");
    std::process::exit(2);
}
