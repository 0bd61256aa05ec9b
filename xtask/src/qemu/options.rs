//! The guest options that `run` and `test-smp` share, with messages for what people mistype.

use clap::Args;

use super::AccelChoice;
use crate::build::word;

/// The smallest and the largest memory that a guest is given, in MiB.
const MEMORY_MIB: (u64, u64) = (8, 1 << 20);
/// The most CPUs that a guest is given; the kernel's own maximum is lower and it parks the rest.
const MOST_CPUS: u32 = 1024;

/// What a guest has in memory, in MiB, and for CPUs, unless somebody says otherwise.
const USUAL_MEMORY: u64 = 128;
const USUAL_MODEL: &str = "max";

/// What a guest looks like, apart from its machine and CPU count.
#[derive(Args, Clone, Debug)]
pub(crate) struct GuestOptions {
    /// Memory, such as 128M or 2G
    #[arg(long, value_name = "SIZE", default_value_t = USUAL_MEMORY, value_parser = parse_memory, help_heading = "Guest")]
    pub(crate) memory: u64,
    /// How to run the guest's instructions
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto", help_heading = "Guest")]
    pub(crate) accel: AccelChoice,
    /// CPU model (`qemu-system-x86_64 -cpu help` lists them)
    #[arg(long, value_name = "MODEL", default_value = USUAL_MODEL, help_heading = "Guest")]
    pub(crate) cpu: String,
}

impl GuestOptions {
    /// The words that ask in a command for what these options ask for, each after a space.
    pub(crate) fn words(&self) -> String {
        let mut words = String::new();
        if self.memory != USUAL_MEMORY {
            words += &format!(" --memory {}M", self.memory);
        }
        words += &word("accel", self.accel, AccelChoice::Auto);
        if self.cpu != USUAL_MODEL {
            words += &format!(" --cpu {}", self.cpu);
        }
        words
    }
}

/// A number of CPUs.
pub(crate) fn parse_cpus(text: &str) -> Result<u32, String> {
    match text.trim().parse::<u32>() {
        Ok(0) => Err("a guest needs at least 1 CPU".to_owned()),
        Ok(cpus) if cpus <= MOST_CPUS => Ok(cpus),
        Ok(_) => Err(format!("at most {MOST_CPUS} CPUs")),
        Err(_) => Err("a number of CPUs such as 4".to_owned()),
    }
}

/// A size in MiB, from `64`, `64M`, `64MiB` or `2G`.
fn parse_memory(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let help = "a number with M or G, such as 128M or 2G";
    let number: u64 = number.parse().map_err(|_| help.to_owned())?;
    let scale = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" | "m" => 1,
        "g" => 1024,
        "t" => 1024 * 1024,
        _ => return Err(help.to_owned()),
    };
    let mib = number.checked_mul(scale).ok_or(help)?;
    let (least, most) = MEMORY_MIB;
    if mib < least || mib > most {
        return Err(format!("between {least}M and {}G", most / 1024));
    }
    Ok(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_sizes() {
        assert_eq!(parse_memory("128M"), Ok(128));
        assert_eq!(parse_memory("64"), Ok(64));
        assert_eq!(parse_memory("2GiB"), Ok(2048));
        assert_eq!(parse_memory("16mb"), Ok(16));
        for bad in ["", "M", "12x", "-1", "1.5G", "0", "4M", "99999999999999999999", "2T"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
        assert!(parse_memory("12x").unwrap_err().contains("128M"));
    }

    #[test]
    fn cpu_counts() {
        assert_eq!(parse_cpus("64"), Ok(64));
        assert!(parse_cpus("0").unwrap_err().contains("at least 1"));
        for bad in ["-1", "four", "", "5000"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }
}
