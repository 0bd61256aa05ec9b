//! What a guest writes to its serial line, as lines with names for addresses, and as a file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::symbolise::{ElfResolver, Symboliser};

/// Reads lines, and keeps them in a log.
pub(crate) struct Serial {
    path: PathBuf,
    log: File,
    symboliser: Symboliser<ElfResolver>,
    text: Vec<u8>,
}

impl Serial {
    /// `symbols` is the kernel with its symbols; the log is overwritten.
    pub(crate) fn new(log: &Path, symbols: &Path) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        let file = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        Ok(Self {
            path: log.to_owned(),
            log: file,
            symboliser: Symboliser::new(ElfResolver::new(symbols)),
            text: Vec::new(),
        })
    }

    /// Where the log is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.symboliser.push(bytes, &mut self.text);
    }

    /// The next whole line, which is in the log then.
    pub(crate) fn line(&mut self) -> Result<Option<String>> {
        let Some(line) = take_line(&mut self.text) else { return Ok(None) };
        writeln!(self.log, "{line}")?;
        Ok(Some(line))
    }

    /// What is left of a line when nothing follows.
    pub(crate) fn rest(&mut self) -> Result<Option<String>> {
        self.symboliser.flush(&mut self.text);
        if self.text.is_empty() {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&self.text).into_owned();
        self.text.clear();
        writeln!(self.log, "{line}")?;
        Ok(Some(line))
    }

    /// Something that the host has to say goes into the log, with names for its addresses.
    pub(crate) fn note(&mut self, text: &str) -> Result<()> {
        for line in text.lines() {
            let mut named = Vec::new();
            self.symboliser.flush(&mut self.text);
            self.symboliser.push(format!("-- {line}\n").as_bytes(), &mut named);
            self.log.write_all(&named)?;
        }
        Ok(())
    }

    /// Before anybody is told to look at the log.
    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.log.flush()?)
    }
}

/// QEMU's remark on every ACPI file that is not its own.
pub(crate) fn is_noise(line: &str) -> bool {
    line.contains("externally provided fw_cfg item names")
}

/// The first complete line of `text`, removed from it.
fn take_line(text: &mut Vec<u8>) -> Option<String> {
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let line: Vec<u8> = text.drain(..=end).collect();
    Some(String::from_utf8_lossy(&line).replace(['\r', '\n'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.log");
        let mut serial = Serial::new(&path, Path::new("/nonexistent")).unwrap();
        serial.push(b"one\r\ntw");
        assert_eq!(serial.line().unwrap().as_deref(), Some("one"));
        assert_eq!(serial.line().unwrap(), None);
        serial.push(b"o\r\nthr");
        assert_eq!(serial.line().unwrap().as_deref(), Some("two"));
        serial.note("the host\nspeaks").unwrap();
        assert_eq!(serial.rest().unwrap().as_deref(), Some("thr"));
        assert_eq!(serial.rest().unwrap(), None);
        serial.flush().unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "one\ntwo\n-- the host\n-- speaks\nthr\n");
    }
}
