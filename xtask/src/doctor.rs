//! `cargo xtask doctor`: what is here, what is missing, what would be used and why.

use std::env;

use anyhow::Result;
use clap::Args;

use crate::packages::{COMPILER, Need, QEMU};
use crate::qemu::{self, kvm_verdict};
use crate::toolchain::{Choice, TARGET, Toolchain};
use crate::ui::Exit;
use crate::workspace::{self, find_program};

/// Say what is installed, what is missing, what would be used and why.
///
/// Changes nothing. The exit code is 0 when everything that `run` and `test-smp` need is there.
#[derive(Args)]
pub(crate) struct Doctor {}

/// How a finding bears on `run`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    /// `run` works without it.
    Optional,
    Missing,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<()> {
        let marks = [toolchain(), linker(), emulator(), accelerator(), debugger(), packages(), folder()];
        if marks.contains(&Mark::Missing) {
            println!("\nSomething is missing; `cargo xtask run` installs it where it may, or says how.");
            return Err(Exit::silent(1));
        }
        println!("\nReady: `cargo xtask run` boots the kernel.");
        Ok(())
    }
}

fn line(mark: Mark, topic: &str, text: &str) -> Mark {
    let sign = match mark {
        Mark::Ok => "ok     ",
        Mark::Optional => "-      ",
        Mark::Missing => "missing",
    };
    println!("{sign}  {topic:<12} {text}");
    mark
}

fn more(text: &str) {
    println!("{:<22} {text}", "");
}

fn toolchain() -> Mark {
    let found = Toolchain::present(Choice::Auto);
    let mark = match &found {
        Some(toolchain) => line(Mark::Ok, "compiler", &format!("will use {toolchain}")),
        None => line(Mark::Missing, "compiler", &format!("nothing here builds for {TARGET}")),
    };
    for (choice, name) in [
        (Choice::Target, "rustup target"),
        (Choice::RustSrc, "rust-src component"),
        (Choice::Debian, "Debian's packages"),
    ] {
        let state = match Toolchain::present(choice) {
            Some(toolchain) => format!("there, rustc {}", toolchain.version),
            None => "not there".to_owned(),
        };
        more(&format!("{name}: {state}"));
    }
    if found.is_none() {
        more(&format!("with rustup: rustup target add {TARGET}"));
        more(&format!("on Debian:   {}", COMPILER.command()));
    }
    mark
}

fn linker() -> Mark {
    match Toolchain::present(Choice::Auto) {
        Some(toolchain) => line(Mark::Ok, "linker", &format!("will use {}", toolchain.linker)),
        None => line(
            Mark::Optional,
            "linker",
            "depends on the compiler: its own rust-lld, else ld.lld (package lld)",
        ),
    }
}

fn emulator() -> Mark {
    match qemu::installed() {
        Some((path, version)) => {
            line(Mark::Ok, "QEMU", &format!("{version} at {}", path.display()));
            let x2apic =
                version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|v| v >= 9);
            more(&format!(
                "debug-exit, HPET, counted time (--icount): yes; x2APIC without KVM: {}",
                if x2apic { "yes" } else { "from QEMU 9 on" }
            ));
            Mark::Ok
        }
        None => missing("QEMU", &QEMU),
    }
}

fn missing(topic: &str, need: &Need) -> Mark {
    line(Mark::Missing, topic, &format!("needed for: {}", need.why));
    more(&format!("on Debian: {}", need.command()));
    more(&format!("elsewhere: {}", need.by_hand));
    Mark::Missing
}

fn accelerator() -> Mark {
    match kvm_verdict() {
        Ok(()) => {
            line(Mark::Ok, "accelerator", "will use KVM (/dev/kvm opens, the processor has vmx or svm)")
        }
        Err(why) => line(Mark::Ok, "accelerator", &format!("will use TCG, one host thread a CPU: {why}")),
    }
}

fn debugger() -> Mark {
    match find_program("gdb") {
        Some(path) => line(Mark::Ok, "gdb", &format!("{} (for `run --gdb`)", path.display())),
        None => line(Mark::Optional, "gdb", "not installed; only `run --gdb` wants it (package gdb)"),
    }
}

fn packages() -> Mark {
    let root = rustix::process::geteuid().is_root();
    let text = match (find_program("apt-get").is_some(), root, find_program("sudo").is_some()) {
        (false, ..) => "no apt here: what is missing is to be installed by hand",
        (true, true, _) => "apt as root: `run` and `test-smp` install what is missing",
        (true, false, true) => "apt by sudo: missing packages are installed if sudo asks for no password",
        (true, false, false) => "apt, but neither root nor sudo: the command to install is printed",
    };
    line(Mark::Ok, "packages", text)
}

fn folder() -> Mark {
    let from = if env::var_os("CARGO_TARGET_DIR").is_some() { " (CARGO_TARGET_DIR)" } else { "" };
    line(Mark::Ok, "builds go to", &format!("{}{from}", workspace::target().display()))
}
