//! Children that never outlive xtask.
//!
//! Three things can end xtask early: an error or a panic, a signal, and SIGKILL. The first is covered by `Drop` of
//! [`Owned`], the second by one thread that waits for signals and ends every live child before it exits, the third by
//! the kernel's parent-death signal. Every child leads a process group of its own, so that its children end with it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::terminal;

/// How long a gentle child may take to clean up.
const GRACE: Duration = Duration::from_secs(10);

/// Every live child, so that the signal thread can end them.
///
/// The lock is held across a spawn and, once a signal came, until the process exits: no child can slip through.
static LIVE: Mutex<Vec<Live>> = Mutex::new(Vec::new());

#[derive(Clone, Copy)]
struct Live {
    group: Pid,
    gentle: bool,
}

/// A child process and everything it started; both end when this is dropped.
///
/// # Invariants
/// `group` is the child's process group and the child has not been waited for while the entry is in [`LIVE`], so that
/// the number cannot have been given to somebody else.
pub(crate) struct Owned {
    child: Child,
    group: Pid,
    gentle: bool,
    status: Option<ExitStatus>,
}

impl Owned {
    /// Starts `command` in a process group of its own.
    ///
    /// Call it from a thread that lives at least as long as the child: Linux sends the parent-death signal when the
    /// *thread* that started the child ends.
    pub(crate) fn spawn(command: &mut Command, gentle: bool) -> io::Result<Self> {
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; `prctl` is a plain system call.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)
            });
        }
        let mut live = live();
        let child = command.spawn()?;
        let group = Pid::from_child(&child);
        live.push(Live { group, gentle });
        Ok(Self { child, group, gentle, status: None })
    }

    /// The standard streams of the child, as far as they were asked for as pipes.
    pub(crate) fn streams(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the child to end by itself.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        // Wait without reaping first, so that the signal thread never sees a stale process number in the list.
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        loop {
            match rustix::process::waitid(rustix::process::WaitId::Pid(self.group), options) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for a child process"),
                Ok(_) => break,
            }
        }
        live().retain(|other| other.group != self.group);
        let status = self.child.wait().context("waiting for a child process")?;
        self.status = Some(status);
        Ok(status)
    }

    /// Ends the child and its process group at once.
    pub(crate) fn kill(&self) {
        if self.status.is_none() {
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        }
    }

    /// The child's process group, whose number is the child's.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Something another thread can end the child with.
    pub(crate) fn killer(&self) -> Killer {
        Killer { group: self.group }
    }

    /// Ends the child after `limit` unless the timer is dropped before.
    pub(crate) fn kill_after(&self, limit: Duration) -> KillTimer {
        let (cancel, cancelled) = mpsc::channel::<()>();
        let fired = Arc::new(AtomicBool::new(false));
        let (killer, flag) = (self.killer(), Arc::clone(&fired));
        thread::spawn(move || {
            if cancelled.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::Relaxed);
                killer.kill();
            }
        });
        KillTimer { fired, _cancel: cancel }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        stop(&[Live { group: self.group, gentle: self.gentle }]);
        let _ = self.wait();
    }
}

/// Ends a child from another thread; does nothing once the child has been waited for.
#[derive(Clone, Copy)]
pub(crate) struct Killer {
    group: Pid,
}

impl Killer {
    pub(crate) fn kill(self) {
        let live = live();
        if live.iter().any(|other| other.group == self.group) {
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        }
    }
}

/// A running time limit; dropping it cancels it.
pub(crate) struct KillTimer {
    fired: Arc<AtomicBool>,
    _cancel: Sender<()>,
}

impl KillTimer {
    pub(crate) fn fired(&self) -> bool {
        self.fired.load(Ordering::Relaxed)
    }
}

/// Makes SIGINT, SIGTERM, SIGHUP and SIGQUIT restore the terminal, end all children and exit with 128 + signal.
pub(crate) fn install_signal_handler() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]).context("installing a signal handler")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            terminal::restore();
            let live = live();
            stop(&live);
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn stop(children: &[Live]) {
    for child in children {
        let signal = if child.gentle { Signal::TERM } else { Signal::KILL };
        let _ = rustix::process::kill_process_group(child.group, signal);
    }
    let deadline = Instant::now() + GRACE;
    for child in children.iter().filter(|child| child.gentle) {
        while !ended(child.group) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(50));
        }
        let _ = rustix::process::kill_process_group(child.group, Signal::KILL);
    }
}

/// Whether the leader of `group`, a child of ours, has ended; it is not reaped.
fn ended(group: Pid) -> bool {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::Pid(group), options), Ok(None))
}

fn live() -> MutexGuard<'static, Vec<Live>> {
    // A panic elsewhere must not keep us from ending children.
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    use super::*;

    fn alive(pid: i32) -> bool {
        // A zombie still has a /proc entry, so look at its state.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim().starts_with(['Z', 'X']))
    }

    #[test]
    fn dropping_ends_the_child_and_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]).stdout(Stdio::piped());
        let mut child = Owned::spawn(&mut command, false).unwrap();
        let mut line = String::new();
        BufReader::new(child.streams().stdout.take().unwrap()).read_line(&mut line).unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        assert!(alive(grandchild));
        drop(child);
        let deadline = Instant::now() + Duration::from_secs(5);
        while alive(grandchild) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!alive(grandchild), "the grandchild outlived the group");
    }

    #[test]
    fn a_gentle_child_may_clean_up() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("cleaned");
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap 'echo x > \"$MARK\"; exit' TERM; echo ready; while :; do sleep 0.05; done"])
            .env("MARK", &mark)
            .stdout(Stdio::piped());
        let mut child = Owned::spawn(&mut command, true).unwrap();
        let mut line = String::new();
        BufReader::new(child.streams().stdout.take().unwrap()).read_line(&mut line).unwrap();
        drop(child);
        assert!(mark.exists());
    }

    #[test]
    fn waiting_gives_the_exit_status() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 33"]);
        let mut child = Owned::spawn(&mut command, false).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(33));
        assert_eq!(child.wait().unwrap().code(), Some(33));
    }
}
