//! What a terminal sends, as keys.
//!
//! Terminals send UTF-8, control characters, and escape sequences for everything else. Bytes arrive one at a time, and
//! anything may arrive: what is not understood is swallowed whole, never taken for text.

/// One key that was pressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// A character to insert; never a control character.
    Char(char),
    /// Control and this lower-case letter, as far as it has no key of its own.
    Control(char),
    Enter,
    Tab,
    Backspace,
    Delete,
    Left,
    Right,
    Up,
    Down,
    Home,
    End,
    WordLeft,
    WordRight,
}

/// Turns bytes into keys.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    state: State,
    /// The last byte was a carriage return, which is Enter, and a newline behind it belongs to it.
    after_return: bool,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After ESC.
    Escape,
    /// After ESC O, one byte to come.
    Single,
    /// After ESC [: the first parameter, and the last one once there is a second.
    Sequence { first: u16, last: Option<u16> },
    /// In a character of several bytes: those that are there, and how many it will have.
    Character { bytes: [u8; 4], have: usize, need: usize },
}

impl Decoder {
    pub(super) const fn new() -> Decoder {
        Decoder { state: State::Ground, after_return: false }
    }

    /// Takes a byte in, and hands out the keys that it completes: none or one; two if it breaks off a character.
    pub(super) fn feed(&mut self, byte: u8, mut key: impl FnMut(Key)) {
        let after_return = core::mem::take(&mut self.after_return);
        match core::mem::take(&mut self.state) {
            State::Ground if after_return && byte == b'\n' => {}
            State::Ground => self.ground(byte, key),
            State::Escape => match byte {
                b'[' => self.state = State::Sequence { first: 0, last: None },
                b'O' => self.state = State::Single,
                0x1b => self.state = State::Escape,
                b'b' => key(Key::WordLeft),
                b'f' => key(Key::WordRight),
                _ => {}
            },
            State::Single => self.finish(byte, 0, None, key),
            State::Sequence { first, last } => match byte {
                b'0'..=b'9' => {
                    let extend =
                        |number: u16| number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                    self.state = match last {
                        None => State::Sequence { first: extend(first), last },
                        Some(last) => State::Sequence { first, last: Some(extend(last)) },
                    };
                }
                b';' => self.state = State::Sequence { first, last: Some(0) },
                0x20..=0x3f => self.state = State::Sequence { first, last },
                0x1b => self.state = State::Escape,
                _ => self.finish(byte, first, last, key),
            },
            State::Character { mut bytes, have, need } => {
                if byte & 0xc0 != 0x80 {
                    key(Key::Char(char::REPLACEMENT_CHARACTER));
                    return self.ground(byte, key);
                }
                bytes[have] = byte;
                if have + 1 < need {
                    self.state = State::Character { bytes, have: have + 1, need };
                } else {
                    let decoded =
                        core::str::from_utf8(&bytes[..need]).ok().and_then(|text| text.chars().next());
                    let printable = decoded.filter(|c| !c.is_control());
                    key(Key::Char(printable.unwrap_or(char::REPLACEMENT_CHARACTER)));
                }
            }
        }
    }

    fn ground(&mut self, byte: u8, mut key: impl FnMut(Key)) {
        let start = |need| State::Character { bytes: [byte, 0, 0, 0], have: 1, need };
        match byte {
            0x1b => self.state = State::Escape,
            b'\r' => {
                self.after_return = true;
                key(Key::Enter);
            }
            b'\n' => key(Key::Enter),
            b'\t' => key(Key::Tab),
            0x08 | 0x7f => key(Key::Backspace),
            1..0x1b => key(Key::Control((byte - 1 + b'a').into())),
            0x20..0x7f => key(Key::Char(byte.into())),
            0xc2..=0xdf => self.state = start(2),
            0xe0..=0xef => self.state = start(3),
            0xf0..=0xf4 => self.state = start(4),
            0x80.. => key(Key::Char(char::REPLACEMENT_CHARACTER)),
            // NUL, and the control characters that have no letter.
            0 | 0x1c..0x20 => {}
        }
    }

    fn finish(&mut self, last_byte: u8, first: u16, last: Option<u16>, mut key: impl FnMut(Key)) {
        let with_control = last == Some(5);
        key(match (last_byte, first) {
            (b'C', _) if with_control => Key::WordRight,
            (b'D', _) if with_control => Key::WordLeft,
            (b'A', _) => Key::Up,
            (b'B', _) => Key::Down,
            (b'C', _) => Key::Right,
            (b'D', _) => Key::Left,
            (b'H', _) | (b'~', 1 | 7) => Key::Home,
            (b'F', _) | (b'~', 4 | 8) => Key::End,
            (b'~', 3) => Key::Delete,
            _ => return,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let (mut decoder, mut keys) = (Decoder::new(), Vec::new());
        bytes.iter().for_each(|byte| decoder.feed(*byte, |key| keys.push(key)));
        keys
    }

    #[test]
    fn sequences_of_the_usual_terminals() {
        for (bytes, expected) in [
            (&b"\x1b[A\x1bOA"[..], vec![Key::Up, Key::Up]),
            (b"\x1b[B\x1b[C\x1b[D", vec![Key::Down, Key::Right, Key::Left]),
            (b"\x1b[H\x1b[1~\x1b[7~\x1bOH", vec![Key::Home; 4]),
            (b"\x1b[F\x1b[4~\x1b[8~\x1bOF", vec![Key::End; 4]),
            (b"\x1b[3~", vec![Key::Delete]),
            (
                b"\x1b[1;5C\x1b[1;5D\x1bb\x1bf",
                vec![Key::WordRight, Key::WordLeft, Key::WordLeft, Key::WordRight],
            ),
            (b"\x1b[5~\x1b[6~\x1b[15~\x1b[99999999;1m", vec![]),
            (b"\x1b\x1b[A", vec![Key::Up]),
            (b"\x1b[1\x1b[A", vec![Key::Up]),
            (b"\r\n\r\n\n", vec![Key::Enter; 3]),
            (
                b"\x01\x0b\x7f\x08\t",
                vec![Key::Control('a'), Key::Control('k'), Key::Backspace, Key::Backspace, Key::Tab],
            ),
            (b"\0\x1f", vec![]),
        ] {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn broken_characters_are_replaced_and_hide_nothing() {
        const BROKEN: Key = Key::Char(char::REPLACEMENT_CHARACTER);
        assert_eq!(keys(b"\xc3a"), [BROKEN, Key::Char('a')]);
        assert_eq!(keys(b"\xff\x80b"), [BROKEN, BROKEN, Key::Char('b')]);
        assert_eq!(keys(b"\xe2\x82\r"), [BROKEN, Key::Enter]);
        assert_eq!(keys("\u{85}x".as_bytes()), [BROKEN, Key::Char('x')]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn text_comes_through(text in "\\PC{0,40}") {
            let expected: Vec<Key> = text.chars().map(Key::Char).collect();
            prop_assert_eq!(keys(text.as_bytes()), expected);
        }

        #[test]
        fn after_anything_a_line_end_is_understood_soon(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = bytes;
            bytes.extend_from_slice(b"mm\r");
            let keys = keys(&bytes);
            prop_assert_eq!(keys.last(), Some(&Key::Enter));
        }
    }
}
