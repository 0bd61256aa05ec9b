//! Everything a person types to build, boot and test Quiesce: `cargo xtask <subcommand>`.
//!
//! One module a subcommand ([`run`], [`test_smp`], [`torture`], [`mod@bench`], [`image`], [`models`], [`verify`], [`lint`], [`doctor`]), each a
//! struct that clap fills and that has `run(self)`. What they share sits below: [`toolchain`] finds a compiler for the kernel
//! target, [`build`] uses it, [`qemu`] starts the guest, [`serial`] and [`symbolise`] read what it
//! prints, [`schedule`] runs several at a time, [`packages`] installs
//! what is missing, and [`process`] makes sure that no child and no raw terminal is left behind.

mod bench;
mod build;
mod cmdline;
mod doctor;
mod image;
mod lint;
mod models;
mod packages;
mod process;
mod qemu;
mod run;
mod sanitizer;
mod schedule;
mod serial;
mod strip;
mod symbolise;
mod tally;
mod terminal;
mod test_smp;
mod toolchain;
mod torture;
mod ui;
mod verify;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, boot and test Quiesce.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// The help texts are the doc comments of the structs.
#[derive(Subcommand)]
enum Command {
    Run(run::Run),
    TestSmp(test_smp::TestSmp),
    Torture(torture::Torture),
    Bench(bench::Bench),
    Image(image::Image),
    Models(models::Models),
    Verify(verify::Verify),
    Lint(lint::Lint),
    Doctor(doctor::Doctor),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = process::install_signal_handler().and_then(|()| match cli.command {
        Command::Run(command) => command.run(),
        Command::TestSmp(command) => command.run(),
        Command::Torture(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Image(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Lint(command) => command.run(),
        Command::Doctor(command) => command.run(),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.downcast_ref::<ui::Exit>().map_or(1, |exit| exit.code);
            let text = format!("{error:#}");
            if !text.is_empty() {
                ui::error(&text);
            }
            ExitCode::from(code)
        }
    }
}
