//! Faults that the host makes while a guest runs.
//!
//! 1. A thread draws what happens next, and when, from the seed: the same seed gives the same faults at the same times after
//!    the start. Where they hit the guest is up to the host's scheduler.
//! 2. NMIs and pauses go through QEMU's machine protocol. A single virtual CPU is a thread of QEMU, which the tracing of
//!    processes can stop alone: whoever waits for that CPU (a lock's next owner, a grace period) sees a CPU that is gone in
//!    the middle of whatever it did. That is what an over-committed host does to its guests, only worse.
//! 3. A jump is a stop of the whole process: unlike after a pause, the guest's clocks have gone on meanwhile.
//! 4. Virtual CPUs are plugged in and asked for again ([`sockets`](super::sockets)).
//! 5. Nothing stays stopped: a fault is over before the next is drawn, and the thread ends only between two of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid as Thread;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::qmp::Qmp;
use super::scenario::Fault;
use super::sockets::Sockets;

/// A thread that is to stop may first have to come out of a system call.
const STOPPING: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);

/// How many faults of each kind there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made(pub(super) BTreeMap<Fault, u64>);

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.0.iter().map(|(kind, times)| format!("{times} {kind}")).collect();
        f.write_str(&words.join(", "))
    }
}

/// A connection that the faults and whoever looks at a failed guest share.
pub(super) type Shared = Arc<Mutex<Qmp>>;

/// The connection, for one command.
pub(super) fn lock(qmp: &Shared) -> MutexGuard<'_, Qmp> {
    qmp.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to happen, drawn from a seed.
struct Plan {
    rng: Rng,
    kinds: Vec<Fault>,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    /// Since the end of the one before.
    after: Duration,
    kind: Fault,
    /// Which CPU, where it is one.
    cpu: usize,
    /// How long it lasts, where it does.
    lasts: Duration,
}

impl Plan {
    fn new(seed: u64, kinds: &[Fault]) -> Self {
        Self { rng: Rng::with_seed(seed), kinds: kinds.to_vec() }
    }

    fn next(&mut self, cpus: usize) -> Next {
        // Faults that take a second are rare beside those that take no time.
        let weight = |kind: &Fault| match kind {
            Fault::Nmi => 12,
            Fault::Vcpu => 12,
            Fault::Plug => 4,
            Fault::Pause | Fault::Jump => 1,
        };
        let all: u32 = self.kinds.iter().map(weight).sum();
        let mut draw = self.rng.u32(..all);
        let kind = *self
            .kinds
            .iter()
            .find(|kind| {
                let hit = draw < weight(kind);
                draw = draw.saturating_sub(weight(kind));
                hit
            })
            .expect("what is drawn is less than the sum of the weights");
        let lasts = match kind {
            Fault::Nmi | Fault::Plug => 0,
            // Most are short, so that there are many; some are longer than any section that is held.
            Fault::Vcpu if self.rng.u8(..4) > 0 => self.rng.u64(1..20),
            Fault::Vcpu => self.rng.u64(20..200),
            Fault::Pause | Fault::Jump => self.rng.u64(500..2_000),
        };
        Next {
            after: Duration::from_millis(self.rng.u64(1..80)),
            kind,
            cpu: self.rng.usize(..cpus.max(1)),
            lasts: Duration::from_millis(lasts),
        }
    }
}

/// The thread that makes faults; dropping it ends it.
pub(super) struct Driver {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<Made>>>,
}

impl Driver {
    /// Starts to make faults of these kinds to the guest that runs in the process group `group`.
    pub(super) fn start(qmp: &Shared, group: Pid, seed: u64, kinds: &[Fault]) -> Result<Self> {
        if kinds.is_empty() {
            return Ok(Self { stop: None, thread: None });
        }
        let cpus = lock(qmp).threads()?;
        ensure!(!cpus.is_empty(), "QEMU does not say which threads are the guest's CPUs");
        let plug = kinds.contains(&Fault::Plug);
        let sockets = plug.then(|| Sockets::new(&mut lock(qmp), seed)).transpose()?;
        let (stop, stopped) = mpsc::channel();
        let (plan, qmp) = (Plan::new(seed, kinds), Arc::clone(qmp));
        let thread = thread::spawn(move || drive(plan, &qmp, group, cpus, sockets, &stopped));
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }

