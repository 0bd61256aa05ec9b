//! The bytes between this terminal and the guest's serial line.
//!
//! Output is read by the thread that started QEMU, symbolised and shown at once. Input has a thread of its own, which
//! outlives a reboot of the guest and finds the current guest's input through [`Keyboard`].

use std::io::{self, IsTerminal, Read as _, Write};
use std::path::Path;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::escapes::{Escapes, HELP, Key};
use crate::process::Killer;
use crate::qemu::{Ending, Guest, Read, Running, Stderr};
use crate::symbolise::{ElfResolver, Symboliser};
use crate::terminal::RawMode;
use crate::ui;

/// How long the beginning of an address may be held back.
const HOLD: Duration = Duration::from_millis(100);
/// How often a quiet guest's time limit is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How much of the last output is remembered, to tell a reboot from a triple fault.
const TAIL: usize = 256;
/// What is on the screen just before the guest reboots on command: the command itself.
const REBOOTING: &[u8] = b"reboot";

/// A conversation with a guest.
pub(super) struct Session<'a> {
    pub(super) guest: &'a Guest,
    pub(super) symbols: &'a Path,
    pub(super) limit: Option<Duration>,
    pub(super) takes_input: bool,
}

/// Why a conversation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The person left.
    Left,
    /// The guest ended.
    Ended(Ending),
}

/// What the input thread needs to know about the current guest.
#[derive(Default)]
struct Keyboard {
    current: Mutex<Option<(ChildStdin, Killer)>>,
    left: AtomicBool,
}

impl Session<'_> {
    /// Boots the guest, again whenever it reboots on command, until it ends otherwise.
    pub(super) fn run(&self) -> Result<Stop> {
        let keyboard = Arc::new(Keyboard::default());
        let raw = if self.takes_input && io::stdin().is_terminal() { Some(RawMode::enter()?) } else { None };
        if self.takes_input {
            let (keyboard, is_raw) = (Arc::clone(&keyboard), raw.is_some());
            thread::spawn(move || feed(&keyboard, is_raw));
        }
        loop {
            let (ending, rebooted) = self.boot(&keyboard)?;
            if keyboard.left.load(Ordering::Relaxed) {
                drop(raw);
                eprintln!();
                return Ok(Stop::Left);
            }
            if !(rebooted && self.takes_input) {
                return Ok(Stop::Ended(if rebooted { Ending::Success } else { ending }));
            }
            ui::note("the guest reboots");
        }
    }

    /// One boot; how it ended, and whether that was a reboot on command.
    fn boot(&self, keyboard: &Keyboard) -> Result<(Ending, bool)> {
        let mut guest = Running::start(self.guest.command()?, Stderr::Shown)?;
        let deadline = self.limit.map(|limit| Instant::now() + limit);
        let input = guest.take_input();
        *keyboard.current.lock().unwrap_or_else(PoisonError::into_inner) =
            input.map(|input| (input, guest.killer()));
        let mut screen = Screen::new(self.symbols);
        let mut buffer = [0; 4096];
        loop {
            let patience = if screen.symboliser.holds() { HOLD } else { LOOK };
            match guest.read(&mut buffer, patience)? {
                Read::Bytes(n) => screen.show(&buffer[..n])?,
                Read::Quiet => screen.flush()?,
                Read::End => break,
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                guest.kill()?;
                screen.flush()?;
                screen.end_line();
                return Ok((Ending::TimedOut, false));
            }
        }
        screen.flush()?;
        *keyboard.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let (ending, _) = guest.finish()?;
        screen.end_line();
        let rebooted =
            ending == Ending::Reset && screen.tail.windows(REBOOTING.len()).any(|window| window == REBOOTING);
        Ok((ending, rebooted))
    }
}

/// Standard output, as the guest's screen.
struct Screen {
    symboliser: Symboliser<ElfResolver>,
    /// A file or a pipe gets plain line ends.
    plain: bool,
    tail: Vec<u8>,
    out: Vec<u8>,
}

impl Screen {
    fn new(symbols: &Path) -> Self {
        Self {
            symboliser: Symboliser::new(ElfResolver::new(symbols)),
            plain: !io::stdout().is_terminal(),
            tail: Vec::new(),
            out: Vec::new(),
        }
    }

    fn show(&mut self, bytes: &[u8]) -> Result<()> {
        self.symboliser.push(bytes, &mut self.out);
        self.write()
    }

    fn flush(&mut self) -> Result<()> {
        self.symboliser.flush(&mut self.out);
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        if self.plain {
            self.out.retain(|&byte| byte != b'\r');
        }
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.out)?;
        stdout.flush()?;
        self.tail.append(&mut self.out);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        Ok(())
    }

    /// xtask's own words begin on a line of their own.
    fn end_line(&self) {
        if self.tail.last().is_some_and(|&byte| byte != b'\n') {
            println!();
        }
    }
}

/// Hands standard input to whichever guest runs, until it ends or the person leaves.
fn feed(keyboard: &Keyboard, is_raw: bool) {
    let mut escapes = Escapes::default();
    let mut buffer = [0; 1024];
    // The end of the input does not end the guest: `--timeout` or the guest itself does.
    while let Ok(n @ 1..) = io::stdin().lock().read(&mut buffer) {
        let mut send = Vec::with_capacity(n);
        for &byte in &buffer[..n] {
            match if is_raw { escapes.key(byte) } else { Key::Send(byte) } {
                Key::Send(byte) => send.push(byte),
                Key::Hold => {}
                Key::Help => eprint!("{HELP}"),
                Key::Leave => {
                    keyboard.left.store(true, Ordering::Relaxed);
                    if let Some((_, killer)) =
                        &*keyboard.current.lock().unwrap_or_else(PoisonError::into_inner)
                    {
                        killer.kill();
                    }
                    return;
                }
            }
        }
        if let Some((input, _)) = &mut *keyboard.current.lock().unwrap_or_else(PoisonError::into_inner) {
            // The guest may just have ended; the next one gets the next keys.
            let _ = input.write_all(&send);
        }
    }
}
