//! What the CPUs of a guest do, seen from outside.
//!
//! A guest that reports something prints all CPUs' backtraces itself. One that hangs may be unable to: then QEMU shows the
//! registers, and the chain of frame pointers leads through the guest's memory.

use std::fmt::Write;

use anyhow::Result;

use super::qmp::Qmp;

/// The longest backtrace.
const DEPTH: usize = 24;

/// All CPUs' registers and backtraces; addresses are in the form that gets names.
pub(super) fn all_cpus(qmp: &mut Qmp) -> String {
    let mut text = String::new();
    let cpus = match qmp.threads() {
        Ok(threads) => threads.len(),
        Err(error) => return format!("QEMU does not say what the CPUs do: {error:#}"),
    };
    for cpu in 0..cpus {
        if let Err(error) = one_cpu(qmp, cpu, &mut text) {
            let _ = writeln!(text, "CPU#{cpu}: {error:#}");
        }
    }
    text
}

fn one_cpu(qmp: &mut Qmp, cpu: usize, text: &mut String) -> Result<()> {
    let registers = qmp.monitor(cpu, "info registers")?;
    let value = |name: &str| register(&registers, name).unwrap_or(0);
    let halted = if registers.contains("HLT=1") { ", halted" } else { "" };
    let interrupts = if value("RFL") & 1 << 9 == 0 { "off" } else { "on" };
    writeln!(text, "CPU#{cpu}: interrupts {interrupts}{halted}, seen from QEMU:")?;
    writeln!(text, "    [<{:016x}>]", value("RIP"))?;
    let mut frame = value("RBP");
    for _ in 0..DEPTH {
        // The kernel's half of the addresses; whatever else stands in the register is no frame.
        if frame >> 47 != 0x1_ffff || frame % 8 != 0 {
            break;
        }
        let Some([next, back]) = words(&qmp.monitor(cpu, &format!("x /2gx {frame:#x}"))?) else { break };
        if back == 0 {
            break;
        }
        // The call is before the place it returns to.
        writeln!(text, "    [<{:016x}>]", back - 1)?;
        // Callers are further up; anything else would go round in circles.
        if next <= frame {
            break;
        }
        frame = next;
    }
    Ok(())
}

/// `RIP=ffffffff80201234` in what the monitor prints.
fn register(text: &str, name: &str) -> Option<u64> {
    let field = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    u64::from_str_radix(field, 16).ok()
}

/// Both words of `ffff800000001000: 0x0000000000000001 0x0000000000000002`.
fn words(text: &str) -> Option<[u64; 2]> {
    let (_, values) = text.lines().next()?.split_once(": ")?;
    let mut values =
        values.split_whitespace().map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    Some([values.next()??, values.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monitors_words_are_read() {
        let text = "CPU#1\nRAX=0000000000000000 RBX=00000000000000ff\nRIP=ffffffff80201234 RFL=00000246 [---Z-P-] CPL=0 II=0 HLT=1\n";
        assert_eq!(register(text, "RIP"), Some(0xffff_ffff_8020_1234));
        assert_eq!(register(text, "RFL"), Some(0x246));
        assert_eq!(register(text, "RSI"), None);
        let line = "ffff800000001000: 0x0000000000000001 0xffffffff80201235\n";
        assert_eq!(words(line), Some([1, 0xffff_ffff_8020_1235]));
        assert_eq!(words("Cannot access memory\n"), None);
    }
}