    /// Ends it; the guest runs again. Says what there was; an error is one that came while the guest was alive.
    pub(super) fn finish(mut self) -> Result<Made> {
        drop(self.stop.take());
        match self.thread.take() {
            None => Ok(Made::default()),
            Some(thread) => {
                thread.join().unwrap_or_else(|_| panic!("the thread that makes faults has panicked"))
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drive(
    mut plan: Plan,
    qmp: &Shared,
    group: Pid,
    cpus: Vec<i32>,
    mut sockets: Option<Sockets>,
    stopped: &Receiver<()>,
) -> Result<Made> {
    let mut made = Made::default();
    loop {
        let next = plan.next(cpus.len());
        match stopped.recv_timeout(next.after) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return Ok(made),
        }
        // QEMU may be about to end, with which the faults end too; whoever reads its output finds out why.
        let happened = match next.kind {
            Fault::Nmi => lock(qmp).ask("inject-nmi", json!({})).map(|_| true),
            // Threads come and go with CPUs.
            Fault::Vcpu if sockets.is_some() => lock(qmp)
                .threads()
                .and_then(|threads| stop_thread(threads[next.cpu % threads.len()], next.lasts)),
            Fault::Vcpu => stop_thread(cpus[next.cpu], next.lasts),
            Fault::Plug => sockets.as_mut().map_or(Ok(false), |sockets| sockets.change(&mut lock(qmp))),
            Fault::Pause => pause(qmp, next.lasts),
            Fault::Jump => jump(group, next.lasts),
        };
        match happened {
            Ok(true) => *made.0.entry(next.kind).or_default() += 1,
            Ok(false) => {}
            Err(_) if is_gone(group) => return Ok(made),
            Err(error) => return Err(error.context(format!("making the fault `{}`", next.kind))),
        }
    }
}

/// Whether QEMU has ended or is about to. It may answer no more a moment before its end.
fn is_gone(group: Pid) -> bool {
    thread::sleep(Duration::from_millis(300));
    let state = std::fs::read_to_string(format!("/proc/{}/stat", group.as_raw_nonzero()));
    // `number (name) state ..`; the name may contain anything.
    state.map_or(true, |text| {
        text.rsplit(')').next().is_none_or(|rest| rest.trim_start().starts_with(['Z', 'X']))
    })
}

fn pause(qmp: &Shared, lasts: Duration) -> Result<bool> {
    let mut qmp = lock(qmp);
    qmp.ask("stop", json!({}))?;
    thread::sleep(lasts);
    qmp.ask("cont", json!({}))?;
    Ok(true)
}

fn jump(group: Pid, lasts: Duration) -> Result<bool> {
    kill_process_group(group, Signal::STOP)?;
    thread::sleep(lasts);
    kill_process_group(group, Signal::CONT)?;
    Ok(true)
}

/// Stops one thread. False if it has ended.
fn stop_thread(id: i32, lasts: Duration) -> Result<bool> {
    let thread = Thread::from_raw(id);
    match ptrace::seize(thread, ptrace::Options::empty()) {
        Ok(()) => {}
        Err(nix::Error::ESRCH) => return Ok(false),
        Err(error) => {
            return Err(error).context("stopping a thread of QEMU (is tracing forbidden on this system?)");
        }
    }
    let stopped = match ptrace::interrupt(thread) {
        Ok(()) => wait_for_stop(thread)?,
        Err(_) => false,
    };
    if stopped {
        thread::sleep(lasts);
    }
    match ptrace::detach(thread, None) {
        Ok(()) => Ok(stopped),
        Err(_) => {
            // It has ended. Until whoever traces it has waited for it, the process would not end.
            let _ = waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
            Ok(false)
        }
    }
}

/// Waits until `thread` stands still; false if it ended instead.
fn wait_for_stop(thread: Thread) -> Result<bool> {
    let begun = std::time::Instant::now();
    loop {
        match waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::EINTR) => {}
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return Ok(false),
            Ok(_) => return Ok(true),
        }
        ensure!(begun.elapsed() < STOPPING, "a thread of QEMU does not stop");
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;
    use crate::process::Owned;

    const ALL: [Fault; 4] = [Fault::Nmi, Fault::Vcpu, Fault::Pause, Fault::Jump];

    fn draw(seed: u64, kinds: &[Fault]) -> Vec<Next> {
        let mut plan = Plan::new(seed, kinds);
        (0..400).map(|_| plan.next(4)).collect()
    }

    #[test]
    fn a_seed_says_what_happens() {
        assert_eq!(draw(7, &ALL), draw(7, &ALL));
        assert_ne!(draw(7, &ALL), draw(8, &ALL));
        let all = draw(7, &ALL);
        for kind in ALL {
            assert!(all.iter().any(|next| next.kind == kind), "{kind}");
        }
        for cpu in 0..4 {
            assert!(all.iter().any(|next| next.cpu == cpu));
        }
        assert!(draw(7, &[Fault::Vcpu]).iter().all(|next| next.kind == Fault::Vcpu && !next.lasts.is_zero()));
    }

    /// The state letter of a thread, as `/proc` has it.
    fn state(id: i32) -> char {
        let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        text.rsplit(')').next().unwrap().trim_start().chars().next().unwrap()
    }

    #[test]
    fn a_thread_is_stopped_and_goes_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let mut child = Owned::spawn(&mut command, false).unwrap();
        let id = child.streams().id().cast_signed();
        let stopper = thread::spawn(move || stop_thread(id, Duration::from_millis(300)));
        let begun = Instant::now();
        while state(id) != 't' {
            assert!(begun.elapsed() < Duration::from_secs(20), "it was never stopped");
            thread::sleep(LOOK);
        }
        assert!(stopper.join().unwrap().unwrap());
        assert_ne!(state(id), 't');
        child.kill();
        child.wait().unwrap();
        assert!(!stop_thread(id, Duration::ZERO).unwrap(), "it has ended");
        assert!(is_gone(Pid::from_raw(id).unwrap()));
    }

    #[test]
    fn what_happened_is_told() {
        let made = Made(BTreeMap::from([(Fault::Vcpu, 3), (Fault::Nmi, 2)]));
        assert_eq!(made.to_string(), "2 nmi, 3 vcpu");
    }
}
