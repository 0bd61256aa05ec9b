//! `cargo xtask bench guest`: our kernel measures itself.

use anyhow::Result;
use clap::Args;

use super::boot::{self, Setting};
use super::lines::{Figure, Output};
use super::{operations, results, table};
use crate::build::{BuildOptions, Chaos, Kernel};
use crate::cmdline::Cmdline;
use crate::qemu::{self, parse_cpus};
use crate::{ui, workspace};

/// Measure operations of this kernel in a guest.
///
/// Writes target/bench/guest-*.json.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask bench guest --icount                 instructions, the same in every run\n  \
    cargo xtask bench guest spin mutex --cpus 2      what has spin or mutex in its name\n  \
    cargo xtask bench guest '!throughput'            all but what has throughput in its name")]
pub(super) struct GuestBench {
    /// Parts of operations' names; with ! before them, what is left out
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_cpus)]
    cpus: u32,
    /// Count instructions: each takes a nanosecond
    #[arg(long)]
    icount: bool,
    #[command(flatten)]
    build: BuildOptions,
}

impl GuestBench {
    pub(super) fn run(self) -> Result<()> {
        operations::check_filters(&self.filters)?;
        self.build.ensure_measurable()?;
        qemu::require(self.build.installing())?;
        let kernel = self.build.build(Chaos::Off)?;
        let setting = Setting { cpus: self.cpus, icount: self.icount };
        ui::note(format_args!("measuring Quiesce: {}; {}", setting.words(), results::machine_in_words()));
        let output = measure(&kernel, setting, &self.filters)?;
        finish("guest", setting, &output)
    }
}

/// Boots the kernel, which measures what the filters say.
pub(super) fn measure(kernel: &Kernel, setting: Setting, filters: &[String]) -> Result<Output> {
    let mut cmdline = Cmdline::default();
    cmdline.set("exec", &format!("bench {}", filters.join(" ")));
    if setting.icount && setting.cpus > 1 {
        // QEMU counts one CPU at a time, and goes to the next when a timer is due.
        cmdline.set("tick", "idle");
    }
    let guest = setting.guest(kernel.elf.clone(), cmdline, Vec::new())?;
    boot::boot(&guest, progress)
}

/// Shows that something happens.
pub(super) fn progress(line: &str) {
    if ui::interactive() {
        eprint!("\r\x1b[K{:.78}", line.trim_start_matches(|c: char| c != 'B'));
        if line.contains("BENCH_DONE") {
            eprint!("\r\x1b[K");
        }
    }
}

/// Prints the table and writes the file.
pub(super) fn finish(system: &str, setting: Setting, output: &Output) -> Result<()> {
    let rows: Vec<Vec<String>> = output.figures.iter().map(row).collect();
    print!("{}", table::render(&["OPERATION", "MEDIAN", "MIN", "P99", "MAX", "UNIT", "FAIR"], &rows));
    let path = results::write(&format!("{system}-{}.json", setting.slug()), &results::output(output))?;
    ui::note(format_args!("written to {}", workspace::shown(&path)));
    Ok(())
}

fn row(figure: &Figure) -> Vec<String> {
    let [median, min, p99, max] = [figure.median, figure.min, figure.p99, figure.max].map(table::number);
    let fairness = figure.fairness.map_or(String::new(), |fairness| format!("{fairness:.2}"));
    vec![figure.name.clone(), median, min, p99, max, figure.unit.clone(), fairness]
}
