//! The archive that Linux boots into: a shell, the module, and a script that loads it.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{self, ModeFileType};

/// Loads the module with the parameters on the kernel's command line that begin with `bench.`. The thread that measures is
/// of the real-time class, and must not be slowed down for that.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
/bin/busybox echo 7 > /proc/sys/kernel/printk
/bin/busybox echo -1 > /proc/sys/kernel/sched_rt_runtime_us
parameters=
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in bench.*) parameters=\"$parameters ${word#bench.}\" ;; esac
done
/bin/busybox insmod /quiesce_bench.ko $parameters
/bin/busybox poweroff -f
";

/// Writes the archive.
pub(super) fn write(archive: &Path, busybox: &Path, module: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let archived = pack(&read(busybox)?, &read(module)?)?;
    fs::write(archive, archived).with_context(|| format!("writing {}", archive.display()))
}

fn pack(busybox: &[u8], module: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Cursor::new(Vec::new());
    let mut number = 0;
    let mut add = |name: &str, kind: ModeFileType, permissions: u32, device: (u32, u32), content: &[u8]| {
        number += 1;
        let entry = newc::Builder::new(name)
            .ino(number)
            .mode(permissions)
            .set_mode_file_type(kind)
            .rdev_major(device.0)
            .rdev_minor(device.1);
        let mut writer = entry.write(&mut archive, content.len() as u32);
        writer.write_all(content)?;
        writer.finish().map(drop)
    };
    let none = (0, 0);
    add("bin", ModeFileType::Directory, 0o755, none, &[])?;
    add("dev", ModeFileType::Directory, 0o755, none, &[])?;
    // What the script's output goes to.
    add("dev/console", ModeFileType::Char, 0o600, (5, 1), &[])?;
    add("bin/busybox", ModeFileType::Regular, 0o755, none, busybox)?;
    add("init", ModeFileType::Regular, 0o755, none, INIT.as_bytes())?;
    add("quiesce_bench.ko", ModeFileType::Regular, 0o644, none, module)?;
    newc::trailer(&mut archive)?;
    Ok(archive.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let archive = pack(b"shell", b"module of odd size!").unwrap();
        let mut rest = Cursor::new(archive);
        let mut names = Vec::new();
        loop {
            let mut reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry().clone();
            if entry.is_trailer() {
                break;
            }
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
            if entry.name() == "quiesce_bench.ko" {
                assert_eq!(content, b"module of odd size!");
            }
            if entry.name() == "init" {
                assert_eq!((content.as_slice(), entry.mode()), (INIT.as_bytes(), 0o100_755));
            }
            names.push(entry.name().to_owned());
            rest = reader.finish().unwrap();
        }
        assert_eq!(names, ["bin", "dev", "dev/console", "bin/busybox", "init", "quiesce_bench.ko"]);
    }
}
