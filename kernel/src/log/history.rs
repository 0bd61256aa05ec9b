//! The lines that have been shown, for `dmesg`: a fixed number of bytes, the oldest lines going first.

/// Keeps the newest lines that fit into `N` bytes.
///
/// # Invariants
/// `length <= N`; the kept bytes are `length` bytes from `start` on, around the end; they begin at the beginning of a line.
#[derive(Debug)]
pub(super) struct History<const N: usize> {
    bytes: [u8; N],
    start: usize,
    length: usize,
}

impl<const N: usize> History<N> {
    /// No lines.
    pub(super) const fn new() -> History<N> {
        History { bytes: [0; N], start: 0, length: 0 }
    }

    /// Adds a line, given without its newline, dropping as many of the oldest lines as that takes. A line that would not
    /// fit alone is not kept.
    pub(super) fn push_line(&mut self, line: &[u8]) {
        if line.len() >= N {
            return;
        }
        while self.length + line.len() + 1 > N {
            let oldest =
                self.iter().position(|byte| byte == b'\n').map_or(self.length, |newline| newline + 1);
            self.start = (self.start + oldest) % N;
            self.length -= oldest;
        }
        for &byte in line.iter().chain(b"\n") {
            self.bytes[(self.start + self.length) % N] = byte;
            self.length += 1;
        }
    }

    /// The kept bytes, oldest first, in two pieces because the store is a circle.
    pub(super) fn pieces(&self) -> [&[u8]; 2] {
        let first = self.length.min(N - self.start);
        [&self.bytes[self.start..self.start + first], &self.bytes[..self.length - first]]
    }

    fn iter(&self) -> impl Iterator<Item = u8> {
        self.pieces().into_iter().flatten().copied()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::VecDeque;
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(test_support::cases(256)))]

        #[test]
        fn equals_a_queue_of_lines(lines in proptest::collection::vec("[a-z]{0,12}\n", 0..60)) {
            let mut history = History::<32>::new();
            let mut model: VecDeque<&String> = VecDeque::new();
            for line in &lines {
                history.push_line(line.trim_end().as_bytes());
                model.push_back(line);
                while model.iter().map(|line| line.len()).sum::<usize>() > 32 {
                    model.pop_front();
                }
                let kept: Vec<u8> = history.iter().collect();
                let expected: String = model.iter().map(|line| line.as_str()).collect();
                prop_assert_eq!(String::from_utf8(kept).unwrap(), expected);
            }
        }
    }

    #[test]
    fn what_can_never_fit_changes_nothing() {
        let mut history = History::<4>::new();
        history.push_line(b"abc");
        history.push_line(b"abcd");
        assert_eq!(history.pieces().concat(), b"abc\n");
    }
}
