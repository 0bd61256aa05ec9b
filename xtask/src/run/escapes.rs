//! The keys that xtask keeps for itself: Ctrl-A and a letter, as in QEMU and in screen.

/// Ctrl-A.
const PREFIX: u8 = 1;

/// What to do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Give this byte to the guest.
    Send(u8),
    /// Wait for the next key.
    Hold,
    /// Leave.
    Leave,
    /// List the keys.
    Help,
}

/// Remembers whether the last key was Ctrl-A.
#[derive(Debug, Default)]
pub(super) struct Escapes {
    armed: bool,
}

impl Escapes {
    pub(super) fn key(&mut self, byte: u8) -> Key {
        if !std::mem::take(&mut self.armed) {
            self.armed = byte == PREFIX;
            return if self.armed { Key::Hold } else { Key::Send(byte) };
        }
        match byte {
            b'x' | b'X' => Key::Leave,
            b'h' | b'H' | b'?' => Key::Help,
            // Ctrl-A itself has a meaning in line editing; a second one gets through.
            b'a' | b'A' | PREFIX => Key::Send(PREFIX),
            other => Key::Send(other),
        }
    }
}

/// The help text.
pub(super) const HELP: &str =
    "\n  Ctrl-A X  leave (ends the guest)\n  Ctrl-A A  send Ctrl-A to the guest\n  Ctrl-A H  this list\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(input: &[u8]) -> Vec<Key> {
        let mut escapes = Escapes::default();
        input.iter().map(|&byte| escapes.key(byte)).collect()
    }

    #[test]
    fn only_the_prefix_is_special() {
        assert_eq!(keys(b"ax\x03"), [Key::Send(b'a'), Key::Send(b'x'), Key::Send(3)]);
        assert_eq!(keys(b"\x01x"), [Key::Hold, Key::Leave]);
        assert_eq!(keys(b"\x01\x01x"), [Key::Hold, Key::Send(1), Key::Send(b'x')]);
        assert_eq!(keys(b"\x01az"), [Key::Hold, Key::Send(1), Key::Send(b'z')]);
        assert_eq!(keys(b"\x01hq"), [Key::Hold, Key::Help, Key::Send(b'q')]);
    }
}
