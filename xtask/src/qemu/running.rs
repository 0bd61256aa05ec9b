//! A running guest and its serial line.

use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use super::Ending;
use crate::process::{Killer, Owned};

/// How much of QEMU's standard error is kept, in bytes.
const STDERR_KEPT: usize = 16 * 1024;

/// Where QEMU's own messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stderr {
    /// To xtask's standard error.
    Shown,
    /// Into [`Running::finish`]'s result.
    Kept,
}

/// What a read from the serial line gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// This many bytes.
    Bytes(usize),
    /// Nothing within the time given.
    Quiet,
    /// The guest has ended.
    End,
}

/// A guest that runs; dropping it ends it.
pub(crate) struct Running {
    child: Owned,
    output: ChildStdout,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts QEMU by `command`. See [`Owned::spawn`] for the thread to call it from.
    pub(crate) fn start(mut command: Command, stderr: Stderr) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(match stderr {
            Stderr::Shown => Stdio::inherit(),
            Stderr::Kept => Stdio::piped(),
        });
        let mut child = Owned::spawn(&mut command, false).context("starting QEMU")?;
        let streams = child.streams();
        let output = streams.stdout.take().context("QEMU has no standard output")?;
        let stderr = streams.stderr.take().map(|mut stream| {
            thread::spawn(move || {
                let mut kept = Vec::new();
                let mut buffer = [0; 4096];
                // Read to the end even when enough is kept, so that QEMU never blocks on a full pipe.
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let room = STDERR_KEPT.saturating_sub(kept.len());
                    kept.extend_from_slice(&buffer[..n.min(room)]);
                }
                String::from_utf8_lossy(&kept).into_owned()
            })
        });
        Ok(Self { child, output, stderr })
    }

    /// The guest's keyboard, so to speak; it can be taken once.
    pub(crate) fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.streams().stdin.take()
    }

    /// Something to end the guest with, from any thread.
    pub(crate) fn killer(&self) -> Killer {
        self.child.killer()
    }

    /// QEMU's process group, whose leader it is. It is QEMU's as long as this lives.
    pub(crate) fn group(&self) -> Pid {
        self.child.group()
    }

    /// Reads what the guest has written, waiting at most `patience` for the first byte.
    pub(crate) fn read(&mut self, buffer: &mut [u8], patience: Duration) -> Result<Read> {
        let mut descriptors = [PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::IN)];
        let patience =
            Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut descriptors, Some(&patience)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Read::Quiet),
            Ok(_) => {}
            Err(error) => return Err(error).context("waiting for the guest's output"),
        }
        match self.output.read(buffer) {
            Ok(0) => Ok(Read::End),
            Ok(n) => Ok(Read::Bytes(n)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Read::Quiet),
            Err(error) => Err(error).context("reading the guest's output"),
        }
    }

    /// Ends the guest if it still runs; says how it ended, and what QEMU itself had to say.
    pub(crate) fn kill(self) -> Result<String> {
        self.child.kill();
        Ok(self.finish()?.1)
    }

    /// Waits for the end of QEMU; says how it ended, and what QEMU itself had to say.
    pub(crate) fn finish(mut self) -> Result<(Ending, String)> {
        let status = self.child.wait()?;
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((Ending::of(status), said))
    }
}
