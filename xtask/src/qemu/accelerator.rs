//! KVM or emulation.
//!
//! KVM is taken only when `/dev/kvm` opens *and* the processor's flags show vmx or svm: there are machines on which the
//! device opens and a guest then crawls.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;

/// What a person asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AccelChoice {
    /// KVM where it works, else emulation
    #[default]
    Auto,
    /// Emulation, one host thread a CPU
    Tcg,
    /// Hardware virtualisation
    Kvm,
}

/// What QEMU is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Tcg,
    Kvm,
}

impl Accelerator {
    /// Decides; an explicit choice wins, if the machine can do it at all.
    pub(crate) fn choose(choice: AccelChoice) -> Result<Self> {
        match choice {
            AccelChoice::Tcg => Ok(Self::Tcg),
            AccelChoice::Auto if kvm_verdict().is_ok() => Ok(Self::Kvm),
            AccelChoice::Auto => Ok(Self::Tcg),
            AccelChoice::Kvm => {
                // The flags are a hint, and the person may know better; a device that does not open is final.
                if let Err(why) = device_opens(Path::new("/dev/kvm")) {
                    bail!("--accel kvm: {why}; leave the option out, or say --accel tcg");
                }
                Ok(Self::Kvm)
            }
        }
    }

    /// For `-accel`.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Tcg => "tcg,thread=multi",
            Self::Kvm => "kvm",
        }
    }

    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcg => "TCG",
            Self::Kvm => "KVM",
        }
    }
}

/// Whether KVM would be used, or why not.
pub(crate) fn kvm_verdict() -> Result<(), String> {
    device_opens(Path::new("/dev/kvm"))?;
    judge(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn device_opens(device: &Path) -> Result<(), String> {
    match fs::File::options().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{} does not open ({error})", device.display())),
    }
}

fn judge(cpuinfo: &str) -> Result<(), String> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or("");
    if flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        Ok(())
    } else {
        Err("the processor's flags show neither vmx nor svm".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_decide() {
        assert!(judge("processor : 0\nflags\t\t: fpu vmx sse\n").is_ok());
        assert!(judge("flags\t\t: fpu svm\n").is_ok());
        // A flag that merely contains the letters does not count.
        assert!(judge("flags\t\t: fpu svm_lock\nbugs : vmx\n").is_err());
        assert!(judge("").is_err());
    }

    #[test]
    fn a_missing_device_is_named() {
        assert!(device_opens(Path::new("/dev/nonexistent")).unwrap_err().contains("/dev/nonexistent"));
    }
}
