//! `cargo xtask bench linux`: Linux measures itself, in the same emulator.
//!
//! Nothing is installed: Debian's kernel and the headers that belong to it are unpacked under `target/linux/`
//! ([`packages`]), the module is built against them ([`module`]), and an archive with the module, a shell and a script
//! that loads it is what the kernel boots into ([`initramfs`]).

mod initramfs;
mod module;
mod packages;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::boot::{self, Setting};
use super::lines::Output;
use super::{guest, operations, results};
use crate::cmdline::Cmdline;
use crate::packages::Installing;
use crate::qemu::{self, parse_cpus};
use crate::ui;

/// Measure the same operations in Debian's Linux, in the same emulator with the same options.
///
/// Nothing is installed: packages are unpacked under target/linux/. Writes target/bench/linux-*.json.
#[derive(Args)]
pub(super) struct LinuxBench {
    /// Parts of operations' names; with ! before them, what is left out
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Number of CPUs
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_cpus)]
    cpus: u32,
    /// Count instructions: each takes a nanosecond; on 1 CPU only
    #[arg(long)]
    icount: bool,
    /// Fetch and unpack what is needed, build the module, and stop
    #[arg(long)]
    prepare: bool,
}

impl LinuxBench {
    pub(super) fn run(self) -> Result<()> {
        operations::check_filters(&self.filters)?;
        let setting = Setting { cpus: self.cpus, icount: self.icount };
        check_setting(setting)?;
        qemu::require(Installing::Allowed)?;
        let linux = Linux::prepare()?;
        if self.prepare {
            ui::note(format_args!("Linux {} is ready", linux.release));
            return Ok(());
        }
        ui::note(format_args!(
            "measuring Linux {}: {}; {}",
            linux.release,
            setting.words(),
            results::machine_in_words()
        ));
        let output = linux.measure(setting, &self.filters)?;
        guest::finish("linux", setting, &output)
    }
}

/// Linux does not come up with more CPUs than one when instructions are counted.
pub(super) fn check_setting(setting: Setting) -> Result<()> {
    anyhow::ensure!(
        !setting.icount || setting.cpus == 1,
        "Linux waits for ever for its second CPU when instructions are counted: --icount takes --cpus 1"
    );
    Ok(())
}

/// A Linux that measures when it is booted.
#[derive(Clone, Debug)]
pub(super) struct Linux {
    pub(super) release: String,
    kernel: PathBuf,
    initramfs: PathBuf,
}

/// Full preemption as here, no mitigations as here, and a clock that needs no watchdog. Messages below warnings are not for
/// the console before the module's.
const OPTIONS: &str =
    "console=ttyS0 preempt=full mitigations=off tsc=reliable quiet loglevel=4 panic=-1 rdinit=/init";

impl Linux {
    /// Fetches, unpacks and builds what is not there yet.
    pub(super) fn prepare() -> Result<Self> {
        let debian = packages::unpack()?;
        let module = module::build(&debian)?;
        let initramfs = debian.folder.join("initramfs.cpio");
        initramfs::write(&initramfs, &debian.busybox, &module)?;
        Ok(Self { release: debian.release, kernel: debian.kernel, initramfs })
    }

    pub(super) fn measure(&self, setting: Setting, filters: &[String]) -> Result<Output> {
        let mut cmdline = Cmdline::default();
        cmdline.words(OPTIONS);
        // Its own calibration may be wrong by a factor when the host is busy.
        cmdline.set("tsc_early_khz", &tsc_khz(setting).to_string());
        if !filters.is_empty() {
            cmdline.set("bench.only", &filters.join(","));
        }
        let initramfs = self.initramfs.display().to_string();
        let guest = setting.guest(self.kernel.clone(), cmdline, vec!["-initrd".to_owned(), initramfs])?;
        boot::boot(&guest, guest::progress)
    }
}

/// The rate of the guest's time-stamp counter: a count of instructions, or the host's counter.
fn tsc_khz(setting: Setting) -> u64 {
    if setting.icount { 1_000_000 } else { host_tsc_khz() }
}

/// Measured, because processors do not all tell: over a fifth of a second, the clock read between two readings of the counter
/// so that an interruption shows; the best of several.
fn host_tsc_khz() -> u64 {
    use std::arch::x86_64::_rdtsc;
    use std::time::{Duration, Instant};

    let read = || {
        let readings = (0..20).map(|_| {
            // SAFETY: the instruction is there on every x86_64, and reads a register.
            let before = unsafe { _rdtsc() };
            let now = Instant::now();
            // SAFETY: as above.
            let after = unsafe { _rdtsc() };
            (after.wrapping_sub(before), before.wrapping_add(after.wrapping_sub(before) / 2), now)
        });
        readings.min_by_key(|(took, ..)| *took).map(|(_, counter, now)| (counter, now))
    };
    let (Some((first, begun)), ()) = (read(), std::thread::sleep(Duration::from_millis(200))) else {
        return 0;
    };
    let Some((last, ended)) = read() else { return 0 };
    let ns = (ended - begun).as_nanos().max(1);
    (u128::from(last.wrapping_sub(first)) * 1_000_000 / ns) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_time_has_one_cpu() {
        assert!(check_setting(Setting { cpus: 1, icount: true }).is_ok());
        assert!(check_setting(Setting { cpus: 4, icount: false }).is_ok());
        assert!(check_setting(Setting { cpus: 2, icount: true }).is_err());
    }

    #[test]
    fn the_counter_has_a_plausible_rate() {
        let khz = host_tsc_khz();
        assert!((300_000..10_000_000).contains(&khz), "{khz} kHz");
        assert_eq!(tsc_khz(Setting { cpus: 1, icount: true }), 1_000_000);
    }
}
