//! The terminal in raw mode, and back, whatever happens.
//!
//! The guest's console edits its own lines and wants every key, Ctrl-C included. So input goes raw; output keeps the
//! newline translation, because xtask's own messages and QEMU's share the screen with the guest.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, Once, PoisonError};

use anyhow::{Context, Result};
use rustix::termios::{self, OptionalActions, OutputModes, Termios};

/// What the terminal was like before; present exactly while it is raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Keeps standard input raw until it is dropped.
#[must_use = "dropping this restores the terminal"]
pub(crate) struct RawMode(());

impl RawMode {
    /// Switches standard input to raw mode. Call it only when standard input is a terminal.
    pub(crate) fn enter() -> Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(stdin.as_fd()).context("reading the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes |= before.output_modes & (OutputModes::OPOST | OutputModes::ONLCR);
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        restore_on_panic();
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw)
            .context("switching the terminal to raw mode")?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was; may be called at any time, from any thread, any number of times.
pub(crate) fn restore() {
    if let Some(before) = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = termios::tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &before);
    }
}

/// A panic message in a raw terminal would be unreadable.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            previous(info);
        }));
    });
}
